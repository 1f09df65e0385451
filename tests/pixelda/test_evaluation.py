"""Evaluation: counts against scikit-learn, rules that need no target label, the oracle apart."""

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from pixelscope import evaluate, train_baseline, train_pixelda
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.pixelda.accuracy import confusion, logits_of
from pixelscope.pixelda.chosen import available_weights
from pixelscope.pixelda.domains import load_domains
from pixelscope.pixelda.evaluation import set_result
from pixelscope.pixelda.networks import Classifier

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_counts_and_accuracies_are_those_of_scikit_learn(found: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(values) for values in zip(*found, strict=True))
    counts = confusion(torch.tensor(predicted), torch.tensor(truth), 4)
    assert counts.tolist() == sklearn.metrics.confusion_matrix(truth, predicted, labels=range(4)).tolist()
    result = set_result("any", counts, list("abcd"))
    assert result.accuracy == sklearn.metrics.accuracy_score(truth, predicted)
    for k, entry in enumerate(result.per_class):
        own = truth == k
        assert entry["count"] == own.sum()
        assert entry["accuracy"] == (np.mean(predicted[own] == k) if own.any() else None)
    assert result.standard_error == pytest.approx(np.std(truth == predicted) / len(truth) ** 0.5)


def test_an_image_is_counted_once_however_they_are_batched() -> None:
    images, classifier = tiny.image_set(23).images, Classifier(3, 16)
    whole = logits_of(classifier, images, batch=23)
    torch.testing.assert_close(logits_of(classifier, images, batch=5), whole)
    assert classifier.training, "the mode is put back"


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(zip(("source", "target"), tiny.write_domains(tmp_path_factory.mktemp("images")), strict=True))


@pytest.fixture(scope="module")
def run(domains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.pixelda(**domains, data={"validation_fraction": 0.2}, training={"images": 480})
    return train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "run")


def test_the_numbers_are_those_of_the_weights_on_the_test_splits(run: Path, domains: dict[str, str]) -> None:
    result = evaluate(run)
    config = tiny.pixelda(**domains, data={"validation_fraction": 0.2})
    parts = load_domains(config)
    weights = available_weights(RunFolder(run), config, ("0", "1", "2"))
    assert parts.target is not None
    for rule in ("last", "ema-last", "best-source"):
        for name, images, source in (("source_test", parts.source.test, True), ("target_test", parts.target.test, False)):
            assert images.labels is not None
            predicted = logits_of(weights[rule].classifier, images.images, source=source).argmax(1)
            assert result.rules[rule][name] == pytest.approx(sklearn.metrics.accuracy_score(images.labels, predicted))
    assert result.rule == "ema-last"
    assert result.sets["target_all"].count == 60
    assert json.loads((run / "evaluation.json").read_text()) == json.loads(json.dumps(result.to_dict()))


def test_the_curve_covers_the_run_and_the_oracle_is_its_best_and_named(run: Path) -> None:
    result = evaluate(run)
    assert [point["images"] for point in result.curve] == list(range(0, 481, 48))
    assert set(result.curve[-1]) == {"images", "step", "source_train", "source_test", "target_test", "ema_target_test"}
    assert result.oracle is not None
    assert result.oracle["label"] == "oracle: chosen with target labels"
    assert result.oracle["target_test"] == max(max(p["target_test"], p["ema_target_test"]) for p in result.curve)
    assert "oracle" in result.to_text()
    assert "oracle" not in result.rules


def test_another_rule_can_be_asked_for_and_an_unknown_one_is_refused(run: Path) -> None:
    assert evaluate(run, rule="last").rule == "last"
    with pytest.raises(InputError, match="no checkpoint rule 'best-target'"):
        evaluate(run, rule="best-target")


def test_rules_that_a_run_does_not_support_are_left_out(domains: dict[str, str], tmp_path: Path) -> None:
    config = tiny.pixelda(**domains, training={"images": 16, "ema_half_life": 0})
    bare = train_pixelda(config, run=tmp_path / "run")
    assert list(evaluate(bare).rules) == ["last"]
    with pytest.raises(InputError, match="best-source is not available: no source images were held out"):
        evaluate(bare, rule="best-source")
    with pytest.raises(InputError, match="no average was kept"):
        evaluate(bare, rule="ema-last")


def test_another_target_is_measured_and_not_stored(run: Path, tmp_path: Path) -> None:
    stored = evaluate(run).to_dict()
    images, labels = tiny.pictures(40, seed=7)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    other = evaluate(run, target=f"arrays:{tmp_path / 'other.npz'}")
    assert other.sets["target_all"].count == 40
    assert json.loads((run / "evaluation.json").read_text()) == json.loads(json.dumps(stored))


def test_classes_unlike_the_runs_are_refused(run: Path, tmp_path: Path) -> None:
    images, labels = tiny.pictures(40)
    np.savez(tmp_path / "two.npz", images=images, labels=labels % 2)
    with pytest.raises(InputError, match=r"knows the classes 0, 1, 2 and the source given has 0, 1"):
        evaluate(run, source=f"arrays:{tmp_path / 'two.npz'}")


def test_an_unlabelled_target_gives_source_numbers_only(domains: dict[str, str], tmp_path: Path) -> None:
    images, _ = tiny.pictures(60, 1, coloured=True)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    config = tiny.pixelda(source=domains["source"], target=f"arrays:{tmp_path / 'unlabelled.npz'}", training={"images": 16})
    unlabelled = train_pixelda(config, run=tmp_path / "run")
    result = evaluate(unlabelled)
    assert set(result.sets) == {"source_test"}
    assert result.oracle is None
    with np.load(unlabelled / "samples" / "gallery.npz") as gallery:
        assert set(gallery["target_labels"].tolist()) == {-1}


def test_a_run_without_checkpoint_says_so(domains: dict[str, str], tmp_path: Path) -> None:
    run = train_baseline(tiny.baseline(**domains, training={"images": 16}), run=tmp_path / "run")
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no checkpoint yet"):
        evaluate(run)
