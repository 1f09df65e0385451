"""Detectors in the app: listed with runs, chosen to score a frame or a folder, and refused in a sentence if damaged."""

import csv
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Page, expect

from fixtures import tiny
from pixelscope import InputError, find_runs
from pixelscope.endovae import InteractiveDetector, find_detectors, score
from pixelscope.endovae.detection.model import FittedDetector
from pixelscope.serve import create_app
from pixelscope.serve.security import LOOPBACK

HOSTS = LOOPBACK | {"testserver"}
POST = {"Origin": "http://testserver", "Host": "testserver"}
FILE = "detector.safetensors"


@pytest.fixture
def client(place: Path, data: Path) -> Iterator[TestClient]:
    with TestClient(create_app([place], HOSTS, data=data), raise_server_exceptions=False) as made:
        yield made


def frame(size: tuple[int, int] = (120, 100), border: int = 10) -> np.ndarray:
    """Return a frame of a smooth texture inside a black border."""
    inner = Image.fromarray(tiny.frames(1, 9)[0]).resize((size[0] - 2 * border, size[1] - 2 * border))
    made = np.zeros((size[1], size[0], 3), np.uint8)
    made[border : size[1] - border, border : size[0] - border] = np.asarray(inner)
    return made


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def send(client: TestClient, content: bytes, name: str = "lesions"):
    return client.post(f"/endoscopy/{name}/score", files={"frame": ("f.png", content)}, headers=POST)


def options(text: str) -> dict[str, list[str]]:
    """Return what can be chosen on a page, by group."""
    groups = re.findall(r'<optgroup label="(\w+)">(.*?)</optgroup>', text, re.DOTALL)
    return {title: re.findall(r"<option[^>]*>([^<]*)</option>", inner) for title, inner in groups}


def scored_folder(client: TestClient, model: str = "lesions", folder: str = "ward/monday") -> tuple[str, str]:
    """Score a folder; return the address of the results, and their text."""
    form = {"folder": (None, folder), "run": (None, model)}
    address = client.post("/folders", files=form, headers=POST, follow_redirects=False).headers["location"]
    for _ in range(600):
        text = client.get(f"{address}/live").text
        if "data-poll" not in text:
            return address, text
        time.sleep(0.1)
    raise AssertionError(text)


def renamed(path: Path, name: str) -> None:
    """Give the detector of a file another name, as the name of its score."""
    replace(FittedDetector.load(path), name=name).save(path)  # type: ignore[arg-type]


def test_detectors_are_found_where_runs_are(place: Path, tmp_path: Path) -> None:
    assert [one.name for one in find_detectors([place])] == ["lesions"]
    (own,) = find_detectors([place / "lesions", place])
    assert own.path == (place / "lesions" / FILE).resolve() and own.folder.name == own.name == "lesions"
    for name, ago in (("old", 500), ("new", 5), ("middle", 50)):
        shutil.copytree(place / "lesions", tmp_path / name)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (time.time() - ago,) * 2)
    assert [one.name for one in find_detectors([tmp_path])] == ["new", "middle", "old"]
    (tmp_path / "old" / "detection.json").unlink()
    (tmp_path / "new" / FILE).rename(tmp_path / "kept")
    (tmp_path / "new" / FILE).symlink_to(tmp_path / "kept")
    (tmp_path / "middle").rename(tmp_path / ".pixelscope-0-1-2-unfinished")
    assert find_detectors([tmp_path]) == [] and find_detectors([tmp_path / "nowhere"]) == []


def test_a_detector_is_chosen_by_name_and_has_no_sliders(client: TestClient) -> None:
    text = client.get("/endoscopy").text
    assert options(text) == {"Runs": ["healthy"], "Detectors": ["lesions"]}
    assert 'type="range"' in text and "<option selected>healthy" in text
    chosen = client.get("/endoscopy?run=lesions")
    assert chosen.status_code == 200 and "<option selected>lesions" in chosen.text and 'type="file"' in chosen.text
    assert 'type="range"' not in chosen.text and 'role="alert"' not in chosen.text
    for path in ("decode", "random", "nearest"):
        assert client.get(f"/endoscopy/lesions/{path}").status_code == 400


