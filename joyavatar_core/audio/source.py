"""Audio sources, which are read in windows, and the source for a waveform in memory."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from fractions import Fraction

import numpy as np
import torch

from ..errors import AvatarError
from .channels import Layout, default_layout, downmix, downmix_channels, voice
from .clock import Clock, check_sample_rate
from .survey import Survey, survey

log = logging.getLogger(__name__)

MAX_CHANNELS = 8
SCAN_SAMPLES = 1 << 20  # per channel; how much of a waveform is converted at once when it is checked


def to_float(samples: np.ndarray | torch.Tensor) -> np.ndarray:
    """Samples of any width as float32 in [-1, 1].

    samples: [S] or [channels, S], float, or 8/16/32-bit integers at full scale (unsigned ones centred on their middle).
    Returns [S, channels]. Raises AvatarError for other types and shapes.
    """
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.dtype in (torch.bfloat16, torch.float16) else samples).numpy()
    check_layout(samples)
    planes = list(samples if samples.ndim == 2 else samples[None])
    if samples.dtype.kind in "iu":
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        middle = full_scale if samples.dtype.kind == "u" else 0.0
        # In float64 at first: 32-bit integers must be rounded once, and as a decoder rounds them.
        planes = [((plane - middle) / full_scale).astype(np.float32) for plane in planes]
    return np.stack(planes, axis=1, dtype=np.float32, casting="same_kind")


def check_layout(samples: np.ndarray | torch.Tensor) -> None:
    """Raises AvatarError unless this is [S] or [channels, S], 1 to 8 channels of a type with a known full scale."""
    shape = tuple(samples.shape)
    if len(shape) not in (1, 2):
        raise AvatarError(f"The audio's shape is {shape}, expected [samples] or [channels, samples]; pass one clip.")
    if len(shape) == 2:
        check_channels(shape[0], f" (shape {shape})")
    name = str(samples.dtype).removeprefix("torch.")
    if not (name.startswith(("float", "bfloat")) or name in ("int8", "uint8", "int16", "uint16", "int32", "uint32")):
        raise AvatarError(f"The audio's samples are {name}, expected floats or 8, 16 or 32-bit integers; convert them.")


def check_channels(channels: int, detail: str = "") -> None:
    """Raises AvatarError unless there are 1 to 8 channels."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise AvatarError(
            f"The audio has {channels} channels{detail}, expected 1 to {MAX_CHANNELS}, "
            "as [channels, samples]; transpose or mix it down."
        )


def check_finite(native: np.ndarray, start: int, sample_rate: int) -> None:
    """Raises AvatarError with the time of the first NaN or infinite sample of [S, channels] that begins at `start`."""
    finite = np.isfinite(native).all(axis=1)
    if not finite.all():
        seconds = (start + int(np.argmin(finite))) / sample_rate
        raise AvatarError(f"The audio has a NaN or infinite sample at {seconds:.4f} s; repair or cut it there.")


class AudioSource(ABC):
    """A voice that is read in windows, so that its length costs no memory.

    Every source gives the same numbers for the same audio. Samples before 0 and past the end are zero.
    Subclasses give `_window`; `live` says that the audio is still being made while it is read.
    """

    live = False
    _told = False  # that the mean of a live voice's channels is no voice

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = check_sample_rate(sample_rate)

    @property
    @abstractmethod
    def channels(self) -> int:
        """1 or 2, the width of `read_native`."""

    @property
    def layout(self) -> Layout:
        """The channels of `_window` by name: mono or stereo, unless a subclass knows more."""
        return default_layout(self.channels)

    @property
    @abstractmethod
    def num_samples(self) -> int | None:
        """Length in samples; None while the source is still growing."""

    @property
    def available(self) -> int:
        """Samples that have arrived."""
        return self.num_samples or 0

    def wait(self, samples: int, timeout: float | None = None) -> bool:
        """Block until `samples` samples exist (True), or the source has ended or `timeout` seconds passed (False)."""
        return samples <= self.available

    def survey(self) -> Survey:
        """What is in the whole voice; not for one that is live."""
        return survey(self)

    def arrival(self, samples: int) -> float | None:
        """When the last of the first `samples` samples came in, by time.monotonic; None for what was always there."""
        return None

    @abstractmethod
    def _window(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop), 0 <= start < stop, as float32 [<= stop - start, layout]: fewer only at the end."""

    def samples_of(self, frames: range, fps: int | Fraction) -> tuple[int, int]:
        """Samples [start, stop) of a range of video frames, cut at the end of the voice."""
        start, stop = Clock(self.sample_rate, fps).frame_samples(frames)
        return start, stop if self.num_samples is None else max(start, min(stop, self.num_samples))

    def read_native(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) for muxing: float32 [stop - start, channels], zeros outside the audio.

        More channels than two are mixed as players do. Waits for samples that are still to come. Raises AvatarError at
        a NaN or infinite sample.
        """
        return downmix(self._padded(start, stop), self.layout)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The voice in samples [start, stop), in mono: float32 [stop - start]; else as `read_native`.

        The mean of the channels, or what `layout.voice` finds in this window where the mean would lose it.
        """
        mono, lost = voice(self._padded(start, stop), self.layout, self.sample_rate)
        if lost and self.live and not self._told:  # a file's survey has said it
            self._told = True
            log.warning("the mean of the live voice's channels loses it: the loudest channel moves the lips")
        return mono

    def _padded(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, layout], zeros outside the audio."""
        padded = np.zeros((max(0, stop - start), len(self.layout)), np.float32)
        first = max(start, 0)
        if first < stop:
            window = self._window(first, stop)
            check_finite(window, first, self.sample_rate)
            padded[first - start : first - start + len(window)] = window
        return padded


class ArrayAudio(AudioSource):
    """A waveform in memory, kept by reference and converted window by window.

    waveform: [S] or [channels, S], numpy or torch, float or 8/16/32-bit integers, 1 to 8 channels.
    Raises AvatarError for an empty waveform, another shape or type, and NaN or infinite samples.
    """

    def __init__(self, waveform: np.ndarray | torch.Tensor, sample_rate: int) -> None:
        super().__init__(sample_rate)
        samples = waveform.detach() if isinstance(waveform, torch.Tensor) else np.asarray(waveform)
        check_layout(samples)
        self._samples = samples if samples.ndim == 2 else samples[None]
        if self.num_samples == 0:
            raise AvatarError("The audio is empty (0 samples), expected at least one; check the file or the recording.")
        for start in range(0, self.num_samples, SCAN_SAMPLES):
            check_finite(self._window(start, start + SCAN_SAMPLES), start, self.sample_rate)

    @property
    def channels(self) -> int:
        return downmix_channels(self.layout)

    @property
    def layout(self) -> Layout:
        return default_layout(len(self._samples))

    @property
    def num_samples(self) -> int:
        return self._samples.shape[1]

    def _window(self, start: int, stop: int) -> np.ndarray:
        return to_float(self._samples[:, start:stop])
