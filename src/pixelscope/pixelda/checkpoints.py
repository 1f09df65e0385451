"""Open trained runs of PixelDA, its baseline and refinements with one of their checkpoints.

No checkpoint is selected by target labels.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pixelscope.config import read_yaml
from pixelscope.engine import checkpoint
from pixelscope.errors import InputError, not_one_of
from pixelscope.pixelda.config import AdaptedClassifierConfig, BaselineConfig, PixelDAConfig
from pixelscope.pixelda.data import StoredRun, System
from pixelscope.pixelda.networks import Generator, MeanClassifier, StrongClassifier, TaskNetwork, make_classifier
from pixelscope.pixelda.refinement.config import SYSTEM as REFINED
from pixelscope.pixelda.refinement.config import NetworkConfig, StoredRefinement, read_refinement
from pixelscope.pixelda.refinement.results import RefinementResult
from pixelscope.pixelda.results import EFFECTS, Choose, Evaluation, Verdict
from pixelscope.runs.folder import RunFolder

N = TypeVar("N", bound=nn.Module)

CHECKPOINTS = ("last", "ema-last", "best-source")
CONFIGS: dict[str, type[BaselineConfig]] = {"baseline": BaselineConfig, "pixelda": PixelDAConfig}
START = "start"
"""Checkpoint of a refinement that likely harms: the T it started from."""
MEAN = "mean"
"""Checkpoint of a refinement that agrees with the T it started from: the mean of both. Exports have a setting of this name."""

REFINED_CHECKPOINT = "ema-last"
"""Checkpoint of a refinement: the moving averages in its newest file."""
UNEVALUATED = "not evaluated at its end; `pixelscope pixelda evaluate` finds whether T or the mean of both is better"
"""Why a refinement without an evaluation of its newest weights is used alone."""
OTHER_NETWORKS = "The networks in {path} differ from those in the run's config.yaml; restore that file."


@dataclass(frozen=True)
class Checkpoint:
    """A run or refinement with the networks of one checkpoint, in evaluation mode, on the CPU."""

    folder: RunFolder
    record: Mapping[str, Any]
    """Content of run.json."""
    run: StoredRun
    """The run of PixelDA or its baseline; for a refinement the one it started from."""
    system: str
    classes: tuple[str, ...]
    name: str
    """`last`, `ema-last`, `best-source`, `start` or `mean`."""
    images: int
    """Images seen at this checkpoint."""
    batch_size: int
    seed: int
    settings: Mapping[str, Any]
    """The configuration as plain values, as in exported files."""
    classifier: nn.Module
    generator: Generator | None
    judge: TaskNetwork | None = None
    """T trained on the source alone in the same run; None if there is none."""
    why: str = ""
    """Why this classifier is used, if a choice was made or could be; see `describe_choice`."""

    @property
    def config(self) -> BaselineConfig:
        """Return the configuration of `run`."""
        return self.run.config

    @property
    def size(self) -> int:
        """Return the side of the networks' input in pixels."""
        return self.run.config.data.size

    def describe_choice(self) -> str:
        """Return which classifier it is, and why it is used."""
        names = {"pixelda": "the adapted T", "baseline": "T of the source alone", REFINED: "the refined classifier"}
        which = {
            START: f"{names[self.system]}, from which the refinement started",
            MEAN: "the mean of the refined classifier and T",
        }
        return which.get(self.name, names[self.system]) + (f" ({self.why})" if self.why else "")

    def describe_classifier(self) -> str:
        """Return kind, width and number of parameters of the classifier."""
        network, own = self.settings.get("network", {}), self.settings["classifier"]
        strong = network.get("kind") == "strong"
        start = AdaptedClassifierConfig.parse(own, "classifier").describe()
        kind = f"strong of width {network['width']}" if strong else start
        kind += f", and {start}, together" if self.name == MEAN else ","
        return f"{kind} {sum(parameter.numel() for parameter in self.classifier.parameters()):,} parameters"