def test_a_frame_is_scored_by_a_detector_as_the_command_line_does(client: TestClient, place: Path, tmp_path: Path) -> None:
    Image.fromarray(frame()).save(tmp_path / "frame.png")
    score(place / "lesions" / FILE, [tmp_path / "frame.png"], tmp_path / "s.csv", false_positive_rate=0.5)
    (expected,) = csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text()))
    found = send(client, png(frame()))
    assert found.status_code == 200
    assert f"Score {float(expected['score']):.4g} (pseudo-lesions, view centre), p {float(expected['p']):.3f}" in found.text
    assert found.text.count("data:image/png") == 3 and "Reconstruction" not in found.text
    detector = InteractiveDetector(place / "lesions" / FILE)
    assert f"scores of the {detector.calibration.count} healthy calibration frames" in found.text
    assert detector.prepare.size == tiny.SIZE, "frames are prepared as those of the store that it was fitted to"


@pytest.mark.parametrize("factor", [1, 10])
def test_the_images_of_a_frame_show_where_the_detector_looks(place: Path, tmp_path: Path, factor: int) -> None:
    """The content area is columns 10 to 110 and rows 10 to 90; the centre view in it, 60 to 96 and 32 to 68."""
    pixels = np.repeat(np.repeat(frame(), factor, 0), factor, 1)
    fitted = FittedDetector.load(place / "lesions" / FILE)
    # Bright wherever the map is above 0.
    replace(fitted, calibration=fitted.calibration.model_copy(update={"vmax": 1e-6})).save(tmp_path / FILE)
    detector = InteractiveDetector(tmp_path / FILE)
    found = detector.analyze(pixels)
    scale = found.frame.shape[1] / 120
    assert max(found.frame.shape) <= 640 and found.frame.shape == found.heatmap.shape and found.reconstruction is None
    box = found.square
    assert np.allclose([box.left, box.top, box.width, box.height], np.array([60, 32, 36, 36]) * scale, atol=2 * scale)
    assert found.original.shape == (box.height, box.width, 3) and found.prepared.shape == (224, 224, 3)
    if factor > 1:
        return
    assert np.array_equal(found.original, pixels[box.slices])
    changed = (found.heatmap != pixels).any(2)
    assert changed[box.slices].mean() > 0.9
    changed[box.slices] = False
    assert not changed.any()
    outlined = (found.frame != pixels).any(2)
    for rows, columns in (box.slices, (slice(10, 90), slice(10, 110))):
        edge = outlined[rows, columns]
        assert edge[0].all() and edge[-1].all() and edge[:, 0].all() and edge[:, -1].all()
    assert outlined.mean() < 0.2


def test_a_frame_that_shows_nothing_is_not_scored_by_a_detector(client: TestClient) -> None:
    blank = send(client, png(np.zeros((50, 60, 3), np.uint8)))
    assert blank.status_code == 400 and "no tissue is seen" in blank.text
    small = send(client, png(frame((6, 6), 0)))
    assert small.status_code == 400 and "give larger frames" in small.text


def test_only_a_detector_is_opened_as_one(place: Path, tmp_path: Path) -> None:
    from pixelscope import export

    export(place / "healthy", tmp_path / "healthy.safetensors", form="safetensors")
    with pytest.raises(InputError, match="not a detector"):
        InteractiveDetector(tmp_path / "healthy.safetensors")


