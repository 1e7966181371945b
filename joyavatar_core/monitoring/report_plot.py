"""The report of a run as one picture: a panel for every measure of a block, on a common time axis."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import AvatarError
from ..paths import replacing
from .report import clock_text

# (key of a block, label, unit); a panel is drawn where at least one block has the key
PANELS = (
    ("steps", "denoising steps", ""),
    ("seconds", "time per block", "s"),
    ("delay", "audio in to frame out", "s"),
    ("colour", "colour, distance from the first frame", "CIELAB"),
    ("sharpness", "sharpness, 1 = the first 10 s", ""),
    ("distance", "structure, distance from the first frame", ""),
    ("patch", "largest change of a part of the picture, beyond the usual", "grey levels"),
    ("correlation", "mouth and voice, correlation over 10 s", ""),
)
LEFT, RIGHT, TOP, BOTTOM, GAP = 76, 18, 44, 54, 26  # pixels
MAX_WARNINGS = 6  # listed below the panels
LARGEST = 1e12
MOST_RESETS = 150  # drawn; more would cover the panels
# Okabe and Ito's palette, which colour-blind readers can tell apart
INK, GRID, LINE, RESET, WARNING = (34, 34, 34), (225, 225, 225), (0, 114, 178), (86, 180, 233), (213, 94, 0)


def draw_report(summary: Mapping[str, Any], width: int = 1200, panel_height: int = 84) -> Image.Image:
    """Draw `RunReport.summary()` (or the JSON read back) as an RGB picture, `width` pixels wide.

    Light blue verticals are URCR resets, orange ones warnings. Without a block the picture says so.
    Raises AvatarError for what is not a report.
    """
    blocks = summary.get("blocks") if isinstance(summary, Mapping) else None
    if not isinstance(blocks, Sequence) or not all(isinstance(block, Mapping) for block in blocks):
        raise AvatarError("This is not a run's report (it has no list of blocks); give the JSON report of a run.")
    panels = [panel for panel in PANELS if any(number(block.get(panel[0])) is not None for block in blocks)]
    warnings = [
        str(warning.get("text", "")) for warning in summary.get("warnings") or () if isinstance(warning, Mapping)
    ]
    lines = min(len(warnings), MAX_WARNINGS)
    height = TOP + max(1, len(panels)) * (panel_height + GAP) + BOTTOM + 16 * lines
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    write(draw, (LEFT, 12), title(summary, blocks), 15)
    if not panels:
        write(draw, (LEFT, TOP + 20), "no block has been made yet", 13)
        return image
    times = start_times(summary, blocks)
    span = max(times[-1], 1e-3)

    def column(seconds: float) -> float:
        return LEFT + seconds / span * (width - LEFT - RIGHT)

    events = [(column(at), RESET) for at, block in zip(times, blocks, strict=False) if block.get("reset")]
    if len(events) > MOST_RESETS:
        events = []
    events += [(column(min(max(at, 0.0), span)), WARNING) for at in warned_at(summary)]
    for index, (key, label, unit) in enumerate(panels):
        top = TOP + index * (panel_height + GAP) + 16
        values = [number(block.get(key)) for block in blocks]
        points = [(column(at), value) for at, value in zip(times, values, strict=False)]
        draw_panel(draw, points, (top, top + panel_height), width, label, unit, events)
    draw_time_axis(draw, height - BOTTOM - 16 * lines, width, span)
    for index, text in enumerate(warnings[:lines]):
        more = f" (and {len(warnings) - lines} more)" if index == lines - 1 and len(warnings) > lines else ""
        write(draw, (LEFT, height - 14 - 16 * (lines - index)), text + more, 12, WARNING)
    return image


def save_plot(summary: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write `draw_report` as a PNG, atomically. Raises AvatarError where it cannot be written."""
    target, drawing = Path(path), draw_report(summary)
    try:
        with replacing(target) as unfinished:
            drawing.save(unfinished, format="PNG")
    except OSError as problem:
        reason = problem.strerror or problem
        raise AvatarError(f"The plot {target} cannot be written: {reason}; choose another place.") from None
    return target


def number(value: object) -> float | None:
    """A float that can be drawn, or None for what is no number or not there."""
    if isinstance(value, (int, float)) and abs(value) < LARGEST:  # also false for NaN
        return float(value)
    return None


