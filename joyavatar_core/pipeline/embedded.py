"""The files of the avatar that comes with the project."""

from __future__ import annotations

from pathlib import Path

from ..refiner import RefinerNet, load_refiner

ASSETS = Path(__file__).parents[1] / "assets"
EMBEDDED_TRANSFORMER = ASSETS / "avatar.safetensors"
EMBEDDED_VAE = ASSETS / "vae" / "joyavatar_vae.safetensors"
EMBEDDED_DECODER = ASSETS / "decoder.safetensors"
EMBEDDED_REFINER = ASSETS / "refiner.safetensors"
EMBEDDED_FACE_EDITOR = ASSETS / "face_editor.safetensors"
EMBEDDED_LATENT_FLOW = ASSETS / "latent_flow.safetensors"
EMBEDDED_VISEME_ENCODER = ASSETS / "visemes.safetensors"  # for checkpoints with "visemes" features


def load_embedded_refiner() -> RefinerNet:
    """The embedded avatar's portrait refiner with all its parts, on the CPU."""
    return load_refiner(EMBEDDED_REFINER, EMBEDDED_FACE_EDITOR, EMBEDDED_LATENT_FLOW)
