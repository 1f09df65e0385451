"""From a preset, a file and flags to one configuration: model defaults < preset < --config file < flags."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter

import pixelscope
from pixelscope.config import Config, merge, read_yaml
from pixelscope.endovae import EndoVAEConfig
from pixelscope.errors import InputError
from pixelscope.pixelda import BaselineConfig, PixelDAConfig

C = TypeVar("C", bound=Config)

SETTINGS = Group("Settings", help="Later ones win: these defaults, --preset, --config, flags. The defaults are preset paper's.")
BaselineSettings = Annotated[BaselineConfig, Parameter(name="*", group=SETTINGS)]
PixelDASettings = Annotated[PixelDAConfig, Parameter(name="*", group=SETTINGS)]
EndoVAESettings = Annotated[EndoVAEConfig, Parameter(name="*", group=SETTINGS)]


@Parameter(name="*")
@dataclass(frozen=True)
class Layers:
    """What lies under the flags."""

    preset: Literal["paper", "demo"] | None = None
    """Packaged settings to start from: the published protocol, or a few minutes on packaged images."""
    config: Path | None = None
    """YAML file of settings, laid over the preset; a run's config.yaml is one."""


@Parameter(name="*")
@dataclass(frozen=True)
class PixelDALayers:
    """What lies under the flags of PixelDA and its baseline."""

    preset: Literal["auto", "paper", "usps", "demo"] | None = None
    """Packaged settings to start from: those for any two sources, the published protocol, the paper's for USPS, or a few
    minutes on packaged images. Where none is named: paper for MNIST and MNIST-M, else auto."""
    config: Path | None = None
    """YAML file of settings, laid over the preset; a run's config.yaml is one."""


@Parameter(name="*")
@dataclass(frozen=True)
class Shorthands:
    """Settings that are often given, under shorter names."""

    devices: int | None = None
    """Processes, one a device; short for --runtime.devices."""
    precision: Literal["auto", "32-true", "bf16-mixed"] | None = None
    """Short for --runtime.precision."""
    strict: Annotated[bool | None, Parameter(negative=(), show_default=False)] = None
    """Refuse unreadable images; short for --data.strict, or --prepare.strict."""

    def layer(self, model: type[Config]) -> dict[str, Any]:
        """Return what was given, as settings of the configuration `model`."""
        strict = next(name for name in setting_names(model) if name.endswith(".strict"))
        given = {
            "runtime": {"devices": self.devices, "precision": self.precision},
            strict.removesuffix(".strict"): {"strict": self.strict},
        }
        return {group: {name: value for name, value in inner.items() if value is not None} for group, inner in given.items()}


def resolve(flags: C, system: str, layers: Layers | PixelDALayers, shorthands: Shorthands = Shorthands()) -> C:
    """Lay what was given of `flags` over the file, the preset and the defaults.

    Raises InputError that names the file and the setting at fault.
    """
    model = type(flags)
    file = {} if layers.config is None else read_settings(layers.config, model)
    known = merge(file, given(flags))
    packaged = pixelscope.SYSTEMS[system].preset(layers.preset, known)
    return model.parse(merge(packaged, file, given(flags), shorthands.layer(model)), origin="settings")


def given(flags: Config) -> dict[str, Any]:
    """Return the settings that were given as flags, and no defaults."""
    return flags.model_dump(exclude_unset=True)


def given_names(flags: Config, *options: Any) -> list[str]:
    """Return the names, as typed, of every flag and every option (a dataclass instance) that was given."""
    names = [f"--{name}".replace("_", "-") for name in _leaves(given(flags))]
    for option in options:
        changed = [field.name for field in fields(option) if getattr(option, field.name) != field.default]
        names += [f"--{name}".replace("_", "-") for name in changed]
    return names


def setting_names(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Give the dotted name of every setting of a configuration."""
    for name, field in model.model_fields.items():
        group = _group(field.annotation)
        if group is None:
            yield prefix + name
        else:
            yield from setting_names(group, f"{prefix}{name}.")


def read_settings(path: Path, model: type[Config]) -> dict[str, Any]:
    """Read a file of settings; its names are checked here, where a suggestion can be made, its values by the model."""
    values = read_yaml(path)
    known = list(setting_names(model))
    groups = {name.rpartition(".")[0] for name in known}
    for name in _leaves(values):
        if name not in known and name not in groups:
            raise InputError(f"{path}: there is no setting {name}; {_suggestion(name, known)}")
    model.parse(values, origin=str(path))
    return values


def _suggestion(name: str, known: list[str]) -> str:
    """Suggest the setting that was meant: the closest spelling, or the closest in whatever group."""
    ends = {other.rpartition(".")[2]: other for other in known}
    near_end = [ends[end] for end in difflib.get_close_matches(name.rpartition(".")[2], ends, n=1)]
    close = difflib.get_close_matches(name, known, n=1) or near_end
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(_tops(known))}."


def _tops(known: list[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in known))


def _leaves(values: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    """Give the dotted name of every value of nested mappings."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _group(annotation: object) -> type[Config] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Config) else None