def positive(value: object, default: float) -> float:
    """A number above 0, or the default."""
    found = number(value)
    return found if found is not None and found > 0 else default


def title(summary: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> str:
    frames, fps = positive(summary.get("frames"), 0.0), positive(summary.get("fps"), 16.0)
    resets = sum(bool(block.get("reset")) for block in blocks)
    words = [
        f"{summary.get('weights', 'avatar')}",
        f"{frames:.0f} frames",
        clock_text(frames / fps),
        f"{len(blocks)} blocks",
    ]
    words.append(f"{resets} resets")
    if summary.get("trained") is False:
        words.append("random weights")
    return "  |  ".join(words)


def start_times(summary: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[float]:
    """Video seconds at which each block begins, and where the last one ends; evenly spaced unless `frames` is known."""
    fps = positive(summary.get("fps"), 16.0)
    counts = [number(block.get("frames")) for block in blocks]
    total = positive(summary.get("frames"), 12.0 * len(blocks))
    times = [0.0]
    for count in counts:
        times.append(times[-1] + (total / len(blocks) if count is None else max(0.0, count)) / fps)
    return times


def warned_at(summary: Mapping[str, Any]) -> list[float]:
    found = (number(w.get("seconds")) for w in summary.get("warnings") or () if isinstance(w, Mapping))
    return [at for at in found if at is not None]


def draw_panel(draw, points, rows: tuple[int, int], width: int, label: str, unit: str, events) -> None:
    """One number over time; columns that several blocks share show their whole range."""
    top, bottom = rows
    known = [value for _, value in points if value is not None]
    low, high = limits(known)
    for value in (low, (low + high) / 2, high):
        y = bottom - (value - low) / (high - low) * (bottom - top)
        draw.line([(LEFT, y), (width - RIGHT, y)], fill=GRID)
        write(draw, (LEFT - 8, y), f"{value:.3g}", 11, anchor="rm")
    for x, colour in events:
        draw.line([(x, top), (x, bottom)], fill=colour)
    latest = f", now {known[-1]:.3g}{' ' + unit if unit else ''}"
    write(draw, (LEFT, top - 15), label + (f" [{unit}]" if unit else "") + latest, 12)
    run: list[tuple[float, float]] = []
    for x, value in (*thinned(points), (0.0, None)):  # the None draws what is left
        if value is not None:
            run.append((x, bottom - (value - low) / (high - low) * (bottom - top)))
            continue
        if len(run) > 1:
            draw.line(run, fill=LINE, width=2, joint="curve")
        elif run:
            draw.ellipse([run[0][0] - 2, run[0][1] - 2, run[0][0] + 2, run[0][1] + 2], fill=LINE)
        run = []


def thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most a low and a high for each pixel column, in time's order."""
    kept: list[tuple[float, float | None]] = []
    column: list[tuple[float, float | None]] = []
    for point in (*points, None):
        if column and (point is None or int(point[0]) != int(column[0][0])):
            real = [item for item in column if item[1] is not None]
            ends = {min(real, key=lambda item: item[1]), max(real, key=lambda item: item[1])} if real else {column[0]}
            kept += sorted(ends, key=column.index)
            column = []
        if point is not None:
            column.append(point)
    return kept


def limits(values: Sequence[float]) -> tuple[float, float]:
    """A range that shows the values with room to spare, never empty; from 0 where 0 is near."""
    low, high = min(values), max(values)
    if 0 < low < 0.5 * high:
        low = 0.0
    room = 0.06 * (high - low) or max(0.5, 0.1 * abs(high))
    return (low if low == 0 else low - room), high + room


def draw_time_axis(draw, y: int, width: int, span: float) -> None:
    step = next((s for s in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200) if span / s <= 10), span / 10)
    for index in range(int(span / step) + 1):
        x = LEFT + index * step / span * (width - LEFT - RIGHT)
        draw.line([(x, y - 6), (x, y)], fill=INK)
        write(draw, (x, y + 4), clock_text(index * step), 11, anchor="ma")


def write(draw, place: tuple[float, float], text: str, size: int, colour=INK, anchor: str = "la") -> None:
    """ASCII text in Pillow's own font, which has no other characters for certain."""
    try:
        font = ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1: one size, and no anchors
        font, anchor = ImageFont.load_default(), None
    draw.text(place, text.encode("ascii", "replace").decode(), fill=colour, font=font, anchor=anchor)
