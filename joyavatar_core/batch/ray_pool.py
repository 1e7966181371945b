"""The jobs of a batch on a Ray cluster: a pool of workers, each a process that keeps its avatar.

The queue and the manifest stay in the driver. A worker has one job at a time, so that what is in flight is bounded by
the number of workers. What a job has recorded lies in its state folder, on storage that all machines share: a job that
loses its worker goes on from there with another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import AvatarError
from .cluster import WorkerResources
from .jobs import Job
from .local import finish
from .manifest import Manifest
from .progress_bar import BatchBar
from .work import Make, Outcome, StopJob, by_group, do_job

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0  # between two looks at how far the jobs are
GRACE_SECONDS = 20.0  # for a job to end its block and its files when it is stopped
BUSY_SECONDS = 5.0  # before a state folder that is in use is tried again: its lost worker may still be ending
CALLS = 3  # of one worker at once: its job, a question, a stop


class Worker:
    """An actor: one process that makes videos in turn. While `run` works, the other calls are answered."""

    def __init__(self, new_make: Callable[[], Make]) -> None:
        self._make = new_make()
        self._frames, self._total = 0, 1
        self._stopped = False

    def where(self) -> str:
        """The machine and the process."""
        return f"{platform.node()}:{os.getpid()}"

    def run(self, job: Job) -> Outcome:
        self._frames, self._total = 0, 1
        return do_job(self._make, job, self._note)

    def progress(self) -> tuple[int, int]:
        """(frames so far, frames in all) of the job that runs."""
        return self._frames, self._total

    def stop(self) -> None:
        """End the job that runs after its block."""
        self._stopped = True

    def _note(self, frames: int, total: int) -> None:
        self._frames, self._total = frames, total
        if self._stopped:
            raise StopJob


@dataclass(eq=False)
class WorkerHandle:
    """The driver's side of one worker."""

    actor: Any
    where: str = ""
    group: str | None = None  # of its newest job: whose avatar it holds
    asked: Any = None  # the reference of a question that is under way


