"""Measures, reports and shows every decoded block."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor

from ..joyavatar_core.geometry import Size
from ..joyavatar_core.monitoring.observer import Observer
from ..joyavatar_core.monitoring.report import clock_text
from ..joyavatar_core.recording import Recording
from ..joyavatar_core.sampling.stream import LatentBlock
from .progress import StreamProgress
from .report import summary_line
from .stream import HostStream

log = logging.getLogger(__name__)


class Watch:
    """Measures, reports and shows every finished block, and warns of drift.

    Life cycle: made for one run, `go_on` before its first block where a recording is resumed, called with every block.
    """

    def __init__(
        self, stream: HostStream, progress: StreamProgress, pixel_size: Size | None = None, fps: int | None = None
    ) -> None:
        """pixel_size: (width, height) of the frames. fps: their rate. Both are the stream's by default."""
        self.report = stream.new_report(pixel_size, fps)
        self.progress = progress
        self.went_on = ""
        self._observe = Observer(self.report, stream.voice.source)

    def __call__(self, block: LatentBlock, frames: Tensor) -> None:
        self._observe(block, frames)
        warnings = self._observe.monitor.warnings
        drift = f"drift at {warnings[-1].text}; " if warnings else ""
        self.progress.said = self.went_on + drift
        self.progress.block_done(block.index, frames[-1])

    def go_on(self, recording: Recording, saved: Path) -> None:
        """Continue a recording and the report that its earlier runs `saved`, if it is readable."""
        at = clock_text(recording.frames / float(self.report.fps))
        log.info("going on with %s at %s, behind block %d", recording.folder.path, at, recording.blocks - 1)
        self.went_on = f"resumed at {at}; "
        self.progress.begin_at(recording.blocks)
        self.progress.tell(f"resuming at {at}")
        self.report.settings = {**self.report.settings, "resumed_at_block": recording.blocks}
        self._observe.look_back(recording, saved)

    @property
    def summary(self) -> str:
        """The run in a line."""
        return self.went_on + summary_line(self.report.summary())
