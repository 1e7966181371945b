"""Audio features of any block, as a pure function of the audio in a window at that block."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT
from .clock import Clock, block_of_latent, block_to_frames, block_to_latents, latent_to_frames
from .protocols import FeatureEncoder, Features
from .resample import read_resampled, source_span
from .source import AudioSource
from .switched import SwitchedAudio

MAX_CONTEXT_SECONDS = 60.0
CACHED_BLOCKS = 8  # overlays and prefills read a block again, and never much older ones


def group_frames(features: Tensor, first_latent: int) -> Tensor:
    """Features [L, C] of whole latent frames' video frames -> [latents, 4, C], video frame 0 counted four times."""
    if first_latent == 0:
        features = torch.cat([features[:1].expand(VIDEO_FRAMES_PER_LATENT - 1, -1), features])
    return features.unflatten(0, (-1, VIDEO_FRAMES_PER_LATENT))


def ungroup_frames(features: Tensor, first_latent: int) -> Tensor:
    """The inverse of `group_frames`: [latents, 4, C] -> [L, C], one row per video frame."""
    rows = features.flatten(0, 1)
    return rows if first_latent else rows[VIDEO_FRAMES_PER_LATENT - 1 :]


class AudioFeatures(Features):
    """Features of a voice, block by block, on the exact clock.

    Block b's features come from the audio between the start of its first video frame less `left_context_seconds` and
    the end of its last plus `lookahead_seconds`, both rounded up to whole video frames, plus the encoder's reach and
    hop (at most 20 ms each) and the resampler's margin (16 ms). The window is cut at the start of the audio and not
    padded there: block 0 has no context, and windows grow to their full length over the first blocks. After the end of
    the audio the window contains zeros. The features depend on nothing else. So any order of blocks, and resumed, live
    and offline runs, give equal bits at equal settings.

    source: the voice; encoder: LogMel, VisemeEncoder or Wav2Vec2; fps, block_frames: of the avatar. Context and
    look-ahead default to the encoder's (look-ahead 0 for a live source). offset: video frames the features run ahead
    (+) or behind (-); the first frames, before which there is no audio, have zeros. lead: latent frames that block 0
    has more.
    Raises AvatarError for settings out of range.
    """

    def __init__(
        self,
        source: AudioSource,
        encoder: FeatureEncoder,
        fps: int | Fraction,
        block_frames: int,
        left_context_seconds: float | None = None,
        lookahead_seconds: float | None = None,
        offset: int = 0,
        lead: int = 0,
    ) -> None:
        self.source, self.encoder, self.block_frames, self.offset = source, encoder, block_frames, offset
        self.lead = lead
        self.clock = Clock(source.sample_rate, fps)
        self._encoder_clock = Clock(encoder.sample_rate, fps)
        lookahead_default = 0.0 if source.live else encoder.lookahead
        self.left_frames = self._frames("left context", left_context_seconds, encoder.left_context)
        self.right_frames = self._frames("look-ahead", lookahead_seconds, lookahead_default)
        if block_frames < 1:
            raise AvatarError(f"A block has {block_frames} latent frames, expected at least 1.")
        self._cached: OrderedDict[int, Tensor] = OrderedDict()

    @property
    def feature_dim(self) -> int:
        return self.encoder.feature_dim

    @property
    def fps(self) -> int | Fraction:
        return self.clock.fps

    @property
    def num_video_frames(self) -> int | None:
        """Video frames as long as the audio; None while the source is growing."""
        samples = self.source.num_samples
        return None if samples is None else self.clock.num_frames(samples)

    def samples_needed(self, block: int) -> int:
        """Source samples from the beginning that have to be there before block `block` can be computed."""
        start, stop, _ = self._window(block)
        stop = source_span(start, stop, self.source.sample_rate, self.encoder.sample_rate)[1]
        # At least the block's own frames: they exist only where the audio reaches them.
        return max(stop, self.clock.frame_start(self._shown(block).stop))

    def followed_by(self, source: AudioSource, block: int) -> AudioFeatures:
        """The same features with another voice from block `block` on, which begins at its first video frame.

        The earlier voice stays the left context. For a running stream:
        ``run.update(audio=run.stream.audio.followed_by(source, run.block))``.
        """
        at = self.clock.frame_start(self._shown(block).start)
        follower = copy.copy(self)
        follower.source = SwitchedAudio(self.source, source, at)
        follower._cached = OrderedDict()
        return follower

    def ready(self, block: int) -> bool:
        """Whether block `block` exists and can be computed without waiting."""
        total = self.num_video_frames
        if total is None:
            return self.source.available >= self.samples_needed(block)
        return self._shown(block).start < total

    def wait(self, block: int, timeout: float | None = None) -> bool:
        """Wait until block `block` can be computed; False once the audio has ended before its first video frame.

        timeout: seconds after which it is False too, where the audio is still growing.
        """
        self.source.wait(self.samples_needed(block), timeout)
        return self.ready(block)

    def latent_features(self, first_latent: int, count: int) -> Tensor:
        """Features of latent frames first_latent ... first_latent + count - 1: [count, 4, feature_dim].

        Each from the window of the block it belongs to, whatever range is asked for; waits for live audio.
        """
        first, last = (
            block_of_latent(latent, self.block_frames, self.lead) for latent in (first_latent, first_latent + count - 1)
        )
        features = torch.cat([self._block(block) for block in range(first, last + 1)])
        skip = first_latent - block_to_latents(first, self.block_frames, self.lead).start
        return features[skip : skip + count]

    def _shown(self, block: int) -> range:
        """Video frames of a block."""
        return block_to_frames(block, self.block_frames, self.lead)

    def _frames(self, name: str, seconds: float | None, default: float) -> int:
        seconds = default if seconds is None else seconds
        if not 0 <= seconds <= MAX_CONTEXT_SECONDS:
            raise AvatarError(f"The audio {name} is {seconds} s, expected 0 to {MAX_CONTEXT_SECONDS:g} s.")
        return math.ceil(round(seconds * float(self.clock.fps), 6))

    def _window(self, block: int) -> tuple[int, int, range]:
        """Encoder-rate samples [start, stop) of a block's window, and the video frames whose audio it holds."""
        frames = self._shown(block)
        first, last = frames.start + self.offset, frames.stop + self.offset
        window = range(max(first - self.left_frames, 0), max(last, 1) + self.right_frames)
        start, stop = self._encoder_clock.frame_samples(window)
        start = (start - self.encoder.left_reach) // self.encoder.hop * self.encoder.hop
        return start, stop + self.encoder.right_reach, window

    def _block(self, block: int) -> Tensor:
        """[latent frames, 4, feature_dim]"""
        if block in self._cached:
            self._cached.move_to_end(block)
            return self._cached[block]
        start, stop, window = self._window(block)
        waveform = read_resampled(self.source, start, stop, self.encoder.sample_rate)
        edges = [self._encoder_clock.frame_start(frame) - start for frame in range(window.start, window.stop + 1)]
        features = self.encoder.encode(waveform, edges)
        frames = self._shown(block)
        skip = frames.start + self.offset - window.start
        features = F.pad(features, (0, 0, max(0, -skip), 0))[max(0, skip) :][: len(frames)]
        grouped = group_frames(features, block_to_latents(block, self.block_frames, self.lead).start)
        self._cached[block] = grouped
        if len(self._cached) > CACHED_BLOCKS:
            self._cached.popitem(last=False)
        return grouped


