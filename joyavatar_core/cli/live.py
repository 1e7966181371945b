"""The `live` command: a talking video over HTTP, to a file or to a pipe, made while its voice is spoken."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import ArrayAudio, AudioFeatures
from ..monitoring.observer import Observer
from ..paths import STDOUT
from ..sampling.run import StreamRun
from .job import Job, prepare, save_report
from .options import LiveOptions, parsed

if TYPE_CHECKING:
    from torch import Tensor

    from ..sampling.stream import LatentBlock

log = logging.getLogger(__name__)
LIVE = """Make a talking video while its voice is spoken, and serve it over HTTP, write it to a file or to a pipe."""

Sink = Callable[["Tensor", "np.ndarray"], None]  # frames uint8 [N, H, W, 3], their sound float32 [S, C]


def add_live_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags for the output of a live video."""
    output = command.add_argument_group("output", "at least one")
    output.add_argument(
        "--serve",
        metavar="[HOST:]PORT",
        help="watch at http://HOST:PORT/ (page, /live.mp4, /live.ts); default 127.0.0.1",
    )
    output.add_argument("--out", help="a video to write, *.mp4, or - for standard output")
    output.add_argument("--format", choices=("mpegts", "mp4"), default="mpegts", help="of the video on standard output")
    output.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a host name that requests may use"
    )
    output.add_argument("--viewers", type=int, default=8, help="most viewers at one time; default 8")
    output.add_argument(
        "--pace", choices=("auto", "on", "off"), default="auto",
        help="send each block at its playback time; auto: for files, whose voice is complete at the start",
    )  # fmt: skip


def live(args: argparse.Namespace) -> None:
    """``joyavatar live``: make each block as soon as its voice is there, and send it at once. Raises AvatarError."""
    from ..pipeline.avatar import load_avatar

    options = parsed(LiveOptions, args)
    voice = options.check()
    log.info("loading")  # torch's first steps take seconds, on a fresh machine many
    job = prepare(options, voice, load_avatar(options.avatar))
    progress = LiveProgress(job, options.monitor, options.reset_on_drift)
    try:
        with contextlib.ExitStack() as stack:
            sinks = open_sinks(options, job, progress, stack)
            warm_up(job)
            progress.state = "waiting"
            paced = options.pace == "on" or (options.pace == "auto" and not voice.live)
            run_live(job, sinks, progress, paced)
    except KeyboardInterrupt:
        written = options.out not in (None, STDOUT) and job.report.blocks
        kept = ["what was written so far is kept and plays"] if written else []
        raise KeyboardInterrupt(*kept) from None
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - without a reader Python would complain at its end
        log.info("the reader of standard output has gone")
    finally:
        progress.finish()
        save_report(options, job)


def warm_up(job: Job) -> None:
    """Make one block of silence and drop it, so that what is loaded on first use is loaded before the first word."""
    from ..pipeline.render import frames_of
    from ..sampling.psb import PSB_OFF, PsbSettings

    audio = job.stream.audio
    if audio is not None:
        silence = ArrayAudio(np.zeros(job.voice.sample_rate), job.voice.sample_rate)
        audio = AudioFeatures(silence, audio.encoder, audio.clock.fps, audio.block_frames, lead=audio.lead)
    psb = PSB_OFF if job.stream.config.sampler == "rolling" else PsbSettings(steps=(1,))
    stream = dataclasses.replace(job.stream, audio=audio, psb=psb, video_frames=1)
    with StreamRun(stream) as run:
        for _ in frames_of(run, job.avatar.decoder, refine=job.refine):
            pass


def open_sinks(options: LiveOptions, job: Job, progress: LiveProgress, stack: contextlib.ExitStack) -> list[Sink]:
    """Open every target of the blocks; `stack` closes them."""
    from ..serving import Broadcast, LiveServer
    from ..video import VideoWriter
    from ..video.live_encoder import LiveEncoder, from_key_frame

    picture = (*job.size, job.rate.fps, job.voice.sample_rate, job.voice.channels)
    style: dict[str, Any] = {"crf": options.quality, "metadata": job.metadata, "encoder": options.encoder}
    sinks: list[Sink] = []
    if options.out and options.out != STDOUT:
        writer = stack.enter_context(VideoWriter(options.out, *picture, **style))

        def to_file(frames: Tensor, samples: np.ndarray) -> None:
            writer.write(frames)
            writer.write_audio(samples)

        sinks.append(to_file)
    if options.serve or options.out == STDOUT:
        formats = ["mp4", "mpegts"] if options.serve else [options.format]
        encoder = LiveEncoder(*picture, formats=formats, **style)
        targets: list[tuple[str, Callable[[bytes], object]]] = []
        if options.serve:
            begin = {"mpegts": from_key_frame}
            broadcasts = {name: Broadcast(encoder.heads[name], begin=begin.get(name)) for name in formats}
            server = LiveServer(
                broadcasts,
                *options.serve,
                names=options.allow_host,
                max_viewers=options.viewers,
                status=progress.status,
            )
            stack.enter_context(server)
            log.info("watch at %s", server.url)
            targets += [(name, broadcast.publish) for name, broadcast in broadcasts.items()]
        if options.out == STDOUT:
            write_out(encoder.heads[options.format])
            targets.append((options.format, write_out))

        def send(data: dict[str, bytes]) -> None:
            for name, target in targets:
                target(data[name])

        stack.callback(encoder.close)
        stack.push(lambda kind, *_: send(encoder.finish()) if kind is None else None)
        sinks.append(lambda frames, samples: send(encoder.encode(frames, samples)))
    return sinks


