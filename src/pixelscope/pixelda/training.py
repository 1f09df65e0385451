"""Trainings from configuration to run folder: baseline and PixelDA, started or resumed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_fabric import Fabric

from pixelscope.config import read_yaml
from pixelscope.data.imageset import ImageSet
from pixelscope.engine import runtime
from pixelscope.engine.launchers import await_tasks, require_main_guard
from pixelscope.engine.loop import Batches, Identity, Loop
from pixelscope.engine.run import RunFolder
from pixelscope.engine.sitting import Place, conduct, enter
from pixelscope.engine.task import Task
from pixelscope.errors import InputError
from pixelscope.pixelda.accuracy import SourceEvaluation
from pixelscope.pixelda.baseline import BaselineTask, LabelledBatches
from pixelscope.pixelda.config import BaselineConfig, ClassifierConfig, PixelDAConfig
from pixelscope.pixelda.content_masks import load_masks
from pixelscope.pixelda.domains import Domains, load_domains, lying, require_same_images, with_findings
from pixelscope.pixelda.places import paths
from pixelscope.pixelda.seen import SeenImages
from pixelscope.pixelda.snapshots import ProgressSamples, save_classifiers
from pixelscope.pixelda.task import PairedBatches, PixelDATask

System = Literal["baseline", "pixelda"]
CONFIGS: dict[str, type[BaselineConfig]] = {"baseline": BaselineConfig, "pixelda": PixelDAConfig}
BASELINE_FILES = ("config.yaml", "run.json", "stats.jsonl", "evaluation.json")


@dataclass(frozen=True)
class Job:
    """One training, ready to be launched: everything that could be refused has been looked at."""

    system: System
    config: BaselineConfig
    domains: Domains
    masks: ImageSet | None
    """Those of the source's training images, where the content loss takes any."""
    place: Place
    found: BaselineConfig
    """The configuration with its sources where they were found."""
    baseline: RunFolder | None = None
    """The baseline whose figures a new run keeps."""


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


def resume(
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
    require_main_guard()
    folder = RunFolder.open(run)
    config, system = read_config(folder)
    if images is not None:
        config = config.model_copy(update={"training": config.training.model_copy(update={"images": images})})
    if devices is not None:
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"devices": devices})})
    moved = {name: spec for name, spec in (("source", source), ("target", target)) if spec is not None}
    config = config.model_copy(update=moved)
    runtime.check_batch(config.training.batch_size, config.runtime)
    await_tasks(config.runtime.patience)
    found = lying(folder, config, data_root)
    domains = load_domains(found, data_root)
    require_same_images(folder, found, domains)
    masks = load_masks(found, domains, data_root)
    return _launch(Job(system, config, domains, masks, Place.of(folder, system), found))


def read_config(folder: RunFolder) -> tuple[BaselineConfig, System]:
    """Return the configuration of a run and which system it is; raises InputError where either cannot be read."""
    system = folder.read_record().get("system")
    if system not in CONFIGS:
        raise InputError(f"{folder.path} is a run of {system!r}, not of pixelda or its baseline; give one of those.")
    return CONFIGS[system].parse(read_yaml(folder.config), str(folder.config)), system


def _train(
    system: System, config: BaselineConfig, runs: Path, run: Path | None, baseline: Path | None, data_root: Path | None
) -> Path:
    require_main_guard()
    # Of processes that a launcher started, the first makes the folder while others may still be on their way here.
    if run is not None and runtime.is_first_process():
        RunFolder.refuse_existing(run)  # before minutes of reading
    await_tasks(config.runtime.patience)
    before = None if baseline is None else _evaluated_baseline(baseline, config.classifier)
    domains = load_domains(config, data_root)
    masks = load_masks(config, domains, data_root)
    config = with_findings(config, domains)
    if before is not None:
        _check_same_images(before, domains)
    runtime.check_batch(config.training.batch_size, config.runtime)
    return _launch(Job(system, config, domains, masks, Place(system, runs, _name(system, config), run), config, before))


