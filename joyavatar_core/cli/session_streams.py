"""What makes the sessions of `serve`: a loaded avatar, and for each session a portrait, a pipe and a live encoder."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..audio.pcm import read_pcm
from ..device import free_memory
from ..errors import AvatarError
from ..pipeline.avatar import load_avatar
from ..pipeline.embedded import ASSETS
from .batch_columns import RowParser
from .job import Job, prepare
from .live import LiveProgress, run_live, warm_up
from .options import VideoOptions, parsed

if TYPE_CHECKING:
    from ..serving import Broadcast

log = logging.getLogger(__name__)
FROM_VIEWERS = ("crop", "background", "seed", "seconds", "audio_rate", "audio_channels", "audio_format")
SAMPLE = ASSETS / "portraits" / "ada.png"  # shown to the avatar once before the first session


@cache
def session_parser() -> RowParser:
    """A parser of what makes a session: the avatar flags of `live`."""
    from .parser import add_avatar_flags

    parser = RowParser(prog="joyavatar serve", add_help=False, allow_abbrev=False)
    add_avatar_flags(parser)
    parser.set_defaults(out=None)
    return parser


def session_options(flags: tuple[str, ...], portrait: Path, settings: Mapping[str, str]) -> VideoOptions:
    """The server's flags with a session's own settings. Raises AvatarError for settings that are not for sessions."""
    own = []
    for given, value in settings.items():
        name = given.replace("-", "_").lower()
        if name not in FROM_VIEWERS:
            known = ", ".join(FROM_VIEWERS)
            raise AvatarError(f"The setting '{given}' is not one of a session's; these are {known}.")
        own.append(f"--{name.replace('_', '-')}={value}")
    args = session_parser().parse_args([*flags, *own, f"--portrait={portrait}", "--audio=-"])
    return parsed(VideoOptions, args)


class AvatarStreams:
    """Opens sessions with one avatar, loaded when it is made and shared by all.

    flags: the server's avatar flags, without portrait and audio.
    """

    def __init__(self, flags: tuple[str, ...]) -> None:
        self._flags = flags
        options = session_options(flags, SAMPLE, {})
        self._avatar = load_avatar(options.avatar)
        self._device = torch.device(options.avatar.device)
        silence = read_pcm(open(os.devnull, "rb", buffering=0), 16000)  # noqa: SIM115 - its thread reads it
        job = prepare(options, silence, self._avatar)
        warm_up(job)
        self.need_bytes = self._avatar.memory_of(job.stream, refine=job.refine).total

    def free_bytes(self) -> int | None:
        """Free memory of the GPU in bytes; None on a CPU."""
        return free_memory(self._device) if self._device.type == "cuda" else None

    def open(self, portrait: bytes, settings: Mapping[str, str]) -> PushedStream:
        """A session's stream. Raises AvatarError for a portrait or settings that cannot be."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "portrait")
            path.write_bytes(portrait)
            try:
                options = session_options(self._flags, path, settings)
                options.check_all_but_voice()
                return PushedStream(options, self._avatar)
            except AvatarError as problem:
                raise AvatarError(str(problem).replace(str(path), path.name)) from None


class PushedStream:
    """A live stream whose voice is pushed as bytes of PCM: a `serving.session.SessionStream`."""

    def __init__(self, options: VideoOptions, avatar: Any) -> None:
        from ..serving import Broadcast
        from ..video.live_encoder import FORMATS, LiveEncoder, from_key_frame

        reader, writer = os.pipe()
        try:
            pcm = open(reader, "rb", buffering=0)  # noqa: SIM115 - its thread reads it
            self._voice = read_pcm(pcm, options.audio_rate, options.audio_channels, options.audio_format, closes=True)
            self._job: Job = prepare(options, self._voice, avatar)
            self._encoder = LiveEncoder(
                *self._job.size, self._job.rate.fps, self._voice.sample_rate, self._voice.channels,
                crf=options.quality, metadata=self._job.metadata, formats=FORMATS, encoder=options.encoder,
            )  # fmt: skip
        except BaseException:
            os.close(writer)  # which ends the thread that reads
            raise
        self._writer = writer
        self._writing = threading.Lock()
        self._progress = LiveProgress(self._job, options.monitor, options.reset_on_drift)
        self._progress.state = "waiting"
        self._stopped = False
        begin = {"mpegts": from_key_frame}
        self.broadcasts: dict[str, Broadcast] = {
            name: Broadcast(head, begin=begin.get(name)) for name, head in self._encoder.heads.items()
        }

    def push_audio(self, data: bytes) -> None:
        """Take PCM; waits while the pipe and the voice behind it are full. Raises AvatarError once it has ended."""
        with self._writing:
            if self._writer is None:
                raise AvatarError("The voice of this session has ended; open a new session for another.")
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._writer, view) :]
            except BrokenPipeError:
                raise self._voice.problem or AvatarError("The voice of this session has ended.") from None

    def finish_audio(self) -> None:
        with self._writing:
            if self._writer is not None:
                os.close(self._writer)
                self._writer = None

    def run(self) -> None:
        """Make the video to its end, or until `stop`."""
        try:
            run_live(self._job, [self._send], self._progress)
            self._publish(self._encoder.finish())
        except AvatarError:
            if not self._stopped:
                raise
        finally:
            self._encoder.close()

    def stop(self) -> None:
        self._stopped = True
        self._voice.fail(AvatarError("The session is over."))  # wakes threads that wait for the voice
        self.finish_audio()

    def status(self) -> dict[str, Any]:
        return self._progress.status()

    def _send(self, frames: torch.Tensor, samples: np.ndarray) -> None:
        if self._stopped:
            raise AvatarError("The session is over.")
        self._publish(self._encoder.encode(frames, samples))

    def _publish(self, data: dict[str, bytes]) -> None:
        for name, broadcast in self.broadcasts.items():
            broadcast.publish(data[name])
