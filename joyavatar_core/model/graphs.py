"""A model's passes as CUDA graphs: one launch instead of some thousand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .kv_cache import KVCache
from .transformer import AvatarTransformer, SelfContext, TextContext

WARM_UPS = 2  # passes before a capture: libraries allocate and choose kernels in them


@dataclass(frozen=True)
class Recorded:
    """A captured pass: what its inputs are copied to, and where its output appears."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    flow: Tensor | None


class GraphedPasses:
    """Passes of one model over one cache and one prompt. Each kind of pass is captured when it first occurs.

    A kind is a shape of latents at a slot of the cache. A stream with URCR has a dozen of them; a stream with a sliding
    window has a new one for every block until the window is full. The graphs read weights, cache and prompt at the
    addresses of the capture: make a new object after any of them has moved.
    """

    def __init__(self, model: AvatarTransformer, cache: KVCache, text: TextContext) -> None:
        self.model, self.cache, self.text = model, cache, text
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[tuple, Recorded] = {}

    def __len__(self) -> int:
        return len(self._recorded)

    def __call__(
        self,
        latents: Tensor,
        timesteps: Tensor,
        audio_embedding: Tensor | None,
        rope: Tensor,
        slot: int,
        cache_only: bool,
    ) -> Tensor | None:
        """The flow of latents [B, in_channels, F, h, w], as AvatarTransformer's; valid until the next call.

        timesteps [B, F] and audio_embedding [B, F, audio_hidden] are on the device.
        """
        key = (tuple(latents.shape), slot, cache_only)
        inputs = tuple(x for x in (latents, timesteps, audio_embedding, rope) if x is not None)
        if key not in self._recorded:
            self._recorded[key] = self._record(inputs, audio_embedding is not None, slot, cache_only)
        one = self._recorded[key]
        for place, value in zip(one.inputs, inputs, strict=True):
            place.copy_(value)
        one.graph.replay()
        return one.flow

    def _record(self, inputs: tuple[Tensor, ...], has_audio: bool, slot: int, cache_only: bool) -> Recorded:
        places = tuple(value.clone() for value in inputs)
        latents, timesteps, *rest = places
        audio_embedding = rest[0] if has_audio else None
        context = SelfContext(rest[-1], self.cache, slot, None, self.model.attention, self.model.pointwise)

        def run() -> Tensor | None:
            audio = self.model.project_audio(audio_embedding) if has_audio else None
            return self.model(latents, timesteps, self.text, audio, context, cache_only)

        aside = torch.cuda.Stream(latents.device)
        aside.wait_stream(torch.cuda.current_stream(latents.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream(latents.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads decode and download at the same time; a capture of the whole process would forbid it.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            flow = run()
        return Recorded(graph, places, flow)
