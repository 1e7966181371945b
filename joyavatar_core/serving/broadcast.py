"""A growing stream of bytes for any number of listeners. A slow listener delays neither it nor the others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

MAX_BACKLOG = 16 << 20  # bytes queued for a listener; about a minute at 512x512


class Listener:
    """The queue of one viewer: iterate it for the stream's bytes, then `Broadcast.leave`.

    The first portions are the stream's head and its newest block. Iteration ends with the stream, or when the
    listener's backlog is full (`dropped`).
    """

    def __init__(self, limit: int, on_drop: Callable[[], None] | None) -> None:
        self.dropped = False
        self._limit, self._on_drop = limit, on_drop
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[bytes]:
        while (data := self.take()) is not None:
            yield data

    def take(self, timeout: float | None = None) -> bytes | None:
        """The next portion: empty where none comes within `timeout` seconds, None at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._ended, timeout):
                return b""
            if not self._waiting:
                return None
            data = self._waiting.popleft()
            self._bytes -= len(data)
            return data

    def offer(self, data: bytes) -> None:
        """Queue bytes without waiting. A listener whose backlog is full is dropped."""
        with self._changed:
            if self._ended or not data:
                return
            if self._waiting and self._bytes + len(data) > self._limit:
                self.dropped = self._ended = True
                self._waiting.clear()
            else:
                self._waiting.append(data)
                self._bytes += len(data)
            self._changed.notify_all()
        if self.dropped and self._on_drop is not None:
            self._on_drop()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Broadcast:
    """Life cycle: made with the stream's head, `publish` block after block, `end`. Listeners come and go at any time.

    head: what every listener gets first. Each published portion has to be one that a listener can begin with, at the
    latest from where `begin` cuts it.
    """

    def __init__(
        self, head: bytes = b"", max_backlog: int = MAX_BACKLOG, begin: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.dropped = 0  # listeners that were too slow
        self._head, self._limit = head, max_backlog
        self._newest = b""
        self._begin = begin
        self._ended = False
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def publish(self, data: bytes) -> None:
        """Queue a portion for all listeners, without waiting."""
        with self._lock:
            self._newest = data or self._newest
            for listener in list(self._listeners):
                listener.offer(data)
                if listener.dropped:
                    self._listeners.discard(listener)
                    self.dropped += 1

    def join(self, on_drop: Callable[[], None] | None = None) -> Listener:
        """A new listener. on_drop: called in the publisher's thread when the listener is dropped."""
        listener = Listener(self._limit, on_drop)
        with self._lock:
            newest = self._newest if self._begin is None else self._begin(self._newest)
            for data in (self._head, newest):
                listener.offer(data)
            if self._ended:
                listener.end()
            else:
                self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)

    def end(self) -> None:
        """End the stream: listeners get what is queued for them, then stop."""
        with self._lock:
            self._ended = True
            for listener in self._listeners:
                listener.end()
