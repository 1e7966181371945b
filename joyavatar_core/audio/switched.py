"""One voice after another on one clock, for a stream whose audio is changed between blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import AvatarError
from .resample import read_resampled, source_span
from .source import AudioSource

KEPT_SECONDS = 90.0  # how long a voice that was switched from stays readable: more than any left context


@dataclass(frozen=True)
class Piece:
    """A source, and the sample of the common clock at which it starts."""

    start: int
    source: AudioSource


class SwitchedAudio(AudioSource):
    """`before` up to sample `at` (counted at its rate), then `after` from its own beginning.

    Rate and channels stay `before`'s: a voice at another rate is resampled, in mono; a missing channel is the mean of
    the others. Where `before` ends early, silence follows until `at`. Switching again and again keeps no more than the
    voices of the last 90 s. Raises AvatarError for a switch that lies before an earlier one.
    """

    def __init__(self, before: AudioSource, after: AudioSource, at: int) -> None:
        super().__init__(before.sample_rate)
        pieces = before._pieces if isinstance(before, SwitchedAudio) else [Piece(0, before)]
        if at < pieces[-1].start:
            raise AvatarError(f"The voice is switched at sample {at}, before the last switch at {pieces[-1].start}.")
        oldest = at - KEPT_SECONDS * self.sample_rate
        ends = [*(piece.start for piece in pieces[1:]), at]
        self._pieces = [piece for piece, end in zip(pieces, ends, strict=True) if end > oldest]
        self._pieces.append(Piece(at, after))
        self._channels = before.channels
        self.live = any(piece.source.live for piece in self._pieces)

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def num_samples(self) -> int | None:
        last = self._pieces[-1]
        length = last.source.num_samples
        return None if length is None else last.start + -(-length * self.sample_rate // last.source.sample_rate)

    @property
    def available(self) -> int:
        last = self._pieces[-1]
        return last.start + last.source.available * self.sample_rate // last.source.sample_rate

    def arrival(self, samples: int) -> float | None:
        piece = self._piece(samples - 1)
        return piece.source.arrival(self._needed(piece, samples))

    def wait(self, samples: int, timeout: float | None = None) -> bool:
        """As AudioSource.wait; before the switch there is always something, if only silence."""
        piece = self._piece(samples - 1)
        there = piece.source.wait(self._needed(piece, samples), timeout)
        ended = piece.source.num_samples is not None
        if piece is not self._pieces[-1]:
            return there or ended
        return there or (ended and samples <= self.num_samples)

    def _piece(self, sample: int) -> Piece:
        """The voice that contains a sample."""
        return next((piece for piece in reversed(self._pieces) if piece.start <= sample), self._pieces[0])

    def _needed(self, piece: Piece, samples: int) -> int:
        """Samples of a piece's own that have to be there for the first `samples` of the common clock."""
        local = max(0, samples - piece.start)
        return source_span(0, local, piece.source.sample_rate, self.sample_rate)[1] if local else 0

    def _window(self, start: int, stop: int) -> np.ndarray:
        if start < self._pieces[0].start:
            raise AvatarError(
                f"The voice at {start / self.sample_rate:.2f} s was switched from more than {KEPT_SECONDS:g} s ago "
                "and is gone; do not go back that far."
            )
        stop = stop if self.num_samples is None else min(stop, self.num_samples)
        ends = [*(piece.start for piece in self._pieces[1:]), stop]
        parts = [np.zeros((0, self.channels), np.float32)]
        for piece, end in zip(self._pieces, ends, strict=True):
            first, last = max(start, piece.start), min(stop, end)
            if first < last:
                parts.append(self._read(piece.source, first - piece.start, last - piece.start))
        return np.concatenate(parts)

    def _read(self, source: AudioSource, start: int, stop: int) -> np.ndarray:
        """[stop - start, channels] of one voice, in the common rate and channels."""
        if source.sample_rate == self.sample_rate and source.channels == self._channels:
            return source.read_native(start, stop)
        mono = read_resampled(source, start, stop, self.sample_rate)
        return np.repeat(mono[:, None], self._channels, axis=1)
