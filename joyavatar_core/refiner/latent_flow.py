"""The latent flow: how a portrait has moved in the frames of a stream, found in its latents.

The refiner's own flow needs decoded frames. Where a face editor draws the face, nothing else of these frames is shown,
so with this network nothing has to be decoded. It was trained to give the flow that the refiner finds. The definition
is this project's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..geometry import VIDEO_FRAMES_PER_LATENT
from ..unet import UNet

CHANNELS = 16  # of a latent
CELLS = 16  # across and down, in training; with fewer, heads are moved too far
WIDTHS = (48, 72, 96)  # channels at 1, 1/2 and 1/4 of the latent's side
LONGEST = 4.0  # cells of the latent; flows are bent to stay below


class LatentFlowNet(UNet):
    """Latents [B, 16, h, w] and the portrait's [B, 16, h, w] -> flow of the last frame of each latent, [B, 2, h, w].

    The flow goes from a place in the frame to its place in the portrait, (x, y) in halves of the picture's side.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__(2 * CHANNELS + 2, widths)
        self.flow = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.zeros_(self.flow.weight)
        nn.init.zeros_(self.flow.bias)

    def forward(self, latents: Tensor, reference: Tensor) -> Tensor:
        height, width = latents.shape[-2:]
        place = [torch.linspace(-1, 1, side, device=latents.device) for side in (height, width)]
        place = torch.stack(torch.meshgrid(*place, indexing="ij")).expand(len(latents), -1, -1, -1)
        x = self.features(torch.cat([latents - reference, reference, place.to(latents)], dim=1))
        flow = LONGEST * torch.tanh(self.flow(x).float() / LONGEST)  # in cells
        return torch.cat([flow[:, :1] * (2 / width), flow[:, 1:] * (2 / height)], dim=1)


def between(flow: Tensor) -> Tensor:
    """The flows of frames from those of the latents' last frames.

    [..., K + 1, 2, h, w], those of K latents behind that of the latent before -> [..., 4 K, 2, h, w]. In between the
    head moves evenly, so nothing jumps where a latent or a block begins.
    """
    share = (torch.arange(VIDEO_FRAMES_PER_LATENT, device=flow.device) + 1) / VIDEO_FRAMES_PER_LATENT
    before, after = (x.unsqueeze(-4) for x in (flow[..., :-1, :, :, :], flow[..., 1:, :, :, :]))
    return torch.lerp(before, after, share[:, None, None, None]).flatten(-5, -4)
