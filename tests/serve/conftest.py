"""A folder of tiny runs, the app over it, and a browser."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fixtures import tiny
from pixelscope import evaluate
from pixelscope.data.frames.prepare import prepare
from pixelscope.endovae.detection.config import DetectConfig
from pixelscope.endovae.detection.detect import detect
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.config import PrepareConfig
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.serve import create_app
from pixelscope.serve.security import LOOPBACK

HOSTS = LOOPBACK | {"testserver"}
"""The test client's own name is one more."""
DETECT = DetectConfig(detectors=("pseudo-lesions",), folds=3, images=32, min_lesion=0)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders: an adapted one with its baseline, and one of EndoVAE; and a detector, `lesions`."""
    root, data = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data")
    source, target = tiny.write_domains(data)
    evaluate(train_baseline(tiny.baseline(source=source, target=target), run=root / "before"))
    evaluate(train_pixelda(tiny.pixelda(source=source, target=target), run=root / "adapted"))
    frames = tiny.write_frames(data / "frames", normal=60, abnormal=12)
    store = prepare([frames], config=PrepareConfig(size=tiny.SIZE), out=data / "store")
    config = tiny.endovae(frames=str(store.path), split={"validation_fraction": 0.3}, training={"epochs": 5})
    evaluate_endovae(train_endovae(config, run=root / "healthy"))
    detect(store.path, root / "lesions", config=DETECT)
    return root


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of frames: two of few frames, one that takes a while, a hidden one and a link."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed, count in (("ward/monday", 3, 20), ("ward/tuesday", 4, 5), (".hidden", 5, 2)):
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(tiny.frames(count, seed)):
            Image.fromarray(frame).resize((40, 40)).save(folder / name / f"{number:02d}.png")
    (folder / "ward" / "monday" / "broken.png").write_bytes(b"no image")
    (folder / "ward" / "link").symlink_to("/etc")
    (folder / "many").mkdir()
    first = folder / "many" / "0.png"  # large, so that all of them take far longer than a stop
    Image.fromarray(tiny.frames(1, 3)[0]).resize((600, 600)).save(first)
    for number in range(1, 8000):
        (folder / "many" / f"{number}.png").hardlink_to(first)
    return folder


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    with TestClient(create_app([place], HOSTS), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="session")
def address(place: Path, data: Path) -> Iterator[str]:
    """The app on a port of its own, as a browser meets it."""
    server = uvicorn.Server(uvicorn.Config(create_app([place], data=data), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium on this machine; install Debian's package to test the pages in a browser")
    expect.set_options(timeout=60_000)  # a busy machine may be slow to answer; what comes sooner is not waited for
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page on the app; whatever the browser complains of fails the test."""
    context = browser.new_context(base_url=address)
    context.set_default_timeout(60_000)
    made = context.new_page()
    complaints: list[str] = []
    # A refused upload is an error to the browser, though not to a person, who reads a sentence.
    refused = "the server responded with a status of 400"
    made.on("console", lambda m: complaints.append(m.text) if m.type == "error" and refused not in m.text else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda request: None if request.url.startswith((address, "data:")) else complaints.append(request.url))
    yield made
    context.close()
    assert complaints == []
