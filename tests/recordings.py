"""What the tests of recordings share: a miniature that is recorded in milliseconds, and the crash it can suffer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import torch

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.recording import Interval, Recording
from joyavatar_core.sampling.mci import MciSettings
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.sampling.urcr import UrcrSettings
from joyavatar_core.vae import TinyDecoder

from .conftest import RecordedFeatures, build_model

RATE, FRAMES, EVERY = 8000, 100, 3  # 9 blocks: three segments


class CrashError(Exception):
    """Stands for whatever ends a process."""


@cache
def tiny_decoder(seed: int = 0) -> TinyDecoder:
    """A seeded decoder with a cache like the full one's, at a tenth of its time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = TinyDecoder(widths=(16, 16, 8, 8)).eval().requires_grad_(False)
        last = decoder.decoder["22"]  # its own start draws black pictures only
        last.weight.normal_(std=2)
        last.bias.fill_(0.5)
        return decoder


@cache
def tiny_model():
    return build_model()


def voice(seconds: float = FRAMES / 16, pitch: float = 150) -> ArrayAudio:
    t = np.arange(round(seconds * RATE)) / RATE
    return ArrayAudio((0.3 * np.sin(2 * np.pi * pitch * t)).astype(np.float32), RATE)


def stream(crash_at: int | None = None, portrait: int = 5, **fields: object) -> AvatarStream:
    """A stream of FRAMES video frames of 32 x 32 pixels that crashes inside block `crash_at`."""

    def on_step(block: int, step: int, steps: int) -> None:
        if block == crash_at:
            raise CrashError

    reference = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(portrait))
    given = {
        "model": tiny_model(), "reference": reference, "audio": RecordedFeatures(num_video_frames=FRAMES),
        "psb": PsbSettings(steps=(2, 1)), "mci": MciSettings("inject", 3, 0.25),
        "urcr": UrcrSettings("rotate", 3, 3, "portrait"), "on_step": on_step,
    }  # fmt: skip
    return AvatarStream(**{**given, **fields})


def recording(folder: Path, crash_at: int | None = None, resume: bool = True, **options: object) -> Recording:
    names = ("seed", "portrait", "model", "video_frames", "audio")
    fields = {name: options.pop(name) for name in names if name in options}
    given = {"voice": voice(), "every": Interval(blocks=EVERY), "resume": resume}
    return Recording(folder, stream(crash_at, **fields), tiny_decoder(), **{**given, **options})


def record(folder: Path, crash_at: int | None = None, **options: object) -> list[str]:
    """Record to the end, or to the crash; returns the finished segments' hashes of the frames before coding."""
    with recording(folder, crash_at, **options) as running:
        try:
            running.record()
        except CrashError:
            assert crash_at is not None
        return [segment.pictures for segment in running.segments]


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def same_video(one: Path, other: Path) -> bool:
    """Whether two files show the same pictures and make the same sound, once decoded."""
    return np.array_equal(pictures(one), pictures(other)) and np.array_equal(sound(one), sound(other))


def sound(path: Path) -> np.ndarray:
    """[samples] of the first channel."""
    with av.open(str(path)) as video:
        return np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
