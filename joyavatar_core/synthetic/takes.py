"""Takes: clips without their pixels and sound, a few kB each, to be drawn where there are many processors.

A take is made where the speech programs are; drawing it needs none of them. Who is seen follows from its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import AvatarError
from .clips import PORTRAITS, SAMPLE_RATE, Clip, Script, film, make_script, person
from .moment import Moment

SPLIT = "train"


@dataclass(frozen=True)
class Take:
    """What moves in a clip, and the audio features of its voice."""

    people: str
    seed: int
    tracks: np.ndarray  # [T, 20] float32, columns of Moment
    portraits: np.ndarray  # [4, 20] float32: the moments of the reference pictures
    features: np.ndarray  # [L, 4, C] float32: features of every latent frame

    @classmethod
    def of(cls, seed: int, people: str, seconds: float, encode) -> Take:
        """The take of a seed; `encode` makes features [L, 4, C] from a waveform at 16 kHz and a number of frames."""
        script = make_script(seed, SPLIT, seconds, people)
        portraits = np.array(script.portraits, np.float32)
        return cls(people, seed, script.tracks, portraits, encode(script.waveform, len(script.tracks)))

    def draw(self, size: int) -> Clip:
        """The clip, silent."""
        silence = np.zeros(len(self.tracks) * SAMPLE_RATE // 16, np.float32)
        portraits = tuple(Moment(*map(float, row)) for row in self.portraits)
        return film(Script(person(self.seed, SPLIT, self.people), None, silence, self.tracks, portraits), size)


def save_takes(path: Path, takes: Sequence[Take]) -> None:
    """Write takes of equal length into one file, numbers in half precision."""
    from safetensors.numpy import save_file

    arrays = {name: np.stack([getattr(take, name) for take in takes]) for name in ("tracks", "portraits", "features")}
    arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    arrays["seed"] = np.array([take.seed for take in takes], np.int64)
    save_file(arrays, path, metadata={"people": " ".join(take.people for take in takes)})


def load_takes(path: Path) -> list[Take]:
    """The takes of a file. Raises AvatarError for a file that holds none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            people = file.metadata()["people"].split(" ")
            arrays = {name: file.get_tensor(name) for name in ("seed", "tracks", "portraits", "features")}
    except (OSError, SafetensorError, KeyError, TypeError) as problem:
        raise AvatarError(f"'{path}' holds no takes ({problem}); make it with the command 'pack'.") from None
    tracks, portraits, features = (arrays[name].astype(np.float32) for name in ("tracks", "portraits", "features"))
    if portraits.shape[1:] != (PORTRAITS, len(Moment._fields)) or tracks.shape[2:] != (len(Moment._fields),):
        raise AvatarError(f"'{path}' holds takes of another version; make it anew with the command 'pack'.")
    return [Take(*one) for one in zip(people, map(int, arrays["seed"]), tracks, portraits, features, strict=True)]