class FixedFeatures(Features):
    """Features computed beforehand.

    features: [L, C], one row per video frame. Rows after the end are zero, as for a stream without audio.
    """

    def __init__(self, features: Tensor, fps: int | Fraction, block_frames: int, lead: int = 0) -> None:
        if features.ndim != 2 or not len(features):
            raise AvatarError(f"Audio features have shape {tuple(features.shape)}, expected [video frames, features].")
        self.features, self.fps, self.block_frames, self.lead = features, fps, block_frames, lead

    @property
    def feature_dim(self) -> int:
        return self.features.shape[1]

    @property
    def num_video_frames(self) -> int:
        return len(self.features)

    def ready(self, block: int) -> bool:
        return block_to_frames(block, self.block_frames, self.lead).start < len(self.features)

    def wait(self, block: int, timeout: float | None = None) -> bool:
        return self.ready(block)

    def latent_features(self, first_latent: int, count: int) -> Tensor:
        """[count, 4, C], as AudioFeatures.latent_features."""
        start, stop = latent_to_frames(first_latent).start, latent_to_frames(first_latent + count - 1).stop
        rows = self.features[start:stop]
        missing = stop - start - len(rows)
        return group_frames(torch.cat([rows, rows.new_zeros(missing, self.feature_dim)]), first_latent)


def reference_features(source: AudioSource, encoder, seconds: int, fps: int = 16) -> Tensor:
    """Features in the public code's timing, for parity: [fps * seconds + 1, feature_dim].

    The first `seconds` of the voice (or all of it, if it is shorter: nothing is padded) normalised as one clip and
    stretched over the frames, so that lips and sound drift apart by 1.2 % and more. Source: LiveTalk's inference code.
    encoder: a Wav2Vec2. Raises AvatarError where `seconds` is not positive.
    """
    if seconds < 1:
        raise AvatarError(f"The clip is {seconds} s long, expected at least 1 s.")
    rate = encoder.sample_rate
    length = min(seconds * rate, -(-source.num_samples * rate // source.sample_rate))
    return encoder.encode_stretched(read_resampled(source, 0, length, rate), fps * seconds + 1)
