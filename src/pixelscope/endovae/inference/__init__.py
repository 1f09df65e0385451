"""A trained EndoVAE in use: score, reconstruct, generate, export, and one frame at a time."""
