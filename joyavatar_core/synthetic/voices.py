"""Speech synthesis by espeak-ng and flite, with the time of every phoneme.

espeak-ng reports phonemes through its library's event callback, flite prints its segments' end times; both come from
the system's packages (`apt install espeak-ng flite`) and are needed for making data only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import AvatarError
from .sentences import LANGUAGES
from .speaker import Speaker
from .viseme_tracks import Phone

SAMPLE_RATE = 16000

# Voices that are not in the training data come after the bar.
WOMEN = ("f1 f2 f3 f5 Alicia Andrea aunty belinda steph steph3 anika", "f4 Annie linda steph2")
MEN = (
    "m1 m2 m3 m4 m6 m7 m8 adam Alex antonio benjamin boris caleb david Denis Diogo edward Gene Henrique iven Jacky "
    "John Lee marcelo Marco max Michael miguel Mike norbert pablo pedro quincy rob robert sandro shelby travis zac "
    "klatt klatt4",
    "m5 Andy Hugo paul victor klatt2",
)
FLITE = {True: ("slt", "slt"), False: ("rms kal16", "awb")}  # feminine or not; in training, held out


class Voice(NamedTuple):
    """A way of speaking: engine, its speaker, language, and espeak-ng's words a minute and pitch (0..99)."""

    engine: str
    speaker: str
    language: str
    rate: int
    pitch: int
    range: int


def sample_voice(rng: np.random.Generator, who: Speaker, split: str) -> Voice:
    """A voice that suits the character; held-out voices have speakers that are not in the training data."""
    held_out = split == "held-out"
    child = who.age == "child"
    speakers = (WOMEN if who.feminine or child else MEN)[held_out].split()
    rate = int(np.clip(rng.normal(150 if who.age == "elder" else 168, 20), 115, 225))
    pitch = int(np.clip(rng.normal(80 if child else 48, 9), 18, 99))
    language = "en" if rng.random() < 0.4 else str(rng.choice(LANGUAGES))
    flite = [s for s in FLITE[who.feminine][held_out].split() if not (held_out and s == "slt")]
    if language == "en" and not child and flite and rng.random() < 0.45:
        return Voice("flite", str(rng.choice(flite)), "en", rate, pitch, 50)
    if language == "en":
        language = str(rng.choice(("en-us", "en")))
    return Voice("espeak-ng", str(rng.choice(speakers)), language, rate, pitch, int(rng.integers(30, 85)))


_Spoken = tuple[np.ndarray, list[Phone], int]  # samples, phonemes, samples a second


def _espeak(text: str, voice: Voice) -> _Spoken:
    name = f"{voice.language}+{voice.speaker}"
    order = {"text": text, "voice": name, "rate": voice.rate, "pitch": voice.pitch, "pitch_range": voice.range}
    command = [sys.executable, "-IS", str(Path(__file__).with_name("espeak.py"))]
    answer = subprocess.run(command, input=json.dumps(order).encode(), capture_output=True, check=True).stdout
    head, _, body = answer.partition(b"\n")
    head = json.loads(head)
    if "error" in head:
        raise AvatarError(head["error"])
    audio = np.frombuffer(body, np.int16).astype(np.float32) / 32768
    starts = [(s, p) for s, p in head["phones"] if not p.startswith("(")]  # "(en)" only marks a change of language
    ends = [s for s, _ in starts[1:]] + [len(audio)]
    rate = head["rate"]
    return audio, [Phone(p, s / rate, e / rate) for (s, p), e in zip(starts, ends, strict=True)], rate


_ARPABET_IN_IPA = (
    "aa:ɑ ae:æ ah:ʌ ao:ɔ aw:aʊ ax:ə ay:aɪ eh:ɛ er:ɚ ey:eɪ ih:ɪ iy:i ow:oʊ oy:ɔɪ uh:ʊ uw:u b:b ch:tʃ d:d dh:ð f:f "
    "g:ɡ hh:h jh:dʒ k:k l:l m:m n:n ng:ŋ p:p r:ɹ s:s sh:ʃ t:t th:θ v:v w:w y:j z:z zh:ʒ"
)
_ARPABET: dict[str, str] = dict(pair.split(":") for pair in _ARPABET_IN_IPA.split())


def _flite(text: str, voice: Voice) -> _Spoken:
    import soundfile

    if shutil.which("flite") is None:
        raise AvatarError("flite was not found; making data needs it: apt install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice.speaker, "--setf", f"duration_stretch={165 / voice.rate:.3f}", "-psdur"]
        printed = subprocess.run([*command, "-t", text, "-o", path], capture_output=True, text=True, check=True).stdout
        audio, rate = soundfile.read(path, dtype="float32")
    phones, start = [], 0.0
    for item in printed.split():
        name, _, end = item.partition(":")
        phones.append(Phone(_ARPABET.get(name, ""), start, float(end)))
        start = float(end)
    return audio, phones, rate


def speak(text: str, voice: Voice) -> tuple[np.ndarray, list[Phone]]:
    """One sentence: waveform [samples] at 16 kHz, peak 1, and its phonemes in time.

    The same words in the same voice always give the same samples. Raises AvatarError where a package is missing.
    """
    from scipy.signal import resample_poly

    audio, phones, rate = _flite(text, voice) if voice.engine == "flite" else _espeak(text, voice)
    audio = resample_poly(audio, SAMPLE_RATE, rate) if rate != SAMPLE_RATE else audio
    return (audio / max(float(np.abs(audio).max()), 1e-4)).astype(np.float32), phones
