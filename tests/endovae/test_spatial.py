"""The spatial code: networks, losses, linear baseline, axes, and a run through the commands."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from scipy.fft import dctn
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA
from torch.nn import functional as F

import pixelscope
from fixtures import tiny
from pixelscope import InputError, errors
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.calibration import FILE, read_calibration
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.endovae.checkpoints import load_checkpoint
from pixelscope.endovae.config import EndoVAEConfig, ModelConfig, endovae_preset
from pixelscope.endovae.cost import plan_endovae, summarize_endovae
from pixelscope.endovae.data import FrameBatch, load_splits, to_images
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.forward import LatentAxes, read_axes
from pixelscope.endovae.lite0 import load_lite0
from pixelscope.endovae.losses import pixel_loss
from pixelscope.endovae.metrics import pixel_maps, spectrum
from pixelscope.endovae.networks import GAIN, PatchDiscriminator, SpatialEncoder, make_networks
from pixelscope.endovae.pca import BlockComponents
from pixelscope.endovae.results import MEAN, MODEL
from pixelscope.endovae.results import PCA as LINEAR
from pixelscope.endovae.task import EndoVAETask
from pixelscope.endovae.training import resume_endovae, train_endovae
from pixelscope.engine.checkpoint import load
from pixelscope.errors import has_extra
from pixelscope.imaging.config import PrepareConfig
from pixelscope.runs.folder import RunFolder, read_stats

needs_pretrained = pytest.mark.skipif(not has_extra("pretrained"), reason="the extra `pretrained` is not installed")
SPATIAL = {
    "model": {"kind": "spatial", "latent": 5, "width": 4, "stride": 4, "blocks": 1},
    "losses": {"cross_entropy": 0.0, "l1": 1.0, "mse": 2.0, "ssim": 0.5, "kl": 1e-5},
}


def spatial(**changes: object) -> EndoVAEConfig:
    return tiny.endovae(**{**SPATIAL, **changes})


@pytest.fixture(scope="module")
def spatial_run(store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = spatial(frames=str(store.path), split={"validation_fraction": 0.3, "test_fraction": 0.2})
    run = train_endovae(config, run=tmp_path_factory.mktemp("runs") / "spatial")
    evaluate_endovae(run)
    return run


def test_the_projection_starts_as_a_cosine_transform() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    encoder = SpatialEncoder(stride=8, latent=192, width=4, blocks=1)
    coefficients = encoder.project(images).detach().numpy() / GAIN
    light = images.numpy().sum(1) / np.sqrt(3)
    for row, column in ((0, 0), (1, 0), (1, 1)):
        block = dctn(light[1, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8], norm="ortho")
        # The smoothest functions of brightness are the first ones; a colour difference stands between them.
        found = coefficients[1, :, row, column]
        for value in (block[0, 0], block[0, 1], block[1, 0], block[1, 1], block[7, 7]):
            assert np.abs(found - value).min() < 1e-5
    assert np.square(coefficients).sum() == pytest.approx(float(images.square().sum()), rel=1e-5)


@pytest.mark.parametrize(("stride", "latent", "least"), [(2, 12, 40), (4, 8, 26), (8, 12, 20)])
def test_a_new_model_draws_pictures(stride: int, latent: int, least: float) -> None:
    torch.manual_seed(0)
    encoder, decoder = make_networks(16, latent, 4, "spatial", stride, 1)
    images = to_images(tiny.frames(8))
    with torch.no_grad():
        drawn = decoder(encoder(images)[:, 0])
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert float(pixel_maps(images, drawn).quality()["psnr"].min()) > least


def test_the_code_of_a_position_is_of_its_block() -> None:
    model = ModelConfig(kind="spatial", latent=3, width=4, stride=4, blocks=1)
    torch.manual_seed(0)
    encoder, decoder = make_networks(16, **model.model_dump())
    shape = model.code_shape(16)
    z = torch.zeros(1, *shape)
    z[0, 2, 1] = torch.tensor([3.0, 0, 0])
    with torch.no_grad():
        changed = (decoder(z.flatten(1)) - decoder(torch.zeros(1, z.numel()))).abs().sum((0, 1))
        back = encoder(decoder(z.flatten(1)))[0, 0].view(shape)
    assert changed[8:12, 4:8].min() > 10 * changed[:4, 12:].max()
    assert float(back[2, 1, 0]) == pytest.approx(3, abs=0.3) and back.abs().sum() == pytest.approx(3, abs=1.5)


def test_the_loss_is_the_sum_of_its_terms() -> None:
    task = EndoVAETask(spatial(), tiny.fabric())
    random = np.random.default_rng(0)
    images, output = (torch.from_numpy(random.random((3, 3, 16, 16), np.float32)) for _ in range(2))
    found = task._reconstruction_loss(output, FrameBatch(images))
    for one, a, b in zip(found, images.numpy(), output.numpy(), strict=True):
        similarity = structural_similarity(
            a, b, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        expected = np.abs(a - b).mean() + 2 * np.square(a - b).mean() + 0.5 * (1 - similarity)
        assert float(one) == pytest.approx(expected, abs=2e-3)


@needs_pretrained
def test_the_perceptual_loss_sees_features_of_valid_pixels() -> None:
    losses = {"cross_entropy": 0.0, "l1": 0.0, "mse": 0.0, "ssim": 0.0, "perceptual": 3.0}
    task = EndoVAETask(spatial(losses=losses), tiny.fabric())
    images = to_images(tiny.frames(2))
    blurred = F.avg_pool2d(images, 5, 1, 2, count_include_pad=False).requires_grad_()
    found = task._reconstruction_loss(blurred, FrameBatch(images))
    a, b = (load_lite0("A test", (2, 4, 10))(one) for one in (blurred, images))
    # On the unit sphere, a squared distance is twice 1 - cosine.
    expected = torch.stack([2 - 2 * F.cosine_similarity(x, y).mean((1, 2)) for x, y in zip(a, b, strict=True)]).mean(0)
    torch.testing.assert_close(found, 3 * expected, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert blurred.grad is not None and blurred.grad.abs().sum() > 0
    valid = torch.zeros(2, 1, 16, 16)
    valid[1] = 1
    masked = task._reconstruction_loss(blurred.detach(), FrameBatch(images, valid))
    assert float(masked[0]) == 0 and float(masked[1]) == pytest.approx(found[1].item(), rel=1e-5)


def test_a_perceptual_loss_without_its_packages_leaves_no_run(
    monkeypatch: pytest.MonkeyPatch, store: FrameStore, tmp_path: Path
) -> None:
    monkeypatch.setitem(errors.PACKAGES, "no_such_package", "pretrained")
    losses = {**SPATIAL["losses"], "perceptual": 0.1}
    with pytest.raises(InputError, match=r"pixelscope\[pretrained\]"):
        train_endovae(spatial(frames=str(store.path), losses=losses), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("half_life", "name"), [(1, "ema-last"), (0, "last")])
def test_an_adversarial_run_trains_to_its_end_and_uses_its_last_weights(
    store: FrameStore, tmp_path: Path, half_life: float, name: str
) -> None:
    """A validation loss that never falls would end it, and select the first checkpoint."""
    config = spatial(
        frames=str(store.path),
        losses={**SPATIAL["losses"], "adversarial": 0.1, "adversarial_from": 1},
        training={"epochs": 3, "ema_half_life": half_life},
        schedule={"early_stopping_patience": 1, "start_kl": 0},
        optimizer={"learning_rate": 1e-12},
    )
    run = train_endovae(config, run=tmp_path / "run")
    checkpoint = load_checkpoint(run)
    epoch = checkpoint.record["epoch"]
    assert (checkpoint.name, checkpoint.images) == (name, 3 * epoch)
    for line in read_stats(run / "stats.jsonl"):
        assert ("loss/discriminator" in line) is (line["kind"] == "train" and line["images"] > epoch)
    assert evaluate_endovae(run).checkpoint == name
    with safe_open(pixelscope.export(run, tmp_path / "model.safetensors", form="safetensors").files[0], "np") as file:
        assert {key.split(".")[0] for key in file.keys()} == {"encoder", "decoder"}  # noqa: SIM118


@pytest.mark.parametrize("losses", [{"adversarial": 0.1}, {"adversarial": 0.1, "adversarial_from": 1000}])
def test_an_adversarial_loss_next_to_defaults_is_refused_before_a_run(store: FrameStore, tmp_path: Path, losses: dict) -> None:
    config = EndoVAEConfig.parse({"frames": str(store.path), "prepare": {"size": tiny.SIZE}, "losses": losses})
    for attempt in (lambda: plan_endovae(config), lambda: train_endovae(config, run=tmp_path / "run")):
        with pytest.raises(InputError, match="adversarial"):
            attempt()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epochs", [3, 4])
def test_an_adversarial_run_resumes_to_the_bit_where_the_loss_begins_and_later(
    store: FrameStore, tmp_path: Path, epochs: int
) -> None:
    losses = {**SPATIAL["losses"], "adversarial": 0.1, "adversarial_from": 2}
    config = spatial(frames=str(store.path), losses=losses, training={"epochs": epochs, "ema_half_life": 1})
    run = RunFolder(train_endovae(config, run=tmp_path / "run"))
    before, last = run.checkpoint_files()
    has_moments = any(name.startswith("optimizer.discriminator.") for name in load(before)[0])
    assert has_moments is (epochs > 3)
    whole, _ = load(last)
    last.unlink()
    resume_endovae(run.path)
    resumed, _ = load(last)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_plan_has_the_discriminator_and_the_steps_of_both_kinds(store: FrameStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if plain steps were done at 100 images per second, and adversarial ones at 25: 1 s + 4 s for 100 images each."""

    def timed(fabric: object, config: EndoVAEConfig) -> tuple[float, float]:
        return (25.0, 3.0) if config.losses.adversarial else (100.0, 1.0)

    monkeypatch.setattr("pixelscope.endovae.cost._timed", timed)
    losses = {**SPATIAL["losses"], "adversarial": 0.1, "adversarial_from": 2}
    plan = plan_endovae(spatial(frames=str(store.path), losses=losses, training={"epochs": 4}))
    assert (plan.images_per_second, plan.gflop_per_image) == pytest.approx((200 / 5, 2.0))
    assert plan.parameters["discriminator"] == sum(p.numel() for p in PatchDiscriminator().parameters())
    plain = plan_endovae(spatial(frames=str(store.path)))
    assert (plain.images_per_second, set(plain.parameters)) == (100, {"encoder", "decoder"})


