"""Clips: a person talks for some seconds. One integer seed determines the whole clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import VIDEO_FRAMES_PER_LATENT
from .drawn.characters import Character, generator, sample_character
from .labels import FaceLabels
from .moment import Moment
from .motion import CALM, moments
from .speech import mix, talk
from .viseme_tracks import RATE, loudness, mouth_tracks
from .voices import SAMPLE_RATE, Voice, sample_voice

if TYPE_CHECKING:
    from .rendered.person import Person

FPS = 16
PEOPLE = {"drawn": CALM, "rendered": 0.75}  # and how far their heads move
STREAMS = 16  # of random numbers that one kind of people may use of a seed
PORTRAITS = 4  # reference pictures of a clip


@dataclass(frozen=True)
class Script:
    """A clip before it is drawn: the person, the sound, and the motion of every frame."""

    character: Character | Person
    voice: Voice
    waveform: np.ndarray  # [samples] float32 at 16 kHz
    tracks: np.ndarray  # [T, 20] float32, columns of Moment
    portraits: tuple[Moment, ...]  # the moments of the reference pictures


@dataclass(frozen=True)
class Clip:
    """Frames and sound of equal length, labels of each frame in pixels, and reference pictures of the same person."""

    frames: np.ndarray  # [T, S, S, 3] uint8
    waveform: np.ndarray  # [samples] float32
    sample_rate: int
    tracks: np.ndarray  # [T, 20] float32: what drove the face, columns of Moment
    mouth: np.ndarray  # [T, 2] float32: opening and width
    box: np.ndarray  # [T, 4] float32: left, top, right, bottom of the mouth region
    eyes: np.ndarray  # [T, 2, 4] float32: boxes, the picture's left eye first
    lids: np.ndarray  # [T, 2] float32: 0 closed, 1 as at rest
    face: np.ndarray  # [T, 4] float32: box from chin to hairline
    pose: np.ndarray  # [T, 3] float32: yaw, pitch and roll in radians, signs as in Moment
    portraits: np.ndarray  # [4, S, S, 3] uint8
    fps: int = FPS

    @property
    def portrait(self) -> np.ndarray:
        """[S, S, 3]: at rest, or any moment of the clip."""
        return self.portraits[0]


def frame_count(seconds: float) -> int:
    """The nearest number of video frames that a causal VAE can take: 4 n + 1."""
    return VIDEO_FRAMES_PER_LATENT * round(seconds * FPS / VIDEO_FRAMES_PER_LATENT) + 1


def make_script(seed: int, split: str = "train", seconds: float = 7.0, people: str = "drawn") -> Script:
    """Everything about a clip except its pixels. This is cheap, also for many minutes."""
    frames = frame_count(seconds)
    first = STREAMS * list(PEOPLE).index(people)
    sound, motion, other = (generator(seed, split, first + k) for k in (1, 2, 3))
    who = person(seed, split, people)
    voice = sample_voice(sound, who, split)
    dry, phones = talk(sound, voice, split, frames / FPS)
    instants = np.arange(frames * RATE // FPS) / RATE
    loud = loudness(dry, SAMPLE_RATE, instants)
    mouth = mouth_tracks(phones, loud, articulation=float(np.clip(motion.normal(1.15, 0.1), 0.95, 1.35)))
    tracks = moments(motion, who, phones, loud, mouth, FPS, PEOPLE[people])
    at_rest = _sitting(other, who)
    drawn = [Moment(*map(float, tracks[other.integers(frames)])) for _ in range(PORTRAITS - 1)]
    portraits = (at_rest, *drawn) if other.random() < 0.5 else (*drawn, at_rest)
    return Script(who, voice, mix(generator(seed, split, first + 4), dry), tracks, portraits)


def _sitting(rng: np.random.Generator, who: Character | Person) -> Moment:
    """The moment of a reference picture: at rest or with a smile."""
    smile, teeth = 0.1 + 0.3 * max(who.temper, 0), 0.0
    if rng.random() < 0.3 + 0.3 * who.temper:
        smile, teeth = rng.uniform(0.5, 1.0), rng.choice([0.0, rng.uniform(0.3, 0.8)])
    return Moment(roll=who.lean, smile=float(smile), teeth=float(teeth), open=0.25 * float(teeth))


def person(seed: int, split: str, people: str) -> Character | Person:
    """The person in the clip of a seed."""
    stream = STREAMS * list(PEOPLE).index(people)
    if people == "drawn":
        return sample_character(seed, split)
    from .rendered.bundle import load_bundle
    from .rendered.person import sample_person

    details = (*map(int, generator(seed, split, stream + 5).integers(1 << 31, size=2)),)
    return sample_person(generator(seed, split, stream), split, load_bundle(), details)


def play(script: Script, size: int = 128) -> Iterator[tuple[np.ndarray, FaceLabels]]:
    """The script's frames [S, S, 3] uint8 and their labels, one at a time."""
    draw = figure_of(script.character, size).draw
    return (draw(Moment(*map(float, row))) for row in script.tracks)


def figure_of(character: Character | Person, size: int):
    """The figure that draws a person; `draw` takes any moments in any order."""
    if isinstance(character, Character):  # each kind needs its own packages
        from .drawn.figure import Portrait

        return Portrait(character, size)
    from .rendered.figure import RenderedFigure

    return RenderedFigure(character, size)


def make_clip(
    seed: int, split: str = "train", seconds: float = 7.0, size: int = 128, people: str = "drawn"
) -> Clip:  # fmt: skip
    """The clip of one seed, the same on every call; no two splits share a look, a speaker or a sentence.

    Rendered pixels are the same on one machine only: rasterisers differ.
    """
    return film(make_script(seed, split, seconds, people), size)


def film(script: Script, size: int) -> Clip:
    """A script's pictures and labels."""
    figure = figure_of(script.character, size)
    frames = np.empty((len(script.tracks), size, size, 3), np.uint8)
    labels = []
    for k, row in enumerate(script.tracks):
        frames[k], found = figure.draw(Moment(*map(float, row)))
        labels.append(found)
    columns = dict(zip(FaceLabels._fields, (np.array(c, np.float32) for c in zip(*labels, strict=True)), strict=True))
    return Clip(
        frames, script.waveform, SAMPLE_RATE, script.tracks,
        mouth=np.stack([columns.pop("opening"), columns.pop("width")], 1), **columns,
        portraits=np.stack([figure.draw(moment)[0] for moment in script.portraits]),
    )  # fmt: skip
