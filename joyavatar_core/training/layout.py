"""The layout of one teacher-forced pass: past, injected noisy copies, and the blocks to be denoised.

The sampler makes one block at a time over a cache; a training pass has many blocks at once. Attention is the same in
both: a past block attends to the past and itself, noisy copies attend to the past and themselves, a block that is
being denoised attends to the past, its own noisy copies and itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.attention import Attention

PAST, COPY, TARGET = range(3)
DENSE = 8192  # tokens of a pass up to which a dense mask is used on a GPU


@dataclass(frozen=True)
class Segment:
    """Frames of one kind that attend to each other. `block`: the one they are, or are copied for."""

    kind: int
    block: int
    frames: tuple[int, ...]  # frame numbers of the stream, which are also their positions
    start: int  # of its frames within the pass
    visible: tuple[int, ...]  # indices of the segments it attends to, itself last

    @property
    def stop(self) -> int:
        return self.start + len(self.frames)


@dataclass(frozen=True)
class Layout:
    """The segments of a pass over `blocks` blocks of `size` frames, with `copies` injected frames a block."""

    blocks: int
    size: int
    copies: int
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, blocks: int, size: int, copies: int) -> Layout:
        """Past blocks first, then the copies, then the targets. Frame 0 is the conditioning frame and never copied."""
        segments: list[Segment] = []

        def add(kind: int, block: int, frames: range, others: list[int]) -> None:
            start = segments[-1].stop if segments else 0
            segments.append(Segment(kind, block, tuple(frames), start, (*others, len(segments))))

        for block in range(blocks - 1):
            add(PAST, block, range(block * size, (block + 1) * size), list(range(block)))
        for block in range(1, blocks if copies else 1):
            add(COPY, block, range(max(1, block * size - copies), block * size), list(range(block)))
        copies_of = {s.block: k for k, s in enumerate(segments) if s.kind == COPY}
        for block in range(blocks):
            own = [copies_of[block]] if block in copies_of else []
            add(TARGET, block, range(block * size, (block + 1) * size), [*range(block), *own])
        return cls(blocks, size, copies, tuple(segments))

    @classmethod
    def together(cls, blocks: int, size: int) -> Layout:
        """All blocks as one segment: the bidirectional attention of models that are not causal."""
        whole = Segment(TARGET, 0, tuple(range(blocks * size)), 0, (0,))
        return cls(blocks, size, 0, (whole,))

    @property
    def frames(self) -> list[int]:
        """The frame number, and position, of every frame of the pass."""
        return [frame for segment in self.segments for frame in segment.frames]

    def of_kind(self, kind: int) -> list[Segment]:
        return [segment for segment in self.segments if segment.kind == kind]

    def mask(self, tokens: int) -> Tensor:
        """The same visibility as a dense mask [T, T] of bool, for `tokens` tokens a frame."""
        frames = len(self.frames)
        mask = torch.zeros(frames, frames, dtype=torch.bool)
        for segment in self.segments:
            for other in segment.visible:
                seen = self.segments[other]
                mask[segment.start : segment.stop, seen.start : seen.stop] = True
        return mask.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)

    def attention(self, tokens: int, device: torch.device | str = "cpu") -> Attention:
        """Attention that reads visible segments only: a third of the dense mask's work, and the same numbers.

        On a CPU, scores are computed explicitly. On other devices torch's fused attention runs. Short passes use the
        dense mask, because for them the number of kernels matters more than their work. Keys of another length (the
        text's) are visible to all.
        """
        total = len(self.frames) * tokens
        cpu = torch.device(device).type == "cpu"
        mask = self.mask(tokens).to(device) if not cpu and total <= DENSE else None
        fused = plain_attention if cpu else F.scaled_dot_product_attention

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, heads, T, head_dim]
            if k.shape[2] != total:
                return fused(q, k, v).transpose(1, 2)
            if mask is not None:
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
            parts = []
            for segment in self.segments:
                seen = [self.segments[other] for other in segment.visible]
                keys, values = (_gather(x, seen, tokens) for x in (k, v))
                own = q[:, :, segment.start * tokens : segment.stop * tokens]
                parts.append(fused(own, keys, values))
            return torch.cat(parts, dim=2).transpose(1, 2)

        return attend


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Explicit attention [B, heads, T, head_dim]: torch's fused one takes 3 times as long backwards on a CPU."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1).to(v.dtype) @ v


def _gather(x: Tensor, segments: list[Segment], tokens: int) -> Tensor:
    """The tokens of some segments; neighbours are read as one slice."""
    spans: list[list[int]] = []
    for segment in segments:
        if spans and spans[-1][1] == segment.start:
            spans[-1][1] = segment.stop
        else:
            spans.append([segment.start, segment.stop])
    slices = [x[:, :, start * tokens : stop * tokens] for start, stop in spans]
    return slices[0] if len(slices) == 1 else torch.cat(slices, dim=2)
