"""The page Folders: a folder below --data is scored, shown worst first, and downloaded; no path comes from a request."""

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Page, expect

from pixelscope import InputError, find_runs
from pixelscope.endovae import InteractiveVAE
from pixelscope.endovae.inference.score import score
from pixelscope.serve import create_app
from pixelscope.serve.pages.folders import ImageFolders
from pixelscope.serve.security import LOOPBACK

HOSTS = LOOPBACK | {"testserver"}
POST = {"Origin": "http://testserver", "Host": "testserver"}


@pytest.fixture
def client(place: Path, data: Path) -> Iterator[TestClient]:
    with TestClient(create_app([place], HOSTS, data=data), raise_server_exceptions=False) as made:
        yield made


def start(client: TestClient, folder: str = "ward/monday", run: str = "healthy"):
    form = {"folder": (None, folder), "run": (None, run)}
    return client.post("/folders", files=form, headers=POST, follow_redirects=False)


def finished(client: TestClient, address: str) -> str:
    for _ in range(600):
        text = client.get(f"{address}/live").text
        if "data-poll" not in text:
            return text
        time.sleep(0.1)
    raise AssertionError(text)


def test_folders_are_listed_without_links_and_hidden_ones(data: Path) -> None:
    folders = ImageFolders(data)
    assert folders.names() == [".", "many", "ward", "ward/monday", "ward/tuesday"]
    assert folders.find("ward/monday") == data.resolve() / "ward" / "monday"
    for other in ("ward/link", "..", "/etc", ".hidden", "ward/../ward/monday", ""):
        with pytest.raises(InputError, match="There is no folder"):
            folders.find(other)
    with pytest.raises(InputError, match="--data"):
        ImageFolders(data / "nowhere")


def test_a_folder_is_scored_and_downloaded(client: TestClient, data: Path, place: Path, tmp_path: Path) -> None:
    assert "ward/monday" in client.get("/folders").text and 'href="/folders"' in client.get("/runs").text
    begun = start(client)
    assert begun.status_code == 303
    address = begun.headers["location"]
    before = {path: path.stat().st_mtime_ns for path in [*place.rglob("*"), *data.rglob("*")] if path.is_file()}
    text = finished(client, address)
    assert "21 of 21 frames" in text
    table = client.get(f"{address}/scores.csv")
    assert table.headers["content-disposition"].startswith("attachment")
    own = score(place / "healthy", [data / "ward" / "monday"], tmp_path / "own.csv")
    assert ("flagged above" in text, "so that nothing is flagged" in text) == (own.threshold is not None, own.threshold is None)
    assert list(csv.DictReader(io.StringIO(table.text))) == list(
        csv.DictReader(io.StringIO((tmp_path / "own.csv").read_text()))
    )
    assert before == {path: path.stat().st_mtime_ns for path in before}, "nothing is written into run or folder"


def test_frames_come_worst_first_with_their_reconstruction(client: TestClient, place: Path) -> None:
    address = start(client).headers["location"]
    finished(client, address)
    rows = list(csv.DictReader(io.StringIO(client.get(f"{address}/scores.csv").text)))
    ranked = sorted((row for row in rows if row["score"]), key=lambda row: -float(row["score"]))
    pages = client.get(address).text + client.get(f"{address}?start=12").text
    shown = [part.split("<")[0] for part in pages.split('<p class="title">')[1:]]
    assert shown == [Path(row["name"]).name for row in ranked] + ["broken.png"]
    for kind in ("original", "reconstruction"):
        found = client.get(f"{address}/0/{kind}")
        assert found.headers["content-type"] == "image/png"
        assert np.asarray(Image.open(io.BytesIO(found.content))).ndim == 3
    vae = InteractiveVAE(place / "healthy")
    for number in (0, 14):
        own = vae.analyze(np.asarray(Image.open(ranked[number]["name"]).convert("RGB")))
        for kind, expected in (("original", own.original), ("reconstruction", own.reconstruction)):
            drawn = np.asarray(Image.open(io.BytesIO(client.get(f"{address}/{number}/{kind}").content)))
            np.testing.assert_array_equal(drawn, expected, err_msg=f"{kind} of the frame of row {number}")
    for bad in ("0/other", "99/original", "-1/original"):
        assert client.get(f"{address}/{bad}").status_code == 400
    assert client.get("/folders/nothing").status_code == 400


