"""Whether a refinement helps, told without target labels, and which classifier is then used."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fixtures import tiny
from fixtures.weights import always, edit
from pixelscope import InputError, export
from pixelscope.config import merge, read_yaml
from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import to_float
from pixelscope.data.sources.listing import image_files
from pixelscope.engine import checkpoint
from pixelscope.pixelda.checkpoints import load_checkpoint
from pixelscope.pixelda.evaluation import own_sets
from pixelscope.pixelda.inference.classify import classify
from pixelscope.pixelda.inference.model import load_classifier
from pixelscope.pixelda.losses import task_loss
from pixelscope.pixelda.metrics import measure
from pixelscope.pixelda.networks import Classifier
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.pixelda.refinement.data import load_inputs
from pixelscope.pixelda.refinement.evaluation import evaluate_refinement
from pixelscope.pixelda.refinement.guard import guard
from pixelscope.pixelda.refinement.report import sections
from pixelscope.pixelda.refinement.results import ClassShare, Guard, RefinementResult
from pixelscope.pixelda.refinement.training import refine, resume_refinement
from pixelscope.pixelda.training import resume_pixelda, train_pixelda
from pixelscope.runs.folder import RunFolder

SOURCE, TARGET = tiny.image_set(90, 0), tiny.image_set(90, 1, coloured=True)
FREQUENCIES = (1 / 3,) * 3


@pytest.fixture(scope="module")
def good() -> Classifier:
    """Return a T that reads both domains."""
    torch.manual_seed(0)
    network = Classifier(3, tiny.SIZE)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(150):
        some = (SOURCE, TARGET)[step % 2]
        assert some.labels is not None
        optimizer.zero_grad()
        task_loss(network(to_float(torch.from_numpy(some.in_memory()))), torch.from_numpy(some.labels)).backward()
        optimizer.step()
    return network.eval()


def told(start: Classifier, refined: Classifier, redrawn: ImageSet | None = TARGET) -> Guard:
    return guard(start, refined, TARGET.without_labels(), SOURCE, redrawn, 0.95, frequencies=FREQUENCIES)


def changed(network: Classifier, weight: torch.Tensor, bias: torch.Tensor) -> Classifier:
    other = copy.deepcopy(network)
    last = other.shared[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight, last.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return other


def last_of(network: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
    last = network.shared[-1]
    assert isinstance(last, nn.Linear)
    return last.weight.detach(), last.bias.detach()


def test_one_that_is_as_good_is_kept(good: Classifier) -> None:
    found = told(good, copy.deepcopy(good))
    assert found.kept == "mean" and not found.reasons
    assert found.agreement == 1 and found.pseudo_label_rate > 0.5
    assert all(before == after for before, after in found.criteria.values())
    assert {one.name: one.source for one in found.classes} == dict(zip(SOURCE.classes, FREQUENCIES, strict=True))
    assert found.images == 90 and "90 target images" in found.to_text()


@pytest.mark.parametrize(("more", "independent", "kept"), [(8, True, "mean"), (10, True, "refined"), (8, False, "refined")])
def test_the_mean_is_used_where_two_networks_agree_on_nine_tenths(
    more: int, independent: bool, kept: str, good: Classifier
) -> None:
    """Of 90 target images. Networks that agree less may differ more in accuracy, and one that went on from T has T's errors."""
    found = guard(
        leaning(good, more),
        good,
        TARGET.without_labels(),
        SOURCE,
        None,
        0.95,
        frequencies=FREQUENCIES,
        independent=independent,
    )
    assert found.agreement == pytest.approx(1 - more / 90)
    assert found.kept == kept
    assert ("the mean of both" in found.to_text()) == (kept == "mean")


