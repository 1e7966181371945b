"""Take the pictures of workflows and nodes in a real browser, from a running ComfyUI that has this pack.

    python scripts/screenshots.py --server 127.0.0.1:8188

In Nodes 2.0, after a run: docs/images/workflow_<name>.jpg, the template browser's workflows/<name>.jpg, and the help
pages' web/docs/images/<NodeId>.jpg. After the page was loaded anew and the graph queued again:
docs/images/reloaded_<name>.jpg. In App mode: docs/images/app_mode.jpg. Needs playwright (pip install -e .[browser]),
Chromium, and ComfyUI with a page of 1.41.13 or newer.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "workflows"
RUNNABLE = ("schedules", "frames", "talk")  # with the embedded avatar
NOT_RUNNABLE = ("talk_avatarforcing", "talk_livetalk")  # shown as it is loaded
ALONE = "JoyAvatarStreamToLatent"  # in no workflow
MARGINS = [20, 20, 20, 20]
WAIT = 300_000  # ms, for whatever shall appear: the machine may be busy
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
WORKFLOW_WIDTH, THUMBNAIL_WIDTH, NODE_WIDTH = 1600, 480, 560

READY = "() => window.app?.graph && window.LiteGraph?.registered_node_types?.JoyAvatarStreamToVideo"
FIT = """([left, top, right, bottom]) => {
  const { ds, canvas } = app.canvas;
  const boxes = [...app.graph.groups, ...app.graph.nodes].map((b) => [...b.pos, ...b.size]);
  const x = Math.min(...boxes.map((b) => b[0])), y = Math.min(...boxes.map((b) => b[1]));
  const w = Math.max(...boxes.map((b) => b[0] + b[2])) - x, h = Math.max(...boxes.map((b) => b[1] + b[3])) - y;
  ds.scale = Math.min((canvas.clientWidth - left - right) / w, (canvas.clientHeight - top - bottom) / h);
  ds.offset[0] = left / ds.scale - x; ds.offset[1] = top / ds.scale - y;
  app.canvas.setDirty(true, true);
  const at = canvas.getBoundingClientRect();
  return { x: at.x + left - 8, y: at.y + top - 8, width: w * ds.scale + 16, height: h * ds.scale + 16 };
}"""
FOCUS = """([type, scale]) => {
  const node = app.graph.nodes.filter((n) => n.type === type).at(-1), { ds } = app.canvas;
  ds.scale = scale; ds.offset[0] = 120 / scale - node.pos[0]; ds.offset[1] = 120 / scale - node.pos[1];
  node.title = node.constructor.title;
  app.canvas.deselectAll?.(); app.canvas.setDirty(true, true);
  return String(node.id);
}"""
RECTANGLE = """(id) => {
  const { x, y, width, height } = document.querySelector(`[data-node-id="${id}"]`).getBoundingClientRect(), m = 10;
  return { x: x - m, y: y - m, width: width + 2 * m, height: height + 2 * m };
}"""
CUT_AND_RUN = """async (voice) => {
  const cut = app.graph.nodes.filter((n) => n.type === 'JoyAvatarAudioEncode').map((n) => n.widgets[0]);
  const before = cut.map((widget) => widget.value);
  if (voice !== null) for (const widget of cut) widget.value = voice;
  await app.queuePrompt(0);
  cut.forEach((widget, index) => { widget.value = before[index]; });
}"""
TOGGLE_APP = "() => app.extensionManager.command.execute('Comfy.ToggleLinear')"
APP_VIDEO = "[...document.querySelectorAll('[data-testid=linear-center-panel] video')]"


def chromium() -> str | None:
    """Where Chromium is: $CHROMIUM, else on the path; None lets playwright use its own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def ask(url: str, body: object = None) -> object:
    """A JSON request to the host."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        text = response.read()
    return json.loads(text) if text else None


@contextmanager
def open_page(url: str, width: int = 1600, height: int = 900) -> Iterator[Page]:
    """The host's page in headless Chromium, ready to load a workflow."""
    from playwright.sync_api import sync_playwright

    ask(
        f"{url}/settings",
        {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False},
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(WAIT)
        page.goto(url)
        page.wait_for_function(READY)
        page.wait_for_timeout(1500)
        yield page
        browser.close()


def load(page: Page, name: str) -> None:
    """Open a workflow of this pack."""
    content = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [content, name])
    page.wait_for_timeout(2000)  # pictures arrive
    page.keyboard.press("Escape")  # a dialog about files that this machine lacks


