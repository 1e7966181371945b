"""The geometry of Wan2.1's latents, and how pixels, latent cells, tokens and frames convert into one another.

A size is a tuple (width, height), and its name says its unit: `pixel_size` in pixels, `latent_size` in latent cells.
Tensors have the height first: [..., height, width].

`video_frames` and `latent_frames` are numbers of frames. `frame_ids` are the places of latent frames in a stream, from
0. Frame 0 stands for video frame 0 alone, every other one for the next 4.
"""

from __future__ import annotations

LATENT_CHANNELS = 16
PIXELS_PER_CELL = 8  # on each side
VIDEO_FRAMES_PER_LATENT = 4
CELLS_PER_TOKEN = 2  # on each side
PATCH = (1, CELLS_PER_TOKEN, CELLS_PER_TOKEN)  # of the transformer: latent frames, height, width
PIXELS_PER_TOKEN = PIXELS_PER_CELL * CELLS_PER_TOKEN  # on each side; a picture's sides are multiples of it

Size = tuple[int, int]  # (width, height)


def to_latent_size(pixel_size: Size) -> Size:
    """Pixels -> latent cells; sides that are no multiples of 8 are rounded down."""
    width, height = pixel_size
    return width // PIXELS_PER_CELL, height // PIXELS_PER_CELL


def to_pixel_size(latent_size: Size) -> Size:
    """Latent cells -> pixels."""
    width, height = latent_size
    return PIXELS_PER_CELL * width, PIXELS_PER_CELL * height


def to_token_size(latent_size: Size) -> Size:
    """Latent cells -> tokens."""
    width, height = latent_size
    return width // CELLS_PER_TOKEN, height // CELLS_PER_TOKEN


def tokens_per_frame(latent_size: Size) -> int:
    """Tokens of one latent frame."""
    width, height = to_token_size(latent_size)
    return width * height


def to_latent_frames(video_frames: int) -> int:
    """Latent frames that hold the first `video_frames` video frames of a stream."""
    return 1 + -(-(video_frames - 1) // VIDEO_FRAMES_PER_LATENT) if video_frames > 0 else 0


def to_video_frames(latent_frames: int) -> int:
    """Video frames that the first `latent_frames` latent frames of a stream decode to."""
    return 1 + VIDEO_FRAMES_PER_LATENT * (latent_frames - 1) if latent_frames > 0 else 0