DAMAGE = {
    "changed": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"no detector",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_detector_gets_a_sentence_and_leaves_runs_alone(place: Path, data: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(place / "lesions", tmp_path / "lesions")
    file = tmp_path / "lesions" / FILE
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    with TestClient(create_app([tmp_path, place / "healthy"], HOSTS, data=data), raise_server_exceptions=False) as client:
        first = client.get("/endoscopy")
        assert first.status_code == 200 and 'type="range"' in first.text and 'role="alert"' not in first.text
        broken = client.get("/endoscopy?run=lesions")
        (said,) = re.findall(r'role="alert">([^<]*)<', broken.text)
        assert FILE in said and said.count("\n") == 0 and said.endswith(".")
        assert options(broken.text) == {"Runs": ["healthy"], "Detectors": ["lesions"]} and 'type="file"' not in broken.text
        refused = send(client, png(frame()))
        assert refused.status_code == 400 and FILE in refused.text
        assert options(client.get("/folders").text) == options(broken.text)
        _, text = scored_folder(client)
        assert ">failed<" in text and FILE in text
        assert ">finished<" in scored_folder(client, "healthy", "ward/tuesday")[1]


def test_a_damaged_run_leaves_detectors_alone(place: Path, tmp_path: Path) -> None:
    for name in ("healthy", "lesions"):
        shutil.copytree(place / name, tmp_path / name)
    for file in (tmp_path / "healthy" / "checkpoints").glob("*.safetensors"):
        file.write_bytes(b"")
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        first = client.get("/endoscopy").text
        assert 'role="alert"' in first and options(first) == {"Runs": ["healthy"], "Detectors": ["lesions"]}
        assert send(client, png(frame())).status_code == 200


def test_a_detector_alone_is_enough_and_nothing_is_told_how_to_make_one(place: Path, data: Path, tmp_path: Path) -> None:
    with TestClient(create_app([place / "lesions"], HOSTS, data=data), raise_server_exceptions=False) as client:
        assert "<option selected>lesions" in client.get("/endoscopy").text
        assert options(client.get("/folders").text) == {"Detectors": ["lesions"]}
        assert send(client, png(frame())).status_code == 200
        assert "no runs here" in client.get("/runs").text
    with TestClient(create_app([tmp_path], HOSTS, data=data), raise_server_exceptions=False) as client:
        for path in ("/endoscopy", "/folders"):
            text = client.get(path).text
            assert "endovae detect" in text and "<select" not in text


def test_a_run_and_detectors_of_one_name_are_told_apart(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "healthy", tmp_path / "a" / "same")
    for folder, name in (("b", "pseudo-lesions"), ("c", "learned-mahalanobis")):
        shutil.copytree(place / "lesions", tmp_path / folder / "same")
        renamed(tmp_path / folder / "same" / FILE, name)
    places = [tmp_path / folder for folder in "abc"]
    with TestClient(create_app(places, HOSTS), raise_server_exceptions=False) as client:
        found = options(client.get("/endoscopy").text)
        assert found == {"Runs": ["same in a"], "Detectors": ["same in c", "same in b"]}
        assert 'type="range"' in client.get("/endoscopy?run=same in a").text
        assert "(pseudo-lesions, " in send(client, png(frame()), "same in b").text
        assert "(pseudo-lesions, " not in send(client, png(frame()), "same in c").text


def test_a_detector_that_is_made_again_is_opened_again(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "lesions", tmp_path / "lesions")
    file = tmp_path / "lesions" / FILE
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        first = send(client, png(frame())).text
        assert send(client, png(frame())).text == first
        fitted = FittedDetector.load(file)
        scores = tuple(one + 7 for one in fitted.calibration.scores)
        replace(fitted, calibration=fitted.calibration.model_copy(update={"scores": scores})).save(file)
        os.utime(file, (time.time() + 5,) * 2)
        again = send(client, png(frame())).text
        assert "p 1.000" in again and again != first
        shutil.rmtree(tmp_path / "lesions")
        assert send(client, png(frame())).status_code == 400


def test_a_folder_is_scored_by_a_detector_and_shown_with_heat_maps(
    client: TestClient, place: Path, data: Path, tmp_path: Path
) -> None:
    assert options(client.get("/folders").text) == {"Runs": ["healthy"], "Detectors": ["lesions"]}
    before = {path: path.stat().st_mtime_ns for path in [*place.rglob("*"), *data.rglob("*")] if path.is_file()}
    address, text = scored_folder(client)
    assert "21 of 21 frames" in text and "scored by lesions" in text and "view centre" in text
    score(place / "lesions" / FILE, [data / "ward" / "monday"], tmp_path / "own.csv")
    table = client.get(f"{address}/scores.csv").text
    assert list(csv.DictReader(io.StringIO(table))) == list(csv.DictReader(io.StringIO((tmp_path / "own.csv").read_text())))
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is written into detector or folder"
    assert f'src="{address}/0/heatmap"' in text and f'src="{address}/0/original"' in text and "econstruction" not in text
    original, heatmap = (
        np.asarray(Image.open(io.BytesIO(client.get(f"{address}/0/{kind}").content))) for kind in ("original", "heatmap")
    )
    assert original.shape == heatmap.shape and original.shape[0] == original.shape[1] == 18 and (original != heatmap).any()
    assert client.get(f"{address}/0/reconstruction").status_code == 400
    assert "lesions" in client.get("/folders").text.split("<h2>Results</h2>")[1]


def test_a_run_shows_reconstructions_and_no_heat_maps(client: TestClient) -> None:
    address, text = scored_folder(client, "healthy", "ward/tuesday")
    assert f'src="{address}/0/reconstruction"' in text and "heatmap" not in text
    assert client.get(f"{address}/0/heatmap").status_code == 400


def test_detectors_are_listed_below_the_runs_with_their_results(client: TestClient, place: Path) -> None:
    _, _, below = client.get("/runs").text.partition("<h2>Detectors</h2>")
    result = find_detectors([place])[0].result()
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", below, re.DOTALL)[1:]]
    group = result.groups[0]
    marks = {name: f"{name} *" if name == result.selected else name for name in result.scores}
    assert marks != {name: name for name in marks} and len(rows) == len(result.scores) > 1
    assert rows == [[marks[name], str(one.auroc[group]), str(one.lead[group])] for name, one in result.scores.items()]
    assert 'href="/endoscopy?run=lesions">lesions</a>' in below and result.view in below


def test_runs_are_shown_next_to_a_detector_whose_results_are_damaged(place: Path, tmp_path: Path) -> None:
    for name in ("lesions", "healthy"):
        shutil.copytree(place / name, tmp_path / name)
    (tmp_path / "lesions" / "detection.json").write_text("{")
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        shown = client.get("/runs")
        assert shown.status_code == 200 and "/runs/healthy" in shown.text
        (said,) = re.findall(r'class="note problem">([^<]*)<', shown.text)
        assert said.startswith("lesions: ") and "detection.json" in said and "endovae detect" in said
        shutil.rmtree(tmp_path / "lesions")
        assert "Detectors" not in client.get("/runs").text


def test_runs_are_listed_without_detectors(place: Path) -> None:
    assert "lesions" not in {run.name for run in find_runs([place])}


def test_choose_a_detector_and_drop_a_frame(page: Page, tmp_path: Path) -> None:
    page.goto("/endoscopy?run=healthy")
    expect(page.locator(".sliders")).to_have_count(1)
    page.get_by_label("Run or detector").select_option("lesions")
    page.wait_for_url("**/endoscopy?run=lesions")  # loaded, its script too
    expect(page.locator(".sliders")).to_have_count(0)
    expect(page.get_by_label("Run or detector")).to_have_value("lesions")
    Image.fromarray(frame()).save(tmp_path / "frame.png")
    page.set_input_files("#frame", tmp_path / "frame.png")
    expect(page.get_by_text(re.compile(r"Score -?[\d.e-]+ \(pseudo-lesions, view centre\), p [01]\.\d+"))).to_be_visible()
    expect(page.locator("#scored img")).to_have_count(3)
    expect(page.locator("#scored rect").first).to_be_attached()
    page.set_viewport_size({"width": 380, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_sentence_with_a_long_path_is_not_wider_than_the_window(page: Page, place: Path) -> None:
    page.set_viewport_size({"width": 380, "height": 900})
    shutil.copytree(place / "lesions", place / ("damaged" * 20))
    try:
        (place / ("damaged" * 20) / FILE).write_bytes(b"")
        page.goto("/endoscopy?run=" + "damaged" * 20)
        expect(page.get_by_role("alert")).to_contain_text(FILE)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    finally:
        shutil.rmtree(place / ("damaged" * 20))


def test_score_a_folder_by_a_detector_in_a_browser(page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.goto("/folders")
    page.get_by_label("Folder").select_option("ward/tuesday")
    page.get_by_label("Run or detector").select_option("lesions")
    page.get_by_role("button", name="Score the folder").click()
    expect(page.locator(".worst li")).to_have_count(5)
    maps = page.get_by_role("img", name=re.compile("Heat map of"))
    expect(maps).to_have_count(5)
    expect(maps.first).not_to_have_js_property("naturalWidth", 0)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_without_scripts_a_detector_is_chosen_and_scores_a_frame(page: Page, address: str, tmp_path: Path) -> None:
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(base_url=address, java_script_enabled=False)
    plain = context.new_page()
    plain.goto("/endoscopy")
    plain.get_by_label("Run or detector").select_option("lesions")
    plain.get_by_role("button", name="Use this model").click()
    expect(plain.get_by_label("Run or detector")).to_have_value("lesions")
    Image.fromarray(frame()).save(tmp_path / "frame.png")
    plain.set_input_files("#frame", tmp_path / "frame.png")
    plain.get_by_role("button", name="Score").click()
    expect(plain.get_by_text(re.compile(r"Score -?[\d.e-]+ \(pseudo-lesions, "))).to_be_visible()
    context.close()
