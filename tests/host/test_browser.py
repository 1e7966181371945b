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

from .conftest import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
SCREENSHOTS = Path(os.environ.get("JOYAVATAR_SCREENSHOTS", ROOT / "out" / "screenshots"))
VIDEO_NODE = "app.graph.nodes.find((node) => node.type === 'JoyAvatarStreamToVideo')"
# A video that arrives after its graph was replaced stays in the page, hidden: not that one.
PLAYER = "[...document.querySelectorAll('.dom-widget video')].find((video) => video.checkVisibility())"

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
        opened.set_default_timeout(1000 * PATIENCE)
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
OTHER_TEXTS = """() => [...document.querySelectorAll('body *')].filter((each) =>
  !each.children.length && !each.closest('[data-testid=joyavatar_text], [data-testid=toast], .p-toast')
).map((each) => each.textContent)"""  # what the page itself shows
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
    page.wait_for_function(browser.READY)
    page.wait_for_timeout(1500)


def shorten(page: Page, seconds: int) -> None:
    page.evaluate(
        "(value) => app.graph.nodes.filter((n) => n.type === 'JoyAvatarAudioEncode').forEach((n) => "
        "{ n.widgets[0].value = value })",
        seconds,
    )


@pytest.mark.parametrize("nodes_2", [True, False])
def test_workflows_open_whole_and_nothing_overlaps(page, url, nodes_2):
    reopen(page, url, nodes_2)
    for name in sorted(path.stem for path in browser.WORKFLOWS.glob("*.json")):
        browser.load(page, name)
        page.evaluate(browser.FIT, [90, 60, 20, 20])
        page.wait_for_timeout(500)
        keep(page, f"open_{name}_{'nodes_2' if nodes_2 else 'classic'}")
        missing = "() => app.graph.nodes.filter((n) => !(n.type in LiteGraph.registered_node_types)).length"
        assert page.evaluate(missing) == 0, name
        assert too_near(page) == [], name


@pytest.mark.parametrize("nodes_2", [True, False])
def test_what_nodes_say_stays_after_a_run_and_comes_back_for_cached_nodes(page, url, nodes_2):
    reopen(page, url, nodes_2)
    browser.load(page, "schedules")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    shorten(page, 2 if nodes_2 else 1)
    for when in ("ran", "reloaded"):
        page.evaluate("() => app.queuePrompt(0)")
        page.wait_for_function(f"() => ({TEXTS})().length >= 6")
        page.wait_for_function(f"() => !({TEXTS})().some((text) => / left$/.test(text))")
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
    page.wait_for_function(f"() => ({TEXTS})().some((text) => text.includes('leads out'))")
    page.evaluate(prefix, "dated/%date:yyyy%/%JoyAvatarStreamingSampler.preset%")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => ({TEXTS})().some((text) => text.includes(' frames ('))")
    [made] = (server.output / "dated").glob("*/checkpoint_00001_.mp4")
    assert made.parent.name.isdigit() and len(made.parent.name) == 4


def test_run_shows_live_pictures_then_a_video_that_plays(page, url):
    browser.load(page, "talk")
    page.evaluate("() => { app.graph.nodes.find((n) => n.type === 'JoyAvatarAudioEncode').widgets[0].value = 7 }")
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
    page.wait_for_function("() => pictures.size > 0")
    keep(page, "talk_running")
    page.wait_for_function(f"() => {PLAYER}?.duration > 6.9")
    pictures = page.evaluate("() => { finished = true; return pictures.size }")
    assert pictures >= 2, "the live picture did not change"
    page.evaluate(f"() => {{ const video = {PLAYER}; video.muted = true; return video.play() }}")
    page.wait_for_function(f"() => {PLAYER}.currentTime > 0.3 && {PLAYER}.videoWidth > 0")
    keep(page, "talk_done")
    assert too_near(page) == []


