"""Endless talking avatars: one portrait, one voice, a causal diffusion transformer, block by block."""

from __future__ import annotations

import importlib

_HOME = {  # public name -> module; loaded when asked for, so that importing the package stays fast
    "Avatar": "pipeline.avatar", "AvatarConfig": "config", "AvatarError": "errors",
    "AvatarOptions": "pipeline.avatar_options", "AvatarStream": "sampling.stream",
    "AvatarTransformer": "model.transformer", "ArrayAudio": "audio", "AudioFeatures": "audio", "FileAudio": "audio",
    "FixedFeatures": "audio", "GrowingAudio": "audio", "LatentBlock": "sampling.stream",
    "MciSettings": "sampling.mci", "NoiseSource": "sampling.noise", "PsbSettings": "sampling.psb",
    "StreamRun": "sampling.run", "StreamingVAE": "vae", "UrcrSettings": "sampling.urcr",
    "VideoWriter": "video", "frames_of": "pipeline.render",
    "load_avatar": "pipeline.avatar", "load_into": "checkpoints", "open_checkpoint": "checkpoints",
    "output_pixel_size": "pipeline.render", "output_rate": "pipeline.render", "FaceMotion": "refiner",
    "preset": "sampling.presets", "talk": "pipeline.render",
}  # fmt: skip
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