def write_out(data: bytes) -> None:
    """Write bytes to standard output and flush it."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run_live(job: Job, sinks: list[Sink], progress: LiveProgress, paced: bool = False) -> None:
    """Make each block as soon as its voice is there, and give it to every sink. paced: wait for its playback time."""
    from ..pipeline.render import frames_of

    with contextlib.ExitStack() as stack:
        run = stack.enter_context(StreamRun(job.stream))
        progress.observe.reset_on_drift = run if progress.reset_on_drift else None
        finished = frames_of(run, job.avatar.decoder, refine=job.refine, overlap=not progress.reset_on_drift)
        made = stack.enter_context(contextlib.closing(finished))
        for block, frames in made:
            voice = run.stream.audio.source if run.stream.audio is not None else job.voice
            shown = job.rate.shown(range(block.first_frame, block.last_frame + 1))
            start, stop = voice.samples_of(shown, job.rate.fps)
            samples = voice.read_native(start, stop)
            if paced:
                progress.hold(job.report.frames)
            for sink in sinks:
                sink(frames, samples)
            progress.observe.voice = voice
            progress.add(block, frames, len(samples), voice.arrival(start + 1), voice.arrival(stop))


class LiveProgress:
    """The delay of every block of a live run, for the log, the report and the page."""

    def __init__(self, job: Job, monitor: bool = True, reset_on_drift: bool = False) -> None:
        self.job, self.reset_on_drift = job, reset_on_drift
        self.state = "loading"  # then "waiting" for the voice, "live"
        self.observe = Observer(job.report, job.voice, monitor)
        self.samples = 0  # sent on
        self.first: float | None = None  # seconds from the first sample to the first frame
        self.delay: float | None = None  # seconds from a block's last sample to its frames, newest block
        self.slowest = 0.0
        self.started: float | None = None
        self._length = 0.0  # of a whole block, in seconds
        self._behind = False

    def hold(self, frame: int) -> None:
        """Wait until the playback time of a frame of the video, counted from the first block."""
        now = time.monotonic()
        self.started = now if self.started is None else self.started
        time.sleep(max(0.0, self.started + frame / float(self.job.report.fps) - now))

    def add(
        self, block: LatentBlock, frames: Tensor, samples: int, first_in: float | None, last_in: float | None
    ) -> None:
        """Record a block that was just sent. first_in, last_in: when its first and last sample arrived, in seconds."""
        now, report = time.monotonic(), self.job.report
        self.state = "live"
        self.samples += samples
        if first_in is not None and self.first is None:
            self.first = now - first_in
            log.info("first frame %.2f s after the first sample", self.first)
        self.delay = None if last_in is None else now - last_in
        self.slowest = max(self.slowest, self.delay or 0.0)
        self.observe(block, frames, delay=self.delay)
        if self.delay is not None:
            log.debug("block %d: %.2f s from audio to frames", block.index, self.delay)
            self._length = max(self._length, len(frames) / float(report.fps))
            if (self.delay > 2 * self._length) != self._behind:
                self._behind = not self._behind
                log.warning(
                    "the avatar %s the voice: %.1f s behind",
                    "is slower than" if self._behind else "has caught up with", self.delay,
                )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """The current state, for `/status.json`."""
        report = self.job.report
        return {
            "state": self.state, "blocks": len(report.blocks), "frames": report.frames, "fps": float(report.fps),
            "delay": self.delay,
        }  # fmt: skip

    def finish(self) -> None:
        """Put the totals into the report and log them."""
        voice = self.job.voice
        came = voice.available if voice.num_samples is None else voice.num_samples
        self.job.report.more["live"] = {
            "samples_in": came, "samples_out": self.samples, "sample_rate": voice.sample_rate,
            "first_frame_seconds": self.first, "slowest_delay_seconds": self.slowest,
        }  # fmt: skip
        log.info("%d frames, %d of %d samples", self.job.report.frames, self.samples, came)
