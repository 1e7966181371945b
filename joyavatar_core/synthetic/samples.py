"""The sample portraits and voices that come with the project: three drawn and three rendered held-out people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .clips import figure_of, person
from .moment import Moment
from .voices import SAMPLE_RATE, Voice, speak

SIZE = 512  # pixels
PAUSE = 0.35  # seconds between sentences


@dataclass(frozen=True)
class Sample:
    """A held-out person's seed, how it looks into the camera, what it says in which voice, and its kind."""

    seed: int
    mood: Moment
    voice: Voice
    text: tuple[str, ...]
    people: str = "drawn"


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
    "leo": Sample(
        217, Moment(smile=0.2), Voice("flite", "awb", "en-us", 160, 50, 50),
        ("Welcome back.", "Nobody has ever taken a photograph of me.", "I was made by a program, from public models."),
        "rendered",
    ),
    "ines": Sample(
        228, Moment(smile=0.35), Voice("flite", "slt", "en-us", 160, 50, 50),
        ("Please take a seat.", "The doctor will be with you in five minutes.", "Would you like some water?"),
        "rendered",
    ),
    "yuki": Sample(
        324, Moment(smile=0.3), Voice("espeak-ng", "f4", "en", 155, 58, 50),
        ("The exhibition is open until nine.", "Most of the paintings are on the second floor."), "rendered",
    ),
}  # fmt: skip


def write_samples(folder: Path) -> None:
    """(Re)make portraits/*.png and voices/*.flac below `folder`; needs what training needs."""
    import soundfile

    for name in ("portraits", "voices"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, sample in SAMPLES.items():
        picture, _ = figure_of(person(sample.seed, "held-out", sample.people), SIZE).draw(sample.mood)
        Image.fromarray(picture).save(folder / "portraits" / f"{name}.png", optimize=True)
        pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
        spoken = [part for sentence in sample.text for part in (speak(sentence, sample.voice)[0], pause)]
        soundfile.write(folder / "voices" / f"{name}.flac", 0.8 * np.concatenate([pause, *spoken]), SAMPLE_RATE)


if __name__ == "__main__":
    write_samples(Path(__file__).parents[1] / "assets")
