"""What is measured of a store with lesion masks, insets that are left out and two healthy classes, number by number."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from sklearn.metrics import f1_score, roc_auc_score

from fixtures import tiny
from fixtures.weights import Tensors, edit, tensors_of
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly import localization
from pixelscope.endovae.anomaly.calibration import FILE, read_calibration
from pixelscope.endovae.anomaly.heatmap import overlay, smoothed
from pixelscope.endovae.anomaly.localization import localize, outlined
from pixelscope.endovae.anomaly.measurement import FrameMaps
from pixelscope.endovae.anomaly.scores import view_box
from pixelscope.endovae.checkpoints import read_config
from pixelscope.endovae.data import FrameSubset, Splits, load_splits
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.networks import Decoder, Encoder
from pixelscope.endovae.results import Evaluation
from pixelscope.runs.folder import RunFolder

METHODS = ("endovae", "pca", "mean image")


@pytest.fixture(scope="module")
def result(averaged_run: Path) -> Evaluation:
    return evaluate_endovae(averaged_run)


@pytest.fixture(scope="module")
def splits(averaged_run: Path) -> Splits:
    return load_splits(read_config(RunFolder(averaged_run)))


@pytest.fixture(scope="module")
def rows(averaged_run: Path, result: Evaluation) -> list[dict[str, str]]:
    with (averaged_run / "evaluation.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Networks:
    """Encoder and decoder as a file has them, under `network` or `average`."""

    def __init__(self, path: Path, kind: str) -> None:
        self.encoder, self.decoder = Encoder(tiny.SIZE, 3, 4).eval(), Decoder(tiny.SIZE, 3, 4).eval()
        self.encoder.load_state_dict(tensors_of(path, f"{kind}.encoder."))
        self.decoder.load_state_dict(tensors_of(path, f"{kind}.decoder."))

    @torch.no_grad()
    def means(self, part: FrameSubset) -> np.ndarray:
        return self.encoder(_images(part))[:, 0].numpy()

    @torch.no_grad()
    def reconstructions(self, part: FrameSubset) -> np.ndarray:
        return self.decoder(self.encoder(_images(part))[:, 0]).permute(0, 2, 3, 1).numpy()


def _images(part: FrameSubset) -> torch.Tensor:
    return torch.from_numpy(part.frames).permute(0, 3, 1, 2).float() / 255


def _best(run: Path) -> Networks:
    return Networks(run / "checkpoints" / "best.safetensors", "average")


def _errors(part: FrameSubset, reconstructions: np.ndarray) -> np.ndarray:
    """Return the squared error of each pixel, (N, S, S)."""
    return ((part.frames / 255 - reconstructions) ** 2).mean(3)


def _outside(errors: np.ndarray, part: FrameSubset) -> np.ndarray:
    """Return the mean error of each frame outside its insets."""
    return np.array([one[~inset].mean() for one, inset in zip(errors, part.insets, strict=True)])


def _column(rows: list[dict[str, str]], name: str, **where: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows if all(row[key] == value for key, value in where.items())])


def test_each_checkpoint_measures_its_own_tensors(averaged_run: Path, splits: Splits, tmp_path: Path) -> None:
    run = Path(shutil.copytree(averaged_run, tmp_path / "run"))
    newest, best = RunFolder(run).checkpoint_files()[-1], run / "checkpoints" / "best.safetensors"
    expected: dict[tuple[Path, str], dict[str, np.ndarray]] = {}
    for number, (path, kind) in enumerate((path, kind) for path in (newest, best) for kind in ("network", "average")):

        def shift(tensors: Tensors, kind: str = kind, number: int = number) -> None:
            for name, tensor in tensors.items():
                if name.startswith(f"{kind}.") and name.endswith("bias"):
                    tensor += 0.1 * number

        edit(path, shift)
        networks = Networks(path, kind)
        expected[path, kind] = {
            name: _outside(_errors(part, networks.reconstructions(part)), part) for name, part in splits.test.items()
        }
    errors = [found["normal"].mean() for found in expected.values()]
    assert np.diff(np.sort(errors)).min() > 1e-3 * max(errors), "the four can be told apart"
    result = evaluate_endovae(run)
    assert result.checkpoint == "best-validation"
    assert set(result.checkpoints) == {"best-validation", "last", "ema-last"}
    for checkpoint, path, kind in (
        ("last", newest, "network"),
        ("ema-last", newest, "average"),
        ("best-validation", best, "average"),
    ):
        for name, found in expected[path, kind].items():
            assert result.checkpoints[checkpoint][f"{name}_squared_error"] == pytest.approx(found.mean(), rel=1e-4)
            assert result.checkpoints[checkpoint][f"{name}_psnr"] == pytest.approx((-10 * np.log10(found)).mean(), rel=1e-4)
    for name, found in expected[best, "average"].items():
        assert result.sets[name].methods["endovae"]["squared_error"].mean == pytest.approx(found.mean(), rel=1e-4)


def test_insets_count_in_no_metric_of_a_store_that_leaves_them_out(
    averaged_run: Path, splits: Splits, rows: list[dict[str, str]]
) -> None:
    for kind, part in splits.test.items():
        reconstructions = _best(averaged_run).reconstructions(part)
        errors = _outside(_errors(part, reconstructions), part)
        assert _column(rows, "endovae_squared_error", kind=kind) == pytest.approx(errors, rel=1e-4)
        assert _column(rows, "endovae_psnr", kind=kind) == pytest.approx(-10 * np.log10(errors), rel=1e-4)
        expected = []
        for frame, drawn, inset in zip(part.frames / 255, reconstructions, part.insets, strict=True):
            _, whole = structural_similarity(
                frame, drawn, channel_axis=2, data_range=1, gaussian_weights=True, use_sample_covariance=False, full=True
            )
            expected.append(whole.mean(2)[5:-5, 5:-5][~inset[5:-5, 5:-5]].mean())
        assert _column(rows, "endovae_ssim", kind=kind) == pytest.approx(np.array(expected), abs=2e-3)


def test_the_linear_yardsticks_are_fitted_to_training_frames_and_their_mirror_images(
    splits: Splits, rows: list[dict[str, str]]
) -> None:
    frames = splits.train.frames / 255
    fitted = np.concatenate([frames, frames[:, :, ::-1]]).reshape(2 * len(frames), -1)
    mean = fitted.mean(0)
    _, _, directions = np.linalg.svd(fitted - mean, full_matrices=False)
    for kind, part in splits.test.items():
        given = part.frames.reshape(len(part), -1) / 255 - mean
        projected = mean + given @ directions[:3].T @ directions[:3]
        for method, drawn in (("pca", projected.clip(0, 1)), ("mean_image", np.broadcast_to(mean, given.shape))):
            expected = _outside(_errors(part, drawn.reshape(part.frames.shape)), part)
            assert _column(rows, f"{method}_squared_error", kind=kind) == pytest.approx(expected, rel=1e-3)


def test_separation_is_the_auroc_of_abnormal_frames_over_normal_ones(result: Evaluation, rows: list[dict[str, str]]) -> None:
    truth = [row["kind"] == "abnormal" for row in rows]
    for method in METHODS:
        errors = _column(rows, f"{method.replace(' ', '_')}_squared_error")
        assert result.separation[method] == pytest.approx(roc_auc_score(truth, errors), abs=1e-4)
    assert any(abs(value - 0.5) > 0.02 for value in result.separation.values())


def test_spreads_are_those_of_the_frames_of_each_class_and_size(result: Evaluation, rows: list[dict[str, str]]) -> None:
    classes = {"normal": ["normal-cecum", "normal-pylorus"], "abnormal": ["polyps"]}
    assert {kind: list(found.by_class) for kind, found in result.sets.items()} == classes
    for kind, found in result.sets.items():
        for name, metrics in found.by_class.items():
            inside = [row for row in rows if row["name"].startswith(f"{name}/")]
            assert found.classes[name] == len(inside) > 1
            for metric, spread in metrics.items():
                values = _column(inside, f"endovae_{metric}")
                assert (spread.mean, spread.std) == pytest.approx((values.mean(), values.std()), rel=1e-4)
        for method, metrics in found.methods.items():
            for metric, spread in metrics.items():
                values = _column(rows, f"{method.replace(' ', '_')}_{metric}", kind=kind)
                assert (spread.mean, spread.std) == pytest.approx((values.mean(), values.std()), rel=1e-4)
        for row in found.by_size:
            inside = [
                one
                for one in rows
                if one["kind"] == kind and (one["width"], one["height"]) == (str(row.width), str(row.height))
            ]
            assert row.count == len(inside)
            assert (row.psnr, row.ssim) == pytest.approx(
                (_column(inside, "endovae_psnr").mean(), _column(inside, "endovae_ssim").mean()), rel=1e-4
            )
    assert [row.width for row in result.sets["normal"].by_size] == [32, 48]


def test_regions_are_measured_pixel_by_pixel(averaged_run: Path, result: Evaluation, splits: Splits) -> None:
    for kind, part in splits.test.items():
        found, errors = result.sets[kind], _errors(part, _best(averaged_run).reconstructions(part))
        assert found.region_share["inset"] == pytest.approx(part.insets.mean())
        assert found.region_error["inset"] == pytest.approx(errors[part.insets].mean(), rel=1e-3)
        others = [name for name in found.region_share if name != "inset"]
        outside = sum(found.region_error[name] * found.region_share[name] for name in others)
        assert outside == pytest.approx((errors * ~part.insets).mean(), rel=1e-3)


def test_epochs_are_told_from_images_seen(result: Evaluation, splits: Splits) -> None:
    assert result.epochs == pytest.approx(result.images / len(splits.train))


def test_the_latent_space_is_described_by_training_frames_and_the_scores_by_calibration_frames(
    averaged_run: Path, result: Evaluation, splits: Splits
) -> None:
    """In-sample distances would be too small, and healthy frames too often flagged."""
    found, networks = read_calibration(averaged_run / "checkpoints" / FILE), _best(averaged_run)
    known = found.views["full"]
    means = networks.means(splits.train)
    assert np.array(found.latent.mean) == pytest.approx(means.mean(0), rel=1e-3, abs=1e-5)
    inverse = np.linalg.inv(np.cov(means.T))
    centred = networks.means(splits.calibration) - means.mean(0)
    distances = np.sqrt(np.einsum("ni,ij,nj->n", centred, inverse, centred))
    assert np.array(known.scores["mahalanobis"]) == pytest.approx(np.sort(distances), rel=2e-2)
    errors = _errors(splits.calibration, networks.reconstructions(splits.calibration))
    assert np.array(known.scores["mse"]) == pytest.approx(np.sort(errors.mean((1, 2))), rel=1e-3)
    assert np.array(known.scores["mse_no_overlay"]) == pytest.approx(np.sort(_outside(errors, splits.calibration)), rel=1e-3)
    heatmap = np.quantile(smoothed(errors.astype(np.float32))[~splits.calibration.insets], 0.99)
    assert found.vmax == pytest.approx(heatmap, rel=1e-3)


@pytest.mark.parametrize("name", ["full", "centre"])
def test_trivial_baselines_are_of_what_a_view_shows(
    averaged_run: Path, result: Evaluation, splits: Splits, rows: list[dict[str, str]], name: ViewName
) -> None:
    """Of the mean colour, fitted to training frames in this view; of principal components, whose errors lie inside it."""
    view, known = splits.store.view(name), splits.train
    with (averaged_run / "anomaly.csv").open(encoding="utf-8") as file:
        found = {row["name"]: row for row in csv.DictReader(file) if row["view"] == name and not row["error"]}
    positions = np.array([splits.store.names.index(one) for one in found])

    def colours(some: np.ndarray) -> np.ndarray:
        pairs = zip(view.frames[some], view.insets[some] > 0, strict=True)
        return np.array([frame[~inset].mean(0) for frame, inset in pairs])

    own, fitted = colours(positions), colours(known.positions)
    away, inverse = own - fitted.mean(0), np.linalg.inv(np.cov(fitted.T))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away))
    assert [float(row["mean colour"]) for row in found.values()] == pytest.approx(expected, rel=1e-3)
    frames = known.frames / 255
    both = np.concatenate([frames, frames[:, :, ::-1]]).reshape(2 * len(frames), -1)
    directions = np.linalg.svd(both - both.mean(0), full_matrices=False)[2][:3]
    given = splits.store.frames[positions].reshape(len(positions), -1) / 255
    drawn = (both.mean(0) + (given - both.mean(0)) @ directions.T @ directions).clip(0, 1)
    inside = view_box(tiny.SIZE, name).slices
    errors = ((given - drawn) ** 2).reshape(-1, tiny.SIZE, tiny.SIZE, 3).mean(3)[:, *inside]
    valid = (splits.store.insets[positions] == 0)[:, *inside]
    expected = np.array([one[shown].mean() for one, shown in zip(errors, valid, strict=True)])
    assert [float(row["PCA error"]) for row in found.values()] == pytest.approx(expected, rel=1e-3)


def test_a_score_that_sees_what_is_drawn_over_a_frame_is_never_chosen(result: Evaluation) -> None:
    """Noise in the insets of abnormal frames alone: the whole frame tells them apart best, and by nothing of the tissue."""
    assert result.anomaly is not None
    found = result.anomaly.views["full"]
    assert found.selection_auroc["mse"] == max(found.selection_auroc.values())
    assert found.selected != "mse"
    others = {name: value for name, value in found.selection_auroc.items() if name != "mse"}
    assert others[found.selected] == max(others.values())


def test_lesions_are_marked_by_the_maps_outside_insets(averaged_run: Path, result: Evaluation, splits: Splits) -> None:
    with (averaged_run / "anomaly.csv").open(encoding="utf-8") as file:
        tested = [row["name"] for row in csv.DictReader(file) if (row["kind"], row["view"]) == ("abnormal", "full")]
    store: FrameStore = splits.store
    positions = np.array([store.names.index(name) for name in tested])
    part = FrameSubset(store, positions[store.has_lesion[positions]])
    assert 2 < len(part) < len(tested)
    assert result.anomaly is not None and result.anomaly.localization is not None
    found, valid_mask = result.anomaly.localization, ~part.insets
    truth = store.lesions[part.positions][valid_mask] > 0
    assert found.frames == len(part)
    assert found.lesion_share == pytest.approx(truth.mean())
    axis = np.linspace(-1, 1, tiny.SIZE)
    centre = np.broadcast_to(-np.hypot(axis[:, None], axis), valid_mask.shape)
    errors = smoothed(_errors(part, _best(averaged_run).reconstructions(part)).astype(np.float32))
    for name, values in (("nearness to the centre", centre), ("error, smoothed", errors)):
        scores = values[valid_mask].round(9)
        assert found.maps[name].auroc == pytest.approx(roc_auc_score(truth, scores), abs=2e-3), name
        best = max(f1_score(truth, scores >= level) for level in np.quantile(scores, np.linspace(0, 1, 200)))
        assert found.maps[name].dice == pytest.approx(best, abs=5e-3), name
    assert set(found.maps) == {"error, smoothed", "1 - SSIM", "PCA error, smoothed", "nearness to the centre"}
    assert found.maps["nearness to the centre"].auroc != pytest.approx(0.5, abs=0.02)
    assert "lesion pixels" in result.to_text()


def test_the_tables_hold_the_numbers_in_the_order_of_their_heads(result: Evaluation) -> None:
    lines = result.to_text().splitlines()
    for one in result.sets.values():
        start = next(number for number, line in enumerate(lines) if line.startswith(f"{one.title}: {one.count}"))
        assert lines[start + 1].split() == ["PSNR,", "dB", "SSIM", "fine", "detail", "kept"]
        for line, (method, metrics) in zip(lines[start + 2 :], one.methods.items(), strict=False):
            psnr, ssim = metrics["psnr"], metrics["ssim"]
            cells = [f"{psnr.mean:.2f}", "+-", f"{psnr.std:.2f}", f"{ssim.mean:.3f}", "+-", f"{ssim.std:.3f}"]
            expected = [*cells, f"{one.detail_kept[method]:.1%}"]
            assert line.removeprefix(f"  {result.method_names[method]}").split() == expected
    assert result.anomaly is not None
    for name, view in result.anomaly.views.items():
        start, groups = lines.index(f"View {name}"), list(view.groups)
        assert groups == ["all", "normal-cecum", "normal-pylorus"]
        heads = [
            line.index(f"({view.counts[group]:,})") for line in lines[start : start + 4] for group in groups if "AP," in line
        ]
        assert heads == sorted(heads) and len(heads) == 3
        for score, by in (view.scores | view.baselines).items():
            cells = "  ".join(str(by[group].auroc) for group in groups) + f"  {by['all'].average_precision}"
            assert any(
                line[2:].startswith(score) and " ".join(line.split()).endswith(cells.replace("  ", " "))
                for line in lines[start:]
            )
        leads = " ".join(str(view.leads[group].difference) for group in groups)
        assert any(" ".join(line.split()) == f"lead over the best {leads}" for line in lines[start:])
    view = result.anomaly.views["centre"]
    for group, title in view.groups.items():
        (line,) = [line for line in lines if f" against {title} ({view.counts[group]:,}); lead over" in line]
        assert str(view.scores[view.selected][group].auroc) in line
        assert f"lead over {view.leads[group].baseline}, the best trivial baseline: {view.leads[group].difference}" in line


def _samples(run: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(run / "samples" / f"{name}.npz") as stored:
        return dict(stored)


def test_the_worst_and_the_best_reconstructions_are_stored(
    averaged_run: Path, splits: Splits, rows: list[dict[str, str]]
) -> None:
    for kind, part in splits.test.items():
        psnr, drawn = _column(rows, "endovae_psnr", kind=kind), _best(averaged_run).reconstructions(part) * 255
        order = np.argsort(psnr)
        for which, shown in (("worst", order[:5]), ("best", order[::-1][:5])):
            found = _samples(averaged_run, f"reconstructions-{kind}-{which}")
            assert found["psnr"] == pytest.approx(psnr[shown], rel=1e-4)
            np.testing.assert_array_equal(found["originals"], part.frames[shown])
            assert np.abs(found["reconstructions"] - drawn[shown]).max() < 1


def test_heat_maps_are_stored_with_the_p_values_of_their_frames(averaged_run: Path, result: Evaluation, splits: Splits) -> None:
    vmax = read_calibration(averaged_run / "checkpoints" / FILE).vmax
    with (averaged_run / "anomaly.csv").open(encoding="utf-8") as file:
        known = {row["name"]: row["p"] for row in csv.DictReader(file) if row["view"] == "centre"}
    for kind in splits.test:
        found = _samples(averaged_run, f"heatmaps-{kind}")
        every = splits.store.frames[:]
        positions = np.array([int((every == frame).all((1, 2, 3)).argmax()) for frame in found["frames"]])
        part = FrameSubset(splits.store, positions)
        assert {store_kind(splits.store, position) for position in positions} == {kind}
        assert found["p"] == pytest.approx([float(known[name]) for name in part.names], rel=1e-4)
        errors = smoothed(_errors(part, _best(averaged_run).reconstructions(part)).astype(np.float32)) * ~part.insets
        expected = [overlay(frame, error, vmax) for frame, error in zip(part.frames, errors, strict=True)]
        assert np.abs(found["overlays"].astype(int) - np.array(expected, int)).max() <= 2
        np.testing.assert_array_equal(found["lesions"], splits.store.lesions[positions] > 0)
    assert result.anomaly is not None and result.anomaly.headline == "centre"


def store_kind(store: FrameStore, position: int) -> str:
    return "abnormal" if store.abnormal[position] else "normal"


def test_stored_frames_lie_along_the_dimensions_that_are_used_most(averaged_run: Path, result: Evaluation) -> None:
    networks, found = _best(averaged_run), _samples(averaged_run, "traversal")
    divergence = np.array(result.sets["normal"].kl)
    assert found["dimensions"].tolist() == np.argsort(-divergence, kind="stable").tolist()
    assert found["kl"] == pytest.approx(divergence[found["dimensions"]], rel=1e-3)
    z = torch.zeros(3, 3)
    z[np.arange(3), found["dimensions"]] = 3.0
    with torch.no_grad():
        ends = (networks.decoder(z).permute(0, 2, 3, 1) * 255).numpy()
    assert np.abs(found["frames"][:, -1] - ends).max() < 1


def test_only_frames_that_were_compared_are_counted(outlined_store: FrameStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localization, "MAX_FRAMES", 5)
    part = FrameSubset(outlined_store, np.flatnonzero(outlined_store.abnormal))
    some = outlined(part).positions
    insets = outlined_store.insets[some] > 0
    errors = np.random.default_rng(0).random(insets.shape, np.float32)
    found = localize(part, FrameMaps(some, insets, errors, errors[:, 5:-5, 5:-5], errors))
    truth = outlined_store.lesions[some][~insets] > 0
    assert found is not None and found.frames == 5 and found.lesion_share == pytest.approx(truth.mean())
    assert found.maps["PCA error, smoothed"].auroc == pytest.approx(roc_auc_score(truth, smoothed(errors)[~insets]), abs=1e-6)


def test_a_lesion_that_its_mask_does_not_show_is_not_localized(outlined_store: FrameStore, tmp_path: Path) -> None:
    shutil.copytree(outlined_store.path, tmp_path / "store")
    lesions, shown = np.array(outlined_store.lesions), np.flatnonzero(outlined_store.has_lesion)
    lesions[shown[0]], lesions[shown[1]] = 0, 0
    lesions[shown[1], 8, 8:10] = 1  # 2 of 256 pixels, under 1%
    np.save(tmp_path / "store" / "lesions.npy", lesions)
    part = FrameSubset(FrameStore.open(tmp_path / "store"), np.arange(len(outlined_store)))
    assert outlined(part).positions.tolist() == shown[2:].tolist()
