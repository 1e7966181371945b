"""One session: a stream that is generated in its own thread while it has viewers."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import AvatarError
from .broadcast import Broadcast, Listener

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 60.0  # for a first viewer to come
LINGER_SECONDS = 5.0  # for a viewer to come back, as after a reload
TAKE_SECONDS = 10.0  # that `take` waits for bytes


class SessionStream(Protocol):
    """A stream that can be run: what makes the video of a session."""

    broadcasts: Mapping[str, Broadcast]  # by format

    def push_audio(self, data: bytes) -> None:
        """Take PCM; waits while too much of it is unused. Raises AvatarError once the voice has ended."""

    def finish_audio(self) -> None:
        """Say that no PCM follows."""

    def run(self) -> None:
        """Make the video to its end, or until `stop`."""

    def stop(self) -> None:
        """Make `run` return soon, from another thread."""

    def status(self) -> dict[str, Any]:
        """Plain facts of this moment."""


class Session:
    """Life cycle: made -> `join`, with which the video begins -> `take`, `leave` -> `close`; over when `ended`.

    It is to be closed when `expired`: when the last viewer has left for `linger` seconds, when none has come for
    `patience` seconds, or when the video is over and everybody has it.
    """

    def __init__(
        self,
        stream: SessionStream,
        max_viewers: int = 8,
        patience: float = PATIENCE_SECONDS,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self.stream, self.max_viewers = stream, max_viewers
        self.problem: str | None = None  # the sentence that ended the video early
        self._linger = linger
        self._viewers: dict[int, tuple[Broadcast, Listener]] = {}
        self._numbers = itertools.count(1)
        self._leave_by = time.monotonic() + patience
        self._lock = threading.Lock()
        self._begin = threading.Event()  # set by the first viewer, who is to see the first frame
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return not self._thread.is_alive()

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    @property
    def expired(self) -> bool:
        """Whether it has no viewers any more."""
        with self._lock:
            return not self._viewers and (self.ended or time.monotonic() > self._leave_by)

    def join(self, form: str) -> int | None:
        """A new viewer of a format; its number, None where there are `max_viewers`."""
        broadcast = self.stream.broadcasts[form]
        with self._lock:
            if len(self._viewers) >= self.max_viewers:
                return None
            number = next(self._numbers)
            self._viewers[number] = broadcast, broadcast.join()
            self._begin.set()
            return number

    def take(self, viewer: int, timeout: float = TAKE_SECONDS) -> bytes | None:
        """A viewer's next bytes; empty where none come within `timeout` seconds, None at the end."""
        with self._lock:
            found = self._viewers.get(viewer)
        return None if found is None else found[1].take(timeout)

    def leave(self, viewer: int) -> None:
        """A viewer has gone."""
        with self._lock:
            broadcast, listener = self._viewers.pop(viewer, (None, None))
            if listener is not None:
                broadcast.leave(listener)
                listener.end()  # a `take` that waits returns
            self._leave_by = time.monotonic() + self._linger

    def status(self) -> dict[str, Any]:
        """Plain facts, as the live page asks for them."""
        state = {"state": "ended", "problem": self.problem} if self.ended else {}
        return {**self.stream.status(), "viewers": self.viewers, **state}

    def close(self) -> None:
        """End the video; returns at once."""
        self._closed = True
        self.stream.stop()
        self._begin.set()

    def _run(self) -> None:
        try:
            self._begin.wait()
            if not self._closed:
                self.stream.run()
        except AvatarError as problem:
            self.problem = str(problem)
            log.warning("a session ended: %s", problem)
        except Exception as problem:
            self.problem = f"{type(problem).__name__}: {problem}"
            log.exception("a session broke")
        finally:
            for broadcast in self.stream.broadcasts.values():
                broadcast.end()
