"""Channel layouts: the mono or stereo mix of a recording for the video, and its mono mix for the features."""

from __future__ import annotations

from functools import reduce

import numpy as np

Layout = tuple[str, ...]  # a name per channel, as libav writes them: ("FL", "FR", "FC", "LFE", "BL", "BR")

UNKNOWN = "NONE"
# A file that names no channels has them in WAVE's order (dwChannelMask of WAVEFORMATEXTENSIBLE).
SURROUND = {6: ("FL", "FR", "FC", "LFE", "BL", "BR"), 8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")}
# Shares of left and right, by ITU-R BS.775: centre and surround at -3 dB, no low-frequency effects.
SIDE = 0.5**0.5
SHARES = {
    "FL": (1, 0), "FR": (0, 1), "FC": (SIDE, SIDE), "LFE": (0, 0), "BL": (SIDE, 0), "BR": (0, SIDE),
    "SL": (SIDE, 0), "SR": (0, SIDE), "FLC": (SIDE, 0), "FRC": (0, SIDE), "BC": (0.5, 0.5),
}  # fmt: skip

FRAME_SECONDS = 0.1  # how long a stretch is judged at once
# The mean of C channels of equal, unrelated sounds has 1 / C of their power, that of one channel alone 1 / C^2.
LEAST = 0.6
SILENT = 1e-9  # mean power, -90 dB


def default_layout(channels: int) -> Layout:
    """The usual names of that many channels, for recordings without names."""
    return {1: ("FC",), 2: ("FL", "FR"), **SURROUND}.get(channels, (UNKNOWN,) * channels)


def downmix_channels(layout: Layout) -> int:
    """The number of channels that `downmix` returns, 1 or 2."""
    return 2 if len(layout) == 2 or is_surround(layout) else 1


def is_surround(layout: Layout) -> bool:
    """Whether the layout has more than two channels, all at known places."""
    return len(layout) > 2 and {"FL", "FR"} <= set(layout) and set(layout) <= set(SHARES)


def downmix(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """[S, C] -> [S, 1 or 2]: mono and stereo as they are, surround mixed to stereo, unknown places to their mean."""
    if len(layout) <= 2:
        return samples
    if is_surround(layout):
        return samples @ np.array([SHARES[name] for name in layout], np.float32)
    return mean(list(samples.T))[:, None]


def voice(samples: np.ndarray, layout: Layout, sample_rate: int) -> tuple[np.ndarray, bool]:
    """The voice in [S, C] as mono [S], and whether the mean of the channels would have lost it.

    Of a surround recording that is its centre, where film has the speech, or the other channels where the centre is
    silent throughout. Of several channels it is their mean; where that is much weaker than the loudest of them (one
    is inverted, or all the others are silent), it is the loudest, judged every 0.1 s from the first sample given.
    """
    planes = list(samples.T)
    if is_surround(layout):
        if "FC" in layout and (centre := planes[layout.index("FC")]).size and _power(centre) > SILENT:
            return np.ascontiguousarray(centre), False
        planes = [plane for plane, name in zip(planes, layout, strict=True) if name not in ("FC", "LFE")]
    mixed = mean(planes)
    if len(planes) == 1 or not len(samples):
        return mixed, False
    frame = max(1, round(FRAME_SECONDS * sample_rate))
    powers = np.stack([_powers(plane, frame) for plane in planes])  # [C, frames]
    loudest = powers.max(axis=0)
    lost = (_powers(mixed, frame) < LEAST / len(planes) * loudest) & (loudest > SILENT)
    if not lost.any():
        return mixed, False
    # One channel for the whole stretch, so that the sign does not change; another one where that is silent.
    main = int(powers[:, lost].sum(axis=1).argmax())
    chosen = np.where(powers[main] >= LEAST * loudest, main, powers.argmax(axis=0))
    centres = (np.arange(len(lost)) + 0.5) * frame
    at = np.arange(len(samples))
    total = np.zeros(len(samples))
    for index, plane in enumerate(planes):
        weights = np.where(lost, chosen == index, 1 / len(planes))
        total += np.interp(at, centres, weights) * plane
    return total.astype(np.float32), True


def mapped(samples: np.ndarray, layout: Layout, target: Layout, sample_rate: int) -> np.ndarray:
    """[S, C] of one layout as [S, C'] of another; a mono target gets `voice`, any other one `downmix`."""
    if layout == target or (len(layout) == len(target) and UNKNOWN in (*layout, *target)):
        return samples
    if len(target) == 1:
        return voice(samples, layout, sample_rate)[0][:, None]
    placed = np.zeros((len(samples), len(target)), np.float32)
    placed[:, [target.index("FL"), target.index("FR")] if is_surround(target) else [0, 1]] = downmix(samples, layout)
    return placed


def mean(planes: list[np.ndarray]) -> np.ndarray:
    """The mean of channels [S]."""
    # one addition after the other: numpy's own sum adds in an order that depends on the memory layout
    return reduce(np.add, [np.asarray(plane, np.float32) for plane in planes]) / np.float32(len(planes))


def _power(plane: np.ndarray) -> float:
    """Mean power of a channel without its constant part."""
    return float(np.var(plane, dtype=np.float64))


def _powers(plane: np.ndarray, frame: int) -> np.ndarray:
    """Mean power of every `frame` samples, the channel's constant part left out."""
    squares = np.square(plane - plane.mean(dtype=np.float64))
    starts = np.arange(0, len(plane), frame)
    return np.add.reduceat(squares, starts) / np.diff(np.append(starts, len(plane)))
