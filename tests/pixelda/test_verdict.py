"""Whether adaptation helps, told without target labels."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fixtures import tiny
from fixtures.sources import write_classes
from pixelscope import evaluate, export
from pixelscope.cli import main
from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import to_float
from pixelscope.errors import InputError
from pixelscope.pixelda.inference.model import TorchClassifier, load_classifier
from pixelscope.pixelda.losses import task_loss
from pixelscope.pixelda.metrics import MeasuredSet, discordant
from pixelscope.pixelda.networks import Classifier, StrongClassifier
from pixelscope.pixelda.results import SWAPPED, Better, Evaluation, Verdict
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.pixelda.verdict import CRITERIA, answers_of, compare, swapped_share, view_information
from pixelscope.runs.folder import RunFolder

SOURCE, TARGET = tiny.image_set(90, 0), tiny.image_set(90, 1, coloured=True)


def _learned(images: ImageSet, *others: ImageSet, steps: int = 150) -> Classifier:
    """Return T trained on images with their labels."""
    torch.manual_seed(0)
    network = Classifier(3, tiny.SIZE)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(steps):
        some = (images, *others)[step % (1 + len(others))]
        assert some.labels is not None
        loss = task_loss(network(to_float(torch.from_numpy(some.in_memory()))), torch.from_numpy(some.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _permuted(network: Classifier) -> Classifier:
    """Return a T that is as sure, and calls every class by the name of another."""
    other = copy.deepcopy(network)
    last = other.shared[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(last.weight.roll(1, 0))
        last.bias.copy_(last.bias.roll(1, 0))
    return other


@pytest.fixture(scope="module")
def good() -> Classifier:
    """Return a T that reads both domains."""
    return _learned(SOURCE, TARGET)


def test_a_sure_classifier_that_swaps_classes_is_found_out(good: Classifier) -> None:
    swapped = _permuted(good)
    verdict = compare(good, swapped, TARGET.without_labels(), SOURCE)
    assert verdict.better == "source only"
    assert verdict.agreement == 0
    for name in ("information", "view information"):
        before, after = verdict.criteria[name]
        assert after == pytest.approx(before, abs=1e-6), "it is no less sure than the other, and as consistent"
    assert verdict.swapped == 1


def test_one_that_says_the_same_of_every_image_is_worse(good: Classifier) -> None:
    constant = copy.deepcopy(good)
    nn.init.zeros_(constant.shared[-1].weight)  # pyright: ignore[reportArgumentType]
    verdict = compare(good, constant, TARGET.without_labels(), SOURCE)
    assert verdict.better == "source only"
    for name in CRITERIA:
        before, after = verdict.criteria[name]
        assert after < before, name


def test_the_same_classifier_is_no_better(good: Classifier) -> None:
    verdict = compare(good, copy.deepcopy(good), TARGET.without_labels(), SOURCE)
    assert (verdict.better, verdict.agreement) == ("neither", 1)
    assert set(verdict.criteria) == set(CRITERIA)
    assert all(before == after for before, after in verdict.criteria.values())


def test_a_share_of_images_is_not_rounded_to_one_above_its_limit() -> None:
    before = torch.arange(2000) % 20
    swapped = torch.where(before == 0, 1, torch.where(before == 1, 0, before))
    assert swapped_share(before, swapped) == 200 / 2000 == SWAPPED, "a tenth is not more than a tenth"


def test_classes_that_are_swapped_are_counted_and_wrong_answers_are_not() -> None:
    before = torch.tensor([0] * 5 + [1] * 5 + [2] * 10)
    assert swapped_share(before, before) == 0
    assert swapped_share(before, torch.tensor([1] * 5 + [0] * 5 + [2] * 10)) == 0.5, "0 and 1 are swapped: ten of twenty"
    collapsed = torch.tensor([2] * 20)
    assert swapped_share(before, collapsed) == 0, "half of them are wrong, and no class took the place of another"


class Brightest(StrongClassifier):
    """Answers with the brightest channel; `bias` is added to the first."""

    def __init__(self, bias: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.features, self.fc = nn.Conv2d(3, 3, 1), nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        nn.init.eye_(self.features.weight[:, :, 0, 0])
        with torch.no_grad():
            self.features.bias.copy_(torch.tensor([bias, 0.0, 0.0]))  # pyright: ignore[reportOptionalMemberAccess]


def _alternating(value: int) -> np.ndarray:
    """Return 90 images with `value` in one channel, which alternates."""
    images = np.zeros((90, 3, 8, 8), np.uint8)
    for position in range(90):
        images[position, position % 3] = value
    return images


def test_some_of_many_images_are_of_all_classes_where_classes_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageSet(_alternating(255), SOURCE.provenance, np.arange(90) % 3, SOURCE.classes)
    target = ImageSet(_alternating(128), SOURCE.provenance)
    monkeypatch.setattr("pixelscope.pixelda.verdict.MAX_IMAGES", 30)
    monkeypatch.setattr("pixelscope.pixelda.verdict.VIEWS", (lambda images, config, draw: images,))
    verdict = compare(Brightest(bias=1.5).eval(), Brightest().eval(), target, source)
    assert (verdict.images, verdict.source_images) == (30, 30)
    assert verdict.criteria["source accuracy"] == (1, 1) and not verdict.unlearned, "every third image is of one class"
    assert verdict.better == "adapted", "the other calls all of the target one class"


def test_information_in_views_is_that_of_classes_if_no_view_changes_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = Brightest(), _alternating(200)
    answers = torch.arange(90) % 3
    monkeypatch.setattr("pixelscope.pixelda.verdict.VIEWS", (lambda images, config, draw: images * 0.5,) * 2)
    assert view_information(network, images, answers) == pytest.approx(np.log(3))
    monkeypatch.setattr("pixelscope.pixelda.verdict.VIEWS", (lambda images, config, draw: torch.zeros_like(images),) * 2)
    assert view_information(network, images, answers) == pytest.approx(0, abs=1e-12), "one answer to all views tells nothing"
    views = (lambda images, config, draw: images, lambda images, config, draw: torch.zeros_like(images))
    monkeypatch.setattr("pixelscope.pixelda.verdict.VIEWS", views)
    assert view_information(network, images, answers) == pytest.approx(np.log(3) / 2), "the mean over the kinds of views"


def test_being_less_sure_alone_decides_nothing(good: Classifier) -> None:
    unsure = copy.deepcopy(good)
    last = unsure.shared[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.mul_(0.1)
    verdict = compare(good, unsure, TARGET.without_labels(), SOURCE)
    assert (verdict.better, verdict.agreement, verdict.swapped) == ("neither", 1, 0)
    before, after = verdict.criteria["information"]
    assert after < before


def test_one_that_never_saw_the_target_is_worse(good: Classifier) -> None:
    alone = _learned(SOURCE, steps=150)
    assert compare(good, alone, TARGET.without_labels(), SOURCE).better == "source only"
    assert compare(alone, good, TARGET.without_labels(), SOURCE).better == "adapted"


def test_nothing_is_decided_where_the_source_was_not_learned(good: Classifier) -> None:
    torch.manual_seed(3)
    new = Classifier(3, tiny.SIZE).eval()
    found = compare(new, good, TARGET.without_labels(), SOURCE)
    assert found.better == "unknown" and found.unlearned == "T of the source alone"
    assert "unknown" in found.to_text() and "likely" not in found.to_text()
    assert compare(good, new, TARGET.without_labels(), SOURCE).better == "source only", "only the adapted T is bad"


def _labelled(images: ImageSet, labels: np.ndarray) -> ImageSet:
    return ImageSet(images.images, images.provenance, labels, images.classes)


def test_chance_is_the_most_frequent_class_and_few_images_allow_for_luck(good: Classifier) -> None:
    constant, own = copy.deepcopy(good), SOURCE.labels
    assert own is not None
    nn.init.zeros_(constant.shared[-1].weight)  # pyright: ignore[reportArgumentType]
    named = int(constant.shared[-1].bias.argmax())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    frequent = _labelled(SOURCE, np.where(np.arange(90) < 54, named, (named + 1) % 3))
    found = compare(constant, constant, TARGET.without_labels(), frequent)
    assert found.criteria["source accuracy"] == (0.6, 0.6) and found.better == "unknown", "three of five are of one class"
    few = SOURCE.select(np.arange(9))
    for right, better in ((5, "unknown"), (9, "neither")):
        labels = np.where(np.arange(9) < right, own[:9], (own[:9] + 1) % 3)
        found = compare(good, good, TARGET.without_labels(), _labelled(few, labels))
        assert found.criteria["source accuracy"][0] == pytest.approx(right / 9)
        assert found.better == better, "chance is three of nine; two standard errors are another three"
    two = compare(good, good, TARGET.without_labels(), SOURCE.select(np.array([0, 1])))
    assert two.criteria["source accuracy"] == (1, 1) and two.better == "unknown", "two of two may be luck"
    assert "near chance" not in two.headline() and "more source images" in two.headline()
    alike = compare(good, good, TARGET.without_labels(), few.select(np.flatnonzero(own[:9] == own[0])))
    assert alike.criteria["source accuracy"] == (1, 1) and alike.better == "unknown", "chance is 1 on images of one class"


def test_the_source_is_measured_through_its_own_first_layer(good: Classifier) -> None:
    private = Classifier(3, tiny.SIZE, private_first_layer=True).eval()
    weights = good.state_dict()
    first = {name.replace("conv1", "conv1_source"): value for name, value in weights.items() if name.startswith("conv1")}
    private.load_state_dict({**weights, **first, "conv1.weight": -weights["conv1.weight"]})
    found = compare(good, private, TARGET.without_labels(), SOURCE)
    before, after = found.criteria["source accuracy"]
    assert before == after > 0.9 and found.agreement < 0.9


def test_an_adapted_classifier_at_chance_is_not_called_better(good: Classifier) -> None:
    blind = _learned(SOURCE, ImageSet(TARGET.images, TARGET.provenance, np.zeros(len(TARGET), np.int64), TARGET.classes))
    found = compare(blind, _permuted(good), TARGET.without_labels(), SOURCE)
    before, after = found.criteria["view information"]
    assert after > before and found.criteria["source accuracy"][1] < 0.3
    assert (found.better, found.unlearned) == ("unknown", "the adapted T")
    assert compare(blind, good, TARGET.without_labels(), SOURCE).better == "adapted"


def test_the_numbers_of_images_are_said_and_few_ones_are_called_uncertain(good: Classifier) -> None:
    found = compare(good, copy.deepcopy(good), TARGET.without_labels(), SOURCE)
    assert (found.images, found.source_images) == (90, 90)
    assert "90 target images and 90 source images" in found.to_text() and "uncertain" in found.to_text()
    many = found.model_copy(update={"images": 2000})
    assert "2,000 target images" in many.to_text() and "uncertain" not in many.to_text()
    old = Verdict.parse(found.model_dump(exclude={"images", "source_images", "unlearned"}))
    assert old.basis() == ""


@pytest.mark.parametrize(
    ("better", "before", "after", "contradicted"),
    [
        ("adapted", 0.7, 0.5, True),
        ("adapted", 0.5, 0.7, False),
        ("adapted", 0.5, 0.499, False),
        ("source only", 0.5, 0.7, True),
        ("neither", 0.5, 0.7, True),
        ("neither", 0.5, 0.55, False),
        ("unknown", 0.5, 0.7, False),
    ],
)
def test_target_labels_that_contradict_the_verdict_are_pointed_at(
    better: Better, before: float, after: float, contradicted: bool
) -> None:
    verdict = Verdict(better=better, criteria={}, agreement=1.0, swapped=0.0)
    assert bool(verdict.contradicted_by(before, after, 400)) == contradicted


@pytest.mark.parametrize(("discordant", "contradicted"), [(None, False), (40, True), (90, True), (110, False), (200, False)])
def test_accuracies_on_the_same_images_are_compared_as_pairs(discordant: int | None, contradicted: bool) -> None:
    """20 of 400 images more are wrong. If 10 become right and 30 wrong, chance does not explain it; if 90 and 110, it does."""
    verdict = Verdict(better="adapted", criteria={}, agreement=1.0, swapped=0.0)
    assert bool(verdict.contradicted_by(0.55, 0.5, 400, discordant)) == contradicted


def test_images_that_only_one_of_two_classifies_correctly_are_counted(good: Classifier) -> None:
    constant, labels = copy.deepcopy(good), TARGET.labels
    assert labels is not None
    nn.init.zeros_(constant.shared[-1].weight)  # pyright: ignore[reportArgumentType]
    right, also_right = (answers_of(one, TARGET.in_memory())[0].argmax(1).numpy() == labels for one in (good, constant))
    parts = [TARGET.select(np.arange(0, 20)), TARGET.select(np.arange(20, 90))]
    assert discordant(good, constant, MeasuredSet("", parts, source=False)) == (right != also_right).sum() > 30


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict")
    specs = dict(zip(("source", "target"), tiny.write_domains(folder), strict=True))
    return train_pixelda(tiny.pixelda(**specs, judge=True), run=folder / "run")


def test_an_evaluation_ends_with_the_verdict_and_the_truth(judged: Path) -> None:
    found = evaluate(judged)
    assert found.verdict is not None
    assert found.source_only is not None
    assert found.discordant is not None
    *_, last = found.to_text().splitlines()
    assert f"source only {found.source_only['target_test']:.2%}, adapted {found.sets['target_test'].accuracy:.2%}" in last
    assert Evaluation.load(RunFolder(judged).evaluation) == found


def test_other_images_are_measured_without_a_verdict(judged: Path, tmp_path: Path) -> None:
    _, target = tiny.write_domains(tmp_path)
    assert evaluate(judged, target=target).verdict is None


@pytest.mark.parametrize(
    ("better", "expected"), [("source only", "judge"), ("adapted", "classifier"), ("neither", "classifier")]
)
def test_an_export_may_take_the_likely_better_one(judged: Path, tmp_path: Path, better: str, expected: str) -> None:
    stored, folder = evaluate(judged), RunFolder(judged)
    assert stored.verdict is not None and stored.source_only is not None
    verdict = stored.verdict.model_copy(update={"better": better})
    stored.model_copy(update={"verdict": verdict}).save(folder.evaluation)
    weights = load_file(folder.checkpoint_files()[-1])
    for choose, name in (("auto", expected), ("adapted", "classifier")):
        out = tmp_path / f"{choose}.safetensors"
        exported = export(judged, out, form="safetensors", choose=choose)
        found = load_file(out)
        assert torch.equal(found["classifier.conv1.weight"], weights[f"average.{name}.conv1.weight"])
        card = (tmp_path / f"{out.name}.card.md").read_text(encoding="utf-8")
        reached = stored.source_only["target_test"] if name == "judge" else stored.sets["target_test"].accuracy
        assert f"{reached:.2%}" in card
        assert ("alone" in card.splitlines()[0]) == (name == "judge")
        assert exported.choice in card and exported.choice in exported.to_text()
        assert exported.choice.startswith("T of the source alone" if name == "judge" else "the adapted T")
        harms = better == "source only"
        assert ("--choose auto" in exported.choice) == (choose == "auto" or harms)
        assert ("harms" in exported.choice) == harms


def test_classify_says_what_it_uses_and_takes_the_same_choice(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, folder = evaluate(judged), RunFolder(judged)
    assert stored.verdict is not None
    stored.model_copy(update={"verdict": stored.verdict.model_copy(update={"better": "source only"})}).save(folder.evaluation)
    write_classes(tmp_path / "photos", {"a": 2}, side=tiny.SIZE)
    said = {}
    for choose in ("adapted", "auto"):
        words = ["pixelda", "classify", str(judged), str(tmp_path / "photos"), "--out", str(tmp_path / f"{choose}.csv")]
        assert main([*words, "--choose", choose]) == 0
        said[choose] = capsys.readouterr().out
    assert "classified by the adapted T (although adaptation likely harms; --choose auto" in said["adapted"]
    assert "classified by T of the source alone (chosen by --choose auto" in said["auto"]
    probabilities = [TorchClassifier.from_run(judged, choose=choose).identity for choose in ("adapted", "auto")]
    assert probabilities[0] != probabilities[1]
    export(judged, tmp_path / "model.safetensors", form="safetensors", choose="auto")
    with pytest.raises(InputError, match="one classifier only; drop --choose auto"):
        load_classifier(tmp_path / "model.safetensors", choose="auto")


def test_there_is_nothing_to_choose_from_without_a_verdict(tmp_path: Path) -> None:
    specs = dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))
    run = train_pixelda(tiny.pixelda(**specs, training={"images": 16}), run=tmp_path / "run")
    with pytest.raises(InputError, match="--judge"):
        export(run, tmp_path / "model.safetensors", form="safetensors", choose="auto")
    assert not (tmp_path / "model.safetensors").exists()
    baseline = train_baseline(tiny.baseline(**specs, training={"images": 16}), run=tmp_path / "baseline")
    with pytest.raises(InputError, match="is a baseline, which has one classifier only"):
        export(baseline, tmp_path / "model.safetensors", form="safetensors", choose="auto")


def test_a_verdict_on_other_weights_names_the_command(judged: Path, tmp_path: Path) -> None:
    evaluate(judged)
    with pytest.raises(InputError, match=f"`pixelscope pixelda evaluate {judged} --checkpoint last`"):
        export(judged, tmp_path / "model.safetensors", form="safetensors", checkpoint="last", choose="auto")
    RunFolder(judged).evaluation.unlink()
    with pytest.raises(InputError, match=f"no verdict yet; run `pixelscope pixelda evaluate {judged}`"):
        export(judged, tmp_path / "model.safetensors", form="safetensors", choose="auto")
