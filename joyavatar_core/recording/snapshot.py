"""What a state holds besides its tensors: the identity of the recording, and its finished segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from ..audio import AudioSource
from ..errors import AvatarError
from ..framing.person_finder import person_finder
from ..refiner import PortraitRefiner
from ..sampling.rolling_sampler import RollingSampler
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream
from ..vae import Decoder
from ..video.h264 import X264
from .files import open_regular
from .fingerprint import module_fingerprint, stream_digest, tensors_fingerprint, text_fingerprint, voice_fingerprint
from .state import DamagedError, same_layout

PROBE = 2  # height and width in latents of the picture that a decoder's cache is measured with
WHAT = {  # fingerprints, in words; the rest of an identity is settings
    "weights": "other weights", "config": "weights of another configuration", "decoder": "another decoder",
    "audio_encoder": "another audio encoder", "portrait": "another portrait", "voice": "another voice",
    "prompt": "another prompt", "driving_voice": "another driving voice", "refiner": "another refiner",
    "refined_portrait": "another portrait", "refined_face": "another place of the face",
    "person_finder": "another person finder, or none", "drawing": "a version that draws faces otherwise",
    "initial_latents": "other initial latents",
}  # fmt: skip
REFINEMENT: dict[str, Callable[[PortraitRefiner], Any]] = {
    "refined_size": lambda refine: list(refine.pixel_size),
    "refiner": lambda refine: module_fingerprint(refine.net),
    "refined_portrait": lambda refine: tensors_fingerprint([("", refine.portrait)]),
    "refined_face": lambda refine: refine.crop and list(dataclasses.astuple(refine.crop)),
    "person_finder": lambda refine: refine.crop and module_fingerprint(person_finder()),
    "drawing": lambda refine: DRAWING,
    "blinks": lambda refine: refine.blinks,
    "articulation": lambda refine: refine.articulation,
    "head_motion": lambda refine: refine.head_motion,
}
DRAWING = 4  # counts the ways in which faces have been drawn from the same networks; 1, or none: smooth skin
PARTS = 16  # of a latent's channel, whose means identify it
CLOSE = 1e-3  # equal numbers of two runs differ by less
OLD = {"encoder": X264}  # what recordings were made with before their identity said it


@dataclasses.dataclass(frozen=True)
class Segment:
    """A finished segment: bytes of its file, hashes of the file and of its frames before encoding (uint8 RGB)."""

    size: int
    digest: str
    pictures: str

    @classmethod
    def of(cls, path: Path, pictures: str) -> Segment:
        with open_regular(path) as file:
            return cls(path.stat().st_size, stream_digest(file), pictures)

    def check(self, path: Path) -> None:
        """Raises DamagedError unless the file is the one that was finished."""
        try:
            with open_regular(path) as file:
                whole = path.stat().st_size == self.size and stream_digest(file) == self.digest
        except OSError as problem:
            raise DamagedError(f"{path.name} is missing or unreadable ({problem.strerror})") from None
        if not whole:
            raise DamagedError(f"{path.name} is damaged")


def identity_of(stream: AvatarStream, decoder: Decoder, voice: AudioSource | None, **settings: Any) -> dict[str, Any]:
    """Everything that determines the frames and the files: fingerprints and settings, as JSON gives them back."""
    features = stream.audio
    tensors = {"prompt": stream.text, "initial_latents": stream.initial_latents}
    driving, encoder, hearing = voice, None, [None] * 3
    if features is not None:
        driving, encoder = voice if features.source is None else features.source, features.encoder
        hearing = [features.left_frames, features.right_frames, features.offset]
    return {
        "weights": module_fingerprint(stream.model),
        "config": text_fingerprint(repr(stream.config)),
        "decoder": module_fingerprint(decoder),
        "audio_encoder": module_fingerprint(encoder),
        "portrait": None if stream.reference is None else latent_means(stream.reference),
        **{name: tensors_fingerprint([("", t)]) if t is not None else None for name, t in tensors.items()},
        "voice": voice_fingerprint(voice) if voice is not None else None,
        "driving_voice": voice_fingerprint(driving) if driving is not voice else None,  # where the sound is another
        "frames": stream.num_video_frames,
        "hearing": hearing,
        **settings,
    }


def latent_means(latent: Tensor) -> list[float]:
    """The means of up to PARTS parts of each channel of a latent [1, C, F, h, w].

    They identify it: its bits depend on the device and the number of threads.
    """
    channels = latent[0].float().flatten(1)
    return [float(part.mean()) for part in channels.tensor_split(min(PARTS, channels.shape[1]), dim=1) for part in part]


def same_value(before: Any, value: Any) -> bool:
    """Whether a recorded part of an identity is this run's. Numbers in a list may differ by less than CLOSE."""
    if isinstance(value, list) and value and isinstance(value[0], float):
        alike = isinstance(before, list) and len(before) == len(value)
        return alike and all(isinstance(b, float) and abs(b - v) < CLOSE for b, v in zip(before, value, strict=True))
    return before == value


def refinement_of(refine: PortraitRefiner | None) -> dict[str, Any]:
    """The part of an identity that says how frames are refined."""
    return {name: None if refine is None else of(refine) for name, of in REFINEMENT.items()}


def check_identity(folder: Path, recorded: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raises AvatarError that names the first thing in which this run is not the recorded one."""
    for name, value in mine.items():
        before = recorded.get(name, OLD.get(name))
        if not same_value(before, value):
            # repr: what a file says must not reach a terminal raw
            what = WHAT.get(name) or f"{name.replace('_', ' ')} {repr(before)[:200]} and this run has {value!r}"
            raise AvatarError(
                f"The recording in {folder} was made with {what}; resume with the same, or choose another folder."
            )


def environment() -> dict[str, str]:
    """The versions that may change the encoder's bytes."""
    return {"av": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}


@torch.no_grad()
def cache_layout(stream: AvatarStream, decoder: Decoder) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of every tensor in the decoder's cache once a block is decoded, found on a tiny picture."""
    cache = decoder.new_cache()
    config = stream.config
    probe = torch.zeros(1, config.out_channels, config.block_frames, PROBE, PROBE, dtype=decoder.compute_dtype)
    decoder.decode(probe.to(decoder.compute_device), cache)
    width, height = (side // PROBE for side in stream.latent_size)

    def scaled(b: int, t: int, h: int, w: int, c: int) -> tuple[int, ...]:
        return b, t, h * height, w * width, c

    return {name: (scaled(*kept.shape), kept.dtype) for name, kept in cache.state_dict().items()}


def check_run_state(run: StreamRun, layout: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raises DamagedError unless a state fits this run: every tensor's shape and dtype, every number's range."""
    saved, cache, sampler = state["run"], run.cache, run.sampler
    block, cursor = saved["block"], saved["cursor"]
    frames, positions = saved["cache"]["frames"], saved["cache"]["positions"]
    numbers = [block, cursor, *frames, *positions]
    if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
        raise DamagedError("its numbers are out of range")
    if len(frames) != len(positions) or len(frames) > cache.slots or (block == 0) != (not frames):
        raise DamagedError("its cache does not fit")
    config = run.stream.config
    shape = (config.num_layers, 1, len(frames) * cache.tokens, config.num_heads, config.head_dim)
    whole = all(same_layout(saved["cache"][name], shape, cache.dtype) for name in ("keys", "values"))
    audio_embedding = (1, config.block_frames, config.audio_hidden)
    count = len(saved["past"])
    whole &= count <= sampler.blocks_kept and [past["index"] for past in saved["past"]] == [
        *range(block - count, block)
    ]
    for past in saved["past"]:
        whole &= set(past) == {"index", "latents", "hidden", "context_noise"} and 0 <= past["context_noise"] <= 1
        whole &= same_layout(past["latents"], sampler.shape, sampler.dtype)
        whole &= (
            same_layout(past["hidden"], audio_embedding, sampler.dtype) if config.audio_dim else past["hidden"] is None
        )
    last, form = saved.get("last"), (*sampler.shape[:2], 1, *sampler.shape[3:])
    whole &= last is None or same_layout(last, form, sampler.dtype)  # states of earlier versions have none
    if config.sampler == "rolling":
        whole &= window_fits(run.sampler, saved)
    expected = layout if block else {}
    whole &= set(state["decoder"]) == set(expected)
    whole &= all(same_layout(state["decoder"][name], *form) for name, form in expected.items())
    if not whole:
        raise DamagedError("its tensors do not fit this run")


def window_fits(sampler: RollingSampler, saved: Mapping[str, Any]) -> bool:
    """Whether a state's blocks in flight and the portrait's keys are those of a rolling sampler's run."""
    window, sink, cache = saved["window"], saved["sink"], sampler.passes.cache
    steps = len(sampler.stream.config.levels)
    whole = len(window) < steps and [one["index"] for one in window] == [
        *range(saved["block"], saved["block"] + len(window))
    ]
    for one in window:
        whole &= set(one) == {"index", "step", "latents"} and type(one["step"]) is int and 0 < one["step"] < steps
        whole &= same_layout(one["latents"], sampler.shape, sampler.dtype)
    if not saved["block"]:
        return whole and sink is None
    return whole and same_layout(sink, tuple(cache.keys_of(0).shape), cache.dtype)
