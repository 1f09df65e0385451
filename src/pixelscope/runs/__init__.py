"""A run folder on disk, all that later stages read; imports no torch."""
