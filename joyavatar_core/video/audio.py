"""AAC encoding of float samples in any chunking and at any rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from numbers import Integral
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ..errors import AvatarError

if TYPE_CHECKING:
    from av.container import OutputContainer

LAYOUTS = {1: "mono", 2: "stereo"}
# What browsers, phones and Windows decode: Firefox and Media Foundation refuse AAC above 48 kHz, and 7.35 kHz.
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def check_sound(sample_rate: int, channels: int) -> None:
    """Raises AvatarError for what `AudioEncoder` cannot take."""
    if not isinstance(sample_rate, Integral) or not 1 <= sample_rate <= 1_000_000:
        raise AvatarError(
            f"The sample rate is {sample_rate!r}, expected a whole number of Hz up to 1000000; resample it."
        )
    if channels not in LAYOUTS:
        raise AvatarError(f"The sound has {channels} channels, expected 1 or 2; mix it down first.")


class AudioEncoder:
    """One AAC stream of an output container. Feed `encode`, then `flush` once.

    Samples are float32 [S] or [S, C], full scale is +-1. Rates that are not in RATES are resampled to 48 kHz.
    """

    FRAME = 1024  # samples an AAC-LC packet holds
    PRIMING = 1024  # samples libavcodec's encoder puts in front, because a packet decodes only with the one before

    def __init__(self, container: OutputContainer, sample_rate: int, channels: int = 1) -> None:
        check_sound(sample_rate, channels)
        self.sample_rate = int(sample_rate)
        self.channels = channels
        self.rate = self.sample_rate if self.sample_rate in RATES else 48000
        self.stream = container.add_stream("aac", rate=self.rate, layout=LAYOUTS[channels])
        self.stream.bit_rate = 96_000 * channels
        self.given = 0  # samples at sample_rate

    def length(self, samples: int) -> int:
        """How many samples at the encoder's rate last as long as `samples` at the caller's, rounded to nearest."""
        return (2 * samples * self.rate + self.sample_rate) // (2 * self.sample_rate)

    def encode(self, samples: Any) -> Iterator[av.Packet]:
        """Packets that are ready after these samples (numpy or torch, float32 [S] or [S, C]). Raises AvatarError."""
        samples = self._checked(samples)
        for start in range(0, len(samples), self.sample_rate):  # a second at a time: hours at once cost no copy
            chunk = samples[start : start + self.sample_rate]
            if not np.isfinite(chunk).all():
                raise AvatarError("The sound contains NaN or infinite samples, expected numbers in -1..1; repair it.")
            planar = np.ascontiguousarray(chunk.T, dtype=np.float32)  # [C, S]
            frame = av.AudioFrame.from_ndarray(planar, format="fltp", layout=LAYOUTS[self.channels])
            frame.sample_rate = self.sample_rate
            frame.time_base = Fraction(1, self.sample_rate)
            frame.pts = self.given
            self.given += len(chunk)
            yield from self.stream.encode(frame)

    def flush(self) -> Iterator[av.Packet]:
        """The packets still inside the encoder."""
        yield from self.stream.encode(None)

    def encode_all(self, samples: Any) -> Iterator[av.Packet]:
        """All packets of a whole sound, lazily."""
        yield from self.encode(samples)
        yield from self.flush()

    def _checked(self, samples: Any) -> np.ndarray:  # [S, C]
        samples = samples.detach().cpu().numpy() if hasattr(samples, "detach") else np.asarray(samples)
        shaped = samples[:, None] if samples.ndim == 1 else samples
        if shaped.ndim != 2 or shaped.shape[1] != self.channels or shaped.dtype.kind != "f":
            raise AvatarError(
                f"The sound is {samples.dtype} {list(samples.shape)}, expected float samples "
                f"[S, {self.channels}]{' or [S]' if self.channels == 1 else ''}; convert it first."
            )
        return shaped
