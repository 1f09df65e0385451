"""Kinds of sources of images, one file a kind."""
