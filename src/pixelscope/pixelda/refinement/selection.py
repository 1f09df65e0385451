"""Criteria that select a checkpoint without target labels, from predictions for unlabelled target images."""

from collections.abc import Mapping

from torch import Tensor

from pixelscope.pixelda.verdict import cluster_agreement, mutual_information

SELECTORS = {
    "cluster agreement": "adjusted mutual information of the predictions with k-means clusters of the features",
    "information maximisation": "entropy of the mean prediction minus the mean entropy of predictions, in nats",
    "source validation": "accuracy on held-out source images",
}
"""Description of each criterion; the checkpoint with the highest value is selected."""


def selector_values(logits: Tensor, features: Tensor, source_validation: float, seed: int = 0) -> dict[str, float]:
    """Return the value of each criterion.

    logits: (N, classes) of unlabelled target images; features: (N, F), inputs of the last layer.
    """
    return {
        "cluster agreement": cluster_agreement(logits, features, seed),
        "information maximisation": mutual_information(logits),
        "source validation": source_validation,
    }


def select_checkpoints(values: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """Return the images seen at the checkpoint that each criterion selects; the later one of equals.

    values: by images seen, then by criterion.
    """
    newest_first = sorted(values, reverse=True)
    return {name: max(newest_first, key=lambda images: values[images][name]) for name in SELECTORS}
