"""Benchmarks: the plain programs do the same work as ours, and what is measured arrives in the tables."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import million, precision
from benchmarks.__main__ import main, store
from benchmarks.contenders import random_bytes
from benchmarks.gpu.systems import SYSTEMS
from benchmarks.items import ITEMS, START
from benchmarks.measure import Contender, measure
from benchmarks.plain.data import Digits, Frames
from benchmarks.plain.endovae import PlainEndoVAE
from benchmarks.plain.pixelda import PlainPixelDA
from benchmarks.plain.refinement import PlainRefinement, Views
from benchmarks.side_by_side import rates
from benchmarks.table import page
from benchmarks.to_accuracy import race
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.packed import load_pack
from pixelscope.data.split import Split
from pixelscope.endovae.losses import Posterior, cross_entropy_loss
from pixelscope.endovae.networks import Decoder, Encoder
from pixelscope.pixelda.data import Domains
from pixelscope.pixelda.networks import Classifier, Discriminator, Generator, StrongClassifier

CEILING = {"float32": {"convolution": 400.0, "matrix product": 200.0}}


def _parameters(*networks: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of all parameters, in their order."""
    return [tuple(p.shape) for network in networks for p in network.parameters()]


def _copied(into: nn.Module, *networks: nn.Module) -> None:
    parameters = [p for network in networks for p in network.parameters()]
    for mine, theirs in zip(into.parameters(), parameters, strict=True):
        mine.data.copy_(theirs)


def test_plain_networks_are_ours() -> None:
    plain = PlainPixelDA()
    assert _parameters(plain.g) == _parameters(Generator())
    assert _parameters(plain.d) == _parameters(Discriminator())
    assert _parameters(plain.t) == _parameters(Classifier())
    assert _parameters(PlainEndoVAE()) == _parameters(Encoder(), Decoder())


def test_plain_pixelda_computes_what_ours_does() -> None:
    images, z = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 10)
    plain = PlainPixelDA()
    pairs = (
        (Generator(), plain.g, (images, z)),
        (Discriminator(), plain.d.eval(), (images,)),
        (Classifier(), plain.t, (images,)),
    )
    for ours, theirs, inputs in pairs:
        _copied(theirs, ours)
        assert torch.allclose(theirs.eval()(*inputs).flatten(), ours.eval()(*inputs).flatten(), atol=1e-6)


def test_plain_endovae_has_our_loss() -> None:
    encoder, decoder, plain = Encoder(), Decoder(), PlainEndoVAE()
    _copied(plain, encoder, decoder)
    images, noise = torch.rand(2, 3, 96, 96), torch.randn(2, 6)
    posterior = Posterior.from_parameters(encoder(images))
    logits = decoder.linear_output(posterior.sample(noise))
    loss = cross_entropy_loss(logits, images, "channel-mean").mean() + posterior.kl().sum(1).mean()
    assert plain.loss(images, noise).item() == pytest.approx(loss.item(), rel=1e-5)


def test_plain_data_is_in_range_and_tripled() -> None:
    random = np.random.default_rng(0)
    image, label = Digits(random.integers(0, 256, (4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8))[3]
    assert (tuple(image.shape), label) == ((3, 32, 32), 3)
    assert -1 <= image.min() < image.max() <= 1
    frames = Frames(random.integers(0, 256, (4, 96, 96, 3), np.uint8))
    assert len(frames) == 12
    assert torch.equal(frames[1], frames[1])
    assert not torch.equal(frames[5], frames[5])


def test_plain_refinement_has_our_classifier_and_trains_it_without_target_labels() -> None:
    images = random_bytes(4, 32, 32, 3)
    views, plain, ours = Views(images, np.arange(4, dtype=np.uint8)), PlainRefinement(width=4), StrongClassifier(10, 4)
    assert _parameters(plain.t) == _parameters(ours)
    _copied(plain.t, ours)
    batch = [torch.stack([views[i][part] for i in range(4)]) for part in range(2)]
    assert all(part.shape == (4, 3, 32, 32) and part.abs().max() <= 1 for part in batch)
    assert torch.allclose(plain.t.eval()(batch[0]), ours.eval()(batch[0]), atol=1e-6)
    weights = []
    for target_label in (0, 1):
        torch.manual_seed(0)
        model = PlainRefinement(width=4)
        labels = torch.arange(4)
        model.step([*batch, labels], [*batch, labels], [*batch, torch.full((4,), target_label)])
        weights.append(torch.cat([p.detach().flatten() for p in model.t.parameters()]))
    assert torch.equal(*weights)


def test_every_contender_exists() -> None:
    from benchmarks import contenders

    for item in ITEMS.values():
        assert all(callable(getattr(contenders, name)) for name in item.contenders.values())
    assert all(callable(getattr(contenders, system.plain)) for system in SYSTEMS.values())


def test_what_is_measured_arrives_in_the_table(tmp_path: Path) -> None:
    measured = measure(ITEMS["quality"], threads=1, rounds=2)
    about = {"command": "c", "date": "d", "revision": "r", "machine": "m", "threads": 1, "versions": {"torch": "2"}}
    starts = {"python -c pass": {"seconds": 0.01, "times": 1.0}, "pixelscope --help": {"seconds": 0.025, "times": 2.5}}
    result = {"about": about, "ceiling": CEILING, "items": {"quality": measured, START: starts}}
    store(result, tmp_path)
    assert (tmp_path / "benchmarks.json").is_file()
    text = (tmp_path / "README.md").read_text()
    assert text == page(result)
    ours, theirs = (measured[name]["per_second"] for name in ("ours", "scikit-image"))
    assert f"{ours / theirs:.2f}x" in text
    assert measured["ours"]["slowest"] <= ours <= measured["ours"]["fastest"]
    assert re.search(r"\| pixelscope --help \| 25.0 \| 2.50 \|", text)


def test_trainings_side_by_side_are_measured_while_all_run() -> None:
    found = rates([1, 1], "quality_ours")
    assert len(found) == 2 and min(found) > 0


def test_a_worker_that_ends_without_an_answer_is_named() -> None:
    with pytest.raises(RuntimeError, match="benchmarks.worker nothing_like_it"):
        Contender("nothing_like_it", 1)


def test_the_command_line_lists_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*ITEMS, START))
    assert main(["pixelda-stp"]) == 2
    assert capsys.readouterr().err == "There is no benchmark 'pixelda-stp'; did you mean pixelda-step?\n"


def test_images_until_an_accuracy_are_counted_by_the_batch_size() -> None:
    labels = np.arange(4) % 2
    some = ImageSet(random_bytes(4, 3, 32, 32), Provenance("random", "random"), labels, ("a", "b"))
    parts = Split(some, some.select(labels > 1), some, np.arange(4))
    found = race(lambda number: None, {"T": Classifier(2)}, Domains(parts, parts, aligned=False), 0.0, batch_size=16)
    assert (found["T"]["steps"], found["T"]["images"]) == (50, 800)


def test_a_stopped_training_is_not_measured_as_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (
        ("evaluation.json", "{}"),
        ("config.yaml", ""),
        ("run.json", '{"system": "pixelda", "state": "stopped"}'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    asked: list[tuple[str, ...]] = []

    def train(*arguments: str) -> None:
        asked.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(precision, "pixelscope", train)
    with pytest.raises(KeyboardInterrupt):
        precision.measure(tmp_path, "32-true", 0)
    assert asked == [("pixelda", "train", "--resume", str(tmp_path))]


def test_many_images_are_a_pack(tmp_path: Path) -> None:
    million.write_pack(tmp_path / "pack", 12)
    assert len(load_pack(tmp_path / "pack")) == 12