def read_run(folder: RunFolder, record: Mapping[str, Any] | None = None) -> StoredRun:
    """Read the run folder of PixelDA or its baseline.

    Args:
        folder: the run folder.
        record: its run.json, if it was read already.

    Raises:
        InputError: the folder is of another system, or damaged.
    """
    record = folder.read_record() if record is None else record
    system = record.get("system")
    if system not in CONFIGS:
        raise InputError(_other_system(folder, record))
    return StoredRun(folder, record, system, CONFIGS[system].parse(read_yaml(folder.config), str(folder.config)))


def _other_system(folder: RunFolder, record: Mapping[str, Any]) -> str:
    """Return what a run folder of another system is, and what to give."""
    system, path = record.get("system"), folder.path
    several = {"search": "a search", "ablation": "an ablation"}
    if system in several:
        return f"{path} is the folder of {several[system]}; give one of the runs in {path / 'conditions'}."
    if system == REFINED:
        origin = record.get("refined_from", {}).get("run")
        return (
            f"{path} is a refinement, not a run of pixelda; give the run that it started from{f', {origin}' if origin else ''}."
        )
    return f"{path} is a run of {system!r}, not of pixelda or its baseline; give one of those."


def load_checkpoint(run: Path | StoredRun | StoredRefinement, name: str = "auto", finished: bool = True) -> Checkpoint:
    """Open a run with one of its checkpoints.

    Args:
        run: run folder of PixelDA, its baseline or a refinement, or its content if it was read already.
        name: `last`, `ema-last` or `best-source`; see `default_checkpoint` for `auto`. A refinement has `ema-last` alone;
            `auto` is what the evaluation keeps: it, the T that it started from, or the mean of both.
        finished: refuse an unfinished run, unless a checkpoint is named.

    Raises:
        InputError: `run` is not such a run, is damaged or unfinished, or has no such checkpoint.
    """
    stored = run if isinstance(run, StoredRun | StoredRefinement) else _read(RunFolder.open(run))
    if finished and name == "auto":
        stored.folder.require_finished(stored.record)
    if isinstance(stored, StoredRefinement):
        return _refined(stored, name)
    found = list_checkpoints(stored)
    return found[default_checkpoint(name, stored.system, found)]


def list_checkpoints(run: StoredRun) -> dict[str, Checkpoint]:
    """Return the checkpoints of a run by name.

    last: the newest weights. ema-last: their moving averages. best-source: the averages (or the weights, if there are none)
    with the best accuracy on the source's validation images.

    Raises:
        InputError: the run has no checkpoint.
    """
    path = newest_file(run.folder)
    newest, header = checkpoint.load(path)
    images = header.progress.images
    found = {"last": _checkpoint(run, "last", path, images, newest, "network")}
    if _has_average(newest):
        found["ema-last"] = _checkpoint(run, "ema-last", path, images, newest, "average")
    best = run.folder.checkpoints / "best.safetensors"
    if best.is_file():
        tensors, header = checkpoint.load(best)
        kind = "average" if _has_average(tensors) else "network"
        found["best-source"] = _checkpoint(run, "best-source", best, header.progress.images, tensors, kind)
    return found


def default_checkpoint(name: str, system: System, available: Collection[str]) -> str:
    """Return `name`, or the checkpoint that `auto` means.

    For PixelDA that is ema-last, or last without averages. For a baseline it is best-source if source images were held out for
    validation, else last.

    Raises:
        InputError: there is no such checkpoint.
    """
    if name == "auto":
        order = ("ema-last", "last") if system == "pixelda" else ("best-source", "last")
        return next(one for one in order if one in available)
    if name not in CHECKPOINTS:
        raise InputError(f"There is no checkpoint {name!r}; choose one of {', '.join(CHECKPOINTS)}.")
    if name not in available:
        why = {
            "ema-last": "no average was kept (--training.ema-half-life 0)",
            "best-source": "no source images were held out (--data.validation-fraction 0)",
        }
        raise InputError(f"The checkpoint {name} is not available: {why[name]}; choose one of {', '.join(available)}.")
    return name


