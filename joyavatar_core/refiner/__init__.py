"""After the decoder: the portrait's own detail, moved to where a frame shows the face."""

from .face_motion import USUAL_MOTION, FaceMotion
from .frame_rate import MOST_FPS, FrameRate, chosen_rate
from .model import RefinerNet
from .portrait_refiner import PortraitRefiner, load_refiner, refining_bytes
from .sizes import LARGEST_SCALE, TIMES, USUAL_SCALE, carried_size, refined_size

__all__ = [
    "LARGEST_SCALE",
    "MOST_FPS",
    "TIMES",
    "USUAL_MOTION",
    "USUAL_SCALE",
    "FaceMotion",
    "FrameRate",
    "PortraitRefiner",
    "RefinerNet",
    "carried_size",
    "chosen_rate",
    "load_refiner",
    "refined_size",
    "refining_bytes",
]