def run(page: Page, url: str, seconds: float = 1800, voice: float | None = None) -> None:
    """Press Run and wait for the end, at most `seconds`; `voice`: seconds to cut voices to, for this run only."""
    page.evaluate(CUT_AND_RUN, voice)
    end = time.monotonic() + seconds
    while ask(f"{url}/prompt")["exec_info"]["queue_remaining"]:
        if time.monotonic() > end:
            raise TimeoutError(f"The workflow still runs after {seconds:.0f} s.")
        page.wait_for_timeout(500)
    page.wait_for_timeout(3000)  # players load


def save(page: Page, clip: dict[str, float], path: Path, width: int, kilobytes: int) -> None:
    """A part of the page as a JPEG of at most `width` pixels and `kilobytes`."""
    from PIL import Image

    page.wait_for_timeout(700)
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(82, 40, -6):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size < 1000 * kilobytes:
            break
    print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {path.stat().st_size // 1024} KB")


def only_graph(page: Page) -> None:
    """No menus over the graph."""
    page.add_style_tag(
        content="body * { visibility: hidden } "
        "#graph-canvas, [data-node-id], [data-node-id] * { visibility: visible !important }"
    )


def shoot_node(page: Page, node: str) -> None:
    """The help page's picture of a node."""
    number = page.evaluate(FOCUS, [node, 1.25])
    page.wait_for_timeout(1000)  # the page moves its elements
    save(page, page.evaluate(RECTANGLE, number), ROOT / "web" / "docs" / "images" / f"{node}.jpg", NODE_WIDTH, 58)


def shoot_workflow(page: Page, folder: Path, name: str, width: int, kilobytes: int) -> None:
    """The whole open graph."""
    page.evaluate(FIT, MARGINS)
    page.wait_for_timeout(1000)
    save(page, page.evaluate(FIT, MARGINS), folder / f"{name}.jpg", width, kilobytes)


def shoot_app_mode(page: Page) -> None:
    """The talk template as an app, with its video."""
    load(page, "talk")
    page.evaluate(TOGGLE_APP)
    page.locator("[data-testid=linear-widgets]").wait_for()
    page.wait_for_timeout(4000)
    tour = page.get_by_role("button", name="Skip", exact=True)
    if tour.is_visible():  # it hides the rest
        tour.click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Run", exact=True).last.click()
    page.wait_for_function(f"() => {APP_VIDEO}.some((video) => video.videoWidth > 0)")
    page.wait_for_timeout(4000)  # its spinner goes
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": page.viewport_size["height"]}
    save(page, clip, ROOT / "docs" / "images" / "app_mode.jpg", 1200, 90)


def shoot_all(url: str, voice: float | None) -> None:
    """Every picture; turns Nodes 2.0 on in the host's settings."""
    docs = ROOT / "docs" / "images"
    ask(f"{url}/settings", {"Comfy.VueNodes.Enabled": True})
    shot: set[str] = set()
    with open_page(url, 2400, 1350) as page:
        only_graph(page)
        for name in (*RUNNABLE, *NOT_RUNNABLE):
            load(page, name)
            if name in RUNNABLE:
                ask(f"{url}/free", {"free_memory": True})  # everything is made anew
                page.wait_for_timeout(2000)
                run(page, url, voice=voice)
            shoot_workflow(page, docs, f"workflow_{name}", WORKFLOW_WIDTH, 148)
            shoot_workflow(page, WORKFLOWS, name, THUMBNAIL_WIDTH, 30)
            types = page.evaluate("() => app.graph.nodes.map((node) => node.type)")
            for node in sorted({kind for kind in types if kind.startswith("JoyAvatar")} - shot):
                shoot_node(page, node)
                shot.add(node)
            if name in RUNNABLE:
                page.reload()
                page.wait_for_function(READY)
                page.wait_for_timeout(3000)
                only_graph(page)
                load(page, name)
                run(page, url, voice=voice)
                shoot_workflow(page, docs, f"reloaded_{name}", WORKFLOW_WIDTH, 148)
        page.evaluate(f"() => app.graph.add(LiteGraph.createNode('{ALONE}'))")
        shoot_node(page, ALONE)
    with open_page(url, 1500, 900) as page:
        shoot_app_mode(page)


def main() -> None:
    top = argparse.ArgumentParser(description="Take the pictures of workflows and nodes.")
    top.add_argument("--server", default="127.0.0.1:8188")
    top.add_argument("--voice", type=float, help="cut the voices to this many seconds, on a slow machine")
    chosen = top.parse_args()
    shoot_all(f"http://{chosen.server}", chosen.voice)


if __name__ == "__main__":
    main()
