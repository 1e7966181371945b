"""After the decoder: the portrait's own detail, moved to where a frame shows the face."""

from .model import RefinerNet
from .portrait_refiner import MOST, TIMES, USUAL_MOTION, FaceMotion, PortraitRefiner, load_refiner, refined_size

__all__ = [
    "MOST",
    "TIMES",
    "USUAL_MOTION",
    "FaceMotion",
    "PortraitRefiner",
    "RefinerNet",
    "load_refiner",
    "refined_size",
]
