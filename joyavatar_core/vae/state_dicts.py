"""State dicts of video autoencoders: known layouts told apart, renamed to one, and loaded strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import AvatarError
from ..geometry import LATENT_CHANNELS

WAN_MARK = "decoder.middle.0.residual.0.gamma"
DIFFUSERS_MARK = "decoder.mid_block.resnets.0.norm1.gamma"
TINY_MARK = "decoder.22.bias"

# diffusers' names of a residual block's layers, and of the modules outside the levels.
RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
            "conv_shortcut": "shortcut"}  # fmt: skip
OUTER = {"quant_conv": "conv1", "post_quant_conv": "conv2", "conv_in": "conv1", "norm_out": "head.0",
         "conv_out": "head.2", "mid_block.resnets.0": "middle.0", "mid_block.attentions.0": "middle.1",
         "mid_block.resnets.1": "middle.2"}  # fmt: skip


def wan_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of Wan2.1_VAE.pth. Raises AvatarError for what is not a Wan2.1 VAE."""
    if any(name.endswith(DIFFUSERS_MARK) for name in state):
        state = {from_diffusers(name): tensor for name, tensor in strip_prefix(state, DIFFUSERS_MARK).items()}
    elif any(name.endswith(WAN_MARK) for name in state):
        state = strip_prefix(state, WAN_MARK)
    elif any(name.endswith(TINY_MARK) for name in state):
        raise AvatarError("These weights are a tiny decoder (taew2_1) and cannot encode; give a Wan2.1 VAE file.")
    else:
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise AvatarError(
            f"The state dict holds {some} …, which is not a video autoencoder this project knows; "
            "give Wan2.1_VAE, a narrow VAE in its layout, or taew2_1."
        )
    latent, image = (state.get(name) for name in ("conv2.weight", "encoder.conv1.weight"))
    if latent is not None and latent.shape[0] != LATENT_CHANNELS:
        raise AvatarError(
            f"This VAE has {latent.shape[0]} latent channels{' (a Wan2.2 VAE)' if latent.shape[0] == 48 else ''}, "
            f"expected {LATENT_CHANNELS}; give the Wan2.1 VAE."
        )
    if image is not None and image.shape[1] != 3:
        raise AvatarError(f"This VAE encodes pictures of {image.shape[1]} channels, expected 3; give the Wan2.1 VAE.")
    if "decoder.head.0.gamma" not in state:
        raise AvatarError("The VAE file lacks decoder.head.0.gamma; it is truncated, download or export it again.")
    return dict(state)


def from_diffusers(name: str) -> str:
    """A parameter name of diffusers' AutoencoderKLWan under its Wan2.1_VAE.pth name."""
    name = re.sub(
        r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.upsamples.{4 * int(m[1]) + int(m[2])}", name
    )
    name = re.sub(r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.upsamples.{4 * int(m[1]) + 3}", name)
    name = name.replace("encoder.down_blocks.", "encoder.downsamples.")
    for theirs, ours in OUTER.items():
        name = re.sub(rf"(^|\.){re.escape(theirs)}\.", rf"\g<1>{ours}.", name)
    match = re.match(r"(.*(?:middle|downsamples|upsamples)\.\d+)\.(\w+)(\..*)", name)
    if match and match[2] in RESIDUAL:
        name = f"{match[1]}.{RESIDUAL[match[2]]}{match[3]}"
    return name


def strip_prefix(state: Mapping[str, Tensor], mark: str) -> dict[str, Tensor]:
    """Drop whatever stands before the known name `mark` ("model.", "vae.", "first_stage_model.") from all names."""
    prefix = next(name for name in state if name.endswith(mark)).removesuffix(mark)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def load_strict(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Give a module built on the meta device its tensors. Raises AvatarError unless names and shapes match exactly."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or surplus:
        raise AvatarError(
            f"The {what} lacks {len(missing)} tensors ({', '.join(missing[:2]) or 'none'}) and has {len(surplus)} "
            f"unknown ones ({', '.join(surplus[:2]) or 'none'}); the file is truncated or of another model."
        )
    wrong = next((name for name in wanted if wanted[name] != found[name]), None)
    if wrong:
        raise AvatarError(f"In the {what}, {wrong} has the shape {found[wrong]}, expected {wanted[wrong]}.")
    module.load_state_dict(state, strict=True, assign=True)


def make_contiguous(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict) -> None:
    """State-dict hook: weights leave in the plain memory order that safetensors asks for."""
    for name in state:
        if name.startswith(prefix):
            state[name] = state[name].contiguous()
