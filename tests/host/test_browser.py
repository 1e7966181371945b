"""The pack in the host's real page, in headless Chromium: open a template, press Run, watch, read the help.

Screenshots are left in $JOYAVATAR_SCREENSHOTS, else out/screenshots, to be looked at.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
SCREENSHOTS = Path(os.environ.get("JOYAVATAR_SCREENSHOTS", ROOT / "out" / "screenshots"))
VIDEO_NODE = "app.graph.nodes.find((node) => node.type === 'JoyAvatarStreamToVideo')"
PLAYER = "document.querySelector('.dom-widget video')"

spec = importlib.util.spec_from_file_location("screenshots", ROOT / "scripts" / "screenshots.py")
browser = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = browser
spec.loader.exec_module(browser)

pytest.importorskip("playwright", reason="NO BROWSER: playwright is not installed (pip install -e .[browser])")
if browser.chromium() is None:
    pytest.skip("NO BROWSER: Chromium is not installed (or set CHROMIUM to it)", allow_module_level=True)


@pytest.fixture(scope="module")
def url(server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def page(url) -> Iterator[Page]:
    with browser.open_page(url) as opened:
        yield opened


def keep(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


# The boxes that the page draws, in graph units: elements in Nodes 2.0, else the nodes' own sizes with their title bar.
BOXES = """() => {
  const scale = app.canvas.ds.scale, drawn = [...document.querySelectorAll('[data-node-id]')];
  if (drawn.length) return drawn.map((element) => {
    const { x, y, right, bottom } = element.getBoundingClientRect();
    return [app.graph.getNodeById(element.dataset.nodeId).type, ...[x, y, right, bottom].map((side) => side / scale)];
  });
  return app.graph.nodes.map(({ type, pos, size }) => [type, pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]]);
}"""
TEXTS = "() => [...document.querySelectorAll('[data-testid=joyavatar_text]')].map((each) => each.innerText.trim())"
APART = 24  # graph units between two nodes


def too_near(page: Page) -> list[tuple[str, str]]:
    boxes = page.evaluate(BOXES)
    assert boxes
    pairs = [(a, b) for index, a in enumerate(boxes) for b in boxes[index + 1 :]]
    return [
        (a[0], b[0])
        for a, b in pairs
        if max(a[1], b[1]) < min(a[3], b[3]) + APART - 1 and max(a[2], b[2]) < min(a[4], b[4]) + APART - 1
    ]


def reopen(page: Page, url: str, nodes_2: bool) -> None:
    browser.ask(f"{url}/settings", {"Comfy.VueNodes.Enabled": nodes_2})
    page.reload()
    page.wait_for_function(browser.READY, timeout=90_000)
    page.wait_for_timeout(1500)


def shorten(page: Page, seconds: int) -> None:
    page.evaluate(
        "(value) => app.graph.nodes.filter((n) => n.type === 'JoyAvatarAudioEncode').forEach((n) => "
        "{ n.widgets[0].value = value })",
        seconds,
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in browser.WORKFLOWS.glob("*.json")))
def test_a_workflow_opens_whole_and_nothing_overlaps(page, name):
    browser.load(page, name)
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    page.wait_for_timeout(500)
    keep(page, f"open_{name}")
    assert (
        page.evaluate("() => app.graph.nodes.filter((n) => !(n.type in LiteGraph.registered_node_types)).length") == 0
    )
    assert too_near(page) == []


@pytest.mark.parametrize("nodes_2", [True, False])
def test_what_nodes_say_stays_after_a_run_and_comes_back_for_cached_nodes(page, url, nodes_2):
    reopen(page, url, nodes_2)
    browser.load(page, "schedules")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    shorten(page, 2 if nodes_2 else 1)
    for when in ("ran", "reloaded"):
        page.evaluate("() => app.queuePrompt(0)")
        page.wait_for_function(f"() => ({TEXTS})().length >= 6", timeout=120_000)
        page.wait_for_function(f"() => !({TEXTS})().some((text) => / left$/.test(text))", timeout=120_000)
        said = page.evaluate(TEXTS)
        keep(page, f"schedules_{'nodes_2' if nodes_2 else 'classic'}_{when}")
        for start in ("steps 8 8 7 7 6 …", "resets every", "weights: embedded"):
            assert any(start in text for text in said), (when, said)
        assert sum(" frames (" in text for text in said) == 4, (when, said)
        assert too_near(page) == []
        if when == "ran":
            reopen(page, url, nodes_2)
            browser.load(page, "schedules")
            shorten(page, 2 if nodes_2 else 1)
            assert page.evaluate(TEXTS) == []
    reopen(page, url, False)


def test_an_error_is_read_on_the_node_and_dates_are_filled_in(page, server):
    browser.load(page, "talk")
    shorten(page, 1)
    prefix = "(value) => { " + VIDEO_NODE + ".widgets.find((w) => w.name === 'filename_prefix').value = value }"
    page.evaluate(prefix, "../../out")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => ({TEXTS})().some((text) => text.includes('leads out'))", timeout=60_000)
    page.evaluate(prefix, "dated/%date:yyyy%/%JoyAvatarStreamingSampler.preset%")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => ({TEXTS})().some((text) => text.includes(' frames ('))", timeout=120_000)
    [made] = (server.output / "dated").glob("*/checkpoint_00001_.mp4")
    assert made.parent.name.isdigit() and len(made.parent.name) == 4


def test_run_shows_live_pictures_then_a_video_that_plays(page, url):
    browser.load(page, "talk")
    page.evaluate("() => { app.graph.nodes.find((n) => n.type === 'JoyAvatarAudioEncode').widgets[0].value = 3 }")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    page.evaluate(
        f"""() => {{
          window.pictures = new Set(); window.finished = false;
          const look = () => {{
            const picture = {VIDEO_NODE}?.imgs?.[0]?.src;
            if (picture?.startsWith("blob:")) pictures.add(picture);
            if (!finished) setTimeout(look, 20);
          }};
          look();
        }}"""
    )
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("() => pictures.size > 0", timeout=60_000)
    keep(page, "talk_running")
    page.wait_for_function(f"() => {PLAYER}?.duration > 2.9", timeout=120_000)
    pictures = page.evaluate("() => { finished = true; return pictures.size }")
    assert pictures >= 2, "the live picture did not change"
    page.evaluate(f"() => {{ const video = {PLAYER}; video.muted = true; return video.play() }}")
    page.wait_for_function(f"() => {PLAYER}.currentTime > 0.3 && {PLAYER}.videoWidth > 0", timeout=20_000)
    keep(page, "talk_done")


def test_a_second_run_shows_live_pictures_again(page, url):
    page.evaluate("() => { app.graph.nodes.find((n) => n.type === 'JoyAvatarStreamingSampler').widgets[1].value += 1 }")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => {VIDEO_NODE}.imgs?.[0]?.src.startsWith('blob:') && !{PLAYER}", timeout=60_000)
    page.wait_for_function(f"() => {PLAYER}?.duration > 2.9", timeout=120_000)


def test_nodes_2_show_live_pictures_then_the_player(page, url):
    browser.ask(f"{url}/settings", {"Comfy.VueNodes.Enabled": True})
    page.reload()
    page.wait_for_function(browser.READY, timeout=90_000)
    page.wait_for_timeout(1500)
    browser.load(page, "talk")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    page.evaluate("() => { app.graph.nodes.find((n) => n.type === 'JoyAvatarAudioEncode').widgets[0].value = 2 }")
    page.evaluate("() => app.queuePrompt(0)")
    node = f"document.querySelector('[data-node-id=\"' + {VIDEO_NODE}.id + '\"]')"
    page.wait_for_function(f"() => {node}?.querySelector('img[src^=\"blob:\"]')", timeout=60_000)
    page.wait_for_function(f"() => {node}?.querySelector('video')?.duration > 1.9", timeout=120_000)
    keep(page, "nodes_2")
    left = page.evaluate(f"() => !!{node}.querySelector('img[src^=\"blob:\"]')")
    browser.ask(f"{url}/settings", {"Comfy.VueNodes.Enabled": False})
    page.reload()
    page.wait_for_function(browser.READY, timeout=90_000)
    page.wait_for_timeout(1500)
    assert not left, "the last live picture stays beside the player"


def test_a_nodes_help_opens_with_its_picture(page):
    browser.load(page, "schedules")
    page.evaluate(
        """() => { const node = app.graph.nodes.find((n) => n.type === 'JoyAvatarPSBSchedule');
                   app.canvas.selectNode(node); app.canvas.setDirty(true, true) }"""
    )
    page.locator('[data-testid="info-button"]').click()
    page.get_by_role("heading", name="JoyAvatar PSB Schedule").first.wait_for(timeout=20_000)
    picture = "document.querySelector('img[src*=\"JoyAvatarPSBSchedule.jpg\"]')"
    page.wait_for_function(f"() => {picture}?.naturalWidth > 0", timeout=20_000)
    keep(page, "help")


def test_the_template_browser_shows_the_workflows(page):
    page.keyboard.press("Escape")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("JoyAvatar").first.wait_for(timeout=20_000)
    page.wait_for_timeout(1500)
    keep(page, "templates")


def test_the_page_speaks_chinese(page, url):
    browser.ask(f"{url}/settings", {"Comfy.Locale": "zh"})
    page.reload()
    page.wait_for_function(browser.READY, timeout=90_000)
    page.wait_for_timeout(1500)
    title = page.evaluate("() => LiteGraph.createNode('JoyAvatarStreamingSampler').title")
    browser.load(page, "talk")
    keep(page, "chinese")
    browser.ask(f"{url}/settings", {"Comfy.Locale": "en"})
    assert title == "JoyAvatar 流式采样器"
