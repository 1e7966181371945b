"""What became of a batch, as a table for a terminal."""

from __future__ import annotations

from .jobs import Plan
from .manifest import Manifest

HEADER = ("row", "video", "status", "frames", "length", "took", "tries")


def summary(plan: Plan, manifest: Manifest, before: int) -> list[str]:
    """A line for each job and each bad row, in the table's order, and the totals.

    before: jobs that an earlier run had finished.
    """
    lines = [(number, ("-", "failed", "", "", "", "", problem)) for number, problem in plan.problems.items()]
    statuses = ["failed"] * len(plan.problems)
    for job in plan.jobs:
        entry = manifest.jobs[job.name]
        statuses.append(entry["status"])
        length, took = (f"{entry[key]:.1f} s" if entry.get(key) is not None else "" for key in ("seconds", "took"))
        cells = (entry["status"], entry.get("frames", ""), length, took, entry.get("tries", ""))
        lines.append((job.row, (job.video.name, *map(str, cells), entry.get("problem") or "")))
    lines.sort(key=lambda line: line[0])
    table = [HEADER, *((str(number), *cells[:-1]) for number, cells in lines)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    problems = ["", *(cells[-1] for _, cells in lines)]
    text = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), problem]).rstrip()
        for cells, problem in zip(table, problems, strict=True)
    ]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    return [*text, f"{len(statuses)} jobs: {counts}; {before} of them were done before this run"]
