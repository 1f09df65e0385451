"""Measuring a run on other images: digits that it trained on, in either domain, are in no number but the one named so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from fixtures.sources import noise, write_mnist
from pixelscope import evaluate, generate_mnist_m, load_images
from pixelscope.data.pack import pack_images
from pixelscope.data.split import random_test_mask
from pixelscope.errors import InputError
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.training import train_baseline, train_pixelda

COUNT, OWN_TEST = 100, 20
"""Digits, of which 80 are in MNIST's training file; the aligned form holds a random fifth of all out."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("digits")
    mnist = write_mnist(root / "mnist", train=80, test=20)
    photos = root / "photos"
    photos.mkdir()
    Image.fromarray(noise((60, 60, 3))).save(photos / "a.png")
    found = {"mnist": f"mnist:{mnist}"}
    for form in ("aligned", "distributed"):
        found[form] = str(generate_mnist_m(mnist, photos, root / f"{form}.npz", form=form))
    return found


@pytest.fixture(scope="module")
def aligned_run(places: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.pixelda(source=places["mnist"], target=places["aligned"], training={"images": 16})
    return train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "aligned")


def counts(result: Evaluation) -> dict[str, int]:
    return {name: found.count for name, found in result.sets.items()}


def test_of_another_form_only_digits_of_the_runs_own_test_split_are_counted(places: dict[str, str], aligned_run: Path) -> None:
    result = evaluate(aligned_run, target=places["distributed"])
    own_test = random_test_mask(COUNT, 0.2, 0)
    both = int((own_test & (np.arange(COUNT) >= 80)).sum())
    assert 0 < both < OWN_TEST, "the seed leaves digits of both kinds"
    assert counts(result) == {
        "source_test": OWN_TEST,
        "target_test": both,
        "target_all": OWN_TEST,
        "target_test_partly_seen": 20,
    }
    assert f"without {20 - both} images" in result.sets["target_test"].title
    assert f"partly seen: the run's training splits have {20 - both} of these" in result.to_text()
    assert result.oracle is not None
    assert not (aligned_run / "evaluation.json").exists(), "other images' numbers are not stored as the run's"


def test_the_source_as_another_source_keeps_the_runs_split(places: dict[str, str], aligned_run: Path) -> None:
    """MNIST's own test file holds digits that an aligned run trained on."""
    given = evaluate(aligned_run, source=places["mnist"].removeprefix("mnist:"))
    assert counts(given)["source_test"] < OWN_TEST
    assert counts(given)["target_test"] == OWN_TEST


def test_a_run_on_the_distributed_form_has_seen_no_test_digit(places: dict[str, str], tmp_path: Path) -> None:
    config = tiny.baseline(source=places["mnist"], target=places["distributed"], training={"images": 16})
    run = train_baseline(config, run=tmp_path / "run")
    assert counts(evaluate(run)) == {"source_test": 20, "target_test": 20, "target_all": COUNT}
    other = evaluate(run, target=places["aligned"])
    assert counts(other)["target_all"] == 20, "the digits of MNIST's test file"
    assert "target_test_partly_seen" in other.sets


def test_where_every_digit_was_seen_nothing_is_measured(places: dict[str, str], aligned_run: Path, tmp_path: Path) -> None:
    seen = load_images(places["distributed"], size=tiny.SIZE).select(~random_test_mask(COUNT, 0.2, 0))
    pack_images(seen, tmp_path / "pack")
    with pytest.raises(InputError, match="training splits have every image of .*pack"):
        evaluate(aligned_run, target=f"pack:{tmp_path / 'pack'}")


def test_images_of_no_known_collection_are_all_measured(aligned_run: Path, tmp_path: Path) -> None:
    images, _ = tiny.pictures(40)
    np.savez(tmp_path / "other.npz", images=images, labels=np.arange(40) % 10)
    result = evaluate(aligned_run, target=f"arrays:{tmp_path / 'other.npz'}")
    assert counts(result) == {"source_test": OWN_TEST, "target_test": 8, "target_all": 40}


def test_a_given_target_without_labels_is_refused(aligned_run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "unlabelled.npz", images=tiny.pictures(40)[0])
    with pytest.raises(InputError, match="cannot be measured: .*has no labels"):
        evaluate(aligned_run, target=f"arrays:{tmp_path / 'unlabelled.npz'}")


