"""Batches that threads prepare some steps before they are needed, so that a GPU need not wait for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class StepsAhead(Generic[Batch]):
    """`make(step)`, begun by `workers` threads for the steps behind the one that is asked for.

    Life cycle: a context manager; calls are made with rising steps, and leaving it ends the threads. `make` depends on
    the step alone. Without workers it is called when its step is asked for.
    """

    def __init__(self, make: Callable[[int], Batch], workers: int) -> None:
        self._make, self._workers = make, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batch") if workers else None
        self._begun: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        if self._pool is None:
            return self._make(step)
        for later in range(step, step + self._workers + 1):
            if later not in self._begun:
                self._begun[later] = self._pool.submit(self._make, later)
        return self._begun.pop(step).result()

    def __enter__(self) -> StepsAhead[Batch]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
