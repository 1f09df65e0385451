"""A trained PixelDA at work: classify, adapt, export, and one image at a time; neither training nor evaluation is imported."""
