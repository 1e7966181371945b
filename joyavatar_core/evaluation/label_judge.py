"""Judges a video of a held-out person: mediapipe's landmarks against the labels of the drawn or posed face."""

from __future__ import annotations

import numpy as np

from . import face_measures as measures
from .face_mesh import FaceMesh
from .rollout import Truth
from .talking_judge import follow

PRESSED = 0.02  # a mouth whose label is at most this share of its widest opening has closed lips


class LabelJudge:
    """Measures videos of one held-out person.

    The landmarks of the truth's own frames are measured, too: they are the best that a video can reach.
    """

    def __init__(self, truth: Truth, mesh: FaceMesh | None = None) -> None:
        self.truth, self.mesh = truth, mesh or FaceMesh()
        self.own = self._signals(truth.frames)

    def judge(self, frames: np.ndarray) -> dict[str, float]:
        """Figures of frames [T, H, W, 3] uint8, as many as the truth has, of any size.

        found: share of frames with a face. gap_r, width_r, lids_r: correlation of the gap between the lips, the
        distance of the mouth's corners and the opening of the lids with the labels. gap_r_truth and so on: the same for
        the truth's frames. lag: of the gap, in frames (positive: late). gap_size, width_size, lids_size: deviation over
        the truth's. pressed: gap while the label says closed lips, over the truth's largest gap.
        """
        truth, seen = self.truth, self._signals(frames)
        labels = {"gap": truth.opening, "width": truth.width, "lids": truth.lids.mean(1)}
        figures = {"found": float(np.isfinite(seen["gap"]).mean())}
        for name, label in labels.items():
            figures[f"{name}_r"] = follow(seen[name], label)["r"]
            figures[f"{name}_r_truth"] = follow(self.own[name], label)["r"]
            figures[f"{name}_size"] = float(np.nanstd(seen[name]) / max(np.nanstd(self.own[name]), 1e-6))
        figures["lag"] = follow(seen["gap"], truth.opening)["lag"]
        closed = truth.opening <= PRESSED * truth.opening.max()
        if closed.any():
            figures["pressed"] = float(np.nanmean(seen["gap"][closed]) / np.nanmax(self.own["gap"]))
        return figures

    def _signals(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        points = self.mesh(frames).points
        return {
            "gap": measures.lip_gap(points),
            "width": measures.mouth_width(points),
            "lids": measures.lid_opening(points),
        }
