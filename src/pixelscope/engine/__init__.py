"""The training loop, exact checkpoints, run record, moving averages: knows no model."""
