"""Contact sheets: frames side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def contact_sheet(rows: Sequence[np.ndarray], path: Path, columns: int = 8, scale: int = 1) -> None:
    """One row a video [T, H, W, 3] uint8, `columns` frames evenly spaced, as a PNG."""
    from PIL import Image

    picked = [row[np.linspace(0, len(row) - 1, columns).round().astype(int)] for row in rows]
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in picked])
    picture = picture.repeat(scale, 0).repeat(scale, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