class RayPool:
    """Runs jobs on workers of a cluster; use once.

    Args:
        ray: the package, connected.
        new_make: makes what makes the videos, in each worker; has to be importable there.
        resources: what each worker takes. workers: how many at most.
        retries: how often a job may lose its worker, or break it, before it counts as failed.
    """

    def __init__(
        self, ray: Any, new_make: Callable[[], Make], resources: WorkerResources, workers: int, manifest: Manifest,
        bar: BatchBar, *, retries: int = 3, keep_states: bool = False,
    ) -> None:  # fmt: skip
        self._ray, self._new_make, self._resources, self._workers = ray, new_make, resources, workers
        self._manifest, self._bar, self._retries, self._keep_states = manifest, bar, retries, keep_states
        self._queue: deque[Job] = deque()
        self._later: list[tuple[float, Job]] = []
        self._starting: dict[Any, WorkerHandle] = {}
        self._idle: list[WorkerHandle] = []
        self._running: dict[Any, tuple[WorkerHandle, Job]] = {}
        self._failed_starts = 0
        self._looked = 0.0

    def run(self, jobs: list[Job]) -> None:
        """Do all jobs. KeyboardInterrupt ends the running jobs, keeps their state folders, and is raised again.

        Raises AvatarError where workers do not start.
        """
        self._queue.extend(by_group(jobs))
        try:
            while self._queue or self._later or self._running:
                self._fill()
                self._wait()
                self._look()
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for worker in [*self._starting.values(), *self._idle, *(worker for worker, _ in self._running.values())]:
                self._dismiss(worker)

    def _fill(self) -> None:
        """Give jobs to idle workers, and start workers for the rest."""
        now = time.monotonic()
        self._queue.extendleft(job for due, job in self._later if due <= now)
        self._later = [(due, job) for due, job in self._later if due > now]
        while self._queue and self._idle:
            worker = self._idle.pop()
            job = next((job for job in self._queue if job.group == worker.group), self._queue[0])
            self._queue.remove(job)
            worker.group = job.group
            tries = self._manifest.jobs[job.name].get("tries", 0) + 1
            self._manifest.note(job, "running", worker=worker.where, tries=tries, problem=None)
            self._running[worker.actor.run.remote(job)] = worker, job
        present = len(self._starting) + len(self._running)
        for _ in range(min(self._workers - present, len(self._queue) - len(self._starting))):
            kind = self._ray.remote(Worker).options(
                num_cpus=self._resources.cpus, num_gpus=self._resources.gpus, max_restarts=0, max_concurrency=CALLS
            )
            worker = WorkerHandle(kind.remote(self._new_make))
            self._starting[worker.actor.where.remote()] = worker

    def _wait(self) -> None:
        """Wait until something ends, for LOOK_SECONDS at most, and take it up."""
        waiting = [*self._running, *self._starting]
        if not waiting:
            time.sleep(LOOK_SECONDS)
            return
        ended, _ = self._ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)
        for reference in ended:
            if reference in self._starting:
                self._take_worker(reference)
            else:
                self._take_outcome(reference)

    def _take_worker(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            worker.where = self._ray.get(reference)
        except self._ray.exceptions.RayError as problem:
            self._dismiss(worker)
            self._failed_starts += 1
            log.warning("a worker did not start: %s", problem)
            if self._failed_starts > self._retries:
                raise AvatarError(
                    f"{self._failed_starts} workers did not start ({last_line(problem)}); install this version of "
                    "joyavatar on all machines of the cluster."
                ) from None
            return
        self._failed_starts = 0
        self._idle.append(worker)

    def _take_outcome(self, reference: Any) -> None:
        worker, job = self._running.pop(reference)
        self._bar.pause(job.name)
        try:
            outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as problem:
            self._dismiss(worker)
            self._again(job, f"The worker {worker.where} was lost ({last_line(problem)})")
            return
        if outcome.status == "broken":  # the process may be broken too, as after an error of its GPU
            self._dismiss(worker)
            self._again(job, outcome.problem)
            return
        self._idle.append(worker)
        if outcome.status == "stopped":
            self._manifest.note(job, "stopped")
        elif outcome.status == "busy":
            self._again(job, outcome.problem, BUSY_SECONDS)
        else:
            finish(job, outcome, self._manifest, self._bar, self._keep_states)

    def _again(self, job: Job, problem: str, after: float = 0.0) -> None:
        """Queue a job once more, in front, or give it up after its last retry."""
        tries = self._manifest.jobs[job.name]["tries"]
        if tries > self._retries:
            said = f"{problem.rstrip('.')}; given up after {tries} tries."
            finish(job, Outcome("failed", 0.0, problem=said), self._manifest, self._bar, self._keep_states)
            return
        self._bar.say(f"{job.name}: {problem.rstrip('.')}; it goes on from its state (try {tries + 1})")
        self._manifest.note(job, "queued", problem=problem)
        self._later.append((time.monotonic() + after, job))

    def _look(self) -> None:
        """Ask the workers how far they are, at most every LOOK_SECONDS, without waiting for an answer."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for worker, job in self._running.values():
            if worker.asked is not None and self._ray.wait([worker.asked], timeout=0)[0]:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._bar.show(job.name, *self._ray.get(worker.asked))
                worker.asked = None
            if worker.asked is None:
                worker.asked = worker.actor.progress.remote()

    def _stop(self) -> None:
        """End the jobs that run at their next block."""
        if not self._running:
            return
        self._bar.say("stopping: the jobs that run end their block")
        for worker, _ in self._running.values():
            worker.actor.stop.remote()
        ended, late = self._ray.wait([*self._running], num_returns=len(self._running), timeout=GRACE_SECONDS)
        for reference in ended:
            with contextlib.suppress(self._ray.exceptions.RayError):
                outcome = self._ray.get(reference)
                if outcome.status in ("done", "failed"):
                    finish(self._running[reference][1], outcome, self._manifest, self._bar, self._keep_states)
                    continue
            self._manifest.note(self._running[reference][1], "stopped")
        for reference in late:
            self._manifest.note(self._running[reference][1], "stopped")

    def _dismiss(self, worker: WorkerHandle) -> None:
        """End a worker's process."""
        with contextlib.suppress(Exception):  # it may be gone, and the cluster with it
            self._ray.kill(worker.actor)


def last_line(problem: Exception) -> str:
    """The end of Ray's explanation, which says the cause, without its full stop."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[-1] if lines else type(problem).__name__).rstrip(".")
