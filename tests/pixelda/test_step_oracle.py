"""One D step and one G step against the same step written down independently, in plain PyTorch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fixtures import tiny
from pixelscope.pixelda.forward import draw_noise
from pixelscope.pixelda.task import PairedBatch, PixelDATask
from pixelscope.rng import StepContext

CASES = {
    "report": {},
    "soft labels": {"losses": {"soft_labels": True}},
    "T on source only": {"losses": {"classifier_inputs": "source"}},
    "T on generated only": {"losses": {"classifier_inputs": "generated"}},
    "content": {"losses": {"content": 0.7}},
    "clipped": {"optimizer": {"clip_norm": 0.05}},
}


def _batch() -> PairedBatch:
    draw = torch.Generator().manual_seed(5)
    source, target = (torch.rand(8, 3, tiny.SIZE, tiny.SIZE, generator=draw) * 2 - 1 for _ in range(2))
    source[:, :, :4] = -1
    return PairedBatch(source, torch.arange(8) % 3, target)


def _bce(logits: torch.Tensor, label: float) -> torch.Tensor:
    p = torch.sigmoid(logits)
    return -(label * torch.log(p) + (1 - label) * torch.log(1 - p)).mean()


def _plain_step(
    g: nn.Module, d: nn.Module, t: nn.Module, batch: PairedBatch, z: torch.Tensor, case: dict
) -> dict[str, torch.optim.Optimizer]:
    """The report's step 6 as a script would write it: G runs again for its own step, nothing is frozen or shared."""
    losses = case.get("losses", {})
    clip = case.get("optimizer", {}).get("clip_norm")
    adam = {"lr": 1e-3, "betas": (0.5, 0.999), "weight_decay": 1e-5}
    dt = torch.optim.Adam([*d.parameters(), *t.parameters()], **adam)
    one = torch.optim.Adam(g.parameters(), **adam)
    fake = g(batch.source, z)
    real, generated = (0.9, 0.1) if losses.get("soft_labels") else (1.0, 0.0)
    loss = 0.13 * (_bce(d(batch.target), real) + _bce(d(fake.detach()), generated))
    if losses.get("classifier_inputs") != "generated":
        loss = loss + F.nll_loss(F.log_softmax(t(batch.source), 1), batch.labels)
    if losses.get("classifier_inputs") != "source":
        loss = loss + F.nll_loss(F.log_softmax(t(fake.detach()), 1), batch.labels)
    dt.zero_grad()
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_([*d.parameters(), *t.parameters()], clip)
    dt.step()
    loss = 0.011 * _bce(d(fake), 1.0) + 0.01 * F.nll_loss(F.log_softmax(t(fake), 1), batch.labels)
    if "content" in losses:
        mask = (batch.source > -1).any(1, keepdim=True).float()
        difference = ((batch.source - fake) * mask).reshape(8, -1)
        k = difference.shape[1]
        per_image = (difference**2).sum(1) / k - difference.sum(1) ** 2 / k**2
        loss = loss + losses["content"] * per_image.mean()
    one.zero_grad()
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(g.parameters(), clip)
    one.step()
    return {"discriminator_classifier": dt, "generator": one}


def _moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [values["exp_avg"] for values in optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize("name", CASES)
def test_one_step_of_d_and_t_and_one_of_g(name: str) -> None:
    case = CASES[name]
    config = tiny.pixelda(discriminator={"noise_std": 0.0, "dropout": 0.0}, **case)
    task, batch, context = PixelDATask(config, 3, tiny.fabric()), _batch(), StepContext(0, 0, 8, seed=0)
    plain = [copy.deepcopy(network) for network in task.networks.values()]
    z = draw_noise(config, 8, context.shared_generator("z"))
    optimizers = _plain_step(*plain, batch, z, case)
    task.step(batch, context)
    for name, optimizer in optimizers.items():
        # Adam's step hardly shows how large a gradient is, and with it the weight of a loss; its moments do.
        for own, theirs in zip(_moments(task.optimizers[name]), _moments(optimizer), strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-7)
    for network, expected in zip(task.networks.values(), plain, strict=True):
        for (key, value), (_, wanted) in zip(network.named_parameters(), expected.named_parameters(), strict=True):
            # Adam's first step is lr * sign(gradient) where a gradient is not tiny: compare what it moved by.
            torch.testing.assert_close(value, wanted, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")
