"""A training run's folder: its clips, what its stages have written, and the avatar made of that."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..audio import FeatureEncoder
from ..checkpoints import save_checkpoint
from ..checkpoints.reader import read_file
from ..errors import AvatarError
from ..model.transformer import AvatarTransformer
from ..pipeline.avatar import Avatar, load_audio_encoder, load_avatar, load_decoder
from ..pipeline.embedded import EMBEDDED_VAE
from ..refiner import load_refiner
from ..vae import StreamingVAE, vae_from_state_dict
from ..vae.state_dicts import wan_state_dict
from .configs import CONFIGS, Trained
from .initial_weights import read_weights
from .latents import LatentClips, latent_clips
from .loop import averaged_weights


@dataclass(frozen=True)
class RunFolder:
    """folder: where data, checkpoints and logs are. vae, audio_encoder: files used instead of the run's own."""

    folder: Path
    config: Trained
    vae_file: Path | None = None
    encoder_file: Path | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> RunFolder:
        """The folder that a command's options name."""
        return cls(options.runs, CONFIGS[options.config], options.vae, options.audio_encoder)

    @property
    def vae_path(self) -> Path:
        """Where `vae` writes."""
        return self.folder / "vae.safetensors"

    @property
    def transformer_path(self) -> Path:
        """Where `forcing` and `distill` write."""
        return self.folder / "avatar.safetensors"

    @property
    def viseme_encoder_path(self) -> Path:
        """Where `viseme-encoder` writes."""
        return self.folder / "visemes.safetensors"

    @property
    def decoder_path(self) -> Path:
        """Where `decoder` writes."""
        return self.folder / "decoder.safetensors"

    @property
    def refiner_path(self) -> Path:
        """Where `refiner` writes."""
        return self.folder / "refiner.safetensors"

    @property
    def face_editor_path(self) -> Path:
        """Where `editor` writes."""
        return self.folder / "face_editor.safetensors"

    @property
    def latent_flow_path(self) -> Path:
        """Where `latent-flow` writes."""
        return self.folder / "latent_flow.safetensors"

    def clips(self) -> list[Path]:
        """The training clips. Raises AvatarError if there are none."""
        paths = sorted((self.folder / "data").glob("train-*.safetensors"))
        if not paths:
            raise AvatarError(f"'{self.folder / 'data'}' holds no training clips; make them with the command 'data'.")
        return paths

    def held_out_clips(self) -> list[Path]:
        """The clips of people that training does not see; there may be none."""
        return sorted((self.folder / "data").glob("held-out-*.safetensors"))

    def vae(self) -> StreamingVAE:
        """The requested VAE, else the run's own, else the embedded one."""
        path = self.vae_file or (self.vae_path if self.vae_path.exists() else EMBEDDED_VAE)
        if not path.exists():
            raise AvatarError(f"There is no VAE '{path}'; train one with the command 'vae'.")
        return vae_from_state_dict(vae_weights(path))

    def encoder(self) -> FeatureEncoder | None:
        """The requested audio encoder, else the run's own, else the embedded one."""
        own = self.viseme_encoder_path
        return load_audio_encoder(self.config.model, self.encoder_file or (own if own.exists() else None))

    def latents(self, device: str) -> LatentClips:
        """The clips through the VAE and the audio encoder, on a device; made where they are not there yet."""
        encoder = self.encoder()
        return latent_clips(self.clips(), self.vae().to(device), self.folder, encoder)

    def transformer_weights(self) -> dict[str, Tensor]:
        """The weights of a finished stage, else stage 1's latest checkpoint."""
        if self.transformer_path.exists():
            return read_weights(self.transformer_path)
        return averaged_weights(self.folder / "forcing")

    def save_transformer(self, weights: dict[str, Tensor]) -> None:
        """Write a finished stage's weights."""
        save_checkpoint(self.transformer_path, weights, self.config.model)

    def avatar(self) -> Avatar:
        """The run's weights as an avatar."""
        model = AvatarTransformer(self.config.model)
        model.load_state_dict(self.transformer_weights())
        vae = self.vae()
        parts = (path if path.exists() else None for path in (self.face_editor_path, self.latent_flow_path))
        refiner = load_refiner(self.refiner_path, *parts) if self.refiner_path.exists() else None
        tiny = load_decoder(self.decoder_path, self.config.model) if self.decoder_path.exists() else vae
        return Avatar(model.eval().requires_grad_(False), vae, tiny, self.encoder(), "run", refiner)


def vae_weights(path: Path) -> dict[str, Tensor]:
    """A VAE file's weights under this project's names, in float32."""
    return wan_state_dict({name: tensor.copy(torch.float32) for name, tensor in read_file(path).tensors.items()})


def judged_avatar(options: argparse.Namespace) -> Avatar:
    """The embedded avatar with `--shipped`, else the run's."""
    return load_avatar() if options.shipped else RunFolder.of(options).avatar()
