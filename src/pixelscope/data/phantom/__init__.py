"""Drawn endoscopy frames: the inside of a bowel as a colonoscope shows it, with or without a polyp and its exact mask."""

from pixelscope.data.phantom.folder import write_phantom
from pixelscope.data.phantom.frame import PhantomFrame, draw_frame

__all__ = ["PhantomFrame", "draw_frame", "write_phantom"]
