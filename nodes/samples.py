"""Copies the sample portraits and voices to the host's input folder, so that the templates run without changes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from ..joyavatar_core.paths import replacing

ASSETS = Path(__file__).parent.parent / "joyavatar_core" / "assets"
PREFIX = "joyavatar_"  # the input folder is the user's and flat: say whose these are


def copy_samples() -> None:
    """Copy the samples to the host's input folder where it lacks them; never overwrites."""
    inputs = Path(folder_paths.get_input_directory())
    for source in sorted([*ASSETS.glob("portraits/*.png"), *ASSETS.glob("voices/*.flac")]):
        target = inputs / (PREFIX + source.name)
        if target.exists():
            continue
        try:
            with replacing(target, shared=True) as unfinished:
                shutil.copyfile(source, unfinished)
        except OSError as problem:  # a read-only input folder: the templates then need the user's own files
            logging.warning("JoyAvatar could not put its samples into %s: %s", inputs, problem)
            return
