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
from .placement import Capacity
from .session import Session, SessionStream

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5  # between two checks for sessions without viewers


class StreamFactory(Protocol):
    """What opens sessions: holds the avatar."""

    need_bytes: int  # of GPU memory, for one session

    def free_bytes(self) -> int | None:
        """Free memory of the GPU; None on a CPU."""

    def open(self, portrait: bytes, settings: Mapping[str, str]) -> SessionStream:
        """A session's stream. Raises AvatarError for a portrait or settings that cannot be."""


@dataclass(frozen=True)
class WorkerReport:
    """A worker at this moment.

    where: machine and process. sessions: their names. frames: of video since the worker's start. delay: seconds from a
    block's last sample to its frames, in the session where it is largest.
    """

    where: str
    capacity: Capacity
    sessions: tuple[str, ...]
    viewers: int
    frames: int
    delay: float


class SessionWorker:
    """The sessions of one worker; its methods may be called from many threads at once.

    sessions: sessions at a time. limits: further arguments of Session.
    """

    def __init__(self, new_streams: Callable[[], StreamFactory], sessions: int, **limits: Any) -> None:
        self._streams, self._limit, self._limits = new_streams(), sessions, limits
        self._sessions: dict[str, Session] = {}
        self._opening = 0
        self._past_frames = 0  # of sessions that are over
        self._at_start = self._streams.free_bytes()
        self._lock = threading.Lock()
        threading.Thread(target=self._look_after, name="worker", daemon=True).start()

    def open(self, name: str, portrait: bytes, settings: Mapping[str, str]) -> str | None:
        """Open a session; None, or a sentence on what is wrong with its portrait or settings.

        Raises BusyError where no further session fits.
        """
        with self._lock:
            if not self._capacity().fits:
                raise BusyError
            self._opening += 1
        try:
            session = Session(self._streams.open(portrait, settings), **self._limits)
        except BaseException as problem:
            with self._lock:
                self._opening -= 1
            if isinstance(problem, AvatarError):
                return str(problem)
            raise
        with self._lock:
            self._opening -= 1
            self._sessions[name] = session
        log.info("session %s opened", name)
        return None

    # A name that is unknown, or whose session is over, is a KeyError in what follows.

    def push_audio(self, name: str, data: bytes) -> None:
        self._sessions[name].stream.push_audio(data)

    def finish_audio(self, name: str) -> None:
        self._sessions[name].stream.finish_audio()

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

    def report(self) -> WorkerReport:
        """Facts for placement, health and metrics."""
        with self._lock:
            sessions, capacity = dict(self._sessions), self._capacity()
        facts = [session.status() for session in sessions.values()]
        return WorkerReport(
            where=f"{platform.node()}:{os.getpid()}", capacity=capacity, sessions=tuple(sessions),
            viewers=sum(fact["viewers"] for fact in facts),
            frames=self._past_frames + sum(fact["frames"] for fact in facts),
            delay=max((fact["delay"] or 0.0 for fact in facts), default=0.0),
        )  # fmt: skip

    def _capacity(self) -> Capacity:
        """What is left, with what has been promised to sessions that have not taken their memory yet."""
        taken = len(self._sessions) + self._opening
        free, need = self._streams.free_bytes(), self._streams.need_bytes
        if free is not None:
            free = min(free, self._at_start - taken * need)
        return Capacity(self._limit - taken, free, need)

    def _look_after(self) -> None:
        """Close the sessions without viewers, and remove those that are over."""
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
    """No further session fits on a worker."""
