"""Judges photographs: every picture of a folder speaks a voice, and its lips are compared with that voice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..audio import open_voice
from ..errors import AvatarError
from ..framing.crop import Box
from ..pipeline.avatar import Avatar
from ..sampling.presets import Preset
from .face_mesh import FaceMesh
from .rollout import ends_of, shown_frames
from .seams import Seams
from .sheet import contact_sheet
from .talking_judge import TalkingJudge, heard_jaw

SHEET = 8  # pictures of a row: the portrait and frames
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
COLUMNS = (
    "lip_gap_r", "inner_mouth_r", "darkness_r", "jaw_drop_r", "lag", "amplitude", "eye_sharpness", "identity_shape",
    "identity_colour", "seam", "reset_seam", "found",
)  # fmt: skip


def judge_photos(
    avatar: Avatar,
    folder: Path,
    voice: Path,
    preset: Preset,
    seconds: float,
    crop: str | Box = "face",
    sheet: Path | None = None,
    seed: int = 0,
    ends: float | None = None,
) -> dict[str, dict[str, object]]:
    """Figures of every picture in a folder by its name, each with its crop; the sheet has a row for each.

    ends: only so many seconds at a video's beginning and at its end are decoded and judged; None: all of it.
    Raises AvatarError where the folder has no pictures, and where mediapipe is not installed.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise AvatarError(f"'{folder}' has no pictures ({', '.join(PICTURES)}); give the folder of some portraits.")
    mesh, figures, rows, fps = FaceMesh(), {}, [], avatar.config.fps
    video_frames = round(seconds * fps)
    shown = ends_of(video_frames, video_frames if ends is None else round(ends * fps))
    for path in paths:
        framed = avatar.frame(path, crop=crop)
        stream = avatar.stream(framed, open_voice(voice), preset, seed=seed, video_frames=video_frames)
        judged = shown[shown < stream.num_video_frames]
        frames, blocks = shown_frames(avatar, stream, judged, avatar.refine(stream))
        width, height = frames.shape[2], frames.shape[1]
        portrait = framed.at(width, height).permute(1, 2, 0).add(1).mul(127.5).round().to(torch.uint8).numpy()
        jaw = heard_jaw(voice, stream.num_video_frames, fps)[judged]
        found = TalkingJudge(portrait, mesh).judge(frames, fps, jaw)
        for window in found["windows"]:
            window["seconds"] = float(shown[round(window["seconds"] * fps)] / fps)
        figures[path.name] = found | Seams.of(blocks, judged).ratios(frames) | framed.crop.summary()
        rows.append(np.stack([portrait, *frames[np.linspace(0, len(frames) - 1, SHEET - 1).round().astype(int)]]))
    if sheet is not None:
        contact_sheet(rows, sheet, SHEET)
    return figures


def photo_table(figures: Mapping[str, Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> str:
    """A Markdown table, a row for each picture and one of means."""
    lines = ["| picture | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    rows = {name: [math.nan if one[c] is None else one[c] for c in columns] for name, one in figures.items()}
    rows["**mean**"] = np.mean(list(rows.values()), axis=0).tolist()
    lines += [f"| {name} | " + " | ".join(map(_figure, row)) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
