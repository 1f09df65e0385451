"""Trainings from configuration to run folder: baseline and PixelDA, started or resumed."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pixelscope.data.imageset import ImageSet
from pixelscope.engine.session import Job, NoSamples, Place, Training, check_resume, check_start
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import read_run
from pixelscope.pixelda.config import BaselineConfig, ClassifierConfig, PixelDAConfig
from pixelscope.pixelda.data import (
    Domains,
    SeenImages,
    System,
    load_domains,
    load_masks,
    lying,
    paths,
    require_same_images,
    with_findings,
)
from pixelscope.pixelda.metrics import SourceEvaluation
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.samples import ProgressSamples, save_classifiers
from pixelscope.pixelda.task import BaselineTask, LabelledBatches, PairedBatches, PixelDATask
from pixelscope.runs.folder import RunFolder

BASELINE_FILES = ("config.yaml", "run.json", "stats.jsonl", "evaluation.json")


@dataclass(frozen=True)
class DomainsJob(Job):
    """A training of PixelDA or of its baseline."""

    config: BaselineConfig
    domains: Domains
    masks: ImageSet | None
    """Those of the source's training images, where the content loss takes any."""
    found: BaselineConfig
    """The configuration with its sources where they were found."""
    baseline: RunFolder | None = None
    """The baseline whose figures a new run keeps."""

    def build(self, fabric: Fabric) -> Training:
        """Build the task of the configured system, and its batches."""
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
            samples=self.samples if isinstance(config, PixelDAConfig) else NoSamples,
        )

    def describe(self, run: Path) -> dict[str, Any]:
        """Return what run.json says of the data."""
        return {
            "data": self.domains.describe(self.config),
            "paths": paths(self.config, self.found, run),
            "classes": list(self.domains.classes),
        }

    def begin(self, folder: RunFolder) -> None:
        """Write what a new run keeps of its data and of its baseline."""
        SeenImages.of(self.domains).save(folder)
        if self.baseline is not None:
            folder.baseline.mkdir()
            for name in BASELINE_FILES:
                shutil.copyfile(self.baseline.path / name, folder.baseline / name)

    def samples(self, folder: RunFolder) -> ProgressSamples:
        """Return what redraws the same source images again and again."""
        return ProgressSamples(folder, self.domains.source.test)


def train_baseline(
    config: BaselineConfig, *, runs: Path = Path("runs"), run: Path | None = None, data_root: Path | None = None
) -> Path:
    """Train T on the source alone and return the run folder.

    runs: where a numbered folder is made; run: a folder of the user's own choice, which must not exist.
    Raises InputError for data or settings that cannot be used, before anything is written.
    """
    return _train("baseline", config, runs, run, None, data_root)


def train_pixelda(
    config: PixelDAConfig,
    *,
    runs: Path = Path("runs"),
    run: Path | None = None,
    baseline: Path | None = None,
    data_root: Path | None = None,
) -> Path:
    """Train G, D and T on labelled source and unlabelled target images and return the run folder.

    baseline: the run folder of an evaluated baseline, whose figures the report shows as the state before.
    """
    return _train("pixelda", config, runs, run, baseline, data_root)


def resume_pixelda(
    run: Path,
    *,
    devices: int | None = None,
    images: int | None = None,
    source: str | None = None,
    target: str | None = None,
    data_root: Path | None = None,
) -> Path:
    """Go on with a stopped run to its end, from its newest checkpoint, and return its folder.

    devices: another number of devices than before; images: train to this many images instead of the configured number.
    source, target: where the run's own images lie now, if they have moved.
    Raises InputError where the run or its images cannot be used; the run is then left as it was.
    """
    changes = {"training": {"images": images}, "runtime": {"devices": devices}, "source": source, "target": target}
    folder, config, place = check_resume(run, lambda folder: read_run(folder).config, changes)
    stored = replace(read_run(folder), config=config)
    found = lying(stored, data_root)
    domains = load_domains(found, data_root)
    require_same_images(replace(stored, config=found), domains)
    return DomainsJob(stored.system, config, place, domains, load_masks(found, domains, data_root), found).run()


def _train(
    system: System, config: BaselineConfig, runs: Path, run: Path | None, baseline: Path | None, data_root: Path | None
) -> Path:
    check_start(config, run)
    before = None if baseline is None else _evaluated_baseline(baseline, config.classifier)
    domains = load_domains(config, data_root)
    masks = load_masks(config, domains, data_root)
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
    """Open an evaluated baseline; raises InputError where it is none, or its T is another network than `classifier`."""
    folder = RunFolder.open(path)
    run = read_run(folder)
    if run.system != "baseline" or not folder.evaluation.is_file():
        raise InputError(f"{path} is not an evaluated baseline; make one with `pixelscope pixelda baseline` and evaluate it.")
    theirs, ours = run.config.classifier.describe(), classifier.describe()
    if theirs != ours:
        raise InputError(
            f"T of the baseline {path} is {theirs}, and T of this run is {ours}, so accuracies cannot be compared; give a "
            "baseline with the same --classifier.kind and --classifier.width, or change these settings."
        )
    Evaluation.load(folder.evaluation)  # a damaged one would spoil the report of the new run
    return folder


def _check_same_images(baseline: RunFolder, domains: Domains) -> None:
    """Raise InputError where a baseline was measured on other test images, or trained for another target, than `domains`."""
    recorded, digests = baseline.read_record().get("data", {}), domains.split_digests()
    parts = {"source": domains.source, "target": domains.target}
    for name, keys in (("target", ("sha256", "sha256_test")), ("source", ("sha256_test",))):
        measured, own = recorded.get(name), parts[name]
        if measured is None or own is None or all(measured.get(key, digests[name][key]) == digests[name][key] for key in keys):
            continue
        origin = own.train.provenance
        raise InputError(
            f"The baseline {baseline.path} was measured on the {name} {measured.get('title')} ({measured.get('spec')}) and "
            f"this run has other images, {origin.title} ({origin.source}), or another split or framing of them; give a "
            "baseline of the same images and settings of data."
        )


def _decisive(config: BaselineConfig) -> dict[str, Any]:
    """Return the settings that decide the weights: not the machine, nor how long it runs, nor where data lies."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "source": True, "target": True})
    values["training"].pop("images")
    values["data"] = {name: value for name, value in values["data"].items() if value is not None}
    return values
