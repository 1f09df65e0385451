"""PixelDA: labelled images redrawn in the style of an unlabelled domain, and a classifier that works there."""
