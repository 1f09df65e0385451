"""Starts and resumes trainings of PixelDA and of its baseline."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelscope.data.imageset import ImageSet
from pixelscope.engine.session import Job, Place, Training, check_resume, check_start
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import read_run
from pixelscope.pixelda.config import BaselineConfig, ClassifierConfig, PixelDAConfig
from pixelscope.pixelda.cost import summarize
from pixelscope.pixelda.data import (
    Domains,
    SeenImages,
    System,
    current_config,
    load_content_masks,
    load_domains,
    paths,
    require_same_images,
    with_findings,
)
from pixelscope.pixelda.metrics import SourceEvaluation
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.samples import ProgressSamples, save_classifiers
from pixelscope.pixelda.task import BaselineTask, LabelledBatches, PairedBatches, PixelDATask
from pixelscope.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BASELINE_FILES = ("config.yaml", "run.json", "stats.jsonl", "evaluation.json")


@dataclass(frozen=True)
class DomainsJob(Job):
    """A training of PixelDA or of its baseline."""

    config: BaselineConfig
    domains: Domains
    masks: ImageSet | None
    """Masks of the source's training images; None if the content loss uses none."""
    found: BaselineConfig
    """The configuration with the current places of its sources."""
    baseline: RunFolder | None = None
    """The baseline whose results are copied into a new run."""

    def build(self, fabric: "Fabric") -> Training:
        """Return the task of the configured system, with its batches."""
        config, domains = self.config, self.domains
        evaluation, classes = SourceEvaluation(domains.source), len(domains.classes)
        if isinstance(config, PixelDAConfig):
            target = domains.training_target()
            batches = PairedBatches(domains.source.train, target, config.seed, fabric.device, self.masks)
            task = PixelDATask(config, classes, fabric, evaluation)
        else:
            batches = LabelledBatches(domains.source.train, config.seed, fabric.device)
            task = BaselineTask(config, classes, fabric, evaluation)
        return Training(
            _name(self.system, config),
            task,
            batches,
            config.training,
            settings=_decisive(config),
            digests=domains.digests() | ({} if self.masks is None else {"masks": self.masks.digest()}),
            describe=self.describe,
            begin=self.begin,
            snapshot=lambda folder, images: save_classifiers(folder, task, images),
            samples=self.samples if isinstance(config, PixelDAConfig) else None,
        )

    def describe(self, run: Path) -> dict[str, Any]:
        """Return the entries of run.json about the data."""
        return {
            "data": self.domains.describe(self.config),
            "paths": paths(self.config, self.found, run),
            "classes": list(self.domains.classes),
        }

    def begin(self, folder: RunFolder) -> None:
        """Write the hashes of the training images and a copy of the baseline's results into a new run."""
        SeenImages.of(self.domains).save(folder)
        if self.baseline is not None:
            folder.baseline.mkdir()
            for name in BASELINE_FILES:
                shutil.copyfile(self.baseline.path / name, folder.baseline / name)

    def samples(self, folder: RunFolder) -> ProgressSamples:
        """Return the writer of samples/progress.npz."""
        return ProgressSamples(folder, self.domains.source.test)


def train_baseline(
    config: BaselineConfig, *, runs: Path = Path("runs"), run: Path | None = None, data_root: Path | None = None
) -> Path:
    """Train T on the source alone.

    Args:
        config: the settings.
        runs: where a numbered run folder is made if `run` is None.
        run: the run folder to make; it must not exist.
        data_root: folder in which a source given as a KIND alone is looked up.

    Returns:
        The run folder.

    Raises:
        InputError: data or settings cannot be used; nothing is written then.

    Example:
        >>> config = pixelscope.pixelda.BaselineConfig(source="my/labelled", target="my/unlabelled")
        >>> pixelscope.pixelda.baseline(config, run=Path("runs/before"))
    """
    if isinstance(config, PixelDAConfig):
        raise InputError("These are the settings of a whole PixelDA; give a BaselineConfig.")
    return _train("baseline", config, runs, run, None, data_root)


def train_pixelda(
    config: PixelDAConfig,
    *,
    runs: Path = Path("runs"),
    run: Path | None = None,
    baseline: Path | None = None,
    data_root: Path | None = None,
) -> Path:
    """Train G, D and T on labelled source images and unlabelled target images.

    Args:
        config: the settings; the defaults are preset `paper`, and `preset("pixelda", "auto")` suits any two sources.
        runs: where a numbered run folder is made if `run` is None.
        run: the run folder to make; it must not exist.
        baseline: run folder of an evaluated baseline to compare with; its results are copied into the new run.
        data_root: folder in which a source given as a KIND alone is looked up.

    Returns:
        The run folder.

    Raises:
        InputError: data, settings or the baseline cannot be used; nothing is written then.

    Example:
        >>> settings = pixelscope.pixelda.preset("pixelda", "auto") | {"source": "my/labelled", "target": "my/unlabelled"}
        >>> config = pixelscope.pixelda.PixelDAConfig.parse(settings)
        >>> pixelscope.pixelda.train(config, run=Path("runs/adapted"))
    """
    return _train("pixelda", config, runs, run, baseline, data_root)


