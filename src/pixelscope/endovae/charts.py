"""Charts of a training while it runs: the numbers of stats.jsonl that each one shows, with their labels."""

ENDOVAE = {
    "Reconstruction, nats per image": {"loss/reconstruction": "training", "loss/validation_reconstruction": "validation"},
    "Divergence, nats per image": {"loss/kl": "training", "loss/validation_kl": "validation"},
}

SAMPLES = {"originals": "frames", "reconstructions": "reconstructed", "generated": "generated"}
"""Images of samples/progress.npz, with their titles."""
