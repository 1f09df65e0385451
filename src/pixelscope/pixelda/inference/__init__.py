"""Use a trained PixelDA: classify, adapt, export, one image at a time; imports neither training nor evaluation."""
