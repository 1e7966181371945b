"""Training of the face editor: one face of a person as the input, another one as the target.

The head is the same in both, so the difference is the expression alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation.stream_pictures import OPEN, eye_changes
from ..refiner.face_editor import (
    EXPRESSION_SIZE,
    SIDE,
    FaceEditorNet,
    changed,
    edited,
    expression_of,
    scaled_mouth,
)
from ..refiner.model import dilated, warp
from ..synthetic.expressions import MARGIN, MOUTH, SMILES
from ..synthetic.motion import COLUMN
from .discriminator import WithDiscriminator, discriminator_loss, generator_losses
from .loop import Draw, LoopSettings, Trainer
from .people import People
from .refiner_augment import Random, recolour, shade
from .refiner_training import edges, like, strength_error

BATCH = 16
DRAWN = 0.35  # share of drawn people
CHANGED = 12.0  # weight of what differs between both faces, against 1 elsewhere
SURE = 8  # a mean difference of 1 / SURE (of -1 ... 1) counts wholly
NEAR = 17  # pixels around a difference that count, too
BLURRED = (1, 8, 16)  # pixels over which faces are averaged before the flow is judged
SEEN = 160  # pixels of the square that the discriminator sees: its middle columns, and
LOW = 0.5  # in this share of a batch its lowest rows, with the mouth; in the others its highest rows, with the eyes
FITS, AROUND = 0.04, 5  # the error, of -1 ... 1, with which a moved face fits to 1 / e; pixels it is averaged over
SOFTEST = 2.2  # a soft portrait has been made smaller by up to this factor
SCALES = {
    "pixel": 0.7, "gradient": 0.35, "strength": 1.0, "warp": 0.5, "change": 0.5, "smooth": 0.02, "kept": 3.0,
    "shows": 0.3, "moved": 0.1, "discriminator": 1.0, "adversarial": 0.3, "features": 1.5,
}  # fmt: skip
OFTEN = {"open": 0.2, "round": 0.2}  # shares of wanted faces with very open jaws and with very round lips
MOST = 3  # such a face is one of so many, the most open or the roundest of its person
BLINKS, CLOSED = 0.25, 0.4  # share of the others whose lids are less open than this
SMILE = 0.4  # share of faces with the expression of a portrait: most of them smile
ZOOM, MOVE, TURN = 0.07, 0.06, 0.08  # of the crop: share, halves of the side, radians


class Faces:
    """Expression sets on disk, one person each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.people = People(paths, DRAWN)

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(face, another face of the person, the other's expression)."""
        from safetensors import safe_open

        random = Random(generator)
        with safe_open(self.people.choose(random), "np") as file:
            moments = file.get_tensor("moments")
            lids = moments[:, COLUMN["lid"]]
            opened = np.flatnonzero(lids > OPEN)
            talking = len(moments) - SMILES
            opened = opened[opened >= talking] if random.chance(SMILE) else opened[opened < talking]
            given = random.choose(opened if len(opened) and random.chance(0.95) else range(talking))
            wanted = random.choose(self._candidates(moments[:talking], random))
            pair = [file.get_slice("pictures")[k] for k in (given, wanted)]
        pair = torch.stack([torch.from_numpy(one).permute(2, 0, 1).float() / 127.5 - 1 for one in pair])
        change = eye_changes(moments[:, [COLUMN["lid"]]], moments, given)[wanted]
        lift = torch.tensor([moments[wanted, COLUMN["lift"]] - moments[given, COLUMN["lift"]]])
        mouth = scaled_mouth(torch.from_numpy(moments[wanted, MOUTH]))
        angle, size = random.uniform(-TURN, TURN), random.uniform(1 - ZOOM, 1 + ZOOM) / MARGIN
        cos, sin = size * np.cos(angle), size * np.sin(angle)
        across, down = random.uniform(-MOVE, MOVE), random.uniform(-MOVE, MOVE)
        if random.chance(0.5):
            pair, change = pair.flip(-1), change * torch.tensor([1.0, -1.0, 1.0])
        matrix = torch.tensor([[cos, -sin, across], [sin, cos, down]]).float().expand(2, -1, -1)
        grid = F.affine_grid(matrix, [2, 3, SIDE, SIDE], align_corners=False)
        pair = F.grid_sample(pair, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(-1, 1)
        face, other = shade(recolour(tuple(pair), random), random)
        if random.chance(0.4):  # a soft portrait
            face, other = softened(torch.stack([face, other]), random.uniform(1, SOFTEST))
        return face, other, expression_of(mouth[None], change[None], lift)[0]

    @staticmethod
    def _candidates(moments: np.ndarray, random: Random) -> Sequence[int]:
        """The moments from which the wanted face is chosen: often those with wide jaws, round lips or closed lids."""
        closed = np.flatnonzero(moments[:, COLUMN["lid"]] < CLOSED)
        chosen = random.uniform(0, 1)
        for name, share in OFTEN.items():
            if chosen < share:
                return np.argsort(moments[:, COLUMN[name]])[-MOST:]
            chosen -= share
        return closed if len(closed) and random.chance(BLINKS) else range(len(moments))

    def batch(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, ...]:
        """Faces [B, 3, 256, 256], the wanted faces, and their expressions [B, 11]."""
        return tuple(torch.stack(part) for part in zip(*map(self.sample, generators), strict=True))


def editor_losses(both: WithDiscriminator, face: Tensor, wanted: Tensor, expression: Tensor) -> dict[str, Tensor]:
    """All parts, and their weighted sum as `loss`."""
    with torch.autocast("cpu", torch.bfloat16):
        edit = both.network(face, expression)
    made = edited(face, edit)
    difference, moved = ((x - wanted).abs().mean(1, keepdim=True) for x in (face, warp(face, edit.flow.detach())))
    near = F.avg_pool2d(difference, 3, 1, 1)
    differs = (SURE * dilated(near, NEAR)).clamp(max=1)
    differs = F.avg_pool2d(differs, NEAR, 1, NEAR // 2, count_include_pad=False)
    weight = 1 + (CHANGED - 1) * differs
    losses = {
        "pixel": ((made - wanted).abs() * weight).mean(),
        "gradient": sum((edges(made, d) - edges(wanted, d)).abs().mul(like(weight, d)).mean() for d in (-1, -2)),
        "strength": sum(strength_error(made, wanted, weight, d) for d in (-1, -2)),
        "warp": sum(moved_error(face, wanted, edit.flow, weight, size) for size in BLURRED) / len(BLURRED),
        "change": ((changed(face, edit) - wanted).abs() * weight).mean(),
        "kept": ((made - face).abs() * (1 - differs)).mean(),
        "shows": (SURE * near).clamp(max=1).square().mul((1 - edit.mask.detach()) * (1 - edit.covered)).mean(),
        "moved": (torch.exp(-F.avg_pool2d(moved, AROUND, 1, AROUND // 2) / FITS) * (1 - edit.mask)).mean(),
        "smooth": sum(edges(edit.flow, d).abs().mean() for d in (-1, -2)),
    }
    with torch.autocast("cpu", torch.bfloat16):
        parts = part_seen(torch.cat([wanted, made, differs, face], 1)).split([3, 3, 1, 3], 1)
        seen = (both.discriminator, *parts, expression)
        losses["discriminator"] = discriminator_loss(*seen)
        losses["adversarial"], losses["features"] = generator_losses(*seen)
    with torch.no_grad():
        inside = differs.sum().clamp(min=1) * 3
        beside = {
            "still": (face - wanted).abs().mul(differs).sum() / inside,
            "made": (made - wanted).abs().mul(differs).sum() / inside, "mask": edit.mask.mean(),
        }  # fmt: skip
    return losses | beside | {"loss": sum(SCALES[name] * value for name, value in losses.items())}


def softened(pictures: Tensor, factor: float) -> Tensor:
    """Pictures [N, 3, S, S] as if they had been smaller by a factor."""
    small = F.interpolate(pictures, scale_factor=1 / factor, mode="bilinear", antialias=True)
    return F.interpolate(small, pictures.shape[-2:], mode="bicubic").clamp(-1, 1)


def part_seen(maps: Tensor) -> Tensor:
    """What the discriminator sees of maps [B, C, S, S]: [B, C, SEEN, SEEN]."""
    side, count = maps.shape[-1], round(LOW * len(maps))
    maps = maps[..., (side - SEEN) // 2 : (side + SEEN) // 2]
    return torch.cat([maps[:count, :, side - SEEN :], maps[count:, :, :SEEN]])


def moved_error(face: Tensor, wanted: Tensor, flow: Tensor, weight: Tensor, size: int) -> Tensor:
    """How far the moved face is from the wanted one, both averaged over squares of a size in pixels."""
    face, wanted, weight = (F.avg_pool2d(x, size) for x in (face, wanted, weight))
    return ((warp(face, flow) - wanted).abs() * weight).mean()


def train_editor(
    faces: Faces, settings: LoopSettings, start: dict[str, Tensor] | None = None, batch: int = BATCH
) -> FaceEditorNet:
    """Train until the settings' limit, from scratch or from weights; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    net = FaceEditorNet()
    if start is not None:
        net.load_state_dict(start)
    both = WithDiscriminator(net, EXPRESSION_SIZE).to(memory_format=torch.channels_last).train()
    trainer = Trainer(both, settings)

    def step_losses(step: int, draw: Draw) -> dict[str, Tensor]:
        return editor_losses(both, *faces.batch(draw(batch)))

    trainer.run(step_losses)
    both.load_state_dict(trainer.averaged())
    return net.eval().requires_grad_(False)