def newest_file(folder: RunFolder) -> Path:
    """Return the newest checkpoint of a run; raises InputError if it has none."""
    files = folder.checkpoint_files()
    if not files:
        raise InputError(f"{folder.path} has no checkpoint yet; wait until the training has saved its first one.")
    return files[-1]


def stored_classifiers(run: StoredRun, until: int) -> Iterator[tuple[int, dict[str, TaskNetwork]]]:
    """Yield (images, {"last": T, "ema": its average}) for the classifiers stored in training, oldest first.

    until: images of the newest checkpoint; later classifiers belong to a lost session.
    """
    for path in sorted(run.folder.classifiers.glob("*.safetensors")):
        if int(path.stem) <= until:
            yield int(path.stem), _read_classifiers(path, run)


def choose_classifier(found: Checkpoint, choose: Choose = "adapted") -> Checkpoint:
    """Return the checkpoint with the classifier to use, and the reason in `why`.

    Args:
        found: the checkpoint.
        choose: `adapted` keeps the adapted T. `auto` takes the classifier that the verdict of the run's evaluation prefers: the
            adapted T or T of the source alone.

    Raises:
        InputError: `choose` is `auto`, and there is no verdict on these weights.
    """
    if choose not in get_args(Choose):
        raise not_one_of("choose", choose, get_args(Choose))
    if choose == "auto":
        verdict = _required_verdict(found)
        chosen = source_only(found) if verdict.better == "source only" else found
        return replace(chosen, why=f"chosen by --choose auto: {EFFECTS[verdict.better]}")
    result = _evaluation(found)
    if result is None or (result.checkpoint, result.images) != (found.name, found.images):
        return found
    if result.verdict is None or result.verdict.better != "source only":
        return found
    return replace(found, why="although adaptation likely harms; --choose auto takes T of the source alone")


def _evaluation(found: Checkpoint) -> Evaluation | None:
    """Return the stored evaluation of a run with T of the source alone; None if there is none."""
    path = found.folder.evaluation
    return Evaluation.load(path) if found.judge is not None and found.name != START and path.is_file() else None


def _required_verdict(found: Checkpoint) -> Verdict:
    """Return the verdict on a checkpoint; raises InputError if there is none."""
    path, result = found.folder.path, _evaluation(found)
    if found.record.get("system") == REFINED:
        raise InputError(f"{path} is a refinement, which makes its own choice by its evaluation; drop --choose auto.")
    if found.system == "baseline":
        raise InputError(f"{path} is a baseline, which has one classifier only; drop --choose auto.")
    if found.judge is None:
        raise InputError(f"{path} has no T of the source alone to choose; train with --judge, or drop --choose auto.")
    if result is None or result.verdict is None:
        raise InputError(f"{path} has no verdict yet; run `pixelscope pixelda evaluate {path}`, or drop --choose auto.")
    if (result.checkpoint, result.images) != (found.name, found.images):
        raise InputError(
            f"The verdict of {path} is on the checkpoint {result.checkpoint} at {result.images:,} images, not on {found.name} "
            f"at {found.images:,}; run `pixelscope pixelda evaluate {path} --checkpoint {found.name}`."
        )
    return result.verdict


def source_only(found: Checkpoint) -> Checkpoint:
    """Return the checkpoint with T of the source alone as classifier; the run must have one."""
    assert found.judge is not None
    settings = _of_source_only(found.settings)
    return replace(found, system="baseline", classifier=found.judge, generator=None, judge=None, settings=settings)


