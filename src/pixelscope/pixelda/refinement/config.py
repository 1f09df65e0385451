"""Every setting of a refinement; the defaults are preset `full`."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from pixelscope.config import Config, read_yaml
from pixelscope.data.sources.relocate import find
from pixelscope.engine.config import Images, RuntimeConfig, TrainingConfig
from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder

PRESETS = ("full", "generated", "self-training", "paper-classifier", "demo")
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class NetworkConfig(Config):
    """The classifier that is trained."""

    kind: Literal["strong", "paper"] = "strong"
    """`strong`: six convolutions with batch norm. `paper`: the run's own T of whichever kind, which goes on from its
    weights."""
    width: Count = 32
    """Channels of the first two convolutions of `strong`, doubled twice; 32 makes 0.3 million parameters, 96 2.6 million."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Probability with which a feature before the last layer of `strong` is dropped."""


class GeneratedConfig(Config):
    """Stage 1: source images redrawn by the run's G, with their labels."""

    use: bool = True
    """Train on them."""
    pool: Count = 16_000
    """Redrawn images held at a time; each source image with a z of its own."""
    refresh: Count = 160_000
    """Images of training after which they are drawn anew."""


class SelfTrainingConfig(Config):
    """Stage 2: target images with labels that a moving average of the classifier is sure of (FixMatch, Sohn et al. 2020)."""

    use: bool = True
    """Train on them."""
    threshold: Share = 0.95
    """Least probability of a label that is trusted."""
    weight: Weight = 1.0
    """Weight of their loss."""
    ramp: Annotated[int, Field(ge=0)] = 64_000
    """Images over which the weight grows from 0: until then the classifier has seen too little to teach itself."""
    balance: Literal["source", "none"] = "source"
    """`source` assumes that the target has the source's class frequencies, and corrects labels towards them (distribution
    alignment, Berthelot et al. 2020). `none` assumes nothing: where classes are rare or absent in the target."""
    teacher: str = ""
    """A finished run, such as a refinement with a stronger network, whose classifier labels the target images in place of
    the moving average (distillation, Hinton et al. 2015)."""


class ViewsConfig(Config):
    """How images are altered: weakly for labelled ones and the teacher, strongly for the student."""

    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    """Most that a weak view is moved, as a share of the side."""
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Most that a strong view is turned, in turns."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Most by which a strong view grows or shrinks, height and width apart."""
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Most that a strong view is sheared."""
    colour: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Most by which contrast and brightness of each channel of a strong view change."""
    invert: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability with which a strong view is inverted."""
    erase: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Largest side of the square erased from a strong view, as a share of the image's."""


class AdamConfig(Config):
    """Adam; the learning rate falls to 0 along a cosine."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Step size at the start."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of Adam's first moment, a step."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of Adam's second moment, a step."""
    weight_decay: Weight = 1e-4
    """Decay of the weights themselves (AdamW)."""


class HeldOutConfig(Config):
    """What is held out of training for the rules that choose a checkpoint without target labels."""

    target: Share = 0.1
    """Share of the target's training images; they have no labels."""
    source: Share = 0.05
    """Share of the source's training images."""
    seed: int = 0


class ScheduleConfig(TrainingConfig):
    """How long to train; 5,000 steps of 128 images of each kind."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images of each kind (source, redrawn, target) a step, over all devices together."""
    images: Images = 640_000
    """Images of each kind to train on in all."""
    log_every: Images = 6_400
    """Images between two lines of stats.jsonl."""
    evaluate_every: Images = 64_000
    """Images between two evaluations on the source and two stored classifiers."""
    sample_every: Images = 640_000
    """Not used: a refinement draws nothing new."""
    checkpoint_every: Images = 32_000
    """Images between two checkpoints; the last two are kept."""
    ema_half_life: Annotated[int, Field(ge=1)] = 32_000
    """Images after which a weight counts half in the moving average, which is the teacher and the result."""


class RefineConfig(Config):
    """A refinement of a trained run of PixelDA."""

    run: str = ""
    """The run folder whose G, T and images are used."""
    rule: Literal["auto", "last", "ema-last", "best-source"] = "auto"
    """Which weights of that run and of a teacher; one that is not finished is used only where a rule is named."""
    choose: Literal["auto", "adapted", "source-only"] = "auto"
    """T of that run to start from and to compare with: the adapted one, or T of the source alone. `auto` takes the one that
    likely reads the target better, and where that is T of the source alone, redrawn images are not used; a refinement writes
    here what it took."""
    seed: int = 0
    """Seed of weights, order of data and every random draw."""
    network: NetworkConfig = NetworkConfig()
    generated: GeneratedConfig = GeneratedConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    views: ViewsConfig = ViewsConfig()
    optimizer: AdamConfig = AdamConfig()
    held_out: HeldOutConfig = HeldOutConfig()
    training: ScheduleConfig = ScheduleConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def refine_preset(name: str) -> dict[str, Any]:
    """Return the settings of a packaged preset, to be laid under a file's and the flags'."""
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    file = resources.files("pixelscope.pixelda") / "presets" / "refine.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))[name]


SYSTEM = "refined"


@dataclass(frozen=True)
class StoredRefinement:
    """A refinement, as its folder describes it; read once and handed on."""

    folder: RunFolder
    record: Mapping[str, Any]
    """The content of run.json."""
    config: RefineConfig

    def located(self, teacher: bool = True) -> RefineConfig:
        """Return the configuration with the runs that it names where they lie now.

        teacher: whether the teacher is looked for, too; only a training needs it.
        Raises InputError where one is nowhere to be found.
        """
        names = {name: place for name, place in places_of(self.config).items() if teacher or name != "teacher"}
        return at_places(self.config, find(names, self.record, self.folder.path, _digests))


def read_refinement(folder: RunFolder, record: Mapping[str, Any] | None = None) -> StoredRefinement:
    """Return what the folder of a refinement says; `record`: its run.json, where it was read already.

    Raises InputError where the folder is of something else, or damaged.
    """
    record = folder.read_record() if record is None else record
    system = record.get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not a refinement; give one of `pixelscope pixelda refine`.")
    return StoredRefinement(folder, record, RefineConfig.parse(read_yaml(folder.config), str(folder.config)))


def places_of(config: RefineConfig) -> dict[str, str]:
    """Return the runs that a refinement names."""
    return {"run": config.run, "teacher": config.self_training.teacher}


def at_places(config: RefineConfig, places: dict[str, str]) -> RefineConfig:
    """Return the configuration with its runs in other places."""
    taught = config.self_training.model_copy(update={"teacher": places.get("teacher", config.self_training.teacher)})
    return config.model_copy(update={"run": places.get("run", config.run), "self_training": taught})


def _digests(places: dict[str, str]) -> dict[str, str]:
    data = RunFolder.open(Path(places["run"])).read_record().get("data", {})
    return {name: domain.get("sha256", "") for name, domain in data.items()}