def test_in_the_mean_each_network_weighs_inversely_to_the_errors_that_it_expects(good: Classifier) -> None:
    weight, bias = last_of(good)
    other = changed(good, 0.5 * weight, 0.5 * bias)
    images = to_float(torch.from_numpy(TARGET.in_memory()))
    with torch.no_grad():
        sure, unsure = (float(1 - network(images).softmax(1).amax(1).mean()) for network in (good, other))
    assert sure < 0.8 * unsure
    assert told(good, other).start_weight == pytest.approx((1 / sure) / (1 / sure + 1 / unsure), abs=0.005)
    assert told(other, good).start_weight == pytest.approx((1 / unsure) / (1 / sure + 1 / unsure), abs=0.005)
    assert told(good, other).start_weight == round(told(good, other).start_weight, 2), "the same on all machines"
    certain = changed(good, torch.zeros_like(weight), torch.tensor([1000.0, 0.0, 0.0]))
    assert told(certain, certain).start_weight == 0.5


def leaning(network: Classifier, images: int) -> Classifier:
    """Return a T that calls `images` more images of the target the first class."""
    with torch.no_grad():
        logits = network(to_float(torch.from_numpy(TARGET.in_memory())))
    gaps = (logits.amax(1) - logits[:, 0]).sort().values
    gaps = gaps[gaps > 0]
    weight, bias = last_of(network)
    return changed(network, weight, bias + torch.tensor([float(gaps[images - 1 : images + 1].mean()), 0.0, 0.0]))


def test_the_start_is_kept_where_answers_are_less_like_clusters(good: Classifier) -> None:
    found = told(good, leaning(good, 20), None)
    before, after = found.criteria["cluster agreement"]
    assert after < before - 0.02
    assert found.kept == "start" and "clusters" in found.reasons[0]


def test_what_is_shown_of_both_is_counted_on_the_target(good: Classifier) -> None:
    other = leaning(good, 20)
    found = told(other, good, None)
    images = to_float(torch.from_numpy(TARGET.in_memory()))
    with torch.no_grad():
        start, refined = (network(images).softmax(1) for network in (other, good))
    assert found.pseudo_label_rate == np.mean((refined.amax(1) >= 0.95).numpy())
    assert found.agreement == np.mean((start.argmax(1) == refined.argmax(1)).numpy())
    for label, one in enumerate(found.classes):
        assert (one.start, one.refined) == tuple(float((p.argmax(1) == label).double().mean()) for p in (start, refined))
    assert found.agreement < 0.8 and found.kept == "refined", "answers that are more like clusters are no harm"


def test_a_class_has_vanished_only_where_source_and_start_have_it(good: Classifier) -> None:
    weight, bias = last_of(good)
    gone = changed(good, weight, bias - torch.tensor([0.0, 0.0, 100.0]))

    def vanished(start: Classifier, frequencies: tuple[float, ...]) -> bool:
        found = guard(start, gone, TARGET.without_labels(), SOURCE, None, 0.95, frequencies=frequencies)
        return any("never predicts" in reason for reason in found.reasons)

    assert vanished(good, FREQUENCIES)
    assert not vanished(good, (0.5, 0.5, 0.0)), "the source has no image of it"
    assert not vanished(gone, FREQUENCIES), "nor did the start predict it"


@pytest.mark.parametrize(("classes", "decides"), [(3, True), (19, True), (20, False), (36, False)])
def test_a_vanished_class_decides_unless_it_is_one_of_many(good: Classifier, classes: int, decides: bool) -> None:
    """The classes besides the three are in no image, and never predicted."""
    weight, bias = last_of(good)
    unused = classes - len(bias)
    weight = torch.cat([weight, torch.zeros(unused, weight.shape[1])])
    bias = torch.cat([bias, torch.full((unused,), -1000.0)])
    source = replace(SOURCE, classes=[*SOURCE.classes, *(f"unused {one}" for one in range(unused))])
    frequencies = FREQUENCIES + (0.0,) * unused
    start, gone = changed(good, weight, bias), changed(good, weight, bias - 100 * torch.eye(classes)[2])
    found = guard(start, gone, TARGET.without_labels(), source, None, 0.95, frequencies=frequencies)
    said = [sentence for sentence in found.sentences() if "never predicts" in sentence]
    assert said == [f"It almost never predicts {SOURCE.classes[2]}."]
    assert (said[0] in found.reasons, said[0] in found.remarks) == (decides, not decides)
    assert said[0] in found.to_text()


