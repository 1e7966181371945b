"""What became of each job, in a file that is replaced at once at every change."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ..errors import AvatarError
from ..recording.files import replace_synced
from .jobs import Job, Plan
from .work import remove_state

log = logging.getLogger(__name__)
VERSION = 1
STATUSES = ("queued", "running", "done", "failed", "stopped")


class Manifest:
    """The file `manifest.json` of a batch.

    Jobs are entries by name: row, status (one of STATUSES), video, fingerprint, and what `note` adds (frames, seconds,
    took, tries, worker, problem). `bad_rows` holds the sentences on the rows of the newest table that are no jobs.
    Entries of earlier tables in the same folder stay. Raises AvatarError for a file that is no manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs: dict[str, dict[str, Any]] = {}
        self.bad_rows: list[dict[str, Any]] = []
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["version"] != VERSION or not all(entry["status"] in STATUSES for entry in found["jobs"].values()):
                raise ValueError("another version")
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise AvatarError(
                f"'{path}' is not a manifest of this version ({problem}); choose another folder or move it away.",
                "out",
            ) from None
        self.jobs = found["jobs"]

    def begin(self, plan: Plan) -> list[Job]:
        """Enter a plan; returns the jobs that are left to do, all but those that are done and unchanged.

        What an earlier job of the same name and another fingerprint has recorded is deleted.
        """
        left = []
        for job in plan.jobs:
            if not self.is_done(job):
                left.append(job)
                if job.name in self.jobs and self.jobs[job.name]["fingerprint"] != job.fingerprint:
                    remove_state(job.state)
                    if self.jobs[job.name]["status"] == "done" and job.video.is_file():
                        log.warning("%s was made from other files or options; it is made anew", job.video.name)
                fields = {"row": job.row, "status": "queued", "video": job.video.name, "fingerprint": job.fingerprint}
                self.jobs[job.name] = fields
        self.bad_rows = [{"row": number, "problem": text} for number, text in sorted(plan.problems.items())]
        self.save()
        return left

    def is_done(self, job: Job) -> bool:
        """Whether the video is there and was made with these options from these files."""
        entry = self.jobs.get(job.name, {})
        return entry.get("status") == "done" and entry.get("fingerprint") == job.fingerprint and job.video.is_file()

    def note(self, job: Job, status: str, **facts: Any) -> None:
        """Change a job's entry and write the file."""
        self.jobs[job.name] |= {"status": status, **facts}
        self.save()

    def save(self) -> None:
        """Replace the file. Raises AvatarError where it cannot be written."""
        content = {"version": VERSION, "jobs": self.jobs, "bad_rows": self.bad_rows}
        try:
            with replace_synced(self.path) as file:
                file.write(json.dumps(content, indent=1).encode())
        except OSError as problem:
            raise AvatarError(
                f"The manifest '{self.path}' cannot be written: {problem.strerror}; free some space and start again."
            ) from None
