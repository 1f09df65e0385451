"""Evaluation: counts against scikit-learn, checkpoints chosen without target labels, the oracle apart."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fixtures import tiny
from fixtures.weights import Tensors, always, edit, tensors_of
from pixelscope import evaluate
from pixelscope.data.split import Split
from pixelscope.errors import InputError
from pixelscope.pixelda.data import load_domains
from pixelscope.pixelda.metrics import MEASURED, SourceEvaluation, confusion, logits_of, set_result
from pixelscope.pixelda.networks import Classifier
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder, read_stats

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
        assert entry.count == own.sum()
        assert entry.accuracy == (np.mean(predicted[own] == k) if own.any() else None)
    assert result.standard_error == pytest.approx(np.std(truth == predicted) / len(truth) ** 0.5)


def test_an_image_is_counted_once_however_they_are_batched() -> None:
    images, classifier = tiny.image_set(23).images, Classifier(3, 16)
    whole = logits_of(classifier, images, batch=23)
    torch.testing.assert_close(logits_of(classifier, images, batch=5), whole)
    assert classifier.training, "the mode is put back"


class AlwaysTheFirst(torch.nn.Module):
    """A classifier that sees the first class in everything, and counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.scale = 0, torch.nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor, *, source: bool = False) -> Tensor:
        self.seen += len(images)
        return self.scale * torch.tensor([1.0, 0.0, 0.0]).expand(len(images), 3)


