"""The model's passes in one run: what they share, and the key-value cache that they read and write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..device import to_device
from ..geometry import tokens_per_frame
from ..model.graphs import GraphedPasses
from ..model.kv_cache import KVCache
from ..model.transformer import SelfContext
from .stream import AvatarStream

TABLES = 64  # most tensors kept for later passes
Pass = Callable[..., Tensor | None]  # (latents, timesteps, cache_only=False) -> flow


class Passes:
    """Forward passes of a stream's transformer over one cache.

    Attributes: `cache`; `reference`, the portrait's latent on the device, None without one; `text`, the prompt's keys
    and values; `highest_position`, the highest temporal position since the caller last set it.
    """

    def __init__(self, stream: AvatarStream) -> None:
        self.model, self.config = stream.model, stream.config
        self.device, self.dtype = stream.compute_device, stream.compute_dtype
        self.width, self.height = stream.latent_size
        self.cache = new_cache(stream)
        self.reference: Tensor | None = None
        if stream.reference is not None:
            self.reference = stream.reference.to(self.device, self.dtype)
        self.highest_position = 0
        self._use_graphs = stream.graphs and self.device.type == "cuda"
        self._tables: dict[tuple, Tensor] = {}
        self.set_text(stream.text)

    def set_text(self, text: Tensor | None) -> None:
        """Use another prompt [1, n, text_dim] from the next pass on; None is an empty one."""
        config = self.config
        used = torch.zeros(1, 0, config.text_dim)
        if text is not None:
            rows = text.any(dim=2).any(dim=0).nonzero()
            used = text[:, : int(rows[-1]) + 1 if len(rows) else 0]
        used = to_device(used, self.device, self.dtype)
        with torch.no_grad():
            self.text = self.model.encode_text(used, padding=config.text_tokens - used.shape[1])
        self._graphs = GraphedPasses(self.model, self.cache, self.text) if self._use_graphs else None

    def audio_embedding(self, features: Tensor) -> Tensor:
        """Audio features [frames, 4, audio_dim] or [B, frames, 4, audio_dim] on the CPU -> [B, frames, audio_hidden]
        on the device."""
        rows = features if features.ndim == 4 else features.unsqueeze(0)
        return self.model.encode_audio(to_device(rows, self.device, self.dtype))

    def forward(
        self,
        latents: Tensor,
        timesteps: Sequence[float],
        audio_embedding: Tensor | None,
        frame_ids: Sequence[int],
        positions: Sequence[int],
        cache_only: bool = False,
    ) -> Tensor | None:
        """One pass whose keys and values go behind the cached frames; arguments as in `prepare`."""
        return self.prepare(audio_embedding, frame_ids, positions, self.cache.length)(latents, timesteps, cache_only)

    def prepare(
        self, audio_embedding: Tensor | None, frame_ids: Sequence[int], positions: Sequence[int], slot: int
    ) -> Pass:
        """The passes over some frames, which differ in latents and timesteps alone.

        audio_embedding: [1, F, audio_hidden]. frame_ids: their places in the stream. positions: their temporal
        positions. slot: where in the cache their keys and values go. The result takes latents [1, 16, F, h, w] and F
        timesteps.
        """
        model = self.model
        self.highest_position = max(self.highest_position, positions[-1])
        rope = self._table(("rope", *positions), lambda: model.rope(positions, self.height, self.width, self.device))
        context = SelfContext(rope, self.cache, slot, attention=model.attention, pointwise=model.pointwise)
        audio = None
        if audio_embedding is not None and self._graphs is None:
            audio = model.project_audio(audio_embedding)
        conditions = self.conditions(frame_ids)

        def run(latents: Tensor, timesteps: Sequence[float], cache_only: bool = False) -> Tensor | None:
            if conditions is not None:
                latents = torch.cat([latents, conditions], dim=1)
            # In float32, as in the public loops.
            times = self._table(
                ("timesteps", *timesteps),
                lambda: to_device(torch.tensor([timesteps], dtype=torch.float32), self.device),
            )
            if self._graphs is not None:
                return self._graphs(latents, times, audio_embedding, rope, slot, cache_only)
            return model(latents, times, self.text, audio, context, cache_only)

        return run

    def is_conditioning(self, frame: int) -> bool:
        """Whether a frame is the conditioning frame: the stream's first one, which is the portrait itself."""
        return frame == 0 and self.reference is not None

    def references(self, count: int) -> Tensor:
        """The portrait's latent for `count` frames, [B, 16, count, h, w]."""
        return self.reference.expand(-1, -1, count, -1, -1)

    def conditions(self, frame_ids: Sequence[int]) -> Tensor | None:
        """Reference and mask channels [B, 17, F, h, w]; the mask is 0 at the conditioning frame, else 1."""
        if self.reference is None:
            return None
        conditioning = [self.is_conditioning(frame) for frame in frame_ids]
        return self._table(("conditions", *conditioning), lambda: self._new_conditions(conditioning))

    def _new_conditions(self, conditioning: Sequence[bool]) -> Tensor:
        mask = torch.ones(1, 1, len(conditioning), self.height, self.width, dtype=self.dtype)
        mask[:, :, conditioning] = 0
        mask = to_device(mask, self.device).expand(len(self.reference), -1, -1, -1, -1)
        return torch.cat([self.references(len(conditioning)), mask], dim=1)

    def _table(self, key: tuple, make: Callable[[], Tensor]) -> Tensor:
        """A tensor on the device that many passes need; the oldest is dropped where there are too many."""
        if key not in self._tables:
            if len(self._tables) >= TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[key] = make()
        return self._tables[key]


def new_cache(stream: AvatarStream) -> KVCache:
    """An empty cache for a stream, with room for what URCR keeps and MCI injects."""
    return stream.model.new_cache(
        slots=stream.urcr.capacity(stream.config) + stream.mci.injected, tokens=tokens_per_frame(stream.latent_size),
        dtype=stream.kv_dtype or stream.compute_dtype, device=stream.compute_device, batch=stream.batch,
    )  # fmt: skip
