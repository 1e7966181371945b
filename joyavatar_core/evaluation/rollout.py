"""A held-out person talks for a while through the very stream that users run, and is measured against the drawing."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..audio import ArrayAudio
from ..avatar import Avatar
from ..sampling.presets import Preset
from ..training.clips import SAMPLE_RATE, make_script, play
from ..training.vae_training import round_trip
from .drift import colour_shift, drift, identity_distance, seam_ratio, sharpness
from .mouth import mouth_report

WINDOW_SECONDS = 10
OTHERS = range(900, 912)  # held-out people that identity is told apart from


@dataclass(frozen=True)
class Truth:
    """What the renderer drew for a held-out seed: frames [T, H, W, 3], mouth boxes [T, 4], opening [T], waveform."""

    frames: np.ndarray
    box: np.ndarray
    opening: np.ndarray
    waveform: np.ndarray

    @classmethod
    def of(cls, seed: int, seconds: float, size: int, split: str = "held-out") -> Truth:
        script = make_script(seed, split, seconds)
        drawn = list(play(script, size))
        return cls(
            frames=np.stack([frame for frame, _ in drawn]),
            box=np.array([trace.box for _, trace in drawn], np.float32),
            opening=np.array([trace.opening for _, trace in drawn], np.float32),
            waveform=script.waveform,
        )


@dataclass(frozen=True)
class Rollout:
    """A video [T, H, W, 3] uint8, the first frame of every block, those where URCR reset, and seconds a frame took."""

    video: np.ndarray
    starts: list[int]
    resets: list[int]
    seconds: float


@torch.no_grad()
def rollout(avatar: Avatar, truth: Truth, preset: Preset, seed: int = 0) -> Rollout:
    """The person of `truth` says the same, generated from the first frame and the voice."""
    voice = ArrayAudio(truth.waveform, SAMPLE_RATE)
    stream = avatar.stream(truth.frames[0], voice, preset, seed=seed, frames=len(truth.frames))
    started = time.perf_counter()
    cache, frames, blocks = avatar.decoder.new_cache(), [], []
    for block in stream:
        picture = avatar.decoder.decode(block.latents, cache)[0].permute(1, 2, 3, 0)
        frames.append(((picture + 1) * 127.5).round().to(torch.uint8).numpy())
        blocks.append(block)
    video = np.concatenate(frames)[: len(truth.frames)]
    return Rollout(
        video=video,
        starts=[block.first_frame for block in blocks],
        resets=[block.first_frame for block in blocks if block.reset],
        seconds=(time.perf_counter() - started) / len(video),
    )


def drawn(avatar: Avatar, truth: Truth) -> Rollout:
    """The drawing itself."""
    return Rollout(truth.frames, list(range(9, len(truth.frames), 12)), [], 0.0)


def round_tripped(avatar: Avatar, truth: Truth) -> Rollout:
    """The drawing through the autoencoder."""
    decoded = round_trip(avatar.vae, torch.from_numpy(truth.frames)).numpy()
    return replace(drawn(avatar, truth), video=decoded)


BOUNDS = {"drawn": drawn, "round trip": round_tripped}  # the best that can be had


class Judge:
    """Measures videos of one held-out person against the drawing."""

    def __init__(self, truth: Truth, others: np.ndarray, fps: int = 16) -> None:
        self.truth, self.others, self.fps = truth, others, fps
        # A generated head is not where the drawn one is: its mouth is looked for where the drawn one was on the whole.
        self.box = np.concatenate([truth.box[:, :2].min(0), truth.box[:, 2:].max(0)])
        self.own = truth.frames.mean(0)

    def measure(self, video: np.ndarray, part: slice = slice(None)) -> dict[str, float]:
        """Everything that a stretch of a video can be asked, by name."""
        truth, shown = self.truth, video[part]
        drawn, opening, portrait = truth.frames[part], truth.opening[part], truth.frames[0]
        true, seen = (mouth_report(frames, self.box, opening) for frames in (drawn, shown))
        return {
            "mouth_r": seen.r, "mouth_r_drawn": true.r, "lag": seen.lag, "chance_r": seen.shifted_r,
            "amplitude": seen.amplitude / max(true.amplitude, 1e-6),
            "drift": float(drift(shown, portrait, self.box).mean()),
            "colour": float(colour_shift(shown, portrait).mean()),
            "sharpness": float(sharpness(shown).mean() / sharpness(drawn).mean()),
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
        inside = [start for start in made.starts if start not in set(made.resets)]
        return self.measure(made.video) | {
            "seam": seam_ratio(made.video, inside, made.starts),
            "reset_seam": seam_ratio(made.video, made.resets, made.starts) if made.resets else None,
            "frames_per_second": 1 / made.seconds if made.seconds else None,
            "first": windows[0],
            "last": windows[-1],
            "windows": windows,
        }


def mean_pictures(seeds: range | list[int], size: int, seconds: float = 2.0) -> np.ndarray:
    """The mean frame of each held-out person, [N, size, size, 3]."""
    return np.stack([Truth.of(seed, seconds, size).frames.mean(0) for seed in seeds])
