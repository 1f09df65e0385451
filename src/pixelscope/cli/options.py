"""Options shared by several commands, and the configuration of a command: defaults < preset < --config file < flags."""

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter

import pixelscope
from pixelscope.errors import InputError

if TYPE_CHECKING:
    # pydantic takes longer to import than `pixelscope --help` otherwise takes to print.
    from pixelscope.config import Config

C = TypeVar("C", bound="Config")

LATER_WINS = "Later ones win: defaults, --preset, --config, flags."
SETTINGS = Group("Settings", help=f"{LATER_WINS} The defaults equal preset paper.")
REFINE_SETTINGS = Group("Settings", help=f"{LATER_WINS} The defaults equal preset full.")

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Json = Annotated[Flag, Parameter(help="Print JSON.")]
Strict = Annotated[
    Flag, Parameter(help="Refuse a folder with an unreadable image; by default such images are skipped and counted.")
]
DataRoot = Annotated[
    Path | None,
    Parameter(
        help="Folder of sources given as a KIND alone, also for downloads; by default $PIXELSCOPE_DATA, else a cache folder."
    ),
]
Runs = Annotated[Path, Parameter(help="Folder in which numbered run folders are made.")]
RunFolder = Annotated[Path | None, Parameter(help="Run folder to make instead of a numbered one in --runs; it must not exist.")]
ResumeRun = Annotated[
    Path | None,
    Parameter(
        help="Run to resume from its last checkpoint, with its settings. Only the devices, their threads, the length of the "
        "training and the paths of moved data may change."
    ),
]
ConfigFile = Annotated[
    Path | None, Parameter(help="YAML file of settings, applied over the preset, for example the config.yaml of a run.")
]
TakeOver = Annotated[
    Flag,
    Parameter(help="Take the lock on the run from a process on another machine that has been silent for ten minutes."),
]
Files = Annotated[Path, Parameter(help="Image files, or folders of them at any depth.")]
PipedFiles = Annotated[
    Path,
    Parameter(
        allow_leading_hyphen=True, help="Image files, or folders of them at any depth. `-` reads the names from standard input."
    ),
]
TableFile = Annotated[Path, Parameter(allow_leading_hyphen=True)]
Devices = Annotated[
    int | None,
    Parameter(help="Number of GPUs to use, by default 1; on a machine without GPUs, of threads, by default one per core."),
]
Resume = Annotated[Flag, Parameter(help="Continue unfinished output.")]
PixelDACheckpoint = Annotated[
    Literal["auto", "last", "ema-last", "best-source"],
    Parameter(help="Weights of the run to use; `auto` takes the default of a finished run. None is chosen by target labels."),
]
Choose = Annotated[
    Literal["adapted", "auto"],
    Parameter(
        help="For a run of PixelDA: the adapted classifier, or with `auto` the classifier that its evaluation, without target "
        "labels, predicts to be better on the target."
    ),
]
GeneratorCheckpoint = Annotated[
    Literal["auto", "last", "ema-last"],
    Parameter(help="Weights of the run to use; `auto` takes the default of a finished run."),
]
EndoVAECheckpoint = Annotated[
    Literal["auto", "best-validation", "ema-last", "last"],
    Parameter(help="Weights of the run to use; `auto`: the first of the others that a finished run has."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class ConfigSources:
    """Sources of a configuration below its flags; each system narrows the presets to its own."""

    preset: str | None = None
    config: ConfigFile = None


@Parameter(name="*")
@dataclass(frozen=True)
class CommonOptions:
    """Short names of frequent settings."""

    devices: Annotated[int | None, Parameter(help="Number of processes, one per device; same as --runtime.devices.")] = None
    precision: Annotated[
        Literal["auto", "32-true", "bf16-mixed"] | None,
        Parameter(help="Precision of the networks; same as --runtime.precision."),
    ] = None
    strict: Annotated[
        bool | None,
        Parameter(
            negative=(), show_default=False, help="Refuse unreadable images; same as --data.strict, or --prepare.strict."
        ),
    ] = None

    def settings(self, model: "type[Config]") -> dict[str, Any]:
        """Return the given options as settings of the configuration `model`."""
        strict = next(name for name in setting_names(model) if name.endswith(".strict"))
        groups = {
            "runtime": {"devices": self.devices, "precision": self.precision},
            strict.removesuffix(".strict"): {"strict": self.strict},
        }
        given = {group: {name: value for name, value in inner.items() if value is not None} for group, inner in groups.items()}
        return {group: inner for group, inner in given.items() if inner}


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Where a training writes its run, and whether it starts."""

    dry_run: Annotated[Flag, Parameter(help="Print the resolved settings and their cost, then stop.")] = False
    resume: ResumeRun = None
    take_over: TakeOver = False
    out: RunFolder = None
    runs: Runs = Path("runs")


@Parameter(name="*")
@dataclass(frozen=True)
class JobOptions:
    """How the runs of an ablation or a search are started."""

    config: Annotated[Path | None, Parameter(help="YAML file of settings, applied over the grid's base.")] = None
    cluster: Annotated[Literal["local", "slurm"], Parameter(help="Start runs as local processes, or as SLURM jobs.")] = "local"
    max_parallel: Annotated[
        int | None,
        Parameter(help="Number of runs at the same time; local runs share the cores. By default 1, for a search one per core."),
    ] = None
    slurm: Annotated[
        dict[str, str] | None,
        Parameter(negative=(), help="Options of SLURM, for example --slurm.partition gpu --slurm.gpus_per_node 1."),
    ] = None
    resume: Annotated[Flag, Parameter(help="Continue an unfinished folder; failed runs are repeated.")] = False
    take_over: TakeOver = False
    data_root: DataRoot = None


def resolve_config(flags: C, system: str, sources: ConfigSources, common: CommonOptions | None = None) -> C:
    """Merge the sources of a configuration and its flags.

    Raises:
        InputError: a setting is unknown or out of range, or what a training found in other images; the message names the file,
            if it is one, and the setting.
    """
    from pixelscope.config import MERGED, merge

    model = type(flags)
    file = {} if sources.config is None else read_settings(sources.config, model)
    changes = merge(explicit_settings(flags), {} if common is None else common.settings(model))
    if sources.config is not None:
        model.check_file(file, changes, str(sources.config))
    given = merge(file, changes)
    preset = pixelscope.SYSTEMS[system].preset(sources.preset, given)
    # The defaults are settings like others: one that has no effect next to them is refused.
    return model.parse(merge(model().model_dump(), preset, given), origin=MERGED)


def explicit_settings(flags: "Config") -> dict[str, Any]:
    """Return the settings given as flags, without defaults."""
    return flags.model_dump(exclude_unset=True)


def explicit_flags(flags: "Config", *options: Any) -> list[str]:
    """Return the flags given, as typed: of settings, and of option groups (dataclass instances)."""
    from pixelscope.config import dotted

    names = [name for name, _ in dotted(explicit_settings(flags))]
    for group in options:
        names += [field.name for field in fields(group) if getattr(group, field.name) != field.default]
    return [f"--{name}".replace("_", "-") for name in names]


RUNTIME_MAY_CHANGE = {"--devices", "--runtime.devices", "--runtime.threads"}


def changed_settings(may_change: Collection[str], flags: "Config", *options: Any) -> dict[str, Any]:
    """Return the settings given together with --resume; raises InputError if a flag other than `may_change` is given."""
    from pixelscope.config import merge

    others = [flag for flag in explicit_flags(flags, *options) if flag not in {"--resume", *may_change}]
    if others:
        raise InputError(f"--resume continues with the settings of the run; drop {', '.join(others)}, or start a new run.")
    common = [group.settings(type(flags)) for group in options if isinstance(group, CommonOptions)]
    return merge(explicit_settings(flags), *common)


def setting_names(model: "type[Config]", prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting of a configuration."""
    for name, field in model.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if inner is None:
            yield prefix + name
        else:
            yield from setting_names(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def read_settings(path: Path, model: "type[Config]") -> dict[str, Any]:
    """Read the settings in a YAML file, which need not be all settings of `model`.

    Raises:
        InputError: the file has an unknown setting, with the nearest known one in the message, or a wrong value.
    """
    from pixelscope.config import dotted, read_yaml

    values = read_yaml(path)
    known = list(setting_names(model))
    groups = {name.rpartition(".")[0] for name in known}
    for name, _ in dotted(values):
        if name not in known and name not in groups:
            raise InputError(f"{path}: there is no setting {name}; {_suggestion(name, known)}")
    model.parse(values, origin=str(path))
    return values


def _suggestion(name: str, known: list[str]) -> str:
    """Suggest the setting with the closest name, or with the closest last part in any group."""
    by_last_part = {other.rpartition(".")[2]: other for other in known}
    near = difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=1)
    close = difflib.get_close_matches(name, known, n=1) or [by_last_part[last] for last in near]
    groups = dict.fromkeys(other.partition(".")[0] for other in known)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(groups)}."
