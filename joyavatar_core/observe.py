"""What a command does with every finished block besides writing it: measure, report, and heal where that is wanted."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from .audio import AudioSource
from .measures import frame_loudness
from .monitor import DriftMonitor
from .report import RunReport
from .sampling.run import StreamRun
from .sampling.stream import LatentBlock

log = logging.getLogger(__name__)

# What forgetting the newest frames can mend; lips that do not follow are no matter of memory.
HEALED = ("colour", "sharpness", "distance")


class Observer:
    """Called with every block and its frames; adds a line to the report, with the monitor's measures if there is one.

    heal: the run that is to be reset to its sinks at a warning, None to leave it alone.
    """

    def __init__(
        self, report: RunReport, voice: AudioSource | None, monitor: bool = True, heal: StreamRun | None = None
    ) -> None:
        self.report, self.voice, self.heal = report, voice, heal
        self.monitor = DriftMonitor(float(report.fps)) if monitor else None

    def __call__(self, block: LatentBlock, frames: Tensor, **facts: Any) -> None:
        if self.monitor is None:
            self.report.add(block, len(frames), **facts)
            return
        loudness = None
        if self.voice is not None:
            shown = range(block.first_frame, block.last_frame + 1)
            loudness = frame_loudness(self.voice, self.report.fps, shown)
        warned, told = len(self.monitor.warnings), len(self.monitor.history)
        measures = self.monitor.update(block.index, frames, loudness)
        self.report.add(block, len(frames), **vars(measures), **facts)
        new = self.monitor.warnings[warned:]
        if new or len(self.monitor.history) > told or not self.report.more:
            self.report.more.update(self.monitor.summary())
        if self.heal is not None and any(warning.measure in HEALED for warning in new):
            log.warning("the stream is reset to its sinks before block %d", block.index + 1)
            self.heal.reset(0)
            self.monitor.restart()
