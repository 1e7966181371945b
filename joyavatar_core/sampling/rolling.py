"""The rolling schedule: several blocks are denoised together, each one noise level behind the one before it.

AvatarForcing's sampler (arXiv 2603.14331), as a schedule of StreamRun. The portrait's latent frame comes first, as
history alone. Behind it moves a window of as many blocks as there are levels: a pass sees all blocks of the window,
takes each one level down, and finishes the oldest. History is the portrait's frame and the newest finished ones. The
portrait's keys are put right in front of these for every pass of the window, and at position 0 for the pass that
remembers a finished block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..audio.clock import block_to_frames, block_to_latents
from .flow import Level, add_noise, predict_x0
from .noise import INITIAL, RENOISE
from .run import StreamRun
from .stream import AvatarStream


@dataclass(frozen=True)
class InFlight:
    """A block of the window: its latents [1, 16, K, h, w] after `step` levels."""

    index: int
    step: int
    latents: Tensor


class RollingRun(StreamRun):
    """A StreamRun whose blocks are denoised in a rolling window.

    Block 0 has the portrait's frame in front. The voice of the blocks in the window has to be there before the oldest
    is finished, except behind the voice's end.
    """

    def __init__(self, stream: AvatarStream) -> None:
        super().__init__(stream)
        self.window: list[InFlight] = []  # between blocks: all but the newest of a full window
        self.sink: Tensor | None = None  # the portrait's keys at position 0, [layers, 1, tokens, heads, head_dim]

    # --- one block -------------------------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        urcr = self.stream.urcr
        if not self.block:
            return False
        first = self._frames_of(self.block).start - urcr.recent
        self.cache.keep([slot for slot, frame in enumerate(self.cache.frames) if frame == 0 or frame >= first])
        if not urcr.reset_due(self.cursor, self.stream.model.config):
            return False
        self._keep(urcr.recent)
        return True

    def _keep(self, count: int) -> None:
        """Remember the portrait and the newest `count` frames alone, at positions 0, 1, 2 ..."""
        first = self._frames_of(self.block).start - count
        self.cache.keep([slot for slot, frame in enumerate(self.cache.frames) if frame == 0 or frame >= first])
        self.cache.shift(range(1, self.cache.length), self.cache.length - self.cursor)
        self.cursor = self.cache.length

    def _hear(self) -> None:
        """None: every pass gets the voice of all blocks in its window."""

    def _denoise(self, levels: Sequence[Level], hidden: None, behind: int) -> Tensor:
        """Passes until the window's oldest block is clean; [1, 16, K, h, w], in block 0 with the portrait in front."""
        if self.sink is None:
            self._remember_portrait()
        window = list(self.window)
        passes = len(levels) - (window[0].step if window else 0)
        for done in range(passes):
            index = window[-1].index + 1 if window else self.block
            if len(window) < len(levels) and self._exists(index):
                window.append(InFlight(index, 0, self._draw(INITIAL, self.shape, block=index)))
            window = self._lower(window, levels)
            if self.stream.on_step is not None:
                self.stream.on_step(self.block, done + 1, passes)
        self._behind = window[1:]
        return window[0].latents if self.block else torch.cat([self.reference, window[0].latents], dim=2)

    def _remember(self, latents: Tensor, hidden: None) -> None:
        """Refresh: store the finished block's keys and values, and move on."""
        count = self.stream.model.config.block_frames
        frames, positions = self._frames_of(self.block)[-count:], range(self.cursor, self.cursor + count)
        self.cache.put_keys(0, self.sink, 0)
        voice = self._voice_of(frames)
        self._forward(latents[:, :, -count:], [0.0] * count, voice, frames, positions, cache_only=True)
        self.cache.commit(frames, positions)
        self.window = self._behind
        self.block += 1
        self.cursor += count

    # --- the window ------------------------------------------------------------------------------------------------

    def _exists(self, block: int) -> bool:
        """Whether the stream has this block; waits for a voice that is still being spoken."""
        config = self.stream.model.config
        start = block_to_frames(block, config.block_frames, config.lead_frames).start
        return not self._over(start) and self._wait_for_voice(block) and not self._over(start)

    def _lower(self, window: Sequence[InFlight], levels: Sequence[Level]) -> list[InFlight]:
        """One pass: all blocks of the window one level down."""
        count = self.stream.model.config.block_frames
        frames = range(self._frames_of(window[0].index)[-count], self._frames_of(window[-1].index).stop)
        positions = range(self.cursor, self.cursor + len(frames))
        self.cache.put_keys(0, self.sink, self.cursor - self.cache.length)  # right in front of the newest frames
        latents = torch.cat([one.latents for one in window], dim=2)
        labels = [levels[one.step][0] for one in window for _ in range(count)]
        flow = self._forward(latents, labels, self._voice_of(frames), frames, positions)
        lowered = []
        for one, part in zip(window, flow.split(count, dim=2), strict=True):
            x, step = predict_x0(one.latents, part, levels[one.step][1]), one.step + 1
            if step < len(levels):
                x = add_noise(x, self._draw(RENOISE, self.shape, step, one.index), levels[step][1])
            lowered.append(InFlight(one.index, step, x))
        return lowered

    def _remember_portrait(self) -> None:
        """The portrait's keys and values; at position 0 a key is not rotated in time yet."""
        frame = range(1)
        self._forward(self.reference, [0.0], self._voice_of(frame), frame, frame, cache_only=True)
        self.cache.commit(frame, frame)
        self.sink = self.cache.keys_of(0).clone()
        self.cursor = 1

    def _frames_of(self, block: int) -> range:
        config = self.stream.model.config
        return block_to_latents(block, config.block_frames, config.lead_frames)

    # --- resuming --------------------------------------------------------------------------------------------------

    def state_dict(self, copy: bool = True) -> dict[str, object]:
        return {**super().state_dict(copy), "window": [vars(one) for one in self.window], "sink": self.sink}

    def load_state_dict(self, state: dict[str, object]) -> None:
        super().load_state_dict(state)
        self.window = [InFlight(**{**one, **self._on_device(one)}) for one in state["window"]]
        self.sink = self._on_device(state).get("sink")
