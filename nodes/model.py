"""The avatar as the host's MODEL: a ModelPatcher, so that LoRAs, casting and offloading are the host's own."""

from __future__ import annotations

import logging

import comfy.model_management as mm
import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..joyavatar_core.checkpoints import Checkpoint, load_into, rounded
from ..joyavatar_core.checkpoints.inspection import loading_note
from ..joyavatar_core.config import AvatarConfig
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.model.attention import sdpa
from ..joyavatar_core.model.transformer import AvatarTransformer
from .fp8 import HostFp8Operations
from .patcher import watched_patcher

log = logging.getLogger(__name__)

FP8 = torch.float8_e4m3fn
COMPUTE_DTYPES = [torch.bfloat16, torch.float16, torch.float32]  # best first, as the host's choice goes
NOT_SAMPLED = (
    "This node does not fit a JoyAvatar model. Connect the MODEL of Load JoyAvatar Model to the JoyAvatar nodes; LoRA "
    "loaders may be between them. A JoyAvatar model cannot be saved: keep its file."
)


class NoUnet(dict):
    """An empty UNet config for the host, because an avatar is not a UNet. Reading an entry raises an error."""

    def __missing__(self, key: str) -> object:
        raise AvatarError(NOT_SAMPLED)


class NoSampling:
    """The host's model config as far as an avatar has one; asked for sampling settings it says why there are none."""

    unet_config = NoUnet()  # read by the host's LoRA key map; an avatar needs no renaming

    @property
    def sampling_settings(self) -> dict:
        raise AvatarError(NOT_SAMPLED)


class HostAvatar(torch.nn.Module):
    """What the MODEL holds: the transformer where the host expects it, and a sentence where an avatar is different.

    transformer: built with the host's operations. dtype: what is computed in; the weights may be kept in another.
    """

    def __init__(self, transformer: AvatarTransformer, name: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.diffusion_model = transformer
        self.name = name  # the user's name of the weights
        self.compute_dtype = self.manual_cast_dtype = dtype
        self.model_config = NoSampling()

    @property
    def config(self) -> AvatarConfig:
        return self.diffusion_model.config

    @property
    def model_sampling(self) -> object:
        raise AvatarError(NOT_SAMPLED)

    latent_format = model_type = model_sampling  # what samplers, schedulers and nodes that save a model ask for


def avatar_patcher(checkpoint: Checkpoint, name: str, weight_dtype: torch.dtype | None = None) -> ModelPatcher:
    """A MODEL of a checkpoint; `weight_dtype` None keeps fp8 files as they are and else leaves the choice to the host.

    With fp8, as it is in the file or chosen, linear layers are kept so and everything else in what is computed in.
    """
    device = mm.get_torch_device()
    if weight_dtype is None:
        weight_dtype = FP8 if checkpoint.in_fp8 else hosts_choice(checkpoint, device)
    elif weight_dtype == FP8:
        checkpoint = rounded(checkpoint)
    compute_dtype = mm.unet_manual_cast(weight_dtype, device, COMPUTE_DTYPES) or weight_dtype
    operations = comfy.ops.disable_weight_init if compute_dtype == weight_dtype else comfy.ops.manual_cast
    if weight_dtype == FP8:
        operations, weight_dtype = HostFp8Operations, compute_dtype
    with torch.device("meta"):
        transformer = AvatarTransformer(checkpoint.config, operations=operations)
    log.info("%s: %s", name, loading_note(checkpoint, weight_dtype, operations is HostFp8Operations))
    load_into(transformer, checkpoint, weight_dtype)
    transformer.eval().requires_grad_(False)
    # The host's default on a CPU is its sub-quadratic attention, 1.5x slower than torch's at avatar sizes.
    transformer.attention = sdpa if mm.is_device_cpu(device) else host_attention
    if not checkpoint.config.trained:
        log.warning("'%s' has seeded random weights and is not trained: the picture has no meaning", name)
    return watched_patcher(HostAvatar(transformer, name, compute_dtype), device, mm.unet_offload_device())


def hosts_choice(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """The dtype that the host would keep the weights in. Raises AvatarError where it was started with another one."""
    dtype = mm.unet_dtype(device, checkpoint.parameters, COMPUTE_DTYPES, checkpoint.dtype)
    if dtype not in COMPUTE_DTYPES:
        raise AvatarError(
            f"ComfyUI was started to keep models in {str(dtype).removeprefix('torch.')}, which avatars do not "
            "support; choose fp8, bf16, fp16 or fp32 as weight_dtype."
        )
    return dtype


def host_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The attention the host was started with; q [B, Tq, heads, d], k and v [B, Tk, heads, d] -> like q."""
    heads = q.shape[2]
    return optimized_attention(q.flatten(2), k.flatten(2), v.flatten(2), heads).unflatten(-1, (heads, -1))


def avatar_of(model: object) -> HostAvatar:
    """What is inside a MODEL of the loader. Raises AvatarError for any other MODEL."""
    inner = getattr(model, "model", None)
    if not isinstance(inner, HostAvatar):
        raise AvatarError(
            f"This model is a {type(inner).__name__}, expected a JoyAvatar model; connect Load JoyAvatar Model here "
            "(it reads Wan2.1-style avatar files)."
        )
    return inner
