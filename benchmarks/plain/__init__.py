"""The same work as it is written where nobody measures: NCHW float32, one image at a time in Python, Adam as it comes."""
