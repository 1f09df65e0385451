"""The base of every result file: one frozen schema writes it and reads it; imports no torch."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from pixelscope.config import Config
from pixelscope.engine.run import read_json
from pixelscope.errors import InputError
from pixelscope.files import write_text


class ResultFile(Config):
    """What a JSON file of results holds."""

    remedy: ClassVar[str] = "evaluate the run again"
    """What to do where the file is damaged."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, under the names that they have in the file."""
        return self.model_dump(mode="json", by_alias=True)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; raises InputError where it is missing, damaged or of another version."""
        values = read_json(path, cls.remedy)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "top level"
            raise InputError(f"{path} is damaged or of another version ({where}: {first['msg']}); {cls.remedy}.") from None
