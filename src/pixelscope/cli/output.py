"""How results are printed: for people, or as JSON for programs."""

import json as json_format
from typing import Annotated, Any, Protocol

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


class Result(Protocol):
    """What the public API returns: a result that can be read by people and by programs."""

    def to_text(self) -> str:
        """Return it for a terminal."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        ...


def show(result: Result, json: bool) -> None:
    """Print a result."""
    print(json_format.dumps(result.to_dict(), indent=2, allow_nan=False) if json else result.to_text())
