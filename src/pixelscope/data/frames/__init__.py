"""Endoscopy frames: found, prepared once, kept in a store."""
