"""Claims as experiments: a grid of settings and seeds, each a run of its own, and one page of what came of them."""