def test_a_large_training_split_is_measured_by_images_from_all_over_it() -> None:
    """In class order, as folders are read: its first images would all be of one class."""
    few, count = tiny.image_set(3), 30_000
    train = replace(few, images=few.images[:1].repeat(count, 0), labels=np.arange(count) * 3 // count, names=())
    classifier = AlwaysTheFirst()
    numbers = SourceEvaluation(Split(train, few.select(np.array([], np.int64)), few, np.arange(count)))
    assert numbers.measure(classifier, None)["accuracy/source_train"] == pytest.approx(1 / 3, abs=1e-3)
    assert classifier.seen <= MEASURED + len(few)


def test_what_training_measures_is_accuracy_and_loss_on_the_source_through_its_own_first_layer() -> None:
    """Against scikit-learn; the average is measured where a checkpoint may be chosen by it."""
    torch.manual_seed(0)
    networks = [Classifier(3, tiny.SIZE, private_first_layer=True) for _ in range(2)]
    for network in networks:
        torch.nn.init.normal_(network.get_parameter("conv1_source.weight"))
        torch.nn.init.normal_(network.get_parameter("shared.10.weight"))
    parts = [tiny.image_set(count, seed) for seed, count in enumerate((30, 12, 15))]
    numbers = SourceEvaluation(Split(*parts, np.arange(30))).measure(*networks)
    expected = {}
    for name, images in zip(("train", "validation", "test"), parts, strict=True):
        assert images.labels is not None
        with torch.no_grad():
            own, average = (network(tiny.scaled(images.in_memory()), source=True).double().softmax(1) for network in networks)
        expected[f"accuracy/source_{name}"] = sklearn.metrics.accuracy_score(images.labels, own.argmax(1))
        expected[f"loss/source_{name}"] = sklearn.metrics.log_loss(images.labels, own.numpy(), labels=range(3))
        if name != "train":
            expected[f"accuracy/source_{name}_ema"] = sklearn.metrics.accuracy_score(images.labels, average.argmax(1))
    assert numbers == pytest.approx(expected, rel=1e-4)
    assert numbers["accuracy/source_test"] != numbers["accuracy/source_test_ema"]


SPLIT = {"validation_fraction": 0.2, "seed": 2}
"""A seed with which each class has a share of its own in the target's test split."""


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(zip(("source", "target"), tiny.write_domains(tmp_path_factory.mktemp("images")), strict=True))


@pytest.fixture(scope="module")
def run(domains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.pixelda(**domains, data=SPLIT, training={"images": 480})
    return train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "run")


def _stored(run: Path, checkpoint: str) -> Path:
    """Return the file that a checkpoint is in, as docs and messages describe it."""
    return run / "checkpoints" / "best.safetensors" if checkpoint == "best-source" else RunFolder(run).checkpoint_files()[-1]


KINDS = {"last": "network", "ema-last": "average", "best-source": "average"}
"""What each checkpoint measures, as run folders store it."""


def test_the_numbers_are_those_of_the_weights_on_the_test_splits(run: Path, domains: dict[str, str]) -> None:
    result = evaluate(run)
    parts = load_domains(tiny.pixelda(**domains, data=SPLIT))
    assert parts.target is not None
    for checkpoint, kind in KINDS.items():
        classifier = Classifier(3, tiny.SIZE)
        classifier.load_state_dict(tensors_of(_stored(run, checkpoint), f"{kind}.classifier."))
        for name, images in (("source_test", parts.source.test), ("target_test", parts.target.test)):
            assert images.labels is not None
            predicted = classifier(tiny.scaled(images.images[:])).argmax(1)
            expected = sklearn.metrics.accuracy_score(images.labels, predicted)
            assert result.checkpoints[checkpoint].accuracies()[name] == pytest.approx(expected)
    assert result.checkpoint == "ema-last"
    assert result.sets["target_all"].count == 60
    assert Evaluation.load(run / "evaluation.json") == result


def _answered(result: Evaluation) -> list[int]:
    """Return the classes that were predicted on the target's test split."""
    return np.flatnonzero(np.sum(result.sets["target_test"].confusion, axis=0)).tolist()


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize(("checkpoint", "label"), [("last", 0), ("ema-last", 1), ("best-source", 2), ("auto", 1)])
def test_each_checkpoint_measures_the_tensors_that_it_is_named_after(copy: Path, checkpoint: str, label: int) -> None:
    always(_stored(copy, "last"), {"network.classifier.": 0, "average.classifier.": 1})
    always(_stored(copy, "best-source"), {"network.classifier.": 0, "average.classifier.": 2})
    result = evaluate(copy, checkpoint=checkpoint)
    assert _answered(result) == [label]
    shares = {name: found.per_class for name, found in result.sets.items()}
    for one, planted in (("last", 0), ("ema-last", 1), ("best-source", 2)):
        entries = shares["target_test"]
        share = entries[planted].count / sum(entry.count for entry in entries)
        assert result.checkpoints[one].target_test == pytest.approx(share)
    with np.load(copy / "samples" / "gallery.npz") as gallery:
        for shown in ("source", "generated", "target"):
            assert set(gallery[f"{shown}_predictions"].tolist()) == {label}


@pytest.mark.parametrize(("checkpoint", "kind"), [("last", "network"), ("auto", "average")])
def test_pictures_are_drawn_by_the_generator_of_the_checkpoint(copy: Path, checkpoint: str, kind: str) -> None:
    def whiten(tensors: Tensors) -> None:
        tensors[f"{kind}.generator.conv_out.weight"].zero_()
        tensors[f"{kind}.generator.conv_out.bias"].fill_(20)

    evaluate(copy, checkpoint=checkpoint)
    with np.load(copy / "samples" / "gallery.npz") as gallery:
        assert gallery["generated"].min() < 255
    edit(_stored(copy, checkpoint), whiten)
    evaluate(copy, checkpoint=checkpoint)
    for name in ("gallery", "styles"):
        with np.load(copy / "samples" / f"{name}.npz") as stored:
            assert stored["generated"].min() == 255


@pytest.fixture(scope="module")
def measured_baseline(domains: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.baseline(**domains, data=SPLIT, training={"images": 96})
    return train_baseline(config, run=tmp_path_factory.mktemp("baselines") / "run")


def test_a_baselines_headline_is_the_best_on_held_out_source_images(measured_baseline: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(measured_baseline, tmp_path / "run"))
    always(_stored(run, "last"), {"network.classifier.": 0, "average.classifier.": 1})
    always(_stored(run, "best-source"), {"network.classifier.": 0, "average.classifier.": 2})
    result = evaluate(run)
    assert (result.checkpoint, _answered(result)) == ("best-source", [2])


def test_a_baselines_headline_is_its_own_weights_where_nothing_is_held_out(domains: dict[str, str], tmp_path: Path) -> None:
    run = train_baseline(tiny.baseline(**domains, training={"images": 16}), run=tmp_path / "run")
    always(_stored(run, "last"), {"network.classifier.": 0, "average.classifier.": 1})
    result = evaluate(run)
    assert (result.checkpoint, _answered(result), set(result.checkpoints)) == ("last", [0], {"last", "ema-last"})


def test_the_source_is_measured_through_its_private_layer_and_the_target_through_the_other(
    domains: dict[str, str], tmp_path: Path
) -> None:
    config = tiny.pixelda(**domains, classifier={"private_first_layer": True}, training={"images": 96})
    run = train_pixelda(config, run=tmp_path / "run")

    def disturb(tensors: Tensors) -> None:
        draw = torch.Generator().manual_seed(0)
        for name in ("conv1", "conv1_source"):
            weight = tensors[f"average.classifier.{name}.weight"]
            weight += torch.randn(weight.shape, generator=draw)

    edit(_stored(run, "ema-last"), disturb)
    classifier = Classifier(3, tiny.SIZE, private_first_layer=True)
    classifier.load_state_dict(tensors_of(_stored(run, "ema-last"), "average.classifier."))
    result, parts = evaluate(run), load_domains(config)
    assert parts.target is not None
    for name, images, source in (("source_test", parts.source.test, True), ("target_test", parts.target.test, False)):
        own, other = (classifier(tiny.scaled(images.images[:]), source=one).argmax(1) for one in (source, not source))
        assert images.labels is not None and not torch.equal(own, other)
        expected = sklearn.metrics.confusion_matrix(images.labels, own, labels=range(3))
        assert result.sets[name].confusion == expected.tolist(), name


def test_what_is_stored_along_the_way_is_the_classifier_and_its_average(run: Path) -> None:
    stored = run / "classifiers" / f"{480:012d}.safetensors"
    for prefix, kind in (("last.", "network"), ("ema.", "average")):
        found, expected = tensors_of(stored, prefix), tensors_of(_stored(run, "last"), f"{kind}.classifier.")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    last, ema = (tensors_of(stored, prefix)["conv1.weight"] for prefix in ("last.", "ema."))
    assert not torch.equal(last, ema)


def test_curve_and_oracle_are_of_the_classifiers_stored_along_the_way(copy: Path) -> None:
    for path in (copy / "classifiers").iterdir():
        always(path, {"last.": 0, "ema.": 1})
    always(copy / "classifiers" / f"{96:012d}.safetensors", {"last.": 0, "ema.": 2})
    for name in ("last", "best-source"):
        always(_stored(copy, name), {"network.classifier.": 0, "average.classifier.": 1})
    result = evaluate(copy)
    counts = [entry.count for entry in result.sets["target_test"].per_class]
    share = [count / sum(counts) for count in counts]
    assert len(set(share)) == 3, "each class has a share of its own"
    for point in result.curve:
        assert point.target_test == pytest.approx(share[0])
        assert point.ema_target_test == pytest.approx(share[2 if point.images == 96 else 1])
    assert result.oracle is not None
    assert result.oracle.target_test == pytest.approx(max(share))
    measured = {line["images"]: line for line in read_stats(copy / "stats.jsonl") if line["kind"] == "evaluation"}
    for point in result.curve:
        for name in ("source_train", "source_test"):
            assert getattr(point, name) == measured[point.images][f"accuracy/{name}"]


def test_no_checkpoint_is_better_than_the_oracle_where_the_newest_weights_are_in_checkpoints_alone(copy: Path) -> None:
    (copy / "classifiers" / f"{480:012d}.safetensors").unlink()  # as of a training that was stopped after its last evaluation
    before = evaluate(copy)
    counts = [entry.count for entry in before.sets["target_test"].per_class]
    rarest, *_, commonest = np.argsort(counts).tolist()
    for path in (copy / "classifiers").iterdir():
        always(path, {"last.": rarest, "ema.": rarest})
    always(_stored(copy, "last"), {"network.classifier.": rarest, "average.classifier.": commonest})
    always(_stored(copy, "best-source"), {"network.classifier.": rarest, "average.classifier.": rarest})
    result = evaluate(copy)
    assert result.oracle is not None and min(counts) < max(counts)
    assert result.oracle.target_test == result.checkpoints["ema-last"].target_test == pytest.approx(max(counts) / sum(counts))
    assert result.oracle.images == result.checkpoints["ema-last"].images == 480


def test_the_curve_covers_the_run_and_the_oracle_is_its_best_and_named(run: Path) -> None:
    result = evaluate(run)
    assert [point.images for point in result.curve] == list(range(0, 481, 48))
    assert None not in dict(result.curve[-1]).values()
    assert result.oracle is not None
    assert result.oracle.label == "oracle: chosen with target labels"
    assert result.oracle.target_test == max(max(p.target_test or 0, p.ema_target_test or 0) for p in result.curve)
    assert "oracle" in result.to_text()
    assert "oracle" not in result.checkpoints


def test_another_checkpoint_can_be_asked_for_and_an_unknown_one_is_refused(run: Path) -> None:
    assert evaluate(run, checkpoint="last").checkpoint == "last"
    with pytest.raises(InputError, match="no checkpoint 'best-target'"):
        evaluate(run, checkpoint="best-target")


def test_checkpoints_that_a_run_does_not_support_are_left_out(domains: dict[str, str], tmp_path: Path) -> None:
    config = tiny.pixelda(**domains, training={"images": 16, "ema_half_life": 0})
    bare = train_pixelda(config, run=tmp_path / "run")
    assert list(evaluate(bare).checkpoints) == ["last"]
    with pytest.raises(InputError, match="best-source is not available"):
        evaluate(bare, checkpoint="best-source")
    with pytest.raises(InputError, match="no average was kept"):
        evaluate(bare, checkpoint="ema-last")


def test_another_target_is_measured_and_not_stored(run: Path, tmp_path: Path) -> None:
    stored = evaluate(run)
    images, labels = tiny.pictures(40, seed=7)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    other = evaluate(run, target=f"arrays:{tmp_path / 'other.npz'}")
    assert other.sets["target_all"].count == 40
    assert Evaluation.load(run / "evaluation.json") == stored


def test_classes_unlike_the_runs_are_refused(run: Path, tmp_path: Path) -> None:
    images, labels = tiny.pictures(40)
    np.savez(tmp_path / "two.npz", images=images, labels=labels % 2)
    with pytest.raises(InputError, match="has the classes 0, 1, 2"):
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


def test_many_classes_are_printed_as_their_most_frequent_confusions() -> None:
    classes = [f"c{number:02}" for number in range(40)]
    counts = torch.diag(torch.full((40,), 9))
    counts[7, 8], counts[30, 2] = 5, 3
    result = set_result("images", counts, classes)
    text = Evaluation(
        system="pixelda",
        images=1,
        steps=1,
        classes=classes,
        checkpoint="last",
        checkpoints={},
        sets={"target_test": result},
        oracle=None,
        curve=[],
    ).to_text()
    assert max(map(len, text.splitlines())) < 200
    assert "c07 64%" in text and "c30 75%" in text
    assert text.index("c07 as c08: 5") < text.index("c30 as c02: 3")
