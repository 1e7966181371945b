"""A worker: one process with a loaded avatar and a limited number of sessions."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import AvatarError
from .placement import Room
from .session import Session, Talk

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5  # between two looks for sessions that nobody watches


class Talker(Protocol):
    """What opens sessions: holds the avatar."""

    need_bytes: int  # of GPU memory, for one session

    def free_bytes(self) -> int | None:
        """Free memory of the GPU; None on a CPU."""

    def open(self, portrait: bytes, settings: Mapping[str, str]) -> Talk:
        """A session's stream. Raises AvatarError for a portrait or settings that cannot be."""


@dataclass(frozen=True)
class StageReport:
    """A worker at this moment; `frames` and `sessions_ended` count since its start. delay: the largest of a session."""

    where: str
    room: Room
    sessions: tuple[str, ...]
    viewers: int
    frames: int
    delay: float


class Stage:
    """The sessions of one worker; its methods may be called from many threads at once.

    seats: sessions at a time. limits: further arguments of Session.
    """

    def __init__(self, new_talker: Callable[[], Talker], seats: int, **limits: Any) -> None:
        self._talker, self._seats, self._limits = new_talker(), seats, limits
        self._sessions: dict[str, Session] = {}
        self._opening = 0
        self._past_frames = 0  # of sessions that are over
        self._at_start = self._talker.free_bytes()
        self._lock = threading.Lock()
        threading.Thread(target=self._look_after, name="stage", daemon=True).start()

    def open(self, name: str, portrait: bytes, settings: Mapping[str, str]) -> str | None:
        """Open a session; None, or a sentence on what is wrong with its portrait or settings.

        Raises BusyError where no seat is free.
        """
        with self._lock:
            if not self._room().fits:
                raise BusyError
            self._opening += 1
        try:
            session = Session(self._talker.open(portrait, settings), **self._limits)
        except AvatarError as problem:
            return str(problem)
        finally:
            with self._lock:
                self._opening -= 1
        with self._lock:
            self._sessions[name] = session
        log.info("session %s opened", name)
        return None

    # A name that is unknown, or whose session is over, is a KeyError in what follows.

    def hear(self, name: str, data: bytes) -> None:
        self._sessions[name].talk.hear(data)

    def end_voice(self, name: str) -> None:
        self._sessions[name].talk.end_voice()

    def join(self, name: str, form: str) -> int | None:
        return self._sessions[name].join(form)

    def take(self, name: str, viewer: int) -> bytes | None:
        session = self._sessions.get(name)
        return None if session is None else session.take(viewer)

    def leave(self, name: str, viewer: int) -> None:
        if session := self._sessions.get(name):
            session.leave(viewer)

    def close(self, name: str) -> None:
        if session := self._sessions.get(name):
            session.close()

    def status(self, name: str) -> dict[str, Any]:
        return self._sessions[name].status()

    def report(self) -> StageReport:
        """Facts for placement, health and metrics."""
        with self._lock:
            sessions, room = dict(self._sessions), self._room()
        facts = [session.status() for session in sessions.values()]
        return StageReport(
            where=f"{platform.node()}:{os.getpid()}", room=room, sessions=tuple(sessions),
            viewers=sum(fact["viewers"] for fact in facts),
            frames=self._past_frames + sum(fact["frames"] for fact in facts),
            delay=max((fact["delay"] or 0.0 for fact in facts), default=0.0),
        )  # fmt: skip

    def _room(self) -> Room:
        """What is left, with what has been promised to sessions that have not taken their memory yet."""
        taken = len(self._sessions) + self._opening
        free, need = self._talker.free_bytes(), self._talker.need_bytes
        if free is not None:
            free = min(free, self._at_start - taken * need)
        return Room(self._seats - taken, free, need)

    def _look_after(self) -> None:
        """Close the sessions that nobody watches, and free the seats of those that are over."""
        while True:
            time.sleep(LOOK_SECONDS)
            for name, session in list(self._sessions.items()):
                if session.expired:
                    session.close()
                    if session.ended:
                        with self._lock:
                            self._past_frames += session.status()["frames"]
                            del self._sessions[name]
                        log.info("session %s is over", name)


class BusyError(Exception):
    """All seats of a worker are taken."""
