"""classify, adapt, score and reconstruct, interrupted and resumed: the result is that of one run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import InputError, Interrupted
from pixelscope.endovae.inference.reconstruct import reconstruct
from pixelscope.endovae.inference.score import score
from pixelscope.pixelda.inference.adapt import adapt
from pixelscope.pixelda.inference.classify import classify

COUNT, KEPT = 150, 64
"""Files, and how many of them have a row when the first sitting ends."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number, image in enumerate(tiny.frames(COUNT, seed=4)):
        inner = folder / f"class{number % 2}"
        inner.mkdir(exist_ok=True)
        Image.fromarray(image).resize((30, 30)).save(inner / f"{number:03d}.png")
    return folder


Use = Callable[..., Any]


@pytest.fixture(params=["classify", "adapt", "score", "reconstruct"])
def use(request: pytest.FixtureRequest, pixelda_run: Path, endovae_run: Path, files: Path) -> Use:
    """A function of a place to write to and options, and where its table lies in that place."""

    def classified(out: Path, **options: Any) -> object:
        return classify(pixelda_run, [files], out / "table.csv", **options)

    def adapted(out: Path, **options: Any) -> object:
        return adapt(pixelda_run, files, out / "drawn", styles=2, **{"seed": 3, **options})

    def scored(out: Path, **options: Any) -> object:
        return score(endovae_run, [files], out / "table.csv", maps=out / "maps", false_positive_rate=0.2, **options)

    def reconstructed(out: Path, **options: Any) -> object:
        return reconstruct(endovae_run, [files], out / "drawn", sampled=True, **{"seed": 3, **options})

    return {"classify": classified, "adapt": adapted, "score": scored, "reconstruct": reconstructed}[request.param]


def _interrupt(done: int, total: int) -> None:
    if done >= KEPT:
        raise KeyboardInterrupt


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_interrupted_and_gone_on_with_is_what_one_go_makes(use: Use, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    use(whole)
    with pytest.raises(Interrupted, match=r"(64|128) rows are kept in .*--resume"):  # 128 where two styles are drawn
        use(parted, progress=_interrupt)
    kept = {path: path.stat().st_mtime_ns for path in sorted(parted.rglob("*.png"))}
    begun = next(parted.rglob("*.part"))
    first = begun.read_bytes()
    with pytest.raises(InputError, match="interrupted run|exists already"):
        use(parted)
    assert begun.read_bytes() == first, "what is refused loses nothing"
    seen: list[int] = []
    use(parted, resume=True, progress=lambda done, total: seen.append(done))
    assert seen[0] > KEPT and seen[-1] == COUNT
    made, expected = _contents(parted), _contents(whole)
    assert made.keys() == expected.keys()
    assert [name for name in made if made[name] != expected[name]] == []
    table = next(path for path in parted.rglob("*.csv") if path.name != "metadata.csv")
    assert table.read_bytes().startswith(first)
    rows = first.decode().splitlines()[1:]
    # Of several rows per file the last file's may be incomplete: it is made again.
    done = {Path(row.split(",")[0]).stem for row in rows} - {Path(rows[-1].split(",")[0]).stem}
    for path, changed in kept.items():
        if Path(path.name.split(".")[0]).stem in done:
            assert path.stat().st_mtime_ns == changed, "what has its row is not made anew"


def test_images_without_their_metadata_are_not_done(pixelda_run: Path, files: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    (drawn / "metadata.csv").mkdir(parents=True)  # where a file of that name cannot be put
    with pytest.raises(OSError, match="metadata"):
        adapt(pixelda_run, files, drawn, resume=True)
    (drawn / "metadata.csv").rmdir()
    adapt(pixelda_run, files, drawn, resume=True)
    assert len((drawn / "metadata.csv").read_text().splitlines()) == COUNT + 1
    assert (drawn / "manifest.csv").is_file()


def test_what_was_begun_with_another_seed_is_not_gone_on_with(pixelda_run: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        adapt(pixelda_run, files, tmp_path / "drawn", seed=1, progress=_interrupt)
    with pytest.raises(InputError, match="another seed"):
        adapt(pixelda_run, files, tmp_path / "drawn", seed=2, resume=True)
    assert adapt(pixelda_run, files, tmp_path / "drawn", seed=1, resume=True).rows == COUNT


def test_another_model_does_not_go_on_with_the_rows_of_the_first(
    pixelda_run: Path, baseline_run: Path, files: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        classify(pixelda_run, [files], tmp_path / "labels.csv", progress=_interrupt)
    with pytest.raises(InputError, match="another model"):
        classify(baseline_run, [files], tmp_path / "labels.csv", resume=True)
    assert len((tmp_path / "labels.csv.part").read_text().splitlines()) == KEPT + 1
