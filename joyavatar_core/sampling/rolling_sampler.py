"""The rolling sampler: several blocks are denoised together, each one noise level behind the one before it.

It is AvatarForcing's sampler (arXiv 2603.14331). The portrait's latent frame comes first, as history alone. Behind it
moves a window of as many blocks as there are levels. A pass covers all blocks of the window, takes each one level down,
and finishes the oldest. History is the portrait's frame and the newest finished frames. The portrait's keys are put
right in front of these for every pass of the window, and at position 0 for the pass of a cache update.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .block_sampler import BlockSampler
from .flow import Level, add_noise, predict_x0
from .noise import RENOISE
from .stream import AvatarStream


@dataclass(frozen=True)
class InFlight:
    """A block of the window: its latents [1, 16, K, h, w] after `step` levels."""

    index: int
    step: int
    latents: Tensor


class RollingSampler(BlockSampler):
    """A BlockSampler whose blocks are denoised in a rolling window.

    Block 0 has the portrait's frame in front. A block needs the audio of all blocks in its window, except behind the
    end of the audio.
    """

    def __init__(self, stream: AvatarStream, interrupt: threading.Event) -> None:
        super().__init__(stream, interrupt)
        self.window: list[InFlight] = []  # between blocks: all but the newest of a full window
        self.sink: Tensor | None = None  # the portrait's keys at position 0, [layers, 1, tokens, heads, head_dim]

    def state_dict(self, copied: bool) -> dict[str, Any]:
        return {**super().state_dict(copied), "window": [vars(one) for one in self.window], "sink": self.sink}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.window = [InFlight(**self._on_device(one)) for one in state["window"]]
        sink = state["sink"]
        self.sink = None if sink is None else sink.to(self.device, self.passes.cache.dtype, copy=True)

    # --- what a block is made of -----------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        urcr, cache = self.stream.urcr, self.passes.cache
        if not self.block:
            return False
        first = self._frame_ids_of(self.block).start - urcr.recent
        cache.keep([slot for slot, frame in enumerate(cache.frame_ids) if frame == 0 or frame >= first])
        config = self.stream.config
        ahead = config.window_frames // config.block_frames
        blocks = sum(self.has_block(index) for index in range(self.block, self.block + ahead))
        if not urcr.reset_due(self.cursor, blocks * config.block_frames, config):
            return False
        self._keep(urcr.recent)
        return True

    def _keep(self, count: int) -> None:
        """Keep the portrait and the newest `count` frames alone, at positions 0, 1, 2 ..."""
        cache, first = self.passes.cache, self._frame_ids_of(self.block).start - count
        cache.keep([slot for slot, frame in enumerate(cache.frame_ids) if frame == 0 or frame >= first])
        cache.shift(range(1, cache.length), cache.length - self.cursor)
        self.cursor = cache.length

    def _make_block(self, levels: Sequence[Level]) -> Tensor:
        """Passes until the window's oldest block is clean; [1, 16, K, h, w], in block 0 with the portrait in front."""
        if self.sink is None:
            self._cache_portrait()
        window = list(self.window)
        passes = len(levels) - (window[0].step if window else 0)
        for done in range(passes):
            self._check_interrupt()
            index = window[-1].index + 1 if window else self.block
            if len(window) < len(levels) and self.has_block(index):
                window.append(InFlight(index, 0, self._initial(index, levels[0])))
            window = self._lower(window, levels)
            if self.stream.on_step is not None:
                self.stream.on_step(self.block, done + 1, passes)
        finished, *unfinished = window
        latents = finished.latents
        if not self.block:
            latents = torch.cat([self.passes.reference, latents], dim=2)
        self._append(finished.latents)
        self.window = unfinished
        return latents

    def _append(self, latents: Tensor) -> None:
        """Cache update: cache the finished block's keys and values, and go on to the next block."""
        count, cache = self.shape[2], self.passes.cache
        frame_ids, positions = self._frame_ids_of(self.block)[-count:], range(self.cursor, self.cursor + count)
        cache.put_keys(0, self.sink, 0)
        self.passes.forward(
            latents, [0.0] * count, self._audio_embedding(frame_ids), frame_ids, positions, cache_only=True
        )
        cache.commit(frame_ids, positions)
        self.block += 1
        self.cursor += count

    def _lower(self, window: Sequence[InFlight], levels: Sequence[Level]) -> list[InFlight]:
        """One pass: all blocks of the window one level down."""
        count, cache = self.shape[2], self.passes.cache
        frame_ids = range(self._frame_ids_of(window[0].index)[-count], self._frame_ids_of(window[-1].index).stop)
        positions = range(self.cursor, self.cursor + len(frame_ids))
        cache.put_keys(0, self.sink, self.cursor - cache.length)  # right in front of the newest frames
        latents = torch.cat([one.latents for one in window], dim=2)
        timesteps = [levels[one.step][0] for one in window for _ in range(count)]
        flow = self.passes.forward(latents, timesteps, self._audio_embedding(frame_ids), frame_ids, positions)
        lowered = []
        for one, part in zip(window, flow.split(count, dim=2), strict=True):
            x, step = predict_x0(one.latents, part, levels[one.step][1]), one.step + 1
            if step < len(levels):
                x = add_noise(x, self._draw(RENOISE, self.shape, step, one.index), levels[step][1])
            lowered.append(InFlight(one.index, step, x))
        return lowered

    def _cache_portrait(self) -> None:
        """Cache the portrait's keys and values; at position 0 a key is not rotated in time."""
        frame, cache = range(1), self.passes.cache
        self.passes.forward(self.passes.reference, [0.0], self._audio_embedding(frame), frame, frame, cache_only=True)
        cache.commit(frame, frame)
        self.sink = cache.keys_of(0).clone()
        self.cursor = 1
