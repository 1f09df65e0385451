"""Claims as experiments: a grid of settings, each trained with several seeds, and one report on the results."""
