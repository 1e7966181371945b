"""The causal audio-driven diffusion transformer: Wan2.1's DiT with per-frame timesteps, a reference, and an audio bias.

Parameter names and the order of operations are those of Wan2.1-T2V-1.3B and of OmniAvatar / LiveTalk-1.3B, so their
state dicts load strictly and give the same numbers. Keys and values of the past come from a `KVCache`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import AvatarConfig
from ..device import to_device
from ..geometry import CELLS_PER_TOKEN, PATCH, to_token_size
from .attention import Attention, sdpa
from .audio_adapter import AudioProjection
from .kv_cache import KVCache
from .pointwise import EAGER, NORM_EPS, Pointwise, rms_norm
from .rope import rope_table
from .sequence_parallel import Bands, SequenceParallel


class RMSNorm(nn.Module):
    """Root mean square norm over all heads at once; see `rms_norm`."""

    def __init__(self, dim: int, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x))


@dataclass(frozen=True)
class SelfContext:
    """What self-attention needs besides the tokens: their rotation, the cache slot of their keys, and the mask."""

    rope: Tensor  # float32 [T, 1, head_dim / 2, 2]
    cache: KVCache | None = None
    slot: int = 0  # frame slot in the cache where this call's keys and values are written
    mask: Tensor | None = None  # [T, T] bool, training only
    attention: Attention = sdpa
    pointwise: Pointwise = EAGER
    bands: Bands | None = None  # set by the model where several processes share a pass


@dataclass(frozen=True)
class TextContext:
    """The prompt's keys and values [B, n, heads, head_dim] of every block.

    `bias` [1, n] is added to the scores where one key stands for many. `constants` [B, 1, 1, dim] of every block
    replace cross-attention where all keys are the same, as in an empty prompt.
    """

    layers: list[tuple[Tensor, Tensor]]
    bias: Tensor | None = None
    constants: list[Tensor] | None = None


class AttentionLayer(nn.Module):
    """The four projections and two norms shared by self- and cross-attention."""

    def __init__(self, dim: int, num_heads: int, operations=nn, **factory) -> None:
        super().__init__()
        self.packed: tuple[Tensor, Tensor] | None = None  # weight and bias of q, k and v together
        self.num_heads = num_heads
        self.q = operations.Linear(dim, dim, **factory)
        self.k = operations.Linear(dim, dim, **factory)
        self.v = operations.Linear(dim, dim, **factory)
        self.o = operations.Linear(dim, dim, **factory)
        self.norm_q = RMSNorm(dim, **factory)
        self.norm_k = RMSNorm(dim, **factory)

    def pack(self) -> None:
        """Lay the weights of q, k and v behind one another in memory, so that one product computes all three.

        Call it once the weights are on their device. Moving or replacing one of them undoes it.
        """
        layers = (self.q, self.k, self.v)
        whole = [torch.cat([getattr(layer, name).data for layer in layers]) for name in ("weight", "bias")]
        for layer, weight, bias in zip(layers, *(one.chunk(3) for one in whole), strict=True):
            layer.weight.data, layer.bias.data = weight, bias
        self.packed = tuple(whole)

    def products(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k and v of x [B, T, dim], each [B, T, dim], not yet normed."""
        packed, layers = self.packed, (self.q, self.k, self.v)
        if packed is not None and all(
            layer.weight.data_ptr() == part.data_ptr() for layer, part in zip(layers, packed[0].chunk(3), strict=True)
        ):
            return F.linear(x, *packed).chunk(3, dim=-1)
        return tuple(layer(x) for layer in layers)

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

        With `keys_only` the block stops once its keys and values are in the cache. With `context.bands` the tokens are
        this process's band of them.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation.to(x) + modulation).unsqueeze(3).unbind(2)
        step, own = context.pointwise, self.self_attn

        h = step.modulate(x, shift1, scale1).flatten(1, 2)
        q, k, v = (None, own.k(h), own.v(h)) if keys_only else own.products(h)
        k, v = step.norm_rotate(k, own.norm_k.weight.to(h), context.rope), own.heads(v)
        new = [k, v] if keys_only else [k, v, step.norm_rotate(q, own.norm_q.weight.to(h), context.rope)]
        if context.bands is not None:
            new = context.bands.to_heads(new)
        k, v, *q = new
        if context.cache is not None:
            k, v = context.cache.write(self.index, k, v, context.slot)
        if keys_only:
            return x
        h = sdpa(*q, k, v, context.mask) if context.mask is not None else context.attention(*q, k, v)
        if context.bands is not None:
            h = context.bands.to_tokens(h)
        x = step.add_gated(x, own.o(h.flatten(2)).view_as(x), gate1)
        x = x + self.attend_to_text(x, text, context.attention)
        return step.add_gated(x, self.ffn(step.modulate(x, shift2, scale2)), gate2)

    def attend_to_text(self, x: Tensor, text: TextContext, attention: Attention) -> Tensor:
        """Cross-attention to the prompt: what is added to x [B, frames, tokens, dim]."""
        if text.constants is not None:
            return text.constants[self.index]
        q, (k, v) = self.cross_attn.queries(self.norm3(x).flatten(1, 2)), text.layers[self.index]
        h = attention(q, k, v) if text.bias is None else sdpa(q, k, v, text.bias)
        return self.cross_attn.o(h.flatten(2)).view_as(x)


