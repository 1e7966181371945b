"""The voice: sources read in windows, the frame clock, and the features that drive the lips."""

from .clock import Clock, block_to_frames, latent_to_frames, num_blocks
from .features import AudioFeatures, FixedFeatures, reference_features
from .growing import GrowingAudio
from .mel import LogMel
from .opening import open_voice
from .pcm import PCM_FORMATS, read_pcm
from .protocols import FeatureEncoder, Features
from .source import ArrayAudio, AudioSource
from .switched import SwitchedAudio
from .visemes import VisemeEncoder
from .wav2vec2 import Wav2Vec2

__all__ = [
    "PCM_FORMATS", "ArrayAudio", "AudioFeatures", "AudioSource", "Clock", "FeatureEncoder", "Features", "FileAudio",  # noqa: F822
    "FixedFeatures", "GrowingAudio", "LogMel", "SwitchedAudio", "VisemeEncoder", "Wav2Vec2", "block_to_frames",
    "latent_to_frames", "num_blocks", "open_voice", "read_pcm", "reference_features",
]  # fmt: skip


def __getattr__(name: str):
    if name == "FileAudio":  # PyAV is loaded only where a file is read
        from .file import FileAudio

        return FileAudio
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
