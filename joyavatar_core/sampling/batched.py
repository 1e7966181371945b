"""Several streams as the rows of one batch: every pass runs over all of them, block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..audio import Features
from ..errors import AvatarError
from .noise import Noise, NoiseSource
from .stream import AvatarStream

OWN = {"seed", "noise"}  # fields of a row alone
ROWS = {"reference", "audio", "initial_latents"}  # likewise, but all streams have one or none has


class BatchedNoise:
    """The noise of several streams, a row each: row k is what stream k draws alone."""

    def __init__(self, sources: Sequence[Noise]) -> None:
        self.sources = tuple(sources)

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """As `Noise.draw`, for a shape of as many rows as there are sources."""
        return torch.cat([source.draw(role, block, step, (1, *shape[1:])) for source in self.sources])


class BatchedFeatures(Features):
    """The audio features of several voices: `latent_features` gives [B, count, 4, feature_dim].

    The batch ends with the shortest voice.
    """

    def __init__(self, voices: Sequence[Features]) -> None:
        self.voices = tuple(voices)
        first = self.voices[0]
        self.feature_dim, self.fps = first.feature_dim, first.fps
        self.block_frames, self.lead = first.block_frames, first.lead

    @property
    def num_video_frames(self) -> int | None:
        lengths = [voice.num_video_frames for voice in self.voices]
        return None if None in lengths else min(lengths)

    def ready(self, block: int) -> bool:
        return all(voice.ready(block) for voice in self.voices)

    def wait(self, block: int, timeout: float | None = None) -> bool:
        return all(voice.wait(block, timeout) for voice in self.voices)

    def latent_features(self, first_latent: int, count: int) -> Tensor:
        return torch.stack([voice.latent_features(first_latent, count) for voice in self.voices])


def batched(streams: Sequence[AvatarStream]) -> AvatarStream:
    """One stream whose rows are `streams`: its blocks' latents are [B, 16, K, h, w], row k as stream k alone gives it.

    Each row keeps its portrait, voice, noise and initial latents; everything else must be the same. Blocks have no
    `features`. Raises AvatarError for streams that differ in anything else.
    """
    first = streams[0]
    for field in dataclasses.fields(AvatarStream):
        values = [getattr(stream, field.name) for stream in streams]
        if field.name in ROWS:
            values = [value is None for value in values]
        if field.name not in OWN and not all(_same(value, values[0]) for value in values):
            raise AvatarError(f"The streams of a batch differ in {field.name}; make them with the same settings.")
    rows: dict[str, object] = {
        "batch": len(streams),
        "noise": BatchedNoise([stream.noise or NoiseSource(stream.seed) for stream in streams]),
    }
    for name in ("reference", "initial_latents"):
        if getattr(first, name) is not None:
            rows[name] = torch.cat([getattr(stream, name) for stream in streams])
    if first.audio is not None:
        rows["audio"] = BatchedFeatures([stream.audio for stream in streams])
    return dataclasses.replace(first, **rows)


def _same(one: object, other: object) -> bool:
    return one is other or (not isinstance(one, Tensor) and one == other)
