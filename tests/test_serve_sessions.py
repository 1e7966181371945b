"""Sessions of the serve command in this process: placement, seats, and when a session ends."""

from __future__ import annotations

import threading
import time

import pytest

from joyavatar_core.serving import Broadcast
from joyavatar_core.serving.placement import Room, best_first
from joyavatar_core.serving.session import Session
from joyavatar_core.serving.stage import BusyError, Stage


class Talk:
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


class Talker:
    need_bytes = 40

    def __init__(self, free: int | None = None) -> None:
        self.free = free
        self.talks: list[Talk] = []

    def free_bytes(self) -> int | None:
        return self.free

    def open(self, portrait: bytes, settings: dict) -> Talk:
        self.talks.append(Talk())
        return self.talks[-1]


def until(true) -> None:
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


def test_a_session_goes_where_most_gpu_memory_is_free():
    rooms = {"a": Room(2, 50, 40), "b": Room(1, 90, 40), "c": Room(3, 30, 40), "d": Room(0, 99, 40)}
    assert best_first(rooms) == ["b", "a"]


def test_on_processors_a_session_goes_where_most_seats_are_free():
    assert best_first({"a": Room(1), "b": Room(2), "c": Room(0), "d": Room(2)}) == ["b", "d", "a"]


def test_the_first_viewer_sees_the_first_frame_and_the_last_one_ends_the_session():
    talk = Talk()
    session = Session(talk, max_viewers=2, patience=3600, linger=0)
    time.sleep(0.1)
    assert not talk.started.is_set() and not session.expired
    one, two = session.join("mp4"), session.join("mp4")
    assert session.join("mp4") is None  # a third seat
    assert talk.started.wait(60) and session.take(one) == b"head"
    assert session.take(one) == b"block" and session.take(one, timeout=0) == b""
    session.leave(one)
    assert not session.expired and session.take(one) is None
    session.leave(two)
    until(lambda: session.expired)
    session.close()
    until(lambda: session.ended)


def test_a_session_that_nobody_comes_to_is_over_without_having_begun():
    talk = Talk()
    session = Session(talk, patience=0)
    until(lambda: session.expired)
    session.close()
    until(lambda: session.ended)
    assert not talk.started.is_set()


def test_a_viewer_that_comes_back_in_time_keeps_the_session():
    session = Session(Talk(), linger=3600)
    session.leave(session.join("mp4"))
    assert not session.expired
    session.close()


def test_a_stage_has_as_many_seats_as_it_says_and_frees_them():
    talker = Talker()
    stage = Stage(lambda: talker, 2, linger=0)
    assert stage.open("a", b"", {}) is None and stage.open("b", b"", {}) is None
    with pytest.raises(BusyError):
        stage.open("c", b"", {})
    viewer = stage.join("a", "mp4")
    assert stage.report().viewers == 1 and stage.report().delay == 0.5 and stage.report().frames == 18
    stage.leave("a", viewer)
    until(lambda: stage.report().sessions == ("b",))
    assert stage.report().room == Room(1, None, 40) and stage.report().frames == 18
    assert stage.open("c", b"", {}) is None
    with pytest.raises(KeyError):
        stage.status("a")
    assert stage.take("a", viewer) is None
    for name in "bc":
        stage.close(name)


def test_memory_is_promised_to_a_session_before_it_has_taken_it():
    talker = Talker(free=100)
    stage = Stage(lambda: talker, 9)
    for name in "ab":
        assert stage.open(name, b"", {}) is None
    assert stage.report().room == Room(7, 20, 40)
    with pytest.raises(BusyError):
        stage.open("c", b"", {})
    for name in "ab":
        stage.close(name)


def test_a_stage_does_not_open_on_what_its_gpu_has_left():
    stage = Stage(lambda: Talker(free=39), 9)
    with pytest.raises(BusyError):
        stage.open("a", b"", {})
