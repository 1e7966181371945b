"""The key-value cache: rotated keys, and values, of past frames.

Attention does not depend on the order of keys, and a key carries its own position. So frames are never rolled: the slot
of a dropped frame is filled with the last one, and every pass reads one contiguous range without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .rope import shift_rotated, shift_table


class KVCache:
    """Pre-allocated keys and values, in slots of one latent frame.

    Slots 0 ... length-1 hold the past. A pass writes at a slot >= length and attends to everything up to its own end:
    a block at `length`, or noisy copies at `length` and then the block behind them. `commit` makes the block at
    `length` part of the past; the next pass overwrites whatever else was written there.

    An 8-bit dtype (float8_e4m3fn) halves the memory. It has 3 mantissa bits; each layer's keys and values are converted
    to the dtype of the pass when they are read.

    Attributes: `frame_ids`, the place in the stream of each slot's frame; `positions`, its temporal position.
    """

    def __init__(
        self, layers: int, batch: int, slots: int, tokens: int, heads: int, head_dim: int, dtype=None, device=None
    ) -> None:
        shape = (layers, batch, slots * tokens, heads, head_dim)
        self.tokens = tokens  # of one frame
        self.slots = slots
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.frame_ids: list[int] = []
        self.positions: list[int] = []

    @property
    def length(self) -> int:
        return len(self.frame_ids)

    @property
    def dtype(self) -> torch.dtype:
        return self.keys.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values together."""
        return self.keys.nbytes + self.values.nbytes

    def write(self, layer: int, k: Tensor, v: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        """Store k, v [B, frames * tokens, heads, head_dim] from `slot` on; return all that this pass attends to."""
        start = slot * self.tokens
        stop = start + k.shape[1]
        self.keys[layer, :, start:stop] = self._storable(k)
        self.values[layer, :, start:stop] = self._storable(v)
        return self.keys[layer, :, :stop].to(k.dtype), self.values[layer, :, :stop].to(v.dtype)

    def _storable(self, x: Tensor) -> Tensor:
        """Numbers clamped to the cache's dtype: float8_e4m3fn ends at 448 and has no infinity."""
        if self.keys.dtype.itemsize > 1:
            return x
        most = torch.finfo(self.keys.dtype).max
        return x.clamp(-most, most)

    def commit(self, frame_ids: Sequence[int], positions: Sequence[int]) -> None:
        """Make the frames of the last pass at slot `length` part of the past."""
        self.frame_ids += frame_ids
        self.positions += positions

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only these slots. Gaps are filled from the back, so little is copied."""
        kept = sorted(slots)
        holes = [slot for slot in range(len(kept)) if slot not in kept]
        movers = [slot for slot in kept if slot >= len(kept)]
        for hole, mover in zip(holes, movers, strict=True):
            self._tokens(self.keys, hole)[:] = self._tokens(self.keys, mover)
            self._tokens(self.values, hole)[:] = self._tokens(self.values, mover)
            self.frame_ids[hole] = self.frame_ids[mover]
            self.positions[hole] = self.positions[mover]
        del self.frame_ids[len(kept) :], self.positions[len(kept) :]

    def shift(self, slots: Sequence[int], by: int) -> None:
        """Move frames in time by rotating their keys, one layer at a time: little memory beside the cache."""
        table = shift_table(self.keys.shape[-1], by, self.keys.device)
        for slot in slots:
            for keys in self._tokens(self.keys, slot):
                keys[:] = self._storable(shift_rotated(keys if keys.dtype.itemsize > 1 else keys.float(), table))
            self.positions[slot] += by

    def keys_of(self, slot: int) -> Tensor:
        """A view of a frame's keys, [layers, B, tokens, heads, head_dim]."""
        return self._tokens(self.keys, slot)

    def put_keys(self, slot: int, keys: Tensor, position: int) -> None:
        """Put a frame at `position`; `keys` are those it has at position 0."""
        self.keys_of(slot)[:] = keys
        self.positions[slot] = 0
        if position:
            self.shift([slot], position)

    def _tokens(self, tensor: Tensor, slot: int) -> Tensor:
        return tensor[:, :, slot * self.tokens : (slot + 1) * self.tokens]

    def state_dict(self, copy: bool = True) -> dict[str, object]:
        """Keys and values in use, with their frame numbers and positions; views of them without `copy`."""
        used = self.length * self.tokens
        keys, values = self.keys[:, :, :used], self.values[:, :, :used]
        return {
            "keys": keys.clone() if copy else keys,
            "values": values.clone() if copy else values,
            "frames": list(self.frame_ids),
            "positions": list(self.positions),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        used = len(state["frames"]) * self.tokens
        self.keys[:, :, :used] = state["keys"]
        self.values[:, :, :used] = state["values"]
        self.frame_ids = list(state["frames"])
        self.positions = list(state["positions"])
