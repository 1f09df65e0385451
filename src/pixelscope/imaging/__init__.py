"""What is done to pixels: tensors in, tensors out."""