def resume_pixelda(
    run: Path,
    *,
    devices: int | None = None,
    threads: int | None = None,
    images: int | None = None,
    source: str | None = None,
    target: str | None = None,
    data_root: Path | None = None,
    take_over: bool = False,
) -> Path:
    """Continue a stopped run from its newest checkpoint to its end.

    Args:
        run: the run folder.
        devices: number of devices, if it changes.
        threads: CPU threads per process, if it changes; 0 takes the free cores.
        images: number of images to train to, if it changes.
        source: where the run's source images are now, if they have moved.
        target: where the run's target images are now, if they have moved.
        data_root: folder in which a source given as a KIND alone is looked up.
        take_over: take the run's lock from another machine that has been silent for ten minutes.

    Returns:
        The run folder.

    Raises:
        InputError: the run or its images cannot be used, or another process trains it; the run stays as it was.
    """
    runtime = {"devices": devices, "threads": threads}
    changes = {"training": {"images": images}, "runtime": runtime, "source": source, "target": target}
    folder, config, place = check_resume(run, lambda folder: read_run(folder).config, changes, take_over)
    stored = replace(read_run(folder), config=config)
    found = current_config(stored, data_root)
    domains = load_domains(found, data_root)
    require_same_images(replace(stored, config=found), domains)
    return DomainsJob(stored.system, config, place, domains, load_content_masks(found, domains, data_root), found).run()


def _train(
    system: System, config: BaselineConfig, runs: Path, run: Path | None, baseline: Path | None, data_root: Path | None
) -> Path:
    check_start(config, run)
    summarize(system, config).require_memory()
    before = None if baseline is None else _evaluated_baseline(baseline, config.classifier)
    domains = load_domains(config, data_root)
    masks = load_content_masks(config, domains, data_root)
    config = with_findings(config, domains)
    if before is not None:
        _check_same_images(before, domains)
    return DomainsJob(system, config, Place(runs, run), domains, masks, config, before).run()


def _name(system: str, config: BaselineConfig) -> str:
    def short(spec: str) -> str:
        return spec.split(":", 1)[0] if ":" in spec else Path(spec).stem

    domains = short(config.source) + (f"-to-{short(config.target)}" if system == "pixelda" else "")
    return f"{system}-{domains}-seed{config.seed}"


def _evaluated_baseline(path: Path, classifier: ClassifierConfig) -> RunFolder:
    """Open an evaluated baseline; raises InputError if it is not one, or if its T differs from `classifier`."""
    folder = RunFolder.open(path)
    run = read_run(folder)
    if run.system != "baseline" or not folder.evaluation.is_file():
        raise InputError(f"{path} is not an evaluated baseline; train one with `pixelscope pixelda baseline` and evaluate it.")
    theirs, ours = run.config.classifier.describe(), classifier.describe()
    if theirs != ours:
        raise InputError(
            f"T of the baseline {path} is {theirs}, but T of this run is {ours}; use the same --classifier.kind and "
            "--classifier.width in both, so that accuracies can be compared."
        )
    Evaluation.load(folder.evaluation)  # A damaged file must not be copied into the new run.
    return folder


def _check_same_images(baseline: RunFolder, domains: Domains) -> None:
    """Raise InputError if a baseline was measured on other test images, or trained for another target, than `domains`."""
    recorded, digests = baseline.read_record().get("data", {}), domains.split_digests()
    parts = {"source": domains.source, "target": domains.target}
    for name, keys in (("target", ("sha256", "sha256_test")), ("source", ("sha256_test",))):
        measured, own = recorded.get(name), parts[name]
        if measured is None or own is None or all(measured.get(key, digests[name][key]) == digests[name][key] for key in keys):
            continue
        origin = own.train.provenance
        raise InputError(
            f"The baseline {baseline.path} was measured on the {name} {measured.get('title')} ({measured.get('spec')}), but "
            f"this run has other images, {origin.title} ({origin.source}), or another split or framing of them; give a "
            "baseline of the same images and data settings."
        )


def _decisive(config: BaselineConfig) -> dict[str, Any]:
    """Return the settings that determine the weights: without hardware, length and places of the data."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "source": True, "target": True})
    for name in ("images", "tensorboard"):
        values["training"].pop(name)
    values["data"] = {name: value for name, value in values["data"].items() if value is not None}
    return values
