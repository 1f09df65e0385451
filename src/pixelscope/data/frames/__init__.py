"""Endoscopy frames: discovery, preparation, and the frame store."""
