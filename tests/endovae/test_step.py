"""One training step against a plain one, and each option for what it does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fixtures import tiny
from pixelscope.data.disk_array import DiskArray
from pixelscope.endovae.data import AugmentedBatches, FrameBatch, from_unit, to_unit
from pixelscope.endovae.task import EndoVAETask, build_discriminator, build_networks
from pixelscope.engine import checkpoint
from pixelscope.rng import StepContext


def _task(**changes: Any) -> EndoVAETask:
    own = {name: changes.pop(name, 0) for name in ("half_life", "adversarial_from")}
    return EndoVAETask(tiny.endovae(**changes), tiny.fabric(), tiny.frames(6, seed=1), **own)


def _context(step: int, size: int = 8) -> StepContext:
    return StepContext(step * size, step, size, seed=0)


def _batches(count: int = 20, seed: int = 0, **augmentation: Any) -> AugmentedBatches:
    config = tiny.endovae(augmentation=augmentation)
    return AugmentedBatches(tiny.frames(count), None, config.augmentation, seed, torch.device("cpu"))


@pytest.mark.parametrize("reading", ["sum", "channel-mean"])
def test_a_step_is_that_of_plain_pytorch(reading: str) -> None:
    task = _task(losses={"reduction": reading, "kl": 0.7})
    encoder, decoder = build_networks(task.config)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, foreach=False)
    batches = _batches()
    for step in range(3):
        context = _context(step)
        images = batches(context).images
        task.step(FrameBatch(images), context)
        noise = torch.randn((8, 3), generator=context.shared_generator("z"))
        mean, log_variance = encoder(images)[:, 0], encoder(images)[:, 1]
        decoded = decoder(mean + noise * torch.exp(log_variance / 2))
        cross_entropy = F.binary_cross_entropy(decoded, images, reduction="sum") / 8
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum() / 8
        loss = (cross_entropy if reading == "sum" else cross_entropy / 3) + 0.7 * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mine, theirs in zip([*task.encoder.parameters(), *task.decoder.parameters()], parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-5)


def test_an_adversarial_step_is_that_of_plain_pytorch_for_the_decoder_alone() -> None:
    losses = {"cross_entropy": 0.0, "l1": 1.0, "kl": 0.01, "adversarial": 0.3, "adversarial_from": 1}
    task = _task(losses=losses, model={"kind": "spatial", "stride": 4, "blocks": 1, "latent": 3})
    (encoder, decoder), opponent = build_networks(task.config), build_discriminator(task.config)
    encoder.requires_grad_(False)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-4, eps=1e-7, foreach=False)
    other = torch.optim.Adam(opponent.parameters(), lr=4e-4, betas=(0.5, 0.9), eps=1e-7, foreach=False)
    batches = _batches()
    for step in range(3):
        context = _context(step)
        images = batches(context).images
        numbers = task.step(FrameBatch(images), context)
        mean, log_variance = encoder(images).unbind(1)
        noise = torch.randn(mean.shape, generator=context.shared_generator("z"))
        drawn = decoder.linear_output(mean + noise * torch.exp(log_variance / 2))
        optimizer.zero_grad()
        (F.l1_loss(drawn, images) - 0.3 * opponent(drawn).mean()).backward()
        optimizer.step()
        other.zero_grad()
        real, fake = opponent(torch.cat([images, drawn.detach()])).chunk(2)
        margins = torch.cat([1 - real, 1 + fake]).clamp(min=0)
        margins.mean().backward()
        other.step()
        assert float(numbers["loss/discriminator"]) == pytest.approx(margins.mean().item(), rel=1e-4)
    for own, expected in ((task.encoder, encoder), (task.decoder, decoder), (task.networks["discriminator"], opponent)):
        for mine, theirs in zip(own.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-5)


def test_before_its_start_the_adversarial_loss_changes_nothing() -> None:
    task, plain = _task(losses={"adversarial": 1.0, "adversarial_from": 1}, adversarial_from=8), _task()
    opponent = build_discriminator(task.config).state_dict()
    for step, same in ((0, True), (1, False)):
        numbers = [one.step(_batches()(_context(step)), _context(step)) for one in (task, plain)]
        assert ("loss/discriminator" in numbers[0]) is not same
        weights = [torch.cat([p.detach().flatten() for p in one.decoder.parameters()]) for one in (task, plain)]
        assert torch.equal(*weights) is same
        kept = [torch.equal(value, opponent[name]) for name, value in task.networks["discriminator"].state_dict().items()]
        assert all(kept) is same


def test_what_is_left_out_teaches_nothing() -> None:
    images = to_unit(torch.from_numpy(tiny.frames(8)).permute(0, 3, 1, 2))
    valid_mask = torch.ones(8, 1, tiny.SIZE, tiny.SIZE)
    valid_mask[:, :, :, :4] = 0
    numbers = []
    for value in (0.0, 1.0):
        task = _task()
        task.encoder.requires_grad_(False).apply(lambda module: [p.data.zero_() for p in module.parameters()])
        task.encoder.requires_grad_(True)
        other = images.clone()
        other[:, :, :, :4] = value
        task.step(FrameBatch(other, valid_mask), _context(0))
        numbers.append(torch.cat([p.detach().flatten() for p in task.decoder.parameters()]))
    assert torch.equal(numbers[0], numbers[1])


def test_clipping_bounds_the_gradient_of_both_networks_together() -> None:
    norms = []
    for clip in (None, 0.1):
        task = _task(optimizer={"clip_norm": clip})
        numbers = task.step(_batches()(_context(0)), _context(0))
        moments = task.optimizers["autoencoder"].state_dict()["state"].values()
        # After one step Adam's first moment is a tenth of the gradient.
        norms.append(float(torch.stack([values["exp_avg"].norm() for values in moments]).norm() * 10))
        measured = torch.stack([numbers["gradient/encoder"], numbers["gradient/decoder"]]).norm()
        assert float(measured) > 0.2, "what is logged is the gradient before clipping"
    assert norms[0] == pytest.approx(float(measured), rel=1e-3)
    assert norms[1] == pytest.approx(0.1, rel=1e-3)


def test_an_epoch_is_every_frame_and_its_copies() -> None:
    batches = _batches(count=8, copies_per_frame=2)
    assert batches.epoch == 24
    seen = torch.cat([from_unit(batches(_context(step)).images) for step in range(3)])
    originals = torch.from_numpy(tiny.frames(8)).permute(0, 3, 1, 2)
    matches = (seen[:, None] == originals[None]).all((2, 3, 4))
    assert matches.any(0).all(), "every original is among them, unaltered"
    assert int(matches.any(1).sum()) == 8, "and no copy is"


def test_copies_stay_the_same_or_are_drawn_afresh() -> None:
    for fresh in (False, True):
        batches = _batches(count=8, copies_per_frame=1, resample_every_epoch=fresh)
        epochs = [torch.cat([batches(_context(step)).images for step in steps]) for steps in (range(2), range(2, 4))]
        sums = [epoch.double().sum((1, 2, 3)).sort().values for epoch in epochs]
        assert torch.allclose(sums[0], sums[1], atol=1e-6) is not fresh


def test_no_copies_and_no_change() -> None:
    assert _batches(count=8, copies_per_frame=0).epoch == 8
    still = _batches(count=8, copies_per_frame=1, flip=False, rotation=0, zoom=0, contrast=0)
    assert torch.equal(still.version(0, 5), still.version(1, 5))
    assert not torch.equal(
        _batches(count=8, copies_per_frame=1).version(0, 5), _batches(count=8, copies_per_frame=1).version(1, 5)
    )


def test_frames_on_disk_give_the_batches_of_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, config = tiny.frames(), tiny.endovae().augmentation
    np.save(tmp_path / "frames.npy", frames)
    here = AugmentedBatches(frames, None, config, 0, torch.device("cpu"))
    monkeypatch.setattr("pixelscope.data.loader.RESIDENT_BYTES", 0)
    there = AugmentedBatches(DiskArray(tmp_path / "frames.npy"), None, config, 0, torch.device("cpu"))
    assert isinstance(there.frames.images, DiskArray)
    for step in range(4):
        assert torch.equal(here(_context(step)).images, there(_context(step)).images)


def test_two_ranks_share_one_batch() -> None:
    batches = _batches(resample_every_epoch=True)
    whole = batches(StepContext(8, 1, 8, seed=0)).images
    halves = [batches(StepContext(8, 1, 8, seed=0, rank=rank, ranks=2)).images for rank in range(2)]
    assert torch.equal(whole, torch.cat(halves))


def test_insets_are_altered_with_their_frames() -> None:
    insets = np.zeros((20, tiny.SIZE, tiny.SIZE), np.uint8)
    insets[:, 10:, :6] = 1
    batches = AugmentedBatches(tiny.frames(), insets, tiny.endovae().augmentation, 0, torch.device("cpu"))
    valid_mask = torch.cat([part for step in range(7) if (part := batches(_context(step)).valid_mask) is not None])
    assert set(valid_mask.unique().tolist()) == {0.0, 1.0}
    left, right = (1 - valid_mask[:, 0, 12, 1]).bool(), (1 - valid_mask[:, 0, 12, -2]).bool()
    assert bool(left.any())
    assert bool(right.any()), "some copies are mirrored"
    assert not bool((left & right).any())


def test_the_average_is_what_validation_measures() -> None:
    task = _task(half_life=10_000)
    assert set(task.averages) == {"encoder", "decoder"}
    batches = _batches()
    for step in range(4):
        task.step(batches(_context(step)), _context(step))
    before = task.evaluate()
    task.encoder.apply(lambda module: [p.data.zero_() for p in module.parameters()])
    assert task.evaluate() == before


def test_validation_is_repeatable_and_falls() -> None:
    task, batches = _task(optimizer={"learning_rate": 3e-3}), _batches()
    first = task.evaluate()
    assert task.evaluate() == first
    parts = first["loss/validation_reconstruction"] + task.config.losses.kl * first["loss/validation_kl"]
    assert first["loss/validation_total"] == pytest.approx(parts, rel=1e-5)
    for step in range(60):
        task.step(batches(_context(step)), _context(step))
    assert task.evaluate()["loss/validation_total"] < first["loss/validation_total"]
    choices = [task.monitor(first), task.monitor(task.evaluate())]
    assert choices[0] is not None
    assert choices[1] is not None
    assert choices[1] > choices[0]


def test_the_schedule_moves_the_step_size_and_survives_a_checkpoint(tmp_path) -> None:
    task = _task(schedule={"patience": 2, "early_stopping_patience": 4, "start_kl": 0})
    for _ in range(4):
        task.on_evaluation({"loss/validation_total": 5.0, "loss/validation_kl": 3.0})
    assert task.learning_rate == pytest.approx(5e-4)
    assert task.stop_reason() is None
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, checkpoint.state(task), checkpoint.CheckpointHeader("any", {}, {}, checkpoint.Progress()))
    other = _task(schedule={"patience": 2, "early_stopping_patience": 4, "start_kl": 0})
    checkpoint.restore(other, checkpoint.load(path)[0], path)
    other.on_evaluation({"loss/validation_total": 5.0, "loss/validation_kl": 3.0})
    assert other.learning_rate == pytest.approx(2.5e-4)
    assert "4 epochs" in str(other.stop_reason())
    other.step(_batches()(_context(0)), _context(0))
    assert other.optimizers["autoencoder"].param_groups[0]["lr"] == pytest.approx(2.5e-4)


def test_a_latent_vector_that_says_nothing_is_warned_of_in_time() -> None:
    task = _task()
    evaluation = {"loss/validation_total": 5.0, "loss/validation_kl": 0.01}
    assert task.warnings(evaluation) == []
    for _ in range(31):
        task.on_evaluation(evaluation)
    assert [cause for cause, _ in task.warnings(evaluation)] == ["posterior collapse"]
    assert task.warnings({**evaluation, "loss/validation_kl": 4.0}) == []
