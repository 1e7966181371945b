"""The `speak` command: a video file from a portrait and a voice, with progress and a report."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from ..geometry import VIDEO_FRAMES_PER_LATENT
from ..paths import printable
from ..sampling.run import StreamRun
from ..sampling.stream import LatentBlock
from .job import Job, prepare, save_report
from .options import SpeakOptions, parsed

if TYPE_CHECKING:
    from ..audio import AudioSource
    from ..monitoring.observer import Observer
    from ..monitoring.report import RunReport
    from ..pipeline.avatar import Avatar
    from ..pipeline.render import OnBlock
    from ..recording import Recording

log = logging.getLogger(__name__)
OnFrames = Callable[[int, int | None], None]  # (frames so far, frames in all)


def speak(args: argparse.Namespace) -> None:
    """``joyavatar speak``: parse, check, load, make the video. Raises AvatarError for bad input."""
    from tqdm import tqdm

    from ..pipeline.avatar import load_avatar

    options = parsed(SpeakOptions, args)
    voice = options.check()
    log.info("loading")  # torch's first steps take seconds, on a fresh machine many
    avatar = load_avatar(options.avatar)
    started, made, fps = time.perf_counter(), [], options.fps or avatar.config.fps
    with tqdm(unit="frame", disable=None) as bar:

        def on_frames(frames: int, total: int | None) -> None:
            made.append(frames)
            bar.total = total
            bar.set_postfix_str(f"{frames / fps:.1f} s of video", refresh=False)
            bar.update(frames - bar.n)

        report = make_video(options, voice, avatar, on_frames)
    seconds = time.perf_counter() - started
    untrained = "" if avatar.config.trained else " (random weights: the picture has no meaning)"
    say(f"{options.out}: {report.frames} frames, {report.frames / float(report.fps):.2f} s, "
        f"{(report.frames - made[0]) / seconds:.1f} frames/s{untrained}")  # fmt: skip


def make_video(options: SpeakOptions, voice: AudioSource, avatar: Avatar, on_frames: OnFrames) -> RunReport:
    """Make one video and its report. Raises AvatarError for bad input.

    voice: what `options.check` returned. avatar: loaded from `options.avatar`. on_frames: called at the start, with the
    frames that are there already, and after every block; an exception that it raises ends the video early.
    """
    from ..monitoring.observer import Observer

    job = prepare(options, voice, avatar)
    report = job.report
    observe = Observer(report, voice, options.monitor)

    def on_block(block: LatentBlock, shown: Tensor) -> None:
        observe(block, shown)
        on_frames(report.frames, job.num_frames)

    try:
        (record if options.state else write)(options, job, observe, on_block, on_frames)
    except KeyboardInterrupt:
        if report.blocks:
            save_report(options, job)
        raise
    save_report(options, job)
    return report


def write(options: SpeakOptions, job: Job, observe: Observer, on_block: OnBlock, on_frames: OnFrames) -> None:
    """Make the video in one run. A KeyboardInterrupt says which file is kept."""
    from ..pipeline.render import talk
    from ..video import VideoWriter

    voice, stream, decoder = job.voice, job.stream, job.avatar.decoder
    writer = VideoWriter(
        options.out, *job.size, job.rate.fps, voice.sample_rate, voice.channels, crf=options.quality,
        metadata=job.metadata, encoder=options.encoder,
    )  # fmt: skip
    try:
        with writer, StreamRun(stream) as run:
            on_frames(0, job.num_frames)
            reset = options.reset_on_drift
            observe.reset_on_drift = run if reset else None
            talk(run, decoder, writer, voice, on_block, refine=job.refine, overlap=not reset)
    except KeyboardInterrupt:
        kept = writer.growing is not None
        raise KeyboardInterrupt(f"what was made plays: {writer.growing}" if kept else "no frame was made") from None


def record(options: SpeakOptions, job: Job, observe: Observer, on_block: OnBlock, on_frames: OnFrames) -> None:
    """Make the video in a state folder, or the rest of it. A KeyboardInterrupt says where a resumed run goes on."""
    from ..monitoring.report import clock_text
    from ..recording import DEFAULT_INTERVAL, Recording

    stream = job.stream
    recording = Recording(
        options.state, stream, job.avatar.decoder, job.voice, every=options.checkpoint_every or DEFAULT_INTERVAL,
        crf=options.quality, resume=options.resume, metadata=job.metadata, refine=job.refine,
        encoder=options.encoder,
    )  # fmt: skip
    try:
        with recording:
            say_where(recording)
            observe.look_back(recording)
            on_frames(recording.frames, job.num_frames)
            job.report.settings = {**job.report.settings, "resumed_at_block": recording.blocks}
            recording.record(on_block)
            recording.join(options.out)
    except KeyboardInterrupt:
        at = clock_text(recording.frames / float(recording.rate.fps))
        raise KeyboardInterrupt(f"start the command again with --resume to go on at {at}") from None


def say(text: str) -> None:
    """The result, on standard output, if anybody reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(printable(text), flush=True)


def say_where(recording: Recording) -> None:
    """Log what a recording costs on the disk and where it begins."""
    config = recording.stream.config
    log.info(
        "every %d blocks a segment of %.1f s and a state of up to %.1f MB in %s (two states are kept)",
        recording.every, recording.every * config.block_frames * VIDEO_FRAMES_PER_LATENT / config.fps,
        recording.state_bytes / 1e6, recording.folder.path,
    )  # fmt: skip
    if recording.finished:
        log.info("this recording is finished; its video is joined again")
    elif recording.frames:
        seconds = recording.frames / recording.rate.fps
        log.info("resuming after block %d, %.1f s into the video", recording.blocks - 1, seconds)
