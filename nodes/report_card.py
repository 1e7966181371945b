"""A run's report for a node: dark, and readable where a node shows it 400 pixels wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..joyavatar_core.monitoring.report import clock_text
from ..joyavatar_core.monitoring.report_plot import limits, number, start_times, thinned
from .plots import GRID, INK, LINE, MARK, PAPER

WIDTH, EDGE = 800, 28  # pixels: two for each that a node shows
HEADLINE, LABEL = 40, 26  # heights of letters
PANEL = 120  # height of a curve
# (key of a block, what it is, its unit), the numbers that say whether a run was good
PANELS = (
    ("seconds", "time per block", "s"),
    ("colour", "colour drift", "CIELAB"),
    ("sharpness", "sharpness, 1 at the start", ""),
    ("correlation", "mouth follows voice", ""),
)


def report_card(summary: Mapping[str, Any]) -> Image.Image:
    """`RunReport.summary()` as an RGB picture, 800 pixels wide: totals in words, then a curve for each number known.

    Resets are grey verticals. `draw_report` of the core shows everything, larger.
    """
    blocks: Sequence[Mapping[str, Any]] = summary["blocks"]
    known = [
        (key, label, unit) for key, label, unit in PANELS if any(number(block.get(key)) is not None for block in blocks)
    ]
    image = Image.new(
        "RGB", (WIDTH, EDGE + 2 * (HEADLINE + 14) + len(known) * (PANEL + LABEL + 40) + LABEL + EDGE), PAPER
    )
    draw = ImageDraw.Draw(image)
    for line, text in enumerate(headlines(summary, blocks)):
        warned = line == 1 and bool(summary.get("warnings"))
        draw.text((EDGE, EDGE + line * (HEADLINE + 14)), text, MARK if warned else INK, font(HEADLINE))
    times = start_times(summary, blocks)
    span = max(times[-1], 1e-3)
    columns = [EDGE + at / span * (WIDTH - 2 * EDGE) for at in times]
    resets = [x for x, block in zip(columns, blocks, strict=False) if block.get("reset")]
    top = EDGE + 2 * (HEADLINE + 14) + 10
    for key, label, unit in known:
        values = [number(block.get(key)) for block in blocks]
        panel(draw, list(zip(columns, values, strict=False)), top + LABEL + 8, label, unit, resets)
        top += PANEL + LABEL + 40
    draw.text((EDGE, top), "0:00", INK, font(LABEL))
    end = clock_text(times[-1])
    draw.text((WIDTH - EDGE - draw.textlength(end, font(LABEL)), top), end, INK, font(LABEL))
    return image


def headlines(summary: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Length and pace; resets and warnings."""
    spent = sum(number(block.get("seconds")) or 0.0 for block in blocks)
    seconds = (number(summary.get("frames")) or 0.0) / (number(summary.get("fps")) or 16.0)
    resets, warned = sum(bool(block.get("reset")) for block in blocks), len(summary.get("warnings") or ())
    pace = f"{seconds / spent:.2f} x real time" if spent else "pace unknown"
    return [f"{clock_text(seconds)} at {pace}", f"{resets} resets, {warned or 'no'} drift warnings"]


def panel(
    draw: ImageDraw.ImageDraw,
    points: list[tuple[float, float | None]],
    top: int,
    label: str,
    unit: str,
    resets: Sequence[float],
) -> None:
    """A curve with its name and its last, lowest and highest value in words above it."""
    known = [value for _, value in points if value is not None]
    low, high = limits(known)
    values = f"{known[-1]:.3g} {unit}".strip() + f"  ({min(known):.3g} to {max(known):.3g})"
    draw.text((EDGE, top - LABEL - 8), label, INK, font(LABEL))
    draw.text((WIDTH - EDGE - draw.textlength(values, font(LABEL)), top - LABEL - 8), values, LINE, font(LABEL))
    draw.rectangle((EDGE, top, WIDTH - EDGE, top + PANEL), outline=GRID, width=2)
    for x in resets if len(resets) <= 60 else ():  # more would only tint the panel
        draw.line((x, top, x, top + PANEL), GRID, 2)
    line = [
        (x, top + PANEL - (value - low) / (high - low) * PANEL) for x, value in thinned(points) if value is not None
    ]
    if len(line) > 1:
        draw.line(line, LINE, 5, joint="curve")
    else:
        draw.ellipse((line[0][0] - 5, line[0][1] - 5, line[0][0] + 5, line[0][1] + 5), LINE)


def font(size: int) -> ImageFont.ImageFont:
    """Pillow's own font; before Pillow 10.1 it has one size."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()
