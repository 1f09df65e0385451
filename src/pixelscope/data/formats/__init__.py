"""Decodes image files."""
