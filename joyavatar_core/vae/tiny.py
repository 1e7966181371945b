"""TinyDecoder: the fast decoder taew2_1 (TAEHV), streamed like the full one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AvatarError
from ..geometry import LATENT_CHANNELS, VIDEO_FRAMES_PER_LATENT
from .cache import VAECache
from .conv import arrange_memory, picture_conv, pointwise_conv
from .decoder import DecoderModule
from .state_dicts import TINY_MARK, load_strict, make_contiguous, strip_prefix
from .wan import check_latents

GROWTH = (1, 2, 2)  # frames out per frame in, at each doubling of the picture
LEAD = VIDEO_FRAMES_PER_LATENT - 1  # frames dropped of the first latent frame's four
WIDTHS = (256, 128, 64, 64)


class MemBlock(nn.Module):
    """Three convolutions that also see the previous frame's input: [B, T, H, W, C] -> the same."""

    def __init__(self, dim: int, ops: ModuleType) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {"0": ops.Conv2d(2 * dim, dim, 3), "2": ops.Conv2d(dim, dim, 3), "4": ops.Conv2d(dim, dim, 3)}
        )

    def forward(self, x: Tensor, cache: VAECache) -> Tensor:
        before = cache.recall(self.slot, x)
        before = torch.zeros_like(x[:, :1]) if before is None else before
        line = torch.cat([before, x], dim=1)
        cache.keep(self.slot, line, 1)
        h = torch.cat([x, line[:, :-1]], dim=-1)
        h = F.relu(same_conv(self.conv["0"], h))
        h = F.relu(same_conv(self.conv["2"], h))
        return F.relu(same_conv(self.conv["4"], h) + x)


class Grow(nn.Module):
    """Twice the height and width, `times` frames for one: [B, T, H, W, C] -> [B, times*T, 2H, 2W, C]."""

    def __init__(self, dim: int, times: int, ops: ModuleType) -> None:
        super().__init__()
        self.times = times
        self.conv = ops.Conv2d(dim, dim * times, 1, bias=False)

    def forward(self, x: Tensor, cache: VAECache) -> Tensor:
        # The 1x1 convolution commutes with the nearest-neighbour doubling: done first it costs a quarter.
        x = pointwise_conv(x, self.conv.weight, None).unflatten(-1, (self.times, x.shape[-1]))
        batch, frames, height, width, times, dim = x.shape
        x = x.permute(0, 1, 4, 2, 3, 5)[:, :, :, :, None, :, None].expand(-1, -1, -1, -1, 2, -1, 2, -1)
        return x.reshape(batch, frames * times, 2 * height, 2 * width, dim)


class TinyDecoder(DecoderModule):
    """taew2_1's decoder, the same calls as StreamingVAE's but decode only; parameter names are those of its file.

    It reads normalised latents directly. One latent frame at a time, so that any split gives the same bits, or all of a
    call on CUDA, as StreamingVAE.
    """

    kind = "tiny"

    def __init__(self, widths: Sequence[int] = WIDTHS, operations: ModuleType | None = None) -> None:
        super().__init__()
        ops = operations or nn
        self.dim = widths[-1]
        # Positions 0, 2, 21 (activations) and 6, 12, 18 (doublings) of the reference's Sequential hold no tensors.
        layers: dict[str, nn.Module] = {"1": ops.Conv2d(LATENT_CHANNELS, widths[0], 3)}
        for level, (width, out, times) in enumerate(zip(widths[:-1], widths[1:], GROWTH, strict=True)):
            start = 3 + 6 * level
            layers |= {str(start + i): MemBlock(width, ops) for i in range(3)}
            layers[str(start + 4)] = Grow(width, times, ops)
            layers[str(start + 5)] = ops.Conv2d(width, out, 3, bias=False)
        layers["22"] = ops.Conv2d(widths[-1], 3, 3)
        self.decoder = nn.ModuleDict(layers)
        for name, layer in self.decoder.items():
            layer.slot = f"decoder.{name}"
        arrange_memory(self)
        self.register_state_dict_post_hook(make_contiguous)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], operations: ModuleType | None = None) -> TinyDecoder:
        """A frozen decoder from the tensors of taew2_1 (its encoder is ignored). Raises AvatarError otherwise."""
        if any(name.endswith(TINY_MARK) for name in state):
            state = strip_prefix(state, TINY_MARK)
        state = {name: tensor for name, tensor in state.items() if name.startswith("decoder.")}
        try:
            first = state["decoder.1.weight"].shape
            widths = [first[0], *(state[f"decoder.{i}.weight"].shape[0] for i in (8, 14, 20))]
        except KeyError as missing:
            raise AvatarError(f"The tiny decoder lacks {missing}; give the whole taew2_1 file.") from None
        if first[1] != LATENT_CHANNELS:
            raise AvatarError(
                f"This tiny decoder reads {first[1]} latent channels, expected {LATENT_CHANNELS}; give taew2_1."
            )
        with torch.device("meta"):
            decoder = cls(widths, operations)
        load_strict(decoder, state, "tiny decoder")
        arrange_memory(decoder)
        return decoder.eval().requires_grad_(False)

    def decode(self, latents: Tensor, cache: VAECache | None = None, clamp: bool = True) -> Tensor:
        """Normalised latents [B, 16, t, h, w] -> frames [B, 3, T, 8h, 8w] in [-1, 1], float32; T as in StreamingVAE."""
        check_latents(latents)
        cache = cache if cache is not None else self.new_cache()
        parts = []
        frames = latents.permute(0, 2, 3, 4, 1).to(self.decoder["1"].weight.dtype)
        for latent in frames.split(self.latents_at_once(frames), dim=1):
            lead = 0 if self.decoder["3"].slot in cache else LEAD
            parts.append(self.decode_latent(latent.contiguous(), cache)[:, lead:].float())
        video = torch.cat(parts, dim=1).permute(0, 4, 1, 2, 3) * 2 - 1
        return video.clamp(-1, 1) if clamp else video

    def decode_latent(self, x: Tensor, cache: VAECache) -> Tensor:
        """[B, t, h, w, 16] -> [B, 4t, 8h, 8w, 3] in [0, 1]."""
        x = torch.tanh(x / 3) * 3
        for name, layer in self.decoder.items():
            if isinstance(layer, nn.Conv2d):
                x = same_conv(layer, F.relu(x) if name == "22" else x)
                x = F.relu(x) if name == "1" else x
            else:
                x = layer(x, cache)
        return x


def same_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return picture_conv(x, conv.weight, conv.bias, padding=1)
