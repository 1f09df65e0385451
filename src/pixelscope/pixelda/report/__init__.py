"""The report on a run, and the charts of a training that is still running: numbers of stats.jsonl with their labels."""

_ACCURACY = {"Accuracy on the source": {"accuracy/source_test": "test", "accuracy/source_test_ema": "test, average"}}

PIXELDA = {
    "Loss": {"loss/generator": "G", "loss/discriminator": "D", "loss/classifier": "T"},
    "Output of D": {"probability/real": "real images", "probability/generated": "generated images"},
    **_ACCURACY,
}
BASELINE = {"Loss": {"loss/classifier": "T"}, **_ACCURACY}
REFINEMENT = {
    "Loss": {"loss/source": "source", "loss/generated": "generated", "loss/target": "target"},
    "Target images": {"pseudo_label_rate": "pseudo-labelled", "agreement": "agreement"},
}

SAMPLES = {"source": "source", "generated": "generated"}
"""Images of samples/progress.npz, with their titles."""
