"""Trains the face locator on people cut out and put on canvases."""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..framing.face_locator import STRIDE, USUAL_SIZE, FaceLocator
from ..paths import replacing
from .face_canvases import MOST, SIDE, Canvases, Cutouts, compose
from .loop import Draw, LoopSettings, Trainer

FOCUS = 2.0  # of the focal loss
MANY = 20  # people a file of cut-outs
FACES = 5  # cut-outs of each person
FIRST = 500_000  # seed of the first person
SCENES = 300  # backgrounds of each kind
NATURAL = (
    "brick.png", "grass.png", "gravel.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png",
    "hubble_deep_field.jpg", "coins.png", "page.png", "clock_motion.png", "ihc.png", "text.png", "retina.jpg",
)  # fmt: skip


@dataclass(frozen=True)
class LocatorRecipe:
    """batch: canvases; drawn: share of them whose people are drawn, the others' are rendered."""

    batch: int = 32
    drawn: float = 0.3


def write_cutouts(folder: Path, people: str, count: int, split: str = "train", workers: int = 2) -> Cutouts:
    """Cut-outs of `count` drawn or rendered people, made where they are not there yet."""
    from safetensors.torch import load_file
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    groups = [range(start, min(start + MANY, count)) for start in range(0, count, MANY)]
    files = {folder / f"{people}-{split}-{group[0]:06d}-{len(group)}.safetensors": group for group in groups}
    missing = {path: group for path, group in files.items() if not path.exists()}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_write_cutouts, path, group, people, split) for path, group in missing.items()]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=f"{people} people", unit=f"{MANY} people"):
            job.result()
    kept = [load_file(path) for path in files]
    return Cutouts(*(torch.cat([one[name] for one in kept]) for name in ("pictures", "points")))


def _write_cutouts(path: Path, seeds: Sequence[int], people: str, split: str) -> None:
    from safetensors.numpy import save_file

    from ..synthetic.cutouts import cutouts

    made = [one for seed in seeds for one in cutouts(FIRST + seed, split, people, FACES)]
    pictures = np.stack([np.ascontiguousarray(one.picture.transpose(2, 0, 1)) for one in made])
    with replacing(path, shared=True) as unfinished:
        save_file({"pictures": pictures, "points": np.stack([one.points for one in made])}, unfinished)


def backgrounds() -> Tensor:
    """Backgrounds of the canvases, [M, 3, 160, 160] uint8: the scenery of rendered and of drawn people, and cuttings of
    the pictures without faces that come with scikit-image."""
    import skia

    from ..synthetic.drawn.backdrop import draw_backdrop
    from ..synthetic.drawn.characters import sample_character
    from ..synthetic.rendered.scenery import SIDE as PIXELS
    from ..synthetic.rendered.scenery import sample_scenery

    rng, scenes = np.random.default_rng(0), []
    for k in range(SCENES):
        if k % 3 == 0:
            pixels = np.zeros((PIXELS, PIXELS, 4), np.uint8)
            canvas = skia.Surface(pixels).getCanvas()
            canvas.scale(PIXELS / 128, PIXELS / 128)
            draw_backdrop(canvas, sample_character(FIRST + k))
            scenes.append(pixels[..., :3].copy())
        else:
            scenes.append(sample_scenery(rng))
    scenes += natural_cuttings(rng, PIXELS, SCENES)
    return torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).contiguous()


def natural_cuttings(rng: np.random.Generator, side: int, count: int) -> list[np.ndarray]:
    """Pieces [side, side, 3] uint8 of any size of natural pictures; they teach what is no face."""
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    pictures = [Image.open(folder / name).convert("RGB") for name in NATURAL]
    cut = []
    for k in range(count):
        picture = pictures[k % len(pictures)]
        size = int(min(picture.size) * rng.uniform(0.25, 1.0))
        left, top = (int(rng.integers(whole - size + 1)) for whole in picture.size)
        piece = picture.resize((side, side), Image.Resampling.BOX, box=(left, top, left + size, top + size))
        cut.append(np.array(piece.rotate(90 * int(rng.integers(4)))))
    return cut


