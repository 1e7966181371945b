"""Checks of a whole voice before a stream starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AvatarError
from .channels import SILENT, voice

if TYPE_CHECKING:
    from .source import AudioSource

log = logging.getLogger(__name__)

WINDOW_SECONDS = 1
QUIET = 0.003  # peak, -50 dB; quieter speech does not move the mouth
LOUDEST = 64.0  # 36 dB over full scale: integers in a file that says it holds floats
LOST_SHARE = 0.02  # of the seconds with sound: below this the mean of the channels is right
MARGIN_SECONDS = 2  # read after the last video frame, for look-ahead and filters


@dataclass(frozen=True)
class Survey:
    """num_samples: length. bad: the first NaN or infinite sample, None where there is none. peak: the largest
    magnitude. sounding, lost: seconds with sound in them, and those of them where the mean of the channels is no voice.
    """

    num_samples: int
    bad: int | None
    peak: float
    sounding: int
    lost: int


def survey(source: AudioSource) -> Survey:
    """Read a whole voice, in windows of a second."""
    step = WINDOW_SECONDS * source.sample_rate
    samples, bad, peak, sounding, lost = 0, None, 0.0, 0, 0
    while True:
        window = source._window(samples, samples + step)
        if len(window):
            finite = np.isfinite(window)
            if not finite.all():
                bad = samples + int(np.argmin(finite.all(axis=1))) if bad is None else bad
                window = np.where(finite, window, 0)
            highest = float(np.abs(window).max())
            peak = max(peak, highest)
            if highest**2 > SILENT:
                sounding += 1
                lost += len(source.layout) > 1 and voice(window, source.layout, source.sample_rate)[1]
        samples += len(window)
        if len(window) < step:
            return Survey(samples, bad, peak, sounding, lost)


def check_voice(source: AudioSource, name: str, seconds: float | None = None) -> None:
    """Look through a voice before the work: raises AvatarError for what would stop it, logs what may disappoint.

    name: what the user calls it. seconds: how much of it is used, None for all. A live voice is not looked at.
    """
    if source.live:
        return
    found = source.survey()
    used = None if seconds is None else (seconds + MARGIN_SECONDS) * source.sample_rate
    if found.bad is not None and (used is None or found.bad < used):
        raise AvatarError(
            f"{name} has a NaN or infinite sample at {found.bad / source.sample_rate:.4f} s; repair or cut it there."
        )
    if found.peak > LOUDEST:
        raise AvatarError(
            f"{name} holds a sample of {found.peak:.4g}, expected about -1 to 1; scale it, "
            "or save it as 16-bit integers."
        )
    if found.peak < QUIET:
        how = "is silent" if found.peak**2 <= SILENT else f"is very quiet (peak {20 * np.log10(found.peak):.0f} dB)"
        log.warning("%s %s: the mouth will stay shut; make it louder, or choose another recording or track", name, how)
    elif found.lost > LOST_SHARE * found.sounding:
        log.warning(
            "%s: the mean of its channels loses the voice (one is inverted or silent) in %d of %d s; "
            "the loudest channel moves the lips there", name, found.lost, found.sounding,
        )  # fmt: skip
