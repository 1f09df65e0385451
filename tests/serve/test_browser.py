"""What a person does and sees, in a real browser."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from fixtures import tiny
from pixelscope.pixelda.training import train_pixelda


def draw_a_seven(page: Page) -> None:
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    x, y, side = box["x"], box["y"], box["width"]
    page.mouse.move(x + 0.25 * side, y + 0.25 * side)
    page.mouse.down()
    page.mouse.move(x + 0.75 * side, y + 0.25 * side, steps=5)
    page.mouse.move(x + 0.4 * side, y + 0.85 * side, steps=5)
    page.mouse.up()


def test_draw_a_seven_and_read_the_bars(page: Page) -> None:
    page.goto("/adapt?run=adapted")
    draw_a_seven(page)
    expect(page.get_by_role("heading", name="In the style of the target")).to_be_visible()
    expect(page.locator("#result meter")).to_have_count(2 * 3 * 8)
    expect(page.get_by_alt_text("The image in style 6")).to_be_visible()
    before = page.get_by_alt_text("The image between the first two styles").get_attribute("src")
    page.get_by_label("Interpolate from the first style").fill("0")
    expect(page.get_by_alt_text("The image between the first two styles")).not_to_have_attribute("src", before or "")


def test_draw_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/adapt?run=adapted")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    for _ in range(12):
        if page.evaluate("document.activeElement.id") == "canvas":
            break
        page.keyboard.press("Tab")
    expect(page.locator("#canvas")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#pen")).to_have_text("The pen is down.")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#result meter")).to_have_count(2 * 3 * 8)


def test_pick_an_image_of_the_source(page: Page) -> None:
    page.goto("/adapt?run=adapted")
    page.get_by_role("radio").first.check()
    expect(page.locator("#result figure")).to_have_count(8)


def test_move_a_slider_and_see_the_picture_change(page: Page) -> None:
    page.goto("/endoscopy?run=healthy")
    picture = page.locator("#decoded img")
    before = picture.get_attribute("src") or ""
    slider = page.locator(".sliders input[type=range]").first
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before)
    expect(page.locator(".sliders output").first).to_have_text("0.50")
    page.get_by_role("button", name="Random").click()
    expect(page.locator(".sliders output").first).not_to_have_text("0.50")
    page.get_by_role("button", name="Nearest training frame").click()
    expect(page.get_by_role("img", name=re.compile("Nearest training frame, normal-tiny"))).to_be_visible()


def test_drop_a_frame_and_read_the_score(page: Page, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(tiny.frames(1, 9)[0]).resize((80, 70)).save(tmp_path / "frame.png")
    page.goto("/endoscopy?run=healthy")
    page.set_input_files("#frame", tmp_path / "frame.png")
    expect(page.get_by_text(re.compile(r"Score -?[\d.e-]+ \(.*\), p [01]\.\d+"))).to_be_visible()
    expect(page.locator("#scored img")).to_have_count(4)
    (tmp_path / "bad.png").write_text("<html>")
    page.set_input_files("#frame", tmp_path / "bad.png")
    expect(page.get_by_role("alert")).to_contain_text("not an image")


def test_watch_a_training_while_the_page_is_open(page: Page, place: Path, tmp_path: Path) -> None:
    import threading

    source, target = tiny.write_domains(tmp_path)
    config = tiny.pixelda(source=source, target=target, training={"images": 2000, "log_every": 16, "sample_every": 500})
    thread = threading.Thread(target=lambda: train_pixelda(config, run=place / "watched"), daemon=True)
    thread.start()
    while not (place / "watched" / "stats.jsonl").is_file():
        thread.join(0.05)
    page.goto("/runs/watched")
    expect(page.locator("#live .state")).to_have_text("running")
    points = page.locator("#live polyline").first
    expect(points).to_have_count(1)
    before = points.get_attribute("points") or ""
    expect(points).not_to_have_attribute("points", before)
    expect(page.locator("#live .state")).to_have_text("finished", timeout=240_000)
    thread.join(60)


def test_two_runs_side_by_side(page: Page) -> None:
    page.goto("/runs")
    page.get_by_label("Compare adapted").check()
    page.get_by_label("Compare before").check()
    page.get_by_role("button", name="Compare two runs").click()
    expect(page.get_by_role("heading", name="Two runs side by side")).to_be_visible()
    expect(page.get_by_role("region", name="Settings that differ")).to_contain_text("generator.width")


def test_read_the_report_of_a_run_and_keep_its_folder_as_it_is(page: Page, place: Path) -> None:
    before = sorted(path.name for path in (place / "adapted").iterdir())
    page.goto("/runs")
    page.get_by_role("link", name="Report of adapted").click()
    expect(page.get_by_role("heading", name="Result", exact=True)).to_be_visible()
    expect(page.locator("figure svg").nth(3)).to_be_attached()
    assert sorted(path.name for path in (place / "adapted").iterdir()) == before


@pytest.mark.parametrize("width", [380, 1600])
@pytest.mark.parametrize(
    "path",
    ["/runs", "/runs/adapted", "/compare?run=adapted&run=before", "/adapt", "/endoscopy", "/endoscopy?run=lesions", "/folders"],
)
def test_nothing_is_wider_than_the_window(page: Page, width: int, path: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    names = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]),select,button,canvas,img,svg')]"
        ".filter(e => !(e.labels && e.labels.length) && !e.ariaLabel && !e.textContent.trim() && !e.alt).map(e => e.outerHTML)"
    )
    assert names == [], "everything has a name for those who do not see it"
