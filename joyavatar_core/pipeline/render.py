"""The main job: pull a stream's blocks, decode them, write picture and sound; one block is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..audio import AudioSource, Clock
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream, LatentBlock
from ..vae import StreamingVAE, TinyDecoder
from ..vae.cache import VAECache
from ..video import VideoWriter
from ..video.portrait import to_uint8

if TYPE_CHECKING:
    from ..refiner import PortraitRefiner

OnBlock = Callable[[LatentBlock, Tensor], None]  # (block, its frames uint8 [N, H, W, 3])


def picture_size(stream: AvatarStream, refine: PortraitRefiner | None) -> tuple[int, int]:
    """(width, height) in pixels of a stream's finished frames."""
    height, width = stream.latent_size
    return (8 * width, 8 * height) if refine is None else refine.size


@torch.no_grad()
def frames_of(
    blocks: Iterable[LatentBlock],
    decoder: StreamingVAE | TinyDecoder,
    cache: VAECache | None = None,
    refine: PortraitRefiner | None = None,
) -> Iterator[tuple[LatentBlock, Tensor]]:
    """Every block of a run with its video frames, uint8 [N, H, W, 3]; the decoder's cache makes them seamless.

    cache: the decoder's, where the blocks go on with a stream that has begun. refine: what is done to decoded frames.
    """
    cache = decoder.new_cache() if cache is None else cache
    like = next(decoder.parameters())
    for block in blocks:
        video = decoder.decode(block.latents.to(like.device, like.dtype), cache)[0][:, : block.num_frames]
        yield block, to_uint8(video if refine is None else refine(video))


def talk(
    run: StreamRun,
    decoder: StreamingVAE | TinyDecoder,
    writer: VideoWriter,
    voice: AudioSource | None = None,
    on_block: OnBlock | None = None,
    *,
    blocks: Iterable[LatentBlock] | None = None,
    cache: VAECache | None = None,
    refine: PortraitRefiner | None = None,
) -> None:
    """Write a run's frames, and the voice that belongs to them, into an open writer.

    blocks: which of the run's, default all that are left. cache, refine: as in `frames_of`.
    """
    clock = Clock(voice.sample_rate, run.stream.model.config.fps) if voice is not None else None
    for block, frames in frames_of(run if blocks is None else blocks, decoder, cache, refine):
        writer.write(frames)
        if clock is not None:
            start, stop = clock.frame_samples(range(block.first_frame, block.last_frame + 1))
            end = voice.num_samples
            writer.write_audio(voice.read_native(start, stop if end is None else max(start, min(stop, end))))
        if on_block is not None:
            on_block(block, frames)