def test_what_is_not_listed_is_refused(client: TestClient) -> None:
    for folder, run in (("../..", "healthy"), ("/etc", "healthy"), ("ward/monday", "adapted"), ("ward/monday", "no"), ("", "")):
        found = start(client, folder, run)
        assert found.status_code == 400, (folder, run)
    foreign = client.post("/folders", files={"folder": (None, ".")}, headers={**POST, "Origin": "http://evil.example"})
    assert foreign.status_code == 403


def test_one_folder_is_scored_at_a_time_and_can_be_stopped(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = client.app.state.jobs  # type: ignore[attr-defined]
    run = next(found for found in find_runs([client.app.state.models.places[0]]) if found.name == "healthy")  # type: ignore[attr-defined]
    job = jobs.start(run, "ward", client.app.state.folders.find("ward"))  # type: ignore[attr-defined]
    job.stop.set()
    refused = start(client)
    assert refused.status_code == 400 or job.state != "running"
    finished(client, f"/folders/{job.key}")
    assert job.state in ("stopped", "finished")
    if job.state == "stopped":
        assert client.get(f"/folders/{job.key}/scores.csv").status_code == 400
    assert start(client).status_code == 303


def test_without_data_there_is_no_page(place: Path) -> None:
    with TestClient(create_app([place], HOSTS)) as plain:
        assert plain.get("/folders").status_code == 404
        assert "/folders" not in plain.get("/runs").text


def test_the_oldest_results_end_with_a_new_job_and_all_with_the_app(
    place: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelscope.serve.pages.folders.MAX_JOBS", 1)
    app = create_app([place], HOSTS, data=data)
    with TestClient(app, raise_server_exceptions=False) as made:
        addresses, folders = [], []
        for _ in range(2):
            addresses.append(start(made, "ward/tuesday").headers["location"])
            finished(made, addresses[-1])
            folders.append(app.state.jobs.find(addresses[-1].rpartition("/")[2]).out.parent)
        assert not folders[0].exists() and folders[1].is_dir()
        assert [made.get(address).status_code for address in addresses] == [400, 200]
    assert not folders[1].exists()


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus; while the next page is being loaded, there is none yet."""
    expect(page.locator(selector).first).to_be_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by Tab")


def test_everything_is_done_with_the_keyboard(page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.goto("/runs")
    tab_to(page, 'nav a[href="/folders"]')
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Folders")).to_be_visible()
    tab_to(page, "#folder")
    page.keyboard.type("ward/m")
    tab_to(page, "button[type=submit]")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="ward/monday")).to_be_visible()
    expect(page.get_by_role("link", name="Download scores.csv")).to_be_visible()
    expect(page.locator(".worst li")).to_have_count(12)
    for shown in range(2):
        expect(page.locator(".pair img").nth(shown)).not_to_have_js_property("naturalWidth", 0)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    tab_to(page, "#download")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.path().read_text().startswith("name,score,p,flagged,error")
    tab_to(page, "a[rel=next]")
    page.keyboard.press("Enter")
    expect(page.get_by_text("broken.png").first).to_be_visible()
    expect(page.locator(".worst li")).to_have_count(9)
    tab_to(page, "a[rel=prev]")


def test_a_running_job_is_stopped_with_the_keyboard_and_keeps_the_focus(page: Page) -> None:
    page.goto("/folders")
    page.get_by_label("Folder").select_option("many")
    page.get_by_role("button", name="Score the folder").click()
    tab_to(page, "#stop")
    expect(page.locator("progress")).not_to_have_js_property("value", 0)
    expect(page.locator("#stop")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#job .state")).to_have_text("stopped")
    assert page.locator("#download").count() == 0
