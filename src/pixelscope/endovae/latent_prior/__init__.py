"""Distributions of latent codes that new frames are drawn from."""