def test_networks_that_no_memory_holds_are_refused_before_anything_is_made(store: FrameStore, tmp_path: Path) -> None:
    huge = spatial(frames=str(store.path), model={**SPATIAL["model"], "width": 4096, "blocks": 16})
    assert summarize_endovae(huge).parameters > 10**11
    for attempt in (lambda: plan_endovae(huge), lambda: train_endovae(huge, run=tmp_path / "run")):
        with pytest.raises(InputError, match="GB of memory"):
            attempt()
    assert not (tmp_path / "run").exists()


def test_ignored_pixels_are_in_no_mean() -> None:
    images, output = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    output[0, :, 0] = 9
    valid = torch.ones(2, 1, 4, 4)
    valid[0, :, 0], valid[1] = 0, 0
    assert pixel_loss(output, images, 2, valid).tolist() == [1, 0]
    assert pixel_loss(output, images, 1).tolist() == [3, 1]


def test_block_components_are_those_of_another_library() -> None:
    images = to_images(tiny.frames(30))
    found = BlockComponents.fit(images, 5, 4)
    blocks = images.numpy().reshape(30, 3, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 48)
    other = PCA(5, svd_solver="full").fit(blocks)
    expected = other.inverse_transform(other.transform(blocks)).clip(0, 1)
    drawn, mean = found.baselines(images)
    back = drawn.numpy().reshape(30, 3, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 48)
    np.testing.assert_allclose(back, expected, atol=1e-4)
    np.testing.assert_allclose(mean[3], images.mean(0), atol=1e-6)


