"""The drift monitor: colour, sharpness, structure and lips of a long stream, measured on its finished frames.

It reads the frames and the voice alone, at a small fraction of a block's cost. Every measure is compared with the same
stream's beginning: its first frame, which is the portrait, and its first 10 s.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .measures import SIDE, TO_LUMA, colour_statistics, correlation, laplacian, normalised, thumbnails

log = logging.getLogger(__name__)

WINDOW_SECONDS = 10.0  # of the beginning, of the correlation, and of the report's means
SETTLED_SECONDS = 3.0  # a warning needs the mean over this much
# The mouth of a portrait that fills the picture: rows and columns of the thumbnail. No landmarks are detected, so with
# other framings the correlation means less.
MOUTH = (slice(SIDE * 9 // 16, SIDE * 15 // 16), slice(SIDE // 4, SIDE * 3 // 4))
PATCHES = 8  # per side; small damage does not change the mean of a picture
LIPS = (slice(PATCHES // 2, PATCHES), slice(PATCHES // 4, PATCHES * 3 // 4))  # patches that change in any talking face
SPREADS = 4.0  # standard deviations of the first 10 s that a measure may vary by


@dataclass(frozen=True)
class Measures:
    """One block, or the mean of several.

    colour: distance in CIELAB of the picture's mean and spread of colours from the first frame's; about 2 is just seen.
    sharpness: mean strength of fine detail (Laplacian) of the block's last frame, over that of the first 10 s.
    distance: 1 - correlation of brightness with the first frame, brightness and contrast taken out: 0 the same picture.
    patch: the largest change of colour of a patch, lips aside, from its mean over the first 10 s, less its usual
    variation there, in grey levels (0 ... 255); 0 before there are 10 s.
    correlation: of the motion in the lower middle of the picture with the voice's loudness, over the last 10 s; None
    before there are 10 s, and where either does not change.
    """

    colour: float
    sharpness: float
    distance: float
    patch: float = 0.0
    correlation: float | None = None


@dataclass(frozen=True)
class Warned:
    """A warning: the measure that left its limits, the block, the second of video, and a sentence."""

    measure: str
    block: int
    seconds: float
    text: str


@dataclass(frozen=True)
class Limit:
    """How far a measure may go from its mean over the first 10 s: `floor` or SPREADS deviations, whichever is more."""

    floor: float
    sign: int  # 1: growing is bad, -1: falling is bad, 0: both
    sentence: str


LIMITS = {
    "colour": Limit(2.0, 1, "the colours have drifted to {now:.1f} from the portrait, {usual:.1f} was usual"),
    "sharpness": Limit(0.25, 0, "the picture's fine detail is {now:.2f} of what it was"),
    "distance": Limit(0.05, 1, "the picture is {now:.2f} away from the portrait, {usual:.2f} was usual"),
    "patch": Limit(20.0, 1, "a part of the picture has changed by {now:.0f} grey levels more than usual"),
    "correlation": Limit(0.35, -1, "the mouth follows the voice with {now:.2f}, {usual:.2f} was usual"),
}
LEAST_CORRELATION = 0.25  # below this in the first 10 s, the lips are not judged


class DriftMonitor:
    """Measures blocks and warns. Memory is constant, except for `history`.

    Life cycle: made before the stream's first block -> `update` with every block in order.

    fps: frames per second. on_warning: called with each Warned, besides the log.
    Attributes: `warnings` all so far; `history` one Measures for each 10 s.
    """

    def __init__(self, fps: float, on_warning: Callable[[Warned], None] | None = None) -> None:
        self.fps = float(fps)
        self.on_warning = on_warning
        self.warnings: list[Warned] = []
        self.history: list[Measures] = []
        self.frames = 0  # seen so far
        size = round(WINDOW_SECONDS * self.fps)
        self._motion: deque[float] = deque(maxlen=size)
        self._loudness: deque[float] = deque(maxlen=size)
        self._first: tuple[np.ndarray, np.ndarray] | None = None  # colour statistics and structure of frame 0
        self._last: np.ndarray | None = None
        self._beginning: list[tuple[int, Measures]] = []
        self._usual: dict[str, tuple[float, float]] = {}  # measure -> (mean, deviation) over the first 10 s
        self._patches: list[np.ndarray] = []  # of the first 10 s
        self._usual_patches: tuple[np.ndarray, np.ndarray] | None = None  # their mean and what they may change by
        self._detail = 0.0  # sharpness of the first 10 s in its own unit
        self._recent: deque[tuple[int, Measures]] = deque()
        self._ten: list[tuple[int, Measures]] = []
        self._alarmed: set[str] = set()

    def update(self, block: int, frames: Any, loudness: np.ndarray | None = None) -> Measures:
        """Measure a block.

        frames: uint8 [N, H, W, 3], numpy or torch. loudness: of the voice in each frame, [N], in any unit (RMS); None
        for silence. Warnings are logged, kept in `warnings` and handed to `on_warning`.
        """
        frames = np.asarray(frames.cpu() if hasattr(frames, "cpu") else frames)
        small = thumbnails(frames)  # [N, SIDE, SIDE, 3]
        colours, light = colour_statistics(small), small @ TO_LUMA
        structures = normalised(light)
        if self._first is None:
            self._first = (colour_statistics(small[:1]), structures[0])
        self._follow_mouth(light, loudness)
        detail, patch = laplacian(frames[-1]), self._worst_patch(small)
        seen = self.frames + len(frames)
        started = bool(self._usual)
        measures = Measures(
            colour=float(np.linalg.norm(colours - self._first[0])),
            sharpness=detail / self._detail if started and self._detail else detail,
            distance=float(1 - (structures * self._first[1]).mean(axis=(1, 2)).mean()),
            patch=patch,
            correlation=correlation(self._motion, self._loudness) if seen >= self._motion.maxlen else None,
        )
        self.frames = seen
        if not started:
            measures = self._begin(measures, len(frames))
        self._note(block, measures, len(frames))
        return measures

    def summary(self) -> dict[str, Any]:
        """The warnings and the means over each 10 s, as a report has them."""
        return {
            "warnings": [asdict(warning) for warning in self.warnings],
            "every_10_seconds": [asdict(measures) for measures in self.history],
        }

    def restart(self) -> None:
        """Forget which warnings are active, after a reset: a measure that is still off warns again."""
        self._alarmed.clear()
        self._recent.clear()

    def _follow_mouth(self, light: np.ndarray, loudness: np.ndarray | None) -> None:
        """Append each frame's motion at the mouth, less the motion elsewhere, and its loudness."""
        before = light[:1] if self._last is None else self._last[None]
        moved = np.abs(np.diff(np.concatenate([before, light]), axis=0))  # [N, SIDE, SIDE]
        self._last = light[-1]
        self._motion.extend((moved[(slice(None), *MOUTH)].mean(axis=(1, 2)) - moved.mean(axis=(1, 2))).tolist())
        self._loudness.extend(np.zeros(len(light)).tolist() if loudness is None else np.asarray(loudness).tolist())

    def _worst_patch(self, small: np.ndarray) -> float:
        """The largest change of a patch beyond its usual variation; small: thumbnails [N, SIDE, SIDE, 3]."""
        patches = small.reshape(len(small), PATCHES, SIDE // PATCHES, PATCHES, SIDE // PATCHES, 3).mean((0, 2, 4)) * 255
        if self._usual_patches is None:
            self._patches.append(patches)
            return 0.0
        mean, allowed = self._usual_patches
        excess = np.maximum(np.abs(patches - mean) - allowed, 0)
        excess[LIPS] = 0
        return float(excess.max())

    def _begin(self, measures: Measures, count: int) -> Measures:
        """Collect the first 10 s. Until they are complete, sharpness is relative to the mean so far."""
        self._beginning.append((count, measures))
        self._detail = mean_of(self._beginning).sharpness
        if self.frames >= self._motion.maxlen:
            relative = [(n, replace_sharpness(m, self._detail)) for n, m in self._beginning]
            for field in fields(Measures):
                values = [getattr(m, field.name) for _, m in relative if getattr(m, field.name) is not None]
                if values:
                    self._usual[field.name] = (float(np.mean(values)), float(np.std(values)))
            seen = np.stack(self._patches)
            self._usual_patches = (seen.mean(0), SPREADS * seen.std(0))
            self._beginning, self._patches = [], []
        return replace_sharpness(measures, self._detail)

    def _note(self, block: int, measures: Measures, count: int) -> None:
        """Means over 10 s for the history and over 3 s for the warnings."""
        self._ten.append((count, measures))
        if sum(n for n, _ in self._ten) >= self._motion.maxlen:
            self.history.append(mean_of(self._ten))
            self._ten = []
        self._recent.append((count, measures))
        while sum(n for n, _ in self._recent) - self._recent[0][0] >= SETTLED_SECONDS * self.fps:
            self._recent.popleft()
        if self._usual and sum(n for n, _ in self._recent) >= SETTLED_SECONDS * self.fps:
            self._judge(block, mean_of(self._recent))

    def _judge(self, block: int, now: Measures) -> None:
        """Warn once per excursion. It ends when the measure is back to half of its limit."""
        for name, limit in LIMITS.items():
            value, usual = getattr(now, name), self._usual.get(name)
            if value is None or usual is None or (name == "correlation" and usual[0] < LEAST_CORRELATION):
                continue
            off = value - usual[0]
            excess = abs(off) if not limit.sign else off * limit.sign
            allowed = max(limit.floor, SPREADS * usual[1])
            if excess > allowed and name not in self._alarmed:
                self._alarmed.add(name)
                seconds = self.frames / self.fps
                text = f"{seconds:.0f} s: " + limit.sentence.format(now=value, usual=usual[0])
                warning = Warned(name, block, seconds, text)
                self.warnings.append(warning)
                log.warning("drift at %s", text)
                if self.on_warning is not None:
                    self.on_warning(warning)
            elif excess < allowed / 2:
                self._alarmed.discard(name)


def mean_of(measures: Any) -> Measures:
    """The mean of (frames, Measures) pairs, weighted by frames; correlation over those that have one."""
    values = {}
    for field in fields(Measures):
        known = [(n, getattr(m, field.name)) for n, m in measures if getattr(m, field.name) is not None]
        total = sum(n for n, _ in known)
        values[field.name] = sum(n * value for n, value in known) / total if total else None
    return Measures(**values)


def replace_sharpness(measures: Measures, unit: float) -> Measures:
    """The same with sharpness as a multiple of `unit`."""
    return Measures(**{**asdict(measures), "sharpness": measures.sharpness / unit if unit else 1.0})
