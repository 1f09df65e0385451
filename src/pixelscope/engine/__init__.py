"""Training loop, exact checkpoints, distributed training, moving averages. Knows no model."""
