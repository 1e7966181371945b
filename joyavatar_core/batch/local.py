"""The jobs of a batch one after another in this process."""

from __future__ import annotations

import os
import platform

from .jobs import Job
from .manifest import Manifest
from .progress_bar import BatchBar
from .work import Make, Outcome, by_group, do_job, remove_state


def run_here(jobs: list[Job], make: Make, manifest: Manifest, bar: BatchBar, keep_states: bool = False) -> None:
    """Do jobs in turn; the manifest says at every moment how far they are.

    KeyboardInterrupt ends the job that runs, whose state folder stays, and goes on to the caller.
    """
    worker = f"{platform.node()}:{os.getpid()}"
    for job in by_group(jobs):
        manifest.note(job, "running", worker=worker, tries=1)
        try:
            outcome = do_job(make, job, lambda frames, total, name=job.name: bar.show(name, frames, total))
        except KeyboardInterrupt:
            manifest.note(job, "stopped")
            raise
        finish(job, outcome, manifest, bar, keep_states)


def finish(job: Job, outcome: Outcome, manifest: Manifest, bar: BatchBar, keep_states: bool) -> None:
    """Enter how a job ended; the state folder of a finished one is removed unless it is to be kept."""
    if outcome.status == "done":
        made = outcome.made
        manifest.note(job, "done", frames=made.frames, seconds=made.seconds, took=round(outcome.took, 3), problem=None)
        if not keep_states:
            remove_state(job.state)
        bar.end(job.name, f"{job.video.name}: {made.frames} frames, {made.seconds:.2f} s, made in {outcome.took:.1f} s")
    else:
        manifest.note(job, "failed", took=round(outcome.took, 3), problem=outcome.problem)
        bar.end(job.name, f"row {job.row}: {outcome.problem}")
