"""Backgrounds out of focus: studios, rooms, streets, gardens and night scenes, composed at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

SIDE = 160


def sample_scenery(rng: np.random.Generator) -> np.ndarray:
    """[160, 160, 3] uint8."""
    scenes = {_studio: 0.3, _room: 0.3, _garden: 0.16, _street: 0.13, _night: 0.11}
    scene = list(scenes)[rng.choice(len(scenes), p=list(scenes.values()))]
    picture, blur = scene(rng)
    picture = _out_of_focus(picture, blur)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform(0.35, 1.0)
    return np.clip(picture * 255 + rng.normal(0, 1.0, picture.shape), 0, 255).astype(np.uint8)


def _out_of_focus(picture: np.ndarray, radius: float) -> np.ndarray:
    """Disc blur in linear light, so that lamps become discs: [H, W, 3] in 0..1."""
    if radius < 0.5:
        return picture
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    padded = np.pad(picture**2.2, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    blurred = np.stack([fftconvolve(padded[..., k], disc / disc.sum(), mode="valid") for k in range(3)], -1)
    return np.clip(blurred, 0, 1) ** (1 / 2.2)


def _colour(rng: np.random.Generator, low: float, high: float, vivid: float = 0.08) -> np.ndarray:
    """A muted colour between two greys, warm or cold."""
    warmth = rng.normal(0, vivid) * np.array([1, 0.1, -1])
    return np.clip(rng.uniform(low, high) + warmth + rng.normal(0, vivid / 3, 3), 0.02, 1)


def _gradient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    y = np.linspace(0, 1, SIDE)[:, None, None]
    return np.broadcast_to(top * (1 - y) + bottom * y, (SIDE, SIDE, 3)).copy()


def _clouds(rng: np.random.Generator, *sizes: float) -> np.ndarray:
    """[H, W] noise of unit deviation with features of the given sizes in pixels."""
    layers = [size * gaussian_filter(rng.normal(size=(SIDE, SIDE)), size, mode="wrap") for size in sizes]
    total = sum(layers)
    return total / total.std()


def _painted(picture: np.ndarray, paint: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    paint(ImageDraw.Draw(image, "RGBA"))
    return np.asarray(image, np.float64) / 255


def _fill(colour: np.ndarray, alpha: float = 1.0) -> tuple[int, ...]:
    return (*(int(255 * c) for c in np.clip(colour, 0, 1)), int(255 * alpha))


def _studio(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A cloth or a wall with a pool of light."""
    base = _colour(rng, 0.1, 0.92, rng.choice([0.03, 0.12, 0.25]))
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    far = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.1, 0.8))
    light = 1 + rng.uniform(-0.1, 0.5) - rng.uniform(0.1, 0.9) * far + rng.uniform(0.0, 0.05) * _clouds(rng, 3, 12, 30)
    return np.clip(base * light[..., None], 0, 1), rng.uniform(0, 2)


