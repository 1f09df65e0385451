"""Measures generated frames: how near they are to real ones, how varied, and whether they are copies."""
