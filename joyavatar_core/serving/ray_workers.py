"""Workers as actors of a Ray cluster: started, replaced when they are lost, and asked for capacity."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any

from ..errors import AvatarError
from .http_app import UnknownSessionError, WorkerLostError
from .placement import best_first
from .session_worker import BusyError, SessionWorker, StreamFactory, WorkerReport

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0  # between two looks at the workers
ANSWER_SECONDS = 5.0  # that a worker may take to report
CALLS = 8  # of a session at once besides its viewers: its voice, questions


class RayWorkers:
    """Sessions on `workers` actors with at most `sessions` each. Made and used in one event loop.

    cpus, gpus: what each actor takes of the cluster. limits: further arguments of Session.
    """

    def __init__(
        self, new_streams: Callable[[], StreamFactory], workers: int, sessions: int, max_viewers: int = 8,
        cpus: float = 1.0, gpus: float = 0.0, **limits: Any,
    ) -> None:  # fmt: skip
        import ray

        self.opened = self.refused = 0
        self.workers = workers
        self.problem: str | None = None  # why the newest worker did not start
        self._ray, self._new_streams, self._sessions = ray, new_streams, sessions
        self._more = {"max_viewers": max_viewers, **limits}
        calls = CALLS * (1 + sessions) + sessions * max_viewers  # each viewer waits in one
        self._kind = ray.remote(SessionWorker).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=calls
        )
        self._workers: list[Any] = []
        self._ready: dict[Any, WorkerReport] = {}  # actor -> its newest report
        self._starting: dict[Any, asyncio.Future] = {}
        self._where: dict[str, Any] = {}  # session -> actor
        self._placing = asyncio.Lock()
        self._keeper: asyncio.Task | None = None

    async def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        self._keeper.cancel()
        for worker in self._workers:
            self._ray.kill(worker)

    async def open(self, portrait: bytes, settings: dict[str, str]) -> str:
        async with self._placing:
            reports = await self._ask()
            if not reports:
                self.refused += 1
                raise BusyError("The workers are still loading; try again in a moment.")
            order = best_first({str(number): report.capacity for number, report in enumerate(reports.values())})
            workers = list(reports)
            for number in order:
                worker, name = workers[int(number)], secrets.token_urlsafe(12)
                try:
                    problem = await worker.open.remote(name, portrait, settings)
                except (BusyError, self._ray.exceptions.RayActorError):
                    continue
                if problem is not None:
                    raise AvatarError(problem)
                self._where[name] = worker
                self.opened += 1
                return name
        self.refused += 1
        most = len(reports) * self._sessions
        raise BusyError(f"Busy: {most} of {most} sessions are taken or their GPUs are full; try again later.")

    async def call(self, name: str, method: str, *arguments: Any) -> Any:
        if name not in self._where:
            raise UnknownSessionError
        try:
            return await getattr(self._where[name], method).remote(name, *arguments)
        except self._ray.exceptions.RayTaskError as problem:
            if isinstance(problem.cause, KeyError):
                raise UnknownSessionError from None
            raise problem.cause from None
        except self._ray.exceptions.RayActorError:
            self._where.pop(name, None)
            raise WorkerLostError from None

    def send(self, name: str, method: str, *arguments: Any) -> None:
        if name in self._where:
            getattr(self._where[name], method).remote(name, *arguments)

    async def reports(self) -> list[WorkerReport]:
        return list((await self._ask()).values())

    async def _ask(self) -> dict[Any, WorkerReport]:
        """The newest reports of the workers that are loaded and answer; what is over is forgotten."""
        workers, known = list(self._ready), dict(self._where)
        answers = [asyncio.wait_for(answer(worker.report), ANSWER_SECONDS) for worker in workers]
        found = dict(zip(workers, await asyncio.gather(*answers, return_exceptions=True), strict=True))
        for worker, report in found.items():
            if isinstance(report, WorkerReport):
                self._ready[worker] = report
                for name, where in known.items():
                    if where is worker and name not in report.sessions:
                        self._where.pop(name, None)
            elif isinstance(report, self._ray.exceptions.RayActorError):
                self._drop(worker)
        return {worker: report for worker, report in found.items() if isinstance(report, WorkerReport)}

    async def _keep(self) -> None:
        """Start workers, take them into service once they are loaded, and replace those that are lost."""
        while True:
            for _ in range(self.workers - len(self._workers)):
                worker = self._kind.remote(self._new_streams, self._sessions, **self._more)
                self._workers.append(worker)
                self._starting[worker] = asyncio.ensure_future(answer(worker.report))
            for worker, started in list(self._starting.items()):
                if started.done():
                    del self._starting[worker]
                    if started.exception() is None:
                        self._ready[worker], self.problem = started.result(), None
                    else:
                        self.problem = str(started.exception()).strip().splitlines()[-1]
                        log.error("a worker did not start: %s", self.problem)
                        self._drop(worker)
            async with self._placing:
                await self._ask()
            await asyncio.sleep(LOOK_SECONDS)

    def _drop(self, worker: Any) -> None:
        """Forget a worker and its sessions, and end its process."""
        if worker not in self._workers:
            return
        self._ready.pop(worker, None)
        self._workers.remove(worker)
        self._where = {name: where for name, where in self._where.items() if where is not worker}
        with contextlib.suppress(Exception):
            self._ray.kill(worker)


async def answer(method: Any) -> Any:
    """What an actor's method returns."""
    return await method.remote()