@pytest.mark.parametrize(("count", "vanished"), [(6, False), (9, False), (30, True), (90, True)])
def test_a_class_has_not_vanished_where_few_images_may_have_none_of_it_by_chance(
    good: Classifier, count: int, vanished: bool
) -> None:
    """A mean count of 2 or 3 images is 0 by chance with a probability of 14% or 5%; one of 10 or 30 is not."""
    weight, bias = last_of(good)
    gone = changed(good, weight, bias - torch.tensor([0.0, 0.0, 1000.0]))
    few = TARGET.without_labels().select(np.arange(count))
    found = guard(good, gone, few, SOURCE, None, 0.95, frequencies=FREQUENCIES)
    assert found.classes[2].start > 0 and found.classes[2].refined == 0
    assert any("never predicts" in reason for reason in found.reasons) == vanished


def test_falling_accuracy_on_redrawn_images_alone_decides_nothing(good: Classifier) -> None:
    """The second stage learns the target, and forgets what only redrawn images have."""
    assert TARGET.labels is not None
    other = ImageSet(TARGET.images, TARGET.provenance, np.roll(TARGET.labels, 1), TARGET.classes)
    found = told(good, copy.deepcopy(good), other)
    assert found.criteria["redrawn accuracy"][0] < 0.6
    assert found.kept == "mean"
    assert "redrawn accuracy" not in told(good, copy.deepcopy(good), None).criteria


def test_the_start_is_kept_where_classes_are_swapped_or_vanish(good: Classifier) -> None:
    weight, bias = last_of(good)
    swapped = told(good, changed(good, weight.roll(1, 0), bias.roll(1, 0)), None)
    assert swapped.kept == "start" and "swaps classes" in " ".join(swapped.reasons)
    gone = told(good, changed(good, weight, bias - torch.tensor([0.0, 0.0, 100.0])), None)
    assert gone.kept == "start" and f"never predicts {SOURCE.classes[2]}" in " ".join(gone.reasons)
    constant = told(good, changed(good, torch.zeros_like(weight), bias), None)
    assert constant.kept == "start" and "clusters" in " ".join(constant.reasons)


