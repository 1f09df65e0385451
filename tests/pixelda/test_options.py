"""Each option does what it says, and nothing while it is off."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixtures import tiny
from pixelscope import InputError
from pixelscope.cli import main
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.pixelda.forward import draw_noise
from pixelscope.pixelda.networks import Classifier
from pixelscope.pixelda.task import PairedBatches, PixelDATask, build_networks
from pixelscope.rng import StepContext, generator


def _stepped(steps: int = 1, masks: ImageSet | None = None, **changes: Any) -> tuple[PixelDATask, dict[str, torch.Tensor]]:
    config, one = tiny.pixelda(**changes), tiny.fabric()
    task = PixelDATask(config, 3, one)
    batches = PairedBatches(tiny.image_set(), tiny.image_set(seed=1, coloured=True), config.seed, one.device, masks)
    numbers: dict[str, torch.Tensor] = {}
    for step in range(steps):
        context = StepContext(step * 8, step, 8, seed=0, log_now=True)
        numbers = dict(task.step(batches(context), context))
    return task, numbers


def _same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_uniform_and_normal_noise_of_the_size_asked() -> None:
    draw = lambda kind: draw_noise(tiny.pixelda(generator={"noise": kind, "noise_dim": 7}), 4000, generator("cpu", 0, "z"))  # noqa: E731
    uniform, normal = draw("uniform"), draw("normal")
    assert uniform.shape == normal.shape == (4000, 7)
    assert -1 <= float(uniform.min()) < -0.99 < 0.99 < float(uniform.max()) <= 1
    assert float(uniform.std()) == pytest.approx(3**-0.5, rel=0.02)
    assert float(normal.std()) == pytest.approx(1, rel=0.02)
    assert float(normal.abs().max()) > 3


def test_blocks_and_width_of_g() -> None:
    g, _, _ = build_networks(tiny.pixelda(generator={"blocks": 3, "width": 6}), 3)
    assert len(g.blocks) == 3
    assert g.conv_in.out_channels == 6


def test_initial_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_networks(tiny.pixelda(), 3)
    torch.manual_seed(2)
    assert all(_same(a, b) for a, b in zip(first, build_networks(tiny.pixelda(), 3), strict=True))
    assert not _same(first[0], build_networks(tiny.pixelda(seed=1), 3)[0])
    weights = torch.cat([p.detach().flatten() for p in Classifier().parameters() if p.ndim > 1])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    assert all(not bool(p.any()) for n, p in Classifier().named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize("change", [{"noise_std": 0.0}, {"dropout": 0.0}])
def test_noise_and_dropout_reach_d(change: dict[str, float]) -> None:
    with_it, _ = _stepped()
    without, _ = _stepped(discriminator=change)
    assert not _same(with_it.discriminator, without.discriminator)


def test_the_classifier_on_source_only_does_not_see_generated_images() -> None:
    _, both = _stepped()
    _, source = _stepped(losses={"classifier_inputs": "source"})
    _, generated = _stepped(losses={"classifier_inputs": "generated"})
    assert float(both["loss/classifier"]) == pytest.approx(
        float(source["loss/classifier"] + generated["loss/classifier"]), rel=1e-5
    )


def test_private_first_layers_part_source_from_the_rest() -> None:
    classifier = Classifier(3, 16, private_first_layer=True).eval()
    images = torch.rand(2, 3, 16, 16)
    assert not torch.equal(classifier(images, source=True), classifier(images))
    shared = Classifier(3, 16).eval()
    assert torch.equal(shared(images, source=True), shared(images))
    classifier(images, source=True).sum().backward()
    assert classifier.conv1_source is not None
    assert classifier.conv1_source.weight.grad is not None and classifier.conv1.weight.grad is None


@pytest.mark.parametrize("inputs", ["source", "generated"])
def test_inputs_that_leave_a_private_first_layer_untrained_are_refused(inputs: str) -> None:
    with pytest.raises(InputError, match=f"classifier_inputs {inputs}.*private_first_layer"):
        tiny.pixelda(classifier={"private_first_layer": True}, losses={"classifier_inputs": inputs})


def test_content_loss_takes_its_mask_from_pixels_or_from_a_source_of_masks() -> None:
    source = tiny.image_set()
    nothing = ImageSet(np.zeros_like(source.images), Provenance("masks", "no foreground"))
    everything = ImageSet(np.full_like(source.images, 255), Provenance("masks", "all foreground"))
    values = [
        float(_stepped(masks=masks, losses={"content": 1.0})[1]["loss/generator_content"])
        for masks in (None, nothing, everything)
    ]
    assert values[1] == 0
    assert values[0] == pytest.approx(values[2], rel=0.05)  # these pictures have next to no black pixel
    assert "loss/generator_content" not in _stepped()[1]


def test_clipping_bounds_the_gradient_that_adam_sees() -> None:
    task, numbers = _stepped(optimizer={"clip_norm": 1e-3})
    state = task.optimizers["generator"].state_dict()["state"]
    # After one step Adam's first moment is (1 - beta1) times the gradient, weight decay included.
    norm = torch.stack([values["exp_avg"].norm() for values in state.values()]).norm() / 0.5
    assert float(numbers["gradient/generator"]) > 1e-2
    assert float(norm) < 1.2e-3


def test_no_average_is_kept_where_it_is_off() -> None:
    assert _stepped(training={"ema_half_life": 0})[0].averages == {}
    task, _ = _stepped(3)
    assert set(task.averages) == {"generator", "classifier"}
    assert not _same(task.averages["generator"].network, task.generator)


def test_sharing_the_generated_batch_saves_a_draw_of_z() -> None:
    shared, _ = _stepped()
    own, _ = _stepped(reuse_generated_batch=False)
    assert _same(shared.discriminator, own.discriminator)
    assert not _same(shared.generator, own.generator)


def test_the_learning_rate_steps_down_by_images_seen() -> None:
    config = tiny.pixelda().optimizer
    rates = [config.learning_rate_at(images) for images in (0, 639_999, 640_000, 1_280_000)]
    assert rates == pytest.approx([1e-3, 1e-3, 0.95e-3, 0.95**2 * 1e-3])
    task, _ = _stepped(3, optimizer={"decay_every": 8, "decay": 0.5})
    assert {group["lr"] for o in task.optimizers.values() for group in o.param_groups} == {0.25e-3}


def test_the_discriminator_may_learn_at_a_rate_of_its_own() -> None:
    plain, slow = _stepped()[0], _stepped(discriminator={"learning_rate_factor": 0.25})[0]
    start = build_networks(plain.config, 3)[1].parameters()
    for before, whole, part in zip(start, plain.discriminator.parameters(), slow.discriminator.parameters(), strict=True):
        torch.testing.assert_close(part - before, 0.25 * (whole - before), rtol=1e-3, atol=1e-7)
    assert _same(plain.classifier, slow.classifier) and not _same(plain.discriminator, slow.discriminator)


def test_each_loss_has_the_weight_that_is_set() -> None:
    _, numbers = _stepped(losses={"generator_domain": 0.3, "generator_task": 0.0, "content": 2.0})
    expected = 0.3 * numbers["loss/generator_domain"] + 2 * numbers["loss/generator_content"]
    assert float(numbers["loss/generator"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(numbers["gradient/generator_task"]) == 0
    assert float(numbers["gradient/generator_domain"]) > 0


def test_a_resumed_refinement_takes_no_other_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pixelda", "refine", "--resume", str(tmp_path / "run"), "--out", str(tmp_path / "other")]) == 2
    assert "--out" in capsys.readouterr().err
