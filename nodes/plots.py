"""Small drawings of schedules."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

INK, GRID, PAPER = (210, 214, 220), (62, 66, 74), (32, 34, 38)
BAR, LINE, MARK = (95, 160, 240), (240, 180, 80), (225, 90, 90)
MARGIN, TITLE = 44, 22
DENSEST = 4  # pixels from one mark to the next


def chart(
    title: str,
    values: Sequence[float],
    marks: Sequence[int] = (),
    size: tuple[int, int] = (640, 200),
    bars: bool = False,
    first: str = "block 0",
) -> Image.Image:
    """Values over blocks, as bars or a line; `marks` are blocks with a red line through them."""
    width, height = size
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default()
    left, top, right, bottom = MARGIN, TITLE + 6, width - 12, height - 20
    highest = max([*values, 1e-9])
    draw.text((left, 5), title, INK, font)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        draw.line((left, y, right, y), GRID)
        draw.text((4, y - 6), f"{share * highest:.3g}", INK, font)
    count = max(1, len(values))
    pitch = (right - left) / count
    for block in marks if len(marks) * DENSEST < right - left else ():  # more would paint everything red
        x = left + (block + 0.5) * pitch
        draw.line((x, top, x, bottom), MARK)
    columns = [(left + index * pitch, bottom - value / highest * (bottom - top)) for index, value in enumerate(values)]
    if bars:
        gap = 3 if pitch >= 10 else 0
        for x, y in columns:
            draw.rectangle((round(x), min(y, bottom - 1), max(round(x), round(x + pitch) - 1 - gap), bottom), BAR)
    elif len(columns) == 1:
        draw.ellipse((left, columns[0][1] - 2, left + 4, columns[0][1] + 2), LINE)
    else:
        draw.line([(x + pitch / 2, y) for x, y in columns], LINE, 2)
    draw.text((left, bottom + 4), first, INK, font)
    last = f"block {len(values) - 1}"
    draw.text((right - draw.textlength(last, font), bottom + 4), last, INK, font)
    return image
