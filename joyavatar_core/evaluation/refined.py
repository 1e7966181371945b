"""The quality of a refiner: held-out clips through the autoencoder, refined, against the clips themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..pipeline.avatar import Avatar
from ..refiner import PortraitRefiner, RefinerNet
from ..refiner.model import resized
from ..synthetic.clips import Clip
from ..synthetic.dataset import load_clip
from ..video.portrait import to_uint8
from .autoencoder import psnr, round_trip
from .drift import sharpness
from .lip_sync import correlation
from .sheet import contact_sheet
from .stream_pictures import as_pictures, decoded, eye_changes, features_of, stream_size


def evaluate_refiner(
    avatar: Avatar, net: RefinerNet, paths: Sequence[Path], sheet: Path | None = None
) -> dict[str, dict[str, float]]:
    """Means over clips of twice the avatar's size: of frames "decoded" (enlarged), and of frames "refined" with the
    clip's first frame as the portrait, its visemes and its eyes.

    PSNR in dB; sharpness of the whole and of the eyes over the truth's; the correlation of the mouth's changes, pixel
    by pixel, with the truth's, and their size over the truth's.
    """
    figures, rows = {"decoded": [], "refined": []}, []
    for path in paths:
        clip = load_clip(path)
        small = stream_size(clip, avatar)
        soft = as_pictures(round_trip(avatar.vae, torch.from_numpy(small.frames)).numpy())
        made = {
            "decoded": resized(soft, clip.frames.shape[1:3]).movedim(0, 1),
            "refined": _refined(avatar, net, clip, small, soft),
        }
        rows.append(clip.frames)
        for name, video in made.items():
            frames = to_uint8(video).numpy()
            figures[name].append(_compare(frames, clip))
            rows.append(frames)
    if sheet is not None:
        contact_sheet(rows[:12], sheet)
    return {
        name: {figure: float(np.nanmean([one[figure] for one in found])) for figure in found[0]}
        for name, found in figures.items()
    }


def _refined(avatar: Avatar, net: RefinerNet, clip: Clip, small: Clip, soft: torch.Tensor) -> torch.Tensor:
    """A clip's decoded frames [T, 3, S, S], refined, [3, T, 2S, 2S]; small: the clip at the stream's size."""
    eyes, side = eye_changes(clip.lids, clip.tracks, 0), clip.frames.shape[1]
    refine = PortraitRefiner(
        net, *_portrait(avatar, clip, small), (side, side), eyes=lambda first, count: eyes[first : first + count]
    )
    return refine(soft.movedim(0, 1), features_of(clip, avatar))


@torch.no_grad()
def _portrait(avatar: Avatar, clip: Clip, small: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    """The first frame [3, 2S, 2S] as a portrait, and its round trip [3, S, S]."""
    latent = avatar.encode_portrait(as_pictures(small.frames[:1])[0])
    return as_pictures(clip.frames[:1])[0], as_pictures(decoded(avatar, latent))[0]


def _compare(frames: np.ndarray, clip: Clip) -> dict[str, float]:
    mouth, true = (_mouth_changes(video, clip.box) for video in (frames, clip.frames))
    eyes = [_eye_sharpness(frames, clip, eye) / _eye_sharpness(clip.frames, clip, eye) for eye in (0, 1)]
    return {
        "psnr": psnr(torch.from_numpy(frames), torch.from_numpy(clip.frames)),
        "sharpness": float(sharpness(frames).mean() / sharpness(clip.frames).mean()),
        "eyes": float(np.mean(eyes)),
        "mouth_r": correlation(mouth, true),
        "mouth_amplitude": float(mouth.std() / true.std()),
    }  # fmt: skip


def _mouth_changes(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How every pixel of the mouth's region, which follows its box, differs from its mean over the clip, [N]."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).mean(0) / 2
    shown = []
    for frame, centre in zip(frames, middle, strict=True):
        left, top = np.maximum(centre - half, 0).round().astype(int)
        width, height = (2 * half).astype(int)
        left, top = min(left, frame.shape[1] - width), min(top, frame.shape[0] - height)
        shown.append(frame[top : top + height, left : left + width].mean(-1))
    return (np.array(shown) - np.mean(shown, axis=0)).ravel()


def _eye_sharpness(frames: np.ndarray, clip: Clip, eye: int) -> float:
    """Mean absolute Laplacian around one eye (0: the picture's left), over the clip."""
    found = []
    for frame, (left, top, right, bottom) in zip(frames, clip.eyes[:, eye].round().astype(int), strict=True):
        part = frame[max(top, 0) : bottom, max(left, 0) : right]
        found.append(sharpness(part[None])[0] if min(part.shape[:2]) > 4 else np.nan)
    return float(np.nanmean(found))
