"""Workers as actors of a Ray cluster: started, replaced when they are lost, and asked for room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any

from ..errors import AvatarError
from .front import UnknownSessionError, WorkerLostError
from .placement import best_first
from .stage import BusyError, Stage, StageReport, Talker

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0  # between two looks at the workers
ANSWER_SECONDS = 5.0  # that a worker may take to report
CALLS_PER_SESSION = 24  # of one worker at once: viewers, a voice, questions


class RayHall:
    """Sessions on `workers` actors with `seats` each. Made and used in one event loop.

    cpus, gpus: what each actor takes of the cluster. limits: further arguments of Session.
    """

    def __init__(
        self, new_talker: Callable[[], Talker], workers: int, seats: int, cpus: float = 1.0, gpus: float = 0.0,
        **limits: Any,
    ) -> None:  # fmt: skip
        import ray

        self.opened = self.refused = 0
        self.workers = workers
        self._ray, self._new_talker, self._seats, self._limits = ray, new_talker, seats, limits
        self._kind = ray.remote(Stage).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=8 + CALLS_PER_SESSION * seats
        )
        self._stages: list[Any] = []
        self._ready: dict[Any, StageReport] = {}  # actor -> its newest report
        self._starting: dict[Any, asyncio.Future] = {}
        self._where: dict[str, Any] = {}  # session -> actor
        self._placing = asyncio.Lock()
        self._keeper: asyncio.Task | None = None

    async def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        self._keeper.cancel()
        for stage in self._stages:
            self._ray.kill(stage)

    async def open(self, portrait: bytes, settings: dict[str, str]) -> str:
        async with self._placing:
            reports = await self._ask()
            if not reports:
                self.refused += 1
                raise BusyError("The workers are still loading; try again in a moment.")
            order = best_first({str(number): report.room for number, report in enumerate(reports.values())})
            stages = list(reports)
            for number in order:
                stage, name = stages[int(number)], secrets.token_urlsafe(12)
                try:
                    problem = await stage.open.remote(name, portrait, settings)
                except (BusyError, self._ray.exceptions.RayActorError):
                    continue
                if problem is not None:
                    raise AvatarError(problem)
                self._where[name] = stage
                self.opened += 1
                return name
        self.refused += 1
        seats = len(reports) * self._seats
        raise BusyError(f"Busy: {seats} of {seats} sessions are taken or their GPUs are full; try again later.")

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

    async def reports(self) -> list[StageReport]:
        return list((await self._ask()).values())

    async def _ask(self) -> dict[Any, StageReport]:
        """The newest reports of the workers that are loaded and answer; what is over is forgotten."""
        stages, known = list(self._ready), dict(self._where)
        answers = [asyncio.wait_for(answer(stage.report), ANSWER_SECONDS) for stage in stages]
        found = dict(zip(stages, await asyncio.gather(*answers, return_exceptions=True), strict=True))
        for stage, report in found.items():
            if isinstance(report, StageReport):
                self._ready[stage] = report
                for name, where in known.items():
                    if where is stage and name not in report.sessions:
                        self._where.pop(name, None)
            elif isinstance(report, self._ray.exceptions.RayActorError):
                self._drop(stage)
        return {stage: report for stage, report in found.items() if isinstance(report, StageReport)}

    async def _keep(self) -> None:
        """Start workers, take them into service once they are loaded, and replace those that are lost."""
        while True:
            for _ in range(self.workers - len(self._stages)):
                stage = self._kind.remote(self._new_talker, self._seats, **self._limits)
                self._stages.append(stage)
                self._starting[stage] = asyncio.ensure_future(answer(stage.report))
            for stage, started in list(self._starting.items()):
                if started.done():
                    del self._starting[stage]
                    if started.exception() is None:
                        self._ready[stage] = started.result()
                    else:
                        log.error("a worker did not start: %s", started.exception())
                        self._drop(stage)
            async with self._placing:
                await self._ask()
            await asyncio.sleep(LOOK_SECONDS)

    def _drop(self, stage: Any) -> None:
        """Forget a worker and its sessions, and end its process."""
        log.warning("a worker was lost")
        self._ready.pop(stage, None)
        self._stages.remove(stage)
        self._where = {name: where for name, where in self._where.items() if where is not stage}
        with contextlib.suppress(Exception):
            self._ray.kill(stage)


async def answer(method: Any) -> Any:
    """What an actor's method returns."""
    return await method.remote()
