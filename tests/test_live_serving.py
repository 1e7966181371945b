"""Watching while it is made: what is sent plays from any block on; no viewer holds it up or gets in unasked."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time

import av
import numpy as np
import pytest

from joyavatar_core.cli.options import parse_address
from joyavatar_core.errors import AvatarError
from joyavatar_core.serving import Broadcast, LiveServer
from joyavatar_core.serving.access import refusal, split_host
from joyavatar_core.video import AI_NOTICE
from joyavatar_core.video.live_encoder import LiveEncoder, from_key_frame

FPS, RATE, SIZE = 16, 16000, (48, 32)


def pictures(start: int, count: int) -> np.ndarray:
    """Frames told apart by their brightness: frame n is 40 + 5 * (n % 40) grey."""
    grey = 40 + 5 * (np.arange(start, start + count) % 40)
    return np.broadcast_to(grey[:, None, None, None], (count, SIZE[1], SIZE[0], 3)).astype(np.uint8)


def encoded(encoder: LiveEncoder, blocks: int) -> list[dict[str, bytes]]:
    """Blocks of 9, 12, 12 ... frames with their sound, and the end."""
    parts, frame = [], 0
    for block in range(blocks):
        count = 12 if block else 9
        sound = 0.1 * np.sin(np.arange(frame * 1000, (frame + count) * 1000) / 20)
        parts.append(encoder.encode(pictures(frame, count), sound.astype(np.float32)))
        frame += count
    return [*parts, encoder.finish()]


def decoded(data: bytes) -> tuple[list[float], list[float], int]:
    """(grey, seconds) of every frame, and the number of sound samples."""
    with av.open(io.BytesIO(data)) as file:
        frames = [(float(f.to_ndarray(format="gray").mean()), float(f.time)) for f in file.decode(video=0)]
    with av.open(io.BytesIO(data)) as file:
        samples = sum(f.samples for f in file.decode(audio=0)) if file.streams.audio else 0
    return [grey for grey, _ in frames], [at for _, at in frames], samples


@pytest.mark.parametrize("formats", [("mp4",), ("mpegts",), ("mp4", "mpegts")])
def test_all_frames_and_samples_arrive_once_and_in_time(formats):
    encoder = LiveEncoder(*SIZE, FPS, RATE, formats=formats, metadata={"title": "t"})
    parts = encoded(encoder, 4)
    for name in formats:
        grey, times, samples = decoded(encoder.heads[name] + b"".join(part[name] for part in parts))
        assert len(grey) == 45 and np.allclose(np.diff(times), 1 / FPS, atol=1e-3)
        assert np.allclose(np.diff(grey), np.diff(pictures(0, 45)[:, 0, 0, 0].astype(float)), atol=2.5)
        assert 0 <= samples - 45_000 <= 3 * 1024  # priming and padding of whole AAC frames


@pytest.mark.parametrize("name", ["mp4", "mpegts"])
def test_a_viewer_can_join_at_every_block(name):
    encoder = LiveEncoder(*SIZE, FPS, RATE, formats=(name,))
    parts = encoded(encoder, 4)
    for block, first in enumerate((0, 9, 21, 33)):
        grey, times, _ = decoded(encoder.heads[name] + b"".join(part[name] for part in parts[block:]))
        assert len(grey) == 45 - first and abs(times[0] - 1024 / RATE - first / FPS) < 2e-3


def test_a_transport_stream_is_joined_exactly_at_a_key_frame():
    encoder = LiveEncoder(*SIZE, FPS, RATE, formats=("mpegts",))
    parts = [part["mpegts"] for part in encoded(encoder, 4)]
    stream = Broadcast(begin=from_key_frame)
    for part in parts[:3]:
        stream.publish(part)
    listener = stream.join()
    stream.publish(parts[3] + parts[4])
    stream.end()
    data = b"".join(listener)
    assert len(data) < len(b"".join(parts[2:]))
    with av.open(io.BytesIO(data)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert packets[0].is_keyframe and len(packets) == 45 - 21
    assert from_key_frame(b"") == b"" and from_key_frame(b"G" * 500) == b"G" * 500


def test_a_block_leaves_the_encoder_whole():
    encoder = LiveEncoder(*SIZE, FPS, None)
    data = encoder.heads["mp4"] + encoder.encode(pictures(0, 9))["mp4"]
    assert len(decoded(data)[0]) == 9  # nothing waits for the next block
    encoder.close()


def test_the_head_says_that_it_is_ai_generated():
    encoder = LiveEncoder(*SIZE, FPS, None)
    with av.open(io.BytesIO(encoder.heads["mp4"] + encoder.encode(pictures(0, 2))["mp4"])) as file:
        assert file.metadata["comment"] == AI_NOTICE["comment"]


@pytest.mark.parametrize(("change", "sentence"), [
    ({"formats": ("avi",)}, "live format"), ({"formats": ()}, "live format"), ({"crf": 99}, "quality"),
    ({"sample_rate": 0}, "sample rate"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(change, sentence):
    with pytest.raises(AvatarError, match=sentence):
        LiveEncoder(*SIZE, FPS, **change)


def test_frames_and_sound_of_another_kind_are_refused():
    encoder = LiveEncoder(*SIZE, FPS, RATE)
    with pytest.raises(AvatarError, match="frames are"):
        encoder.encode(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(AvatarError, match="NaN"):
        encoder.encode(pictures(0, 1), np.full(1000, np.nan, np.float32))


# --- broadcast -----------------------------------------------------------------------------------------------------


def test_a_listener_gets_the_head_the_newest_block_and_all_that_follows():
    stream = Broadcast(b"head")
    for data in (b"one", b"two"):
        stream.publish(data)
    listener = stream.join()
    stream.publish(b"three")
    stream.end()
    assert list(listener) == [b"head", b"two", b"three"]
    assert list(stream.join()) == [b"head", b"three"]  # after the end


def test_a_slow_listener_is_dropped_and_the_others_miss_nothing():
    stream, dropped = Broadcast(max_backlog=1000), []
    slow, fast = stream.join(on_drop=lambda: dropped.append(1)), stream.join()
    taken = iter(fast)
    for _ in range(50):
        stream.publish(b"x" * 100)
        assert len(next(taken)) == 100
    assert slow.dropped and dropped == [1] and list(slow) == [] and stream.listeners == 1 and stream.dropped == 1


# --- who may watch -------------------------------------------------------------------------------------------------

OURS = {"Host": "127.0.0.1:8090"}


@pytest.mark.parametrize(("headers", "welcome"), [
    (OURS, True), ({"Host": "localhost:8090"}, True), ({"Host": "[::1]:8090"}, True),
    ({"Host": "LOCALHOST:8090"}, True), ({**OURS, "Origin": "http://127.0.0.1:8090"}, True),
    ({**OURS, "Sec-Fetch-Site": "same-origin"}, True), ({**OURS, "Sec-Fetch-Site": "none"}, True),
    ({}, False), ({"Host": ""}, False), ({"Host": "evil.example:8090"}, False), ({"Host": "127.0.0.1"}, False),
    ({"Host": "127.0.0.1:80"}, False), ({"Host": "127.0.0.1:8090:8090"}, False), ({"Host": "192.168.1.2:8090"}, False),
    ({"Host": "127.0.0.1.evil.example:8090"}, False), ({"Host": "[evil]:8090"}, False), ({"Host": ":8090"}, False),
    ({**OURS, "Origin": "null"}, False), ({**OURS, "Origin": "http://evil.example"}, False),
    ({**OURS, "Origin": "https://127.0.0.1:8090"}, False), ({**OURS, "Origin": "http://localhost:8090"}, False),
    ({**OURS, "Origin": "http://127.0.0.1:8091"}, False), ({**OURS, "Sec-Fetch-Site": "cross-site"}, False),
    ({**OURS, "Sec-Fetch-Site": "same-site"}, False),
])  # fmt: skip
def test_a_loopback_server_answers_to_its_own_pages_alone(headers, welcome):
    assert (refusal(headers, 8090, loopback=True) is None) == welcome


def test_an_open_server_answers_to_numbers_and_to_names_it_was_told():
    def welcome(host, names=()):
        return refusal({"Host": f"{host}:8090"}, 8090, loopback=False, names=names) is None

    assert welcome("192.168.1.2") and welcome("[fe80::1]") and welcome("localhost")
    assert not welcome("studio.example") and welcome("studio.example", ("studio.example",))
    assert split_host("a:b:1") is None and split_host("host") == ("host", 80)


@pytest.fixture
def server():
    streams = {"mp4": Broadcast(b"head", max_backlog=1 << 20)}
    with LiveServer(streams, port=0, max_viewers=2, status=lambda: {"blocks": 3}) as server:
        yield server
        server.close(0)


def ask(server, path="/", method="GET", **headers) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def test_page_script_and_state_are_served_with_protection(server):
    code, page, headers = ask(server)
    assert code == 200 and b"<video" in page and "script-src 'self'" in headers["Content-Security-Policy"]
    assert ask(server, "/live.js")[0] == 200 and json.loads(ask(server, "/status.json")[1]) == {
        "blocks": 3,
        "viewers": 0,
    }
    assert ask(server, "/?x=1")[0] == 200 and ask(server, method="HEAD")[:2] == (200, b"")
    assert ask(server, "/live.mp4", "HEAD")[0] == 200


@pytest.mark.parametrize("path", ["/etc/passwd", "/../server.py", "/live.ts", "/%2e%2e/x", "/index.html"])
def test_there_are_no_other_files(server, path):
    assert ask(server, path)[0] == 404


def test_strangers_and_other_methods_are_refused(server):
    assert ask(server, Host="evil.example")[0] == 403
    assert ask(server, "/live.mp4", Origin="http://evil.example")[0] == 403
    assert ask(server, "/status.json", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(server, method="POST")[0] == 501


def test_viewers_get_the_stream_and_are_counted(server):
    stream = server.broadcasts["mp4"]
    stream.publish(b"block0")
    got: list[bytes] = []
    viewers = [threading.Thread(target=lambda: got.append(ask(server, "/live.mp4")[1])) for _ in range(2)]
    for viewer in viewers:
        viewer.start()
    until(lambda: server.viewers == 2)
    code, text, _ = ask(server, "/live.mp4")
    assert code == 503 and b"too many viewers" in text
    stream.publish(b"block1")
    stream.end()
    for viewer in viewers:
        viewer.join(10)
    assert got == [b"headblock0block1"] * 2
    until(lambda: server.viewers == 0)


def test_a_viewer_that_takes_nothing_is_dropped_and_generation_does_not_wait(server):
    stuck = socket.create_connection(("127.0.0.1", server.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(f"GET /live.mp4 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    until(lambda: server.viewers == 1)
    stream, longest = server.broadcasts["mp4"], 0.0
    for _ in range(200):
        started = time.perf_counter()
        stream.publish(bytes(100_000))
        longest = max(longest, time.perf_counter() - started)
    until(lambda: server.viewers == 0)  # its place is free again although it still holds the line
    assert stream.dropped == 1 and longest < 5  # never the 10 s that a write may hang
    stuck.close()


def test_idle_connections_are_limited(server):
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    time.sleep(0.3)
    closed = 0
    for line in lines:
        line.settimeout(0.02)
        try:
            closed += line.recv(1) == b""
        except ConnectionError:
            closed += 1
        except TimeoutError:
            pass
    assert closed >= 60 - 32
    for line in lines:
        line.close()
    until(lambda: works(server))


def works(server) -> bool:
    try:
        return ask(server, "/status.json")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.01)


def test_a_taken_port_is_one_sentence(server):
    with pytest.raises(AvatarError, match=rf"served at 127\.0\.0\.1:{server.port}"):
        LiveServer({}, port=server.port)
    with pytest.raises(AvatarError, match="cannot be served"):
        LiveServer({}, host="no.such.host.invalid", port=0)


def test_addresses_are_read_and_default_to_loopback():
    assert parse_address("8090") == ("127.0.0.1", 8090) and parse_address("0.0.0.0:1") == ("0.0.0.0", 1)
    assert parse_address("[::1]:80") == ("::1", 80)
    for bad in ("", "x", "1:x", "70000", "host:"):
        with pytest.raises(AvatarError, match="HOST:PORT"):
            parse_address(bad)


# --- behind a proxy ------------------------------------------------------------------------------------------------

NAME = ("studio.example",)


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize(("headers", "welcome"), [
    ({"Host": "studio.example"}, True), ({"Host": "studio.example:443"}, True), ({"Host": "STUDIO.example.:80"}, True),
    ({"Host": "studio.example:8090", "Origin": "https://studio.example"}, True),
    ({"Host": "studio.example", "Origin": "https://studio.example:8443"}, True),
    ({"Host": "127.0.0.1:8090", "Origin": "https://studio.example"}, True),  # nginx's own Host, the page's Origin
    ({"Host": "studio.example", "Sec-Fetch-Site": "same-origin", "X-Forwarded-Host": "evil.example"}, True),
    ({"Host": "evil.example", "X-Forwarded-Host": "studio.example"}, False),
    ({"Host": "studio.example", "Origin": "https://evil.example"}, False),
    ({"Host": "studio.example", "Origin": "null"}, False), ({"Host": "studio.example", "Origin": "file://"}, False),
    ({"Host": "studio.example.evil.example"}, False), ({"Host": "xstudio.example"}, False),
    ({"Host": "studio.example:x"}, False), ({"Host": "studio.example", "Sec-Fetch-Site": "cross-site"}, False),
])  # fmt: skip
def test_an_allowed_name_is_welcome_on_any_port_and_scheme(headers, welcome, loopback):
    assert (refusal(headers, 8090, loopback=loopback, names=NAME) is None) == welcome


@pytest.mark.parametrize(("given", "host"), [
    ("studio.example", "studio.example"), ("Studio.Example.", "studio.example:443"),
    ("studio.example:8443", "studio.example"), ("https://studio.example/", "studio.example:80"),
    ("bücher.example", "xn--bcher-kva.example"), ("192.168.1.7", "192.168.1.7:9000"),
    ("[fd00:0::7]:80", "[fd00::7]:8443"), ("fd00::7", "[fd00:0:0::7]"),
])  # fmt: skip
def test_a_name_may_be_given_as_people_write_it(given, host):
    with LiveServer({}, port=0, names=(given,)) as server:
        assert ask(server, Host=host)[0] == 200
        assert ask(server, Host="other.example")[0] == 403
        server.close(0)


@pytest.mark.parametrize("given", ["", "*", "*.example", "https://", "a b", "me@studio.example"])
def test_a_name_that_is_none_is_refused(given):
    with pytest.raises(AvatarError, match="The allowed host is"):
        LiveServer({}, port=0, names=(given,))


def test_a_stream_asks_proxies_not_to_hold_it_back(server):
    server.broadcasts["mp4"].publish(b"block")
    server.broadcasts["mp4"].end()
    assert ask(server, "/live.mp4")[2]["X-Accel-Buffering"] == "no"
