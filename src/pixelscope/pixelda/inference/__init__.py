"""Uses a trained PixelDA: classify, adapt, export, and one image at a time; imports neither training nor evaluation."""
