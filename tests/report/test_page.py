"""The page stands alone: nothing to load, nothing unescaped, the same for the same run."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import pixelscope
from pixelscope.errors import InputError
from pixelscope.reports.builder import build_report, inline_svg
from pixelscope.reports.document import CaptionedFigure, Details, Row, Section, Table
from pixelscope.reports.plotting import INK
from report.run_folder import WriteRun

VOID = {"meta", "link", "br", "img", "hr", "input"}
LOADING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background", "manifest"}
NAMES = ("<b>bold</b>", "a & b", "x$^2$", '"quoted"', "javascript:alert(1)", "polyps", "<script>alert(1)</script>")


class Page(HTMLParser):
    """What a browser would find on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.links += [(name, value) for name, value in values.items() if name in LOADING]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def full(written: WriteRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    page = build_report(written(), tmp_path_factory.mktemp("page") / "report.html")
    return page.read_text(encoding="utf-8")


def test_the_page_is_well_formed(full: str) -> None:
    page = Page(full)
    assert page.open == []
    assert page.tags.count("svg") == 9
    assert sorted(page.ids) == sorted(set(page.ids))


def test_the_page_loads_nothing(full: str) -> None:
    page = Page(full)
    assert {value[:1] if value.startswith("#") else value.partition(",")[0] for _, value in page.links} == {
        "#",
        "data:image/png;base64",
    }
    assert not {"script", "link", "iframe", "object", "embed", "img", "video", "audio", "form"} & set(page.tags)
    assert not re.search(r"@import|@font-face|url\((?!#)", full)
    assert not [name for _, values in page.attributes for name in values if name.startswith("on")]
    (policy,) = [v["content"] for tag, v in page.attributes if tag == "meta" and v.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_reference_on_the_page_leads_somewhere(full: str) -> None:
    page = Page(full)
    wanted = {value[1:] for _, value in page.links if value.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", full))
    assert wanted <= set(page.ids)
    assert {"run-result", "run-training", "run-record", "content"} <= wanted


def test_the_head_holds_the_headline_and_the_notes(full: str) -> None:
    words = " ".join(Page(full).words.split())
    assert "MNIST → MNIST-M" in words
    assert "Accuracy on the test split of MNIST-M rose from 53.7% to 83.0%: +29.3 points." in words
    assert words.index("+29.3 points.") < words.index("Contents") < words.index("Checkpoint") < words.index("SHA-256")
    assert "oracle: chosen with target labels" in words
    assert 'class="separate"' in full


def test_figures_have_descriptions_and_captions(full: str) -> None:
    page = Page(full)
    drawn = [values for tag, values in page.attributes if tag == "svg"]
    assert all(values["role"] == "img" and len(values["aria-label"]) > 20 for values in drawn)
    assert page.tags.count("figcaption") == page.tags.count("figure")


def test_figures_take_the_colour_of_the_text_around_them(full: str) -> None:
    body = full[full.index("<body>") :]
    assert INK not in body
    assert "currentColor" in body
    assert "prefers-color-scheme: dark" in full
    assert "@media print" in full


def test_the_same_run_gives_the_same_page(written: WriteRun, full: str, tmp_path: Path) -> None:
    again = build_report(written(), tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == full
    assert not re.search(r"\b20\d\d-\d\d-\d\d", full)


def test_the_page_is_written_into_the_run_folder(copied: WriteRun) -> None:
    run = copied(system="baseline")
    assert build_report(run) == run / "report.html"
    assert pixelscope.report(run).is_file()
    assert len((run / "report.html").read_bytes()) < 1_000_000


def test_a_failed_report_leaves_the_old_page(copied: WriteRun) -> None:
    run = copied(system="baseline")
    (run / "report.html").write_text("old")
    (run / "evaluation.json").write_text("{")
    with pytest.raises(InputError):
        build_report(run)
    assert (run / "report.html").read_text() == "old"


def test_class_names_are_escaped_everywhere(written: WriteRun, tmp_path: Path) -> None:
    text = build_report(written(classes=NAMES), tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"b", "script"} & set(page.tags)
    assert page.words.count("<b>bold</b>") > 3
    assert "x$^2$" in page.words


def sections_of(path: Path) -> list[Section]:
    """Return what another system than ours might give for a page."""
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2], label="<i>")
    odd = Table("<u>caption</u>", ("<s>", "b"), (Row(("<em>", "1")), Row(("c", "2"), separate=True)))
    return [
        Section(f"<q>{path.name}", "summary", headline="5 < 6 & 7 > 3", notes=("<mark>",)),
        Section(
            "Sect<hr>", "one", ("p<br>",), (CaptionedFigure("f", figure, "<cite>", '"<a>"'), odd, Details("<kbd>", "</pre>"))
        ),
    ]


def test_everything_a_system_says_is_escaped(tmp_path: Path) -> None:
    page = Page(build_report(tmp_path / "run", tmp_path / "page.html", sections_of).read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"q", "mark", "hr", "br", "u", "s", "em", "cite", "kbd", "i"} & set(page.tags)
    for said in (
        "<q>run",
        "5 < 6 & 7 > 3",
        "<mark>",
        "Sect<hr>",
        "p<br>",
        "<cite>",
        "<u>caption</u>",
        "<em>",
        "<kbd>",
        "</pre>",
    ):
        assert said in page.words
    assert [values["aria-label"] for tag, values in page.attributes if tag == "svg"] == ['"<a>"']


def test_several_runs_share_one_page(tmp_path: Path) -> None:
    runs = [tmp_path / "first", tmp_path / "second"]
    page = Page(build_report(runs, tmp_path / "both.html", sections_of).read_text(encoding="utf-8"))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"run-1-one", "run-2-one"} <= set(page.ids)
    assert page.words.index("Pixelscope report") < page.words.index("<q>first") < page.words.index("<q>second")


@pytest.mark.parametrize("name", ["page.txt", "page", "page.html.png"])
def test_a_page_is_no_file_of_another_kind(tmp_path: Path, name: str) -> None:
    def never(run: Path) -> list[Section]:
        raise AssertionError("read")

    with pytest.raises(InputError, match=rf"{name} does not end in \.html or \.htm"):
        build_report(tmp_path, tmp_path / name, never)
    assert not list(tmp_path.iterdir())
    assert build_report(tmp_path, tmp_path / "page.HTM", sections_of).is_file()


def test_a_page_on_several_runs_must_be_named(tmp_path: Path) -> None:
    for runs in ([tmp_path, tmp_path], []):
        with pytest.raises(InputError, match="give `out`"):
            build_report(runs, sections_of=sections_of)


def plain_figure(**look: Any) -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot([1, 2], [3, 1], clip_on=True, color=INK, **look)
    return figure


def test_a_figure_is_sound_xml_with_ids_of_its_own() -> None:
    one, two = (str(inline_svg(plain_figure(), name, "A line.")) for name in ("one", "two"))
    ids = [{e.get("id") for e in ET.fromstring(svg).iter() if e.get("id")} for svg in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    references = set(re.findall(r"url\(#([^)]+)\)", one)) | set(re.findall(r'href="#([^"]+)"', one))
    assert references
    assert references <= ids[0]
    assert INK not in one
    assert "<style" not in one
    assert 'viewBox="0 0 216 144"' in one


def test_text_that_looks_like_markup_stays_text() -> None:
    figure = plain_figure()
    figure.axes[0].set_title(f'id="x" href="#y" url(#z) {INK}')
    texts = [e.text for e in ET.fromstring(str(inline_svg(figure, "f", "?"))).iter() if e.tag.endswith("text")]
    assert f'id="x" href="#y" url(#z) {INK}' in texts


def test_a_script_that_matplotlib_lacks_is_left_to_the_page() -> None:
    figure = plain_figure()
    figure.axes[0].set_title("日本")
    assert "日本" in inline_svg(figure, "f", "?")
