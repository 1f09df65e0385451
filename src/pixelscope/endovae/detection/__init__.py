"""Anomaly detectors that are fitted to a view of healthy frames, and their cross-validation. For research only."""
