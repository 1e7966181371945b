"""The settings in which a saved state and the run that resumes it must agree."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import AvatarError
from ..model.transformer import AvatarTransformer
from .stream import AvatarStream

log = logging.getLogger(__name__)

STORED_MODES = {"window": "off"}  # of URCR: the format keeps the name that it began with
PARTS = {"block", "cursor", "cache", "past", "recipe", "environment"}


def recipe_of(stream: AvatarStream, dtype: torch.dtype) -> dict[str, object]:
    """The settings that a state belongs to, as JSON gives them back."""
    config, (width, height) = stream.config, stream.latent_size
    urcr = _plain(stream.urcr)
    urcr["mode"] = STORED_MODES.get(stream.urcr.mode, stream.urcr.mode)
    return {
        "kv_dtype": None if stream.kv_dtype is None else str(stream.kv_dtype),
        "seed": stream.seed, "size": [height, width], "dtype": str(dtype),
        "model": [config.num_layers, config.dim, config.num_heads, config.ffn_dim],
        "block_frames": config.block_frames, "trained_positions": config.trained_positions,
        "levels": [list(level) for level in config.levels],
        "psb": _plain(stream.psb), "mci": _plain(stream.mci), "urcr": urcr,
    }  # fmt: skip


def environment_of(model: AvatarTransformer, device: torch.device) -> dict[str, object]:
    """What may change the last bits of a result, and nothing else."""
    attention = model.attention
    return {
        "torch": torch.__version__,
        "device": device.type if model.ranks == 1 else f"{model.ranks} x {device.type}",
        "threads": torch.get_num_threads(),
        "attention": f"{attention.__module__}.{attention.__name__}",
    }


def check_state(state: Mapping[str, Any], recipe: Mapping[str, object], environment: Mapping[str, object]) -> None:
    """Raise AvatarError for a state that is damaged or of another recipe; warn of another environment."""
    missing = sorted(PARTS - set(state))
    if missing:
        raise AvatarError(f"The saved state has no '{missing[0]}'; it is damaged, or no stream's.")
    for name, mine in recipe.items():
        if state["recipe"].get(name) != mine:
            raise AvatarError(
                f"The saved state was made with {name} {state['recipe'].get(name)} and this stream has {mine}; "
                "resume with the settings it was made with, or start anew."
            )
    for name, mine in environment.items():
        if state["environment"].get(name) != mine:
            log.warning(
                "resuming with %s %s where the state was made with %s: the video goes on, but not bit for bit",
                name, mine, state["environment"].get(name),
            )  # fmt: skip


def _plain(settings: object) -> dict[str, object]:
    """Settings as JSON would give them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items()}
