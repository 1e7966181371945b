"""The main job: pull a stream's blocks, decode them, write picture and sound; memory does not grow with it.

While the caller writes a block, one thread refines the next, one decodes the next but one, and one samples ahead of
that. On CUDA decoding and refining share a stream of their own, and finished frames come to the CPU once, through
pinned memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..audio import AudioSource
from ..geometry import Size
from ..refiner.frame_rate import FrameRate
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream, LatentBlock
from ..vae import Decoder, VAECache
from ..video.portrait import to_uint8
from .overlap import ahead

if TYPE_CHECKING:
    from ..refiner import PortraitRefiner
    from ..video import VideoWriter

OnBlock = Callable[[LatentBlock, Tensor], None]  # (block, its frames uint8 [N, H, W, 3] on the CPU)
Convert = Callable[[Tensor], Tensor]


def frames_of(
    blocks: Iterable[LatentBlock],
    decoder: Decoder,
    cache: VAECache | None = None,
    refine: PortraitRefiner | None = None,
    *,
    overlap: bool = True,
    interrupt: threading.Event | None = None,
    convert: Convert = to_uint8,
) -> Iterator[tuple[LatentBlock, Tensor]]:
    """Every block of a run with its frames, uint8 [N, H, W, 3] on the CPU; the decoder's cache makes them seamless.

    cache: the decoder's, where the blocks go on with a stream that has begun. refine: what draws or refines the frames.
    convert: what makes frames of decoded or refined video [3, N, H, W] in [-1, 1], where they are not to be bytes.
    overlap: sample, decode and refine later blocks meanwhile; without it each block is made when it is asked for.
    interrupt: the run's, by default that of a StreamRun given as `blocks`. Close the generator unless it is read to
    its end; closing it ends the threads.
    """
    interrupt = interrupt or getattr(blocks, "interrupt", None)
    device = decoder.compute_device
    stream = side_stream(device) if device.type == "cuda" else None
    made: Iterator = (block for block in blocks)
    for name, work in (
        ("sampling", iter),
        ("decoding", partial(decoded, decoder=decoder, cache=cache, refine=refine, stream=stream)),
        ("refining", partial(finished, refine=refine, convert=convert, device=device, stream=stream)),
    ):
        made = stage(name, work, made, interrupt) if overlap else work(made)
    with closing(made):
        yield from made


@lru_cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The CUDA stream that decodes and refines. The allocator keeps memory for each stream, so there is only one."""
    return torch.cuda.Stream(device)


def stage(
    name: str, work: Callable[[Iterator], Iterator], source: Iterator, interrupt: threading.Event | None
) -> Iterator:
    """The items of `work(source)`, made in a thread of this name. Closing it closes the source, too."""

    def items() -> Iterator:
        with closing(source):
            yield from work(source)

    return ahead(items, name, interrupt)


def output_pixel_size(stream: AvatarStream, refine: PortraitRefiner | None) -> Size:
    """(width, height) in pixels of a stream's finished frames."""
    return stream.pixel_size if refine is None else refine.pixel_size


def output_rate(stream: AvatarStream, refine: PortraitRefiner | None) -> FrameRate:
    """The frame rate of a stream's finished frames."""
    own = FrameRate(stream.config.fps, stream.config.fps)
    return own if refine is None else refine.rate or own


@torch.no_grad()
def decoded(
    blocks: Iterable[LatentBlock],
    decoder: Decoder,
    cache: VAECache | None = None,
    refine: PortraitRefiner | None = None,
    stream: torch.cuda.Stream | None = None,
) -> Iterator[tuple[LatentBlock, Tensor | None]]:
    """The blocks with their video [3, N, H, W] in [-1, 1], on the decoder's device, one after the other.

    It is None where `refine` needs no video: most of a block's time would go into decoding. On CUDA the video is
    complete once `stream` is synchronised.
    """
    cache = decoder.new_cache() if cache is None else cache
    for block in blocks:
        with torch.cuda.stream(stream):
            video = decoded_block(block, decoder, cache, refine)
        if stream is not None:
            block.latents.record_stream(stream)
        yield block, video


def decoded_block(
    block: LatentBlock, decoder: Decoder, cache: VAECache, refine: PortraitRefiner | None = None
) -> Tensor | None:
    """A block's video [3, N, H, W] in [-1, 1], on the decoder's device; None where `refine` needs no video."""
    if refine is not None and refine.draws_from_latents:
        return None
    latents = block.latents.to(decoder.compute_device, decoder.compute_dtype)
    return decoder.decode(latents, cache)[0][:, : block.num_video_frames]


@torch.no_grad()
def finished(
    videos: Iterable[tuple[LatentBlock, Tensor | None]],
    refine: PortraitRefiner | None = None,
    convert: Convert = to_uint8,
    device: torch.device | None = None,
    stream: torch.cuda.Stream | None = None,
) -> Iterator[tuple[LatentBlock, Tensor]]:
    """The blocks with their frames on the CPU, refined and converted.

    device: of the decoder; a refiner may be on another one. stream: the one of `decoded`.
    """
    for block, video in videos:
        with torch.cuda.stream(stream):
            frames = convert(video if refine is None else refine.block(block, video)).to(device)
            if stream is not None:
                frames = downloaded(frames)
        if stream is not None:
            stream.synchronize()
        yield block, frames


def downloaded(frames: Tensor) -> Tensor:
    """An asynchronous copy in pinned memory; it is complete when the current CUDA stream is synchronised."""
    return torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True).copy_(frames, non_blocking=True)


def talk(
    run: StreamRun,
    decoder: Decoder,
    writer: VideoWriter,
    voice: AudioSource | None = None,
    on_block: OnBlock | None = None,
    *,
    blocks: Iterable[LatentBlock] | None = None,
    cache: VAECache | None = None,
    refine: PortraitRefiner | None = None,
    overlap: bool = True,
) -> None:
    """Write a run's frames, and the voice that belongs to them, into an open writer.

    blocks: which of the run's, default all that are left. cache, refine, overlap: as in `frames_of`.
    """
    rate = output_rate(run.stream, refine)
    source = run if blocks is None else blocks
    with closing(frames_of(source, decoder, cache, refine, overlap=overlap, interrupt=run.interrupt)) as made:
        for block, frames in made:
            writer.write(frames)
            if voice is not None:
                shown = rate.shown(range(block.first_frame, block.last_frame + 1))
                writer.write_audio(voice.read_native(*voice.samples_of(shown, rate.fps)))
            if on_block is not None:
                on_block(block, frames)
