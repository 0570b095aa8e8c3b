"""The HTML report: what is in it, and that it works in a browser, from disk, with nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import made_up
import numpy as np
import pytest
from PIL import Image

from lichen.benchmark import analyses, codecs, page, runner
from lichen.benchmark.store import Store

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


@pytest.fixture(scope="module")
def report(photo, tmp_path_factory):
    """A report of made-up figures with pictures to look at."""
    study = made_up.study()
    small = np.ascontiguousarray(photo[:96, :128])
    dim = [small // k for k in (2, 3, 4)]
    viewer = [
        {
            "set": "kodak", "name": f"kodim{i:02}.png", "width": 128, "height": 96, "src": page._url(page._jpeg(small)),
            "versions": [
                {"codec": c, "setting": 10.0 * k, "bpp": 0.2 * 2**k * (1 + 0.1 * j), "psnr": 30.0 + k, "ms_ssim": 0.9,
                 "src": page._url(page._jpeg(dim[(j + k) % 3]))}
                for j, c in enumerate(made_up.CODECS) for k in range(3)
            ],
        }
        for i in (1, 13)
    ]  # fmt: skip
    notes = ["vtm-444 was not measured: EncoderApp is not on PATH </script><b>"]
    made = page.Report(
        [study, made_up.study(6, "mine")], notes=notes, tables=analyses.tables([study], {}), viewer=viewer
    )
    path = tmp_path_factory.mktemp("report") / "out.html"
    page.write(made, path)
    return path


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def test_one_file_that_asks_for_nothing(report):
    text = report.read_text(encoding="utf-8")
    outside = re.sub(r'id="data">.*?</script>', "", text, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"'$]""", outside)
    assert "http" not in outside.replace("http://www.w3.org/2000/svg", "")
    assert len(text) < 2_000_000


def test_the_data_are_the_figures(report):
    data = data_of(report)
    kodak = data["sets"][0]
    assert kodak["bd"]["psnr"]["jpeg-420"]["webp"]["rate"] == -25.0
    assert kodak["codecs"][0]["name"] == "lichen"
    assert all(c["name"].endswith("(published)") == c["published"] for c in kodak["codecs"])
    assert any("EncoderApp" in n for n in data["notes"])
    assert len(kodak["rows"]) == 24 * 3 * 5


