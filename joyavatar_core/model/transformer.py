"""The causal audio-driven diffusion transformer: Wan2.1's DiT with per-frame timesteps, a reference, and an audio bias.

Parameter names and the order of operations are those of Wan2.1-T2V-1.3B and of OmniAvatar / LiveTalk-1.3B, so their
state dicts load strictly and give the same numbers. Keys and values of the past come from a `KVCache`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import AvatarConfig
from .attention import Attention, sdpa
from .audio_adapter import AudioProjection
from .kv_cache import KVCache
from .rope import apply_rope, rope_table

NORM_EPS = 1e-6


class RMSNorm(nn.Module):
    """Root mean square norm over all heads at once; statistics in float32, the weight applied after casting back."""

    def __init__(self, dim: int, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=NORM_EPS) * self.weight.to(x)


@dataclass(frozen=True)
class SelfContext:
    """What self-attention needs besides the tokens: their rotation, where their keys go, and who may be seen."""

    rope: Tensor  # complex [T, 1, head_dim / 2]
    cache: KVCache | None = None
    slot: int = 0  # frame slot in the cache where this call's keys and values are written
    mask: Tensor | None = None  # [T, T] bool, training only
    attention: Attention = sdpa


@dataclass(frozen=True)
class TextContext:
    """The prompt as cross-attention sees it: keys and values [B, n, heads, head_dim] of every block.

    `bias` [1, n] is added to the scores, where one key stands for many.
    """

    layers: list[tuple[Tensor, Tensor]]
    bias: Tensor | None = None


class AttentionLayer(nn.Module):
    """The four projections and two norms shared by self- and cross-attention."""

    def __init__(self, dim: int, num_heads: int, operations=nn, **factory) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = operations.Linear(dim, dim, **factory)
        self.k = operations.Linear(dim, dim, **factory)
        self.v = operations.Linear(dim, dim, **factory)
        self.o = operations.Linear(dim, dim, **factory)
        self.norm_q = RMSNorm(dim, **factory)
        self.norm_k = RMSNorm(dim, **factory)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))  # [B, T, heads, head_dim]

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.heads(self.norm_k(self.k(x))), self.heads(self.v(x))

    def queries(self, x: Tensor) -> Tensor:
        return self.heads(self.norm_q(self.q(x)))


class TransformerBlock(nn.Module):
    """Self-attention over the cache, cross-attention to the text, feed-forward; timesteps modulate per frame."""

    def __init__(self, config: AvatarConfig, index: int, operations=nn, **factory) -> None:
        super().__init__()
        dim = config.dim
        self.index = index
        self.self_attn = AttentionLayer(dim, config.num_heads, operations, **factory)
        self.cross_attn = AttentionLayer(dim, config.num_heads, operations, **factory)
        self.norm3 = operations.LayerNorm(dim, eps=NORM_EPS, **factory)
        self.ffn = nn.Sequential(
            operations.Linear(dim, config.ffn_dim, **factory),
            nn.GELU(approximate="tanh"),
            operations.Linear(config.ffn_dim, dim, **factory),
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim, **factory))

    def forward(
        self, x: Tensor, modulation: Tensor, text: TextContext, context: SelfContext, keys_only: bool = False
    ) -> Tensor:
        """x [B, frames, tokens, dim], modulation [B, frames, 6, dim] -> x.

        With `keys_only` the block stops once its keys and values are in the cache.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation.to(x) + modulation).unsqueeze(3).unbind(2)

        h = modulate(x, shift1, scale1).flatten(1, 2)
        k, v = self.self_attn.keys_values(h)
        k = apply_rope(k, context.rope)
        if context.cache is not None:
            k, v = context.cache.write(self.index, k, v, context.slot)
        if keys_only:
            return x
        q = apply_rope(self.self_attn.queries(h), context.rope)
        h = sdpa(q, k, v, context.mask) if context.mask is not None else context.attention(q, k, v)
        x = x + self.self_attn.o(h.flatten(2)).view_as(x) * gate1

        q, (k, v) = self.cross_attn.queries(self.norm3(x).flatten(1, 2)), text.layers[self.index]
        h = context.attention(q, k, v) if text.bias is None else sdpa(q, k, v, text.bias)
        x = x + self.cross_attn.o(h.flatten(2)).view_as(x)

        return x + self.ffn(modulate(x, shift2, scale2)) * gate2


