"""Refinement: what it never sees, what its stages do, how a checkpoint is chosen without labels, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from sklearn.metrics import adjusted_mutual_info_score

from fixtures import tiny
from fixtures.weights import Tensors, always, edit, tensors_of
from pixelscope import InputError, evaluate, export
from pixelscope.config import merge, read_yaml
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.loader import to_uint8
from pixelscope.data.sources.listing import image_files
from pixelscope.engine import checkpoint
from pixelscope.engine.augment import moved_view, strong_view, weak_view
from pixelscope.engine.config import ViewsConfig
from pixelscope.engine.session import Place
from pixelscope.pixelda.checkpoints import load_checkpoint
from pixelscope.pixelda.data import load_domains
from pixelscope.pixelda.evaluation import measure, own_sets
from pixelscope.pixelda.forward import draw_noise
from pixelscope.pixelda.inference.classify import classify
from pixelscope.pixelda.networks import Classifier, StrongClassifier
from pixelscope.pixelda.refinement.config import (
    PRESETS,
    SYSTEM,
    GeneratedConfig,
    RefineConfig,
    read_refinement,
    refine_preset,
)
from pixelscope.pixelda.refinement.data import (
    GeneratedPool,
    RefineBatch,
    RefineBatches,
    assumed_frequencies,
    generated_validation,
    load_inputs,
)
from pixelscope.pixelda.refinement.evaluation import evaluate_refinement, select_checkpoints
from pixelscope.pixelda.refinement.report import sections
from pixelscope.pixelda.refinement.results import SELECTORS, RefinementResult
from pixelscope.pixelda.refinement.task import PseudoLabels, RefineTask, View, cosine_schedule
from pixelscope.pixelda.refinement.training import RefineJob, refine, resume_refinement
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.pixelda.verdict import cluster_agreement, mutual_information
from pixelscope.reports.builder import build_report
from pixelscope.reports.document import Table
from pixelscope.rng import ShuffledOrder, StepContext, generator
from pixelscope.runs.folder import RunFolder

STILL = dict.fromkeys(("shift", "rotation", "zoom", "shear", "colour", "invert", "erase"), 0.0)
"""Views that alter nothing."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tiny.write_domains(tmp_path_factory.mktemp("domains"), count=80)
    split = {"seed": 14}  # each class has a share of its own in the target's test split
    run = train_pixelda(tiny.pixelda(source=source, target=target, data=split), run=tmp_path_factory.mktemp("runs") / "adapted")
    evaluate(run)
    return run


def config(origin: Path, **changes) -> RefineConfig:
    return tiny.refined(**merge(changes, {"run": str(origin)}))


@pytest.fixture(scope="module")
def refined(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = refine(config(origin), run=tmp_path_factory.mktemp("refined") / "run")
    evaluate_refinement(run)
    build_report(run)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(RunFolder(run).checkpoint_files()[-1])[0]


def test_it_is_measured_by_the_end_of_a_fixed_schedule_beside_the_other_selections(refined: Path) -> None:
    found = RefinementResult.load(refined / "evaluation.json")
    assert found.checkpoint == "ema-last" and found.images == 96
    selections = {one.criterion: one for one in found.selections}
    assert list(selections) == ["ema-last", *SELECTORS, "oracle: chosen with target labels"]
    assert selections["ema-last"].images == 96
    best = max(point.target_test or 0 for point in found.curve)
    for one in selections.values():
        assert one.target_test is not None and one.gap == pytest.approx(best - one.target_test)
    assert set(found.before) == set(found.sets) == {"source_test", "target_test", "target_all"}
    names = [section.anchor for section in sections(refined)]
    assert names == ["summary", "result", "guard", "choosing", "classes", "training", "record"]


@pytest.fixture
def copy(refined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(refined, tmp_path / "copy"))


def test_headline_and_curve_are_of_the_averages_and_the_oracle_is_the_best_of_them(copy: Path, origin: Path) -> None:
    stored = sorted((copy / "classifiers").iterdir())
    assert [int(path.stem) for path in stored] == [0, 32, 64, 96]
    for path, label in zip(stored, (0, 1, 2, 0), strict=True):
        always(path, {"last.": (label + 1) % 3, "ema.": label})
    always(RunFolder(copy).checkpoint_files()[-1], {"average.classifier.": 0})
    found = evaluate_refinement(copy)
    entries = found.sets["target_test"].per_class
    share = [entry.count / sum(one.count for one in entries) for entry in entries]
    assert len(set(share)) == 3, "each class has a share of its own"
    assert np.flatnonzero(np.sum(found.sets["target_test"].confusion, axis=0)).tolist() == [0]
    assert [point.target_test for point in found.curve] == pytest.approx([share[1], share[2], share[0]])
    selections = {one.criterion: one for one in found.selections}
    assert selections["ema-last"].target_test == pytest.approx(share[0])
    oracle = selections["oracle: chosen with target labels"]
    assert oracle.target_test == pytest.approx(max(share))
    assert oracle.images == {0: 96, 1: 32, 2: 64}[int(np.argmax(share))]
    assert selections["ema-last"].gap == pytest.approx(max(share) - share[0])
    before = Evaluation.load(origin / "evaluation.json")
    assert found.before == {name: one.accuracy for name, one in before.sets.items()}


def test_what_is_measured_is_what_is_exported(refined: Path) -> None:
    stored = tensors_of(refined / "classifiers" / f"{96:012d}.safetensors", "ema.")
    newest = tensors_of(RunFolder(refined).checkpoint_files()[-1], "average.classifier.")
    used = load_checkpoint(refined, "ema-last").classifier.state_dict()
    assert stored.keys() == newest.keys() == used.keys()
    assert all(torch.equal(stored[name], newest[name]) and torch.equal(stored[name], used[name]) for name in stored)


def test_selectors_see_held_out_images_alone(origin: Path, copy: Path) -> None:
    """Target images set apart, source images set apart: neither those trained on nor those of the test."""
    inputs = load_inputs(config(origin), training=False)
    domains = load_domains(inputs.opened.config, training=False)
    assert domains.target is not None
    parts = [_contents(images) for images in (domains.target.train, domains.target.test, inputs.target, inputs.holdout)]
    training, test, used, held_out = parts
    assert held_out == training - used and not held_out & test
    own = [_contents(images) for images in (domains.source.train, inputs.source.train, inputs.source.validation)]
    assert own[2] == own[0] - own[1]

    network, seen = StrongClassifier(3, 4).eval(), tiny.scaled(inputs.holdout.images[:])

    def sharpen(tensors: Tensors) -> None:
        """Decide on what differs from image to image: so little trained, it would say the same of all."""
        network.load_state_dict({name.removeprefix("ema."): t for name, t in tensors.items() if name.startswith("ema.")})
        with torch.no_grad():
            features = network.features(seen).mean((2, 3))
        mixed = torch.randn(3, features.shape[1], generator=torch.Generator().manual_seed(0)) / (features.std(0) + 1e-9)
        tensors |= {"ema.fc.weight": mixed, "ema.fc.bias": -mixed @ features.mean(0)}

    for path in (copy / "classifiers").iterdir():
        edit(path, sharpen)
    for point in evaluate_refinement(copy).curve[:-1]:  # the last one is of the checkpoint
        network.load_state_dict(tensors_of(copy / "classifiers" / f"{point.images:012d}.safetensors", "ema."))
        with torch.no_grad():
            features = network.features(seen).mean((2, 3))
            logits = network(tiny.scaled(inputs.source.validation.images[:]))
        p = network.fc(features).softmax(1).detach().double().numpy()
        expected = scipy.stats.entropy(p.mean(0)) - scipy.stats.entropy(p, axis=1).mean()
        assert expected > 0.01
        assert point.information == pytest.approx(expected, rel=1e-3)
        assert point.cluster_agreement == pytest.approx(cluster_agreement(network.fc(features).detach(), features), abs=1e-5)
        assert point.source_validation == float((logits.argmax(1).numpy() == inputs.source.validation.labels).mean())


def _contents(images: ImageSet) -> set[bytes]:
    return {image.tobytes() for image in images.images[:]}


def test_no_target_label_reaches_training(origin: Path, tmp_path: Path) -> None:
    inputs = load_inputs(config(origin))
    assert inputs.target.labels is None and inputs.holdout.labels is None
    with pytest.raises(InputError, match="has labels"):
        RefineBatches(inputs.source.train, tiny.image_set(), None, 0, torch.device("cpu"))
    record = json.loads((origin / "run.json").read_text())["data"]["target"]["spec"].removeprefix("arrays:")
    other, moved = tmp_path / "adapted", tmp_path / "target.npz"
    shutil.copytree(origin, other)
    with np.load(record) as stored:
        np.savez(moved, images=stored["images"], labels=(stored["labels"] + 1) % 3)
    text = (other / "config.yaml").read_text(encoding="utf-8").replace(record, str(moved))
    (other / "config.yaml").write_text(text, encoding="utf-8")
    one, two = (refine(config(run), run=tmp_path / name) for run, name in ((origin, "one"), (other, "two")))
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())
    with_true, with_false = (evaluate_refinement(run).sets["target_test"].accuracy for run in (one, two))
    assert with_true != with_false, "the labels are read in evaluation"


def test_held_out_target_images_are_never_trained_on(origin: Path) -> None:
    inputs = load_inputs(config(origin))
    parts = [inputs.target.images[:], inputs.holdout.images[:]]
    seen = [{image.tobytes() for image in part} for part in parts]
    assert not seen[0] & seen[1] and len(parts[1]) == round(0.1 * (len(parts[0]) + len(parts[1])))


def test_a_refinement_reads_no_image_that_is_held_out(origin: Path) -> None:
    settings = config(origin, selection_holdout={"source": 0.3, "target": 0.3}, generated={"pool_size": 200})
    inputs = load_inputs(settings)
    training = RefineJob(SYSTEM, settings, Place(Path("runs")), settings, None).build(tiny.fabric())
    drawn = [training.batches(StepContext(8 * step, step, 8, seed=0)) for step in range(80 // 8 + 1)]
    for name, images in (("source", inputs.source.train), ("target", inputs.target)):
        read = torch.cat([getattr(batch, name) for batch in drawn])
        assert {image.tobytes() for image in to_uint8(read).numpy()} == _contents(images)
    assert isinstance(training.batches, RefineBatches) and training.batches.pool is not None
    assert _contents(training.batches.pool.source) == _contents(inputs.source.train)
    assert isinstance(training.task, RefineTask) and training.task.validation is not None
    assert _contents(training.task.validation) == _contents(inputs.source.validation)


def _grouped(folder: Path, members: int) -> Path:
    """Train PixelDA on folders of `members` images per group, with all images of a class in the order of their groups."""
    for name, seed in (("source", 0), ("target", 1)):
        for number, (image, label) in enumerate(zip(*tiny.pictures(72, seed, coloured=name == "target"), strict=True)):
            path = folder / name / str(label) / f"{number // 3 // members}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    specs = {name: str(folder / name) for name in ("source", "target")}
    config = tiny.pixelda(**specs, data={"group_by": r"^(\d/\d+)_"}, training={"images": 16})
    return train_pixelda(config, run=folder / "run")


def test_images_of_one_group_are_trained_on_or_held_out_together(tmp_path: Path) -> None:
    inputs = load_inputs(config(_grouped(tmp_path, 4), selection_holdout={"source": 0.2, "target": 0.2}))
    target = inputs.domains.target
    assert target is not None and target.train.groups is not None and inputs.target.groups is None
    groups = {image.tobytes(): group for image, group in zip(target.train.images[:], target.train.groups, strict=True)}
    shown = [{groups[image.tobytes()] for image in part.images[:]} for part in (inputs.target, inputs.holdout)]
    assert not shown[0] & shown[1] and len(inputs.holdout) == 4 * len(shown[1]) > 0
    source = [{name.partition("_")[0] for name in part.names} for part in (inputs.source.train, inputs.source.validation)]
    assert not source[0] & source[1] and len(inputs.source.validation) == 4 * len(source[1]) > 0


def test_a_refinement_that_did_not_hold_out_whole_groups_is_not_resumed_and_its_evaluation_says_so(tmp_path: Path) -> None:
    run = refine(config(_grouped(tmp_path, 4)), run=tmp_path / "refined")
    assert not [note for note in evaluate_refinement(run).notes if "groups" in note]
    record = RunFolder(run).read_record()
    del record["groups_held_out"]
    RunFolder(run).record.write_text(json.dumps(record))
    assert [note for note in evaluate_refinement(run).notes if "groups" in note]
    for path in RunFolder(run).checkpoint_files():
        tensors, header = checkpoint.load(path)
        del header.data["held_out"]
        checkpoint.save(path, tensors, header)
    RunFolder(run).update_record(state="stopped")
    with pytest.raises(InputError, match="held_out"):
        resume_refinement(run)


def test_a_class_whose_last_group_would_be_held_out_is_refused(tmp_path: Path) -> None:
    """Of two groups per class the test has one of some class; whether the other one is held out depends on the seed."""
    run, refused = _grouped(tmp_path, 12), 0
    for seed in range(8):
        try:
            train = load_inputs(config(run, selection_holdout={"source": 0.2, "seed": seed})).source.train
            assert 0 not in train.class_counts()
        except InputError as error:
            refused += 1
            assert "--selection-holdout.seed" in str(error)
    assert 0 < refused < 8


def test_the_last_images_of_a_rare_class_are_trained_on(tmp_path: Path) -> None:
    _, target = tiny.write_domains(tmp_path)
    with np.load(tmp_path / "source.npz") as stored:
        rare = np.flatnonzero(stored["labels"] == 2)[3:]
        np.savez(tmp_path / "rare.npz", **{name: np.delete(stored[name], rare, axis=0) for name in stored})
    run = train_pixelda(
        tiny.pixelda(source=f"arrays:{tmp_path / 'rare.npz'}", target=target, training={"images": 16}), run=tmp_path / "run"
    )
    for seed in range(20):
        source = load_inputs(config(run, selection_holdout={"source": 0.6, "seed": seed})).source
        assert source.train.class_counts()[2] > 0 and len(source.validation) > 10


def test_a_stopped_refinement_goes_on_to_the_same_weights(origin: Path, refined: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(refined, run)
    newest = RunFolder(run).checkpoint_files()
    newest[-1].unlink()
    for path in (run / "classifiers").glob("*96.safetensors"):
        path.unlink()
    resume_refinement(run)
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(refined).items())


def test_an_unfinished_refinement_is_measured_and_used_by_the_same_weights(refined: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(refined, run)
    folder = RunFolder(run)
    folder.checkpoint_files()[-1].unlink()
    folder.update_record(state="running")
    assert [int(path.stem) for path in sorted(folder.classifiers.glob("*.safetensors"))][-1] == 96
    used = load_checkpoint(run, "ema-last")
    found = evaluate_refinement(run)
    assert found.images == used.images == 64 == max(point.images for point in found.curve)
    target = own_sets(load_inputs(config(Path(found.run)), training=False).domains)["target_test"]
    assert found.sets["target_test"].confusion == measure(used.classifier, target).tolist()
    summary, result, *_ = sections(run)
    assert any("not finished" in note and "64 of 96" in note for note in summary.notes)
    assert any("after 64 images" in part.caption for part in result.parts if isinstance(part, Table))
    folder.update_record(state="finished", images=96)
    assert any("continued to 96 images" in note and "at 64" in note for note in sections(run)[0].notes)
    # The checkpoint itself, and not what happens to be stored beside it.
    averages = weights(run)
    assert all(torch.equal(averages[f"average.classifier.{n}"], v) for n, v in used.classifier.state_dict().items())
    for path in folder.classifiers.glob("*.safetensors"):
        path.unlink()
    assert evaluate_refinement(run).sets == found.sets


def test_the_paper_classifier_goes_on_from_its_weights(origin: Path, tmp_path: Path) -> None:
    values = {"network": {"kind": "paper"}, "optimizer": {"learning_rate": 1e-12, "weight_decay": 0.0}}
    run = refine(config(origin, **values), run=tmp_path / "run")
    before = load_inputs(config(origin)).opened.classifier.state_dict()
    for name, value in before.items():
        assert torch.allclose(weights(run)[f"network.classifier.{name}"], value, atol=1e-6)


def test_images_keep_their_labels_and_the_target_has_an_order_of_its_own() -> None:
    """Of aligned sets, an order in common would show the target image of every source image next to it."""
    values = np.arange(24)
    images = values.astype(np.uint8)[:, None, None, None].repeat(3, 1).repeat(4, 2).repeat(4, 3)
    source = ImageSet(images, Provenance("numbered", "numbered"), values, tuple(map(str, values)))
    orders: list[tuple[list[int], list[int]]] = []
    for seed in (0, 0, 1):
        batches, source_order, target_order = (
            RefineBatches(source, source.without_labels(), None, seed, torch.device("cpu")),
            [],
            [],
        )
        for step in range(3):
            batch = batches(StepContext(8 * step, step, 8, 7))
            assert batch.generated is None and batch.generated_labels is None
            shown, target = (((of[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() for of in (batch.source, batch.target))
            assert shown == batch.labels.tolist()
            source_order += shown
            target_order += target
        orders.append((source_order, target_order))
    first, again, other = orders
    assert [sorted(order) for order in first] == [values.tolist()] * 2, "every image once"
    assert first == again and all(one != two for one, two in zip(first, other, strict=True))
    assert sum(one == two for one, two in zip(*first, strict=True)) <= 4


@pytest.mark.parametrize(("stage", "lacking"), [("generated", "loss/generated"), ("self_training", "loss/target")])
def test_a_stage_can_be_left_out(origin: Path, tmp_path: Path, stage: str, lacking: str) -> None:
    run = refine(config(origin, **{stage: {"enabled": False}}), run=tmp_path / "run")
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert all(lacking not in line for line in lines)
    assert evaluate_refinement(run).sets["target_test"].count > 0


def test_another_run_can_label_the_target(origin: Path, refined: Path, tmp_path: Path) -> None:
    """The paper's T learns from a stronger network: with a teacher that is always sure, every target image is trusted."""
    teacher = tmp_path / "teacher"
    shutil.copytree(refined, teacher)
    taught = {"teacher": str(teacher), "threshold": 0.01}
    values = config(origin, network={"kind": "paper"}, self_training=taught, checkpoint="ema-last")
    run = refine(values, run=tmp_path / "run")
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert {line["pseudo_label_rate"] for line in lines if "pseudo_label_rate" in line} == {1.0}
    assert str(teacher) in sections(run)[0].prose[0]
    other = refine(config(origin, network={"kind": "paper"}, self_training={"threshold": 0.01}), run=tmp_path / "other")
    assert not all(torch.equal(value, weights(other)[name]) for name, value in weights(run).items())
    made = load_inputs(values).teacher
    assert made is not None
    ours, theirs = made.state_dict(), weights(refined)
    assert all(torch.equal(value, theirs[f"average.classifier.{name}"]) for name, value in ours.items())
    shutil.rmtree(teacher)
    assert evaluate_refinement(run).sets["target_test"].count > 0, "measuring needs no teacher"


def test_a_teacher_that_cannot_teach_is_refused(origin: Path, tmp_path: Path) -> None:
    taught = {"teacher": str(origin)}
    with pytest.raises(InputError, match="teacher"):
        refine(config(origin, self_training={"enabled": False, **taught}), run=tmp_path / "out")
    split, classes = tmp_path / "split", tmp_path / "classes"
    for other in (split, classes):
        shutil.copytree(origin, other)
    text = (split / "config.yaml").read_text(encoding="utf-8")
    (split / "config.yaml").write_text(text.replace("test_fraction: 0.2", "test_fraction: 0.3"), encoding="utf-8")
    record = json.loads((classes / "run.json").read_text(encoding="utf-8"))
    (classes / "run.json").write_text(json.dumps({**record, "classes": ["a", "b", "c"]}), encoding="utf-8")
    for other, said in ((split, "another split"), (classes, "a, b, c.* 0, 1, 2")):
        with pytest.raises(InputError, match=said):
            refine(config(origin, self_training={"teacher": str(other)}), run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_teacher_teaches_only_where_a_checkpoint_is_named(origin: Path, refined: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(refined, unfinished)
    record = json.loads((unfinished / "run.json").read_text(encoding="utf-8"))
    (unfinished / "run.json").write_text(json.dumps({**record, "state": "stopped"}), encoding="utf-8")
    taught = {"teacher": str(unfinished)}
    with pytest.raises(InputError, match="is not finished"):
        load_inputs(config(origin, self_training=taught))
    assert load_inputs(config(origin, self_training=taught, checkpoint="ema-last")).teacher is not None


ADAPTIVE = {"thresholds": "adaptive", "threshold": 0.95}


def task(classes: int = 3, **changes) -> RefineTask:
    torch.manual_seed(0)
    values = tiny.refined(**changes)
    network = StrongClassifier(classes, 4, 0.0)
    return RefineTask(values, network, torch.full((classes,), 1 / classes), tiny.fabric())


def batch(seed: int = 0) -> RefineBatch:
    draw = torch.Generator().manual_seed(seed)
    source, generated, target = torch.rand(3, 8, 3, tiny.SIZE, tiny.SIZE, generator=draw) * 2 - 1
    return RefineBatch(source, torch.arange(8) % 3, generated, (torch.arange(8) + 1) % 3, target)


def same(one: RefineTask, other: RefineTask) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.classifier.parameters(), other.classifier.parameters(), strict=True))


@pytest.mark.parametrize(("images", "share"), [(0, 0.0), (16, 0.25), (64, 1.0), (80, 1.0)])
def test_the_weight_of_the_targets_labels_grows_along_the_ramp(images: int, share: float) -> None:
    """In a ramp of 64 images a step is one without a ramp and with a share of the weights."""
    taught, free = {"threshold": 0.01, "weight": 2.0, "rampup_images": 64}, {"entropy": 4.0, "virtual_adversarial": 8.0}
    ramped, plain, off = (
        task(self_training=values, regularization=others, training={"images": 96})
        for values, others in (
            (taught, free),
            (
                {**taught, "weight": 2.0 * share, "rampup_images": 0},
                {name: weight * share for name, weight in free.items()},
            ),
            ({"enabled": False}, {}),
        )
    )
    for made in (ramped, plain, off):
        made.step(batch(), StepContext(images, images // 8, 8, 0))
    assert same(ramped, plain)
    assert same(ramped, off) == (share == 0)


def test_the_loss_is_of_source_redrawn_and_target_images_with_the_labels_that_are_trusted() -> None:
    """One step by hand: no view alters anything, and the teacher says what it says of each image."""
    given, teacher = batch(), copy_of(task().classifier).eval()
    torch.nn.init.normal_(teacher.fc.weight, std=3.0, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        sure, label = teacher(given.target).softmax(1).max(1)
    threshold = float(sure.sort().values[3:5].mean())
    trusted = sure >= threshold
    assert trusted.sum() == 4
    taught = {"threshold": threshold, "weight": 0.7, "distribution_alignment": "none"}
    made = task(self_training=taught, views=STILL, optimizer={"weight_decay": 0.0}, regularization={"entropy": 0.3})
    made.teacher = teacher
    torch.nn.init.normal_(made.classifier.get_parameter("fc.weight"), std=3.0, generator=torch.Generator().manual_seed(6))
    plain = copy_of(made.classifier)
    numbers = made.step(given, StepContext(0, 0, 8, 0))
    losses = [
        F.cross_entropy(plain(given.source), given.labels),
        F.cross_entropy(plain(given.generated), given.generated_labels),
    ]  # type: ignore[arg-type]
    said = plain(given.target)
    by_teacher = (F.cross_entropy(said, label, reduction="none") * trusted).sum() / 8
    p = said.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    for name, loss in zip(("source", "generated", "target", "entropy"), [*losses, by_teacher, entropy], strict=True):
        assert float(numbers[f"loss/{name}"]) == pytest.approx(loss.item(), rel=1e-4)
    assert float(numbers["pseudo_label_rate"]) == pytest.approx(float(trusted.float().mean()))
    assert 0 < float(numbers["agreement"]) < 1
    assert float(numbers["agreement"]) == pytest.approx(float((said.argmax(1) == label)[trusted].float().mean()))
    (losses[0] + losses[1] + 0.7 * by_teacher + 0.3 * entropy).backward()
    moments = made.optimizers["classifier"].state_dict()["state"].values()
    for parameter, values in zip(plain.parameters(), moments, strict=True):
        torch.testing.assert_close(values["exp_avg"], 0.1 * parameter.grad, rtol=1e-3, atol=1e-6)


def copy_of(network: torch.nn.Module) -> torch.nn.Module:
    made = StrongClassifier(3, 4, 0.0)
    made.load_state_dict(network.state_dict())
    return made


def test_source_images_go_through_their_own_first_layer_and_the_others_do_not() -> None:
    network, given = Classifier(3, tiny.SIZE, private_first_layer=True), batch()
    changes = tiny.refined(views=STILL, self_training={"threshold": 0.01})
    made = RefineTask(changes, network, torch.full((3,), 1 / 3), tiny.fabric())
    seen: dict[str, list[torch.Tensor]] = {"conv1": [], "conv1_source": []}
    for name, shown in seen.items():
        network.get_submodule(name).register_forward_pre_hook(lambda _, inputs, shown=shown: shown.append(inputs[0]))
    made.step(given, StepContext(0, 0, 8, 0))
    assert given.generated is not None
    for name, expected in (("conv1_source", [given.source]), ("conv1", [given.generated, given.target])):
        assert len(seen[name]) == len(expected)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(seen[name], expected, strict=True))


def test_an_image_and_its_worst_change_are_dropped_alike() -> None:
    """A change of almost nothing then changes almost nothing; other features dropped would change a lot."""
    config, divergence = tiny.refined(regularization={"virtual_adversarial": 1.0, "radius": 1e-3}), []
    for _ in range(2):
        network = StrongClassifier(3, 4, 0.5)
        torch.nn.init.normal_(network.fc.weight, std=3.0)
        made = RefineTask(config, network, torch.full((3,), 1 / 3), tiny.fabric())
        divergence.append(float(made.step(batch(), StepContext(0, 0, 8, 0))["loss/virtual_adversarial"]))
    assert max(divergence) < 1e-3


def test_the_average_is_measured_on_images_held_out_and_a_teacher_drops_nothing() -> None:
    held_out, networks = tiny.image_set(10), [StrongClassifier(3, 4, 0.5) for _ in range(2)]
    made = RefineTask(tiny.refined(), networks[0], torch.full((3,), 1 / 3), tiny.fabric(), held_out, networks[1].train())
    assert made.teacher is not None and not made.teacher.training
    for network, label in ((made.classifier, 1), (made.averages["classifier"].network, 0)):
        with torch.no_grad():
            network.get_parameter("fc.weight").zero_()
            network.get_parameter("fc.bias").copy_(torch.eye(3)[label])
    assert made.evaluate()["accuracy/source_validation"] == pytest.approx(0.4), "four of ten are of class 0"


def _certain(label: int) -> StrongClassifier:
    """Return a network that predicts one class with certainty."""
    network = StrongClassifier(3, 4, 0.0)
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(50 * torch.eye(3)[label])
    return network


def test_predictions_of_the_start_have_a_weight_that_falls_to_nothing() -> None:
    """The running mean of the predictions that label tells whose they are: the average says 0, the start 1."""
    config = tiny.refined(self_training={"start_weight": 0.8}, training={"images": 96})
    for images, weight in ((0, 0.8), (48, 0.4), (96, 0.0)):
        made = RefineTask(config, _certain(0), torch.full((3,), 1 / 3), tiny.fabric(), start=_certain(1))
        made.step(batch(), StepContext(images, images // 8, 8, 0))
        expected = 0.99 / 3 + 0.01 * np.array([1 - weight, weight, 0])
        np.testing.assert_allclose(made.pseudo_labels.state["predicted"], expected, atol=1e-6)


class _Undecided(torch.nn.Module):
    """Says one class more with each call, with certainty."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return 50 * torch.eye(3)[torch.full((len(images),), self.calls - 1)]


def test_a_target_image_is_labelled_by_the_mean_prediction_over_its_views() -> None:
    made = task(self_training={"weak_views": 2}, views=STILL)
    made.teacher = _Undecided()
    made.step(batch(), StepContext(0, 0, 8, 0))
    np.testing.assert_allclose(made.pseudo_labels.state["predicted"], 0.99 / 3 + 0.01 * np.array([0.5, 0.5, 0]), atol=1e-6)


@pytest.mark.parametrize(("changed", "starts"), [({}, True), ({"start_weight": 0.0}, False), ({"enabled": False}, False)])
def test_a_refinement_labels_with_the_t_that_it_starts_from(origin: Path, changed: dict, starts: bool, tmp_path: Path) -> None:
    settings = config(origin, self_training=changed)
    made = RefineJob("refined", settings, Place(tmp_path, None), settings, None).build(tiny.fabric()).task
    assert (made.start is not None) == starts
    if starts:
        expected = load_inputs(settings).start
        for name, value in made.start.state_dict().items():
            assert torch.equal(value, expected.state_dict()[name])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_starts_without_pseudo_labels_or_without_generated_images(name: str, tmp_path: Path) -> None:
    """Their settings of pseudo-labels are no mistake: the refusal is of the run that is not there."""
    for off in ("self_training", "generated"):
        other = {"generated": "self_training", "self_training": "generated"}[off]
        settings = merge(
            refine_preset(name), {"run": str(tmp_path / "nowhere"), off: {"enabled": False}, other: {"enabled": True}}
        )
        with pytest.raises(InputError, match="nowhere"):
            refine(RefineConfig.parse(settings), run=tmp_path / "refined")


def test_settings_that_a_refinement_of_before_lacks_are_those_that_it_used(copy: Path) -> None:
    values = read_yaml(copy / "config.yaml")
    for name in ("thresholds", "weak_views", "start_weight"):
        del values["self_training"][name]
    (copy / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = read_refinement(RunFolder(copy)).config.self_training
    assert (found.thresholds, found.weak_views, found.start_weight) == ("fixed", 1, 0.0)
    values["self_training"]["weak_views"] = 2
    (copy / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(InputError, match="two views agree"):
        resume_refinement(copy)


def test_a_weight_of_the_start_beside_a_teacher_is_refused() -> None:
    with pytest.raises(InputError, match=r"start_weight 0\.3 has no effect"):
        RefineConfig.parse({"self_training": {"teacher": "t", "start_weight": 0.3}})
    RefineConfig.parse({"self_training": {"teacher": "t"}})


def test_the_teacher_sees_weak_views_and_the_student_strong_ones() -> None:
    """Weak views, one or several, keep colours."""
    made = task(self_training={"threshold": 0.01, "distribution_alignment": "none"}, views={**STILL, "shift": 0.25})
    seen: list[torch.Tensor] = []
    teacher = StrongClassifier(3, 4, 0.0).eval()
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made.teacher = teacher
    made.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    colour = torch.full((8, 3, tiny.SIZE, tiny.SIZE), 0.5)
    given = RefineBatch(colour, torch.arange(8) % 3, None, None, colour)
    stripes = torch.linspace(-1, 1, tiny.SIZE).expand(8, 3, tiny.SIZE, tiny.SIZE)
    for count in (1, 3):
        seen.clear()
        views = {**STILL, "shift": 0.25, "zoom": 0.2, "colour": 0.9, "erase": 0.5}
        made.config = tiny.refined(self_training={"threshold": 0.01, "weak_views": count}, views=views)
        made.step(given, StepContext(0, 0, 8, 0))
        source, *weakly, strongly = seen
        assert len(weakly) == count and all(torch.allclose(one, colour) for one in weakly), (
            "a grey image that is moved is itself"
        )
        assert not torch.allclose(source, colour) and not torch.allclose(strongly, colour)
        seen.clear()
        made.config = tiny.refined(self_training={"threshold": 0.01, "weak_views": count}, views={**STILL, "rotation": 0.2})
        made.step(replace(given, target=stripes), StepContext(0, 0, 8, 0))
        turned = [not torch.allclose(one, one[:, :, :1].expand_as(one), atol=1e-4) for one in seen[1:-1]]
        assert turned == [count > 1] * count


def test_the_learning_rate_of_a_step_is_that_of_its_moment() -> None:
    made = task(training={"images": 96}, optimizer={"learning_rate": 0.02})
    rates = []
    for images in (0, 24, 48, 88):
        made.step(batch(), StepContext(images, images // 8, 8, 0))
        rates.append(made.optimizers["classifier"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.01 * (1 + np.cos(np.pi * images / 96)) for images in (0, 24, 48, 88)])


def test_where_classes_are_missing_balance_can_be_turned_off() -> None:
    """A target of one class of three: balancing spreads predictions over all, until none is confident."""
    said = torch.tensor([[0.9, 0.08, 0.02]]).repeat(20, 1).log()
    for balance in ("source", "none"):
        pseudo_labels = task(self_training={"distribution_alignment": balance, "threshold": 0.5}).pseudo_labels
        for _ in range(600):
            label, confident = pseudo_labels.label(said.softmax(1))
        if balance == "none":
            assert confident.all() and (label == 0).all()
        else:
            assert not confident.any()


def test_the_target_is_assumed_to_have_the_frequencies_that_t_predicts_on_it(origin: Path) -> None:
    inputs = load_inputs(config(origin))
    bias = torch.tensor([0.1, 0.0, -99.0])
    with torch.no_grad():
        last = [module for module in inputs.start.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.bias += bias
        logits = inputs.start.eval()(torch.from_numpy(inputs.target.images).float() / 127.5 - 1)
    counts = torch.bincount(logits.argmax(1), minlength=3)
    assert counts[2] == 0 < counts[1], "one class is never predicted"
    found = assumed_frequencies(config(origin), inputs)
    torch.testing.assert_close(found, (counts + 1) / (counts.sum() + 3))
    labels = inputs.source.train.labels
    assert labels is not None
    for taught in ({"distribution_alignment": "source"}, {"distribution_alignment": "none"}, {"enabled": False}):
        found = assumed_frequencies(config(origin, self_training=taught), inputs)
        assert found.tolist() == pytest.approx([float((labels == label).mean()) for label in range(3)])


def test_a_class_that_is_learned_late_has_a_lower_threshold() -> None:
    """Of three classes the last is predicted less often than the source has it."""
    said = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.25, 0.23, 0.52], [0.52, 0.23, 0.25]]).log()
    made = {
        name: task(self_training={"thresholds": name, "threshold": level, "distribution_alignment": "none"}).pseudo_labels
        for name, level in (("fixed", 0.65), ("adaptive", 0.95))
    }
    balanced = task(self_training=ADAPTIVE).pseudo_labels
    for pseudo_labels in (*made.values(), balanced):
        for _ in range(1000):
            label, _ = pseudo_labels.label(said.softmax(1))
        assert label.tolist() == [0, 1, 2, 0]
    assert made["fixed"].label(said.softmax(1))[1].tolist() == [True, True, False, False]
    assert made["adaptive"].thresholds().tolist() == pytest.approx([0.66] * 3, abs=1e-3), "the mean confidence"
    # Mean predictions are 0.4175, 0.34 and 0.2425, a third of the source each.
    expected = balanced.state["confidence"] * torch.tensor([1, 1, 3 * 0.2425])
    torch.testing.assert_close(balanced.thresholds(), expected, atol=1e-3, rtol=0)
    assert balanced.label(said.softmax(1))[1].tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "setting",
    [{"weight": 2.0}, {"weak_views": 2}, {"start_weight": 0.2}, {"distribution_alignment": "none"}, {"teacher": "t"}],
)
def test_settings_of_pseudo_labels_are_refused_without_them(setting: dict, tmp_path: Path) -> None:
    (name,) = setting
    with pytest.raises(InputError, match=f"self_training.{name}.* has no effect"):
        refine(tiny.refined(run="nowhere", self_training={"enabled": False} | setting), run=tmp_path / "refined")
    assert not (tmp_path / "refined").exists()


def test_a_threshold_that_has_no_effect_is_refused() -> None:
    with pytest.raises(InputError, match="threshold 0.8"):
        RefineConfig.parse({"self_training": {"threshold": 0.8, "thresholds": "adaptive"}})
    with pytest.raises(InputError, match="threshold 0.8"):
        refine(RefineConfig.parse({"run": "nowhere", "self_training": {"threshold": 0.8}}))
    assert RefineConfig.parse({"self_training": {"threshold": 0.8, "thresholds": "fixed"}}).self_training.threshold == 0.8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"network": {"kind": "paper", "width": 64}}, "width 64"),
        ({"network": {"kind": "paper", "dropout": 0.5}}, "dropout 0.5"),
        ({"training": {"sample_every": 1_000}}, "sample_every 1000"),
    ],
)
def test_a_setting_without_effect_is_refused(values: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        RefineConfig.parse(values)
    for name in PRESETS:
        RefineConfig.parse(refine_preset(name))


def test_a_refinement_that_recorded_an_interval_of_samples_is_read(copy: Path) -> None:
    values = read_yaml(copy / "config.yaml")
    values["training"]["sample_every"] = 64_000
    (copy / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert read_refinement(RunFolder(copy)).config == tiny.refined(run=values["run"], choose=values["choose"])


def test_a_rare_class_does_not_lower_the_thresholds_of_the_others() -> None:
    """One percent of the source, and most of what the teacher predicts; then a class that the source lacks."""
    said = torch.tensor([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]]).log()
    for prior in ((0.495, 0.495, 0.01), (0.5, 0.5, 0.0)):
        config = tiny.refined(self_training=ADAPTIVE).self_training
        pseudo_labels = PseudoLabels(config, torch.tensor(prior), tiny.fabric())
        for _ in range(1000):
            pseudo_labels.label(said.softmax(1))
        confidence = float(pseudo_labels.state["confidence"])
        expected = [confidence * min(1, 0.2 / prior[0])] * 2 + [confidence]
        assert pseudo_labels.thresholds().tolist() == pytest.approx(expected, abs=1e-3)


def test_labels_are_of_the_mean_over_views_balanced_towards_the_source() -> None:
    """By hand: the class that the teacher predicts too rarely gains."""
    prior, predicted = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    one = np.array([[0.3, 0.4, 0.3], [0.1, 0.85, 0.05], [0.45, 0.5, 0.05], [0.25, 0.7, 0.05], [0.05, 0.15, 0.8]])
    other = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.5, 0.45, 0.05], [0.5, 0.45, 0.05], [0.05, 0.05, 0.9]])
    made = PseudoLabels(
        tiny.refined(self_training={"threshold": 0.6}).self_training, torch.tensor(prior).float(), tiny.fabric()
    )
    made.state["predicted"].copy_(torch.tensor(predicted))
    label, confident = made.label(torch.tensor((one + other) / 2).float())
    moved = 0.99 * predicted + 0.01 * (one + other).mean(0) / 2
    mean = (one + other) / 2 * prior / moved
    expected = mean.argmax(1)
    sure = mean.max(1) / mean.sum(1) >= 0.6
    assert label.tolist() == expected.tolist() == [0, 1, 0, 0, 2]
    assert confident.tolist() == sure.tolist()
    assert set(confident.tolist()) == {True, False}
    np.testing.assert_allclose(made.state["predicted"], moved, rtol=1e-5)


@pytest.mark.parametrize("name", ["entropy", "virtual_adversarial"])
def test_losses_without_labels_train_the_classifier(name: str) -> None:
    """Each falls if it has weight, while source images are learned in either case; it is not computed at a weight of 0."""
    given, last = batch(), {}
    for weight in (1e-9, 5.0):
        changes = {"self_training": {"enabled": False}, "views": STILL, "regularization": {name: weight, "radius": 2.0}}
        made = task(training={"images": 800}, optimizer={"learning_rate": 0.01}, **changes)
        reached = [float(made.step(given, StepContext(8 * step, step, 8, 0))[f"loss/{name}"]) for step in range(60)]
        last[weight] = np.mean(reached[-5:])
    assert last[5.0] < 0.5 * last[1e-9]
    assert f"loss/{name}" not in task(self_training={"enabled": False}).step(given, StepContext(0, 0, 8, 0))


def test_the_teacher_and_the_mean_of_its_answers_are_part_of_a_checkpoint() -> None:
    made = task(self_training=ADAPTIVE)
    assert set(checkpoint.state(made)) >= {"memory.predicted", "memory.confidence", "average.classifier.fc.weight"}


@pytest.mark.parametrize("labels_of_its_own", [True, False])
def test_statistics_for_use_are_the_averages_own_of_weak_target_views(labels_of_its_own: bool) -> None:
    """They follow the averaged weights on images as they are used: neither the other domains' nor strongly altered ones."""
    made = task(views={"shift": 0.0, "colour": 0.9}, self_training={"enabled": labels_of_its_own})
    images = torch.rand(8, 3, tiny.SIZE, tiny.SIZE) * 0.5 + 0.5
    labels, white = torch.arange(8) % 3, torch.ones_like(images)
    batch = RefineBatch(white, labels, white, labels, images)
    for step in range(60):
        made.step(batch, StepContext(step * 8, step, 8, 0))
    average = made.averages["classifier"].network
    with torch.no_grad():
        own, others = (average.features[0](given) for given in (images, white))
    kept = average.features[1]
    assert torch.allclose(kept.running_mean, own.mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(kept.running_var, own.var((0, 2, 3)), rtol=0.1, atol=0.01)
    assert not torch.allclose(kept.running_mean, others.mean((0, 2, 3)), atol=0.02)
    assert not average.training and not kept.training


def test_the_pool_is_drawn_anew_and_is_a_function_of_the_moment(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.pixelda.refinement.data.GENERATE_BATCH", 5)
    inputs = load_inputs(config(origin))
    assert inputs.opened.generator is not None
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in inputs.opened.generator.parameters():  # so little trained, it would draw alike
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))

    def pool() -> GeneratedPool:
        opened, generated = inputs.opened, GeneratedConfig(pool_size=16, refresh_every=48)
        return GeneratedPool(opened.generator, opened.config, inputs.source.train, 0, generated, tiny.fabric())  # type: ignore[arg-type]

    def at(drawn: GeneratedPool, images: int) -> tuple[torch.Tensor, torch.Tensor]:
        return drawn.take(drawn.read(StepContext(images, images // 8, 8, 0)))

    one = pool()
    first = [at(one, images) for images in (0, 8, 48)]
    assert torch.equal(at(pool(), 48)[0], first[2][0])
    assert not torch.equal(first[0][0], first[2][0])
    own = inputs.source.train
    assert own.labels is not None
    redrawn = {}
    for number in range(0, 96, 48):  # what each pool draws, by hand: its source images, in its order, with a z of its own
        positions = ShuffledOrder(len(own), 0, "generated pool").take(number // 48 * 16, 16).numpy()
        z = draw_noise(inputs.opened.config, 16, generator("cpu", 0, "generated pool", number // 48))  # type: ignore[arg-type]
        images = inputs.opened.generator(tiny.scaled(own.images[positions]), z)
        redrawn[number] = [(image, int(own.labels[position])) for image, position in zip(images, positions, strict=True)]
    for images, labels in first:
        pool_of = redrawn[48] if images is first[2][0] else redrawn[0]
        for image, label in zip(images, labels.tolist(), strict=True):
            near = [known for made, known in pool_of if torch.allclose(made, image, atol=0.01)]
            assert near == [label], "a redrawn image keeps the label of its source image"
    positions = {tuple(image.flatten().tolist()) for image in torch.cat([first[0][0], first[1][0]])}
    assert len(positions) == 16, "no image twice in one pass over the pool"


def test_the_images_generated_for_the_guard_are_of_every_class(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a source are often sorted by class."""
    monkeypatch.setattr("pixelscope.pixelda.refinement.data.MAX_IMAGES", 6)
    inputs = load_inputs(config(origin, selection_holdout={"source": 0.5}), training=False)
    holdout = inputs.source.validation
    assert holdout.labels is not None
    by_class = holdout.select(np.argsort(holdout.labels, kind="stable"))
    found = generated_validation(replace(inputs, source=replace(inputs.source, validation=by_class)), 0)
    assert found.labels is not None and len(found) == 6 and set(found.labels) == {0, 1, 2}


def test_missing_losses_leave_a_gap_in_the_report(refined: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(refined, run)
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    for line in lines[:3]:
        line.update({name: None for name in line if name.startswith("loss/")})
    (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [one.title for one in sections(run)] == [one.title for one in sections(refined)]


def test_a_refined_run_is_used_and_exported_like_any_other(refined: Path, tmp_path: Path) -> None:
    images, _ = tiny.pictures(6, coloured=True)
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    export(refined, tmp_path / "model.onnx", checkpoint="ema-last")
    export(refined, tmp_path / "model.safetensors", form="safetensors", checkpoint="ema-last")
    rows = []
    for name, model in (
        ("run", refined),
        ("onnx", tmp_path / "model.onnx"),
        ("st", tmp_path / "model.safetensors"),
    ):
        checkpoint = "ema-last" if name == "run" else "auto"
        classify(model, image_files(tmp_path / "in"), tmp_path / f"{name}.csv", checkpoint=checkpoint)
        rows.append([line.split(",")[1] for line in (tmp_path / f"{name}.csv").read_text().splitlines()])
    assert rows[0] == rows[1] == rows[2]
    card = (tmp_path / "model.onnx.card.md").read_text(encoding="utf-8")
    assert "pseudo-labelled target images" in card and "Classifier: strong of width 4," in card


def test_what_cannot_be_refined_is_said(origin: Path, refined: Path, tmp_path: Path) -> None:
    source = json.loads((origin / "run.json").read_text())["data"]["source"]["spec"]
    baseline = train_baseline(tiny.baseline(source=source), run=tmp_path / "baseline")
    with pytest.raises(InputError, match="is a baseline, which has no generator; give .*pixelda train"):
        refine(config(baseline), run=tmp_path / "out")
    with pytest.raises(InputError, match=f"is a refinement, .*started from, {origin}"):
        refine(config(refined), run=tmp_path / "out")
    search = RunFolder(Path(shutil.copytree(baseline, tmp_path / "search")))
    search.record.write_text(json.dumps(json.loads(search.record.read_text()) | {"system": "search"}))
    with pytest.raises(InputError, match="is the folder of a search; give one of the runs in .*conditions"):
        refine(config(search.path), run=tmp_path / "out")
    with pytest.raises(InputError, match="enabled"):
        refine(config(origin, generated={"enabled": False}, self_training={"enabled": False}), run=tmp_path / "out")
    with pytest.raises(InputError, match="512"):
        refine(config(origin, training={"batch_size": 512}), run=tmp_path / "out")
    with pytest.raises(InputError, match="'pixelda'"):
        evaluate_refinement(origin)
    with pytest.raises(InputError, match="'best'"):
        refine_preset("best")
    assert not (tmp_path / "out").exists()


def test_presets_are_settings() -> None:
    made = {name: RefineConfig.parse(refine_preset(name)) for name in PRESETS}
    assert made["full"] == RefineConfig()
    assert not made["generated"].self_training.enabled and not made["self-training"].generated.enabled
    assert made["demo"].training.batch_size == 128


def test_views_keep_range_and_shape_and_follow_their_draws() -> None:
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    for alter in (weak_view, moved_view, strong_view):
        one, two, other = (alter(images, ViewsConfig(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert one.shape == images.shape and one.abs().max() <= 1 + 1e-6
        assert torch.equal(one, two) and not torch.equal(one, other)
    still = ViewsConfig(shift=0, rotation=0, zoom=0, shear=0, colour=0, invert=0, erase=0)
    for alter in (weak_view, moved_view, strong_view):
        assert torch.allclose(alter(images, still, torch.Generator()), images, atol=1e-5)


def _affine(alter: View, **limits: float) -> torch.Tensor:
    """Return the map (400, 2, 3) from places in a view to places in its image, both from -1 to 1, x before y.

    The images are their own coordinates, so that a view's values are the places that they were taken from.
    """
    along = (torch.arange(32) + 0.5) / 16 - 1
    places = torch.stack([along.expand(32, 32), along[:, None].expand(32, 32), torch.ones(32, 32)])
    config = ViewsConfig.model_validate({**STILL, **limits})
    views = alter(places.expand(400, 3, 32, 32), config, torch.Generator().manual_seed(0))
    inner = slice(12, 20)  # stays within the image under every limit that is tested
    given, found = places[:, inner, inner].flatten(1), views[:, :2, inner, inner].flatten(2)
    return found @ torch.linalg.pinv(given)


def _fill(values: torch.Tensor, limit: float) -> None:
    """Check that values are spread evenly over -limit to limit."""
    assert values.abs().max() <= limit * 1.01
    assert values.min() < -0.95 * limit and values.max() > 0.95 * limit
    assert abs(float(values.mean())) < 0.12 * limit


@pytest.mark.parametrize("alter", [weak_view, strong_view])
def test_a_view_is_shifted_by_up_to_a_fraction_of_the_side_in_each_direction(alter: View) -> None:
    found = _affine(alter, shift=0.2)
    assert torch.allclose(found[:, :, :2], torch.eye(2).expand(400, 2, 2), atol=1e-4)
    for shift in found[:, :, 2].unbind(1):
        _fill(shift / 2, 0.2)
    assert abs(float(torch.corrcoef(found[:, :, 2].T)[0, 1])) < 0.15


def test_a_moved_view_is_shifted_half_as_far_as_a_strong_one() -> None:
    for shift in _affine(moved_view, shift=0.2)[:, :, 2].unbind(1):
        _fill(shift / 2, 0.1)


@pytest.mark.parametrize(("alter", "limit"), [(strong_view, 0.1), (moved_view, 0.2)])
def test_a_view_is_rotated_zoomed_and_sheared_by_up_to_its_limits(alter: View, limit: float) -> None:
    turned, zoomed, sheared = (_affine(alter, **{name: limit}) for name in ("rotation", "zoom", "shear"))
    angle = torch.atan2(turned[:, 1, 0], turned[:, 0, 0])
    _fill(angle / (2 * torch.pi), 0.1)
    assert torch.allclose(turned[:, 0], torch.stack([angle.cos(), -angle.sin(), 0 * angle], 1), atol=1e-4)
    assert torch.allclose(turned[:, 1], torch.stack([angle.sin(), angle.cos(), 0 * angle], 1), atol=1e-4)
    width, height = 1 / zoomed[:, 0, 0], 1 / zoomed[:, 1, 1]
    for factor in (width, height):
        _fill(factor - 1, 0.1)
    assert abs(float(torch.corrcoef(torch.stack([width, height]))[0, 1])) < 0.15
    assert torch.allclose(zoomed[:, [0, 1, 0, 1], [1, 0, 2, 2]], torch.zeros(4), atol=1e-4)
    _fill(sheared[:, 0, 1], 0.1)
    still = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    still = still.repeat(400, 1, 1)
    still[:, 0, 1] = sheared[:, 0, 1]
    assert torch.allclose(sheared, still, atol=1e-4)


def test_a_strong_view_changes_contrast_and_brightness_per_channel_and_inverts_some_images() -> None:
    images = torch.full((400, 3, 4, 4), 0.1)
    images[..., :2] = -0.1
    config = ViewsConfig.model_validate({**STILL, "colour": 0.6})
    dark, light = strong_view(images, config, torch.Generator().manual_seed(0))[..., 0, [0, 3]].unbind(2)
    contrast, brightness = (light - dark) / 0.2 - 1, (light + dark) / 2
    for values in (*contrast.unbind(1), *brightness.unbind(1)):
        _fill(values, 0.6)
    draws = torch.cat([contrast, brightness], 1).T
    assert (torch.corrcoef(draws) - torch.eye(6)).abs().max() < 0.2
    config = ViewsConfig.model_validate({**STILL, "invert": 0.3})
    views = strong_view(images, config, torch.Generator().manual_seed(0))
    inverted = (views + images).abs().amax((1, 2, 3)) < 1e-6
    assert torch.allclose(views[~inverted], images[~inverted]) and 0.22 < inverted.float().mean() < 0.38


def test_a_strong_view_has_one_grey_square_of_up_to_a_fraction_of_the_side_at_any_place() -> None:
    images = torch.full((400, 3, 32, 32), 0.123)
    views = strong_view(images, ViewsConfig.model_validate({**STILL, "erase": 0.5}), torch.Generator().manual_seed(0))
    boxes = []
    for view in views:
        changed = ((view - 0.123).abs() > 1e-4).any(0)
        rows, columns = (changed.any(axis).nonzero().flatten() for axis in (1, 0))
        if len(rows) and len(columns):
            inside = view[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert torch.allclose(inside, inside.flatten()[0]), "one grey"
            assert changed.sum() == len(rows) * len(columns) and abs(len(rows) - len(columns)) <= 1, "a square"
            boxes.append([int(rows[0]), int(columns[0]), len(rows), float(inside.flatten()[0])])
    top, left, side, grey = torch.tensor(boxes).T
    assert 15 <= side.max() <= 17 and (side <= 3).any()
    assert top.min() == left.min() == 0 and (top + side).max() == (left + side).max() == 32
    assert abs(float(torch.corrcoef(torch.stack([top + side / 2, left + side / 2]))[0, 1])) < 0.2
    _fill(grey, 1.0)


def test_selectors_are_what_they_are_called() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.eye(3)[labels] + 0.05 * torch.randn(90, 3, generator=random)
    right, wrong = 8 * torch.eye(3)[labels], 8 * torch.eye(3)[torch.randint(3, (90,), generator=random)]
    assert cluster_agreement(right, features) == pytest.approx(1)
    expected = adjusted_mutual_info_score(wrong.argmax(1).numpy(), labels.numpy())
    assert cluster_agreement(wrong, features) == pytest.approx(expected, abs=1e-6)
    assert cluster_agreement(8 * torch.eye(3)[torch.zeros(90, dtype=torch.long)], features) == 0
    copies = torch.eye(3)[torch.arange(90) % 2]
    assert cluster_agreement(8 * copies, copies) == pytest.approx(1), "two shapes alone, of three classes"
    sure, unsure, one_class = right, torch.zeros(90, 3), 8 * torch.eye(3)[torch.zeros(90, dtype=torch.long)]
    assert mutual_information(sure) > 1.05 > mutual_information(unsure) == pytest.approx(0, abs=1e-9)
    assert mutual_information(one_class) == pytest.approx(0, abs=1e-9)
    values = {10: dict.fromkeys(SELECTORS, 0.5), 20: dict.fromkeys(SELECTORS, 0.5), 30: dict.fromkeys(SELECTORS, 0.1)}
    assert select_checkpoints(values) == dict.fromkeys(SELECTORS, 20)


def test_cluster_agreement_does_not_depend_on_the_first_centres() -> None:
    """Clear groups, some of which a single run of k-means merges."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(36).repeat_interleave(20)
    features = torch.randn(36, 16, generator=draw)[labels] + 0.15 * torch.randn(720, 16, generator=draw)
    logits = 8 * torch.eye(36)[labels]
    assert min(cluster_agreement(logits, features, seed) for seed in range(5)) > 0.98


def test_the_learning_rate_falls_along_a_cosine() -> None:
    assert (cosine_schedule(2.0, 0), cosine_schedule(2.0, 0.5), cosine_schedule(2.0, 1)) == pytest.approx((2, 1, 0))


def test_the_strong_classifier_is_under_three_million_parameters() -> None:
    counts = [sum(p.numel() for p in StrongClassifier(10, width).parameters()) for width in (32, 96)]
    assert counts[0] == 288_746 and counts[1] < 3_000_000


def adapted(tmp_path: Path, source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], images: int) -> Path:
    """Train PixelDA on two sets of arrays, given as images and labels."""
    for name, (pictures, labels) in (("source", source), ("target", target)):
        np.savez(tmp_path / f"{name}.npz", images=pictures, labels=labels)
    specs = {name: f"arrays:{tmp_path / name}.npz" for name in ("source", "target")}
    return train_pixelda(tiny.pixelda(**specs, training={"images": images}), run=tmp_path / "adapted")


def test_two_classes_missing_in_the_target_are_no_harm_unless_the_sources_balance_is_assumed(tmp_path: Path) -> None:
    """Of three classes the target has one, which T predicts: the source's frequencies contradict that."""
    pictures, labels = tiny.pictures(120, 1)
    kept = labels == 1
    run = adapted(tmp_path, tiny.pictures(120), (pictures[kept], labels[kept]), images=96)
    still = {"colour": 0.2, "erase": 0.0, "rotation": 0.01}
    last = {}
    for balance in ("source", "predicted"):
        taught = {
            "distribution_alignment": balance,
            "threshold": 0.6,
            "weight": 3.0,
            "rampup_images": 2400,
            "thresholds": "fixed",
        }
        changes = {"generated": {"enabled": False}, "self_training": taught, "views": still}
        values = config(run, **changes, training={"images": 4800, "evaluate_every": 4800, "log_every": 480})
        refine(values, run=tmp_path / balance)
        lines = [json.loads(line) for line in (tmp_path / balance / "stats.jsonl").read_text().splitlines()]
        last[balance] = [line for line in lines if "pseudo_label_rate" in line][-1]
    assert evaluate_refinement(tmp_path / "predicted").sets["target_test"].accuracy >= 0.99
    assert last["predicted"]["pseudo_label_rate"] > 0.9 and last["predicted"]["agreement"] > 0.9
    assert last["source"]["pseudo_label_rate"] < 0.3


def test_any_pair_in_either_direction(tmp_path: Path) -> None:
    """Coloured images to small grey ones, as from MNIST-M to USPS."""
    pictures, labels = tiny.pictures(60, 1)
    grey = pictures.mean(3).astype(np.uint8)[:, 2:-2, 2:-2]
    run = adapted(tmp_path, tiny.pictures(60, coloured=True), (grey, labels), images=96)
    found = evaluate_refinement(refine(config(run), run=tmp_path / "refined"))
    assert found.sets["target_test"].count == 12


def test_mnist_m_as_distributed(shared_data: Path, tmp_path: Path) -> None:
    """The original layout, whose test images are its own and not of the source's indices, takes the same commands."""
    source, target = f"mnist:{shared_data / 'mnist'}", f"mnist-m:{shared_data / 'mnist_m_sample'}"
    run = train_pixelda(tiny.pixelda(source=source, target=target), run=tmp_path / "adapted")
    found = evaluate_refinement(refine(config(run), run=tmp_path / "refined"))
    assert found.sets["target_test"].count == 100 and found.sets["target_all"].count == 400
    inputs = load_inputs(config(run))
    assert len(inputs.target) + len(inputs.holdout) == 300
