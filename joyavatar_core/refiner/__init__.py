"""After the decoder: the portrait's own detail, moved to where a frame shows the face."""

from .model import RefinerNet
from .portrait_refiner import (
    LARGEST_SCALE,
    TIMES,
    USUAL_MOTION,
    FaceMotion,
    PortraitRefiner,
    load_refiner,
    refined_size,
)

__all__ = [
    "LARGEST_SCALE",
    "TIMES",
    "USUAL_MOTION",
    "FaceMotion",
    "PortraitRefiner",
    "RefinerNet",
    "load_refiner",
    "refined_size",
]
