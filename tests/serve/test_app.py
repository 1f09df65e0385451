"""What the app answers, and what it refuses: hosts, origins, sizes, paths, broken runs, full queues."""

import asyncio
import io
import json
import os
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import pixelscope
from fixtures import tiny
from fixtures.weights import always
from pixelscope import SYSTEMS, InputError, decode_bytes, find_runs, run_settings, run_statistics
from pixelscope.endovae.anomaly.calibration import read_calibration
from pixelscope.endovae.inference.interactive import InteractiveVAE
from pixelscope.pixelda.checkpoints import load_checkpoint
from pixelscope.pixelda.inference.interactive import InteractiveGenerator
from pixelscope.pixelda.inference.model import load_classifier
from pixelscope.runs.folder import RunFolder
from pixelscope.serve import create_app
from pixelscope.serve.models import PATIENT, ModelCache, QueueFull, Worker
from pixelscope.serve.rendering import short_number
from pixelscope.serve.security import LOOPBACK, allowed_names, own_names

HOSTS = LOOPBACK | {"testserver"}
"""The test client's own name is one more."""
POST = {"Origin": "http://testserver", "Host": "testserver"}


def png(size: tuple[int, int] = (40, 40), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def adapt(client: TestClient, content: bytes = b"", name: str = "x.png", run: str = "adapted", **fields):
    files = {"image": (name, content)} if content else {"none": ("", b"")}
    return client.post(f"/adapt/{run}", files=files, data=fields, headers=POST)


def test_every_page_answers(client: TestClient) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/runs"
    for path in ("/runs", "/runs/adapted", "/runs/healthy/live", "/compare?run=adapted&run=before", "/adapt", "/endoscopy"):
        found = client.get(path)
        assert found.status_code == 200, path
        assert "<script>" not in found.text and "style=" not in found.text and " on" + "click=" not in found.text
    assert client.get("/static/report.css").headers["content-type"].startswith("text/css")


def test_the_list_says_what_each_run_is(client: TestClient) -> None:
    text = client.get("/runs").text
    assert all(name in text for name in ("adapted", "before", "healthy"))
    assert text.count("finished") >= 3


@pytest.mark.parametrize("path", ["/runs", "/adapt", "/static/app.css", "/nothing"])
def test_pages_keep_to_themselves(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"


def test_another_host_name_is_not_served(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "testserver.evil", ""):
        assert client.get("/runs", headers={"Host": host}).status_code == 421
    assert client.get("/runs", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/runs", headers={"Host": "[::1]:8000"}).status_code == 200


def test_the_name_of_the_test_client_is_not_answered_by_itself(place: Path) -> None:
    with TestClient(create_app([place]), raise_server_exceptions=False) as client:
        assert client.get("/runs").status_code == 421
        assert client.get("/runs", headers={"Host": "127.0.0.1"}).status_code == 200


def test_names_are_compared_without_port_case_or_final_dot(place: Path) -> None:
    hosts = own_names("127.0.0.1") | allowed_names(["Scope.Example.org", "[2001:db8::7]"])
    with TestClient(create_app([place], hosts), raise_server_exceptions=False) as client:
        for host in (
            "scope.example.org",
            "SCOPE.example.ORG:8443",
            "scope.example.org.",
            "[2001:DB8:0::7]:80",
            "[::1]",
            "LocalHost",
        ):
            assert client.get("/runs", headers={"Host": host}).status_code == 200, host
        for host in (
            "example.org",
            "x.scope.example.org",
            "localhost:evil",
            "[::1].evil.example",
            "::1:80:evil",
            "192.168.1.4",
        ):
            assert client.get("/runs", headers={"Host": host}).status_code == 421, host


def test_a_host_that_is_not_loopback_answers_for_this_machine_and_no_other() -> None:
    assert own_names("127.0.0.1") == own_names("localhost") == LOOPBACK
    found = own_names("0.0.0.0")
    assert socket.gethostname().lower() in found and found >= LOOPBACK and "" not in found
    assert "evil.example" not in found and "192.0.2.77" in own_names("192.0.2.77")


@pytest.mark.parametrize("name", ["", "http://scope", "*", "two words", "scope/x", "user@scope"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--allowed-host"):
        allowed_names([name])


@pytest.mark.parametrize("stripped", [True, False])
def test_behind_a_proxy_every_link_has_its_prefix(place: Path, stripped: bool) -> None:
    before = "" if stripped else "/scope"
    with TestClient(create_app([place], HOSTS, root="/scope"), raise_server_exceptions=False) as client:
        assert client.get(f"{before}/", follow_redirects=False).headers["location"] == "/scope/runs"
        for path in (
            "/runs",
            "/runs/adapted",
            "/compare?run=adapted&run=before",
            "/adapt",
            "/endoscopy",
            "/endoscopy/healthy/random",
        ):
            found = client.get(before + path)
            assert found.status_code == 200, path
            links = re.findall(r'(?:href|src|action|data-load|data-poll)="(/[^"]*)"', found.text)
            assert links and all(link.startswith("/scope/") for link in links), path
        assert client.get(f"{before}/static/report.css").status_code == 200
        assert client.get(f"{before}/static/app.js").status_code == 200
        posted = client.post(f"{before}/adapt/adapted", files={"image": ("x.png", png())}, headers=POST)
        assert posted.status_code == 200
        assert client.get("/scopeless/runs").status_code == 404


def test_a_frame_without_tissue_is_not_scored(client: TestClient) -> None:
    for value in (0, 255):
        file = io.BytesIO()
        Image.new("RGB", (60, 50), (value, value, value)).save(file, "PNG")
        found = client.post("/endoscopy/healthy/score", files={"frame": ("f.png", file.getvalue())}, headers=POST)
        assert found.status_code == 400 and "no tissue is seen" in found.text and "Score" not in found.text


def test_an_image_that_shows_nothing_is_said_to(client: TestClient) -> None:
    """A white drawing on transparent ground is lost on white; another image is not."""
    file = io.BytesIO()
    drawing = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    drawing.paste((255, 255, 255, 255), (5, 5, 12, 12))
    drawing.save(file, "PNG")
    assert "one flat colour" in adapt(client, file.getvalue()).text
    assert "one flat colour" not in adapt(client, png()).text


def test_a_calibration_of_other_weights_is_not_used(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "healthy", tmp_path / "healthy")
    path = tmp_path / "healthy" / "checkpoints" / "calibration.json"
    made = read_calibration(path)
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        assert "calibration" not in client.get("/endoscopy").text
        for change in ({"images": made.images + 1}, {"checkpoint": "last"}, {"weights_sha256": "0" * 64}):
            made.model_copy(update=change).save(path)
            found = client.post("/endoscopy/healthy/score", files={"frame": ("f.png", png((60, 50)))}, headers=POST)
            assert found.status_code == 400 and "The calibration in" in found.text, change
            assert "The calibration in" in client.get("/endoscopy").text
        path.unlink()
        assert "There is no calibration in" in client.get("/endoscopy").text


def test_an_unfinished_run_is_shown_by_the_weights_that_are_measured(place: Path, tmp_path: Path) -> None:
    for name in ("adapted", "before"):
        shutil.copytree(place / name, tmp_path / name)
        RunFolder(tmp_path / name).update_record(state="running")
    generator = InteractiveGenerator(tmp_path / "adapted", tmp_path / "before")
    images = tiny.pictures(4)[0]
    for name, run in (("adapted", "adapted"), ("baseline", "before")):
        checkpoint = json.loads((place / run / "evaluation.json").read_text(encoding="utf-8"))["checkpoint"]
        expected = load_classifier(place / run, checkpoint)(images)
        other = load_classifier(place / run, "last")(images)
        assert np.array_equal(generator.answers(images)[name], expected)
        assert (checkpoint == "last") == np.array_equal(expected, other)


def test_posts_from_elsewhere_are_refused(client: TestClient) -> None:
    files = {"image": ("x.png", png())}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/adapt/adapted", files=files, headers=headers).status_code == 403
    assert client.post("/adapt/adapted", files=files, headers=POST).status_code == 200


def test_a_redrawn_image_comes_in_styles_with_the_answers_of_both(client: TestClient, place: Path) -> None:
    found = adapt(client, png(), seed="3", interpolation="25")
    assert found.status_code == 200
    assert found.text.count("data:image/png;base64,") == 8
    assert found.text.count("<caption>adapted</caption>") == found.text.count("<caption>baseline</caption>") == 8
    generator = InteractiveGenerator(place / "adapted")
    image = np.broadcast_to(decode_bytes(png(), tiny.SIZE), (tiny.SIZE, tiny.SIZE, 3))
    best = generator.classes[int(generator.answers(image[None])["adapted"][0].argmax())]
    given = found.text.split(">Input<")[1]
    assert re.search(r'<th scope="row">(\w+)</th>', given).group(1) == best  # type: ignore[union-attr]


def test_the_generator_says_what_the_networks_say(place: Path) -> None:
    generator, weights = InteractiveGenerator(place / "adapted", place / "before"), load_checkpoint(place / "adapted")
    image = tiny.pictures(1)[0][0]
    z = generator.style(5)
    drawn = generator.redraw(image, np.stack([z, z, generator.style(6)]))
    assert np.array_equal(drawn[0], drawn[1]) and drawn.shape == (3, tiny.SIZE, tiny.SIZE, 3)
    from pixelscope.data.loader import to_float, to_uint8

    with torch.no_grad():
        source = to_float(torch.from_numpy(image).permute(2, 0, 1)[None])
        expected = to_uint8(weights.generator(source, torch.from_numpy(z)[None]))  # type: ignore[misc]
    assert np.abs(expected[0].permute(1, 2, 0).numpy().astype(int) - drawn[0]).max() <= 1
    assert set(generator.answers(drawn)) == {"adapted", "baseline"}
    with pytest.raises(InputError, match="is a baseline, which has no generator"):
        InteractiveGenerator(place / "before")


def test_sliders_draw_and_find_the_nearest_frame(client: TestClient, place: Path) -> None:
    one, two = (client.get(f"/endoscopy/healthy/decode?z0={value}").text for value in ("0", "2.5"))
    assert one != two and one.count("data:image/png") == 1
    generator = InteractiveVAE(place / "healthy")
    frame, name, mean = generator.nearest(np.zeros(3, np.float32))
    again, same, _ = generator.nearest(mean)
    assert name == same and np.array_equal(frame, again)
    assert name in client.get("/endoscopy/healthy/nearest").text
    assert client.get("/endoscopy/healthy/random?seed=4").text == client.get("/endoscopy/healthy/random?seed=4").text
    assert "invalid value" in client.get("/endoscopy/healthy/decode?z0=abc").text
    assert client.get("/endoscopy/healthy/decode?z0=nan&z1=1e999").status_code == 200


def test_a_frame_is_scored_as_the_command_line_does(client: TestClient, place: Path, tmp_path: Path) -> None:
    from pixelscope.endovae.inference.score import score

    (tmp_path / "frame.png").write_bytes(png((60, 50)))
    score(place / "healthy", [tmp_path / "frame.png"], tmp_path / "s.jsonl", false_positive_rate=0.5)
    expected = json.loads((tmp_path / "s.jsonl").read_text())
    found = client.post("/endoscopy/healthy/score", files={"frame": ("f.png", png((60, 50)))}, headers=POST)
    assert f"Score {expected['score']:.4g}" in found.text and f"p {expected['p']:.3f}" in found.text
    assert found.text.count("data:image/png") == 4


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SVG, "image of a known format"),
        (b"<html><script>alert(1)</script></html>", "image of a known format"),
        (png()[:200], "cannot be read"),
        (b"\xff\xd8\xff\xe0 cut", "cannot be read"),
        (b"GIF89a", "cannot be read"),
    ],
)
@pytest.mark.parametrize("field", ["adapt", "look"])
def test_what_is_no_image_gets_a_sentence(client: TestClient, content: bytes, said: str, field: str) -> None:
    if field == "adapt":
        found = adapt(client, content)
    else:
        found = client.post("/endoscopy/healthy/score", files={"frame": ("x.png", content)}, headers=POST)
    assert found.status_code == 400 and said in found.text
    assert "Traceback" not in found.text and "<script>alert" not in found.text


@pytest.mark.parametrize("number", ["²", "9" * 5000])
def test_what_is_no_number_of_an_example_or_seed_gets_a_sentence(client: TestClient, number: str) -> None:
    assert adapt(client, example="0", seed=number).status_code == 200
    found = adapt(client, example=number)
    assert found.status_code == 400 and "There is no image yet" in found.text


def test_bombs_are_counted_before_they_are_decoded(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    found = adapt(client, file.getvalue())
    assert found.status_code == 400 and "9000 x 9000, over 30 million pixels" in found.text


def test_large_bodies_are_refused_before_they_are_read(client: TestClient) -> None:
    found = adapt(client, b"x" * (13 * 2**20))
    assert found.status_code == 413 and "over 12 MB" in found.text
    assert adapt(client, drawing="data:image/png;base64," + "A" * 500_000).status_code == 400
    assert "incomplete" in adapt(client, drawing="javascript:alert(1)").text
    assert "There is no image yet" in adapt(client).text
    assert "There is no image yet" in adapt(client, example="999").text


def test_a_body_of_unknown_length_is_refused(client: TestClient) -> None:
    found = client.post("/adapt/adapted", content=iter([png()]), headers=POST)
    assert found.status_code == 411 and "Content-Length" in found.text
    assert client.post("/adapt/adapted", content=png(), headers={**POST, "Content-Length": "-1"}).status_code == 411


def test_two_runs_are_compared_by_the_settings_in_which_they_differ(tmp_path: Path) -> None:
    for name, images in (("one", "64"), ("two", "72")):
        _touched(tmp_path / name, 10)
        (tmp_path / name / "config.yaml").write_text(f"seed: 5\ntraining:\n  images: {images}\n")
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        cells = re.findall(r"<t[dh][^>]*>\s*([^<]*?)\s*</t[dh]>", client.get("/compare?run=one&run=two").text)
    assert "training.images" in cells and "seed" not in cells
    at = cells.index("training.images")
    assert cells[at + 1 : at + 3] == ["64", "72"]


def test_settings_are_read_as_yaml_however_it_is_written(tmp_path: Path) -> None:
    _touched(tmp_path / "run", 10)
    text = """
training:
    images: 64   # as before
data: {range: [0, 4095], strict: true, source_range: null}
prepare:
    classes:
    - "a: b"
frames: 'it''s here'
"""
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert run_settings(tmp_path / "run") == {
        "training.images": "64",
        "data.range": "[0, 4095]",
        "data.strict": "true",
        "data.source_range": "null",
        "prepare.classes": '["a: b"]',
        "frames": "it's here",
    }
    (tmp_path / "run" / "config.yaml").write_text("{")
    assert run_settings(tmp_path / "run") == {}


def test_a_run_of_every_system_shows_the_charts_and_samples_of_its_line_in_the_table(
    client: TestClient, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "healthy", tmp_path / "opposed")
    with (tmp_path / "opposed" / "stats.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "train", "images": 10**6, "step": 10**6, "loss/discriminator": 0.9}) + "\n")
    opposed = TestClient(create_app([tmp_path], HOSTS))
    shown = {place / "adapted": "pixelda", place / "before": "baseline", place / "healthy": "endovae"}
    for run, system in (shown | {tmp_path / "opposed": "endovae"}).items():
        name, app = run.name, opposed if run.name == "opposed" else client
        text = app.get(f"/runs/{name}").text
        assert SYSTEMS[system].title in text
        for title in SYSTEMS[system].samples.values():
            assert title in text, (name, title)
        logged = set().union(*run_statistics(run))
        for title, numbers in SYSTEMS[system].charts.items():
            assert (title in text) is bool(logged & set(numbers)), (name, title)


def test_a_run_of_a_system_that_is_not_known_is_shown_by_its_name(tmp_path: Path) -> None:
    _touched(tmp_path / "run", 10)
    (tmp_path / "run" / "run.json").write_text('{"system": "later"}')
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        assert "later" in client.get("/runs/run").text


@pytest.mark.parametrize(
    "name", ["..", "../../etc", "..%2f..%2fetc", "%2e%2e", "adapted%2f..", "nothing", "<script>", "a" * 5000]
)
def test_runs_are_found_by_the_names_of_the_list_only(client: TestClient, name: str) -> None:
    for path in (f"/runs/{name}", f"/runs/{name}/report", f"/adapt?run={name}", f"/endoscopy/{name}/decode"):
        found = client.get(path, follow_redirects=False)
        assert found.status_code in (303, 307, 400, 404), path
        assert "root:" not in found.text and "<script>" not in found.text


def test_a_run_that_vanishes_or_is_half_written_gets_a_sentence(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "adapted", tmp_path / "adapted")
    for name, text in (("half", '{"system": "pixe'), ("empty", ""), ("list", "[]"), ("odd", '{"system": 3, "images": "many"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 0")
        (tmp_path / name / "run.json").write_text(text)
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        assert "half" not in client.get("/runs").text
        assert adapt(client, png()).status_code == 200
        shutil.rmtree(tmp_path / "adapted")
        gone = adapt(client, png())
        assert gone.status_code == 400 and "was removed" in gone.text
        listed = client.get("/runs")
        assert listed.status_code == 200 and ">adapted<" not in listed.text


def test_weights_of_other_shapes_get_a_sentence(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "adapted", tmp_path / "adapted")
    text = (tmp_path / "adapted" / "config.yaml").read_text().replace("width: 4", "width: 8")
    (tmp_path / "adapted" / "config.yaml").write_text(text)
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        found = adapt(client, png())
        assert found.status_code == 400 and "networks" in found.text


def test_requests_beyond_the_queue_are_told_to_come_again(place: Path) -> None:
    with TestClient(create_app([place], HOSTS, queue_size=2), raise_server_exceptions=False) as client:
        adapt(client, png())
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda _: adapt(client, png()), range(32)))
    statuses = {answer.status_code for answer in found}
    assert statuses == {200, 503}
    refused = next(answer for answer in found if answer.status_code == 503)
    assert refused.headers["retry-after"] == "2" and 'role="alert"' in refused.text


def test_a_worker_runs_one_call_after_the_other() -> None:
    async def run() -> list[int]:
        worker, order, gate = Worker(queue_size=3), list[int](), threading.Event()

        def work(number: int) -> int:
            gate.wait(5)
            order.append(number)
            return number

        tasks = [asyncio.create_task(worker.submit(lambda n=n: work(n))) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await worker.submit(lambda: 9)
        gate.set()
        assert await asyncio.gather(*tasks) == [0, 1, 2]
        assert await worker.submit(lambda: 7) == 7
        worker.close()
        return order

    # In a thread of its own: the driver of the browser may have a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, run()).result() == [0, 1, 2]


def test_a_call_far_behind_is_told_to_come_again_while_the_first_ones_wait() -> None:
    async def run() -> list[object]:
        worker, gate = Worker(queue_size=48, longest_wait=0.05), threading.Event()
        first = [asyncio.create_task(worker.submit(lambda n=n: gate.wait(5) and n)) for n in range(PATIENT)]
        await asyncio.sleep(0)
        late = await asyncio.gather(*(worker.submit(lambda: 9) for _ in range(3)), return_exceptions=True)
        gate.set()
        found = await asyncio.gather(*first, worker.submit(lambda: 7))
        worker.close()
        return [*found, *(type(error) for error in late)]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, run()).result() == [*range(PATIENT), 7, QueueFull, QueueFull, QueueFull]


def _touched(run: Path, ago: float, state: str = "finished", system: str = "pixelda") -> None:
    """Make a run folder that last changed `ago` seconds before now."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("training: {images: 64}")
    (run / "run.json").write_text(json.dumps({"system": system, "state": state, "images": 16, "goal": 64}))
    (run / "stats.jsonl").write_text("")
    for file in run.iterdir():
        os.utime(file, (time.time() - ago,) * 2)


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for name, ago in (("b", 300), ("c", 10), ("a", 9000), ("d", 100)):
        _touched(tmp_path / name, ago)
    assert [run.name for run in find_runs([tmp_path])] == ["c", "d", "b", "a"]
    (tmp_path / "a" / "stats.jsonl").write_text('{"kind": "train", "images": 48}\n')
    found = find_runs([tmp_path])
    assert [run.name for run in found] == ["a", "c", "d", "b"]
    assert [(run.images, run.goal) for run in found[:2]] == [(48, 64), (16, 64)]


def test_runs_of_one_name_in_two_folders_have_a_page_each(tmp_path: Path) -> None:
    for place, images in (("a", 16), ("b", 48)):
        _touched(tmp_path / place / "00000-run", 10)
        (tmp_path / place / "00000-run" / "stats.jsonl").write_text(json.dumps({"kind": "train", "images": images}) + "\n")
    with TestClient(create_app([tmp_path / "a", tmp_path / "b"], HOSTS), raise_server_exceptions=False) as client:
        models = client.app.state.models  # type: ignore[attr-defined]
        names = {run.path.parent.name: run.name for run in models.runs()}
        assert len(set(names.values())) == 2
        assert all(models.run(name).path == (tmp_path / place / "00000-run").resolve() for place, name in names.items())
        pages = [client.get(f"/runs/{names[place]}").text for place in ("a", "b")]
    assert names["a"] in pages[0] and names["b"] in pages[1]


def test_a_run_that_says_nothing_for_two_minutes_is_taken_for_stopped(tmp_path: Path) -> None:
    for name, ago in (("fresh", 60), ("silent", 180)):
        _touched(tmp_path / name, ago, state="running")
    assert {run.name: run.state for run in find_runs([tmp_path])} == {"fresh": "running", "silent": "stopped"}


def test_the_newest_baseline_stands_beside_a_redrawn_image(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "adapted", tmp_path / "adapted")
    for name, ago, label in (("old", 5000, 0), ("new", 50, 1)):
        shutil.copytree(place / "before", tmp_path / name)
        always(RunFolder(tmp_path / name).checkpoint_files()[-1], {"network.classifier.": label, "average.classifier.": label})
        for file in (tmp_path / name).glob("*.*"):
            os.utime(file, (time.time() - ago,) * 2)
    with TestClient(create_app([tmp_path], HOSTS), raise_server_exceptions=False) as client:
        given = adapt(client, png()).text.split("<caption>baseline</caption>")[1:]
    assert given
    for table in given:
        assert re.search(r'<th scope="row">(\w+)</th>', table).group(1) == "1"  # type: ignore[union-attr]


def test_a_run_that_was_trained_again_and_a_new_baseline_are_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    def fake(run: Path, baseline: Path | None = None) -> object:
        opened.append((run.name, "" if baseline is None else baseline.name))
        return object()

    monkeypatch.setattr(pixelscope.pixelda, "InteractiveGenerator", fake, raising=False)
    models = ModelCache([tmp_path])
    _touched(tmp_path / "adapted", 900)
    assert models.generator("adapted") is models.generator("adapted")
    shutil.rmtree(tmp_path / "adapted")
    _touched(tmp_path / "adapted", 600)
    models.generator("adapted")
    assert opened == [("adapted", "")] * 2, "a run of the same name and length has other weights"
    _touched(tmp_path / "before", 300, system="baseline")
    assert models.generator("adapted") is models.generator("adapted")
    assert opened[2:] == [("adapted", "before")]


def test_runs_are_found_one_level_down(place: Path, tmp_path: Path) -> None:
    assert {run.name for run in find_runs([place])} >= {"adapted", "before", "healthy"}
    assert [run.name for run in find_runs([place / "healthy"])] == ["healthy"]
    assert find_runs([tmp_path / "nowhere"]) == []
    assert {run.state for run in find_runs([place])} == {"finished"}


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.032468, "0.03247"), (-12.3456, "-12.35"), (9999.4, "9999"), (16396.7, "16,397")]
)
def test_numbers_of_charts_have_no_exponent(value: float, text: str) -> None:
    assert short_number(value) == text
