"""After the decoder: the portrait's own detail, moved to where a frame shows the face."""

from .decoder import load_refiner
from .model import RefinerNet

__all__ = ["RefinerNet", "load_refiner"]
