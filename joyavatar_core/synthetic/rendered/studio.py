"""The OpenGL side of rendering: a context without a window, compiled materials, textures and framebuffers.

It runs on Mesa's software rasteriser and on a GPU's driver alike, through EGL. Pixels differ a little between them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ...errors import AvatarError
from .bundle import Bundle, load_bundle
from .mesh import MATERIALS
from .strips import TEXTURE as STRANDS
from .strips import strand_texture

WHITE = "white"  # a texture without a picture
SHADERS = Path(__file__).with_name("shaders")
SHADOW_SIDE, OCCLUSION_SIDE, NOISE_SIDE = 384, 192, 512
LIBRARIES = ({"libgl": "libGL.so.1", "libegl": "libEGL.so.1"}, {})  # without the development files, then with them
# Where the skins show cheeks and forehead: left, right, top, bottom as shares of the picture.
FACE_SAMPLES = ((0.80, 0.83, 0.38, 0.58), (0.88, 0.91, 0.40, 0.44), (0.88, 0.91, 0.54, 0.58))


class Texture(NamedTuple):
    """A texture on the device, and what materials want to know of it."""

    texture: object
    luminance: float  # mean where it is opaque, as stored, 0..1
    face: tuple[float, float, float]  # median colour of cheeks and forehead, linear; for skins


class Studio:
    """Build once per process and size; a `Scene` draws one person in it."""

    def __init__(self, bundle: Bundle, size: int = 256, supersampling: float = 1.5) -> None:
        self.bundle, self.size, self.side = bundle, size, round(size * supersampling)
        self.context = context = shared_context()
        vertex, lit = _shader("mesh.vert"), _shader("lit.glsl")
        surface = _shader("surface.glsl")
        self.materials = {
            name: context.program(vertex, f"{surface}\n{_shader(f'{name}.glsl')}\n{lit}") for name in MATERIALS
        }
        self.order = {name: k for k, name in enumerate(MATERIALS)}
        self.depth = context.program(vertex, _shader("depth.frag"))
        self.backdrop, self.film = (
            context.program(_shader("quad.vert"), _shader(f"{n}.frag")) for n in ("backdrop", "film")
        )
        corners = context.buffer(np.array([-1, -1, 1, -1, -1, 1, 1, 1], "f4"))
        self.backdrop_quad, self.film_quad = (
            context.vertex_array(program, [(corners, "2f", "in_corner")]) for program in (self.backdrop, self.film)
        )
        self.light = context.texture((self.side,) * 2, 4, dtype="f2")
        self.canvas = context.framebuffer([self.light], context.depth_renderbuffer((self.side,) * 2))
        self.picture = context.framebuffer([context.texture((size, size), 4)])
        self.shadow = context.depth_texture((SHADOW_SIDE,) * 2)
        self.shadow.compare_func = "<="
        self.shadow_map = context.framebuffer(depth_attachment=self.shadow)
        self.sky = context.depth_texture((OCCLUSION_SIDE,) * 2)
        self.sky.compare_func = ""
        self.sky_map = context.framebuffer(depth_attachment=self.sky)
        self.noise = self._noise()
        self._textures: dict[str, Texture] = {}
        self.masks = self.texture("mask.png").texture

    def texture(self, name: str) -> Texture:
        """A picture of the bundle on the device; loaded once."""
        if name not in self._textures:
            if name == STRANDS:
                pixels = strand_texture()
            elif name == WHITE:
                pixels = np.full((4, 4, 3), 255, np.uint8)
            else:
                with Image.open(self.bundle.textures / name) as picture:
                    pixels = np.asarray(picture.convert("RGB" if name.endswith(".jpg") else "RGBA"))
            face = _face_colour(pixels) if name.startswith("skin.") else (1.0,) * 3
            self._textures[name] = Texture(self.upload(pixels), _luminance(pixels), face)
        return self._textures[name]

    def upload(self, pixels: np.ndarray, repeat: bool = False):
        """Pixels [H, W, C] uint8, row 0 uppermost, as a texture whose v counts from below."""
        height, width, channels = pixels.shape
        texture = self.context.texture((width, height), channels, np.ascontiguousarray(pixels[::-1]), alignment=1)
        texture.build_mipmaps()
        texture.filter = self.context.LINEAR_MIPMAP_NEAREST, self.context.LINEAR
        texture.repeat_x, texture.repeat_y = True, repeat
        return texture

    def _noise(self):
        rng = np.random.default_rng(0)
        layers = [gaussian_filter(rng.normal(size=(NOISE_SIDE,) * 2), s, mode="wrap") for s in (0.8, 12, 2.2)]
        noise = np.stack([0.5 + 0.17 * layer / layer.std() for layer in layers], -1)
        return self.upload((np.clip(noise, 0, 1) * 255).astype(np.uint8), repeat=True)


def check_rendering() -> None:
    """Raise AvatarError if this machine cannot render people."""
    load_bundle()
    shared_context()


@lru_cache(maxsize=1)
def shared_context():
    """The process's only context: resources of another one would be deleted in whichever is current."""
    return open_context()


def _shader(name: str) -> str:
    return (SHADERS / name).read_text()


def open_context():
    """A new context without a window; raises AvatarError where there can be none."""
    try:
        import moderngl
    except ImportError:
        raise AvatarError(
            "Rendering people needs moderngl; install the project's extra 'train', or choose drawn people.", "people"
        ) from None
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's rasteriser: one process, one core
    for libraries in LIBRARIES:
        try:
            context = moderngl.create_context(standalone=True, backend="egl", **libraries)
        except Exception as found:  # moderngl and its loader raise plain Exception
            problem = found
        else:
            context.gc_mode = "auto"
            return context
    raise AvatarError(
        f"Rendering people needs EGL with OpenGL 3.3 ({problem}); on Debian install libegl1, libgl1 and "
        "libgl1-mesa-dri, or choose drawn people.",
        "people",
    )


def _luminance(pixels: np.ndarray) -> float:
    opaque = pixels[::4, ::4].reshape(-1, pixels.shape[2])
    if pixels.shape[2] == 4:
        opaque = opaque[opaque[:, 3] > 127]
    return float((opaque[:, :3] @ [0.3, 0.6, 0.1]).mean() / 255) if len(opaque) else 1.0


def _face_colour(pixels: np.ndarray) -> tuple[float, float, float]:
    height, width = pixels.shape[:2]
    samples = [
        pixels[int(top * height) : int(bottom * height) : 4, int(left * width) : int(right * width) : 4, :3]
        for left, right, top, bottom in FACE_SAMPLES
    ]
    colour = np.median(np.concatenate([s.reshape(-1, 3) for s in samples]), 0) / 255
    return tuple(np.maximum(colour, 0.02) ** 2)