def test_a_second_run_shows_live_pictures_again(page, url):
    page.evaluate("() => { app.graph.nodes.find((n) => n.type === 'JoyAvatarStreamingSampler').widgets[1].value += 1 }")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => {VIDEO_NODE}.imgs?.[0]?.src.startsWith('blob:') && !{PLAYER}")
    page.wait_for_function(f"() => {PLAYER}?.duration > 6.9")


def test_nodes_2_show_live_pictures_then_the_player(page, url):
    reopen(page, url, True)
    browser.load(page, "talk")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    shorten(page, 2)
    page.evaluate("() => app.queuePrompt(0)")
    node = f"document.querySelector('[data-node-id=\"' + {VIDEO_NODE}.id + '\"]')"
    page.wait_for_function(f"() => {node}?.querySelector('img[src^=\"blob:\"]')")
    page.wait_for_function(f"() => {node}?.querySelector('video')?.duration > 1.9")
    keep(page, "nodes_2")
    near = too_near(page)
    left = page.evaluate(f"() => !!{node}.querySelector('img[src^=\"blob:\"]')")
    reopen(page, url, False)
    assert not left, "the last live picture stays beside the player"
    assert near == []


# Page 1.35.9 arranges the nodes, but Nodes 2.0 draw them all in one place there until the graph is loaded again.
OPEN_API_FORM = """async (graph) => {
  await app.loadApiJson(graph, 'cached');
  await app.loadGraphData(app.graph.serialize(), true, true, 'cached');
}"""
PORTRAIT_IS_SHOWN = """() => {
  const node = app.graph.nodes.find(({ type }) => type === 'JoyAvatarReference');
  const drawn = document.querySelector(`[data-node-id="${node.id}"]`); // in Nodes 2.0
  return drawn ? drawn.querySelector('img')?.naturalWidth > 0 : node.imgs?.length > 0;
}"""


@pytest.mark.parametrize("nodes_2", [True, False])
def test_what_cached_nodes_show_comes_back_where_the_host_does_not_visit_them(page, url, talk, node, nodes_2):
    graph = talk(
        audio="short.wav",
        seed=31 + nodes_2,
        lora=node("LoraLoaderModelOnly", model=["model", 0], lora_name="foreign.safetensors", strength_model=1.0),
        frames=node("JoyAvatarStreamToFrames", stream=["stream", 0], batching="one batch", count=1),
        shown=node("PreviewImage", images=["frames", 0]),
        latent=node("JoyAvatarStreamToLatent", stream=["stream", 0]),
        saved=node("SaveLatent", samples=["latent", 0], filename_prefix="cached"),
    )
    graph["stream"]["inputs"]["model"] = ["lora", 0]
    reopen(page, url, nodes_2)
    said = []
    for _ in range(2):
        page.evaluate(OPEN_API_FORM, numbered(graph))
        page.evaluate(browser.FIT, [90, 60, 20, 20])
        assert page.evaluate(TEXTS) == []
        page.evaluate("() => app.queuePrompt(0)")
        page.wait_for_function(f"() => ({TEXTS})().filter((text) => !/ (left|of memory)$/.test(text)).length >= 3")
        page.wait_for_function(PORTRAIT_IS_SHOWN)
        said.append(sorted(page.evaluate(TEXTS)))
        reopen(page, url, nodes_2)
    reopen(page, url, False)
    assert said[1] == said[0]
    for start in ("12 frames (0:01) in", "The LoRA changes nothing", "decodes to 21 frames"):
        assert any(text.startswith(start) for text in said[0]), said


def numbered(graph: dict) -> dict:
    """A graph in API form with numbers for its nodes' names."""
    number = {name: str(index) for index, name in enumerate(graph, 1)}
    return {
        number[name]: {
            "class_type": entry["class_type"],
            "inputs": {
                key: [number[value[0]], value[1]] if isinstance(value, list) else value
                for key, value in entry["inputs"].items()
            },
        }
        for name, entry in graph.items()
    }


