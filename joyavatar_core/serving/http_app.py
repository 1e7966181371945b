"""The HTTP side of many sessions: an ASGI application over whatever holds the workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import AvatarError
from .access import allowed_name, is_loopback, refusal
from .metrics import METRICS_TYPE, metrics_text
from .server import PAGES, PROTECTION, STREAMS
from .session_worker import BusyError, WorkerReport

log = logging.getLogger(__name__)
LARGEST_PORTRAIT = 32 << 20  # bytes
RETRY_SECONDS = "5"


class UnknownSessionError(Exception):
    """There is no session of that name, or it is over."""


class WorkerLostError(Exception):
    """The worker of a session is gone."""


class Workers(Protocol):
    """What holds the workers."""

    opened: int  # sessions since the start
    refused: int  # requests that found no worker with room
    workers: int  # that there are to be
    problem: str | None  # why the newest worker did not start

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def open(self, portrait: bytes, settings: dict[str, str]) -> str:
        """Open a session; its name. Raises AvatarError for bad input, BusyError where no worker has room."""

    async def call(self, name: str, method: str, *arguments: Any) -> Any:
        """A method of a session's worker, called with the session's name first.

        Raises UnknownSessionError, WorkerLostError, and what the method raises.
        """

    def send(self, name: str, method: str, *arguments: Any) -> None:
        """As `call`, without waiting."""

    async def reports(self) -> list[WorkerReport]:
        """Of the workers that answer."""


class Endpoints:
    """The answers of the application; `workers` hold the sessions."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    async def create(self, request: Request) -> Response:
        """POST /sessions: open a session for the portrait in the body."""
        portrait = bytearray()
        async for part in request.stream():
            portrait += part
            if len(portrait) > LARGEST_PORTRAIT:
                return sentence(413, f"The portrait is larger than {LARGEST_PORTRAIT >> 20} MiB; send a smaller one.")
        if not portrait:
            return sentence(400, "The portrait is missing; send a picture as the body of the request.")
        try:
            name = await self.workers.open(bytes(portrait), dict(request.query_params))
        except BusyError as problem:
            return sentence(503, str(problem), {"Retry-After": RETRY_SECONDS})
        except AvatarError as problem:
            return sentence(400, str(problem))
        place = f"/sessions/{name}/"
        links = {"session": name, "page": place, "voice": f"{place}voice", "status": f"{place}status.json"}
        links |= {kind: place + path.removeprefix("/") for path, (kind, _) in STREAMS.items()}
        return JSONResponse(links, 201, {"Location": place})

    async def push_audio(self, request: Request) -> Response:
        """POST or PUT /sessions/NAME/voice: the voice in the body goes to the session."""
        name = request.path_params["name"]
        more = request.query_params.get("more", "no").lower() in ("yes", "true", "1")
        try:
            async for part in request.stream():
                if part:
                    await self.workers.call(name, "push_audio", part)
        except ClientDisconnect:
            more = False
        except AvatarError as problem:
            return sentence(409, str(problem))
        if not more:
            await self.workers.call(name, "finish_audio")
        return Response(status_code=204)

    async def page(self, path: str, request: Request) -> Response:
        """GET: a file of the page that plays a session."""
        await self.workers.call(request.path_params["name"], "status")
        name, kind = PAGES[path]
        body = files("joyavatar_core").joinpath("assets", "live", name).read_bytes()
        return Response(body, media_type=kind)

    async def status(self, request: Request) -> Response:
        """GET: a session's status as JSON."""
        return JSONResponse(await self.workers.call(request.path_params["name"], "status"))

    async def watch(self, path: str, request: Request) -> Response:
        """GET: a session's video as a stream."""
        form, kind = STREAMS[path]
        name = request.path_params["name"]
        viewer = await self.workers.call(name, "join", form)
        if viewer is None:
            return sentence(503, "This session has reached its limit of viewers; try again later.")
        return VideoResponse(self.workers, name, viewer, kind)

    async def end(self, request: Request) -> Response:
        """DELETE: end a session."""
        await self.workers.call(request.path_params["name"], "close")
        return Response(status_code=204)

    async def health(self, request: Request) -> Response:
        """GET /health."""
        reports = await self.workers.reports()
        taken = sum(len(report.sessions) for report in reports)
        facts = {
            "status": "ok" if reports else "loading", "workers": len(reports), "workers_wanted": self.workers.workers,
            "sessions": taken, "free_sessions": sum(max(0, report.capacity.sessions) for report in reports),
            "problem": self.workers.problem,
        }  # fmt: skip
        return JSONResponse(facts, 200 if reports else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus text."""
        return Response(metrics_text(await self.workers.reports(), self.workers), media_type=METRICS_TYPE)

    async def unknown(self, request: Request, problem: Exception) -> Response:
        """The answer for a session that does not exist."""
        return sentence(404, "There is no such session, or it is over; open a new one with POST /sessions.")

    async def lost(self, request: Request, problem: Exception) -> Response:
        """The answer for a session whose worker was lost."""
        return sentence(502, "The session's worker was lost; open a new one with POST /sessions.")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Start the workers with the application and stop them with it."""
        await self.workers.start()
        yield
        await self.workers.stop()


def application(workers: Workers, port: int, host: str = "127.0.0.1", names: Sequence[str] = ()) -> Any:
    """The ASGI application; answers to requests as `access.refusal` has it for a server at host and port."""
    endpoints = Endpoints(workers)
    session = "/sessions/{name}"
    routes = [
        Route("/sessions", endpoints.create, methods=["POST"]),
        Route(f"{session}/voice", endpoints.push_audio, methods=["POST", "PUT"]),
        *(Route(session + path, partial(endpoints.watch, path), methods=["GET"]) for path in STREAMS),
        *(Route(session + path, partial(endpoints.page, path), methods=["GET"]) for path in PAGES),
        Route(f"{session}/status.json", endpoints.status, methods=["GET"]),
        Route(session, endpoints.end, methods=["DELETE"]),
        Route("/health", endpoints.health, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
    ]
    handlers = {UnknownSessionError: endpoints.unknown, WorkerLostError: endpoints.lost}
    app = Starlette(routes=routes, lifespan=endpoints.lifespan, exception_handlers=handlers)
    return guarded(app, port, is_loopback(host), frozenset(map(allowed_name, names)))


def sentence(code: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(text + "\n", code, headers)


def guarded(app: Any, port: int, loopback: bool, names: frozenset[str]) -> Callable:
    """The application behind `access.refusal`, with the live server's protecting headers."""
    protection = [(name.lower().encode(), value.encode()) for name, value in PROTECTION.items()]

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)

        async def send_protected(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *protection]}
            await send(message)

        why = refusal(Request(scope).headers, port, loopback, names)
        answer = sentence(403, f"{why}") if why else app
        await answer(scope, receive, send_protected)

    return guard


class VideoResponse(Response):
    """The bytes of a viewer until the stream ends or the viewer has gone; tells the session in either case."""

    def __init__(self, workers: Workers, name: str, viewer: int, kind: str) -> None:
        super().__init__(media_type=kind, headers={"X-Accel-Buffering": "no"})  # a proxy hands on what it gets
        del self.headers["content-length"]
        self._workers, self._name, self._viewer = workers, name, viewer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (data := await self._next(gone)) is not None:
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        except OSError:
            pass  # how some servers say that the viewer has gone
        finally:
            gone.cancel()
            self._workers.send(self._name, "leave", self._viewer)

    async def _next(self, gone: asyncio.Future) -> bytes | None:
        """The next bytes; None at the end and when the viewer has gone."""
        taking = asyncio.ensure_future(self._workers.call(self._name, "take", self._viewer))
        try:
            await asyncio.wait({taking, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return None
            with contextlib.suppress(UnknownSessionError, WorkerLostError):
                return await taking
            return None
        finally:
            taking.cancel()


async def disconnected(receive: Callable) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
