"""Synthetic endoscopy frames: a colon as a colonoscope shows it, with or without a polyp and its exact mask."""

from pixelscope.data.phantom.frame import PhantomFrame, draw_frame, write_phantom

__all__ = ["PhantomFrame", "draw_frame", "write_phantom"]
