"""An HTTP server for one stream: a page with a player, fragmented mp4, MPEG-TS, and the state as JSON."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from ..errors import AvatarError
from .access import allowed_name, is_address, is_loopback, refusal
from .broadcast import Broadcast

log = logging.getLogger(__name__)

STREAMS = {"/live.mp4": ("mp4", "video/mp4"), "/live.ts": ("mpegts", "video/mp2t")}
PAGES = {"/": ("index.html", "text/html; charset=utf-8"), "/live.js": ("live.js", "text/javascript; charset=utf-8")}
MAX_CONNECTIONS = 32  # of any kind; each is a thread
REQUEST_SECONDS = 10  # to send a request, or to take any of the stream
PROTECTION = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; media-src 'self' blob:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LiveServer:
    """Serves broadcasts to at most `max_viewers`; generation never waits for a viewer.

    Life cycle: made (the port is taken), `start`, `close`. As a context manager it starts and closes.

    Args:
        broadcasts: format ("mp4", "mpegts") -> Broadcast.
        host: the address to listen on; loopback unless told otherwise. port: 0 takes any free one.
        names: names (or numbers) besides its own under which the server may be asked for, on any port and scheme.
        status: returns the content of ``/status.json``.
    Raises AvatarError where the address cannot be used.
    """

    def __init__(
        self,
        broadcasts: Mapping[str, Broadcast],
        host: str = "127.0.0.1",
        port: int = 8090,
        *,
        names: tuple[str, ...] = (),
        max_viewers: int = 8,
        status: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.broadcasts, self.status, self.max_viewers = dict(broadcasts), status, max_viewers
        self.viewers = 0
        self.names = frozenset(map(allowed_name, names))
        self._lock = threading.Lock()
        try:
            self._server = _Server((host, port), self)
        except (OSError, OverflowError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise AvatarError(
                f"The live stream cannot be served at {host}:{port} ({reason}); choose another address or port."
            ) from None
        self.host, self.port = host, self._server.server_address[1]
        self.loopback = is_loopback(host)

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    def start(self) -> LiveServer:
        """Serve in threads of its own; returns self."""
        if not self.loopback:
            log.warning("everybody who can connect to %s:%d can watch the live stream", self.host, self.port)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="live server", daemon=True).start()
        return self

    def close(self, linger: float = 3.0) -> None:
        """End the streams, let viewers read what is queued for at most `linger` seconds, and stop."""
        deadline = time.monotonic() + linger
        for broadcast in self.broadcasts.values():
            broadcast.end()
        while self.viewers and time.monotonic() < deadline:
            time.sleep(0.02)
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> LiveServer:
        return self.start()

    def __exit__(self, *problem: object) -> None:
        self.close(0.0 if problem[0] is not None else 3.0)

    def admit(self) -> bool:
        """Count one more viewer; False where there are `max_viewers`."""
        with self._lock:
            if self.viewers >= self.max_viewers:
                return False
            self.viewers += 1
            return True

    def dismiss(self) -> None:
        with self._lock:
            self.viewers -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], live: LiveServer) -> None:
        self.live = live
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if is_address(address[0]) and ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a viewer's connection broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    server_version, sys_version = "JoyAvatar", ""

    def do_GET(self) -> None:
        live = self.server.live
        path = self.path.partition("?")[0]
        why = refusal(self.headers, live.port, live.loopback, live.names)
        if why:
            self._answer(403, f"{why}\n".encode())
        elif path in PAGES:
            name, kind = PAGES[path]
            self._answer(200, files("joyavatar_core").joinpath("assets", "live", name).read_bytes(), kind)
        elif path == "/status.json":
            facts = {**live.status(), "viewers": live.viewers}
            self._answer(200, json.dumps(facts).encode(), "application/json")
        elif path in STREAMS and STREAMS[path][0] in live.broadcasts:
            self._stream(*STREAMS[path])
        else:
            self._answer(404, b"no such page\n")

    do_HEAD = do_GET

    def _answer(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self._head(code, {"Content-Type": kind, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, code: int, fields: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {**fields, **PROTECTION, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def _stream(self, name: str, kind: str) -> None:
        live = self.server.live
        if self.command == "HEAD":
            return self._head(200, {"Content-Type": kind})
        if not live.admit():
            return self._answer(503, b"too many viewers, try again later\n")
        broadcast = live.broadcasts[name]
        listener = broadcast.join(on_drop=self._hang_up)
        try:
            self._head(200, {"Content-Type": kind, "X-Accel-Buffering": "no"})  # proxies: do not buffer
            for data in listener:
                self.wfile.write(data)
        except OSError:
            pass  # gone, or stuck for REQUEST_SECONDS
        finally:
            broadcast.leave(listener)
            live.dismiss()
            if listener.dropped:
                log.warning("a viewer was too slow and was dropped")

    def _hang_up(self) -> None:
        """End a write that blocks because the viewer reads nothing."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, form: str, *args: object) -> None:
        log.debug("viewer: " + form, *args)
