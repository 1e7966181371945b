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


@pytest.mark.parametrize("name", sorted(path.stem for path in browser.WORKFLOWS.glob("*.json")))
def test_a_workflow_opens_whole_and_nothing_overlaps(page, name):
    browser.load(page, name)
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    page.wait_for_timeout(500)
    keep(page, f"open_{name}")
    assert (
        page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors || !node.constructor.type).length") == 0
    )
    overlaps = page.evaluate(
        """() => app.graph.nodes.flatMap((a, i) => app.graph.nodes.slice(i + 1).filter((b) =>
             a.pos[0] < b.pos[0] + b.size[0] && b.pos[0] < a.pos[0] + a.size[0] &&
             a.pos[1] - 30 < b.pos[1] + b.size[1] && b.pos[1] - 30 < a.pos[1] + a.size[1]
           ).map((b) => [a.title, b.title]))"""
    )
    assert overlaps == []


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