def test_the_start_is_kept_and_the_reason_comes_first_where_the_source_was_not_learned(good: Classifier) -> None:
    torch.manual_seed(1)
    found = told(good, Classifier(3, tiny.SIZE).eval())
    assert found.criteria["source accuracy"][1] < 0.5 * found.criteria["source accuracy"][0]
    assert found.kept == "start" and "has not learned the source" in found.reasons[0]
    assert all(reason[0].isupper() and reason.count(". ") == 0 and reason.endswith(".") for reason in found.reasons)
    assert "--preset paper-classifier" in found.advice and not told(good, copy.deepcopy(good)).advice
    young = guard(
        good,
        Classifier(3, tiny.SIZE).eval(),
        TARGET.without_labels(),
        SOURCE,
        None,
        0.95,
        frequencies=FREQUENCIES,
        finished=False,
    )
    assert young.kept == "start" and not young.advice, "it may still learn"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a judge that reads the target better than the adapted T, which says the same of every image."""
    source, target = tiny.write_domains(tmp_path_factory.mktemp("domains"), count=80)
    config = tiny.pixelda(source=source, target=target, judge=True, data={"validation_fraction": 0.2}, training={"images": 640})
    run = train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "adapted")
    always(RunFolder(run).checkpoint_files()[-1], {"average.classifier.": 1})
    return run


def config(run: Path, **changes) -> RefineConfig:
    return tiny.refined(**merge(changes, {"run": str(run)}))


def test_auto_starts_from_t_of_the_source_alone_where_adaptation_harms(judged: Path, tmp_path: Path) -> None:
    run = refine(config(judged, network={"kind": "paper"}), run=tmp_path / "refined")
    written = read_yaml(run / "config.yaml")
    assert written["choose"] == "source-only" and not written["generated"]["enabled"]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["refined_from"]["choose"] == "source-only" and "source alone" in record["notes"][0]
    judge = load_inputs(config(judged)).opened.judge
    assert judge is not None
    still = config(judged, network={"kind": "paper"}, optimizer={"learning_rate": 1e-12, "weight_decay": 0.0})
    kept = checkpoint.load(RunFolder(refine(still, run=tmp_path / "still")).checkpoint_files()[-1])[0]
    assert all(torch.allclose(kept[f"network.classifier.{n}"], value, atol=1e-6) for n, value in judge.state_dict().items())
    newest = RunFolder(run).checkpoint_files()[-1]
    whole = checkpoint.load(newest)[0]
    newest.unlink()
    resume_refinement(run)
    assert all(torch.equal(value, checkpoint.load(newest)[0][name]) for name, value in whole.items())
    inputs = load_inputs(config(judged), training=False)
    counts = measure(judge, own_sets(inputs.domains)["target_test"])
    assert evaluate_refinement(run).before["target_test"] == int(counts.trace()) / int(counts.sum())


def test_the_choice_can_be_made_by_hand(judged: Path, tmp_path: Path) -> None:
    run = refine(config(judged, choose="adapted"), run=tmp_path / "refined")
    assert read_yaml(run / "config.yaml")["generated"]["enabled"]
    with pytest.raises(InputError, match="likely harms"):
        refine(config(judged, self_training={"enabled": False}), run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_judge_starts_from_its_adapted_t(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path, count=80)
    origin = train_pixelda(tiny.pixelda(source=source, target=target), run=tmp_path / "adapted")
    run = refine(config(origin), run=tmp_path / "refined")
    assert read_yaml(run / "config.yaml")["choose"] == "adapted"
    with pytest.raises(InputError, match="--judge"):
        refine(config(origin, choose="source-only"), run=tmp_path / "out")


def test_what_is_kept_is_what_is_used(judged: Path, tmp_path: Path) -> None:
    """For a refinement that harms, classify, export and the report use the T it started from, unless a checkpoint is named."""
    from PIL import Image

    run = refine(config(judged), run=tmp_path / "refined")
    folder = RunFolder(run)
    for path in (folder.checkpoint_files()[-1], sorted(folder.classifiers.glob("*.safetensors"))[-1]):
        always(path, {"average.classifier." if path.parent == folder.checkpoints else "ema.": 2})
    found = evaluate_refinement(run)
    assert found.guard.kept == "start"
    inputs = load_inputs(config(judged), training=False)
    train = inputs.source.train
    assert [one.source for one in found.guard.classes] == pytest.approx([n / len(train) for n in train.class_counts()])
    assert found.guard.images == len(inputs.holdout) < len(inputs.target)
    start, refined = load_checkpoint(run), load_checkpoint(run, "ema-last")
    judge = load_inputs(config(judged)).opened.judge
    assert judge is not None
    assert all(torch.equal(value, start.classifier.state_dict()[name]) for name, value in judge.state_dict().items())
    assert torch.equal(refined.classifier.state_dict()["fc.bias"].argmax(), torch.tensor(2))
    images, _ = tiny.pictures(6, coloured=True)
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    for name, which in (("start", "auto"), ("refined", "ema-last")):
        classify(run, image_files(tmp_path / "in"), tmp_path / f"{name}.csv", checkpoint=which)
    answers = {n: [r.split(",")[1] for r in (tmp_path / f"{n}.csv").read_text().splitlines()[1:]] for n in ("start", "refined")}
    assert set(answers["refined"]) == {"2"} != set(answers["start"])
    exported = export(run, tmp_path / "model.safetensors", form="safetensors")
    card = (tmp_path / "model.safetensors.card.md").read_text(encoding="utf-8")
    assert f"{found.before['target_test']:.2%}" in card
    assert "not refined" in card.splitlines()[0] and exported.choice in card
    assert "from which the refinement started (the refinement likely harms" in exported.to_text()
    with pytest.raises(InputError, match="is a refinement.*drop --choose auto"):
        export(run, tmp_path / "other.safetensors", form="safetensors", choose="auto")
    assert any("likely harms" in note for note in sections(run)[0].notes)
    with pytest.raises(InputError, match="likely harms.*--checkpoint ema-last"):
        refine(config(judged, self_training={"teacher": str(run)}), run=tmp_path / "taught")
    # A checkpoint that this evaluation is not of has not been judged.
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    edit_images(moved, 64)
    assert type(load_checkpoint(moved).classifier) is type(refined.classifier)


def less_sure(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if name.endswith("fc.bias"):
            tensor *= 0.2


def test_the_mean_of_both_is_what_is_used_and_measured(judged: Path, tmp_path: Path) -> None:
    """Where both agree, classify and export use the mean of their probabilities, and its accuracy is the card's."""
    run = refine(config(judged, choose="adapted"), run=tmp_path / "refined")
    folder = RunFolder(run)
    for path in (folder.checkpoint_files()[-1], sorted(folder.classifiers.glob("*.safetensors"))[-1]):
        always(path, {"average.classifier." if path.parent == folder.checkpoints else "ema.": 1})
        edit(path, less_sure)
    found = evaluate_refinement(run)
    assert found.guard.kept == "mean" and set(found.mean) == set(found.sets)
    start = load_checkpoint(judged).classifier
    mean, refined = load_checkpoint(run), load_checkpoint(run, "ema-last")
    assert (mean.name, refined.name) == ("mean", "ema-last")
    images = own_sets(load_inputs(config(judged), training=False).domains)["target_test"].parts[0]
    values = to_float(torch.from_numpy(images.in_memory()))
    weight = found.guard.start_weight
    assert weight > 0.6, "T is surer"
    with torch.no_grad():
        expected = weight * start(values).softmax(1) + (1 - weight) * refined.classifier(values).softmax(1)
    assert not torch.allclose(expected, start(values).softmax(1), atol=1e-3), "T alone answers otherwise"
    assert np.mean(expected.argmax(1).numpy() == images.labels) == found.mean["target_test"]
    for form in ("safetensors", "onnx"):
        file = tmp_path / f"model.{form}"
        export(run, file, form=form)
        answers = load_classifier(file)(np.ascontiguousarray(images.in_memory().transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(answers, expected.numpy(), atol=1e-5)
        card = file.with_name(f"{file.name}.card.md").read_text(encoding="utf-8")
        assert f"{found.mean['target_test']:.2%}" in card and "the mean of the refined classifier and T" in card
    assert f"{found.mean['target_test']:.2%}" in str(sections(run)[0].headline)
    moved = Path(shutil.copytree(judged, tmp_path / "adapted"))
    settings = (run / "config.yaml").read_text(encoding="utf-8").replace(str(judged), str(moved))
    (run / "config.yaml").write_text(settings, encoding="utf-8")
    RunFolder(moved).update_record(state="interrupted")
    assert load_checkpoint(run).name == "mean", "the weights that it started from are still there"
    always(RunFolder(moved).checkpoint_files()[-1], {"average.classifier.": 2})
    with pytest.raises(InputError, match="has other weights than when .* was evaluated"):
        load_checkpoint(run)
    assert load_checkpoint(run, "ema-last").name == "ema-last"
    edit_images(run, 64)
    unevaluated = load_checkpoint(run)
    assert unevaluated.name == "ema-last" and "evaluate" in unevaluated.why, "weights that no evaluation compared"
    without = json.loads(folder.evaluation.read_text(encoding="utf-8")) | {"mean": {}}
    folder.evaluation.write_text(json.dumps(without), encoding="utf-8")
    with pytest.raises(InputError, match="evaluation.json"):
        load_checkpoint(run)


def test_a_refinement_of_ts_own_weights_has_no_mean(judged: Path, tmp_path: Path) -> None:
    run = refine(config(judged, choose="adapted", network={"kind": "paper"}, training={"images": 32}), run=tmp_path / "refined")
    always(RunFolder(run).checkpoint_files()[-1], {"average.classifier.": 1})
    found = evaluate_refinement(run)
    assert found.guard.agreement == 1 and found.guard.kept == "refined" and not found.mean


@pytest.mark.parametrize(
    ("classifier", "choose"), [({"private_first_layer": True}, "source-only"), ({"kind": "residual", "width": 8}, "adapted")]
)
def test_a_mean_is_exported_with_every_kind_of_t(classifier: dict, choose: str, tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path, count=80)
    own = tiny.pixelda(source=source, target=target, judge=True, classifier=classifier, training={"images": 64})
    origin = train_pixelda(own, run=tmp_path / "adapted")
    run = refine(config(origin, choose=choose), run=tmp_path / "refined")
    found = evaluate_refinement(run)
    as_mean = found.guard.model_copy(update={"kept": "mean", "reasons": (), "start_weight": 0.3})
    found.model_copy(update={"guard": as_mean}).save(RunFolder(run).evaluation)
    start, refined = load_checkpoint(origin), load_checkpoint(run, "ema-last")
    images, _ = tiny.pictures(6, coloured=True)
    values = to_float(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        first = (start.classifier if choose == "adapted" else start.judge)(values).softmax(1)
        expected = 0.3 * first + 0.7 * refined.classifier(values).softmax(1)
    for file in (tmp_path / "model.safetensors", tmp_path / "model.onnx"):
        export(run, file, form=file.suffix[1:])
        np.testing.assert_allclose(load_classifier(file)(images), expected.numpy(), atol=1e-5)


def edit_images(run: Path, images: int) -> None:
    path = RunFolder(run).evaluation
    RefinementResult.load(path).model_copy(update={"images": images}).save(path)


def test_a_run_that_was_trained_further_is_not_taken_for_the_start(judged: Path, tmp_path: Path) -> None:
    run = refine(config(judged), run=tmp_path / "refined")
    always(RunFolder(run).checkpoint_files()[-1], {"average.classifier.": 2})
    assert evaluate_refinement(run).guard.kept == "start"
    moved = Path(shutil.copytree(judged, tmp_path / "adapted"))
    text = (run / "config.yaml").read_text(encoding="utf-8").replace(str(judged), str(moved))
    (run / "config.yaml").write_text(text, encoding="utf-8")
    assert load_checkpoint(run).name == "start"
    resume_pixelda(moved, images=656)
    with pytest.raises(InputError, match="at 640 images.*656.*--checkpoint ema-last"):
        load_checkpoint(run)
    with pytest.raises(InputError, match="at 640 images.*656"):
        evaluate_refinement(run)
    assert load_checkpoint(run, "ema-last").name == "ema-last"


def test_t_of_the_source_alone_has_one_first_layer_also_after_a_refinement(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path, count=80)
    private = tiny.pixelda(source=source, target=target, judge=True, classifier={"private_first_layer": True})
    origin = train_pixelda(private, run=tmp_path / "adapted")
    run = refine(config(origin, choose="source-only", network={"kind": "paper"}), run=tmp_path / "refined")
    found = load_checkpoint(run, "ema-last").classifier
    assert isinstance(found, Classifier) and found.conv1_source is None
    assert evaluate_refinement(run).sets["target_test"].count > 0


def test_labels_of_the_target_change_nothing(judged: Path, tmp_path: Path) -> None:
    run = refine(config(judged), run=tmp_path / "refined")
    one = evaluate_refinement(run).guard
    spec = json.loads((judged / "run.json").read_text())["data"]["target"]["spec"].removeprefix("arrays:")
    with np.load(spec) as stored:
        images, labels = stored["images"], stored["labels"]
    other = tmp_path / "target.npz"
    np.savez(other, images=images, labels=(labels + 1) % 3)
    moved = Path(shutil.copytree(judged, tmp_path / "adapted"))
    text = (moved / "config.yaml").read_text(encoding="utf-8").replace(spec, str(other))
    (moved / "config.yaml").write_text(text, encoding="utf-8")
    again = Path(shutil.copytree(run, tmp_path / "again"))
    text = (again / "config.yaml").read_text(encoding="utf-8").replace(str(judged), str(moved))
    (again / "config.yaml").write_text(text, encoding="utf-8")
    assert evaluate_refinement(again).guard == one


def test_the_largest_change_is_one_that_the_refinement_made() -> None:
    shares = (
        ClassShare(name="rare", source=0.5, start=0.1, refined=0.1),
        ClassShare(name="moved", source=0.2, start=0.5, refined=0.3),
    )
    text = Guard(
        kept="refined", reasons=(), criteria={}, agreement=0.8, pseudo_label_rate=0.5, classes=shares, images=90
    ).to_text()
    assert "moved" in text and "rare" not in text
