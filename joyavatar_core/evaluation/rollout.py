"""Rollouts: a held-out person talks through the usual stream and is measured against the drawn or rendered truth."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..audio import ArrayAudio
from ..pipeline.avatar import Avatar
from ..pipeline.render import decoded_block
from ..refiner import PortraitRefiner
from ..sampling.presets import Preset
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream, LatentBlock
from ..synthetic.clips import SAMPLE_RATE, make_script, play
from ..synthetic.regions import eyes_above
from ..video.portrait import to_uint8
from .autoencoder import round_trip
from .drift import colour_shift, drift, identity_distance, sharpness
from .lip_sync import mouth_report
from .seams import Seams

WINDOW_SECONDS = 10
WARM_FRAMES = 48  # decoded and thrown away where the decoder comes back after a gap
OTHERS = range(900, 912)  # held-out people that identity is told apart from


@dataclass(frozen=True)
class Truth:
    """What the renderer shows for a held-out seed.

    frames [T, H, W, 3] uint8. Labels of the drawn or posed face, in pixels: the mouth's box [T, 4], its opening [T] and
    width [T]; lids [T, 2], 0 closed and 1 as at rest. waveform [samples].
    """

    frames: np.ndarray
    box: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    lids: np.ndarray
    waveform: np.ndarray

    @classmethod
    def of(cls, seed: int, seconds: float, size: int, split: str = "held-out", people: str = "drawn") -> Truth:
        """people: a key of `PEOPLE`. size: side of the frames in pixels."""
        script = make_script(seed, split, seconds, people)
        drawn = list(play(script, size))
        return cls(
            frames=np.stack([frame for frame, _ in drawn]),
            box=np.array([trace.box for _, trace in drawn], np.float32),
            opening=np.array([trace.opening for _, trace in drawn], np.float32),
            width=np.array([trace.width for _, trace in drawn], np.float32),
            lids=np.array([trace.lids for _, trace in drawn], np.float32),
            waveform=script.waveform,
        )

    def ends(self, frames: int) -> Truth:
        """The same with so many frames of the beginning and of the end, side by side; the sound stays whole."""
        shown = ends_of(len(self.frames), frames)
        parts = {name: getattr(self, name)[shown] for name in ("frames", "box", "opening", "width", "lids")}
        return replace(self, **parts)


def ends_of(total: int, frames: int) -> np.ndarray:
    """Indices of the first and the last `frames` of `total`, none twice."""
    return np.unique(np.r_[: min(frames, total), max(0, total - frames) : total])


@torch.no_grad()
def shown_frames(
    avatar: Avatar, stream: AvatarStream, shown: np.ndarray, refine: PortraitRefiner | None = None
) -> tuple[np.ndarray, list[LatentBlock]]:
    """The frames of a stream that `shown` [n] numbers, [n, H, W, 3] uint8, and all of its blocks.

    No other frames are decoded or drawn: most of the time goes into that.
    """
    decoder, frames, blocks = avatar.decoder, {}, []
    warm = 0 if refine is not None and refine.draws_from_latents else WARM_FRAMES
    cache = decoder.new_cache()
    for block in StreamRun(stream):
        blocks.append(block)
        wanted = (shown >= block.first_frame) & (shown <= block.last_frame + warm)
        if wanted.any():
            video = decoded_block(block, decoder, cache, refine)
            video = video if refine is None else refine.block(block, video)
            frames |= enumerate(to_uint8(video).numpy(), block.first_frame)
    return np.stack([frames[int(frame)] for frame in shown]), blocks


@dataclass(frozen=True)
class Rollout:
    """A video [T, H, W, 3] uint8, its seams, and seconds a frame took."""

    video: np.ndarray
    seams: Seams
    seconds: float = 0.0


def rollout(
    avatar: Avatar, truth: Truth, preset: Preset, seed: int = 0, ends: int | None = None, refined: bool = False
) -> Rollout:
    """Generate a video of the person of `truth` from the first frame and the voice.

    ends: of the video only so many frames at the beginning and at the end are decoded, as `Truth.ends` shows them.
    refined: the frames are refined to the truth's size, which is then above the avatar's.
    """
    voice, total = ArrayAudio(truth.waveform, SAMPLE_RATE), len(truth.frames)
    portrait = avatar.frame(truth.frames[0], crop="centre")
    stream = avatar.stream(portrait, voice, preset, seed=seed, video_frames=total)
    refine = avatar.refine(stream, truth.frames.shape[2]) if refined else None
    shown = ends_of(total, total if ends is None else ends)
    started = time.perf_counter()
    video, blocks = shown_frames(avatar, stream, shown, refine)
    return Rollout(video, Seams.of(blocks, shown), (time.perf_counter() - started) / total)


def drawn(avatar: Avatar, truth: Truth) -> Rollout:
    """The drawing itself."""
    return Rollout(truth.frames, Seams(range(9, len(truth.frames), 12)))


def round_tripped(avatar: Avatar, truth: Truth) -> Rollout:
    """The drawing through the autoencoder."""
    count = len(truth.frames)
    padded = np.concatenate([truth.frames, np.repeat(truth.frames[-1:], (1 - count) % 4, axis=0)])
    decoded = round_trip(avatar.vae, torch.from_numpy(padded)).numpy()[:count]
    return replace(drawn(avatar, truth), video=decoded)


BOUNDS = {"drawn": drawn, "round trip": round_tripped}  # the best that can be had


class Judge:
    """Measures videos of one held-out person against the drawing."""

    def __init__(self, truth: Truth, others: np.ndarray, fps: int = 16) -> None:
        self.truth, self.others, self.fps = truth, others, fps
        # A generated head is not where the drawn one is: its mouth is looked for where the drawn one was on the whole.
        self.box = np.concatenate([truth.box[:, :2].min(0), truth.box[:, 2:].max(0)])
        left, top, right, bottom = eyes_above(torch.from_numpy(self.box)).round().int().clamp_min(0).tolist()
        self.eyes = (slice(None), slice(top, bottom), slice(left, right))
        self.own = truth.frames.mean(0)

    def measure(self, video: np.ndarray, part: slice = slice(None)) -> dict[str, float]:
        """All measures of a part of a video, by name."""
        truth, shown = self.truth, video[part]
        drawn, opening, portrait = truth.frames[part], truth.opening[part], truth.frames[0]
        true, seen = (mouth_report(frames, self.box, opening) for frames in (drawn, shown))
        return {
            "mouth_r": seen.r, "mouth_r_drawn": true.r, "lag": seen.lag, "chance_r": seen.shifted_r,
            "amplitude": seen.amplitude / max(true.amplitude, 1e-6),
            "drift": float(drift(shown, portrait, self.box).mean()),
            "colour": float(colour_shift(shown, portrait).mean()),
            "sharpness": float(sharpness(shown).mean() / sharpness(drawn).mean()),
            "eyes": float(sharpness(shown[self.eyes]).mean() / sharpness(drawn[self.eyes]).mean()),
            "motion": float(np.abs(np.diff(shown[::4].astype(np.int16), axis=0)).mean()
                            / np.abs(np.diff(drawn[::4].astype(np.int16), axis=0)).mean()),
            "identity": identity_distance(shown, self.own, self.others),
        }  # fmt: skip

    def windows(self, video: np.ndarray) -> list[dict[str, float]]:
        """`measure` for every 10 s."""
        size = WINDOW_SECONDS * self.fps
        starts = range(0, max(1, len(video) - size // 2), size)
        return [{"seconds": start / self.fps} | self.measure(video, slice(start, start + size)) for start in starts]

    def judge(self, made: Rollout) -> dict[str, object]:
        """Totals, and the windows they are made of."""
        windows = self.windows(made.video)
        return {
            **self.measure(made.video),
            **made.seams.ratios(made.video),
            "frames_per_second": 1 / made.seconds if made.seconds else None,
            "first": windows[0],
            "last": windows[-1],
            "windows": windows,
        }


def mean_pictures(
    seeds: range | list[int], size: int, seconds: float = 2.0, people: str = "drawn"
) -> np.ndarray:  # fmt: skip
    """The mean frame of each held-out person, [N, size, size, 3]."""
    return np.stack([Truth.of(seed, seconds, size, people=people).frames.mean(0) for seed in seeds])
