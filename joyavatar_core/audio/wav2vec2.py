"""wav2vec 2.0 features with the resampling to the video rate inside the network, as the public avatars were trained."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AvatarError

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of the conv stack; the tensors' shapes do not contain them
KERNELS = (10, 3, 3, 3, 3, 2, 2)
HOP, RECEPTIVE_FIELD = 320, 400  # samples per conv frame, samples that one conv frame depends on
# Where in a video frame the conv frame it reads is centred. Training stretched 252 conv frames over 81 video frames of
# 1000 samples: frame j read the audio around sample 200 + 1004 j, 0.36 of a frame behind its start on average.
FRAME_CENTRE = 0.36


def normalise(waveform: Tensor) -> Tensor:
    """A waveform [S] at zero mean and unit (population) variance, as wav2vec2-base-960h's feature extractor does."""
    return (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)


class Wav2Vec2:
    """wav2vec2-base features: last hidden state and all hidden states of each video frame, (layers + 2) * hidden wide.

    Made by `load`. Self-attention looks both ways, so features depend on the whole window they are computed in:
    `left_context` and `lookahead` are the seconds a caller gives it by default, `left_reach` / `right_reach` are 0.
    """

    sample_rate = 16000
    hop = HOP
    left_reach = right_reach = 0  # samples
    left_context, lookahead = 8.0, 0.5  # seconds

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self.device: torch.device | None = None  # to compute on; None: where the weights are
        self.feature_dim = (model.config.num_hidden_layers + 2) * model.config.hidden_size

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike | Mapping[str, Tensor],
        *,
        num_heads: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Wav2Vec2:
        """An encoder from a safetensors file, a pickle of tensors, or a state dict (facebook/wav2vec2-base-960h's keys,
        with or without prefix, or a host's native audio encoder's).

        `num_heads` where a head is not 64 wide. Raises AvatarError for anything that is not such a model.
        """
        name = "The audio encoder" if isinstance(weights, Mapping) else f"'{weights}'"
        state = canonical_keys(weights if isinstance(weights, Mapping) else _read(Path(weights)))
        config = _config(state, num_heads, name)
        from transformers import Wav2Vec2Model

        with torch.device("meta"):  # draws no random numbers and fills no memory
            model = Wav2Vec2Model(config)
        missing = sorted(set(model.state_dict()) - set(state))
        if missing:
            raise AvatarError(
                f"{name} lacks {len(missing)} tensors of a wav2vec2 base model, first '{missing[0]}'; "
                "download it again."
            )
        state = {key: state[key].to(device, dtype) for key in model.state_dict()}
        try:
            model.load_state_dict(state, assign=True)
        except RuntimeError as problem:
            detail = str(problem).splitlines()[-1].strip()
            raise AvatarError(f"{name} is no wav2vec2 base model: {detail}") from None
        return cls(model)

    def encode(self, waveform: np.ndarray | Tensor, edges: list[int]) -> Tensor:
        """Features of L video frames on the exact clock.

        waveform: float32 [S] at 16 kHz, not normalised; edges: L + 1 sample indices, frame i is [edges[i], edges[i+1]).
        Returns [L, feature_dim] in the model's dtype, the conv stack read at FRAME_CENTRE of every frame.
        """
        conv = self.conv_features(normalise(torch.as_tensor(waveform)))
        edge = torch.tensor(edges, dtype=torch.float64)
        centre = torch.lerp(edge[:-1], edge[1:], FRAME_CENTRE)
        position = ((centre - RECEPTIVE_FIELD / 2) / HOP).clamp(0, conv.shape[-1] - 1)
        below = position.long()  # on the CPU: not every device has float64
        above, share = (below + 1).clamp(max=conv.shape[-1] - 1), (position - below).to(conv.dtype)
        below, above, share = (part.to(conv.device) for part in (below, above, share))
        at_frames = torch.lerp(conv[..., below], conv[..., above], share)
        return torch.cat(self.hidden_states(at_frames), dim=-1)[0]

    def encode_stretched(self, waveform: np.ndarray | Tensor, num_frames: int) -> Tensor:
        """Features of a whole clip stretched over `num_frames` video frames, the public code's timing.

        waveform: float32 [S] at 16 kHz, not normalised. Returns [num_frames, feature_dim].
        """
        conv = self.conv_features(normalise(torch.as_tensor(waveform)))
        return torch.cat(self.hidden_states(stretch(conv, num_frames)), dim=-1)[0]

    @torch.no_grad()
    def conv_features(self, waveform: Tensor) -> Tensor:
        """The conv stack on a normalised waveform [S]: [1, channels, conv frames of 20 ms]; short ones are padded."""
        weight = self.model.feature_projection.projection.weight
        padded = F.pad(waveform, (0, max(0, RECEPTIVE_FIELD - waveform.shape[-1])))
        return self.model.feature_extractor(padded[None].to(self.device or weight.device, weight.dtype))

    @torch.no_grad()
    def hidden_states(self, conv: Tensor) -> list[Tensor]:
        """The transformer on conv features [1, channels, L]: [last, states 0 ... layers], each [1, L, hidden]."""
        # driven part by part: the public entry points have no place for resampling between conv stack and projection
        x = self.model.feature_projection(conv.transpose(1, 2))[0]
        encoder = self.model.encoder
        x = encoder.layer_norm(x + encoder.pos_conv_embed(x))
        states = [x]
        for layer in encoder.layers:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x  # a tuple before transformers 5
            states.append(x)
        return [x, *states]


