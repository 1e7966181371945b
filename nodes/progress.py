"""Progress of a stream in its node: bar, live picture and time left. The user's Stop is checked here."""

from __future__ import annotations

import time
from itertools import accumulate

import comfy.model_management as mm
import comfy.utils
from PIL import Image
from torch import Tensor

from ..joyavatar_core.audio import num_blocks
from ..joyavatar_core.monitoring.report import clock_text
from ..joyavatar_core.sampling.stream import AvatarStream
from .notes import show_text

PREVIEW_PIXELS = 512


class StreamProgress:
    """Counts blocks of a run and tells the host; give `on_step` to the run and call `block_done` after each block.

    `said` is shown before the time left: where a run resumed, and the monitor's warnings. Steps come from the thread
    that generates blocks, which is ahead of the finished blocks. The bar never moves backwards.
    """

    def __init__(self, stream: AvatarStream, node_id: str | None) -> None:
        config = stream.config
        self.node_id = node_id
        self.blocks = num_blocks(stream.num_video_frames, config.block_frames, config.lead_frames)
        steps = (stream.psb.steps_for(block, len(config.levels)) for block in range(self.blocks))
        self._steps_before = [0, *accumulate(steps)]  # of each block, and of all of them at the end
        self._bar = comfy.utils.ProgressBar(self.blocks, node_id=node_id)
        self._started = time.perf_counter()
        self._first = 0
        self._shown = 0.0
        self.said = ""

    def begin_at(self, block: int) -> None:
        """The run resumes at this block. Earlier blocks do not count for the time left."""
        self._first, self._started, self._shown = block, time.perf_counter(), float(block)
        self._bar.update_absolute(block, self.blocks)

    def on_step(self, block: int, step: int, steps: int) -> None:
        """After one denoising step. Raises the host's interruption when the user has pressed Stop."""
        mm.throw_exception_if_processing_interrupted()
        self._shown = max(self._shown, block + step / (steps + 1))  # the rest is for decoding
        self._bar.update_absolute(self._shown, self.blocks)

    def block_done(self, block: int, frame: Tensor | None = None) -> None:
        """A block is finished; frame: its last picture, uint8 [H, W, 3], None where it is not decoded."""
        mm.throw_exception_if_processing_interrupted()
        preview = None
        if frame is not None:
            picture = Image.fromarray(frame.cpu().numpy())
            preview = ("JPEG", picture, min(PREVIEW_PIXELS, max(picture.size)))  # the host would enlarge small ones
        self._shown = max(self._shown, block + 1)
        self._bar.update_absolute(self._shown, self.blocks, preview)
        done, total = self._steps_before[min(block + 1, self.blocks)], self._steps_before[-1]
        spent = time.perf_counter() - self._started
        left = spent * (total - done) / max(1, done - self._steps_before[self._first])
        if block + 1 < self.blocks:
            self.tell(f"{self.said}block {block + 1} of {self.blocks}, {clock_text(left)} left")

    def tell(self, text: str) -> None:
        """Show a line of text on the node."""
        show_text(self.node_id, text)