def test_a_video_that_the_page_gave_up_on_is_loaded_again(page, url):
    """Its first two requests get no answer: as from a busy machine, the page stops waiting."""
    ignored = []

    def answer(route):
        ignored.append(route) if len(ignored) < 2 else route.continue_()

    page.route(lambda address: "/view?" in address and ".mp4" in address, answer)
    browser.load(page, "talk")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    shorten(page, 1)
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => {PLAYER}?.duration > 0.9")
    page.unroute_all(behavior="ignoreErrors")
    assert len(ignored) == 2


def test_app_mode_shows_portrait_voice_seed_and_the_video(page, url):
    version = page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")
    if tuple(map(int, version.split(".")[:2])) < (1, 42):  # older ones have a draft under the same command
        pytest.skip(f"THIS PAGE ({version}) HAS NO APP MODE: 1.41.13 and newer have it")
    browser.load(page, "talk")
    shorten(page, 2)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    labels = page.locator("[data-testid=linear-widgets] [data-testid=builder-widget-label]")
    labels.first.wait_for()
    tour = page.get_by_role("button", name="Skip", exact=True)
    if tour.is_visible():
        tour.click()
    assert labels.all_inner_texts() == ["portrait", "voice", "seed"]
    page.get_by_role("button", name="Run", exact=True).last.click()
    result = "[...document.querySelectorAll('[data-testid=linear-center-panel] video')]"
    page.wait_for_function(f"() => {result}.some((video) => video.duration > 1.9)")
    keep(page, "app_mode")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    reopen(page, url, False)  # the page turned Nodes 2.0 on


def test_a_nodes_help_opens_with_its_picture(page):
    browser.load(page, "schedules")
    page.evaluate(
        """() => { const node = app.graph.nodes.find((n) => n.type === 'JoyAvatarPSBSchedule');
                   app.canvas.selectNode(node); app.canvas.setDirty(true, true) }"""
    )
    page.locator('[data-testid="info-button"]').click()
    page.get_by_role("heading", name="JoyAvatar PSB Schedule").first.wait_for()
    picture = "document.querySelector('img[src*=\"JoyAvatarPSBSchedule.jpg\"]')"
    page.wait_for_function(f"() => {picture}?.naturalWidth > 0")
    keep(page, "help")


def test_the_template_browser_shows_the_workflows(page):
    page.keyboard.press("Escape")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("JoyAvatar").first.wait_for()
    page.wait_for_timeout(1500)
    keep(page, "templates")


def test_the_page_speaks_chinese(page, url):
    browser.ask(f"{url}/settings", {"Comfy.Locale": "zh"})
    reopen(page, url, False)
    assert page.evaluate("() => LiteGraph.createNode('JoyAvatarStreamingSampler').title") == "JoyAvatar 流式采样器"
    browser.load(page, "talk")
    page.evaluate(browser.FIT, [90, 60, 20, 20])
    groups = page.evaluate("() => app.graph.groups.map((group) => group.title)")
    notes = page.evaluate("() => app.graph.nodes.find((n) => n.type === 'MarkdownNote').widgets[0].value")
    page.evaluate(f"() => {{ {VIDEO_NODE}.widgets.find((w) => w.name === 'filename_prefix').value = '../../out' }}")
    crop = "(n) => n.type === 'JoyAvatarReference'"
    page.evaluate(f"() => {{ app.graph.nodes.find({crop}).widgets.find((w) => w.name === 'crop').value = 'feet' }}")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => ({TEXTS})().some((text) => text.includes('裁剪为“feet”'))")
    page.wait_for_function(f"() => ({OTHER_TEXTS})().some((text) => text.includes('裁剪为“feet”'))")
    keep(page, "chinese")
    browser.ask(f"{url}/settings", {"Comfy.Locale": "en"})
    assert "5 · 视频" in groups and notes.startswith("## 让肖像说话")