def _room(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A wall with a window, shelves, frames, a lamp, a plant or a door."""
    wall = _colour(rng, 0.25, 0.9)
    picture = _gradient(wall * rng.uniform(0.9, 1.1), wall * rng.uniform(0.6, 1.0))
    picture *= (1 + 0.02 * _clouds(rng, 6, 25))[..., None]

    def paint(draw: ImageDraw.ImageDraw) -> None:
        if rng.random() < 0.5:  # a window
            x, y, w, h = rng.uniform(-30, 120), rng.uniform(-20, 30), rng.uniform(30, 70), rng.uniform(60, 120)
            sky = _colour(rng, 0.8, 1.0, 0.05)
            draw.rectangle([x - 3, y - 3, x + w + 3, y + h + 3], fill=_fill(_colour(rng, 0.3, 0.95, 0.03)))
            draw.rectangle([x, y, x + w, y + h], fill=_fill(sky))
            for k in range(1, int(rng.integers(2, 4))):
                draw.line([x + w * k / 3, y, x + w * k / 3, y + h], fill=_fill(sky * 0.55), width=3)
            draw.line([x, y + h / 2, x + w, y + h / 2], fill=_fill(sky * 0.55), width=3)
        if rng.random() < 0.55:  # shelves
            wood, left, right = _colour(rng, 0.12, 0.6, 0.12), rng.uniform(-30, 80), rng.uniform(90, 190)
            for y in np.arange(rng.uniform(10, 30), 150, rng.uniform(24, 42)):
                x = left
                while x < right:
                    w, h = rng.uniform(2, 9), rng.uniform(10, 22)
                    if rng.random() < 0.8:
                        draw.rectangle([x, y - h, x + w, y], fill=_fill(_colour(rng, 0.1, 0.85, 0.2)))
                    x += w + 0.5
                draw.rectangle([left, y, right, y + 3], fill=_fill(wood))
        for _ in range(rng.integers(0, 4)):  # frames on the wall
            x, y, w, h = rng.uniform(0, 140), rng.uniform(0, 70), rng.uniform(14, 40), rng.uniform(14, 40)
            draw.rectangle([x, y, x + w, y + h], fill=_fill(_colour(rng, 0.05, 0.9, 0.1)))
            draw.rectangle([x + 3, y + 3, x + w - 3, y + h - 3], fill=_fill(_colour(rng, 0.2, 0.95, 0.2)))
        if rng.random() < 0.35:  # a plant
            x, y = rng.uniform(0, SIDE), rng.uniform(50, 140)
            for _ in range(40):
                dx, dy = rng.normal(0, 14), rng.normal(-14, 16)
                leaf = np.array([0.18, 0.4, 0.14]) * rng.uniform(0.5, 1.7)
                draw.ellipse([x + dx - 3, y + dy - 6, x + dx + 3, y + dy + 6], fill=_fill(leaf))
        if rng.random() < 0.35:  # a lamp
            x, y, r = rng.uniform(0, SIDE), rng.uniform(5, 100), rng.uniform(4, 12)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=_fill(np.array([1, 0.93, 0.75])))

    return _painted(picture, paint), rng.uniform(2, 8)


def _garden(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Sky over leaves over a lawn or sand."""
    sky = _gradient(_colour(rng, 0.55, 0.95, 0.12) * [0.9, 1, 1.08], _colour(rng, 0.75, 1.0, 0.06))
    green = np.array([rng.uniform(0.12, 0.4), rng.uniform(0.25, 0.5), rng.uniform(0.05, 0.22)])
    leaves = green * (1 + 0.45 * _clouds(rng, 1.5, 4, 12))[..., None]
    sparkle = (rng.random((SIDE, SIDE)) > 0.985)[..., None] * rng.uniform(0.3, 0.9)
    y = np.arange(SIDE)[:, None] / SIDE
    line = rng.uniform(-0.3, 0.6) + 0.06 * _clouds(rng, 4, 20)[:1]
    picture = np.where((y > line)[..., None], leaves + sparkle, sky)
    ground = rng.uniform(0.7, 1.2)
    lawn = _colour(rng, 0.3, 0.7, 0.1) * (1 + 0.08 * _clouds(rng, 2, 9))[..., None]
    return np.clip(np.where((y > ground)[..., None], lawn, picture), 0, 1), rng.uniform(4, 12)


def _street(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Houses with rows of windows under a sky, a pavement and passers-by."""
    picture = _gradient(_colour(rng, 0.6, 1.0, 0.1), _colour(rng, 0.7, 1.0, 0.06))

    def paint(draw: ImageDraw.ImageDraw) -> None:
        x = -20.0
        while x < SIDE:
            w, top, house = rng.uniform(25, 70), rng.uniform(-20, 70), _colour(rng, 0.15, 0.8, 0.12)
            draw.rectangle([x, top, x + w, SIDE], fill=_fill(house))
            pane, step_x, step_y = _colour(rng, 0.1, 0.9, 0.1), rng.uniform(8, 16), rng.uniform(10, 20)
            for u in np.arange(x + 4, x + w - 6, step_x):
                for v in np.arange(top + 6, 130, step_y):
                    light = pane * rng.uniform(0.6, 1.3)
                    draw.rectangle([u, v, u + step_x * 0.55, v + step_y * 0.6], fill=_fill(light))
            x += w
        road = rng.uniform(115, 150)
        draw.rectangle([0, road, SIDE, SIDE], fill=_fill(_colour(rng, 0.25, 0.65, 0.03)))
        for _ in range(rng.integers(0, 7)):
            u, h = rng.uniform(0, SIDE), rng.uniform(20, 50)
            draw.ellipse([u - h / 7, road - h, u + h / 7, road + 8], fill=_fill(_colour(rng, 0.05, 0.8, 0.2)))

    return _painted(picture, paint), rng.uniform(4, 12)


def _night(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Lamps and signs before the dark."""
    picture = _gradient(_colour(rng, 0.02, 0.2, 0.08), _colour(rng, 0.02, 0.25, 0.1))
    picture *= (1 + 0.3 * _clouds(rng, 8, 30))[..., None]

    def paint(draw: ImageDraw.ImageDraw) -> None:
        for _ in range(rng.integers(15, 70)):
            x, y, r = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.exponential(1.2) + 0.7
            lamp = np.array([1, rng.uniform(0.5, 1), rng.uniform(0.2, 1)])
            lamp = lamp if rng.random() < 0.8 else rng.permutation(lamp)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=_fill(lamp, rng.uniform(0.4, 1)))

    blurred = Image.fromarray((_painted(picture, paint) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5))
    return np.asarray(blurred, np.float64) / 255, rng.uniform(3, 9)
