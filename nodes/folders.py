"""Where the host finds avatar checkpoints, and the VAE that comes with the pack."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ..joyavatar_core.pipeline.avatar import EMBEDDED
from ..joyavatar_core.pipeline.embedded import EMBEDDED_VAE

OWN_FOLDER = "joyavatar"  # models/joyavatar
CHECKPOINT_FOLDERS = ("diffusion_models", OWN_FOLDER)
CHECKPOINT_ENDINGS = (".safetensors", ".sft", ".pt", ".pth", ".bin", ".ckpt", ".gguf")


def register_folders() -> None:
    """Add models/joyavatar to the host's model folders and the embedded VAE to those of its VAE loader."""
    folder_paths.add_model_folder_path(OWN_FOLDER, str(Path(folder_paths.models_dir) / OWN_FOLDER))
    folder_paths.add_model_folder_path("vae", str(EMBEDDED_VAE.parent))


def checkpoint_names() -> list[str]:
    """What the loader offers: the embedded avatar, then every checkpoint file."""
    names = {
        name
        for folder in CHECKPOINT_FOLDERS
        if folder in folder_paths.folder_names_and_paths
        for name in [*folder_paths.get_filename_list(folder), *gguf_names(folder)]
        if name.lower().endswith(CHECKPOINT_ENDINGS)
    }
    return [EMBEDDED, *sorted(names)]


def gguf_names(folder: str) -> list[str]:
    """The GGUF files of a model folder, which the host's own list leaves out of models/diffusion_models."""
    return [
        os.path.relpath(os.path.join(place, name), path)
        for path in folder_paths.folder_names_and_paths[folder][0]
        for place, _, names in os.walk(path, followlinks=True)
        for name in names
        if name.lower().endswith(".gguf")
    ]


def checkpoint_path(name: str) -> Path | None:
    """The file named `name`; None if it does not exist."""
    for folder in CHECKPOINT_FOLDERS:
        found = folder_paths.get_full_path(folder, name) if folder in folder_paths.folder_names_and_paths else None
        if found:
            return Path(found)
    return None
