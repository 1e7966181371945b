"""What is done with every finished block besides writing it: measure, report, and reset on drift."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from torch import Tensor

from ..audio import AudioSource
from ..errors import AvatarError
from ..paths import libav_url
from ..sampling.run import StreamRun
from ..sampling.stream import LatentBlock
from .drift_monitor import WINDOW_SECONDS, DriftMonitor, Measures, Warned
from .measures import frame_loudness
from .report import RunReport, read_report

if TYPE_CHECKING:
    from ..recording import Recording

log = logging.getLogger(__name__)

# Measures that a reset of the cache can repair. The correlation of lips and voice is not one of them.
REPAIRED = ("colour", "sharpness", "distance", "patch")


class Observer:
    """Called with every block and its frames; adds a line to the report, with the monitor's measures if it is on.

    reset_on_drift: the run that is reset to its sinks at a warning, None for no reset.
    """

    def __init__(
        self,
        report: RunReport,
        voice: AudioSource | None,
        monitor: bool = True,
        reset_on_drift: StreamRun | None = None,
    ) -> None:
        self.report, self.voice, self.reset_on_drift = report, voice, reset_on_drift
        self.monitor = DriftMonitor(float(report.fps)) if monitor else None

    def __call__(self, block: LatentBlock, frames: Tensor, **facts: Any) -> None:
        if self.monitor is None:
            self.report.add(block, len(frames), **facts)
            return
        loudness = None
        if self.voice is not None:
            shown = range(self.report.frames, self.report.frames + len(frames))
            loudness = frame_loudness(self.voice, self.report.fps, shown)
        warned, told = len(self.monitor.warnings), len(self.monitor.history)
        measures = self.monitor.update(block.index, frames, loudness)
        self.report.add(block, len(frames), **vars(measures), **facts)
        new = self.monitor.warnings[warned:]
        if new or len(self.monitor.history) > told or not self.report.more:
            self.report.more.update(self.monitor.summary())
        if self.reset_on_drift is not None and any(warning.measure in REPAIRED for warning in new):
            log.warning("the stream is reset to its sinks before block %d", block.index + 1)
            self.reset_on_drift.reset(0)
            self.monitor.restart()

    def look_back(self, recording: Recording, saved: str | os.PathLike[str] | None = None) -> None:
        """Continue a resumed recording: the monitor is shown its first seconds, the report gets its earlier blocks.

        saved: the report of the earlier runs, None without one. Blocks that are made again are left out.
        """
        self.report.frames = recording.frames
        if self.monitor is not None:
            self._see_beginning(recording)
        if saved is None:
            return
        try:
            before = read_report(saved)
            self.report.blocks[:] = [block for block in before["blocks"] if block["index"] < recording.blocks]
            if self.monitor is not None:
                self.monitor.warnings[:] = [
                    Warned(**warning) for warning in before.get("warnings", []) if warning["block"] < recording.blocks
                ]
                self.monitor.history[:] = [Measures(**measures) for measures in before.get("every_10_seconds", [])]
        except (AvatarError, KeyError, TypeError) as problem:
            log.warning("the report of the earlier runs is not used: %s", problem)

    def _see_beginning(self, recording: Recording) -> None:
        """Show the monitor the first seconds of a recording, decoded from its segments."""
        wanted = min(recording.frames, round(WINDOW_SECONDS * float(self.report.fps)))
        with closing(pictures(recording.segment_paths)) as shown:
            for block in range(recording.blocks):
                span = recording.frames_of(block)
                frames = list(itertools.islice(shown, len(span)))
                if not frames or self.monitor.frames >= wanted:
                    break
                loudness = None
                if self.voice is not None:
                    loudness = frame_loudness(self.voice, self.report.fps, span[: len(frames)])
                self.monitor.update(block, np.stack(frames), loudness)
        self.monitor.frames = recording.frames
        self.monitor.restart()


def pictures(videos: Iterable[Path]) -> Iterator[np.ndarray]:
    """The frames of several files in order, uint8 [H, W, 3]."""
    for path in videos:
        with av.open(libav_url(path)) as file:
            for frame in file.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
