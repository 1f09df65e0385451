"""A growing table: what it holds reads back, and whatever cuts it off, whole rows stay."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelscope import InputError
from pixelscope.inference.table import ResumableTable

COLUMNS = ("name", "score", "flagged", "error")
WHO = {"model": "abc"}
names = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() or set(text) & set('\n\r"'))
rows_of = st.lists(st.tuples(names, st.floats(-1e6, 1e6), st.booleans()), max_size=8)
FORMATS = [".csv", ".jsonl"]


def rows(given_rows: list[tuple[str, float, bool]]) -> list[dict]:
    return [{"name": name, "score": score, "flagged": flag} for name, score, flag in given_rows]


def read(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ending", FORMATS)
@settings(max_examples=40)
@given(some=rows_of, cut=st.integers(0, 400))
def test_whatever_cuts_it_off_the_whole_rows_stay(tmp_path_factory, ending: str, some: list, cut: int) -> None:
    folder = tmp_path_factory.mktemp("table")
    whole, out = folder / f"whole{ending}", folder / f"out{ending}"
    for path in (whole, out):
        table = ResumableTable(path, COLUMNS, WHO)
        table.add(rows(some))
        if path is whole:
            table.finish()
        table.close()
    part = folder / f"out{ending}.part"
    kept = part.read_bytes()
    part.write_bytes(kept[: len(kept) - min(cut, len(kept) - (len(",".join(COLUMNS)) + 1 if ending == ".csv" else 0))])
    again = ResumableTable(out, COLUMNS, WHO, resume=True)
    assert again.count <= len(some)
    assert list(again.names()) == [name for name, _, _ in some][: again.count]
    again.add(rows(some[again.count :]))
    again.finish()
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("ending", FORMATS)
def test_rows_read_back(tmp_path: Path, ending: str) -> None:
    table = ResumableTable(tmp_path / f"t{ending}", COLUMNS, WHO)
    table.add([{"name": 'a "b",\n.png', "score": 0.123456789, "flagged": True}, {"name": "c\rd", "error": "no image"}])
    table.finish()
    first, second = read(tmp_path / f"t{ending}")
    assert second["name"] == "c\rd"
    assert first["name"] == 'a "b",\n.png' and float(first["score"]) == 0.1235
    assert first["flagged"] in (True, "true") and first["error"] in (None, "")
    assert second["error"] == "no image" and second["score"] in (None, "")
    assert [path.name for path in tmp_path.iterdir()] == [f"t{ending}"]


@pytest.mark.parametrize("ending", FORMATS)
def test_two_processes_do_not_write_one_table(tmp_path: Path, ending: str) -> None:
    out, one = tmp_path / f"t{ending}", {"name": "a", "score": 1.0, "flagged": False}
    first = ResumableTable(out, COLUMNS, WHO)
    first.add([one])
    with pytest.raises(InputError, match="Another process writes"):
        ResumableTable(out, COLUMNS, WHO, resume=True)
    first.add([one | {"name": "b"}])
    first.close()
    second = ResumableTable(out, COLUMNS, WHO, resume=True)
    assert (second.count, list(second.names())) == (2, ["a", "b"])
    second.finish()
    assert [row["name"] for row in read(out)] == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_table_that_cannot_be_opened_is_not_locked(tmp_path: Path) -> None:
    ResumableTable(tmp_path / "t.csv", COLUMNS, WHO).close()
    with pytest.raises(InputError, match="another model") as kept:
        ResumableTable(tmp_path / "t.csv", COLUMNS, {"model": "xyz"}, resume=True)
    again = ResumableTable(tmp_path / "t.csv", COLUMNS, WHO, resume=True)
    again.finish()
    assert kept.value is not None


def test_what_exists_or_was_left_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    with pytest.raises(InputError, match=r"\.csv or \.jsonl"):
        ResumableTable(tmp_path / "t.xlsx", COLUMNS, WHO)
    ResumableTable(out, COLUMNS, WHO).close()
    with pytest.raises(InputError, match="--resume"):
        ResumableTable(out, COLUMNS, WHO)
    with pytest.raises(InputError, match="another model .abc, not xyz."):
        ResumableTable(out, COLUMNS, {"model": "xyz"}, resume=True)
    (tmp_path / "t.csv.part.json").write_text("{")
    with pytest.raises(InputError, match="is missing or damaged"):
        ResumableTable(out, COLUMNS, WHO, resume=True)
    out.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        ResumableTable(out, COLUMNS, WHO, resume=True)
    assert out.read_text() == "mine"


def test_resuming_what_was_never_begun_begins_it(tmp_path: Path) -> None:
    table = ResumableTable(tmp_path / "t.jsonl", COLUMNS, WHO, resume=True)
    assert table.count == 0
    table.finish()
    assert (tmp_path / "t.jsonl").read_bytes() == b""