def test_a_gaussian_per_position_is_one_at_each() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3, 4)) * np.arange(1, 13).reshape(3, 4)
    found = GaussianReference.fit(rows.reshape(60, 12), positions=3).distance(rows.reshape(60, 12))
    each = [GaussianReference.fit(rows[:, one]).distance(rows[:, one]) for one in range(3)]
    np.testing.assert_allclose(found, np.sqrt(np.square(each).mean(0)), rtol=1e-6)


def test_axes_are_standard_deviations_of_the_codes() -> None:
    drawn = np.random.default_rng(0).normal(size=(200, 5)) * [9, 4, 2, 1, 0.5]
    codes = torch.from_numpy(drawn.astype(np.float32))
    axes = LatentAxes.fit(codes + 7)
    coordinates = axes.coordinates((codes + 7).numpy())
    np.testing.assert_allclose(coordinates.std(0, ddof=1), 1, rtol=1e-3)
    np.testing.assert_allclose(axes.vectors(coordinates), codes + 7, atol=1e-3)
    assert (np.diff(np.linalg.norm(axes.directions, axis=1)) < 0).all()


def test_a_spatial_run_is_measured_beside_block_components(spatial_run: Path) -> None:
    found = pixelscope.endovae.Evaluation.load(spatial_run / "evaluation.json")
    assert found.code == (4, 4, 5) and found.latent == 80
    assert "block PCA, 4 x 4 x 5" in found.to_text()
    for one in found.sets.values():
        means = {name: one.methods[name]["psnr"].mean for name in (MODEL, LINEAR, MEAN)}
        assert means[MEAN] < means[MODEL] and means[MEAN] + 5 < means[LINEAR]
        assert len(one.kl) == 5
    page = pixelscope.report(spatial_run).read_text(encoding="utf-8")
    assert "4 x 4 x 5 numbers" in page


