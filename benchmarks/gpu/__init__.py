"""Training steps on one GPU: eager, captured as CUDA graphs, compiled, and beside the plain programs; then whole trainings."""