def test_pictures_to_look_at(photo, tmp_path):
    """Settings nearest to the rates are decoded once and kept."""
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, p in enumerate(paths):
        Image.fromarray(photo[i * 64 : i * 64 + 128, :128]).save(p)
    codec = codecs.create("webp")
    rows = runner.measure([codec], paths, Store(tmp_path / "s.jsonl"), repeats=0)
    study = page.Study("mine", rows)
    found = page.viewer(study, [codec], paths, tmp_path / "kept", 1)
    assert [f["name"] for f in found] == ["0.png"]
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == len(found[0]["versions"]) >= 2
    times = [k.stat().st_mtime_ns for k in kept]
    page.viewer(study, [codec], paths, tmp_path / "kept", 1)
    assert [k.stat().st_mtime_ns for k in kept] == times


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is on PATH (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=[1400, 400])
def opened(request, browser, report):
    """The page, wide and narrow; afterwards nothing may have gone wrong and nothing been fetched."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    tab = context.new_page()
    wrong, asked = [], []
    tab.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    tab.on("request", lambda r: asked.append(r.url))
    tab.goto(report.as_uri())
    yield tab
    assert wrong == []
    assert {u for u in asked if not u.startswith("data:")} == {report.as_uri()}
    context.close()


def names(tab, selector="#bd tbody td:first-child"):
    return [t.strip() for t in tab.locator(selector).all_inner_texts()]


def test_curves_draw_and_codecs_switch(opened):
    shown = 3 + len(page.SHOWN)
    assert opened.locator("#curves path.curve").count() == shown
    opened.locator('#legend button[data-codec="webp"]').click()
    assert opened.locator("#curves path.curve").count() == shown - 1
    assert opened.locator('#legend button[data-codec="webp"]').get_attribute("aria-pressed") == "false"
    opened.locator("#more summary").click()
    opened.locator('#legend button[data-codec="hm (published)"]').click()
    assert opened.locator("#curves path.curve").count() == shown
    dashes = opened.locator('path[data-codec="hm (published)"]').get_attribute("stroke-dasharray")
    assert dashes and opened.locator('path[data-codec="lichen"]').get_attribute("stroke-dasharray") is None
    before = opened.locator('path[data-codec="lichen"]').get_attribute("d")
    opened.locator("#log").check()
    assert opened.locator('path[data-codec="lichen"]').get_attribute("d") != before
    opened.locator('#metrics button[data-value="ms-ssim"]').click()
    assert "MS-SSIM" in opened.locator("#curves svg").get_attribute("aria-label")


def test_hover_tells_a_point(opened):
    point = opened.locator("#curves circle[r='3.6']").nth(2)
    box = point.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = opened.locator("#curves .tip")
    assert tip.is_visible()
    assert "bpp" in tip.inner_text() and "dB" in tip.inner_text()


def test_the_keyboard_keeps_its_place(opened):
    focused = "document.activeElement.dataset.key"
    for selector in ('#metrics button[data-value="ms-ssim"]', '#legend button[data-codec="webp"]', "#more summary"):
        element = opened.locator(selector)
        element.focus()
        key = opened.evaluate(focused)
        assert key
        element.press("Enter")
        assert opened.evaluate(focused) == key
    head = opened.locator("#rows th", has_text="bpp")
    head.focus()
    head.press("Enter")
    opened.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"


def test_hiding_everything_moves_nothing(opened):
    height = opened.locator("#curves").bounding_box()["height"]
    for _ in range(3 + len(page.SHOWN)):
        opened.locator('#legend > button[aria-pressed="true"]').first.click()
    assert opened.locator("#curves path.curve").count() == 0
    assert opened.locator("#curves").bounding_box()["height"] == pytest.approx(height, abs=20)
    opened.locator("#legend button", has_text="show all").click()
    assert opened.locator("#curves path.curve").count() == 3 + len(page.SHOWN)


def test_labels_of_an_enlarged_part_tell_neighbours_apart(opened):
    opened.evaluate("state.zoom = [1.0, 1.2, 33.1, 33.9]; drawCurves()")
    labels = opened.locator("#curves text:not(.title)").all_text_contents()
    assert len(labels) == len(set(labels)) > 6


def test_a_finger_reads_a_point_and_moves_an_enlarged_picture(browser, report):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, offline=True)
    tab = context.new_page()
    tab.goto(report.as_uri())
    box = tab.locator("#curves circle[r='3.6']").nth(2).bounding_box()
    tab.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "bpp" in tab.locator("#curves .tip").inner_text()
    assert tab.locator("#v-pair").evaluate("e => getComputedStyle(e).touchAction") == "pan-y"
    tab.locator('#v-zoom button[data-value="4"]').click()
    assert tab.locator("#v-pair").evaluate("e => getComputedStyle(e).touchAction") == "auto"
    assert tab.locator("#v-stage").evaluate("e => e.scrollLeft") > 0  # the divider is in sight
    context.close()


def test_on_paper_all_columns_are_there(browser, report):
    context = browser.new_context(viewport={"width": 720, "height": 1000}, offline=True, color_scheme="dark")
    tab = context.new_page()
    tab.goto(report.as_uri())
    tab.emulate_media(media="print")
    for name in ("bd", "times"):
        assert tab.locator(f"#{name}").evaluate("e => e.getBoundingClientRect().right") <= 720
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.locator("#rows").is_visible()
    context.close()


def test_dragging_enlarges(opened):
    opened.locator("#curves").scroll_into_view_if_needed()
    box = opened.locator("#curves svg").bounding_box()
    before = opened.locator('path[data-codec="lichen"]').get_attribute("d")
    opened.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 60)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 200, steps=3)
    opened.mouse.up()
    assert opened.locator('path[data-codec="lichen"]').get_attribute("d") != before
    opened.locator("#reset").click()
    assert opened.locator('path[data-codec="lichen"]').get_attribute("d") == before


def test_bd_rates_against_a_chosen_anchor(opened):
    assert names(opened) == ["lichen", "webp"]
    assert "\u221250.0 %" in opened.locator("#bd tbody tr").first.inner_text()
    opened.locator("#anchor").select_option("lichen")
    assert names(opened) == ["webp", "jpeg-420"]
    assert "+100.0 %" in opened.locator("#bd tbody tr").last.inner_text()
    opened.locator("#bd-published").check()
    assert "vtm (published)" in names(opened)


def test_times(opened):
    assert names(opened, "#times tbody td:first-child") == ["jpeg-420", "webp", "lichen"]
    assert opened.locator("#rate-time circle[fill]:not([fill=none])").count() == 3
    opened.locator('#direction button[data-value="encode_s"]').click()
    assert "encoding" in opened.locator("#rate-time svg").get_attribute("aria-label")


def test_the_table_sorts_and_finds(opened):
    bpp = "#rows tbody td:nth-child(5)"
    head = opened.locator("#rows th", has_text="bpp")
    head.click()
    values = [float(v) for v in opened.locator(bpp).all_inner_texts()]
    assert len(values) == 360 and values == sorted(values)
    head.click()
    values = [float(v) for v in opened.locator(bpp).all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    opened.locator("#r-find").fill("kodim07")
    opened.locator("#r-codec").select_option("webp")
    assert opened.locator("#rows tbody tr").count() == 5
    seconds = opened.locator("#rows th", has_text="encode, s")
    seconds.focus()
    seconds.press("Enter")
    assert seconds.get_attribute("aria-sort") == "ascending"


def test_the_slider_moves_between_two_codecs(opened):
    left, stage = opened.locator("#v-left-img"), opened.locator("#v-pair")
    assert "50%" in left.evaluate("e => e.style.clipPath")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    opened.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 30)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 30, steps=4)
    opened.mouse.up()
    assert float(re.search(r"([\d.]+)%", left.evaluate("e => e.style.clipPath"))[1]) == pytest.approx(75, abs=1)
    opened.locator("#v-slider").evaluate("e => { e.value = 900; e.dispatchEvent(new Event('input')); }")
    assert float(re.search(r"([\d.]+)%", left.evaluate("e => e.style.clipPath"))[1]) == pytest.approx(10, abs=0.2)
    assert left.evaluate("e => e.complete && e.naturalWidth") == 128
    before = left.get_attribute("src")
    opened.locator("#v-left").select_option("")
    assert left.get_attribute("src") != before
    width = stage.bounding_box()["width"]
    opened.locator('#v-zoom button[data-value="4"]').click()
    assert stage.bounding_box()["width"] == pytest.approx(4 * 128) != width


def test_rates_are_the_nearest_there_are(opened):
    opened.locator("#v-rate").select_option("2")
    says = [opened.locator(f"#v-{side}-says").inner_text() for side in ("left", "right")]
    rates = [float(re.search(r"([\d.]+) bpp", s)[1]) for s in says]
    assert rates[0] == pytest.approx(rates[1], rel=0.25) and rates[0] >= 0.8


def test_data_sets_switch(opened):
    opened.locator("#set").select_option("1")
    assert opened.locator("#rows tbody tr").count() == 6 * 15
    assert opened.locator("#view-section").is_hidden()
    assert opened.locator("#curves path.curve").count() == 3


def test_dark_and_light(opened):
    def background():
        return opened.evaluate("getComputedStyle(document.body).backgroundColor")

    before = background()
    opened.locator("#theme").click()
    assert background() != before
    opened.reload()
    assert background() != before  # remembered


def test_nothing_is_wider_than_the_window(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_screenshots(opened, tmp_path):
    path = Path(tmp_path / "page.png")
    opened.screenshot(path=path, full_page=True)
    with Image.open(path) as image:
        assert len(image.convert("RGB").resize((64, 64)).getcolors(4096)) > 20  # not blank