def test_a_baseline_measured_on_another_target_is_refused(places: dict[str, str], tmp_path: Path) -> None:
    baseline = train_baseline(
        tiny.baseline(source=places["mnist"], target=places["distributed"], training={"images": 16}), run=tmp_path / "baseline"
    )
    evaluate(baseline)
    config = tiny.pixelda(source=places["mnist"], target=places["aligned"], training={"images": 16})
    with pytest.raises(InputError, match=r"measured on the target .*distributed.npz.* has other images, .*aligned.npz"):
        train_pixelda(config, run=tmp_path / "run", baseline=baseline)
    assert not (tmp_path / "run").exists()


def test_of_the_distributed_set_an_aligned_run_is_measured_on_digits_of_its_own_test_split(
    shared_data: Path, tmp_path: Path
) -> None:
    source, photos = shared_data / "mnist", shared_data / "bsds500"
    made = generate_mnist_m(source, photos, tmp_path / "m.npz")
    config = tiny.baseline(source=f"mnist:{source}", target=str(made), training={"images": 16})
    run = train_baseline(config, run=tmp_path / "run")
    result = evaluate(run, target=str(shared_data / "mnist_m_sample"))
    given = load_images(str(shared_data / "mnist_m_sample"), size=None)
    assert given.items is not None and given.test is not None
    unseen = random_test_mask(70_000, 0.2, 0)[given.items]
    assert counts(result) == {
        "source_test": 14_000,
        "target_test": int((unseen & given.test).sum()),
        "target_all": int(unseen.sum()),
        "target_test_partly_seen": 100,
    }


def test_domains_of_one_collection_with_splits_of_their_own_leave_out_what_either_trained_on(
    places: dict[str, str], tmp_path: Path
) -> None:
    """The source's random split and MNIST's own cut across each other; half of the target's digits are left away."""
    half = load_images(places["distributed"], size=tiny.SIZE).select(np.arange(0, COUNT, 2))
    pack_images(half, tmp_path / "half")
    config = tiny.baseline(source=places["aligned"], target=f"pack:{tmp_path / 'half'}", training={"images": 16})
    run = train_baseline(config, run=tmp_path / "run")
    own_test = random_test_mask(COUNT, 0.2, 0)
    in_half, mnist_test = np.arange(COUNT) % 2 == 0, np.arange(COUNT) >= 80
    result = counts(evaluate(run))
    assert result["source_test"] == int((own_test & ~(in_half & ~mnist_test)).sum())
    assert result["target_test"] == int((own_test & in_half & mnist_test).sum())
    assert result["target_test_partly_seen"] == 10
    assert result["target_test"] < 10


def test_a_baseline_is_not_said_to_have_trained_on_its_target(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    run = train_baseline(tiny.baseline(source=source, target=target, training={"images": 16}), run=tmp_path / "run")
    result = evaluate(run, target=target)
    assert counts(result) == {"source_test": 12, "target_test": 12, "target_all": 12}, "48 of 60 are its training split"
    assert "without 48 images" in result.to_text() and "trained on" not in result.to_text()


def test_a_digit_with_another_label_than_in_the_source_is_refused(
    places: dict[str, str], aligned_run: Path, tmp_path: Path
) -> None:
    images = load_images(places["distributed"], size=tiny.SIZE)
    assert images.items is not None
    pack_images(replace(images, items=np.roll(images.items, 1)), tmp_path / "shifted")
    with pytest.raises(InputError, match="wrongly numbered"):
        evaluate(aligned_run, target=f"pack:{tmp_path / 'shifted'}")


def test_mnist_as_arrays_is_mnist(shared_data: Path, tmp_path: Path) -> None:
    digits = load_images(f"mnist:{shared_data / 'mnist'}", size=None)
    assert digits.labels is not None
    images, labels = digits.in_memory()[:, 0], digits.labels
    np.savez(
        tmp_path / "keras.npz", x_train=images[:60_000], y_train=labels[:60_000], x_test=images[60_000:], y_test=labels[60_000:]
    )
    given = load_images(f"arrays:{tmp_path / 'keras.npz'}", size=None)
    assert given.is_aligned_with(digits)
