"""From timed phonemes to mouth shapes: one target per sound, blended by coarticulation.

The blending follows Cohen and Massaro, "Modeling coarticulation in synthetic visual speech" (1993): every sound pulls
towards its own shape with a dominance that fades before and after it; lip closures are then enforced in time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from .moment import MouthShape


class Phone(NamedTuple):
    """One sound in IPA ("" is a pause), from `start` to `end` in seconds."""

    ipa: str
    start: float
    end: float


class Sound(NamedTuple):
    """A target mouth shape, and the dominance of the sound over the jaw (`hold`) and the lips (`lips`)."""

    shape: MouthShape
    hold: float = 1.0
    lips: float = 1.0


def _vowels() -> dict[str, Sound]:
    rows = {  # jaw, spread, round: height and rounding of the IPA chart
        "iɪᵻ": (0.28, 0.85, 0.0),
        "yʏ": (0.2, 0.0, 0.8),
        "ɨʉ": (0.26, 0.2, 0.25),
        "uʊɯ": (0.22, -0.2, 1.0),
        "e": (0.46, 0.7, 0.0),
        "øœɵ": (0.42, 0.0, 0.7),
        "əɘɚɝɜᵊ": (0.42, 0.1, 0.08),
        "oɤ": (0.44, -0.2, 0.85),
        "ɛ": (0.62, 0.5, 0.0),
        "ʌɐ": (0.68, 0.1, 0.0),
        "ɔ": (0.64, -0.2, 0.6),
        "æ": (0.8, 0.55, 0.0),
        "a": (0.92, 0.2, 0.0),
        "ɑ": (1.0, 0.0, 0.05),
        "ɒ": (0.86, -0.1, 0.4),
    }
    return {c: Sound(MouthShape(o, s, r), 1.0, 1.0 + r) for group, (o, s, r) in rows.items() for c in group}


def _consonants() -> dict[str, Sound]:
    shape = MouthShape
    rows = {
        "pbmɓ": Sound(shape(0.0, press=1.0), 3.0, 0.6),
        "fvɸβʋ": Sound(shape(0.17, spread=0.25, tuck=1.0), 2.4, 1.2),
        "w": Sound(shape(0.12, -0.2, round=1.0), 1.6, 2.2),
        "ʍ": Sound(shape(0.14, -0.2, round=1.0), 1.6, 2.2),
        "szc": Sound(shape(0.2, 0.55, teeth=1.0), 1.3, 0.8),
        "ʃʒɕʑʂʐ": Sound(shape(0.24, -0.1, round=0.6, teeth=1.0), 1.3, 1.4),
        "td": Sound(shape(0.22, 0.3, teeth=0.6, tongue=0.5), 0.9, 0.4),
        "nɲɳ": Sound(shape(0.24, 0.3, teeth=0.3, tongue=0.8), 0.8, 0.4),
        "lɭʎɫ": Sound(shape(0.36, 0.2, tongue=1.0), 0.8, 0.4),
        "θð": Sound(shape(0.28, 0.3, teeth=0.2, tongue=1.0), 1.2, 0.6),
        "ɹɻr": Sound(shape(0.3, 0.0, round=0.4, tongue=0.5), 0.8, 1.0),
        "ɾʁʀ": Sound(shape(0.32, 0.1, tongue=0.4), 0.6, 0.3),
        "ʈɖ": Sound(shape(0.26, 0.2, teeth=0.4, tongue=0.5), 0.8, 0.4),
        "kɡgŋxɣqçχ": Sound(shape(0.34, 0.15), 0.5, 0.2),
        "hɦʔħ": Sound(shape(0.42), 0.2, 0.1),
        "j": Sound(shape(0.26, 0.7, teeth=0.2), 0.9, 0.8),
    }
    return {c: sound for group, sound in rows.items() for c in group}


SOUNDS: dict[str, Sound] = _vowels() | _consonants()
VOWELS = frozenset(_vowels())
REST = Sound(MouthShape(), 0.7, 0.4)
BILABIAL, LABIODENTAL = frozenset("pbmɓ"), frozenset("fvɸβʋ")

RATE = 160  # instants a second at which the curves are computed: ten a video frame at 16 fps
# Seconds over which a sound's pull falls to 1/e: lips prepare earlier than they let go, and earlier than the jaw.
JAW_BEFORE, JAW_AFTER, LIPS_BEFORE, LIPS_AFTER = 0.035, 0.05, 0.09, 0.06
QUIETEST_SPEECH = -35.0  # dB: below it a clip is taken for silence
CLOSED, EDGE = 0.085, 0.045  # seconds: shortest visible closure (longer than a frame), and its ramps


def _parts(phones: list[Phone]) -> list[Phone]:
    """One entry per drawn sound: diphthongs and affricates are split, marks and lengths dropped."""
    parts = []
    for phone in phones:
        letters = [c for c in phone.ipa if c in SOUNDS] or [""]
        step = (phone.end - phone.start) / len(letters)
        parts += [Phone(c, phone.start + k * step, phone.start + (k + 1) * step) for k, c in enumerate(letters)]
    return parts


def _distance(t: np.ndarray, phone: Phone, before: float, after: float) -> np.ndarray:
    """How far outside the sound each instant is, in fall-off times; the middle half of the sound is inside."""
    quarter = (phone.end - phone.start) / 4
    return np.maximum(phone.start + quarter - t, 0) / before + np.maximum(t - phone.end + quarter, 0) / after


def _closure(t: np.ndarray, parts: list[Phone], kinds: frozenset[str]) -> np.ndarray:
    """1 while the lips must touch, with short ramps, never shorter than a video frame."""
    closed = np.zeros_like(t)
    for phone in parts:
        if phone.ipa in kinds:
            middle, half = (phone.start + phone.end) / 2, max(phone.end - phone.start - 0.03, CLOSED) / 2
            closed = np.maximum(closed, np.clip(1 - (np.abs(t - middle) - half) / EDGE, 0, 1))
    return closed * closed * (3 - 2 * closed)


def loudness(waveform: np.ndarray, sample_rate: int, instants: np.ndarray) -> np.ndarray:
    """Loudness at the instants (seconds), 0 (45 dB below the loud parts) .. 1."""
    power = uniform_filter1d(np.square(waveform, dtype=np.float64), max(sample_rate // 25, 1))
    level = 10 * np.log10(power[np.clip((instants * sample_rate).astype(int), 0, len(power) - 1)] + 1e-9)
    loud_part = max(float(np.percentile(level, 95)), QUIETEST_SPEECH)
    return np.clip((level - loud_part + 45) / 45, 0, 1)


def mouth_tracks(phones: list[Phone], loud: np.ndarray, articulation: float = 1.0) -> np.ndarray:
    """Mouth parameters [N, 7] (columns of MouthShape) at `RATE` a second; `loud` is [N], 0..1.

    `articulation` scales the movements: below 1 for unclear speech, above 1 for clear speech.
    """
    n = len(loud)
    t = np.arange(n) / RATE
    parts = _parts(phones)
    jaw_weight, lip_weight = np.full(n, 1e-3), np.full(n, 1e-3)
    shapes = np.zeros((n, len(MouthShape._fields)))
    jaw = np.zeros(n)
    for phone in parts:
        near = slice(max(0, int((phone.start - 0.5) * RATE)), min(n, int((phone.end + 0.5) * RATE) + 1))
        sound = SOUNDS.get(phone.ipa, REST)
        pull = sound.hold * np.exp(-_distance(t[near], phone, JAW_BEFORE, JAW_AFTER))
        jaw_weight[near] += pull
        jaw[near] += pull * sound.shape.open
        pull = sound.lips * np.exp(-_distance(t[near], phone, LIPS_BEFORE, LIPS_AFTER))
        lip_weight[near] += pull
        shapes[near] += pull[:, None] * np.array(sound.shape)
    shapes /= lip_weight[:, None]
    jaw = jaw / jaw_weight * (0.6 + 0.6 * loud) * articulation
    closed, tucked = _closure(t, parts, BILABIAL), _closure(t, parts, LABIODENTAL)
    shapes[:, 0] = np.clip((jaw * (1 - tucked) + 0.15 * tucked) * (1 - closed), 0, 1.1)
    shapes[:, 5], shapes[:, 6] = tucked * (1 - closed), closed
    return shapes
