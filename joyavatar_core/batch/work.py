"""One job from its start to its outcome, in whatever process does it."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AvatarError
from ..recording.files import FolderInUseError, RecordingFolder
from .jobs import Job

log = logging.getLogger(__name__)
PACKAGE = logging.getLogger(__package__.partition(".")[0])

Progress = Callable[[int, int], None]  # (frames so far, frames in all); may raise StopJob
Make = Callable[[tuple[str, ...], Progress], "Made"]  # the arguments of `speak` -> a video; raises AvatarError


class StopJob(Exception):
    """Raised by a Progress to end a job early; its state folder stays."""


@dataclass(frozen=True)
class Made:
    """A finished video: frames, and seconds of video."""

    frames: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How one try of a job ended.

    status: "done"; "failed" for bad input, which another try would not change; "stopped"; "busy" where another process
    holds the state folder; "broken" for any other exception. problem: a sentence, for "failed", "busy" and "broken".
    took: seconds.
    """

    status: str
    took: float
    made: Made | None = None
    problem: str | None = None


def do_job(make: Make, job: Job, progress: Progress) -> Outcome:
    """Make one video; every exception but KeyboardInterrupt becomes an outcome. The job's log gets what is logged."""
    started = time.monotonic()

    def outcome(status: str, made: Made | None = None, problem: str | None = None) -> Outcome:
        log.info("%s%s", status, f": {problem}" if problem else "")
        return Outcome(status, time.monotonic() - started, made, problem)

    with job_log(job.log):
        log.info("process %d: joyavatar speak %s", os.getpid(), shlex.join(job.flags))
        try:
            return outcome("done", make(job.flags, progress))
        except StopJob:
            return outcome("stopped")
        except KeyboardInterrupt:
            outcome("stopped")
            raise
        except FolderInUseError as problem:
            return outcome("busy", problem=str(problem))
        except AvatarError as problem:
            return outcome("failed", problem=str(problem))
        except Exception as problem:
            log.exception("broken")
            reason = (str(problem).splitlines() or [""])[0]
            return outcome("broken", problem=f"{type(problem).__name__}: {reason}; {job.log} has more.")


@contextlib.contextmanager
def job_log(path: Path) -> Iterator[None]:
    """What the package logs goes to the end of this file meanwhile, and nowhere else."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    level, propagate = PACKAGE.level, PACKAGE.propagate
    PACKAGE.addHandler(handler)
    PACKAGE.setLevel(logging.INFO)
    PACKAGE.propagate = False
    try:
        yield
    finally:
        PACKAGE.removeHandler(handler)
        PACKAGE.setLevel(level)
        PACKAGE.propagate = propagate
        handler.close()


def by_group(jobs: Iterable[Job]) -> list[Job]:
    """Jobs of one group next to each other, groups and jobs in the order in which they come first."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.group, []).append(job)
    return [job for group in groups.values() for job in group]


def remove_state(folder: Path) -> None:
    """Delete a recording that is not needed any more; what cannot be deleted is logged."""
    try:
        RecordingFolder(folder).remove()
    except (OSError, AvatarError) as problem:
        log.warning("%s cannot be deleted: %s", folder, problem)
