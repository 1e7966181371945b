"""Training of the latent flow: from a stream's latents, the flow that the refiner finds in its decoded frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import VIDEO_FRAMES_PER_LATENT
from ..refiner.latent_flow import LatentFlowNet, between
from ..refiner.portrait_face import affine_fit
from .loop import Draw, LoopSettings, Trainer
from .people import People
from .refiner_augment import Random

DRAWN = 0.35  # share of drawn people
BATCH = 24  # windows of a step
WINDOW = 3  # latents of a window, behind the one before
PIXELS = 64.0  # halves of the side: errors are in pixels of 128 x 128
NOISE = 0.04  # most noise on the latents
FACE = 6.0  # weight of the part of the face that speech does not move, against 1 elsewhere
BETA = 0.5  # pixels: larger errors count linearly
SCALES = {"flow": 1.0, "face": 4.0}


class Streams:
    """Streams on disk, one person each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.people = People(paths, DRAWN)

    def sample(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """(latents [WINDOW + 1, 16, h, w], the portrait's [16, h, w], flow [4 * WINDOW, 2, S, S], still [1, S, S])."""
        from safetensors import safe_open

        random = Random(generator)
        with safe_open(self.people.choose(random), "pt") as file:
            latents, flow = file.get_slice("latents"), file.get_slice("flow")
            first = 1 + random.below(latents.get_shape()[0] - WINDOW)
            window = latents[first - 1 : first + WINDOW].float()
            frames = VIDEO_FRAMES_PER_LATENT * (first - 1) + 1  # latent 0 is one frame
            moved = flow[frames : frames + VIDEO_FRAMES_PER_LATENT * WINDOW].float()
            reference, still = latents[0:1][0].float(), file.get_slice("face")[1:2].float()
        return window + random.uniform(0, NOISE) * random.normal(*window.shape), reference, moved, still

    def batch(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, ...]:
        """As `sample`, stacked."""
        return tuple(torch.stack(part) for part in zip(*map(self.sample, generators), strict=True))


def latent_flow_losses(
    net: LatentFlowNet, latents: Tensor, reference: Tensor, moved: Tensor, still: Tensor
) -> dict[str, Tensor]:
    """All parts and their weighted sum as `loss`. Beside them, in pixels of 128 x 128: how far faces `move` and how
    far their places are `off`.
    """
    count, side = latents.shape[1], moved.shape[-2:]
    made = net(latents.flatten(0, 1), reference.repeat_interleave(count, 0))  # [B * (W + 1), 2, h, w]
    made = between(F.interpolate(made, side, mode="bilinear", align_corners=False).unflatten(0, (-1, count)))
    still = still[:, None].expand(-1, moved.shape[1], -1, -1, -1).flatten(0, 1)
    made, moved = made.flatten(0, 1), moved.flatten(0, 1)
    face, true = (affine_fit(flow, still) for flow in (made, moved))

    def error(a: Tensor, b: Tensor, counted: Tensor) -> Tensor:
        return (F.smooth_l1_loss(PIXELS * a, PIXELS * b, reduction="none", beta=BETA) * counted).mean() / counted.mean()

    losses = {"flow": error(made, moved, 1 + FACE * still), "face": error(face, true, still)}
    with torch.no_grad():
        inside = PIXELS * still / still.mean()
        beside = {"moves": (true.abs() * inside).mean(), "off": ((face - true).abs() * inside).mean()}
    return losses | beside | {"loss": sum(SCALES[name] * value for name, value in losses.items())}


def train_latent_flow(
    streams: Streams, settings: LoopSettings, start: dict[str, Tensor] | None = None, batch: int = BATCH
) -> LatentFlowNet:
    """Train until the settings' limit, from scratch or from weights; returns the averaged weights."""
    torch.manual_seed(settings.seed)
    net = LatentFlowNet().train()
    if start is not None:
        net.load_state_dict(start)
    trainer = Trainer(net, settings)

    def step_losses(step: int, draw: Draw) -> dict[str, Tensor]:
        return latent_flow_losses(net, *streams.batch(draw(batch)))

    trainer.run(step_losses)
    net.load_state_dict(trainer.averaged())
    return net.eval().requires_grad_(False)
