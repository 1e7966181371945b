"""Files of people, of whom a share is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .refiner_augment import Random


class People:
    """Chooses one of some files; a drawn person's in a share of all cases, where there are both kinds."""

    def __init__(self, paths: Sequence[Path], drawn: float) -> None:
        self.drawn = [path for path in paths if path.stem.endswith("-drawn")]
        self.others = [path for path in paths if not path.stem.endswith("-drawn")]
        self.share = drawn if self.others else 1.0

    def choose(self, random: Random) -> Path:
        kind = self.drawn if self.drawn and random.chance(self.share) else self.others
        return kind[random.below(len(kind))]
