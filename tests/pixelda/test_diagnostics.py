"""Numbers that show the three causes of instability, and the sentences that name them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fixtures import tiny
from pixelscope.data.split import Split
from pixelscope.pixelda import diagnostics
from pixelscope.pixelda.metrics import SourceEvaluation
from pixelscope.pixelda.task import PixelDATask

HEALTHY: dict[str, Any] = {
    "probability/real": 0.7,
    "probability/generated": 0.3,
    "gradient/generator_domain": 0.2,
    "gradient/discriminator": 0.5,
    "accuracy/batch_source": 0.98,
    "accuracy/batch_generated": 0.95,
    "layout": 0.66,
    "histogram/source": [0.25, 0.25, 0.25, 0.25],
    "histogram/generated": [0.2, 0.3, 0.3, 0.2],
}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"probability/real": 0.995, "probability/generated": 0.01}, "overpowering discriminator"),
        ({"gradient/generator_domain": 1e-6}, "vanishing gradients"),
        ({"histogram/generated": [0.0, 0.4, 0.4, 0.2]}, "collapse"),
        ({"layout": 0.43, "accuracy/batch_generated": 0.45}, "content lost"),
        ({"layout": 0.43, "accuracy/judge_source": 0.98, "accuracy/judge_generated": 0.47}, "content lost"),
        ({"diversity": 1e-5, "accuracy/source_train": 0.99}, "collapse"),
    ],
)
def test_each_sign_of_trouble_raises_its_warning_and_no_other(change: dict[str, Any], cause: str) -> None:
    assert diagnostics.warnings(HEALTHY) == []
    assert [found for found, _ in diagnostics.warnings({**HEALTHY, **change})] == [cause]


@pytest.mark.parametrize("discriminator", [0.0, 0.13])
def test_the_gradient_of_a_domain_loss_that_is_off_has_not_vanished(discriminator: float) -> None:
    stats = {**HEALTHY, "gradient/generator_domain": 0.0, "gradient/discriminator": 5 * discriminator}
    for weight, causes in ((0.0, []), (0.011, ["vanishing gradients"])):
        losses = {"generator_domain": weight, "discriminator": discriminator}
        task = PixelDATask(tiny.pixelda(losses=losses), 3, tiny.fabric())
        assert [cause for cause, _ in task.warnings(stats)] == causes


def test_the_images_of_an_evaluation_are_of_every_class() -> None:
    images = tiny.image_set(60)
    assert images.labels is not None
    ordered = images.select(np.argsort(images.labels, kind="stable"))
    some = SourceEvaluation(Split(ordered, ordered, ordered, np.arange(60))).some(12)
    shown = [int(np.flatnonzero((ordered.images == one).all((1, 2, 3)))[0]) for one in some]
    assert len(shown) == 12 and np.bincount(ordered.labels[shown]).tolist() == [4, 4, 4]


def test_a_classifier_that_knows_nothing_yet_cannot_say_collapse() -> None:
    early = {**HEALTHY, "histogram/generated": [1.0, 0.0, 0.0, 0.0], "accuracy/batch_source": 0.3}
    assert diagnostics.warnings(early) == []
    assert diagnostics.warnings({}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"probability/real": 0.99, "probability/generated": 0.5},
        {"gradient/generator_domain": 5e-5, "gradient/discriminator": 5e-5},
        {"histogram/source": [0.02, 0.38, 0.3, 0.3], "histogram/generated": [0.01, 0.39, 0.3, 0.3]},
        {"diversity": 1e-5, "accuracy/source_train": 0.5},
        {"layout": 0.3, "accuracy/batch_source": 0.9, "accuracy/batch_generated": 0.56},
    ],
)
def test_numbers_are_compared_with_each_other_and_early_ones_do_not_count(change: dict[str, Any]) -> None:
    """D is sure of both; small gradients of both networks; a rare class; T has not learned the source; 0.62 of its accuracy."""
    assert diagnostics.warnings({**HEALTHY, **change}) == []


def test_verdicts_are_mean_probabilities() -> None:
    found = diagnostics.discriminator_stats(torch.tensor([0.0, 100.0]), torch.tensor([-100.0, -100.0]))
    assert float(found["probability/real"]) == pytest.approx(0.75)
    assert float(found["probability/generated"]) == pytest.approx(0, abs=1e-6)


def test_predictions_count_classes_and_hits() -> None:
    labels = torch.tensor([0, 1, 2, 2])
    source, adapted = torch.eye(3)[[0, 1, 2, 0]], torch.eye(3)[[0, 0, 0, 2]]
    found = diagnostics.predictions(source, adapted, labels)
    assert float(found["accuracy/batch_source"]) == 0.75
    assert float(found["accuracy/batch_generated"]) == 0.5
    assert found["histogram/source"].tolist() == [0.25, 0.25, 0.5]
    assert found["histogram/generated"].tolist() == [0.75, 0, 0.25]


class _Shift(nn.Module):
    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        return images + z[:, :1, None, None]


def test_diversity_is_the_deviation_over_z_for_one_image() -> None:
    z = torch.tensor([[0.0], [0.4], [0.8]])
    images = torch.rand(5, 3, 4, 4)  # images differ; that must not count
    assert diagnostics.diversity(_Shift(), images, z) == pytest.approx(float(z.std()), rel=1e-5)
    assert diagnostics.diversity(_Shift(), images, torch.zeros(3, 1)) == pytest.approx(0, abs=1e-6)


class _ShiftInUse(_Shift):
    """It shifts only in evaluation mode, as a network whose batch norm is in training mode gives other images."""

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        return images if self.training else super().forward(images, z)


@pytest.mark.parametrize("training", [True, False])
def test_diversity_is_that_of_the_generator_in_use_whose_mode_is_kept(training: bool) -> None:
    network, z = _ShiftInUse().train(training), torch.tensor([[0.0], [0.4], [0.8]])
    assert diagnostics.diversity(network, torch.rand(2, 3, 4, 4), z) == pytest.approx(0.4)
    assert network.training == training


def test_gradient_shares_are_the_norms_of_each_loss_alone() -> None:
    network = nn.Linear(3, 1)
    output = network(torch.ones(2, 3)).sum()
    shares = diagnostics.gradient_norms({"domain": output, "task": 3 * output}, network)
    output.backward()
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    assert float(shares["gradient/generator_domain"]) == pytest.approx(float(norm))
    assert float(shares["gradient/generator_task"]) == pytest.approx(3 * float(norm))


@pytest.mark.parametrize(
    "change",
    [
        # MNIST-M, adapted well (8,750 steps): the judge reads it as it reads MNIST-M itself, and the layout is kept.
        {"layout": 0.64, "accuracy/judge_source": 0.99, "accuracy/judge_generated": 0.51},
        # A texture over everything, whose classes the judge still reads.
        {"layout": 0.38, "accuracy/judge_source": 0.98, "accuracy/judge_generated": 0.86},
        # The judge decides, not T, which comes to agree with G.
        {"layout": 0.3, "accuracy/batch_generated": 0.1, "accuracy/judge_source": 0.98, "accuracy/judge_generated": 0.9},
        # Nobody can judge yet.
        {"layout": 0.1, "accuracy/judge_source": 0.6, "accuracy/judge_generated": 0.1},
    ],
)
def test_content_that_is_kept_raises_no_warning(change: dict[str, Any]) -> None:
    assert diagnostics.warnings({**HEALTHY, **change}) == []


def test_the_warning_on_content_says_how_many_and_what_to_do() -> None:
    lost = {"layout": 0.13, "accuracy/judge_source": 0.98, "accuracy/judge_generated": 0.18}
    ((_, text),) = diagnostics.warnings({**HEALTHY, **lost})
    assert "82% of generated images" in text
    assert "--losses.generator-task" in text
