"""Uses a trained EndoVAE: score, reconstruct, generate, export, and one frame at a time."""
