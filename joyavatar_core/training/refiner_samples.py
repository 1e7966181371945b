"""Samples of the refiner's training: a frame of the avatar, a portrait, the visemes, and the clip's frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..refiner.model import SCALE, viseme_condition
from ..synthetic.dataset import load_pictures
from .loop import Draw
from .losses import box_weight
from .refiner_alignment import moved
from .refiner_augment import Random, other_mouth, recolour, shift, smear, zoom

APART = 1.5  # errors of the round trip: a rollout's frame farther from the truth than this is not used
OPEN = 0.6  # lids that are less open than this, of 1 at rest, are closing
MOST_MOUTHS = 3  # of other frames that one mouth is mixed from


@dataclass(frozen=True)
class RefinerRecipe:
    """batch: samples of a step with whole pictures; close_batch: of one with close-ups of lower faces.

    followed: share of them that are self-rollouts, the others are round trips.
    drawn: share of drawn people, where there are clips of both kinds. without_visemes: share of samples.
    blinks: share of frames with closing lids, where a clip has any.
    """

    batch: int = 8
    close_batch: int = 24
    followed: float = 0.4
    drawn: float = 0.15
    without_visemes: float = 0.12
    blinks: float = 0.12


class Sample(NamedTuple):
    """Pictures in [-1, 1]: frames and round trips [B, 3, S, S], truth and portraits [B, 3, 2S, 2S].

    spoiled: the frames that the refiner gets, `frame` with more mistakes. mouth, eyes, lower [B, 1, 2S, 2S]: 1 inside
    their boxes, else 0; lower: from the nose to below the chin. condition [B, 9]: of `viseme_condition`, zeros where
    visemes are left out. sure [B]: 1 for round trips, 0 for rollouts, whose mouths are not quite the truth's.
    """

    frame: Tensor
    spoiled: Tensor
    round_trip: Tensor
    portrait: Tensor
    truth: Tensor
    mouth: Tensor
    eyes: Tensor
    lower: Tensor
    condition: Tensor
    sure: Tensor


class Shot(NamedTuple):
    """A frame [S, S, 3] uint8 that the avatar made, the clip's frame that it `shows`, and the flow to its pose.

    other [S, S, 3]: the mean of some other frames, moved so that their mouths are in the frame's mouth's place. flow
    [2, 8, 8]: None for a round trip.
    """

    frame: np.ndarray
    shows: int
    other: np.ndarray
    flow: Tensor | None


def near(pictures: Sequence[Tensor], centre: tuple[float, float], random: Random) -> list[Tensor]:
    """Half a side each way of pictures [C, H, W] of any sizes, the same part of all, about `centre` in -1 ... 1."""
    smallest = min(picture.shape[-1] for picture in pictures)
    x, y = (round(smallest * (min(0.25, max(-0.25, c / 2 + random.uniform(-0.06, 0.06))) + 0.25)) for c in centre)
    shown = []
    for picture in pictures:
        times, half = picture.shape[-1] // smallest, picture.shape[-1] // 2
        shown.append(picture[:, y * times : y * times + half, x * times : x * times + half])
    return shown


class Pairs:
    """Clips and their pairs on disk; a sample is read when it is drawn.

    clips, pairs: files of the same names, of `write_dataset` and `make_pairs`.
    """

    def __init__(self, clips: Sequence[Path], pairs: Sequence[Path], recipe: RefinerRecipe) -> None:
        from safetensors import safe_open

        self.recipe = recipe
        self.clips = [
            (path, safe_open(path, "np"), safe_open(pair, "np")) for path, pair in zip(clips, pairs, strict=True)
        ]
        drawn = [k for k, path in enumerate(clips) if path.stem.endswith("-drawn")]
        others = [k for k in range(len(clips)) if k not in {*drawn}]
        self.kinds = [drawn, others]

    def sample(self, generator: torch.Generator, close: bool = False) -> tuple[Tensor, ...]:
        """One sample, without the batch's axis; close: the lower face at its own size, half a side each way."""
        random = Random(generator)
        drawn, others = self.kinds
        kind = drawn if not others or (drawn and random.chance(self.recipe.drawn)) else others
        path, clip, pair = self.clips[random.choose(kind)]
        shot = self._shot(clip, pair, random)
        frame, t = shot.frame, shot.shows
        round_trip, portrait = self._portrait(path, pair, random)
        frame, other, round_trip, portrait, truth = (
            as_picture(picture)
            for picture in (frame, shot.other, round_trip, portrait, load_pictures(path, "frames", t, t + 1)[0])
        )
        side = truth.shape[-1]
        regions = self._regions(clip, t, side)
        if shot.flow is not None:
            truth, *regions = (moved(x[None], shot.flow[None])[0] for x in (truth, *regions))
        box = clip.get_slice("box")[t] / side * 2 - 1
        middle = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2 - 0.2)
        shown = (frame, other, round_trip, portrait, truth, *regions)
        if close:
            shown, middle = near(shown, (middle[0], middle[1] + 0.15), random), (0.0, 0.0)
        shown = zoom(shown, middle, random)
        if random.chance(0.5):
            shown = [x.flip(-1) for x in shown]
        frame, other, round_trip, portrait, truth = recolour(shown[:5], random)
        mouth, eyes, lower = shown[5:]
        round_trip, portrait = shift((round_trip, portrait), random)
        small_mouth, small_eyes = (F.avg_pool2d(x, SCALE) for x in (mouth, eyes))
        spared, spoiled, condition = small_mouth, frame, viseme_condition(None, 1)[0]
        if not random.chance(self.recipe.without_visemes):
            condition = viseme_condition(torch.from_numpy(pair.get_slice("visemes")[t : t + 1]), 1)[0]
            spoiled = other_mouth(frame, other, small_mouth, random)
            spared = torch.zeros_like(small_mouth)
        wiped = small_eyes * float(clip.get_slice("lids")[t].min() > OPEN)
        spoiled = smear(spoiled, spared, wiped, random, mild=shot.flow is not None)
        sure = torch.tensor(float(shot.flow is None))
        return frame, spoiled, round_trip, portrait, truth, mouth, eyes, lower, condition, sure

    def _shot(self, clip: object, pair: object, random: Random) -> Shot:
        """A frame that the avatar made, of a round trip or a rollout."""
        name, shows, near = "round_trip", None, ()
        if random.chance(self.recipe.followed):
            near = np.flatnonzero(pair.get_tensor("apart") < APART)
        if len(near):
            name, shows = "followed", pair.get_tensor("shows")
        else:
            near = np.arange(pair.get_slice("round_trip").get_shape()[0])
            shows = near
        lids = clip.get_tensor("lids").min(1)
        closing = near[lids[shows[near]] < OPEN]
        which = random.choose(closing if len(closing) and random.chance(self.recipe.blinks) else near)
        if random.chance(0.5):  # closed mouths are frequent
            gap, again = clip.get_tensor("mouth")[:, 0], random.choose(near)
            which = max(which, again, key=lambda one: gap[shows[one]])
        boxes, frames = clip.get_tensor("box"), pair.get_slice(name)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        others = []
        for _ in range(1 + random.below(MOST_MOUTHS)):
            one = random.choose(near)
            across, down = ((middle[shows[which]] - middle[shows[one]]) / SCALE).round().astype(int)
            others.append(np.roll(frames[one], (down, across), (0, 1)))
        other = np.mean(others, axis=0).round().astype(np.uint8)
        flow = torch.from_numpy(pair.get_slice("flow")[which]) if name == "followed" else None
        return Shot(frames[which], int(shows[which]), other, flow)

    @staticmethod
    def _regions(clip: object, t: int, side: int) -> list[Tensor]:
        """Mouth, eyes and lower face of a frame, [1, side, side] each: 1 inside."""
        box, face, eyes = (torch.from_numpy(clip.get_slice(name)[t]) for name in ("box", "face", "eyes"))
        height = box[3] - box[1]
        lower = torch.stack([face[0], box[1] - 0.3 * height, face[2], face[3] + 0.4 * height])
        mouth, lower = (box_weight(one, side, side, 2.0)[None] - 1 for one in (box, lower))
        return [mouth, box_weight(eyes, side, side, 2.0).amax(0, keepdim=True) - 1, lower]

    def _portrait(self, path: Path, pair: object, random: Random) -> tuple[np.ndarray, np.ndarray]:
        """Of any moment: (through the autoencoder [S, S, 3], itself [2S, 2S, 3])."""
        chosen = pair.get_tensor("chosen")
        still = random.below(pair.get_slice("portraits").get_shape()[0])
        given = pair.get_slice("portraits").get_shape()[0] - len(chosen)
        if still < given:
            return pair.get_slice("portraits")[still], load_pictures(path, "portraits", still, still + 1)[0]
        t = int(chosen[still - given])
        return pair.get_slice("portraits")[still], load_pictures(path, "frames", t, t + 1)[0]

    def batch(self, draw: Draw, close: bool = False) -> Sample:
        """A step's samples."""
        generators = draw(self.recipe.close_batch if close else self.recipe.batch)
        samples = [self.sample(generator, close) for generator in generators]
        return Sample(*(torch.stack(part) for part in zip(*samples, strict=True)))


def as_picture(pixels: object) -> Tensor:
    """uint8 [H, W, 3] -> [3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)
