"""Takes the grid of a face editor's cells out of what it draws. The definition is ours.

The editor's last layer makes all pixels of a cell at once. Neighbouring cells come out alike, and where mouths open
wide, the pattern in them is seen: stripes on the tongue, dashes in a row of teeth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .face_editor import CELL, Edit

NEAR = 3  # cells, across and down, over which a pattern is the same


def without_grid(edit: Edit) -> Edit:
    """An edit without the pattern that repeats from cell to cell in mask, covered and change."""
    maps = torch.cat([edit.mask, edit.covered, edit.change], dim=1)
    mask, covered, change = (maps - repeated(maps)).split([1, 1, 3], dim=1)
    return edit._replace(mask=mask.clamp(0, 1), covered=covered.clamp(0, 1), change=change)


def repeated(maps: Tensor) -> Tensor:
    """What repeats every CELL pixels near each place of maps [B, C, H, W], and is 0 in the mean over a cell."""
    padded = F.pad(maps, 4 * [CELL // 2], mode="replicate")
    smooth = F.avg_pool2d(F.avg_pool2d(padded, CELL, 1), 2, 1)  # no pattern is left, and even slopes are
    cells = F.pixel_unshuffle(maps - smooth, CELL)
    return F.pixel_shuffle(F.avg_pool2d(cells, NEAR, 1, NEAR // 2, count_include_pad=False), CELL)
