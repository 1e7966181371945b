"""Unbounded RoPE via Cache-Resetting: positions stay in the trained range, however long the stream is.

The name is the JoyAvatar paper's (arXiv 2512.11423); what is kept at a reset, and how, is this project's definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..checks import is_whole
from ..config import AvatarConfig
from ..errors import AvatarError
from .mci import MciSettings

MODES = ("rotate", "prefill", "window")
OLD_MODES = {"off": "window"}  # before it was renamed
SINK_SOURCES = ("first", "portrait")
MOST_ROTATIONS = 2  # of a key while it is in the cache: each rounds it once to the cache's dtype


@dataclass(frozen=True)
class UrcrSettings:
    """What stays in the cache when the positions run out. All counts are latent frames.

    mode: `rotate` resets the cache and rotates the keys of recent frames to their new positions. `prefill` resets it
        and runs recent frames through the model again. `window` never resets: a window slides over the newest frames,
        and positions grow without bound. (`off`, the old name of `window`, is accepted.)
    sinks: first frames of the stream, which always stay.
    recent: newest frames that stay at a reset.
    sink_source: `first` caches the first block as it was generated, `portrait` the portrait in its place.
    window: most frames in the cache in mode `window`, sinks included; None is the trained length.
    """

    mode: str = "rotate"
    sinks: int = 3
    recent: int = 6
    sink_source: str = "portrait"
    window: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mode, str):
            object.__setattr__(self, "mode", OLD_MODES.get(self.mode, self.mode))
        if self.mode not in MODES:
            raise AvatarError(f"URCR mode is '{self.mode}'; choose one of {', '.join(MODES)}.")
        if self.sink_source not in SINK_SOURCES:
            raise AvatarError(f"URCR sink_source is '{self.sink_source}'; choose one of {', '.join(SINK_SOURCES)}.")
        if self.window is not None and self.mode != "window":
            raise AvatarError(f"URCR window is {self.window}, which belongs to mode 'window', not to '{self.mode}'.")
        for name, value in (("sinks", self.sinks), ("recent", self.recent), ("window", self.window)):
            if not (is_whole(value, 0, 10**6) or (value is None and name == "window")):
                raise AvatarError(f"URCR {name} is {value}; give a whole number of latent frames from 0 to 1000000.")

    def check(self, config: AvatarConfig, mci: MciSettings) -> None:
        """Raise AvatarError where the settings do not suit a checkpoint's block and trained length."""
        block, trained = config.block_frames, config.trained_positions
        if config.sampler == "rolling":
            self._check_rolling(config, mci)
            return
        if self.sink_source == "portrait" and self.sinks:
            if not config.has_reference:
                raise AvatarError("URCR sinks come from the portrait, but this checkpoint takes none; use 'first'.")
            if self.sinks < block:
                raise AvatarError(
                    f"URCR keeps {self.sinks} sink frames of the portrait; give 0 or at least one block ({block})."
                )
        if self.mode == "window":
            window = trained if self.window is None else self.window
            if window < self.sinks + block:
                raise AvatarError(
                    f"A window of {window} frames has no room for {self.sinks} sinks and a block of {block}; widen it."
                )
            return
        if trained < block:
            raise AvatarError(
                f"A block of {block} frames does not fit the {trained} trained positions; use mode 'window'."
            )
        if self.sinks % block or self.recent % block:
            raise AvatarError(
                f"URCR keeps {self.sinks} sinks and {self.recent} recent frames; "
                f"both must be multiples of the block, {block}."
            )
        if self.sinks + self.recent > trained - block:
            raise AvatarError(
                f"URCR keeps {self.sinks} + {self.recent} frames, which leaves no room for a block of {block} "
                f"within the {trained} trained positions; keep at most {trained - block}."
            )
        between = (trained - self.sinks - self.recent) // block * block  # frames from one reset to the next
        if self.mode == "rotate" and self.recent > MOST_ROTATIONS * between:
            raise AvatarError(
                f"URCR 'rotate' with {self.sinks} sinks and {self.recent} recent frames would rotate a key more than "
                f"{MOST_ROTATIONS} times within {trained} positions; keep fewer recent frames or use 'prefill'."
            )
        if mci.injected > self.recent:
            raise AvatarError(
                f"MCI shows the newest {mci.injected} frames but URCR keeps only {self.recent}; "
                "raise recent or lower MCI's frames."
            )

    def _check_rolling(self, config: AvatarConfig, mci: MciSettings) -> None:
        if mci.injected or mci.context_noise:
            raise AvatarError(
                "In a rolling window every block already sees noisy neighbours, which is what MCI would add; switch it "
                "off.",
                "mci",
            )
        if self.mode == "prefill" or self.window is not None:
            raise AvatarError(
                f"URCR mode is '{self.mode}' with window {self.window}, but a rolling window takes 'rotate' or "
                "'window' without a length; change it."
            )
        if self.sinks != 1 or self.sink_source != "portrait":
            raise AvatarError("A rolling window's sink is the portrait's frame; give sinks=1,sink_source=portrait.")
        if self.recent > config.block_frames:
            raise AvatarError(
                f"URCR keeps {self.recent} recent frames, and a rolling window has one block of "
                f"{config.block_frames}; keep at most {config.block_frames}."
            )
        if self.mode == "rotate" and self.capacity(config) > config.trained_positions:
            raise AvatarError(
                f"A rolling window with its history has {self.capacity(config)} frames, more than the "
                f"{config.trained_positions} trained positions; use mode 'window'."
            )

    def reset_due(self, cursor: int, frames: int, config: AvatarConfig) -> bool:
        """Whether a pass over `frames` latent frames, the first at position `cursor`, needs a reset before it."""
        return self.mode != "window" and cursor + frames > config.trained_positions

    def capacity(self, config: AvatarConfig) -> int:
        """Most latent frames cached or being denoised at once."""
        if config.sampler == "rolling":
            return self.sinks + self.recent + config.window_frames
        if self.mode == "window":
            return config.trained_positions if self.window is None else self.window
        # Blocks, sinks and recent frames are whole blocks: what does not fill one is never reached.
        return config.trained_positions // config.block_frames * config.block_frames

    def oldest_to_drop(self, frame_ids: Sequence[int], config: AvatarConfig) -> list[int]:
        """Mode `window`: slots of the frames that leave the window so that the next block fits; the sinks stay."""
        surplus = len(frame_ids) + config.block_frames - self.capacity(config)
        unpinned = sorted((frame, slot) for slot, frame in enumerate(frame_ids) if frame >= self.sinks)
        return [slot for _, slot in unpinned[: max(0, surplus)]]


SLIDING_WINDOW = UrcrSettings(mode="window", sinks=0, recent=0, sink_source="first")