def train_locator(
    drawn: Cutouts, rendered: Cutouts, settings: LoopSettings, recipe: LocatorRecipe = LocatorRecipe()
) -> FaceLocator:
    """Train until the settings' limit; the averaged network, its normalisation folded into the convolutions."""
    torch.manual_seed(settings.seed)
    model, scenes = FaceLocator(batch_norm), backgrounds()
    nn.init.constant_(model.head.bias[:1], -4.0)  # faces are rare
    trainer = Trainer(model, settings)

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        (generator, *_) = draw(recipe.batch)
        count = round(recipe.drawn * recipe.batch)
        parts = [compose(drawn, scenes, count, generator), compose(rendered, scenes, recipe.batch - count, generator)]
        canvases = Canvases(*(torch.cat(both) for both in zip(*(vars(part).values() for part in parts), strict=True)))
        losses = locator_loss(model(canvases.pictures), canvases)
        return {"loss": losses["score"] + losses["place"], **losses}

    trainer.run(step_loss)
    return folded(trainer.averaged())


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation whose counter is a float, so that it can be averaged as all of the state is."""
    norm = nn.BatchNorm2d(channels, momentum=0.02)
    norm.num_batches_tracked = torch.tensor(0.0)
    return norm


def folded(state: dict[str, Tensor]) -> FaceLocator:
    """The trained network as it is used: every normalisation is part of the convolution before it."""
    trained, locator = FaceLocator(batch_norm), FaceLocator()
    trained.load_state_dict(state)
    for source, target in zip(trained.modules(), locator.modules(), strict=True):
        if isinstance(source, nn.Sequential) and isinstance(source[0], nn.Conv2d):
            conv, norm = source[0], source[1]
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            target[0].weight.data, target[0].bias.data = weight.data, bias.data
    locator.head.load_state_dict(trained.head.state_dict())
    return locator.eval().requires_grad_(False)


def targets(canvases: Canvases) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of the maps: scores [B, h, w] (1 at centres, less around), weights of them [B, h, w], and values
    [B, 5, h, w]: offsets, size, roll, and whether the loss counts them at this cell."""
    count, cells = len(canvases.pictures), SIDE // STRIDE
    c = torch.arange(cells) + 0.5
    grid = torch.stack(torch.meshgrid(c, c, indexing="xy"), -1)  # [h, w, 2] in cells
    score, weight = torch.zeros(count, cells, cells), torch.ones(count, cells, cells)
    values, nearest = torch.zeros(count, 5, cells, cells), torch.full((count, cells, cells), 1e9)
    for k in range(MOST):
        x, y, size, roll = canvases.faces[:, k].unbind(1)
        kind = canvases.counted[:, k]
        offset = torch.stack([x, y], 1)[:, None, None] / STRIDE - grid  # [B, h, w, 2]
        distance = offset.norm(dim=-1)
        reach = (size / STRIDE)[:, None, None]
        bump = torch.exp(-0.5 * (distance / (0.12 * reach).clamp_min(0.45)) ** 2) * (kind == 1)[:, None, None]
        score = torch.maximum(score, bump)
        weight = torch.where((kind == -1)[:, None, None] & (distance < 0.6 * reach), 0.0, weight)
        near = (distance < (0.2 * reach).clamp_min(1.0)) & (kind == 1)[:, None, None] & (distance < nearest)
        nearest = torch.where(near, distance, nearest)
        told = torch.stack([offset[..., 0], offset[..., 1],
                            torch.log(size.clamp_min(1) / USUAL_SIZE)[:, None, None].expand_as(distance),
                            roll[:, None, None].expand_as(distance), torch.ones_like(distance)], 1)  # fmt: skip
        values = torch.where(near[:, None], told, values)
    # the cell that contains a centre has score 1
    for k in range(MOST):
        of = (canvases.counted[:, k] == 1).nonzero().flatten()
        column, row = (canvases.faces[of, k, :2] / STRIDE).long().clamp(0, cells - 1).unbind(1)
        score[of, row, column] = 1.0
        weight[of, row, column] = 1.0
    return score, weight, values


def locator_loss(maps: Tensor, canvases: Canvases) -> dict[str, Tensor]:
    """CenterNet's focal loss of the score, and the L1 loss of the other values at faces."""
    score, weight, values = targets(canvases)
    logit, seen = maps[:, 0], maps[:, 0].sigmoid()
    hit = (score == 1).float()
    number = hit.sum().clamp_min(1)
    positive = -F.logsigmoid(logit) * (1 - seen) ** FOCUS * hit
    negative = -F.logsigmoid(-logit) * seen**FOCUS * (1 - score) ** 4 * (1 - hit)
    told = values[:, 4:]
    difference = (maps[:, 1:] - values[:, :4]).abs() * torch.tensor([0.5, 0.5, 1.0, 1.0]).view(4, 1, 1)
    return {
        "score": ((positive + negative) * weight).sum() / number,
        "place": (difference * told).sum() / told.sum().clamp_min(1),
    }