class Head(nn.Module):
    """Tokens -> patches of flow."""

    def __init__(self, config: AvatarConfig, operations=nn, **factory) -> None:
        super().__init__()
        self.head = operations.Linear(config.dim, 4 * config.out_channels, **factory)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim, **factory))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x [B, frames, tokens, dim], embedding [B, frames, dim] -> [B, frames, tokens, 4 * channels]."""
        shift, scale = (self.modulation.to(x) + embedding.unsqueeze(2)).unsqueeze(3).unbind(2)
        return self.head(modulate(x, shift, scale))


class AvatarTransformer(nn.Module):
    """The denoiser. `forward` predicts the flow noise - x0 of some latent frames given everything in the cache.

    `operations` supplies Linear, LayerNorm and Conv3d (torch.nn, or a host's casting variants).
    """

    def __init__(self, config: AvatarConfig, operations=nn, device=None, dtype=None) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        dim = config.dim
        self.config = config
        self.attention: Attention = sdpa
        self.patch_embedding = operations.Conv3d(
            config.in_channels, dim, kernel_size=(1, 2, 2), stride=(1, 2, 2), **factory
        )
        self.text_embedding = nn.Sequential(
            operations.Linear(config.text_dim, dim, **factory),
            nn.GELU(approximate="tanh"),
            operations.Linear(dim, dim, **factory),
        )
        self.time_embedding = nn.Sequential(
            operations.Linear(config.freq_dim, dim, **factory), nn.SiLU(), operations.Linear(dim, dim, **factory)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), operations.Linear(dim, 6 * dim, **factory))
        self.blocks = nn.ModuleList(
            TransformerBlock(config, i, operations, **factory) for i in range(config.num_layers)
        )
        self.head = Head(config, operations, **factory)
        if config.audio_dim:
            self.audio_proj = AudioProjection(config.audio_dim, config.audio_hidden, operations, **factory)
            self.audio_cond_projs = nn.ModuleList(
                operations.Linear(config.audio_hidden, dim, **factory) for _ in config.audio_blocks
            )

    def encode_text(self, tokens: Tensor, padding: int = 0) -> TextContext:
        """Text tokens [B, n, text_dim], and how many rows of zeros follow them (they take part, unmasked).

        All rows of zeros have the same key. In float32 one of them stands for all, weighted by their number, which is
        exact; half precision would round the weight, so there they are all written out, as in the public loops.
        """
        bias = None
        if padding > 1 and tokens.dtype == torch.float32:
            bias = torch.zeros(1, tokens.shape[1] + 1, device=tokens.device)
            bias[:, -1] = math.log(padding)
            padding = 1
        context = self.text_embedding(F.pad(tokens, (0, 0, 0, padding)))
        return TextContext([block.cross_attn.keys_values(context) for block in self.blocks], bias)

    def encode_audio(self, features: Tensor) -> Tensor:
        """Features [B, frames, 4, audio_dim] -> [B, frames, audio_hidden]: all that is kept of a frame's voice."""
        return self.audio_proj(features)

    def project_audio(self, hidden: Tensor) -> list[Tensor]:
        """[B, frames, audio_hidden] -> the bias [B, frames, 1, dim] of each block of `config.audio_blocks`."""
        return [projection(hidden).unsqueeze(2) for projection in self.audio_cond_projs]

    def rope(self, positions: Sequence[int], height: int, width: int, device=None) -> Tensor:
        """The rotation of frames at `positions`, for latents of height x width."""
        return rope_table(positions, height // 2, width // 2, self.config.head_dim, device)

    def embed_time(self, labels: Tensor, like: Tensor) -> Tensor:
        """Timestep labels [B, frames] -> [B, frames, dim]; sinusoid (cosines first) in float64, on the CPU."""
        half = self.config.freq_dim // 2
        rates = 10000 ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = labels.to("cpu", torch.float64).unsqueeze(-1) * rates  # not every GPU has float64
        return self.time_embedding(torch.cat([angles.cos(), angles.sin()], dim=-1).to(like))

    def forward(
        self,
        latents: Tensor,
        labels: Tensor,
        text: TextContext,
        audio: list[Tensor] | None,
        context: SelfContext,
        cache_only: bool = False,
    ) -> Tensor | None:
        """The flow [B, out_channels, F, h, w] of latents [B, in_channels, F, h, w] (noisy, reference, mask).

        labels [B, F] are the frames' timesteps (0 ... 1000); `text` and `audio` come from `encode_text` and
        `project_audio`; `context` says where keys go and what is visible. With `cache_only` the pass ends when the
        last block's keys and values are stored, and None is returned.
        """
        height = latents.shape[-2] // 2
        x = rearrange(self.patch_embedding(latents), "b d f h w -> b f (h w) d")
        embedding = self.embed_time(labels, x)
        modulation = self.time_projection(embedding).unflatten(-1, (6, -1))

        biases = dict(zip(self.config.audio_blocks, audio or (), strict=False))
        for block in self.blocks:
            if block.index in biases:
                x = x + biases[block.index]
            last = block.index == len(self.blocks) - 1
            x = block(x, modulation, text, context, keys_only=cache_only and last)
        if cache_only:
            return None
        return rearrange(self.head(x, embedding), "b f (h w) (p q c) -> b c f (h p) (w q)", h=height, p=2, q=2)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then (1 + scale) and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift
