"""Judges a talking video of any portrait: the lips against the visemes of its voice. No ground truth is needed.

Run as a program it judges one video file: ``python -m joyavatar_core.evaluation.talking_judge VIDEO --voice VOICE``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from . import face_measures as measures
from .face_mesh import FaceMesh

WINDOW_SECONDS = 10
MAX_LAG = 6  # frames
TRAINED_FPS = 16  # frames per second that the viseme encoder has learned from
# The mouth, seen in four ways: each is correlated with the jaw of the voice.
MOUTH_SIGNALS = ("lip_gap", "jaw_drop", "inner_mouth", "darkness")


def heard_jaw(voice: str | Path, frames: int, fps: int | Fraction) -> np.ndarray:
    """The opening of the jaw in every video frame, [frames], by the viseme encoder; zero mean over speech."""
    from ..audio import Clock, VisemeEncoder, open_voice
    from ..audio.resample import read_resampled
    from ..audio.visemes import VISEMES
    from ..pipeline.embedded import EMBEDDED_VISEME_ENCODER

    encoder = VisemeEncoder.load(EMBEDDED_VISEME_ENCODER)
    clock, reach = Clock(encoder.sample_rate, TRAINED_FPS), encoder.left_reach
    moments = (np.arange(frames) + 0.5) * float(TRAINED_FPS / fps) - 0.5  # of the frames, in frames of the encoder
    edges = [clock.frame_start(k) + reach for k in range(math.ceil(moments[-1]) + 2)]
    heard = read_resampled(open_voice(voice), -reach, edges[-1], encoder.sample_rate)
    jaw = encoder.encode(heard, edges)[:, VISEMES.index("open")].numpy()
    return np.interp(moments, np.arange(len(jaw)), jaw)


def mouth_signals(frames: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """The opening of the mouth in every frame by MOUTH_SIGNALS, [T] each: two by landmarks, two by pixels alone."""
    mouths = measures.mouth_patches(frames, points)
    return {
        "lip_gap": measures.lip_gap(points),
        "jaw_drop": measures.jaw_drop(points),
        "inner_mouth": measures.inner_mouth(mouths),
        "darkness": measures.darkness(mouths),
    }


def follow(seen: np.ndarray, track: np.ndarray) -> dict[str, float]:
    """How a signal follows a track, [T] each: r, the best r within MAX_LAG and its lag in frames (positive: late).

    Frames where the signal is NaN are left out.
    """
    by_lag = {lag: _correlation(*_shifted(seen, track, lag)) for lag in range(-MAX_LAG, MAX_LAG + 1)}
    lag = max(by_lag, key=by_lag.get)
    return {"r": by_lag[0], "best_r": by_lag[lag], "lag": lag}


def _shifted(seen: np.ndarray, track: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    stop = len(seen) - abs(lag)
    return (seen[lag : lag + stop], track[:stop]) if lag >= 0 else (seen[:stop], track[-lag : -lag + stop])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r over what both have; 0 where one of them never changes."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or min(a[both].std(), b[both].std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(a[both], b[both])[0, 1])


class TalkingJudge:
    """Measures videos of one portrait.

    portrait: [H, W, 3] uint8, what eyes, colours and shape are compared with; a video's first frame without it.
    """

    def __init__(self, portrait: np.ndarray | None = None, mesh: FaceMesh | None = None) -> None:
        self.portrait, self.mesh = portrait, mesh or FaceMesh()

    def judge(self, frames: np.ndarray, fps: float, jaw: np.ndarray) -> dict[str, object]:
        """Figures of the whole video and of every 10 s. frames [T, H, W, 3] uint8; jaw [T], the track of the voice."""
        portrait = frames[0] if self.portrait is None else self.portrait
        points = self.mesh(frames).points
        signals, rest = mouth_signals(frames, points), self._rest(frames, points)
        own = self._rest(portrait[None], self.mesh(portrait[None]).points)

        def part(start: int, stop: int) -> dict[str, object]:
            stretch = slice(start, stop)
            mouth = {name: follow(signal[stretch], jaw[stretch]) for name, signal in signals.items()}
            return {
                "seconds": start / fps,
                "found": float(np.isfinite(points[stretch, 0, 0]).mean()),
                **{f"{name}_r": one["r"] for name, one in mouth.items()},
                "lag": mouth["lip_gap"]["lag"], "best_r": mouth["lip_gap"]["best_r"],
                "amplitude": float(np.nanstd(signals["lip_gap"][stretch])),
                **_at_rest({name: values[stretch] for name, values in rest.items()}, own),
            }  # fmt: skip

        size = round(WINDOW_SECONDS * fps)
        starts = range(0, max(1, len(frames) - size // 2), size)
        return part(0, len(frames)) | {"windows": [part(start, min(start + size, len(frames))) for start in starts]}

    @staticmethod
    def _rest(frames: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "width": measures.mouth_width(points),
            "lids": measures.lid_opening(points),
            "pose": measures.head_pose(points),
            "eyes": measures.sharpness_around_eyes(frames, points),
            "shape": measures.face_shape(points),
            "colours": measures.face_colours(frames, points),
        }


def _at_rest(seen: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Measures that do not depend on the voice: spreads, and distances from the portrait."""
    mean = {name: np.nanmean(values, axis=0) for name, values in seen.items()}
    return {
        "width_spread": float(np.nanstd(seen["width"])),
        "lids": float(mean["lids"]),
        "lids_spread": float(np.nanstd(seen["lids"])),
        "pose_spread": np.nanstd(seen["pose"], axis=0).tolist(),
        "eye_sharpness": float(mean["eyes"] / own["eyes"][0]),
        "identity_shape": float(np.linalg.norm(mean["shape"] - own["shape"][0])),
        "identity_colour": float(np.abs(mean["colours"] - own["colours"][0]).mean()),
    }


def read_video(path: str | Path) -> tuple[np.ndarray, Fraction]:
    """All frames of a video file, [T, H, W, 3] uint8, and its frame rate."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)]), stream.average_rate


def main() -> None:
    """Judge a video file; prints JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--voice", type=Path, help="default: the video's own sound")
    parser.add_argument("--portrait", type=Path, help="what it was made from, framed as the video; default: frame 0")
    args = parser.parse_args()
    frames, fps = read_video(args.video)
    portrait = None
    if args.portrait:
        from PIL import Image

        portrait = np.asarray(Image.open(args.portrait).convert("RGB"))
    jaw = heard_jaw(args.voice or args.video, len(frames), fps)
    print(json.dumps(TalkingJudge(portrait).judge(frames, float(fps), jaw), indent=1))


if __name__ == "__main__":
    main()
