"""Training losses: reconstruction with sharpness and movement, and the flow loss with more weight at the mouth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRADIENT_WEIGHT = 0.5
COARSE_WEIGHT = 0.5
MOTION_WEIGHT = 1.0
LIVELY_WEIGHT = 1.0
TEXTURE_WEIGHT = 0.5
CELL = 4  # pixels over which strengths are compared
KL_WEIGHT = 3e-4


def box_weight(box: Tensor, height: int, width: int, inside: float) -> Tensor:
    """A map that is `inside` within a box and 1 elsewhere.

    box [..., 4]: left, top, right, bottom in units of the map's cells -> [..., height, width].
    """
    left, top, right, bottom = (edge[..., None] for edge in box.unbind(-1))
    rows, columns = (torch.arange(side, device=box.device) + 0.5 for side in (height, width))
    covered = ((rows > top) & (rows < bottom))[..., :, None] & ((columns > left) & (columns < right))[..., None, :]
    return 1 + (inside - 1) * covered.float()


def reconstruction_losses(video: Tensor, target: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Pixels, edges and movement: video, target [B, 3, T, H, W]; weight [B, 1, T, H, W].

    The movement term is needed for moving mouths: without it an autoencoder shows one mouth per latent frame. If an
    edge or a movement is uncertain, the least error is to leave it out. The result is soft and jerky from one latent
    frame to the next. The strength of edges and movements is therefore a loss term too, anywhere in a cell.
    """
    error = video - target
    losses = {
        "pixel": (error.abs() * weight).mean(),
        "gradient": sum((error.diff(dim=d).abs() * like(weight, d)).mean() for d in (-1, -2)),
        "coarse": F.avg_pool3d(error, (1, 4, 4)).abs().mean(),
        "motion": (error.diff(dim=2).abs() * like(weight, 2)).mean(),
        "texture": sum(strength_error(video, target, weight, d) for d in (-1, -2)),
        "lively": strength_error(video, target, weight, 2),
    }
    scales = {
        "pixel": 1.0, "gradient": GRADIENT_WEIGHT, "coarse": COARSE_WEIGHT, "motion": MOTION_WEIGHT,
        "texture": TEXTURE_WEIGHT, "lively": LIVELY_WEIGHT,
    }  # fmt: skip
    return losses | {"reconstruction": sum(scales[name] * value for name, value in losses.items())}


def like(weight: Tensor, dim: int) -> Tensor:
    """The weight of differences along an axis: that of the later of the two."""
    return weight.narrow(dim, 1, weight.shape[dim] - 1)


def strength_error(video: Tensor, target: Tensor, weight: Tensor, dim: int) -> Tensor:
    """How much stronger or weaker the changes along an axis are, cell by cell, wherever in the cell they are."""
    ours, theirs, weight = (
        F.avg_pool3d(x, (1, CELL, CELL))
        for x in (video.diff(dim=dim).abs(), target.diff(dim=dim).abs(), like(weight, dim))
    )
    return ((ours - theirs).abs() * weight).mean()


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Mean divergence from the unit Gaussian per latent number, in nats."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean()


def flow_loss(flow: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over samples of the weighted mean square error of flows [B, C, F, h, w].

    The weight broadcasts; it is 0 for frames that are only context.
    """
    weight = weight.expand_as(flow)
    return (((flow.float() - target).square() * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)).mean()