class Head(nn.Module):
    """Tokens -> patches of flow."""

    def __init__(self, config: AvatarConfig, operations=nn, **factory) -> None:
        super().__init__()
        self.head = operations.Linear(config.dim, CELLS_PER_TOKEN**2 * config.out_channels, **factory)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim, **factory))

    def forward(self, x: Tensor, embedding: Tensor, pointwise: Pointwise = EAGER) -> Tensor:
        """x [B, frames, tokens, dim], embedding [B, frames, dim] -> [B, frames, tokens, 4 * channels]."""
        shift, scale = (self.modulation.to(x) + embedding.unsqueeze(2)).unsqueeze(3).unbind(2)
        return self.head(pointwise.modulate(x, shift, scale))


class AvatarTransformer(nn.Module):
    """The denoiser. `forward` predicts the flow noise - x0 of some latent frames over the cached past.

    `operations` supplies Linear, LayerNorm and Conv3d (torch.nn, `Fp8Operations`, or a host's casting variants).
    """

    def __init__(self, config: AvatarConfig, operations=nn, device=None, dtype=None) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        dim = config.dim
        self.config = config
        self.attention: Attention = sdpa
        self.pointwise: Pointwise = EAGER
        self.parallel: SequenceParallel | None = None
        self.patch_embedding = operations.Conv3d(config.in_channels, dim, kernel_size=PATCH, stride=PATCH, **factory)
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
        """Text tokens [B, n, text_dim], and the number of unmasked rows of zeros that follow them.

        All rows of zeros have the same key. In float32 one of them stands for all, weighted by their number, which is
        exact. Half precision would round the weight, so all rows are computed there, as in the public loops.
        Without tokens, cross-attention does not depend on the query: it is a constant, computed once where no gradient
        is needed.
        """
        bias = None
        if not tokens.shape[1] and padding and not torch.is_grad_enabled():
            return TextContext([], constants=self._empty_prompt(tokens))
        if padding > 1 and tokens.dtype == torch.float32:
            bias = torch.zeros(1, tokens.shape[1] + 1, device=tokens.device)
            bias[:, -1] = math.log(padding)
            padding = 1
        context = self.text_embedding(F.pad(tokens, (0, 0, 0, padding)))
        return TextContext([block.cross_attn.keys_values(context) for block in self.blocks], bias)

    def _empty_prompt(self, tokens: Tensor) -> list[Tensor]:
        """What every block's cross-attention adds for a prompt of zeros: its output for their one value."""
        context = self.text_embedding(F.pad(tokens, (0, 0, 0, 1)))
        return [attn.o(attn.v(context)).unsqueeze(2) for attn in (block.cross_attn for block in self.blocks)]

    def encode_audio(self, features: Tensor) -> Tensor:
        """Features [B, frames, 4, audio_dim] -> the audio embedding [B, frames, audio_hidden]."""
        return self.audio_proj(features)

    def project_audio(self, audio_embedding: Tensor) -> list[Tensor]:
        """The audio embedding [B, frames, audio_hidden] -> the bias [B, frames, 1, dim] of each audio block."""
        return [projection(audio_embedding).unsqueeze(2) for projection in self.audio_cond_projs]

    def rope(self, positions: Sequence[int], height: int, width: int, device=None) -> Tensor:
        """The rotation of latent frames at `positions`; height and width are latent cells."""
        columns, rows = to_token_size((width, height))
        return rope_table(positions, rows, columns, self.config.head_dim, device)

    @property
    def ranks(self) -> int:
        """How many processes share a pass."""
        return 1 if self.parallel is None else self.parallel.ranks

    def new_cache(self, slots: int, tokens: int, dtype: torch.dtype, device: torch.device, batch: int = 1) -> KVCache:
        """An empty cache of `slots` latent frames of `tokens` each, with the heads that are this process's."""
        config = self.config
        return KVCache(
            config.num_layers, batch, slots, tokens, config.num_heads // self.ranks, config.head_dim, dtype, device
        )

    def embed_time(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """Timesteps [B, frames] -> [B, frames, dim]; sinusoid (cosines first) in float64, on the device of `timesteps`.

        Timesteps on the device of `like` need no copy.
        """
        half = self.config.freq_dim // 2
        timesteps = timesteps.cpu() if timesteps.device.type == "mps" else timesteps  # Apple's GPUs have no float64
        rates = 10000 ** -(torch.arange(half, dtype=torch.float64, device=timesteps.device) / half)
        angles = timesteps.double().unsqueeze(-1) * rates
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.time_embedding(to_device(sinusoid.to(like.dtype), like.device))

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: TextContext,
        audio: list[Tensor] | None,
        context: SelfContext,
        cache_only: bool = False,
    ) -> Tensor | None:
        """The flow [B, out_channels, F, h, w] of latents [B, in_channels, F, h, w] (noisy, reference, mask).

        timesteps [B, F] (0 ... 1000) are the frames' noise levels; `text` and `audio` come from `encode_text` and
        `project_audio`; `context` says where keys go and what is visible. With `cache_only` the pass ends when the
        last block's keys and values are stored, and None is returned. Where processes share a pass, all of them make
        the same call, and each gets the whole flow.
        """
        rows = latents.shape[-2] // CELLS_PER_TOKEN
        # The convolution's output is strided, which would slow down every layer.
        x = rearrange(self.patch_embedding(latents), "b d f h w -> b f (h w) d").contiguous()
        embedding = self.embed_time(timesteps, x)
        modulation = self.time_projection(embedding).unflatten(-1, (6, -1))
        if self.parallel is not None:
            bands = self.parallel.bands(x.shape[1], x.shape[2])
            context, x = replace(context, bands=bands, rope=bands.cut_rope(context.rope)), bands.cut(x)

        biases = dict(zip(self.config.audio_blocks, audio or (), strict=False))
        for block in self.blocks:
            if block.index in biases:
                x = x + biases[block.index]
            last = block.index == len(self.blocks) - 1
            x = block(x, modulation, text, context, keys_only=cache_only and last)
        if cache_only:
            return None
        x = self.head(x, embedding, context.pointwise)
        if context.bands is not None:
            x = context.bands.gather(x)
        return rearrange(x, "b f (h w) (p q c) -> b c f (h p) (w q)", h=rows, p=PATCH[1], q=PATCH[2])
