"""A held-out person talks for a while through the very stream that users run, and is measured against the drawing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..audio import ArrayAudio
from ..avatar import Avatar
from ..sampling.presets import Preset
from ..training.clips import SAMPLE_RATE, make_script, play
from .drift import colour_shift, drift, seam_ratio, sharpness
from .mouth import mouth_report
from .sheet import contact_sheet

SHEET_COLUMNS = 12


@dataclasses.dataclass(frozen=True)
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


def rollout(avatar: Avatar, truth: Truth, preset: Preset, seed: int = 0) -> tuple[np.ndarray, list[int], float]:
    """The generated frames [T, H, W, 3] uint8, the first frame of every block, and seconds a video frame took."""
    reference = torch.from_numpy(truth.frames[0]).permute(2, 0, 1).float() / 127.5 - 1
    voice = ArrayAudio(truth.waveform, SAMPLE_RATE)
    stream = avatar.stream(truth.frames[0], voice, preset, seed=seed, frames=len(truth.frames))
    stream = dataclasses.replace(stream, reference=avatar.encode_portrait(reference))
    started = time.perf_counter()
    frames, starts = zip(*_decoded(avatar, stream), strict=True)
    video = np.concatenate(frames)[: len(truth.frames)]
    return video, list(starts), (time.perf_counter() - started) / len(video)


def _decoded(avatar: Avatar, stream) -> Iterator[tuple[np.ndarray, int]]:
    cache = avatar.decoder.new_cache()
    with torch.no_grad():
        for block in stream:
            video = avatar.decoder.decode(block.latents, cache)[0].permute(1, 2, 3, 0)
            yield ((video + 1) * 127.5).round().to(torch.uint8).numpy(), block.first_frame


def evaluate_rollout(
    avatar: Avatar, preset: Preset, seeds: list[int], seconds: float, folder: Path, window: float = 5.0
) -> dict[str, float]:
    """Means over held-out seeds of everything measured; a contact sheet (drawing above, avatar below) in `folder`."""
    config = avatar.config
    figures, rows = [], []
    for seed in seeds:
        truth = Truth.of(seed, seconds, config.width)
        video, starts, cost = rollout(avatar, truth, preset)
        true = mouth_report(truth.frames, truth.box, truth.opening)
        # A generated head is not where the drawn one is: its mouth is looked for where the drawn one was on the whole.
        box = np.concatenate([truth.box[:, :2].min(0), truth.box[:, 2:].max(0)])
        seen = mouth_report(video, box, truth.opening)
        away = drift(video, truth.frames[0], box)
        hue, crisp = colour_shift(video, truth.frames[0]), sharpness(video) / sharpness(truth.frames)
        ends = {"first": slice(0, int(window * config.fps)), "last": slice(-int(window * config.fps), None)}
        figures.append({
            "mouth_r": seen.r, "mouth_r_truth": true.r, "best_r": seen.best_r, "lag": seen.lag,
            "shifted_r": seen.shifted_r, "amplitude_ratio": seen.amplitude / max(true.amplitude, 1e-6),
            "drift_truth": float(drift(truth.frames, truth.frames[0], box).mean()),
            "seam": seam_ratio(video, starts), "frames_per_second": 1 / cost,
        } | {f"{name}_{end}": float(values[part].mean())
             for end, part in ends.items()
             for name, values in (("drift", away), ("colour", hue), ("sharpness", crisp))})  # fmt: skip
        rows += [truth.frames, video]
    contact_sheet(rows, folder / "rollout.png", SHEET_COLUMNS)
    return {name: float(np.mean([figure[name] for figure in figures])) for name in figures[0]}
