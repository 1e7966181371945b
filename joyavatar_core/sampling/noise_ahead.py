"""A stream's noise, drawn in a thread one block before it is needed. The numbers are the same."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from .noise import Noise

Key = tuple[str, int, int, tuple[int, ...]]  # role, block, step, shape


class NoiseAhead:
    """The noise of another source; every draw for a block also starts the same draw for the next block.

    pin: put the noise into pinned memory, so that its copy to CUDA is asynchronous.
    """

    def __init__(self, source: Noise, pin: bool = True) -> None:
        self.source, self.pin = source, pin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noise")
        self._begun: dict[Key, Future[Tensor]] = {}

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """As `Noise.draw`."""
        begun = self._begun.pop((role, block, step, tuple(shape)), None)
        self._begun = {key: future for key, future in self._begun.items() if key[1] >= block}
        following = (role, block + 1, step, tuple(shape))
        if following not in self._begun:
            self._begun[following] = self._thread.submit(self._make, *following)
        return self._make(role, block, step, tuple(shape)) if begun is None else begun.result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _make(self, role: str, block: int, step: int, shape: tuple[int, ...]) -> Tensor:
        noise = self.source.draw(role, block, step, shape)
        return noise.pin_memory() if self.pin and torch.cuda.is_available() else noise
