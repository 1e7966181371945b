"""A KV cache of which every process holds some heads; the leader's calls are repeated by the followers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from ..model.kv_cache import KVCache
from ..model.sequence_parallel import SequenceParallel
from .messages import Channel, as_bytes

REPEATED = ("commit", "keep", "shift")  # calls of KVCache that followers repeat with the same arguments


class SharedCache:
    """The leader's KVCache, with the same calls; `own` holds its share of the heads, `number` names it to followers.

    What goes in or comes out (`keys_of`, `put_keys`, states) has all heads, so a state fits any number of processes.
    """

    def __init__(self, own: KVCache, number: int, parallel: SequenceParallel, channel: Channel) -> None:
        self.own, self.number = own, number
        self._parallel, self._channel = parallel, channel
        self._put: Tensor | None = None  # the keys that followers have from the last `put_keys`

    @property
    def frame_ids(self) -> list[int]:
        return self.own.frame_ids

    @property
    def positions(self) -> list[int]:
        return self.own.positions

    @property
    def length(self) -> int:
        return self.own.length

    @property
    def slots(self) -> int:
        return self.own.slots

    @property
    def tokens(self) -> int:
        return self.own.tokens

    @property
    def dtype(self) -> torch.dtype:
        return self.own.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in this process."""
        return self.own.nbytes

    def commit(self, frame_ids: Sequence[int], positions: Sequence[int]) -> None:
        self._repeat("commit", list(frame_ids), list(positions))

    def keep(self, slots: Sequence[int]) -> None:
        self._repeat("keep", list(slots))

    def shift(self, slots: Sequence[int], by: int) -> None:
        self._repeat("shift", list(slots), by)

    def _repeat(self, name: str, *arguments: object) -> None:
        with self._channel.turn():
            self._channel.send("call", cache=self.number, name=name, arguments=arguments)
            getattr(self.own, name)(*arguments)

    def keys_of(self, slot: int) -> Tensor:
        """A copy of a frame's keys, [layers, B, tokens, heads, head_dim]."""
        with self._channel.turn():
            self._channel.send("keys_of", cache=self.number, slot=slot)
            return gather_heads(self.own.keys_of(slot), self._parallel)

    def put_keys(self, slot: int, keys: Tensor, position: int) -> None:
        """As KVCache.put_keys; the same tensor given again is not sent again."""
        with self._channel.turn():
            sent = [] if keys is self._put else [keys]
            self._channel.send("put_keys", sent, cache=self.number, slot=slot, position=position)
            self._put = keys
            self.own.put_keys(slot, self._parallel.own_heads(keys), position)

    def state_dict(self, copy: bool = True) -> dict[str, object]:
        """As KVCache.state_dict, all heads; always a copy, on the CPU."""
        with self._channel.turn():
            self._channel.send("state", cache=self.number)
            return whole_state(self.own, self._parallel)

    def load_state_dict(self, state: dict[str, object]) -> None:
        """As KVCache.load_state_dict, from a state with all heads, a layer at a time."""
        frames, positions = list(state["frames"]), list(state["positions"])
        for layer, tensors in enumerate(zip(state["keys"], state["values"], strict=True)):
            with self._channel.turn():
                self._channel.send("put_layer", tensors, cache=self.number, layer=layer)
                put_layer(self.own, layer, tensors, self._parallel)
        self.own.frame_ids.clear()
        self.own.positions.clear()
        self.commit(frames, positions)


def gather_heads(x: Tensor, parallel: SequenceParallel) -> Tensor | None:
    """Shares [..., heads / ranks, head_dim] of all processes -> [..., heads, head_dim] in the first, None elsewhere."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(parallel.ranks)] if parallel.rank == 0 else None
    flat = None if parts is None else [as_bytes(part) for part in parts]
    distributed.gather(as_bytes(x), flat, group=parallel.group)
    return None if parts is None else torch.cat(parts, dim=-2)


def whole_state(cache: KVCache, parallel: SequenceParallel) -> dict[str, object] | None:
    """A cache's state with all heads in the first process, None elsewhere; one layer at a time passes a device."""
    state = cache.state_dict(copy=False)
    for name in ("keys", "values"):
        own = state[name]
        whole = None
        for layer, part in enumerate(own):
            gathered = gather_heads(part, parallel)
            if gathered is None:
                continue
            if whole is None:
                whole = torch.empty((len(own), *gathered.shape), dtype=own.dtype)
            whole[layer] = gathered
        state[name] = whole
    return state if parallel.rank == 0 else None


def put_layer(cache: KVCache, layer: int, tensors: Sequence[Tensor], parallel: SequenceParallel) -> None:
    """A layer's keys and values [B, tokens, heads, head_dim] into the front of a cache of some heads."""
    for target, tensor in zip((cache.keys, cache.values), tensors, strict=True):
        target[layer, :, : tensor.shape[1]] = parallel.own_heads(tensor)
