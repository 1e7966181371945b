"""Clips as the transformer's inputs: latents of a frozen VAE, the voice's features, and the mouth's position."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..audio import ArrayAudio, AudioFeatures, FeatureEncoder, LogMel
from ..errors import AvatarError
from ..geometry import PIXELS_PER_CELL, VIDEO_FRAMES_PER_LATENT, to_latent_frames
from ..paths import replacing
from ..recording.fingerprint import module_fingerprint, tensors_fingerprint
from ..synthetic.clips import Clip
from ..synthetic.dataset import DESCRIPTION, load_clip
from ..synthetic.regions import eyes_above
from ..vae import StreamingVAE
from .parallel import Share

ENCODING = ("encoder.", "conv1.")  # the part of a VAE that the latents depend on


@dataclass(frozen=True)
class LatentClips:
    """Clips of equal length, all in memory."""

    latents: Tensor  # [N, 16, L, h, w] bfloat16, normalised; the first latent is the first frame alone
    features: Tensor  # [N, L, 4, audio_dim]
    boxes: Tensor  # [N, L, 4] the mouth region over the latent's frames: left, top, right, bottom in cells

    def __len__(self) -> int:
        return len(self.latents)

    def to(self, device: torch.device | str) -> LatentClips:
        """The same on a device."""
        return LatentClips(self.latents.to(device), self.features.to(device), self.boxes.to(device))

    @cached_property
    def centres(self) -> list[tuple[float, float]]:
        """The middle of eyes and mouth over each clip, in cells from the left and from the top."""
        eyes, mouth = eyes_above(self.boxes).mean(1), self.boxes.mean(1)
        middle = torch.stack([(mouth[:, 0] + mouth[:, 2]) / 2, (eyes[:, 1] + mouth[:, 3]) / 2], dim=1)
        return [(x, y) for x, y in middle.tolist()]


def latent_clips(
    paths: Sequence[Path],
    vae: StreamingVAE,
    runs: Path,
    encoder: FeatureEncoder | None = None,
    fps: int = 16,
    block_frames: int = 3,
) -> LatentClips:
    """The clips as latents, boxes and features; each is made once and kept in `runs`, so a kill loses one clip's work.

    Raises AvatarError for a folder with latents of another VAE, or features of another encoder.
    """
    encoder = encoder or LogMel()
    seeing = tensors_fingerprint(item for item in vae.state_dict().items() if item[0].startswith(ENCODING))
    hearing = {"encoder": module_fingerprint(encoder), "fps": fps, "block": block_frames}
    shown = _kept(paths, runs / "latents", {"vae": seeing}, lambda clip: encode_pictures(clip, vae))
    heard = _kept(paths, runs / "features", hearing, lambda clip: encode_voice(clip, encoder, fps, block_frames))
    return LatentClips(shown["latents"], heard["features"], shown["boxes"])


def _kept(
    paths: Sequence[Path], folder: Path, made_by: dict[str, object], make: Callable[[Clip], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The results of `make` for all clips, stacked. All processes compute them once and store them in `folder`."""
    from safetensors.torch import load_file, save_file
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    share, note = Share.mine(), folder / DESCRIPTION
    if note.exists() and json.loads(note.read_text()) != made_by:
        raise AvatarError(f"'{folder}' was made with another VAE or audio encoder; delete it to encode anew.")
    share.wait()
    if share.leads:
        note.write_text(json.dumps(made_by))
    own = [path for path in paths[share.rank :: share.world] if not (folder / path.name).exists()]
    for path in tqdm(own, desc=folder.name, unit="clip", mininterval=5, disable=not share.leads):
        with replacing(folder / path.name, shared=True) as unfinished:
            save_file(make(load_clip(path)), unfinished)
    share.wait()
    clips = [load_file(folder / path.name) for path in paths]
    return {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}


@torch.no_grad()
def encode_pictures(clip: Clip, vae: StreamingVAE) -> dict[str, Tensor]:
    """One clip's latents [16, L, h, w] and boxes [L, 4]."""
    device = vae.compute_device
    video = torch.from_numpy(clip.frames).to(device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.autocast(device.type, torch.bfloat16):  # off by 0.014 of a deviation, in two thirds of the time
        latents = vae.encode(video)[0].cpu()
    box = torch.from_numpy(clip.box)
    box = torch.cat([box[:1].expand(VIDEO_FRAMES_PER_LATENT - 1, -1), box]).unflatten(0, (-1, VIDEO_FRAMES_PER_LATENT))
    corners = torch.cat([box[..., :2].amin(1), box[..., 2:].amax(1)], dim=-1)
    return {"latents": latents.bfloat16().contiguous(), "boxes": corners / PIXELS_PER_CELL}


@torch.no_grad()
def encode_voice(clip: Clip, encoder: FeatureEncoder, fps: int, block_frames: int) -> dict[str, Tensor]:
    """One clip's features [L, 4, audio_dim]."""
    audio = AudioFeatures(ArrayAudio(clip.waveform, clip.sample_rate), encoder, fps, block_frames)
    count = to_latent_frames(len(clip.frames))
    return {"features": audio.latent_features(0, count).contiguous()}
