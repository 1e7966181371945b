"""A sound track: sentences with pauses, in a room, over noise or music."""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from .sentences import LANGUAGES, sentence
from .viseme_tracks import Phone
from .voices import SAMPLE_RATE, Voice, speak


def talk(rng: np.random.Generator, voice: Voice, split: str, seconds: float) -> tuple[np.ndarray, list[Phone]]:
    """Dry speech [samples] at 16 kHz and its phonemes; some clips are silent, wholly or in part."""
    n = round(seconds * SAMPLE_RATE)
    audio, phones = np.zeros(n, np.float32), []
    t = (
        seconds
        if rng.random() < 0.03
        else float(rng.choice((0.1, rng.uniform(0.2, 0.9), rng.uniform(0.9, 2.0)), p=(0.4, 0.45, 0.15)))
    )
    language = voice.language if voice.language in LANGUAGES else voice.language[:2]
    while t < seconds:
        wave, said = speak(sentence(rng, language, split), voice)
        at = round(t * SAMPLE_RATE)
        length = min(len(wave), n - at)
        audio[at : at + length] += wave[:length]
        phones += [Phone(p.ipa, p.start + t, p.end + t) for p in said if p.start + t < seconds]
        spoken = t + len(wave) / SAMPLE_RATE
        t = spoken + float(rng.uniform(0.9, 2.6) if rng.random() < 0.12 else rng.uniform(0.05, 0.7))
        phones.append(Phone("", spoken, t))
    return audio, phones


def _noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Hiss, hum or rumble: white noise through a random band."""
    low, high = rng.uniform(30, 400), rng.uniform(900, 7500)
    return sosfilt(butter(1, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), rng.normal(size=n))


def _music(rng: np.random.Generator, n: int) -> np.ndarray:
    """Plucked chords over a bass, in a random key and tempo."""
    out = np.zeros(n + 4 * SAMPLE_RATE)
    root, beat = 110 * 2 ** (rng.integers(12) / 12), rng.uniform(0.3, 0.7)
    scale = np.array((0, 2, 4, 7, 9, 12, 14, 16) if rng.random() < 0.5 else (0, 2, 3, 7, 8, 12, 14, 15))
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    bright = rng.uniform(1.2, 2.5)
    for k in range(int(n / SAMPLE_RATE / beat) + 1):
        for note in [int(rng.choice(scale))] if k % 4 else [-12, 0, int(scale[2]), int(scale[3])]:
            pitch = root * 2 ** (note / 12)
            tone = sum(np.sin(2 * np.pi * pitch * h * t) / h**bright for h in (1, 2, 3, 4))
            start = int(k * beat * SAMPLE_RATE)
            out[start : start + len(t)] += tone * np.exp(-t * 2.5) * np.minimum(t * 80, 1)
    return out[:n]


def _room(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """A short random reverberation, quieter than the direct sound."""
    length = int(rng.uniform(0.08, 0.35) * SAMPLE_RATE)
    tail = rng.normal(size=length) * np.exp(-np.linspace(0, 6, length)) * rng.uniform(0.01, 0.05)
    tail[0] = 1
    return fftconvolve(audio, tail)[: len(audio)]


def _at_level(audio: np.ndarray, reference: float, decibels: float) -> np.ndarray:
    return audio * (reference * 10 ** (decibels / 20) / (np.sqrt(np.mean(audio**2)) + 1e-9))


def mix(rng: np.random.Generator, speech: np.ndarray) -> np.ndarray:
    """The recorded sound: [samples] float32, peak below 1."""
    n = len(speech)
    audio = speech.astype(np.float64)
    if rng.random() < 0.3:
        audio = _room(rng, audio)
    if rng.random() < 0.25:
        band = (rng.uniform(60, 300), rng.uniform(3000, 7000))
        audio = sosfilt(butter(2, band, "bandpass", fs=SAMPLE_RATE, output="sos"), audio)
    level = max(float(np.sqrt(np.mean(audio**2))), 0.03)
    audio = audio + _at_level(_noise(rng, n), level, rng.uniform(-60, -40))
    if rng.random() < 0.25:
        audio = audio + _at_level(_noise(rng, n), level, rng.uniform(-32, -18))
    if rng.random() < 0.2:
        audio = audio + _at_level(_music(rng, n), level, rng.uniform(-28, -14))
    return (audio / max(float(np.abs(audio).max()), 0.1) * 10 ** (rng.uniform(-14, -1) / 20)).astype(np.float32)
