"""Whole trainings of PixelDA at tiny size; what holds for every system is in contracts/test_trainings.py."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fixtures import tiny
from pixelscope import evaluate
from pixelscope.config import read_yaml
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.loader import to_float
from pixelscope.engine import checkpoint
from pixelscope.engine.loop import Loop, RunIdentity
from pixelscope.engine.session import Place
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import System, load_domains
from pixelscope.pixelda.forward import draw_noise
from pixelscope.pixelda.networks import Classifier, Generator, StrongClassifier
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.task import BaselineTask, PairedBatch, PairedBatches, PixelDATask
from pixelscope.pixelda.training import DomainsJob, train_baseline, train_pixelda
from pixelscope.rng import StepContext
from pixelscope.runs.folder import RunFolder, read_stats


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, str]:
    return dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))


def test_a_run_folder_holds_everything(tmp_path: Path, domains: dict[str, str]) -> None:
    run = train_pixelda(tiny.pixelda(**domains), runs=tmp_path / "runs")
    folder = RunFolder.open(run)
    assert run.name == "00000-pixelda-arrays-to-arrays-seed0"
    assert PixelDAConfig.parse(read_yaml(folder.config)) == tiny.pixelda(**domains)
    record = folder.read_record()
    assert record["state"] == "finished"
    assert (record["images"], record["steps"]) == (96, 12)
    assert record["classes"] == ["0", "1", "2"]
    assert record["data"]["source"]["train"] == 48 and record["data"]["target"]["test"] == 12
    assert {"pixelscope", "torch", "python"} <= record["versions"].keys()
    lines = read_stats(folder.stats)
    assert [line["images"] for line in lines if line["kind"] == "train"] == [16, 32, 48, 64, 80, 96]
    assert [line["images"] for line in lines if line["kind"] == "evaluation"] == [0, 48, 96]
    assert not any("target" in name for line in lines for name in line)
    assert [path.stem for path in sorted(folder.classifiers.iterdir())] == ["000000000000", "000000000048", "000000000096"]
    with np.load(folder.samples / "progress.npz") as samples:
        assert samples["images"].tolist() == [0, 48, 96]
        assert samples["generated"].shape == (3, 3, 16, 16, 3)
    assert [path.name for path in folder.checkpoint_files()] == [f"images-{n:012d}.safetensors" for n in (64, 96)]
    again = train_pixelda(tiny.pixelda(**domains, training={"images": 16}), runs=tmp_path / "runs")
    assert again.name.startswith("00001-")


def test_a_number_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    config, fabric = tiny.pixelda(training={"checkpoint_every": 16}), tiny.fabric()
    task = PixelDATask(config, 3, fabric)
    batches = PairedBatches(tiny.image_set(), tiny.image_set(seed=1), 0, fabric.device)

    def broken_from_the_fifth_step(context: StepContext) -> PairedBatch:
        batch = batches(context)
        return replace(batch, target=batch.target * float("nan")) if context.step >= 5 else batch

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    loop = Loop(fabric, task, broken_from_the_fifth_step, folder, config.training, RunIdentity("pixelda", {}, {}), seed=0)
    message = r"The gradient of the (discriminator|generator) is not finite at step 5; the last good checkpoint is kept"
    with pytest.raises(TrainingStopped, match=message):
        loop.train()
    files = folder.checkpoint_files()
    assert [file.stem for file in files] == ["images-000000000016", "images-000000000032"]
    assert all(bool(torch.isfinite(tensor).all()) for file in files for tensor in load_file(file).values())


def test_best_by_source_validation_is_kept(tmp_path: Path, domains: dict[str, str]) -> None:
    held_out: dict[str, Any] = {"data": {"validation_fraction": 0.25}}
    run = train_pixelda(tiny.pixelda(**domains, **held_out), run=tmp_path / "run")
    assert RunFolder(run).read_record()["data"]["source"]["validation"] == 12
    points = [line for line in read_stats(run / "stats.jsonl") if line["kind"] == "evaluation"]
    best = max(points, key=lambda line: line["accuracy/source_validation_ema"])
    _, header = checkpoint.load(run / "checkpoints" / "best.safetensors")
    assert header.progress.best == best["accuracy/source_validation_ema"]
    assert "best-source" in evaluate(run).checkpoints


def test_a_baselines_best_is_chosen_by_the_weights_that_are_measured() -> None:
    task = BaselineTask(tiny.baseline(), 3, tiny.fabric())
    numbers = {"accuracy/source_validation": 0.9, "accuracy/source_validation_ema": 0.5}
    assert task.monitor(numbers) == 0.5, "best-source measures the average"
    assert task.monitor({"accuracy/source_validation": 0.9}) == 0.9, "no average is kept"
    assert task.monitor({}) is None


def test_a_baseline_learns_and_is_copied_into_the_run_that_names_it(tmp_path: Path, domains: dict[str, str]) -> None:
    before = train_baseline(
        tiny.baseline(**domains, training={"images": 960, "evaluate_every": 480}), run=tmp_path / "baseline"
    )
    with pytest.raises(InputError, match="not an evaluated baseline"):
        train_pixelda(tiny.pixelda(**domains), run=tmp_path / "run", baseline=before)
    result = evaluate(before)
    assert result.sets["source_test"].accuracy > 0.9
    for classifier in ({"kind": "residual", "width": 4}, {"kind": "residual", "width": 4, "private_first_layer": True}):
        with pytest.raises(InputError, match="paper.*residual of width 4.*--classifier.kind"):
            train_pixelda(tiny.pixelda(**domains, classifier=classifier), run=tmp_path / "run", baseline=before)
    (before / "evaluation.json").write_text("{}")
    with pytest.raises(InputError, match="evaluate the run again"):
        train_pixelda(tiny.pixelda(**domains), run=tmp_path / "run", baseline=before)
    assert not (tmp_path / "run").exists()
    result.save(before / "evaluation.json")
    private = {"private_first_layer": True}
    small = tiny.pixelda(**domains, classifier=private, training={"images": 16})
    run = train_pixelda(small, run=tmp_path / "run", baseline=before)
    shutil.rmtree(before)
    assert Evaluation.load(run / "baseline" / "evaluation.json") == result


def test_the_average_of_g_keeps_statistics_of_its_own_on_source_images() -> None:
    """After one step they are a tenth of the mean and variance of what the averaged weights make of the source."""
    made = PixelDATask(tiny.pixelda(source="s", target="t"), 3, tiny.fabric())
    draw = torch.Generator().manual_seed(0)
    source, target = torch.rand(2, 8, 3, tiny.SIZE, tiny.SIZE, generator=draw)
    context = StepContext(0, 0, 8, 0)
    made.step(PairedBatch(source, torch.arange(8) % 3, -target), context)
    average = made.averages["generator"].network
    assert isinstance(average, Generator)
    with torch.no_grad():
        z = draw_noise(made.config, 8, context.shared_generator("z"))
        channel = average.noise_fc(z).view(8, 1, tiny.SIZE, tiny.SIZE)
        seen, other = (
            average.blocks[0].layers[0](torch.relu(average.conv_in(torch.cat([images, channel], 1))))
            for images in (source, -target)
        )
    layer = average.blocks[0].layers[1]
    torch.testing.assert_close(layer.running_mean, 0.1 * seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * seen.var((0, 2, 3)), rtol=1e-4, atol=1e-7)
    assert not torch.allclose(0.1 * other.mean((0, 2, 3)), 0.1 * seen.mean((0, 2, 3)), rtol=1e-2)
    assert not torch.equal(layer.running_mean, made.generator.blocks[0].layers[1].running_mean)


COUNT = 24


def _numbered() -> ImageSet:
    """Return images that are their own position: each a single grey, with a label of its own."""
    values = np.arange(COUNT)
    images = np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (COUNT, 3, tiny.SIZE, tiny.SIZE)).copy()
    return ImageSet(images, Provenance("numbered", "numbered"), values, tuple(map(str, values.tolist())))


def _positions(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_labels_and_masks_belong_to_their_images_and_the_target_has_an_order_of_its_own() -> None:
    device, shuffled = torch.device("cpu"), []
    batches = PairedBatches(_numbered(), _numbered(), seed=0, device=device, masks=_numbered())
    for step in range(2 * COUNT // 8):
        batch = batches(StepContext(8 * step, step, 8, seed=0))
        assert batch.mask is not None and batch.mask.shape == (8, 1, tiny.SIZE, tiny.SIZE)
        source, target = _positions(batch.source), _positions(batch.target)
        assert source == batch.labels.tolist() == (batch.mask[:, 0, 0, 0] * 255).round().int().tolist()
        shuffled += list(zip(source, target, strict=True))
    source, target = zip(*shuffled, strict=True)
    for order in (source, target):
        assert sorted(order[:COUNT]) == sorted(order[COUNT:]) == list(range(COUNT)), "an epoch is every image once"
        assert order[:COUNT] != order[COUNT:]
    assert sum(one == other for one, other in shuffled) <= 6, "of aligned sets, pairs meet by chance only"


def _contents(images: Tensor) -> set[bytes]:
    return {image.contiguous().numpy().tobytes() for image in images}


@pytest.mark.parametrize("system", ["pixelda", "baseline"])
def test_a_training_reads_the_images_of_its_training_splits_and_no_other(
    tmp_path: Path, domains: dict[str, str], system: System
) -> None:
    make = tiny.pixelda if system == "pixelda" else tiny.baseline
    config = make(**domains, data={"validation_fraction": 0.2, "test_fraction": 0.3})
    found = load_domains(config)
    assert found.target is not None and len(found.source.validation) and len(found.source.test)
    training = DomainsJob(system, config, Place(tmp_path), found, None, config).build(tiny.fabric())
    drawn = [training.batches(StepContext(8 * step, step, 8, seed=0)) for step in range(60 // 8 + 1)]
    expected = {"source": found.source.train, "target": found.target.train}
    for name, images in expected.items() if system == "pixelda" else [("images", found.source.train)]:
        read = torch.cat([getattr(batch, name) for batch in drawn])
        assert _contents(read) == _contents(to_float(torch.from_numpy(images.in_memory())))


def test_masks_of_a_training_are_those_of_its_images(tmp_path: Path) -> None:
    """Masks in files that outline what is not black are the default, to the bit; images are split and shuffled between."""
    images, labels = tiny.pictures(60)
    images[np.random.default_rng(3).random(images.shape[:3]) < 0.6] = 0
    masks = np.where(images.any(3, keepdims=True), 255, 0).repeat(3, 3).astype(np.uint8)
    np.savez(tmp_path / "source.npz", images=images, labels=labels)
    np.savez(tmp_path / "masks.npz", images=masks)
    np.savez(tmp_path / "others.npz", images=masks[::-1])
    np.savez(tmp_path / "target.npz", images=tiny.pictures(60, 1, coloured=True)[0])
    found = []
    for number, content_mask in enumerate(("pixels", *(f"arrays:{tmp_path / name}.npz" for name in ("masks", "others")))):
        config = tiny.pixelda(
            source=f"arrays:{tmp_path / 'source.npz'}",
            target=f"arrays:{tmp_path / 'target.npz'}",
            data={"validation_fraction": 0.2},
            losses={"content": 1.0, "content_mask": content_mask},
            training={"images": 48},
        )
        run = train_pixelda(config, run=tmp_path / f"run{number}")
        found.append(load_file(RunFolder(run).checkpoint_files()[-1]))
    pixels, files, others = found
    assert [name for name in pixels if not torch.equal(pixels[name], files[name])] == []
    assert any(not torch.equal(pixels[name], others[name]) for name in pixels)


def relu_first(layers: nn.Module) -> nn.Sequential:
    """Return the layers with each ReLU before the max pool that it follows, as in the paper."""
    found = list(layers.children())
    for i, pair in enumerate(zip(found, found[1:], strict=False)):
        if isinstance(pair[0], nn.MaxPool2d) and isinstance(pair[1], nn.ReLU):
            found[i : i + 2] = pair[::-1]
    return nn.Sequential(*found)


def output_and_gradients(network: nn.Module, images: Tensor, bfloat16: bool) -> list[Tensor]:
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = network(images)
    logits.float().square().sum().backward()
    return [logits.detach(), *(parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("build", "part"), [(Classifier, "shared"), (StrongClassifier, "features")])
def test_relu_after_a_max_pool_gives_the_bits_of_the_papers_order(build: Any, part: str, bfloat16: bool) -> None:
    torch.manual_seed(0)
    network, images = build(3, 16), torch.randn(16, 3, 16, 16)
    network.dropout = 0.0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    found = output_and_gradients(network, images, bfloat16)
    before = list(getattr(network, part))
    setattr(network, part, relu_first(getattr(network, part)))
    assert list(getattr(network, part)) != before
    for one, other in zip(found, output_and_gradients(network, images, bfloat16), strict=True):
        assert torch.equal(one, other)
