"""Hooks of the documentation site: pages made from notebooks, the command line, the public API, and files outside docs/."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import pixelscope
from pixelscope.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
TOP = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
"""Pages in the root of the repository."""
MODULES = {"pixelscope": pixelscope, "pixelscope.pixelda": pixelscope.pixelda, "pixelscope.endovae": pixelscope.endovae}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name, text in (("reference/cli.md", _command_line()), ("reference/api.md", _api())):
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=_notebook(path)))
    outside = [ROOT / name for name in TOP] + sorted((ROOT / "results").rglob("*.md"))
    for path in outside:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at pages of the site; a link to a file that has no page becomes its text."""
    uri = page.file.src_uri
    outside = uri in TOP or uri.startswith("results/")
    here = posixpath.dirname(uri if outside else f"docs/{uri}")
    known = {file.src_uri for file in files}

    def rewritten(match: "re.Match[str]") -> str:
        image, text, link = match.groups()
        if "://" in link or link.startswith(("#", "mailto:", "NNNN")):
            return match[0]
        path, _, anchor = link.partition("#")
        there = posixpath.normpath(posixpath.join(here, path))
        target = there.removeprefix("docs/")
        target = f"{target}/README.md" if f"{target}/README.md" in known else target
        target = f"{target.removesuffix('.ipynb')}.md" if target.endswith(".ipynb") else target
        if target not in known:
            return text
        inner = posixpath.relpath(target, posixpath.dirname(uri) or ".")
        return f"{image}[{text}]({inner}{'#' + anchor if anchor else ''})"

    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    return "".join(
        part if part.startswith("```") else re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", rewritten, part) for part in parts
    )


def _command_line() -> str:
    """Return all commands with their options, as `--help` prints them."""
    text = app.generate_docs(output_format="markdown", recursive=True)
    head, _, rest = text.partition("## Table of Contents")
    return head + rest[rest.index("**Commands**") :]


def _api() -> str:
    """Return a page with every name of the public API, by module."""
    parts = ["# Python\n\nThe names mirror the command line: `pixelscope pixelda train` is `pixelscope.pixelda.train`.\n"]
    for name, module in MODULES.items():
        parts.append(f"## {name}\n")
        for public in sorted(module._PUBLIC):
            place, _, defined = module._PUBLIC[public].partition(":")
            parts.append(
                f"::: {place}.{defined or public}\n    options:\n      heading: {name}.{public}\n      toc_label: {public}\n"
            )
    return "\n".join(parts)


def _notebook(path: Path) -> str:
    """Return a notebook as Markdown: text, code, and what the code printed."""
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join(
            "".join(output.get("text", [])) for output in cell.get("outputs", []) if output.get("name", "stdout") == "stdout"
        )
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join([*parts, f"[The notebook]({path.name}): download it, and open it in Jupyter.\n"])
