"""Anomaly scores of frames from a model of healthy frames. For research only, never a diagnosis."""
