"""Sessions of the serve command in this process: placement, limits, and when a session ends."""

from __future__ import annotations

import threading
import time

import pytest
import soundfile

from joyavatar_core.cli.session_streams import AvatarStreams
from joyavatar_core.errors import AvatarError
from joyavatar_core.serving import Broadcast
from joyavatar_core.serving.placement import Capacity, best_first
from joyavatar_core.serving.session import Session
from joyavatar_core.serving.session_worker import BusyError, SessionWorker

from .batches import SMALL, inputs


class SessionStream:
    """A stream of one block that ends when it is told to."""

    def __init__(self) -> None:
        self.broadcasts = {"mp4": Broadcast(b"head")}
        self.started, self.over = threading.Event(), threading.Event()

    def run(self) -> None:
        self.started.set()
        self.broadcasts["mp4"].publish(b"block")
        assert self.over.wait(60)

    def stop(self) -> None:
        self.over.set()

    def status(self) -> dict:
        return {"state": "live", "frames": 9, "delay": 0.5}


class StreamFactory:
    need_bytes = 40

    def __init__(self, free: int | None = None) -> None:
        self.free = free
        self.made: list[SessionStream] = []

    def free_bytes(self) -> int | None:
        return self.free

    def open(self, portrait: bytes, settings: dict) -> SessionStream:
        self.made.append(SessionStream())
        return self.made[-1]


def until(true) -> None:
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


def test_a_session_goes_where_most_gpu_memory_is_free():
    capacities = {
        "a": Capacity(2, 50, 40),
        "b": Capacity(1, 90, 40),
        "c": Capacity(3, 30, 40),
        "d": Capacity(0, 99, 40),
    }
    assert best_first(capacities) == ["b", "a"]


def test_on_processors_a_session_goes_where_most_limit_are_free():
    assert best_first({"a": Capacity(1), "b": Capacity(2), "c": Capacity(0), "d": Capacity(2)}) == ["b", "d", "a"]


def test_the_first_viewer_sees_the_first_frame_and_the_last_one_ends_the_session():
    stream = SessionStream()
    session = Session(stream, max_viewers=2, patience=3600, linger=0)
    time.sleep(0.1)
    assert not stream.started.is_set() and not session.expired
    one, two = session.join("mp4"), session.join("mp4")
    assert session.join("mp4") is None  # a third
    assert stream.started.wait(60) and session.take(one) == b"head"
    assert session.take(one) == b"block" and session.take(one, timeout=0) == b""
    session.leave(one)
    assert not session.expired and session.take(one) is None
    session.leave(two)
    until(lambda: session.expired)
    session.close()
    until(lambda: session.ended)


def test_a_session_that_nobody_comes_to_is_over_without_having_begun():
    stream = SessionStream()
    session = Session(stream, patience=0)
    until(lambda: session.expired)
    session.close()
    until(lambda: session.ended)
    assert not stream.started.is_set()


def test_a_viewer_that_comes_back_in_time_keeps_the_session():
    session = Session(SessionStream(), linger=3600)
    session.leave(session.join("mp4"))
    assert not session.expired
    session.close()


def test_a_worker_takes_as_many_sessions_as_it_may_and_then_others():
    streams = StreamFactory()
    worker = SessionWorker(lambda: streams, 2, linger=0)
    assert worker.open("a", b"", {}) is None and worker.open("b", b"", {}) is None
    with pytest.raises(BusyError):
        worker.open("c", b"", {})
    viewer = worker.join("a", "mp4")
    assert worker.report().viewers == 1 and worker.report().delay == 0.5 and worker.report().frames == 18
    worker.leave("a", viewer)
    until(lambda: worker.report().sessions == ("b",))
    assert worker.report().capacity == Capacity(1, None, 40) and worker.report().frames == 18
    assert worker.open("c", b"", {}) is None
    with pytest.raises(KeyError):
        worker.status("a")
    assert worker.take("a", viewer) is None
    for name in "bc":
        worker.close(name)


def test_memory_is_promised_to_a_session_before_it_has_taken_it():
    streams = StreamFactory(free=100)
    worker = SessionWorker(lambda: streams, 9)
    for name in "ab":
        assert worker.open(name, b"", {}) is None
    assert worker.report().capacity == Capacity(7, 20, 40)
    with pytest.raises(BusyError):
        worker.open("c", b"", {})
    for name in "ab":
        worker.close(name)


def test_a_worker_opens_nothing_that_its_gpu_has_no_memory_for():
    worker = SessionWorker(lambda: StreamFactory(free=39), 9)
    with pytest.raises(BusyError):
        worker.open("a", b"", {})


def test_sessions_that_share_an_avatar_are_those_that_run_alone(tmp_path):
    streams = AvatarStreams((*SMALL, "--no-monitor"))
    inputs(tmp_path, voice=1.2)
    portrait, pcm = (tmp_path / "portrait.png").read_bytes(), soundfile.read(tmp_path / "voice.wav", dtype="int16")[0]

    def videos(*seeds: str) -> list[bytes]:
        """The mp4 bytes of sessions that run at the same time."""
        opened = [streams.open(portrait, {"seed": seed}) for seed in seeds]
        viewers = [stream.broadcasts["mp4"].join() for stream in opened]
        sessions = [Session(stream) for stream in opened]
        for session in sessions:
            session.join("mpegts")  # which begins it
            session.stream.push_audio(pcm.astype("<i2").tobytes())
            session.stream.finish_audio()
        return [b"".join(viewer) for viewer in viewers]

    one, two = videos("1", "2")
    assert [one] == videos("1") and [two] == videos("2") and one != two and len(one) > 10_000


def test_a_voice_of_another_format_is_one_sentence_and_not_a_wait(tmp_path):
    inputs(tmp_path)
    stream = AvatarStreams((*SMALL, "--no-monitor")).open((tmp_path / "portrait.png").read_bytes(), {})
    with pytest.raises(AvatarError, match="Standard input is a file"):
        for _ in range(40):  # more than a pipe holds
            stream.push_audio(b"OggS" + bytes(1 << 14))
    stream.stop()


def test_a_session_that_waits_for_its_voice_can_be_ended_at_any_time(tmp_path):
    inputs(tmp_path)
    stream = AvatarStreams((*SMALL, "--no-monitor")).open((tmp_path / "portrait.png").read_bytes(), {})
    session = Session(stream)
    viewer = session.join("mp4")
    stream.push_audio(b"\0" * 3201)
    assert session.take(viewer)  # the header; the first block needs more voice
    session.close()
    until(lambda: session.ended)
    assert session.problem is None
    with pytest.raises(AvatarError, match="voice of this session has ended"):
        stream.push_audio(b"\0")
