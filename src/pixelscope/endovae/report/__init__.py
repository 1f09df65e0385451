"""The report on a run of EndoVAE, and the charts of a training that is still running.

`CHARTS` lists the numbers of stats.jsonl per chart, `SAMPLES` the images of samples/progress.npz, both with their labels.
"""

CHARTS = {
    "Reconstruction loss per image": {"loss/reconstruction": "training", "loss/validation_reconstruction": "validation"},
    "Divergence, nats per image": {"loss/kl": "training", "loss/validation_kl": "validation"},
    "Hinge loss of the discriminator": {"loss/discriminator": "training"},
}
SAMPLES = {"originals": "frames", "reconstructions": "reconstructed", "generated": "random codes, decoded"}
