"""The report of a run as JSON: one entry per block, and the totals."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import AvatarError
from ..paths import replacing

MAX_BYTES = 256 << 20  # of a report that is read; some hundred hours of video
BLOCK_FIELDS = ("index", "steps", "reset", "max_position", "seconds")


def peak_rss_bytes() -> int:
    """The peak of this process's resident memory, in bytes."""
    with suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as status:
        # Preferred on Linux, where getrusage includes the peak of the parent that this process was forked from.
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        import psutil  # on Windows

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


@dataclass
class RunReport:
    """The facts of a run.

    Life cycle: made when the run starts -> `add` every block -> set the totals -> `to_json` at any time.
    """

    fps: int | Fraction  # frames/s of the video
    weights: str  # what the user called them: "embedded" or a file's name
    trained: bool  # False: random weights, the video has no meaning
    settings: Mapping[str, Any] = field(default_factory=dict)
    frames: int = 0  # written to the video
    audio_seconds: float = 0.0
    blocks: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)  # other facts: warnings, delays
    started: float = field(default_factory=time.perf_counter, repr=False)

    def add(self, block: Any, frames: int = 0, **measures: Any) -> None:
        """Add a LatentBlock (or any object with BLOCK_FIELDS), its number of video frames, and its measures."""
        self.blocks.append({**{name: getattr(block, name) for name in BLOCK_FIELDS}, **measures})
        self.frames += frames

    def summary(self) -> dict[str, Any]:
        """Everything as plain JSON types; times in seconds, memory in bytes."""
        values = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("started", "blocks", "more")
        }
        values["settings"] = dict(self.settings)
        values["fps"] = float(self.fps)
        values["wall_seconds"] = time.perf_counter() - self.started
        values["peak_rss_bytes"] = peak_rss_bytes()
        return {**values, **self.more, "blocks": self.blocks}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `summary` to `path` atomically. Raises AvatarError where it cannot be written."""
        target = Path(path)
        text = json.dumps(self.summary(), indent=1, default=str)
        try:
            with replacing(target) as unfinished:
                unfinished.write_text(text + "\n", encoding="utf-8")
        except OSError as problem:
            raise AvatarError(
                f"The report {target} cannot be written: {problem.strerror}; choose another place."
            ) from None
        return target


def clock_text(seconds: float) -> str:
    """3661 -> '1:01:01'; 61 -> '1:01'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `RunReport.to_json` wrote. Raises AvatarError for a file that is missing, too large or no report."""
    source = Path(path)
    try:
        with source.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        summary = json.loads(text) if len(text) <= MAX_BYTES else None
    except OSError as problem:
        raise AvatarError(f"The report {source} cannot be read: {problem.strerror}; give another one.") from None
    except (ValueError, RecursionError):
        summary = None
    blocks = summary.get("blocks") if isinstance(summary, dict) else None
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise AvatarError(f"{source.name} is not a run's report, expected the JSON with its blocks; give another file.")
    return summary
