"""Applies a trained EndoVAE: score, reconstruct, generate, export, and interactive use on one frame."""
