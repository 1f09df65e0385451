"""Priors of latent codes: what they learn, what is drawn from them, and what is refused."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from scipy.fft import dctn, idctn
from sklearn.mixture import GaussianMixture

import pixelscope
from fixtures import tiny
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint
from pixelscope.endovae.config import endovae_preset
from pixelscope.endovae.data import load_run_splits
from pixelscope.endovae.forward import encode
from pixelscope.endovae.inference.generate import generate
from pixelscope.endovae.latent_prior import fit
from pixelscope.endovae.latent_prior.config import PriorConfig
from pixelscope.endovae.latent_prior.fit import fit_prior
from pixelscope.endovae.latent_prior.flow import FlowPrior, integrate, new_field, train_field
from pixelscope.endovae.latent_prior.mixture import MixturePrior
from pixelscope.endovae.latent_prior.results import PriorResult
from pixelscope.endovae.latent_prior.sample import FADE, FrameInpainter, FrameSampler, blend_weights
from pixelscope.endovae.latent_prior.stored import RESULT, TENSORS, load_prior
from pixelscope.endovae.training import train_endovae
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.imaging.config import PrepareConfig
from pixelscope.runs.lock import FACTS

MIXTURE = PriorConfig(components=3)
QUICK = PriorConfig(images=96, batch_size=8, width=8, steps=4, threads=1, autoguidance=1.0)
FITS = {"global": MIXTURE, "spatial": QUICK}
"""Settings of a fit of a moment, by kind of code."""
KINDS = ("normal", "abnormal")
MODELS: dict[str, dict[str, Any]] = {
    "global": {"latent": 3, "width": 2},
    "spatial": {"kind": "spatial", "latent": 4, "width": 4, "stride": 4, "blocks": 1},
}


def sample_frames(checkpoint: Checkpoint, count: int, seed: int, **options: Any) -> np.ndarray:
    return np.concatenate(list(FrameSampler.open(checkpoint, **options).frames(count, seed)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Forty dark healthy frames, and forty bright abnormal ones."""
    folder = tmp_path_factory.mktemp("both")
    for seed, (name, add) in enumerate((("normal-tiny", -60), ("polyps", 60))):
        (folder / name).mkdir()
        for number, frame in enumerate(tiny.frames(40, seed)):
            shifted = (frame.astype(int) // 2 + 64 + add).clip(0, 255).astype(np.uint8)
            Image.fromarray(shifted).save(folder / name / f"{number:02d}.png")
    return prepare([folder], config=PrepareConfig(size=tiny.SIZE), out=tmp_path_factory.mktemp("stores") / "both-0")


def trained(store: FrameStore, kind: str, path: Path, train_on: str = "both") -> Path:
    losses = endovae_preset("spatial")["losses"] if kind == "spatial" else {}
    split = {"train_on": train_on, "duplicate_distance": 0}
    return train_endovae(tiny.endovae(frames=str(store.path), model=MODELS[kind], losses=losses, split=split), run=path)


@pytest.fixture(scope="module")
def runs(both: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs trained on frames of both kinds, with priors."""
    folder = tmp_path_factory.mktemp("runs")
    found = {kind: trained(both, kind, folder / kind) for kind in MODELS}
    for kind, run in found.items():
        fit_prior(run, config=FITS[kind])
    return found


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of the run with a spatial code and its prior."""
    return Path(shutil.copytree(runs["spatial"], tmp_path / "run"))


def clusters(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return 3,000 points of three clusters, and the number of each point's cluster."""
    which = draw.choice(3, 3000, p=[0.5, 0.3, 0.2])
    means, spreads = np.array([[0, 0, 9], [7, 0, 0], [0, -8, 0]]), np.array([[1, 2, 0.5], [0.3, 1, 1], [1, 1, 1]])
    points = means[which] + spreads[which] * draw.normal(size=(3000, 3))
    points[:, 1] += 0.7 * points[:, 0]
    return points, which


def test_a_mixture_draws_as_scikit_learn_does() -> None:
    points, _ = clusters(np.random.default_rng(0))
    mixture, loss = MixturePrior.fit(points, np.zeros(len(points), np.int64), (), PriorConfig(components=5))
    oracle = GaussianMixture(3, n_init=3, random_state=0).fit(points)
    assert len(mixture.weights) == 3
    assert loss == pytest.approx(-oracle.score(points), abs=1e-3)
    drawn, expected = mixture.draw(range(4000), 0, None, 1.0), oracle.sample(40_000)[0]
    np.testing.assert_allclose(drawn.mean(0), expected.mean(0), atol=0.2)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(expected.T), atol=1.2)
    near = oracle.predict(drawn)
    for number in range(3):
        assert (near == number).mean() == pytest.approx(oracle.weights_[number], abs=0.03)
        np.testing.assert_allclose(np.cov(drawn[near == number].T), oracle.covariances_[number], atol=0.4)


def test_a_mixture_follows_dimensions_that_hardly_vary() -> None:
    points, _ = clusters(np.random.default_rng(0))
    unit = np.array([1e-5, 1, 1e4])
    plain, small = (MixturePrior.fit(some, np.zeros(3000, np.int64), (), MIXTURE)[0] for some in (points, unit * points))
    np.testing.assert_allclose(small.draw(range(200), 0, None, 1.0) / unit, plain.draw(range(200), 0, None, 1.0), atol=0.05)


@pytest.mark.parametrize("count", [16, 30, 60])
def test_a_mixture_of_few_codes_has_no_gaussian_of_a_few_of_them(count: int) -> None:
    points = np.random.default_rng(count).normal(size=(count, 6))
    mixture, _ = MixturePrior.fit(points, np.zeros(count, np.int64), (), PriorConfig())
    assert (count * mixture.weights > 6).all()
    drawn = mixture.draw(range(200), 0, None, 1.0)
    nearest = np.linalg.norm(drawn[:, None] - points, axis=2).min(1)
    assert nearest.min() > 0.1


def test_a_mixture_draws_the_kind_asked_for_and_both_as_often_as_in_training() -> None:
    points, which = clusters(np.random.default_rng(0))
    mixture, _ = MixturePrior.fit(points, 1 + (which == 2).astype(np.int64), KINDS, PriorConfig(components=3))
    assert sorted(mixture.kind.tolist()) == [1, 1, 2]
    abnormal = mixture.draw(range(300), 0, "abnormal", 1.0)
    np.testing.assert_allclose(abnormal.mean(0), points[which == 2].mean(0), atol=0.3)
    normal = mixture.draw(range(3000), 0, "normal", 1.0)
    np.testing.assert_allclose(normal.mean(0), points[which != 2].mean(0), atol=0.3)
    drawn = mixture.draw(range(3000), 0, None, 1.0)
    assert (drawn[:, 1] < -5).mean() == pytest.approx((points[:, 1] < -5).mean(), abs=0.03)
    np.testing.assert_array_equal(mixture.draw(range(5, 9), 0, None, 1.0), mixture.draw(range(9), 0, None, 1.0)[5:])


TOY = PriorConfig(
    images=40_000, batch_size=200, width=16, learning_rate=3e-3, ema_half_life=2000, steps=20, threads=1, autoguidance=1.0
)
SHORT_TOY = TOY.with_settings({"images": 24_000})
PLACES = torch.tensor([[-1.2, 0.4], [0.8, -0.3]])


def toy(count: int, spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes (count, 2, 4, 4) of two clusters, 40% and 60%, and the number of each code's cluster."""
    draw = torch.Generator().manual_seed(0)
    which = (torch.rand(count, generator=draw) < 0.6).long()
    places = PLACES[which] + spread * torch.randn(count, 2, generator=draw)
    return places[:, :, None, None] + 0.1 * torch.randn(count, 2, 4, 4, generator=draw), which


def drawn(field: Any, labels: torch.Tensor, guidance: float = 1.0) -> torch.Tensor:
    """Return the mean of each channel of codes that are drawn, (N, 2)."""
    noise = torch.randn(len(labels), 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return integrate(field, noise, 20, labels, guidance).mean((2, 3))


def flat(maps: torch.Tensor) -> torch.Tensor:
    """Return codes (N, latent), the channels of one position next to each other, of maps (N, C, S, S)."""
    return maps.permute(0, 2, 3, 1).flatten(1)


@pytest.fixture(scope="module")
def fitted_toy() -> tuple[FlowPrior, float, float]:
    """A prior of two clusters without kinds, and its mean loss at the start and at the end."""
    return FlowPrior.fit(flat(toy(2000)[0]), (4, 4, 2), torch.zeros(2000, 2, dtype=torch.int64), (), TOY, None)


def test_a_flow_finds_the_shares_and_places_of_two_clusters(fitted_toy: tuple[FlowPrior, float, float]) -> None:
    prior, start_loss, loss = fitted_toy
    points = prior.draw(range(1000), 1, None, 1.0).view(1000, 16, 2).mean(1)
    distances = torch.cdist(points, PLACES)
    nearest = distances.argmin(1)
    assert (nearest == 1).float().mean() == pytest.approx(0.6, abs=0.06)
    for number, place in enumerate(PLACES):
        assert (points[nearest == number].mean(0) - place).abs().max() < 0.1
    assert (distances.min(1).values < 0.4).float().mean() > 0.95
    assert loss < 0.8 * start_loss


def test_a_kind_draws_its_cluster_and_guidance_leads_away_from_the_other() -> None:
    codes, which = toy(2000, spread=0.7)
    labels = torch.stack([1 + which, torch.zeros(2000, dtype=torch.int64)], 1)
    prior, _, _ = FlowPrior.fit(flat(codes), (4, 4, 2), labels, KINDS, SHORT_TOY, None)
    assert prior.shares.tolist() == pytest.approx([float((which == 0).float().mean()), float(which.float().mean())])

    def places(kind: Any, guidance: float) -> torch.Tensor:
        return prior.draw(range(500), 1, kind, guidance).view(500, 16, 2).mean(1)

    plain, guided, ignored = (places("abnormal", guidance) for guidance in (1.0, 3.0, 0.0))
    assert (plain.mean(0) - PLACES[1]).abs().max() < 0.2
    assert (places("normal", 1.0).mean(0) - PLACES[0]).abs().max() < 0.2
    assert guided[:, 0].mean() > plain[:, 0].mean() + 0.1
    assert (plain[:, 0] < 0).float().mean() < 0.25 < (ignored[:, 0] < 0).float().mean() < 0.6
    assert (places(None, 1.0).mean(0) - codes.mean((0, 2, 3))).abs().max() < 0.15
    torch.testing.assert_close(prior.draw(range(5, 9), 1, None, 1.0), prior.draw(range(9), 1, None, 1.0)[5:], atol=0.01, rtol=0)


def test_autoguidance_leads_from_what_a_gaussian_draws_to_the_clusters(fitted_toy: tuple[FlowPrior, float, float]) -> None:
    codes, fitted = flat(toy(2000)[0]), fitted_toy[0]
    priors = [replace(fitted, config=TOY.with_settings({"autoguidance": weight})) for weight in (0.0, 1.0, 1.5)]
    points = [prior.draw(range(500), 1, None, 1.0).view(500, 16, 2).mean(1) for prior in priors]
    gaussian, plain, guided = (torch.cdist(some, PLACES).min(1).values for some in points)
    assert (gaussian > 0.4).float().mean() > 0.3, "many lie between the clusters"
    assert guided.median() < plain.median() < 0.2
    known = torch.eye(4, dtype=torch.bool)
    completed = [prior.complete(codes[0], known, range(3), 0, None, 1.0) for prior in priors]
    assert torch.equal(completed[0], completed[2]), "what is inpainted follows the field as trained"


def test_codes_are_drawn_and_completed_position_by_position() -> None:
    """Each channel of each position has its own mean; a training of one step leaves the field that of a Gaussian."""
    draw = torch.Generator().manual_seed(0)
    mean, scale = torch.linspace(-3, 5, 32), torch.tensor([0.2, 4.0]).repeat(16)
    codes = mean + scale * torch.randn(400, 32, generator=draw)
    labels = torch.zeros(400, 2, dtype=torch.int64)
    prior, _, _ = FlowPrior.fit(codes, (4, 4, 2), labels, (), QUICK.with_settings({"images": 8, "steps": 12}), None)
    drawn = prior.draw(range(400), 0, None, 1.0)
    assert ((drawn - codes).mean(0).abs() < 0.3 * scale).all()
    assert ((drawn.std(0) / codes.std(0) - 1).abs() < 0.25).all()
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[1, 2] = known[3, 0] = True
    completed = prior.complete(codes[7], known, range(3), 0, None, 1.0).view(3, 4, 4, 2)
    torch.testing.assert_close(completed[:, known], codes[7].view(4, 4, 2)[known].expand(3, 2, 2), atol=1e-4, rtol=1e-4)
    assert (completed[:, ~known].std(0) > 0.01).all()


def test_the_field_is_an_average_of_weights_and_of_codes_whose_kind_is_hidden_at_times() -> None:
    codes = torch.randn(20, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.stack([1 + torch.arange(20) % 2, torch.zeros(20, dtype=torch.int64)], 1)
    settings = {"images": 320, "kind_dropout": 0.0, "ema_half_life": 1}
    changes = ({}, {"ema_half_life": 1000}, {"kind_dropout": 0.5})
    plain, averaged, hidden = (train_field(codes, labels, 2, QUICK.with_settings(settings | change)) for change in changes)
    weights = [torch.cat([one.flatten() for one in some.field.parameters()]) for some in (plain, averaged, hidden)]
    assert (averaged.start_loss, averaged.loss) == (plain.start_loss, plain.loss) != (hidden.start_loss, hidden.loss)
    assert 0 < (weights[1] - weights[0]).norm() < 0.1 * weights[0].norm()
    start = new_field(codes, labels, 2, QUICK).kind.weight
    moved = [(some.field.kind.weight - start).norm(dim=1) for some in (plain, hidden)]
    assert moved[0][0] < 0.1 * moved[0][1:].min() and moved[1][0] > 0.3 * moved[1][1:].min()


def test_the_integration_is_of_second_order() -> None:
    """Against the flow of a Gaussian, which maps noise to mean + deviation x noise per coefficient of a cosine transform."""
    draw = torch.Generator().manual_seed(0)
    codes = 2 * torch.nn.functional.avg_pool2d(torch.randn(300, 2, 10, 10, generator=draw), 3, 1) + torch.linspace(-1, 1, 8)
    labels = torch.zeros(300, 2, dtype=torch.int64)
    field, noise = new_field(codes, labels, 0, PriorConfig(width=8)), torch.randn(20, 2, 8, 8, generator=draw)
    spread = np.asarray(dctn((codes - codes.mean(0)).numpy(), axes=(2, 3), norm="ortho")).std(0, ddof=1)
    exact = codes.mean(0).numpy() + idctn(spread * dctn(noise.numpy(), axes=(2, 3), norm="ortho"), axes=(2, 3), norm="ortho")
    errors = [np.abs(integrate(field, noise, steps, labels[:20]).numpy() - exact).mean() for steps in (5, 10, 20)]
    assert errors[2] < 0.01 and errors[1] < errors[0] / 2.8 and errors[2] < errors[1] / 2.8, errors


def test_mirror_images_are_learned_and_not_drawn() -> None:
    codes, which = toy(2000)
    field = train_field(codes, torch.stack([torch.zeros_like(which), which], 1), 0, SHORT_TOY).field
    points = drawn(field, torch.zeros(300, 2, dtype=torch.int64))
    assert (points.mean(0) - PLACES[0]).abs().max() < 0.1
    assert (points[:, 0] < 0).float().mean() > 0.98


def test_an_untrained_field_draws_mean_and_spectrum_of_the_codes() -> None:
    draw = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(600, 2, 10, 10, generator=draw), 3, 1)
    codes = 2 * smooth + torch.linspace(-1, 1, 8)
    codes = torch.cat([codes, codes.flip(-1)])
    labels = torch.zeros(1200, 2, dtype=torch.int64)
    labels[600:, 1] = 1
    field = new_field(codes, labels, 0, PriorConfig(width=8))
    points = integrate(field, torch.randn(800, 2, 8, 8, generator=draw), 12, torch.zeros(800, 2, dtype=torch.int64))
    assert (points.mean(0) - codes[:600].mean(0)).abs().max() < 0.1
    power = [dctn((maps - maps.mean(0)).numpy(), axes=(2, 3), norm="ortho").var(0) for maps in (codes[:600], points)]
    ratio = power[1] / power[0]
    assert 0.97 < ratio.mean() < 1.03 and ratio.min() > 0.75 and ratio.max() < 1.25


def test_known_positions_keep_their_values() -> None:
    codes = torch.randn(50, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(50, 2, dtype=torch.int64)
    field = new_field(codes, labels, 0, PriorConfig(width=8))
    known = torch.ones(8, 8, dtype=torch.bool)
    known[2:5, 3:6] = False
    noise = torch.randn(50, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    found = integrate(field, noise, 6, labels, known=(codes, known))
    torch.testing.assert_close(found[:, :, known], codes[:, :, known])
    assert (found - codes)[:, :, ~known].abs().mean() > 0.3


@pytest.mark.parametrize("kind", MODELS)
def test_a_prior_is_fitted_to_training_frames_alone(runs: dict[str, Path], kind: str) -> None:
    loaded = load_checkpoint(runs[kind])
    result = PriorResult.load(loaded.folder.prior / RESULT)
    part = load_run_splits(loaded.folder, loaded.config, loaded.record).train
    assert result.method == {"global": "mixture", "spatial": "flow"}[kind]
    assert (result.weights_sha256, result.checkpoint, result.images) == (loaded.sha256, loaded.name, loaded.images)
    assert result.frames == len(part) == sum(result.kinds.values()) and set(result.kinds) == set(KINDS)
    assert result.config == FITS[kind] and result.code == loaded.config.code_shape
    stored, codes = load_prior(loaded), encode(loaded, part.frames).mean
    assert stored is not None
    if isinstance(stored.prior, FlowPrior):
        mirrored = encode(loaded, np.ascontiguousarray(part.frames[:, :, ::-1])).mean
        for known, own in zip((codes, mirrored), stored.prior.field.gaussian.mean, strict=True):
            mean = (stored.prior.offset + stored.prior.scale * own).permute(1, 2, 0).flatten()
            torch.testing.assert_close(mean, known.mean(0), atol=1e-4, rtol=1e-4)
    else:
        abnormal = codes[torch.from_numpy(part.store.abnormal[part.positions])].mean(0)
        own = stored.prior.kind == 1 + stored.prior.kinds.index("abnormal")
        np.testing.assert_allclose(stored.prior.weights @ stored.prior.means, codes.mean(0), atol=1e-3)
        shares = stored.prior.weights[own] / stored.prior.weights[own].sum()
        np.testing.assert_allclose(shares @ stored.prior.means[own], abnormal, atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_frames_are_drawn_from_the_prior(runs: dict[str, Path], kind: str) -> None:
    loaded = load_checkpoint(runs[kind])
    frames = sample_frames(loaded, 6, 3)
    assert frames.shape == (6, tiny.SIZE, tiny.SIZE, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, sample_frames(loaded, 6, 3))
    assert np.abs(frames.astype(int) - sample_frames(loaded, 9, 3)[:6]).max() <= 1
    assert (frames != sample_frames(loaded, 6, 4)).any()
    normal, abnormal = (sample_frames(loaded, 30, 0, kind=name) for name in KINDS)
    assert (normal != abnormal).any()
    assert sum(len(part) for part in FrameSampler.open(loaded).frames(300, 0)) == 300


def test_without_its_prior_a_run_generates_as_before(runs: dict[str, Path], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(runs["global"], tmp_path / "bare"))
    shutil.rmtree(bare / "prior")
    before, none = (sample_frames(load_checkpoint(path), 4, 0, prior="none") for path in (bare, runs["global"]))
    np.testing.assert_array_equal(before, none)
    np.testing.assert_array_equal(before, sample_frames(load_checkpoint(bare), 4, 0))
    assert (before != sample_frames(load_checkpoint(runs["global"]), 4, 0)).any()


def test_the_same_seed_gives_the_same_prior(run: Path) -> None:
    stored = (run / "prior" / TENSORS).read_bytes()
    fit_prior(run, config=QUICK)
    assert (run / "prior" / TENSORS).read_bytes() == stored
    fit_prior(run, config=QUICK.with_settings({"seed": 1}))
    assert (run / "prior" / TENSORS).read_bytes() != stored


def test_an_interrupted_fit_leaves_the_prior_before_it_or_none(run: Path) -> None:
    def stop(done: int, total: int) -> None:
        if 2 * done >= total:
            raise KeyboardInterrupt

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted((run / "prior").rglob("*"))}

    before, names = content(), sorted(path.name for path in run.iterdir())
    with pytest.raises(KeyboardInterrupt):
        fit_prior(run, config=QUICK.with_settings({"seed": 1}), progress=stop)
    assert content() == before and sorted(path.name for path in run.iterdir()) == names
    shutil.rmtree(run / "prior")
    with pytest.raises(KeyboardInterrupt):
        fit_prior(run, config=QUICK, progress=stop)
    assert sorted(path.name for path in run.iterdir()) == [name for name in names if name != "prior"]


def test_files_that_are_no_prior_are_not_deleted(run: Path, tmp_path: Path) -> None:
    (run / "prior" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt is no part of a prior, .*; move it away\.$"):
        fit_prior(run, config=QUICK, progress=never)
    assert (run / "prior" / "notes.txt").read_text() == "mine" and (run / "prior" / TENSORS).exists()
    shutil.rmtree(run / "prior")
    (run / "prior").write_text("mine")
    with pytest.raises(InputError, match=r"prior is a file, .*; move it away\.$"):
        fit_prior(run, config=QUICK, progress=never)
    assert (run / "prior").read_text() == "mine"
    message = refused(run)
    assert "is a file" in message and "move it away" in message


def never(done: int, total: int) -> None:
    raise AssertionError("fitted")


def test_nothing_is_written_to_a_run_that_was_taken_over(run: Path) -> None:
    before = (run / "prior" / TENSORS).read_bytes()

    def take(done: int, total: int) -> None:
        facts = json.loads((run / FACTS).read_text())
        (run / FACTS).write_text(json.dumps(facts | {"token": "another"}))

    with pytest.raises(TrainingStopped, match="taken over"):
        fit_prior(run, config=QUICK.with_settings({"seed": 1}), progress=take)
    assert (run / "prior" / TENSORS).read_bytes() == before


def refused(run: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        sample_frames(load_checkpoint(run), 2, 0, **options)
    message = str(caught.value)
    assert message.count(". ") == 0 and message.endswith(".")
    return message


def test_a_prior_of_other_weights_is_refused(runs: dict[str, Path], run: Path, both: FrameStore, tmp_path: Path) -> None:
    pixelscope.resume(run, epochs=4)
    message = refused(run)
    assert "pixelscope endovae prior" in message and "--prior none" in message
    assert len(sample_frames(load_checkpoint(runs["global"]), 2, 0, prior="none")) == 2
    fit_prior(run, config=QUICK)
    assert len(sample_frames(load_checkpoint(run), 2, 0)) == 2
    shutil.rmtree(run / "prior")
    shutil.copytree(runs["spatial"] / "prior", run / "prior")
    assert "other weights" in refused(run)


@pytest.mark.parametrize("kind", MODELS)
def test_a_damaged_prior_is_refused(runs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    run = Path(shutil.copytree(runs[kind], tmp_path / "run"))
    tensors, about = run / "prior" / TENSORS, run / "prior" / RESULT
    whole, text = tensors.read_bytes(), about.read_text()
    tensors.write_bytes(whole[:-4] + b"abcd")
    assert "damaged" in refused(run)
    tensors.unlink()
    assert "damaged" in refused(run)
    tensors.write_bytes(whole)
    changed = json.loads(text)
    changed["kinds"] = {"abnormal": 3}
    about.write_text(json.dumps(changed))
    assert "damaged" in refused(run)
    about.write_text(text[:50])
    assert "pixelscope endovae prior" in refused(run)
    stored = load_tensors(whole)
    some = "offset" if kind == "spatial" else "means"
    for name, tensor in (
        (some, torch.full_like(stored[some], torch.nan)),
        (some, stored[some].bfloat16()),
        *([("shares", -stored["shares"])] if kind == "spatial" else []),
    ):
        content = save_tensors({**stored, name: tensor})
        tensors.write_bytes(content)
        about.write_text(json.dumps(json.loads(text) | {"tensors_sha256": hashlib.sha256(content).hexdigest()}))
        assert "damaged" in refused(run)
    tensors.write_bytes(whole)
    about.write_text(text)
    moved = tmp_path / "elsewhere"
    (run / "prior").rename(moved)
    (run / "prior").symlink_to(moved)
    with pytest.raises(InputError, match="link"):
        load_checkpoint(run)


def test_kinds_are_refused_where_there_are_none(both: FrameStore, runs: dict[str, Path], run: Path, tmp_path: Path) -> None:
    alone = trained(both, "global", tmp_path / "alone", "normal")
    for options in ({"kind": "abnormal"}, {"guidance": 2.0}):
        assert "--split.train-on both" in refused(alone, **options)
        assert "drop --prior none" in refused(run, prior="none", **options)
    result = fit_prior(alone, config=MIXTURE)
    assert result.kinds == {} and result.frames == 32
    assert "--split.train-on both" in refused(alone, kind="abnormal")
    assert fit_prior(run, config=QUICK.with_settings({"kinds": False})).kinds == {}
    message = refused(run, kind="normal")
    assert "without classes" in message and "--split.train-on" not in message
    assert "'sick'; give one of: normal, abnormal." in refused(runs["spatial"], kind="sick")
    assert "'off'; give one of: auto, none." in refused(runs["spatial"], prior="off")
    assert "mixture" in refused(runs["global"], kind="normal", guidance=2.0)
    for guidance in (-1.0, 1e30, np.inf, np.nan):
        assert "from 0 to 100" in refused(runs["spatial"], kind="normal", guidance=guidance)
    assert len(np.unique(sample_frames(load_checkpoint(runs["spatial"]), 2, 0, kind="normal", guidance=100.0))) > 2


def test_too_few_frames_are_refused(store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(store, "global", tmp_path / "run")
    with pytest.raises(InputError, match="abnormal training frames.*--no-kinds"):
        fit_prior(run, config=MIXTURE)
    monkeypatch.setattr(fit, "MIN_FRAMES", 100)
    with pytest.raises(InputError, match=r"has \d+ training frames, and a prior needs at least 100; train on more"):
        fit_prior(run, config=MIXTURE.with_settings({"kinds": False}))
    assert not (run / "prior").exists()


def test_the_mixture_needs_the_extra_to_be_fitted_and_not_to_be_drawn_from(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(runs["global"], tmp_path / "run"))
    monkeypatch.setattr("pixelscope.errors.find_spec", lambda name: None if name == "sklearn" else object())
    monkeypatch.setitem(__import__("sys").modules, "sklearn.mixture", None)
    with pytest.raises(InputError, match="extra train"):
        fit_prior(run, config=MIXTURE)
    assert len(sample_frames(load_checkpoint(run), 2, 0)) == 2


@pytest.mark.parametrize("steps", range(1, 13))
def test_a_field_is_trained_in_any_number_of_steps(steps: int) -> None:
    codes, labels = torch.randn(20, 2, 4, 4), torch.zeros(20, 2, dtype=torch.int64)
    found = train_field(codes, labels, 0, QUICK.with_settings({"images": 8 * steps}))
    assert np.isfinite([found.start_loss, found.loss]).all()


def test_codes_that_are_not_finite_are_refused(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_means", lambda *given, **options: torch.full((8, 3), torch.nan))
    with pytest.raises(InputError, match="not finite; train the model again"):
        fit_prior(runs["global"], config=MIXTURE)


def test_a_loss_that_becomes_infinite_is_said(run: Path) -> None:
    with pytest.raises(InputError, match="--learning-rate"):
        fit_prior(run, config=QUICK.with_settings({"learning_rate": 1e30}))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("global", {"images": 96}, "a global code, on which --images has no effect; leave it out"),
        ("global", {"mirrored": False, "kind_dropout": 0.2}, "--no-mirrored, --kind-dropout have no effect; leave them out"),
        ("spatial", {"components": 3, "seed": 1}, "a spatial code, on which --components has no effect"),
    ],
)
def test_settings_of_the_other_kind_of_code_are_refused(
    runs: dict[str, Path], kind: str, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_encode", None)  # before any work
    with pytest.raises(InputError, match=message):
        fit_prior(runs[kind], config=PriorConfig(**settings))


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a healthy frame, and a mask of a square in it."""
    folder = tmp_path_factory.mktemp("inpaint")
    Image.fromarray(tiny.frames(1, 5)[0] // 2 + 20).save(folder / "frame.png")
    mask = np.zeros((tiny.SIZE, tiny.SIZE), np.uint8)
    mask[3:12, 5:16] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder / "frame.png", folder / "mask.png"


def test_an_inpainted_frame_is_the_frame_outside_of_the_mask(
    runs: dict[str, Path], frame: tuple[Path, Path], tmp_path: Path
) -> None:
    generate(runs["spatial"], tmp_path / "new", count=3, inpaint=frame[0], mask=frame[1])
    original = np.asarray(Image.open(frame[0])).astype(int)
    outside = np.asarray(Image.open(frame[1])) == 0
    versions = [np.asarray(Image.open(tmp_path / "new" / f"{number:05d}.png")) for number in range(3)]
    for version in versions:
        np.testing.assert_array_equal(version[outside], original[outside])
        assert np.abs(version - original)[~outside].mean() > 3
    assert (versions[0] != versions[1]).any()
    with Image.open(tmp_path / "new" / "00000.png") as image:
        about = json.loads(image.text["pixelscope"])  # pyright: ignore[reportAttributeAccessIssue]
    assert about["prior"]["kind"] == "abnormal" and about["mask"] == str(frame[1])
    generate(runs["spatial"], tmp_path / "healthy", count=3, inpaint=frame[0], mask=frame[1], kind="normal")
    assert (np.asarray(Image.open(tmp_path / "healthy" / "00000.png")) != versions[0]).any()


def test_what_is_drawn_does_not_depend_on_what_the_mask_hides(runs: dict[str, Path]) -> None:
    """A block of 4 x 4 pixels is unknown if the mask touches it: all but one pixel of a block, too."""
    paint = FrameInpainter(FrameSampler.open(load_checkpoint(runs["spatial"])))
    mask = np.zeros((tiny.SIZE, tiny.SIZE), bool)
    mask[4:, 4:] = True
    mask[4, 4] = False
    inside = blend_weights(mask) == 1
    assert inside[7, 7] and not mask[4, 4]
    dark = tiny.frames(1, 5)[0] // 2 + 60
    bright = np.where(mask[..., None], dark + 60, dark).astype(np.uint8)
    found = [next(iter(paint(frame, mask, 4, 0))).astype(float) for frame in (dark, bright)]
    change = np.abs(found[1] - found[0]).mean((0, 3))
    assert change[7, 7] < 15 and change[inside].mean() < 15
    np.testing.assert_array_equal(found[0][:, ~mask], np.broadcast_to(dark[~mask], (4, *dark[~mask].shape)))


def test_a_guidance_reaches_what_is_drawn(runs: dict[str, Path], frame: tuple[Path, Path], tmp_path: Path) -> None:
    loaded = load_checkpoint(runs["spatial"])
    plain, guided = (sample_frames(loaded, 8, 0, kind="normal", guidance=guidance) for guidance in (1.0, 60.0))
    assert (plain != guided).any()
    for guidance in (1.0, 60.0):
        generate(runs["spatial"], tmp_path / f"{guidance}", count=2, inpaint=frame[0], mask=frame[1], guidance=guidance)
    painted = [np.asarray(Image.open(tmp_path / f"{guidance}" / "00000.png")) for guidance in (1.0, 60.0)]
    assert (painted[0] != painted[1]).any()


def test_what_is_drawn_fades_in_inside_the_mask() -> None:
    mask = np.zeros((20, 20), bool)
    mask[4:20, 2:18] = True
    weights = blend_weights(mask)
    assert (weights[~mask] == 0).all() and (weights[mask] > 0).all()
    assert weights[12, 10] == 1 and weights[19, 10] == 1
    rising = weights[4 : 5 + FADE, 10]
    assert (np.diff(rising) > 0).all() and rising[-1] == 1


def test_an_inpainting_that_cannot_be_done_is_refused(runs: dict[str, Path], frame: tuple[Path, Path], tmp_path: Path) -> None:
    image, mask = frame
    for name, values in {"empty": np.zeros((16, 16)), "all": np.full((16, 16), 255), "large": np.full((20, 16), 255)}.items():
        values[0, 0] = 0 if name == "large" else values[0, 0]
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{name}.png")
    everywhere = np.zeros((16, 16), np.uint8)
    everywhere[::4] = 255
    Image.fromarray(everywhere).save(tmp_path / "everywhere.png")
    (tmp_path / "text.png").write_text("no image")
    bare = Path(shutil.copytree(runs["spatial"], tmp_path / "bare"))
    shutil.rmtree(bare / "prior")
    for run, options, message in (
        (runs["spatial"], {"inpaint": image}, "--mask"),
        (runs["spatial"], {"mask": mask}, "--inpaint"),
        (runs["spatial"], {"inpaint": image, "mask": mask, "dimension": 0}, "--dimension and --inpaint cannot be combined"),
        (runs["spatial"], {"between": (image, image), "dimension": 0}, "--between and --dimension cannot be combined"),
        (runs["spatial"], {"count": 0}, "--count must be from 1"),
        (runs["spatial"], {"count": 10**12}, "--count must be from 1"),
        (runs["spatial"], {"count": 10_001}, "One grid has at most 10,000"),
        (runs["spatial"], {"inpaint": image, "mask": tmp_path / "everywhere.png"}, "touches every block"),
        (runs["spatial"], {"kind": "normal", "dimension": 0}, "--class has no effect with --dimension"),
        (runs["spatial"], {"seed": 3, "between": (image, image)}, "--seed has no effect with --between"),
        (runs["global"], {"seed": 3, "prior": "none", "dimension": 0}, "drop --seed and --prior, or --dimension"),
        (runs["spatial"], {"inpaint": image, "mask": tmp_path / "empty.png"}, "nothing"),
        (runs["spatial"], {"inpaint": image, "mask": tmp_path / "large.png"}, "16 x 20"),
        (runs["spatial"], {"inpaint": image, "mask": tmp_path / "text.png"}, "text.png"),
        (runs["spatial"], {"inpaint": image, "mask": tmp_path / "absent.png"}, "absent.png"),
        (runs["spatial"], {"inpaint": tmp_path / "text.png", "mask": mask}, "text.png"),
        (runs["spatial"], {"inpaint": image, "mask": mask, "prior": "none"}, "drop --prior none"),
        (bare, {"inpaint": image, "mask": mask}, "pixelscope endovae prior"),
        (runs["global"], {"inpaint": image, "mask": mask}, "--preset spatial"),
    ):
        with pytest.raises(InputError, match=message):
            generate(run, tmp_path / "new.png", **options)
    assert not (tmp_path / "new.png").exists()


def test_from_the_command_line(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pixelscope.cli import main

    run, out = shutil.copytree(runs["global"], tmp_path / "run"), tmp_path / "new"
    assert main(["endovae", "prior", str(run), "--components", "2", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about == json.loads((tmp_path / "run" / "prior" / RESULT).read_text()) and about["config"]["components"] == 2
    assert main(["endovae", "generate", str(run), "--out", str(out), "--count", "2", "--class", "polyp"]) == 0
    assert "mixture prior" in capsys.readouterr().out
    with Image.open(out / "00000.png") as image:
        found = json.loads(image.text["pixelscope"])["prior"]  # pyright: ignore[reportAttributeAccessIssue]
    assert found == {"method": "mixture", "sha256": about["tensors_sha256"], "kind": "abnormal", "guidance": 1.0}
    none = ["endovae", "generate", str(run), "--out", str(tmp_path / "none"), "--count", "2", "--prior", "none", "--json"]
    assert main(none) == 0 and json.loads(capsys.readouterr().out)["prior"] is None
    for options in (["--class", "fish"], ["--class", "polyp", "--guidance", "2"], ["--mask", "m.png"], ["--prior", "x"]):
        assert main(["endovae", "generate", str(run), "--out", str(tmp_path / "no.png"), *options]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "Traceback" not in message
    assert not (tmp_path / "no.png").exists()
