"""Run folders on disk; imports no torch."""
