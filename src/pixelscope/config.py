"""Base class of all configurations: frozen, without unknown keys, read from YAML."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import ErrorDetails

from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE, write_text


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _ascending(low_high: tuple[float, float]) -> tuple[float, float]:
    if low_high[0] >= low_high[1]:
        raise ValueError(f"a range goes from LOW to a higher HIGH, not from {low_high[0]:g} to {low_high[1]:g}")
    return low_high


def _none(value: object) -> object:
    return None if value == "none" else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, PurePath) else value


Unsettable = BeforeValidator(_none)
"""Of an optional setting: `none`, as a flag has it, unsets what a preset or a file sets."""
PathText = Annotated[str, BeforeValidator(_text)]
"""A path, or a source with one, as text; a `Path` becomes text."""
ValueRange = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ascending)]
"""Values mapped to black and white in images deeper than 8 bits."""
Natural = Annotated[int, Field(ge=0, lt=2**63)]
"""A count in a file; a damaged one may hold any number."""


MERGED = "settings"
"""Origin of settings that come from several places: a preset, a file, flags."""
MAX_SHOWN = 200
"""Maximum length of a wrong value in a message."""
MAX_NODES = 100_000
"""Maximum number of values in a YAML file once all references are written out; nested ones multiply."""


_PROBLEMS = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "needs at least {min_length} values",
    "too_long": "takes at most {max_length} values",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "path_type"), "must be text"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a group of settings"),
}
"""What is wrong with a setting, by the type of pydantic's error; pydantic's own words for other types."""


def describe_invalid(error: ValidationError, show: Callable[[object], str] = repr) -> tuple[str, str]:
    """Return the dotted name of the first invalid setting, and what is wrong with it.

    show: returns the text of a given value.
    """
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the top level"
    if first["type"] == "missing":
        return where, "is missing; give it"
    if first["type"] == "extra_forbidden":
        return where, "is not a known setting; remove it, or correct its name"
    if first["type"] == "value_error":
        return where, f"is invalid: {_reason(first)}"
    problem = _PROBLEMS.get(first["type"])
    described = f"is invalid ({first['msg']})" if problem is None else problem.format(**first.get("ctx", {}))
    return where, f"{described}, got {_short(show(first['input']))}"


def describe_misfit(error: ValidationError) -> str | None:
    """Say why settings that are valid one by one do not fit each other; None if one setting is invalid."""
    first = error.errors()[0]
    if first["type"] != "value_error" or not isinstance(first["input"], Mapping | BaseModel):
        return None
    return f"The settings do not fit each other: {_reason(first)}"


def _reason(problem: ErrorDetails) -> object:
    """Return what a validator says of a wrong value."""
    return problem.get("ctx", {}).get("error", problem["msg"])


class Config(BaseModel):
    """A frozen group of settings; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    require_finite: ClassVar[bool] = True
    """Whether a constructor refuses numbers that are not finite, as `parse` does."""

    if not TYPE_CHECKING:  # type checkers know the settings from the fields

        def __init__(self, /, **values: Any) -> None:
            """Take settings by name; raises InputError if one is invalid, as `parse` does."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InputError(
                    f"{type(self).__name__}: {describe_misfit(error) or ' '.join(describe_invalid(error))}."
                ) from None
            if self.require_finite:
                _require_finite(self, type(self).__name__)

        __init__.__pydantic_base_init__ = True  # pydantic builds groups within others without it, and reports them all

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Yield the settings that differ from the defaults; `to_yaml` has all of them."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value

    @classmethod
    def parse(cls, values: dict[str, Any], origin: str = "configuration") -> Self:
        """Build the configuration from plain nested values.

        Raises:
            InputError: a setting is invalid; the message has its path and what is expected.
        """
        try:
            found = cls.model_validate(values)
        except ValidationError as error:
            misfit = describe_misfit(error)
            if misfit is not None and origin == MERGED:
                raise InputError(f"{misfit}.") from None
            raise InputError(f"{origin}: {misfit or ' '.join(describe_invalid(error))}.") from None
        _require_finite(found, origin)
        return found

    def with_settings(self, changes: dict[str, Any]) -> Self:
        """Return a copy with nested `changes`; None leaves a setting unchanged.

        Raises:
            InputError: a setting is invalid; the message has its path and what is expected.
        """
        return self.parse(merge(self.model_dump(), _without_none(changes)), MERGED)

    @classmethod
    def check_file(cls, file: Mapping[str, Any], changes: Mapping[str, Any], origin: str) -> None:
        """Raise InputError if settings of a file do not fit others that override some of them; by default all fit.

        Args:
            file: nested settings of the file.
            changes: nested settings that take precedence over the file's.
            origin: name of the file in the message.
        """

    def to_yaml(self) -> str:
        """Return all settings as YAML; `parse` gives an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path) -> None:
        """Write `to_yaml()` to `path`."""
        write_text(Path(path), self.to_yaml())


def _require_finite(config: Config, origin: str) -> None:
    for name, value in dotted(config.model_dump()):
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{origin}: {name} must be a finite number, got {value}.")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of settings from a YAML file; raises InputError if it is missing or not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        if _written_out(yaml.compose(text, yaml.SafeLoader)) > MAX_NODES:
            raise InputError(f"{path} refers to its own values too often; write them out.")
        values = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; give the path of a YAML file.") from None
    except InputError:
        raise
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path} must contain settings as `name: value`, not a {type(values).__name__}.")
    return values


def _written_out(node: yaml.Node | None) -> float:
    """Return the number of values of a document once all references (`*name`) are written out; infinite for a cycle."""
    known: dict[int, float] = {}

    def size(node: yaml.Node) -> float:
        if id(node) not in known:
            known[id(node)] = float("inf")  # until it is counted: a reference found before that is a cycle
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            parts = [part for pair in pairs for part in pair] if pairs else node.value
            known[id(node)] = 1 + sum(map(size, parts)) if isinstance(node, yaml.CollectionNode) else 1
        return known[id(node)]

    return 0 if node is None else size(node)


def load_preset(package: str, system: str, name: str, presets: Sequence[str]) -> dict[str, Any]:
    """Return the settings in `presets/SYSTEM-NAME.yaml` of a package; raises InputError if `name` is not one of `presets`."""
    if name not in presets:
        raise InputError(f"There is no preset {name!r}; choose one of {', '.join(presets)}.")
    file = resources.files(package) / "presets" / f"{system}-{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    given = {name: _without_none(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in given.items() if value is not None}


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each setting."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_found(
    found_with: Mapping[str, Collection[str]], file: Mapping[str, Any], changes: Mapping[str, Any], origin: str
) -> None:
    """Raise InputError if a file has what a training found in its images, and `changes` give others.

    Args:
        found_with: settings that a training finds in its images and records in config.yaml, and the settings that they were
            found with.
        file: see `Config.check_file`.
        changes: see `Config.check_file`.
        origin: see `Config.check_file`.
    """
    own, new = dict(dotted(file)), dict(dotted(changes))
    for found, needed in found_with.items():
        if own.get(found) is None or found in new:
            continue
        other = next((name for name in needed if name in own and name in new and _differ(own[name], new[name])), None)
        if other is not None:
            raise InputError(
                f"{origin} has {found}, which belongs to {other} {own[other]}; with {other} {new[other]}, remove {found} "
                "from the file, so that it is found again."
            )


def _differ(one: Any, other: Any) -> bool:
    """Return whether two values of a setting differ; a file has lists where a flag has tuples."""
    return (list(one) if isinstance(one, tuple) else one) != (list(other) if isinstance(other, tuple) else other)


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge nested mappings key by key; later layers take precedence."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged
