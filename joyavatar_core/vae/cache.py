"""What the causal layers of a video autoencoder remember between two calls."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import AvatarError


class VAECache:
    """The last frames every causal layer has seen, by layer name.

    Life cycle: empty (``vae.new_cache()``) -> filled and carried from call to call by `decode` or `encode`, one cache
    per stream -> stored with `state_dict` or dropped. A layer that is absent has not been called yet: that absence is
    what lets a stream's first frame through a temporal up- or downsampler alone.
    """

    def __init__(self) -> None:
        self.frames: dict[str, Tensor] = {}  # [B, 1 or 2, H, W, C]

    def __contains__(self, layer: str) -> bool:
        return layer in self.frames

    @property
    def nbytes(self) -> int:
        return sum(frames.nbytes for frames in self.frames.values())

    def recall(self, layer: str, like: Tensor) -> Tensor | None:
        """The frames kept for `layer`, or None before its first call. Raises AvatarError if the picture changed."""
        frames = self.frames.get(layer)
        if frames is None:
            return None
        batch, _, height, width, channels = like.shape
        kept = (frames.shape[0], *frames.shape[2:])
        if kept != (batch, height, width, channels):
            raise AvatarError(
                f"The cache of {layer} holds {kept} (batch, height, width, channels) but the new frames are "
                f"{(batch, height, width, channels)}; use a new cache when the picture size, batch or model changes."
            )
        return frames.to(like)

    def keep(self, layer: str, line: Tensor, count: int) -> None:
        """Remember, for `layer`, the last `count` frames of the line (its history and the new frames)."""
        self.frames[layer] = line[:, line.shape[1] - count :].detach().clone()

    def state_dict(self) -> dict[str, Tensor]:
        """The cache as contiguous tensors (a snapshot: later calls do not change it), ready for safetensors."""
        return {layer: frames.contiguous() for layer, frames in self.frames.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a stored snapshot; an empty one makes the cache new again."""
        self.frames = {layer: frames.clone() for layer, frames in state.items()}
