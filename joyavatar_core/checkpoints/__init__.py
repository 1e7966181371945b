"""Checkpoints: every public layout of a Wan2.1-style (avatar) transformer, brought to one canonical state dict."""

from .checkpoint import Checkpoint, checkpoint_from_state_dict, open_checkpoint, rounded, with_lora
from .loading import load_into, save_checkpoint
from .shapes import canonical_shapes, key_fingerprint

__all__ = [
    "Checkpoint",
    "canonical_shapes",
    "checkpoint_from_state_dict",
    "key_fingerprint",
    "load_into",
    "open_checkpoint",
    "rounded",
    "save_checkpoint",
    "with_lora",
]
