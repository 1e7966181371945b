"""StreamRun: a stream at work. It gives one block after another, and its state can be saved between two blocks."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch

from ..errors import AvatarError
from ..model.kv_cache import KVCache
from .block_sampler import BlockSampler
from .rolling_sampler import RollingSampler
from .run_state import check_state, environment_of, recipe_of
from .stream import AvatarStream, LatentBlock

SAMPLERS: dict[str, type[BlockSampler]] = {"blocks": BlockSampler, "rolling": RollingSampler}  # by AvatarConfig.sampler
CHANGEABLE = {"text", "audio", "psb", "mci", "video_frames", "on_step"}  # fields of the recipe, inside a run


class StreamRun:
    """Iterator over the blocks of an `AvatarStream`; time and memory of a block do not grow with the stream.

    Life cycle: made from a stream; `next` gives a block; `state_dict`, `load_state_dict`, `update` and `reset` between
    two blocks; `close` frees the cache, as the end of a `with` does. A block that raised is made again by the next
    `next`. While `interrupt` is set, a block that is being made, or waits for audio, ends with InterruptedError.
    """

    def __init__(self, stream: AvatarStream) -> None:
        self.interrupt = threading.Event()
        self.sampler = SAMPLERS[stream.config.sampler](stream, self.interrupt)

    def __enter__(self) -> StreamRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> StreamRun:
        return self

    @torch.no_grad()
    def __next__(self) -> LatentBlock:
        sampler = self._open_sampler()
        if not sampler.has_block(sampler.block):
            raise StopIteration
        return sampler.next_block()

    @property
    def stream(self) -> AvatarStream:
        """The recipe, as it was changed last."""
        return self.sampler.stream

    @property
    def block(self) -> int:
        """Index of the next block."""
        return self.sampler.block

    @property
    def cache(self) -> KVCache:
        """Keys and values of the past. Raises AvatarError for a closed run."""
        return self._open_sampler().passes.cache

    def update(self, **changes: object) -> None:
        """Change fields of the recipe (text, audio, psb, mci, video_frames, on_step) from the next block on.

        The past stays as it is; only the prompt's keys and values are computed anew. Raises AvatarError for a field
        that cannot change inside a run, and for values that the recipe refuses.
        """
        fixed = sorted(set(changes) - CHANGEABLE)
        if fixed:
            raise AvatarError(f"A running stream cannot change its {fixed[0]}; start a new one.")
        self._open_sampler().update(dataclasses.replace(self.stream, **changes))

    @torch.no_grad()
    def reset(self, recent: int = 0) -> None:
        """Drop all but the sinks and the newest `recent` latent frames, before the next block.

        It is what URCR does when the positions run out. `recent` is a multiple of the block, up to the frames that
        URCR or MCI keep. With 0 only the sinks stay: earlier faults then have no effect, and the motion has a seam.
        Raises AvatarError for another number.
        """
        self._open_sampler().reset(recent)

    def close(self) -> None:
        """Free the cache; the run is over."""
        self.sampler.close()

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """All that the next block depends on besides the recipe: tensors, numbers and lists of them.

        Without `copy` the keys and values are views that the next block overwrites: store them at once.
        """
        sampler = self._open_sampler()
        return {
            **sampler.state_dict(copy),
            "recipe": self.recipe(),
            "environment": environment_of(self.stream.model, sampler.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the block at which `state` was taken.

        Raises AvatarError where the recipe differs. Another torch, device or thread count is a warning: the blocks may
        then differ in their last bits.
        """
        sampler = self._open_sampler()
        check_state(state, self.recipe(), environment_of(self.stream.model, sampler.device))
        sampler.load_state_dict(state)

    def recipe(self) -> dict[str, Any]:
        """The settings that a state belongs to, as JSON gives them back."""
        return recipe_of(self.stream, self.sampler.dtype)

    def _open_sampler(self) -> BlockSampler:
        if self.sampler.passes is None:
            raise AvatarError("This run is closed; make a new StreamRun of the stream.")
        return self.sampler
