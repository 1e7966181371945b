"""Sequence parallelism as in DeepSpeed-Ulysses (arXiv 2309.14509): several processes share each pass of a model.

Every process holds a band of the tokens of each frame and computes everything but self-attention on its band alone.
Before self-attention an all-to-all turns the bands, which have all heads, into all tokens with heads / ranks of the
heads; behind it a second one turns the result back. The KV cache of a process therefore holds heads / ranks of the
heads. Weights, text and timesteps are whole in every process. Bands need not be of equal length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh

from ..errors import AvatarError


@dataclass(frozen=True)
class SequenceParallel:
    """The processes that share a pass, `ranks` of them, and this one's place among them."""

    group: distributed.ProcessGroup
    rank: int
    ranks: int

    @classmethod
    def over(cls, mesh: DeviceMesh) -> SequenceParallel:
        """All processes of a mesh of one dimension, of which this is one."""
        return cls(mesh.get_group(0), mesh.get_local_rank(0), mesh.size())

    def bands(self, frames: int, tokens: int) -> Bands:
        """How the tokens of a pass are shared: of each of `frames` frames a band of its `tokens`."""
        return Bands(self, frames, tuple((tokens + rank) // self.ranks for rank in range(self.ranks)))

    def own_heads(self, x: Tensor) -> Tensor:
        """This process's share of x [..., heads, head_dim], a view."""
        return x.chunk(self.ranks, dim=-2)[self.rank]

    def exchange(self, x: Tensor, given: Sequence[int], taken: Sequence[int]) -> Tensor:
        """All-to-all of a flat tensor: `given` numbers go to each process, `taken` come from each."""
        received = x.new_empty(sum(taken))
        distributed.all_to_all_single(received, x, list(taken), list(given), group=self.group)
        return received


@dataclass(frozen=True)
class Bands:
    """How many tokens of a frame each process has in a pass of `frames` frames."""

    parallel: SequenceParallel
    frames: int
    lengths: tuple[int, ...]

    @property
    def own(self) -> int:
        """Tokens of a frame in this process's band."""
        return self.lengths[self.parallel.rank]

    def cut(self, x: Tensor) -> Tensor:
        """The band of x [B, frames, tokens, ...]."""
        return x.split(self.lengths, dim=2)[self.parallel.rank].contiguous()

    def cut_rope(self, rope: Tensor) -> Tensor:
        """The band's rows of a `rope_table` [frames * tokens, ...]."""
        return self.cut(rope.unflatten(0, (self.frames, -1)).unsqueeze(0)).flatten(0, 2)

    def to_heads(self, bands: Sequence[Tensor]) -> list[Tensor]:
        """Each [B, frames * own, heads, d] -> [B, frames * tokens, heads / ranks, d], in one exchange."""
        ranks = self.parallel.ranks
        x = rearrange(torch.stack(list(bands)), "n b (f t) (p h) d -> p n b f t h d", f=self.frames, p=ranks)
        n, b, f, _, h, d = x.shape[1:]
        sizes = [n * b * f * length * h * d for length in self.lengths]
        received = self.parallel.exchange(x.reshape(-1), [x[0].numel()] * ranks, sizes)
        parts = [
            part.view(n, b, f, length, h, d) for part, length in zip(received.split(sizes), self.lengths, strict=True)
        ]
        return list(torch.cat(parts, dim=3).flatten(2, 3).unbind(0))

    def to_tokens(self, x: Tensor) -> Tensor:
        """[B, frames * tokens, heads / ranks, d] -> [B, frames * own, heads, d]."""
        parts = x.unflatten(1, (self.frames, -1)).split(self.lengths, dim=2)
        sizes = [part.numel() for part in parts]
        flat = torch.cat([part.reshape(-1) for part in parts])
        received = self.parallel.exchange(flat, sizes, [sizes[self.parallel.rank]] * self.parallel.ranks)
        shape = (self.parallel.ranks, len(x), self.frames, self.own, *x.shape[2:])
        return rearrange(received.view(shape), "p b f t h d -> b (f t) (p h) d")

    def gather(self, x: Tensor) -> Tensor:
        """The bands [B, frames, own, n] of all processes -> [B, frames, tokens, n], in every process."""
        ranks, (b, f, _, n) = self.parallel.ranks, x.shape
        sizes = [b * f * length * n for length in self.lengths]
        received = self.parallel.exchange(x.reshape(-1).repeat(ranks), [x.numel()] * ranks, sizes)
        parts = [part.view(b, f, length, n) for part, length in zip(received.split(sizes), self.lengths, strict=True)]
        return torch.cat(parts, dim=2)


def check_ranks(heads: int, ranks: int) -> None:
    """Raise AvatarError where `ranks` processes cannot share a model of `heads` heads."""
    if heads % ranks:
        fitting = [str(n) for n in range(2, heads + 1) if heads % n == 0]
        most = f"{', '.join(fitting[:-1])} or {fitting[-1]}" if len(fitting) > 1 else "".join(fitting) or "1"
        raise AvatarError(
            f"{ranks} processes cannot share the {heads} heads of this model; start torchrun with "
            f"{most} processes, and one more where one only decodes.",
            "decode_rank",
        )
