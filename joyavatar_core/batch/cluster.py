"""A connection to a Ray cluster, or to one that is started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AvatarError

ROOT = Path(__file__).parents[2]
LOCAL = "local"  # the address that means: start a cluster on this machine
CPUS, GPUS = ("cpus_per_job", "cpus_per_worker"), ("gpus_per_job", "gpus_per_worker")  # settings of WorkerResources
STORE_BYTES = 100 << 20  # shared memory of a local cluster; messages are small, videos go to files


@dataclass(frozen=True)
class WorkerResources:
    """What one worker takes of the cluster: processor cores, and GPUs or a fraction of one; None: one where any is."""

    cpus: float = 1.0
    gpus: float | None = None

    def on(self, available: dict[str, float]) -> WorkerResources:
        """The same with its GPUs decided."""
        gpus = self.gpus if self.gpus is not None else min(1.0, available.get("GPU", 0.0))
        return WorkerResources(self.cpus, gpus)

    def fits(self, available: dict[str, float]) -> int:
        """How many of these a cluster holds. Raises AvatarError where it holds none, or a number is out of range."""
        if not 0 < self.cpus < float("inf"):
            raise AvatarError(f"The CPUs of a worker are {self.cpus}; give a number above 0.", *CPUS)
        if not 0 <= self.gpus < float("inf") or (self.gpus > 1 and not float(self.gpus).is_integer()):
            raise AvatarError(
                f"The GPUs of a worker are {self.gpus}; give 0, a fraction such as 0.5, or a whole number.",
                *GPUS,
            )
        cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
        count = int(min(cpus / self.cpus, gpus / self.gpus if self.gpus else float("inf")))
        if not count:
            raise AvatarError(
                f"The cluster has {cpus:g} CPUs and {gpus:g} GPUs, one worker takes {self.cpus:g} and {self.gpus:g}; "
                "ask for less.", *CPUS, *GPUS,
            )  # fmt: skip
        return count


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """The package `ray`, connected to the cluster at `address` until the end of the context.

    Ray's usage reports over the network are switched off for a cluster that is started here. Raises AvatarError where
    Ray is not installed or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise AvatarError(
            "Workers on a cluster need the package 'ray'; install the extra with `pip install -e .[ray]`."
        ) from None
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own, which would skip what is cleaned up here
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == LOCAL:
            start_here(ray, **quiet)
        else:
            ray.init(address, **quiet)
    except AvatarError:
        raise
    except Exception as problem:  # Ray raises many kinds
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise AvatarError(
            f"No Ray cluster can be used at '{address}' ({reason}); give its address, or local to start one here.",
            "ray",
        ) from None
    if main:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def start_here(ray: Any, **options: Any) -> None:
    """Start a cluster on this machine, whose workers find this package.

    Raises AvatarError where it has not started within the 30 s that Ray waits, as on a machine that is very busy.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        ray.init(
            LOCAL, runtime_env={"env_vars": {"PYTHONPATH": path}}, include_dashboard=False,
            object_store_memory=STORE_BYTES, **options,
        )  # fmt: skip
    except Exception as problem:
        if "timed out during startup" in str(problem):
            raise AvatarError(
                "Ray did not start in time on this machine, which may be too busy; try again, or start it with "
                "`ray start` and give auto as the address.", "ray",
            ) from None  # fmt: skip
        raise