def stretch(conv: Tensor, num_frames: int) -> Tensor:
    """Conv features [1, channels, T] interpolated to [1, channels, num_frames], first on first and last on last."""
    return F.interpolate(conv, size=num_frames, mode="linear", align_corners=True)


def canonical_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A wav2vec2 state dict under the names transformers uses, without prefix, heads and unused tensors."""
    renamed = {}
    for key, value in state.items():
        key = re.sub(r"^(?:model\.)?(?:wav2vec2\.)?", "", key)
        key = key.replace("conv.weight_g", "conv.parametrizations.weight.original0")
        key = key.replace("conv.weight_v", "conv.parametrizations.weight.original1")
        if isinstance(value, Tensor) and key.startswith(("feature_extractor.", "feature_projection.", "encoder.")):
            renamed[key] = value
    return renamed


def _config(state: Mapping[str, Tensor], num_heads: int | None, name: str):
    """A transformers Wav2Vec2Config read from the shapes of a canonical state dict."""
    try:
        from transformers import Wav2Vec2Config
    except ImportError:
        raise AvatarError(
            "wav2vec2 features need the package 'transformers' (4.50 or newer), which is not installed; "
            "run: pip install transformers"
        ) from None

    shapes = {key: tuple(value.shape) for key, value in state.items()}
    convs = [shapes.get(f"feature_extractor.conv_layers.{i}.conv.weight", (0, 0, 0)) for i in range(len(KERNELS))]
    positional = shapes.get("encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    layers = {int(key.split(".")[2]) for key in shapes if key.startswith("encoder.layers.")}
    ffn = shapes.get("encoder.layers.0.feed_forward.intermediate_dense.weight")
    if tuple(conv[2] for conv in convs) != KERNELS or not (positional and ffn):
        raise AvatarError(
            f"{name} is no wav2vec2 model ({len(shapes)} of its tensors have known names); "
            "expected facebook/wav2vec2-base-960h or one of its shape."
        )
    if "feature_extractor.conv_layers.1.layer_norm.weight" in shapes:
        raise AvatarError(
            f"{name} is a wav2vec2 large model (layer norm in every conv layer); "
            "expected a base model such as facebook/wav2vec2-base-960h."
        )
    hidden = positional[0]
    heads = num_heads or hidden // 64
    if heads < 1 or hidden % heads:
        raise AvatarError(f"{name} is {hidden} wide, which {heads} heads do not divide; give num_heads.")
    return Wav2Vec2Config(
        hidden_size=hidden, intermediate_size=ffn[0], num_hidden_layers=len(layers), num_attention_heads=heads,
        conv_dim=[conv[0] for conv in convs], conv_kernel=list(KERNELS), conv_stride=list(STRIDES),
        conv_bias="feature_extractor.conv_layers.0.conv.bias" in shapes, feat_extract_norm="group",
        num_conv_pos_embeddings=positional[2], num_conv_pos_embedding_groups=hidden // positional[1],
        mask_time_prob=0.0, mask_feature_prob=0.0, attn_implementation="sdpa",
    )  # fmt: skip


def _read(path: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise AvatarError(f"'{path}' is not a file; expected a wav2vec2 .safetensors or .bin file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # the restricted unpickler fails on damaged bytes with whatever they lead it to
        raise AvatarError(
            f"'{path}' cannot be read as weights ({type(problem).__name__}): it is damaged or holds more than tensors; "
            "expected a whole safetensors file or a pickle of tensors only."
        ) from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    return state if isinstance(state, Mapping) else {}