def _name(system: System, config: BaselineConfig) -> str:
    def short(spec: str) -> str:
        return spec.split(":", 1)[0] if ":" in spec else Path(spec).stem

    domains = short(config.source) + (f"-to-{short(config.target)}" if system == "pixelda" else "")
    return f"{system}-{domains}-seed{config.seed}"


def _evaluated_baseline(path: Path, classifier: ClassifierConfig) -> RunFolder:
    """Open an evaluated baseline; raises InputError where it is none, or its T is another network than `classifier`."""
    folder = RunFolder.open(path)
    config, system = read_config(folder)
    if system != "baseline" or not folder.evaluation.is_file():
        raise InputError(f"{path} is not an evaluated baseline; make one with `pixelscope pixelda baseline` and evaluate it.")
    theirs, ours = config.classifier.describe(), classifier.describe()
    if theirs != ours:
        raise InputError(
            f"T of the baseline {path} is {theirs}, and T of this run is {ours}, so accuracies cannot be compared; give a "
            "baseline with the same --classifier.kind and --classifier.width, or change these settings."
        )
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


def _begin(job: Job, folder: RunFolder) -> None:
    """Write what a new run keeps of its data and of its baseline."""
    SeenImages.of(job.domains).save(folder)
    if job.baseline is not None:
        _copy_baseline(job.baseline, folder)


def _copy_baseline(baseline: RunFolder, folder: RunFolder) -> None:
    folder.baseline.mkdir()
    for name in BASELINE_FILES:
        shutil.copyfile(baseline.path / name, folder.baseline / name)


def _launch(job: Job) -> Path:
    return runtime.launch(job.config.runtime, _run, job)


def _run(fabric: Fabric, job: Job) -> Path:
    """Train on one process of possibly several."""
    task, batches = _build(fabric, job)
    config = job.config
    folder = enter(fabric, job.place, config, lambda folder: _begin(job, folder))
    samples = ProgressSamples(folder, job.domains.source.test)
    loop = Loop(
        fabric,
        task,
        batches,
        folder,
        config.training,
        Identity(job.system, _decisive(config), _digests(job)),
        config.seed,
        snapshot=lambda images: save_classifiers(folder, task, images),
        sample=(lambda images: samples.draw(task, images)) if isinstance(task, PixelDATask) else _nothing,
    )
    return conduct(
        fabric,
        loop,
        job.place,
        config,
        config.runtime,
        forget_after=samples.forget_after,
        system=job.system,
        seed=config.seed,
        data=job.domains.describe(config),
        paths=paths(config, job.found, folder.path),
        classes=list(job.domains.classes),
    )


def _nothing(images: int) -> None:
    """Draw no samples: a baseline generates none."""


def _build(fabric: Fabric, job: Job) -> tuple[Task[Any], Batches[Any]]:
    config, domains = job.config, job.domains
    evaluation = SourceEvaluation(domains.source)
    classes = len(domains.classes)
    if isinstance(config, PixelDAConfig):
        batches = PairedBatches(domains.source.train, domains.training_target(), config.seed, fabric.device, job.masks)
        return PixelDATask(config, classes, fabric, evaluation), batches
    return BaselineTask(config, classes, fabric, evaluation), LabelledBatches(domains.source.train, config.seed, fabric.device)


def _digests(job: Job) -> dict[str, str]:
    """Return the SHA-256 of all images that a training sees."""
    return job.domains.digests() | ({} if job.masks is None else {"masks": job.masks.digest()})


def _decisive(config: BaselineConfig) -> dict[str, Any]:
    """Return the settings that decide the weights: not the machine, nor how long it runs, nor where data lies."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "source": True, "target": True})
    values["training"].pop("images")
    values["data"] = {name: value for name, value in values["data"].items() if value is not None}
    return values
