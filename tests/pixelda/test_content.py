"""Whether redrawn images show what their source shows, and the judge that learns from the source alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fixtures import tiny
from pixelscope.pixelda.checkpoints import list_checkpoints, read_run
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.diagnostics import alike, layout_kept
from pixelscope.pixelda.training import train_pixelda
from pixelscope.runs.folder import RunFolder, read_stats


def _drawings(seed: int = 0) -> Tensor:
    """Return soft blobs (8, 3, 32, 32) in [-1, 1]."""
    coarse = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1) * 2 - 1


def test_colours_contrast_and_inversion_keep_the_layout() -> None:
    images = _drawings()
    assert layout_kept(images, images) == pytest.approx(1, abs=1e-5)
    assert layout_kept(images, -0.3 * images + 0.2) == pytest.approx(1, abs=1e-3)
    assert layout_kept(images, images[:, [2, 0, 1]]) > 0.999


def test_texture_lowers_it_and_another_image_loses_it() -> None:
    images = _drawings()
    textured = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    other, moved = _drawings(9), images.roll(8, dims=3)
    assert 0.4 < layout_kept(images, textured) < 0.98
    assert abs(float(layout_kept(images, other))) < 0.3
    assert layout_kept(images, moved) < 0.5
    assert layout_kept(images, torch.zeros_like(images)) == pytest.approx(0, abs=1e-6)


def test_the_layout_is_the_correlation_of_smoothed_edge_strengths() -> None:
    images = (_drawings(), _drawings(9))

    def edges(image: np.ndarray) -> np.ndarray:
        grey = image.mean(0)
        strength = np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1])
        return scipy.ndimage.uniform_filter(strength, 3, mode="constant").ravel()

    each = [np.corrcoef(edges(one.numpy()), edges(other.numpy()))[0, 1] for one, other in zip(*images, strict=True)]
    assert float(layout_kept(*images)) == pytest.approx(np.mean(each), abs=1e-4)


class _Turns(nn.Module):
    """A generator that draws one of two pictures by its noise, and a classifier that tells them apart."""

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        return images * torch.where(z[:, 0] > 0, 1.0, -1.0)[:, None, None, None]


class _Brightness(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def test_redrawings_of_two_classes_are_counted() -> None:
    images, z = torch.ones(4, 3, 8, 8), torch.ones(8, 1)
    assert alike(_Turns(), _Brightness(), images, z) == 1
    z[:2] = -1
    assert alike(_Turns(), _Brightness(), images, z) == 0.5
    z[4:6] = -1
    assert alike(_Turns(), _Brightness(), images, z) == 1


class _InUse(nn.Module):
    """A network that says nothing of its images in training mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: Tensor) -> Tensor:
        found = self.network(*given)
        return torch.zeros_like(found) if self.training else found


@pytest.mark.parametrize("training", [True, False])
def test_redrawings_are_compared_by_the_networks_in_use_whose_modes_are_kept(training: bool) -> None:
    generator, classifier = _InUse(_Turns()).train(training), _InUse(_Brightness()).train(not training)
    z = torch.ones(8, 1)
    z[:2] = -1
    assert alike(generator, classifier, torch.ones(4, 3, 8, 8), z) == 0.5
    assert (generator.training, classifier.training) == (training, not training)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("judged")
    specs = dict(zip(("source", "target"), tiny.write_domains(folder), strict=True))
    with_judge = train_pixelda(tiny.pixelda(**specs, judge=True), run=folder / "judged")
    return with_judge, train_pixelda(tiny.pixelda(**specs), run=folder / "plain")


def test_a_judge_changes_nothing_of_the_others(runs: tuple[Path, Path]) -> None:
    judged, plain = (load_file(RunFolder(run).checkpoint_files()[-1]) for run in runs)
    assert {name.split(".")[1] for name in judged.keys() - plain.keys()} == {"judge"}
    assert [name for name in plain if not torch.equal(plain[name], judged[name])] == []


def test_the_judge_learns_from_the_source_alone(runs: tuple[Path, Path]) -> None:
    """It is the baseline's T, to the bit: the same weights at the start, the same images in the same order."""
    from pixelscope.pixelda.training import train_baseline

    config = read_run(RunFolder(runs[0])).config
    same = {"source": config.source, "target": config.target}
    baseline = train_baseline(tiny.baseline(**same), run=runs[0].parent / "baseline")
    judge = load_file(RunFolder(runs[0]).checkpoint_files()[-1])
    alone = load_file(RunFolder(baseline).checkpoint_files()[-1])
    for kind in ("network", "average"):
        names = [name.removeprefix(f"{kind}.judge.") for name in judge if name.startswith(f"{kind}.judge.")]
        assert names
        assert all(torch.equal(judge[f"{kind}.judge.{name}"], alone[f"{kind}.classifier.{name}"]) for name in names)


def test_what_a_run_says_of_content(runs: tuple[Path, Path]) -> None:
    lines = list(read_stats(RunFolder(runs[0]).stats))
    training = [line for line in lines if line["kind"] == "train"]
    assert training
    for line in training:
        assert 0 <= line["accuracy/judge_generated"] <= 1
        assert line["accuracy/judge_source"] > 0
        assert -1 <= line["layout"] <= 1
    assert all(0 <= line["alike"] <= 1 for line in lines if line["kind"] == "evaluation")
    assert not any("judge" in name for line in read_stats(RunFolder(runs[1]).stats) for name in line)


def test_the_judges_loss_moves_g_alone(tmp_path: Path) -> None:
    """Above 0 it trains a judge, which stays what it would be, and changes G from the first step on."""
    specs = dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))
    runs = {
        weight: train_pixelda(
            tiny.pixelda(**specs, losses={"semantic": weight}, training={"images": 8}, judge=not weight),
            run=tmp_path / f"run{weight}",
        )
        for weight in (0.0, 5.0)
    }
    plain, held = (load_file(RunFolder(run).checkpoint_files()[-1]) for run in runs.values())
    changed = {name.split(".")[1] for name in plain if name.startswith("network.") and not torch.equal(plain[name], held[name])}
    assert changed == {"generator"}


def test_its_weights_are_those_of_the_checkpoint(runs: tuple[Path, Path]) -> None:
    folder = RunFolder(runs[0])
    found = list_checkpoints(read_run(folder))
    stored = load_file(folder.checkpoint_files()[-1])
    for checkpoint, kind in (("last", "network"), ("ema-last", "average")):
        judge = found[checkpoint].judge
        assert judge is not None
        np.testing.assert_array_equal(judge.conv1.weight, stored[f"{kind}.judge.conv1.weight"])
    other = read_run(RunFolder(runs[1]))
    assert isinstance(other.config, PixelDAConfig)
    without = replace(other, config=other.config.model_copy(update={"judge": False}))
    assert list_checkpoints(without)["last"].judge is None
