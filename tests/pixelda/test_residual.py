"""T as a residual network: what it consists of, and that everything a run is used for takes it as it takes the paper's."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from fixtures import tiny
from pixelscope import evaluate, export, resume
from pixelscope.errors import InputError
from pixelscope.pixelda.ablation.grid import Grid
from pixelscope.pixelda.checkpoints import load_checkpoint
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.cost import summarize
from pixelscope.pixelda.inference.model import load_classifier
from pixelscope.pixelda.networks import Classifier, ResidualClassifier
from pixelscope.pixelda.refinement.training import refine
from pixelscope.pixelda.task import build_networks
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder

RESIDUAL = {"kind": "residual", "width": 4}


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_its_parameters_do_not_grow_with_the_side() -> None:
    counts = {
        (kind, size): summarize(
            "baseline", BaselineConfig.parse({"data": {"size": size}, "classifier": {"kind": kind}})
        ).parameters
        for kind in ("paper", "residual")
        for size in (32, 128)
    }
    # By hand: convolutions of the stem and of three stages, their shortcuts, two numbers a channel and norm, the last layer.
    stages = [(32, 32), (32, 64), (64, 128)]
    convolutions = 27 * 32 + sum(9 * (before * after + 3 * after * after) + before * after for before, after in stages)
    norms = 2 * (32 + 5 * (32 + 64 + 128))
    assert counts["residual", 32] == counts["residual", 128] == convolutions + norms + 129 * 10 == 697_706
    assert counts["paper", 128] > 10 * counts["paper", 32]


@pytest.mark.parametrize("size", [16, 40, 96])
def test_each_stage_halves_the_side_at_any_size(size: int) -> None:
    network = ResidualClassifier(3, 4)
    sides: list[int] = []
    for layer in network.shared:
        layer.register_forward_hook(lambda layer, given, output: sides.append(output.shape[-1]) if output.ndim == 4 else None)
    assert network(torch.zeros(1, 3, size, size)).shape == (1, 3)
    assert sides == [size, size, *[size // 2] * 2, *[size // 4] * 2, *[size // 8] * 2, 1]


def test_no_image_of_a_batch_reaches_another_even_in_training() -> None:
    network, images = ResidualClassifier(3, 4).train(), torch.rand(6, 3, 16, 16) * 2 - 1
    logits = network(images)
    torch.testing.assert_close(network(images[:1]), logits[:1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(network(torch.cat([images[:1], 3 * images[1:]]))[:1], logits[:1], rtol=1e-4, atol=1e-6)
    assert not any(torch.is_floating_point(buffer) for buffer in network.buffers())


def test_the_kind_and_width_asked_for_are_built() -> None:
    narrow, wide = (build_networks(tiny.pixelda(classifier=RESIDUAL | {"width": width}), 3)[2] for width in (4, 8))
    assert isinstance(narrow, ResidualClassifier) and isinstance(build_networks(tiny.pixelda(), 3)[2], Classifier)
    assert (narrow.conv1.out_channels, wide.conv1.out_channels) == (4, 8)


def test_source_images_may_have_a_first_layer_of_their_own() -> None:
    config = tiny.pixelda(classifier=RESIDUAL | {"private_first_layer": True})
    network, images = build_networks(config, 3)[2], torch.rand(2, 3, 16, 16)
    assert not torch.equal(network(images, source=True), network(images))
    shared = build_networks(tiny.pixelda(classifier=RESIDUAL), 3)[2]
    assert torch.equal(shared(images, source=True), shared(images))
    with pytest.raises(InputError, match="private_first_layer"):
        tiny.baseline(classifier={"private_first_layer": True})


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(zip(("source", "target"), tiny.write_domains(tmp_path_factory.mktemp("domains")), strict=True))


@pytest.fixture(scope="module")
def run(domains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.pixelda(**domains, classifier=RESIDUAL, judge=True)
    made = train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "run")
    evaluate(made)
    return made


@pytest.fixture(scope="module")
def baseline(domains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_baseline(tiny.baseline(**domains, classifier=RESIDUAL), run=tmp_path_factory.mktemp("runs") / "baseline")


def test_a_baseline_of_another_width_is_refused(domains: dict[str, str], baseline: Path, tmp_path: Path) -> None:
    evaluate(baseline)
    wider = tiny.pixelda(**domains, classifier=RESIDUAL | {"width": 8})
    with pytest.raises(InputError, match="width 4.*width 8.*--classifier.width"):
        train_pixelda(wider, run=tmp_path / "run", baseline=baseline)
    assert not (tmp_path / "run").exists()


def _last(run: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(run).checkpoint_files()[-1])


def test_the_judge_is_the_baselines_t(run: Path, baseline: Path) -> None:
    judge, alone = _last(run), _last(baseline)
    names = [name for name in alone if name.startswith(("network.classifier.", "average.classifier."))]
    assert any("shared.2.layers" in name for name in names)
    assert all(torch.equal(alone[name], judge[name.replace("classifier", "judge")]) for name in names)


def test_it_goes_on_to_the_same_bits(run: Path, baseline: Path, tmp_path: Path) -> None:
    for whole, train, kind in ((run, train_pixelda, tiny.pixelda), (baseline, train_baseline, tiny.baseline)):
        config = RunFolder(whole).config.read_text()
        assert "kind: residual" in config
        settings: dict[str, Any] = {"classifier": RESIDUAL, "source": load_checkpoint(whole).config.source}
        settings |= {"target": load_checkpoint(whole).config.target} | ({"judge": True} if train is train_pixelda else {})
        part = train(kind(**settings, training={"images": 48}), run=tmp_path / train.__name__)
        resume(part, images=96)
        expected, found = _last(whole), _last(part)
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_exported_files_answer_as_the_run_does(run: Path, baseline: Path, form: Any, tmp_path: Path) -> None:
    images = tiny.pictures(12, seed=3)[0]
    for made in (run, baseline):
        out = tmp_path / f"{made.name}.{form}"
        export(made, out, form=form)
        expected = load_classifier(made)(images)
        np.testing.assert_allclose(load_classifier(out)(images), expected, atol=1e-5)
        said = f"Classifier: residual of width 4, {_parameters(load_checkpoint(made).classifier):,} parameters"
        assert said in (tmp_path / f"{out.name}.card.md").read_text(encoding="utf-8")
    if form == "onnx":
        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        assert session.run(["logits"], {"images": images[:5]})[0].shape == (5, 3)


def test_a_refinement_goes_on_from_it(run: Path, tmp_path: Path) -> None:
    refined = refine(
        tiny.refined(run=str(run), network={"kind": "paper"}, training={"images": 8, "evaluate_every": 8}),
        run=tmp_path / "refined",
    )
    opened = load_checkpoint(refined)
    assert isinstance(opened.classifier, ResidualClassifier) and opened.classifier.conv1.out_channels == 4


def test_the_summary_shows_its_blocks() -> None:
    text = summarize("pixelda", tiny.pixelda(classifier=RESIDUAL)).to_text()
    assert "GroupNorm" in text and "AdaptiveAvgPool2d" in text
    assert "GroupNorm" not in summarize("pixelda", tiny.pixelda()).to_text()


def test_a_baseline_in_a_grid_leaves_what_is_pixeldas_alone() -> None:
    base = {"classifier": RESIDUAL | {"private_first_layer": True}}
    grid = Grid.parse({"reference": "full", "base": base, "conditions": {"full": {}, "alone": {"system": "baseline"}}})
    assert grid.config("alone", 0).classifier.kind == grid.config("full", 0).classifier.kind == "residual"
