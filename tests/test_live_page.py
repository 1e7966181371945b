"""The page in a real browser: headless Chromium on loopback plays the stream while it is being made."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from joyavatar_core.serving import Broadcast, LiveServer
from joyavatar_core.video.live_encoder import LiveEncoder

FPS, RATE, SIDE, BLOCK = 16, 16000, 128, 12
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


class Browser:
    """The few WebDriver commands (W3C) that this needs, over chromedriver's HTTP."""

    def __init__(self, folder) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}/session"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=700,760"]
        options = {"binary": CHROMIUM, "args": [*flags, f"--user-data-dir={folder}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        end = time.monotonic() + 10
        while True:
            try:
                self.base += "/" + self.call("POST", "", wanted)["sessionId"]
                return
            except urllib.error.URLError:
                assert time.monotonic() < end, "chromedriver does not answer"
                time.sleep(0.05)

    def call(self, method: str, path: str, body: dict | None = None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script: str):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.call("GET", "/screenshot")))).convert("RGB")

    def close(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("NOT TESTED IN A BROWSER: chromium and chromedriver are missing (apt-get install chromium-driver)")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def frames(start: int) -> np.ndarray:
    """A bright bar that wanders over an orange ground."""
    picture = np.full((BLOCK, SIDE, SIDE, 3), (200, 110, 30), np.uint8)
    for index in range(BLOCK):
        x = (start + index) * 3 % (SIDE - 20)
        picture[index, 30:100, x : x + 20] = (240, 240, 250)
    return picture


def test_the_page_plays_the_stream_while_it_is_made(browser, tmp_path):
    encoder = LiveEncoder(SIDE, SIDE, FPS, RATE)
    stream = Broadcast(encoder.heads["mp4"])
    over = threading.Event()

    def speak() -> None:
        started, block = time.monotonic(), 0
        while not over.wait(max(0.0, started + block * BLOCK / FPS - time.monotonic())):
            sound = 0.1 * np.sin(np.arange(BLOCK * RATE // FPS) / 20).astype(np.float32)
            stream.publish(encoder.encode(frames(block * BLOCK), sound)["mp4"])
            block += 1

    with LiveServer({"mp4": stream}, port=0) as server:
        speaker = threading.Thread(target=speak)
        speaker.start()
        try:
            time.sleep(1)  # the browser joins late
            browser.call("POST", "/url", {"url": server.url})
            first = wait_for(browser, lambda seen: seen["time"] > 0 and seen["ready"] >= 2)
            wait_for(browser, lambda seen: seen["time"] > first["time"] + 2)
            browser.picture().save(tmp_path / "page.png")
            shown = np.asarray(Image.open(tmp_path / "page.png"))
            seen = state(browser)
            assert seen["width"] == SIDE and seen["error"] is None and seen["behind"] < 4
            assert "behind the newest frame" in seen["text"]
            orange = (np.abs(shown.astype(int) - (200, 110, 30)) < 25).all(axis=-1).mean()
            bright = (shown.min(axis=-1) > 215).mean()
            assert orange > 0.3 and bright > 0.03  # the video is really painted
            assert server.viewers == 1
        finally:
            over.set()
            speaker.join()
        stream.publish(encoder.finish()["mp4"])
    wait_for(browser, lambda seen: seen["text"] == "the stream has ended")


def state(browser) -> dict:
    return browser.run(
        "const v = document.querySelector('video'), b = v.buffered;"
        "return {time: v.currentTime, ready: v.readyState, width: v.videoWidth, error: v.error && v.error.message,"
        "behind: b.length ? b.end(b.length - 1) - v.currentTime : -1, text: document.getElementById('state').innerText}"
    )


def wait_for(browser, condition, seconds: float = 25.0) -> dict:
    end = time.monotonic() + seconds
    while not condition(seen := state(browser)):
        assert time.monotonic() < end, f"the page stays at {seen}"
        time.sleep(0.1)
    return seen
