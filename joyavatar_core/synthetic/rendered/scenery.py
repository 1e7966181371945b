"""What is behind a person, out of focus: rooms and gardens of rectangles, gradients and lights."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 160


def sample_scenery(rng: np.random.Generator) -> np.ndarray:
    """[160, 160, 3] uint8."""
    kind, grey = rng.integers(0, 4), rng.uniform(0.12, 0.92)
    base = np.clip(grey + rng.normal(0, 0.035, 3) + rng.normal(0, 0.06) * np.array([1, 0, -1]), 0.03, 1)
    top, bottom = base * rng.uniform(0.75, 1.25), base * rng.uniform(0.5, 1.1)
    y = np.linspace(0, 1, SIDE)[:, None, None]
    picture = np.broadcast_to(top * (1 - y) + bottom * y, (SIDE, SIDE, 3))
    picture = Image.fromarray(np.clip(picture * 255, 0, 255).astype(np.uint8))
    if kind:
        draw = ImageDraw.Draw(picture, "RGBA")
        for _ in range(rng.integers(4, 30)):
            colour = np.clip((base + rng.normal(0, 0.2) + rng.normal(0, 0.06, 3)) * 255, 0, 255)
            (x, w), (v, h) = ((rng.uniform(-20, SIDE), rng.exponential(size)) for size in (28, 45))
            shape, box = (draw.ellipse, [x, v, x + w, v + w]) if kind == 3 else (draw.rectangle, [x, v, x + w, v + h])
            shape(box, fill=(*map(int, colour), int(rng.uniform(60, 255))))
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.5, 9))))
    if rng.random() < 0.35:
        draw = ImageDraw.Draw(picture, "RGBA")
        for _ in range(rng.integers(3, 25)):
            x, v, w = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(3, 12)
            light = (255, int(rng.uniform(190, 255)), int(rng.uniform(120, 255)), int(rng.uniform(30, 120)))
            draw.ellipse([x, v, x + w, v + w], fill=light)
        picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    noisy = np.asarray(picture).astype(np.float32) + rng.normal(0, 1.5, (SIDE, SIDE, 1))
    return np.clip(noisy, 0, 255).astype(np.uint8)
