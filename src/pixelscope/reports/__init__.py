"""Run folders in, one page out."""