def test_the_divergence_is_of_each_channel_and_the_distance_of_each_position(spatial_run: Path) -> None:
    found = pixelscope.endovae.Evaluation.load(spatial_run / "evaluation.json")
    checkpoint = load_checkpoint(spatial_run)
    splits = load_splits(checkpoint.config)
    with torch.no_grad():
        means, log_variances = checkpoint.encoder(to_images(splits.test["abnormal"].frames)).double().numpy().transpose(1, 0, 2)
        known = checkpoint.encoder(to_images(splits.train.frames))[:, 0].double().numpy()
    nats = (means**2 + np.exp(log_variances) - 1 - log_variances) / 2
    assert found.sets["abnormal"].kl == pytest.approx(nats.reshape(-1, 16, 5).sum(1).mean(0), rel=1e-3)
    assert "KL per channel" in found.to_text()
    made = read_calibration(spatial_run / "checkpoints" / FILE)
    squares = []
    for position in np.split(np.arange(80), 16):
        inverse = np.linalg.pinv(np.cov(known[:, position].T))
        away = known[:, position] - known[:, position].mean(0)
        squares.append(np.einsum("ni,ij,nj->n", away, inverse, away))
    np.testing.assert_allclose(made.latent.distance(known), np.sqrt(np.mean(squares, 0)), rtol=0.02)


def test_fine_detail_is_kept_by_the_mean_spectra(spatial_run: Path) -> None:
    found = pixelscope.endovae.Evaluation.load(spatial_run / "evaluation.json").sets["normal"]
    checkpoint = load_checkpoint(spatial_run)
    originals = to_images(load_splits(checkpoint.config).test["normal"].frames)
    with torch.no_grad():
        drawn = checkpoint.decoder(checkpoint.encoder(originals)[:, 0])
    energy = [spectrum(images).double().mean(0).numpy() for images in (originals, drawn)]
    assert found.detail_kept[MODEL] == pytest.approx(energy[1][2:].sum() / energy[0][2:].sum(), rel=1e-3)
    np.testing.assert_allclose(found.spectra["original"], energy[0], rtol=1e-4, atol=1e-6)


