"""A clip: somebody talks for some seconds; everything follows from one integer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .drawn.characters import Character, generator, sample_character
from .drawn.figure import Moment, MouthTrace, Portrait, render
from .motion import moments
from .speech import mix, talk
from .viseme_tracks import RATE, loudness, mouth_tracks
from .voices import SAMPLE_RATE, Voice, sample_voice

FPS = 16
LATENT_FRAMES = 4  # video frames a latent, after the first


@dataclass(frozen=True)
class Script:
    """A clip before it is drawn: who, the sound, and what moves in every frame."""

    character: Character
    voice: Voice
    waveform: np.ndarray  # [samples] float32 at 16 kHz
    tracks: np.ndarray  # [T, 20] float32, columns of Moment
    portrait: Moment  # the moment of the reference picture


@dataclass(frozen=True)
class Clip:
    """Frames and sound of equal length, the mouth as drawn, and a reference picture of the same person."""

    frames: np.ndarray  # [T, S, S, 3] uint8
    waveform: np.ndarray  # [samples] float32
    sample_rate: int
    mouth: np.ndarray  # [T, 2] float32: opening and width in pixels
    box: np.ndarray  # [T, 4] float32: left, top, right, bottom of the mouth region in pixels
    portrait: np.ndarray  # [S, S, 3] uint8
    fps: int = FPS


def frame_count(seconds: float) -> int:
    """The nearest number of video frames that a causal VAE can take: 4 n + 1."""
    return LATENT_FRAMES * round(seconds * FPS / LATENT_FRAMES) + 1


def make_script(seed: int, split: str = "train", seconds: float = 7.0) -> Script:
    """Everything about a clip except its pixels; cheap, also for films of many minutes."""
    frames = frame_count(seconds)
    who = sample_character(seed, split)
    sound, motion = generator(seed, split, 1), generator(seed, split, 2)
    voice = sample_voice(sound, who, split)
    dry, phones = talk(sound, voice, split, frames / FPS)
    instants = np.arange(frames * RATE // FPS) / RATE
    loud = loudness(dry, SAMPLE_RATE, instants)
    mouth = mouth_tracks(phones, loud, articulation=float(np.clip(motion.normal(1.15, 0.1), 0.95, 1.35)))
    tracks = moments(motion, who, phones, loud, mouth, FPS)
    other = generator(seed, split, 3)
    if other.random() < 0.5:
        portrait = Moment(roll=who.lean, smile=0.1 + 0.3 * max(who.temper, 0))
    else:
        portrait = Moment(*map(float, tracks[other.integers(frames)]))
    return Script(who, voice, mix(generator(seed, split, 4), dry), tracks, portrait)


def play(script: Script, size: int = 128) -> Iterator[tuple[np.ndarray, MouthTrace]]:
    """The script's frames one at a time."""
    return render(script.character, script.tracks, size)


def make_clip(seed: int, split: str = "train", seconds: float = 7.0, size: int = 128) -> Clip:
    """The clip of one seed, the same on every call; no two splits share a look, a speaker or a sentence."""
    script = make_script(seed, split, seconds)
    frames = np.empty((len(script.tracks), size, size, 3), np.uint8)
    traces = []
    for k, (frame, trace) in enumerate(play(script, size)):
        frames[k] = frame
        traces.append(trace)
    portrait, _ = Portrait(script.character, size).draw(script.portrait)
    mouth = np.array([(t.opening, t.width) for t in traces], np.float32)
    box = np.array([t.box for t in traces], np.float32)
    return Clip(frames, script.waveform, SAMPLE_RATE, mouth, box, portrait)
