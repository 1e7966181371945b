"""The quality of a VAE: the round trip of held-out clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..synthetic.dataset import load_clip
from ..vae import StreamingVAE
from .drift import sharpness
from .lip_sync import mouth_report
from .sheet import contact_sheet


def evaluate_vae(vae: StreamingVAE, paths: Sequence[Path], sheet: Path | None = None) -> dict[str, float]:
    """Means over the clips with speech: PSNR in dB, mouth r and amplitude beside ground truth's, sharpness ratio."""
    figures, rows = [], []
    for path in paths:
        clip = load_clip(path)
        decoded = round_trip(vae, torch.from_numpy(clip.frames)).numpy()
        true, kept = (mouth_report(frames, clip.box, clip.mouth[:, 0]) for frames in (clip.frames, decoded))
        figures.append({
            "psnr": psnr(torch.from_numpy(decoded), torch.from_numpy(clip.frames)),
            "sharpness_ratio": sharpness(decoded).mean() / sharpness(clip.frames).mean(),
            "mouth_r": kept.r, "mouth_r_truth": true.r, "amplitude": kept.amplitude, "amplitude_truth": true.amplitude,
        } if true.r else {})  # fmt: skip
        rows += [clip.frames, decoded]
    if sheet is not None:
        contact_sheet(rows[:12], sheet)
    figures = [figure for figure in figures if figure]
    means = {name: float(np.mean([figure[name] for figure in figures])) for name in figures[0]}
    return means | {
        "mouth_r_ratio": means["mouth_r"] / means["mouth_r_truth"],
        "amplitude_ratio": means["amplitude"] / means["amplitude_truth"],
    }


@torch.no_grad()
def round_trip(vae: StreamingVAE, frames: Tensor) -> Tensor:
    """[T, H, W, 3] uint8 -> the same through the VAE, block by block as in streaming."""
    video = frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    decoded = vae.decode(vae.encode(video))[0].permute(1, 2, 3, 0)
    return ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def psnr(video: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio of uint8 pictures, in dB."""
    return 20 * math.log10(255) - 10 * math.log10((video.float() - target.float()).square().mean().item() + 1e-9)
