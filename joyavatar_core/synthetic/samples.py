"""The sample portraits and voices that come with the project: three held-out people with three expressions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .drawn.characters import sample_character
from .drawn.figure import Portrait
from .moment import Moment
from .voices import SAMPLE_RATE, Voice, speak

SIZE = 512  # pixels
PAUSE = 0.35  # seconds between sentences


@dataclass(frozen=True)
class Sample:
    """A held-out character's seed, how it looks into the camera, and what it says in which voice."""

    seed: int
    mood: Moment
    voice: Voice
    text: tuple[str, ...]


SAMPLES = {
    "ada": Sample(
        12, Moment(smile=0.15), Voice("flite", "slt", "en-us", 158, 50, 50),
        ("Good morning.", "I am a drawing, and I had never spoken before.", "Give me a voice and I talk on."),
    ),
    "ben": Sample(
        1, Moment(smile=0.6), Voice("flite", "awb", "en-us", 165, 50, 50),
        ("What a day!", "The market was full of people, and everyone wanted an umbrella.", "I sold all nine."),
    ),
    "mia": Sample(
        3, Moment(smile=-0.3), Voice("espeak-ng", "f3", "en", 150, 55, 45),
        ("I waited at the station for an hour.", "The train did not come, and it was getting dark."),
    ),
}  # fmt: skip


def write_samples(folder: Path) -> None:
    """(Re)make portraits/*.png and voices/*.flac below `folder`; needs the speech synthesisers that training needs."""
    import soundfile

    for name in ("portraits", "voices"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, sample in SAMPLES.items():
        picture, _ = Portrait(sample_character(sample.seed, "held-out"), SIZE).draw(sample.mood)
        Image.fromarray(picture).save(folder / "portraits" / f"{name}.png", optimize=True)
        pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
        spoken = [part for sentence in sample.text for part in (speak(sentence, sample.voice)[0], pause)]
        soundfile.write(folder / "voices" / f"{name}.flac", 0.8 * np.concatenate([pause, *spoken]), SAMPLE_RATE)


if __name__ == "__main__":
    write_samples(Path(__file__).parents[1] / "assets")
