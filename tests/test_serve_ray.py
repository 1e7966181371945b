"""The serve command from end to end: Ray Serve on this machine, two workers, three sessions."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import av
import numpy as np
import pytest
import soundfile

from .batches import ENVIRONMENT, SMALL, command, inputs, process

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install -e .[ray]")
pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return inputs(tmp_path_factory.mktemp("serve"), long=2.0, short=0.8)


@pytest.fixture(scope="module")
def port(folder):
    """The port of a server with two workers of one session each, until the tests are over."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    while True:  # until Ray, which waits 30 s for itself, has started on a busy machine
        server, said = started(port, folder)
        if server.poll() is None:
            break
        assert "Ray did not start in time" in "".join(said), "".join(said)
    yield port
    server.send_signal(signal.SIGINT)
    server.wait(300)
    assert server.returncode == 130, "".join(said)


def started(port: int, folder) -> tuple[subprocess.Popen, list[str]]:
    """A server whose workers are loaded, or that has ended, and what it says on standard error."""
    flags = ["--workers=2", "--cpus-per-worker=0.5", "--linger=0", "--patience=600", "--audio-rate=16000"]
    server = process("serve", f"--serve={port}", *flags, *SMALL, cwd=folder)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(server.stderr), daemon=True)
    reader.start()
    while health(port).get("workers") != 2 and server.poll() is None:
        time.sleep(0.5)
    if server.poll() is not None:
        reader.join(60)
    return server, said


def ask(port: int, method: str, path: str, body: object = None, headers: dict | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def health(port: int) -> dict:
    try:
        return json.loads(ask(port, "GET", "/health")[1])
    except (OSError, ValueError):
        return {}


def opened(port: int, folder, query: str = "") -> dict:
    code, body = ask(port, "POST", f"/sessions{query}", (folder / "portrait.png").read_bytes())
    assert code == 201, body
    return json.loads(body)


def watch(port: int, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["Content-Type"] == "video/mp4"
    return answer


def pcm(folder, name: str) -> bytes:
    return (soundfile.read(folder / f"{name}.wav", dtype="int16")[0]).astype("<i2").tobytes()


def pictures(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def test_the_third_session_is_told_busy_and_a_freed_place_is_taken(port, folder):
    one, two = opened(port, folder), opened(port, folder, "?seed=1")
    code, body = ask(port, "POST", "/sessions", (folder / "portrait.png").read_bytes())
    assert code == 503 and body.decode().startswith("Busy: 2 of 2 sessions are taken")
    assert health(port)["sessions"] == 2 and health(port)["free_sessions"] == 0
    viewer, leaver = watch(port, one["mp4"]), watch(port, two["mp4"])
    assert ask(port, "POST", one["voice"], pcm(folder, "long"))[0] == 204
    video = viewer.read()
    live = ["live", "--portrait=portrait.png", "--audio=-", "--out=-", "--format=mp4", *SMALL]
    done = subprocess.run(
        command(*live), cwd=folder, env=ENVIRONMENT, input=pcm(folder, "long"), capture_output=True, check=True
    )
    assert len(pictures(video)) == 32 and np.array_equal(pictures(video), pictures(done.stdout))
    leaver.read(1)
    leaver.close()  # leaves although the voice of the session has not ended
    while (facts := health(port))["sessions"]:
        time.sleep(0.5)
    assert facts["free_sessions"] == 2
    three = opened(port, folder)
    text = ask(port, "GET", "/metrics")[1].decode()
    assert "joyavatar_sessions_opened_total 3.0" in text and "joyavatar_sessions_refused_total 1.0" in text
    assert 'joyavatar_sessions{worker="' in text and "joyavatar_workers 2.0" in text
    assert ask(port, "DELETE", three["page"].rstrip("/"))[0] == 204


def test_a_session_has_the_live_servers_page_and_state_and_hears_portions(port, folder):
    session = opened(port, folder, "?audio-rate=16000&seconds=0.5")
    assert b"live.js" in ask(port, "GET", session["page"])[1]
    assert json.loads(ask(port, "GET", session["status"])[1])["state"] == "waiting"
    viewer, voice = watch(port, session["mp4"]), pcm(folder, "short")
    for start in range(0, len(voice), 9001):  # portions that end inside a sample
        assert ask(port, "POST", session["voice"] + "?more=yes", voice[start : start + 9001])[0] == 204
    assert len(pictures(viewer.read())) == 8  # of 0.5 s, although the voice goes on


@pytest.mark.parametrize(("method", "path", "body", "headers", "code", "words"), [
    ("POST", "/sessions", b"no picture", {}, 400, "portrait"),
    ("POST", "/sessions", b"", {}, 400, "The portrait is missing"),
    ("POST", "/sessions?weights=/etc/passwd", b"x", {}, 400, "not one of a session's"),
    ("POST", "/sessions?seed=many", b"x", {}, 400, "not a seed"),
    ("GET", "/sessions/none/live.mp4", None, {}, 404, "no such session"),
    ("POST", "/sessions/none/voice", b"x", {}, 404, "no such session"),
    ("GET", "/health", None, {"Host": "evil.example"}, 403, "wrong Host"),
    ("GET", "/metrics", None, {"Origin": "http://evil.example"}, 403, "wrong Origin"),
])  # fmt: skip
def test_every_mistake_is_one_sentence(port, method, path, body, headers, code, words):
    found, text = ask(port, method, path, body, headers)
    assert found == code and words in text.decode() and text.decode().count("\n") == 1


def test_a_lost_worker_ends_its_session_and_is_replaced(port, folder):
    session = opened(port, folder)
    busy: list[str] = []
    while len(busy) != 1:  # sessions of earlier tests may still be ending
        time.sleep(0.1)
        busy = re.findall(r'joyavatar_sessions\{worker="[^"]*:(\d+)"\} 1.0', ask(port, "GET", "/metrics")[1].decode())
    lost = busy[0]
    viewer = watch(port, session["mp4"])
    os.kill(int(lost), signal.SIGKILL)
    viewer.read()  # ends
    code, text = ask(port, "GET", session["status"])
    assert code in (404, 502) and b"open a new one" in text
    while health(port).get("workers") != 2:
        time.sleep(0.5)
    assert f":{lost}" not in ask(port, "GET", "/metrics")[1].decode()
