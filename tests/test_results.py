"""Result files: one schema writes them and reads them, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixelscope.errors import InputError
from pixelscope.runs.record import ResultFile


class Weighed(ResultFile):
    """A result file for these tests."""

    grams: float
    parts: tuple[int, ...] = ()


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    result = Weighed(grams=0.1 + 0.2, parts=(1, 2))
    result.save(tmp_path / "weighed.json")
    assert json.loads((tmp_path / "weighed.json").read_text()) == {"grams": 0.1 + 0.2, "parts": [1, 2]}
    assert Weighed.load(tmp_path / "weighed.json") == result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "top level"),
        ('{"parts": []}', "grams"),
        ('{"grams": 1, "parts": ["a"]}', "parts.0"),
        ('{"grams": 1, "ounces": 2}', "ounces"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "weighed.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{path}.*{said}.*; evaluate the run again\.$") as caught:
        Weighed.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*weighed\.json"):
        Weighed.load(tmp_path / "weighed.json")


SCHEMAS = (
    "pixelscope.runs.record",
    "pixelscope.endovae.results",
    "pixelscope.endovae.anomaly.calibration",
    "pixelscope.endovae.generation.results",
    "pixelscope.pixelda.results",
    "pixelscope.pixelda.refinement.results",
    "pixelscope.pixelda.ablation.results",
)
"""Every module of schemas of result files."""


@pytest.mark.parametrize("module", SCHEMAS)
def test_results_are_read_where_torch_cannot_be_imported(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