def _of_source_only(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of T of the source alone, which has one first layer."""
    return {**settings, "classifier": {**settings["classifier"], "private_first_layer": False}}


def load_weights(build: Callable[[], N], tensors: Mapping[str, Tensor], prefix: str, remedy: str) -> N:
    """Build a network, load the tensors with a prefix into it, and set it to evaluation mode.

    remedy: message of the InputError raised if names or shapes differ; the network is not built then.
    """
    own = checkpoint.under(tensors, prefix)
    if not checkpoint.has_shapes(lambda: [build()], own):
        raise InputError(remedy)
    with torch.random.fork_rng(devices=[]):  # Initial weights are drawn and thrown away.
        network = build()
    network.load_state_dict(own)
    return network.eval().requires_grad_(False)


def build_classifier(settings: Mapping[str, Any], classes: int, size: int) -> nn.Module:
    """Return the classifier of a run or a refinement, without its weights.

    settings: the configuration as in exported files; missing settings have their defaults.
    """
    if settings.get(MEAN):
        start, refined = ({**settings, MEAN: False, "network": own} for own in ({"kind": "paper"}, settings["network"]))
        return MeanClassifier(build_classifier(start, classes, size), build_classifier(refined, classes, size))
    network = NetworkConfig.parse(settings.get("network", {"kind": "paper"}), "network")
    if network.kind == "strong":
        return StrongClassifier(classes, network.width, network.dropout)
    own = AdaptedClassifierConfig.parse(settings.get("classifier", {}), "classifier")
    return make_classifier(own.kind, classes, size, own.width, own.private_first_layer)


def _read(folder: RunFolder) -> StoredRun | StoredRefinement:
    record = folder.read_record()
    return read_refinement(folder, record) if record.get("system") == REFINED else read_run(folder, record)


def _refined(stored: StoredRefinement, name: str) -> Checkpoint:
    if name not in ("auto", "last", REFINED_CHECKPOINT):
        raise InputError(f"A refinement has no checkpoint {name!r}; choose {REFINED_CHECKPOINT}.")
    try:
        origin = read_run(RunFolder.open(Path(stored.located(teacher=False).run)))
    except InputError as error:
        raise InputError(f"The run that {stored.folder.path} started from cannot be read: {error}") from None
    result = _evaluated(stored.folder) if name == "auto" else None
    if result is None or result.guard.kept == REFINED:
        unknown = name == "auto" and result is None and stored.config.network.is_new
        return replace(_newest(stored, origin), why=UNEVALUATED if unknown else "")
    start = _start(stored, origin, result.start_sha256)
    if result.guard.kept == MEAN:
        return _with_start(_newest(stored, origin), start.classifier, result.guard.start_weight)
    why = f"the refinement likely harms; --checkpoint {REFINED_CHECKPOINT} takes the refined classifier"
    return replace(start, folder=stored.folder, record=stored.record, name=START, why=why)


def _start(stored: StoredRefinement, origin: StoredRun, sha256: str) -> Checkpoint:
    """Return the checkpoint with the T that a refinement started from.

    sha256: that of its weights when the refinement was evaluated; empty if it was not recorded.
    """
    try:
        found = load_checkpoint(origin, stored.config.checkpoint, finished=False)
    except InputError as error:
        raise InputError(
            f"The T that {stored.folder.path} started from cannot be read, and its evaluation says that it is used: {error} "
            f"--checkpoint {REFINED_CHECKPOINT} uses the refined classifier alone."
        ) from None
    require_same_start(stored, found, f"name --checkpoint {REFINED_CHECKPOINT}, or refine again")
    found = source_only(found) if stored.config.choose == "source-only" else found
    if sha256 and sha256 != checkpoint.weights_sha256(found.classifier):
        raise InputError(
            f"T of {origin.folder.path} has other weights than when {stored.folder.path} was evaluated; restore that run, or "
            f"name --checkpoint {REFINED_CHECKPOINT}, or refine again."
        )
    return found


def _with_start(refined: Checkpoint, start: nn.Module, weight: float) -> Checkpoint:
    """Return a refinement with the mean of its classifier and the T that it started from, which has `weight`."""
    return replace(
        refined,
        name=MEAN,
        classifier=MeanClassifier(start, refined.classifier, weight).eval(),
        settings={**refined.settings, MEAN: True},
        why=f"T with a weight of {weight:.2f}; --checkpoint {REFINED_CHECKPOINT} takes the refined classifier alone",
    )


def require_same_start(stored: StoredRefinement, found: Checkpoint, remedy: str = "refine again") -> None:
    """Raise InputError if the run that a refinement started from was trained further since; `found` is its checkpoint now."""
    images = stored.record.get("refined_from", {}).get("images", found.images)
    if images != found.images:
        raise InputError(
            f"{stored.folder.path} started from {found.folder.path} at {images:,} images, and it is at {found.images:,} "
            f"now; {remedy}."
        )


def _evaluated(folder: RunFolder) -> RefinementResult | None:
    """Return the last evaluation of a refinement; None without one of its newest weights."""
    newest = folder.checkpoint_files()[-1:]
    if not newest or not folder.evaluation.is_file():
        return None
    found = RefinementResult.load(folder.evaluation)
    return found if newest[0].stem == f"images-{found.images:012d}" else None


def _newest(stored: StoredRefinement, origin: StoredRun) -> Checkpoint:
    path = newest_file(stored.folder)
    tensors, header = checkpoint.load(path)
    classes = tuple(stored.record.get("classes", ()))
    settings = {**origin.config.model_dump(mode="json"), **stored.config.model_dump(mode="json")}
    settings = _of_source_only(settings) if stored.config.choose == "source-only" else settings
    size = origin.config.data.size
    classifier = load_weights(
        lambda: build_classifier(settings, len(classes), size),
        tensors,
        "average.classifier.",
        OTHER_NETWORKS.format(path=path),
    )
    return Checkpoint(
        folder=stored.folder,
        record=stored.record,
        run=origin,
        system=REFINED,
        classes=classes,
        name=REFINED_CHECKPOINT,
        images=header.progress.images,
        batch_size=stored.config.training.batch_size,
        seed=stored.config.seed,
        settings=settings,
        classifier=classifier,
        generator=None,
    )


def _checkpoint(run: StoredRun, name: str, path: Path, images: int, tensors: Mapping[str, Tensor], kind: str) -> Checkpoint:
    config, classes = run.config, tuple(run.record.get("classes", ()))
    networks: dict[str, Any] = {
        part: load_weights(build, tensors, f"{kind}.{part}.", OTHER_NETWORKS.format(path=path))
        for part, build in _builders(config, len(classes)).items()
    }
    for network in networks.values():
        network.to(memory_format=torch.channels_last)
    return Checkpoint(
        folder=run.folder,
        record=run.record,
        run=run,
        system=run.system,
        classes=classes,
        name=name,
        images=images,
        batch_size=config.training.batch_size,
        seed=config.seed,
        settings=config.model_dump(mode="json"),
        classifier=networks["classifier"],
        generator=networks.get("generator"),
        judge=networks.get("judge"),
    )


def _has_average(tensors: Collection[str]) -> bool:
    return "average.classifier.conv1.weight" in tensors


def _builders(config: BaselineConfig, classes: int) -> dict[str, Callable[[], nn.Module]]:
    """Return functions that build T, and G and the judge if the configuration has them, by name, without their weights."""
    size, t = config.data.size, config.classifier
    if not isinstance(config, PixelDAConfig):
        return {"classifier": lambda: make_classifier(t.kind, classes, size, t.width)}
    g, private = config.generator, config.classifier.private_first_layer
    found: dict[str, Callable[[], nn.Module]] = {
        "classifier": lambda: make_classifier(t.kind, classes, size, t.width, private),
        "generator": lambda: Generator(size, g.noise_dim, g.blocks, g.width, g.conditioned),
    }
    return found | ({"judge": lambda: make_classifier(t.kind, classes, size, t.width)} if config.has_judge else {})


def _read_classifiers(path: Path, run: StoredRun) -> dict[str, TaskNetwork]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it to evaluate without it.") from None
    build = _builders(run.config, len(run.record.get("classes", ())))["classifier"]
    damaged = f"{path} is damaged; delete it to evaluate without it."
    kinds = [kind for kind in ("last", "ema") if any(name.startswith(f"{kind}.") for name in tensors)]
    return {kind: cast(TaskNetwork, load_weights(build, tensors, f"{kind}.", damaged)) for kind in kinds}
