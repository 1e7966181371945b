"""What counts as a whole number or a number in a setting: not a truth value, not NaN."""

from __future__ import annotations

import math


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether this is an int from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object) -> bool:
    """Whether this is a finite int or float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
