"""The state of a video autoencoder's causal layers between two calls."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import AvatarError


class VAECache:
    """The last input frames of every causal layer, by layer name.

    Life cycle: empty (``vae.new_cache()``) -> filled and carried from call to call by `decode` or `encode`, one cache
    per stream -> stored with `state_dict` or dropped. A layer that is absent has not been called yet. Temporal up- and
    downsamplers then treat the first frame of the call as the first of the stream.
    """

    def __init__(self) -> None:
        self.history: dict[str, Tensor] = {}  # [B, 1 or 2, H, W, C]

    def __contains__(self, layer: str) -> bool:
        return layer in self.history

    @property
    def nbytes(self) -> int:
        return sum(frames.nbytes for frames in self.history.values())

    def recall(self, layer: str, like: Tensor) -> Tensor | None:
        """The frames kept for `layer`, or None before its first call. Raises AvatarError if the picture changed."""
        frames = self.history.get(layer)
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
        """Store, for `layer`, the last `count` frames of the line (its history and the new frames)."""
        self.history[layer] = line[:, line.shape[1] - count :].detach().clone()

    def state_dict(self) -> dict[str, Tensor]:
        """The cache as contiguous tensors (a snapshot: later calls do not change it), ready for safetensors."""
        return {layer: frames.contiguous() for layer, frames in self.history.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a stored snapshot; an empty one makes the cache new again."""
        self.history = {layer: frames.clone() for layer, frames in state.items()}