def test_frames_are_generated_along_the_axes(spatial_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(spatial_run)
    axes = read_axes(checkpoint)
    assert axes.directions.shape[1] == 80
    for name, options in (("random", {"count": 4}), ("along", {"count": 3, "dimension": 0})):
        pixelscope.endovae.generate(spatial_run, tmp_path / name, **options)
    first, middle, last = (np.asarray(Image.open(tmp_path / "along" / f"0000{i}.png"), np.float32) for i in range(3))
    assert np.abs(last - first).mean() > np.abs(middle - first).mean() > 1
    with pytest.raises(InputError, match=rf"from 0 to {len(axes) - 1}"):
        pixelscope.endovae.generate(spatial_run, tmp_path / "none", dimension=len(axes))


def test_axes_of_other_weights_are_refused(spatial_run: Path) -> None:
    checkpoint = load_checkpoint(spatial_run)
    other = make_networks(16, **checkpoint.config.model.model_dump())
    with pytest.raises(InputError, match="endovae evaluate"):
        read_axes(replace(checkpoint, encoder=other[0], decoder=other[1]))


def test_a_spatial_run_is_exported_and_scores(spatial_run: Path, frame_folder: Path, tmp_path: Path) -> None:
    tables = {}
    exported = pixelscope.export(spatial_run, tmp_path / "model.onnx")
    for name, model in (("run", spatial_run), ("file", Path(exported.files[0]))):
        pixelscope.endovae.score(model, [frame_folder / "polyps"], tmp_path / f"{name}.csv", false_positive_rate=0.2)
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
            tables[name] = [float(row["score"]) for row in csv.DictReader(file)]
    assert len(tables["run"]) == 12
    np.testing.assert_allclose(tables["file"], tables["run"], rtol=1e-3)


def test_sliders_move_along_the_axes(spatial_run: Path) -> None:
    vae = pixelscope.endovae.InteractiveVAE(spatial_run)
    assert vae.dimensions == list(range(8)) and vae.latent > 8
    still, moved = vae.draw(np.zeros(vae.latent, np.float32)), vae.draw(np.eye(vae.latent, dtype=np.float32)[0] * 2)
    assert np.abs(moved.astype(float) - still).mean() > 1
    frame, _, sliders = vae.nearest(np.zeros(vae.latent, np.float32))
    assert np.abs(vae.draw(sliders).astype(float) - frame).mean() < np.abs(still.astype(float) - frame).mean()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {}}, "no cross-entropy"),
        ({"model": {"kind": "spatial", "stride": 6}}, "2, 4, 8 or 16"),
        ({"model": {"kind": "global", "stride": 8}}, "stride 8 has no effect"),
        ({"model": {"kind": "global", "blocks": 3}}, "blocks 3 has no effect"),
        ({"model": {"kind": "spatial", "latent": 49}}, "48 values"),
        ({"losses": {"cross_entropy": 0}}, "weight 0"),
        ({"losses": {**SPATIAL["losses"], "adversarial": 0.1, "adversarial_from": 3}}, "starts after 3 epochs"),
        ({"losses": {**SPATIAL["losses"], "adversarial": 0.1, "adversarial_from": 0}}, "adversarial_from"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spatial(**changes)


def test_a_side_that_the_stride_does_not_divide_is_refused(frame_folder: Path, tmp_path: Path) -> None:
    frames = prepare([frame_folder], config=PrepareConfig(size=24), out=tmp_path / "store-0")
    config = spatial(frames=str(frames.path), model={**SPATIAL["model"], "stride": 16})
    with pytest.raises(InputError, match="--size 16"):
        train_endovae(config, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["spatial", "spatial-small"])
def test_the_presets_have_the_codes_that_they_name(name: str) -> None:
    config = EndoVAEConfig.parse(endovae_preset(name))
    assert config.code_shape == {"spatial": (24, 24, 8), "spatial-small": (12, 12, 4)}[name]
