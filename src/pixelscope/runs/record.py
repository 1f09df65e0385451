"""Schema of run.json, and the base class of all result files; imports no torch."""

import json
from collections.abc import Iterator, Mapping, Sized
from html import escape
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, FiniteFloat, ValidationError

from pixelscope.config import Config, Natural, describe_invalid
from pixelscope.errors import InputError
from pixelscope.files import read_json, write_text

LONGEST = 80
"""Maximum length of a value in a result's `repr`."""


class DataRecord(BaseModel):
    """Origin and size of one domain's images."""

    spec: str = ""
    title: str = ""
    count: Natural | None = None
    train: Natural | None = None
    validation: Natural | None = None
    calibration: Natural | None = None
    test: Natural | None = None
    sha256: str = ""
    licence: str = ""
    citation: str = ""
    notes: list[str] = []


class RunRecord(BaseModel):
    """Content of run.json; entries may be missing while a run starts or after it was killed."""

    system: str
    state: str = "running"
    name: str = ""
    versions: dict[str, str] = {}
    git: str | None = None
    command: str = ""
    seed: int | None = None
    hardware: dict[str, Any] = {}
    runtime: dict[str, Any] = {}
    data: dict[str, DataRecord] = {}
    classes: list[str] = []
    parameters: dict[str, Natural] = {}
    images: Natural = 0
    steps: Natural = 0
    seconds: FiniteFloat | None = None
    images_per_second: FiniteFloat | None = None
    sessions: Natural | None = None
    paths: dict[str, dict[str, str]] = {}
    """Path of each source or run given to this run: as given, absolute, and relative to the run folder."""
    epoch: Natural | None = None
    """Images per epoch; None if the training does not count epochs."""
    ended: str = ""
    """Why the training stopped early; empty if it did not."""


def parse_record(values: Mapping[str, Any], file: Path) -> RunRecord:
    """Validate the content of the run.json at `file`; raises InputError with the invalid entry."""
    try:
        return RunRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise InputError(f"{file}: {where}: {first['msg']}; restore the file or train again.") from None


class Count(int):
    """A number of entries, shown as `[N]`."""

    def __repr__(self) -> str:
        return f"[{int(self):,}]"


class ResultFile(Config):
    """Base class of JSON result files."""

    require_finite: ClassVar[bool] = False

    remedy: ClassVar[str] = "evaluate the run again"
    """What to do if the file is damaged."""

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Yield scalar values, and the lengths of all others."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or isinstance(value, str | int | float):
                yield name, value if not isinstance(value, str) else value[:LONGEST]
            elif isinstance(value, Sized):
                yield name, Count(len(value))

    def _repr_html_(self) -> str:
        """Return the table that a terminal shows, or the scalar values."""
        to_text = getattr(self, "to_text", None)
        return f"<pre>{escape(to_text() if to_text else repr(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, by their names in the file."""
        return self.model_dump(mode="json", by_alias=True)

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; raises InputError if it is missing, damaged or of another version."""
        values = read_json(path, cls.remedy)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where, problem = describe_invalid(error)
            raise InputError(f"{path} is damaged or of another version ({where} {problem}); {cls.remedy}.") from None
        except UnicodeEncodeError as error:  # a text that no validator can quote
            raise InputError(f"{path} is damaged ({error.reason}); {cls.remedy}.") from None
