"""The refiner's training data: clips at the refined size, and the avatar's versions of them.

For every clip the autoencoder's round trip and the viseme encoder's output are stored. For a share of the clips a
self-rollout is stored as well: a stream of the same sampler that follows the clip (`self_rollouts`). Its frames have
the clip's poses and a stream's errors. Each is computed once.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import AvatarError
from ..evaluation.stream_pictures import SCALE, as_pictures, decoded, features_of, stream_size
from ..geometry import VIDEO_FRAMES_PER_LATENT, to_video_frames
from ..paths import replacing
from ..pipeline.avatar import Avatar
from ..recording.fingerprint import module_fingerprint
from ..sampling.run import StreamRun
from ..synthetic.clips import Clip
from ..synthetic.dataset import DESCRIPTION, load_clip
from .latents import encode_pictures, encode_voice
from .losses import box_weight
from .refiner_alignment import GRID, align, moved
from .self_rollouts import stream_from_clip

LEVELS = (1, 1, 1, 2, 3)  # of the avatar's noise levels; one of them is where a rollout's blocks begin
MOST_ROUNDS = 3  # of a rollout through its clip; only the last is kept
EXTRA_PORTRAITS = 4  # frames of the clip that are portraits, too
RECIPE = 2  # raise it whenever pairs hold something else


@dataclass(frozen=True)
class Pair:
    """A clip and what the avatar makes of it; pictures are uint8 [N, S, S, 3], S the stream's side.

    round_trip [T]; visemes [T, 8] float32, as a stream's blocks carry them; followed [F] with the frames `shows` [F] of
    the clip, the flow [F, 2, 8, 8] that brings the truth into their pose, and how far they then are `apart` [F] from
    it, in errors of the round trip (F is 0 without a rollout); portraits: the clip's, then the frames `chosen` [P],
    each through the autoencoder alone.
    """

    round_trip: np.ndarray
    visemes: np.ndarray
    followed: np.ndarray
    shows: np.ndarray
    flow: np.ndarray
    apart: np.ndarray
    portraits: np.ndarray
    chosen: np.ndarray


def pair_path(folder: Path, clip: Path) -> Path:
    """Where a clip's pair is kept."""
    return folder / clip.name


def make_pairs(avatar: Avatar, clips: Sequence[Path], folder: Path, rollouts: float = 1.0) -> list[Path]:
    """Make the pairs of clips that have none yet; returns all their paths.

    rollouts: share of the clips with a self-rollout, which takes three times as long as a round trip.
    Raises AvatarError for a folder with pairs of another avatar, for an avatar without viseme features, and for
    clips of another size.
    """
    from safetensors.numpy import save_file
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    note = folder / DESCRIPTION
    parts = ("transformer", "vae", "decoder", "encoder")
    made_by = {"recipe": RECIPE} | {name: module_fingerprint(getattr(avatar, name)) for name in parts}
    if avatar.config.audio_features != "visemes":
        raise AvatarError(f"The refiner needs visemes; '{avatar.name}' has {avatar.config.audio_features} features.")
    if not note.exists():
        note.write_text(json.dumps(made_by))
    elif json.loads(note.read_text()) != made_by:
        raise AvatarError(f"'{folder}' was made with another avatar or version; delete it to make the pairs anew.")
    missing = [path for path in clips if not pair_path(folder, path).exists()]
    for path in tqdm(missing, desc=folder.name, unit="clip", mininterval=5):
        seed = zlib.crc32(path.name.encode())
        pair = make_pair(avatar, load_clip(path), seed, rollout=np.random.default_rng([seed, 1]).random() < rollouts)
        with replacing(pair_path(folder, path), shared=True) as unfinished:
            save_file(dataclasses.asdict(pair), unfinished)
    return [pair_path(folder, path) for path in clips]


@torch.no_grad()
def make_pair(avatar: Avatar, clip: Clip, seed: int, rollout: bool = True) -> Pair:
    """The clip through the autoencoder, and as a self-rollout. Needs clips at the refined size."""
    random = np.random.default_rng(seed)
    small = stream_size(clip, avatar)
    features = encode_voice(clip, avatar.encoder, avatar.config.fps, avatar.config.block_frames)["features"]
    with torch.autocast("cpu", torch.bfloat16):
        latents = encode_pictures(small, avatar.vae)["latents"].float()
        chosen = random.choice(len(clip.frames), EXTRA_PORTRAITS, replace=False)
        still = np.concatenate([small.portraits, small.frames[chosen]])
        still = torch.cat([avatar.encode_portrait(picture) for picture in as_pictures(still)]).float()
        round_trip = decoded(avatar, latents[None])
        portraits = np.concatenate([decoded(avatar, latent[None]) for latent in still])
        followed, shows = round_trip[:0], np.zeros(0, np.int64)
        flow, apart = np.zeros((0, 2, GRID, GRID), np.float32), np.zeros(0, np.float32)
        if rollout:
            followed, shows = follow(avatar, latents, features, still[int(random.integers(len(still)))], random)
    if rollout:
        flow, apart = bring_together(small, round_trip, followed, shows)
    visemes = features_of(clip, avatar).numpy()
    return Pair(round_trip, visemes, followed, shows, flow, apart, portraits, chosen)


def bring_together(
    clip: Clip, round_trip: np.ndarray, followed: np.ndarray, shows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`flow` and `apart` of a Pair; the clip's pictures are of the stream's size, its labels of SCALE times that."""
    side = followed.shape[1]
    soft, made, truth = (as_pictures(frames) for frames in (round_trip[shows], followed, clip.frames[shows]))

    def inside(boxes: np.ndarray) -> Tensor:
        return box_weight(torch.from_numpy(boxes[shows]) / SCALE, side, side, 2.0)[:, None] - 1

    face, free = inside(clip.face), torch.stack([inside(clip.box), *map(inside, clip.eyes.swapaxes(0, 1))]).amax(0)
    flow = align(soft, made, free)

    def error(ours: Tensor, theirs: Tensor) -> Tensor:
        counted = face * (1 - free)
        return ((ours - theirs).abs() * counted).mean((1, 2, 3)) / counted.mean((1, 2, 3)).clamp(min=1e-3)

    apart = error(moved(truth, flow), made) / error(truth, soft).clamp(min=1e-3)
    return flow.numpy(), apart.numpy()


def follow(
    avatar: Avatar, latents: Tensor, features: Tensor, reference: Tensor, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A rollout's frames [F, S, S, 3] and the frames [F] of the clip that they show: the last of some rounds."""
    size = avatar.config.block_frames
    whole = latents.shape[1] // size * size
    rounds = 1 + int(random.integers(MOST_ROUNDS))
    order = [*range(whole), *[*range(size, whole)] * (rounds - 1)]
    stream = stream_from_clip(
        avatar.transformer, latents, features, order, seed=int(random.integers(2**31)), reference=reference,
        first_level=int(random.choice(LEVELS)), with_mci=bool(random.integers(2)),
    )  # fmt: skip
    made = torch.cat([block.latents for block in StreamRun(stream)], dim=2)[:, :, : len(order)]
    kept = whole - size if rounds > 1 else whole
    warm = size if rounds > 1 else 0  # the decoder's cache holds some past
    frames = decoded(avatar, made[:, :, -(kept + warm) :])
    shows = np.arange(to_video_frames(whole))
    count = VIDEO_FRAMES_PER_LATENT * kept if rounds > 1 else len(shows)
    return frames[-count:], shows[-count:]
