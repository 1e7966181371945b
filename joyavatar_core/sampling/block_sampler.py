"""The block-wise autoregressive sampler: it denoises one block after another over the cached past.

Order inside a block: URCR reset, PSB step count, MCI overlay, denoising, cache update.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..audio.clock import block_to_frames, block_to_latents
from ..audio.features import ungroup_frames
from ..device import to_device
from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT
from .flow import Level, add_noise, predict_x0
from .mci import CarriedNoise
from .noise import CONTEXT, INITIAL, INJECT, RENOISE, Noise, NoiseSource
from .noise_ahead import NoiseAhead
from .passes import Passes
from .psb import levels_for
from .stream import AvatarStream, LatentBlock

WAIT_SECONDS = 0.5  # between two looks at the interrupt, while a sampler waits for audio


@dataclass(frozen=True)
class PastBlock:
    """A finished block, as MCI, URCR's prefill and a saved state need it."""

    index: int
    latents: Tensor  # [B, 16, K, h, w]
    audio_embedding: Tensor | None  # [B, K, audio_hidden]
    context_noise: float  # noise level of its cache update

    def state_dict(self) -> dict[str, Any]:
        """Its fields under the names of the state format."""
        return {"index": self.index, "latents": self.latents, "hidden": self.audio_embedding,
                "context_noise": self.context_noise}  # fmt: skip

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> PastBlock:
        """The inverse of `state_dict`."""
        return cls(state["index"], state["latents"], state["hidden"], state["context_noise"])


class BlockSampler:
    """The state of a stream between two blocks, and how the next block is made from it.

    Nothing changes until a block's cache update is done: a sampler that was stopped inside a block makes the same
    block again. While `interrupt` is set, a block ends with InterruptedError.

    Attributes: `stream`, the recipe; `block`, the index of the next block; `cursor`, the position of its first frame;
    `past`, the newest blocks; `last`, the newest latent frame, which a reset does not drop, since it was shown;
    `passes`, None once closed.
    """

    def __init__(self, stream: AvatarStream, interrupt: threading.Event) -> None:
        self.stream, self.interrupt = stream, interrupt
        self.block = self.cursor = 0
        self.past: list[PastBlock] = []
        self.last: Tensor | None = None
        self.passes: Passes | None = Passes(stream)
        self.device, self.dtype = self.passes.device, self.passes.dtype
        width, height = stream.latent_size
        self.shape = (stream.batch, stream.config.out_channels, stream.config.block_frames, height, width)
        self.noise = self._new_noise()
        self._was_reset = False  # since the last block
        self._features: tuple[range, Tensor] | None = None  # the latent frames that were read last

    def has_block(self, block: int) -> bool:
        """Whether the stream has this block; waits for audio that has not come yet."""
        config = self.stream.config
        start = block_to_frames(block, config.block_frames, config.lead_frames).start
        # Audio that still grew may have ended while it was waited for.
        return not self._is_over(start) and self._wait_for_audio(block) and not self._is_over(start)

    def next_block(self) -> LatentBlock:
        """Make the next block, which the stream has to have."""
        config, psb, total = self.stream.config, self.stream.psb, self.stream.num_video_frames
        shown = block_to_frames(self.block, config.block_frames, config.lead_frames)
        started = time.perf_counter()
        self.passes.highest_position = 0
        self._was_reset |= self._make_room()  # kept where the block is stopped and made again
        levels = levels_for(psb.steps_for(self.block, len(config.levels)), config.levels, psb.mode, config.shift)
        before, latents = self.last, self._make_block(levels)
        self.last = latents[:, :, -1:]
        reset, self._was_reset = self._was_reset, False
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the one time a block waits for the device
        stop = shown.stop if total is None else min(shown.stop, total)
        return LatentBlock(
            index=self.block - 1, latents=latents, first_frame=shown.start, last_frame=stop - 1, steps=len(levels),
            reset=reset, max_position=self.passes.highest_position, seconds=time.perf_counter() - started,
            features=self._video_features(self.block - 1, stop - shown.start),
            features_before=self._video_features(self.block - 2),
            latents_before=before,
        )  # fmt: skip

    def update(self, stream: AvatarStream) -> None:
        """Go on with another recipe. Raises AvatarError where MCI injects more frames than the cache has room for."""
        room = self.passes.cache.slots - self.stream.urcr.capacity(self.stream.config)
        if stream.mci.injected > room:
            raise AvatarError(
                f"MCI cannot show {stream.mci.injected} frames in a run that was begun with room for {room}; "
                "start a new one."
            )
        before, self.stream = self.stream, stream
        self._features = None
        if stream.mci != before.mci:
            self._close_noise()
            self.noise = self._new_noise()
        if stream.text is not before.text:
            self.passes.set_text(stream.text)

    def reset(self, recent: int) -> None:
        """Drop all but the sinks and the newest `recent` latent frames. Raises AvatarError for another number."""
        count = self.stream.config.block_frames
        newest = min(len(self.past), self.block - -(-self.stream.urcr.sinks // count)) * count
        if not (isinstance(recent, int) and 0 <= recent <= max(0, newest) and recent % count == 0):
            raise AvatarError(
                f"A reset is to keep {recent} recent latent frames; give a multiple of {count} from 0 to "
                f"{max(0, newest)}."
            )
        self._keep(recent)
        self.past = self.past[len(self.past) - recent // count :]
        self._was_reset = True

    def close(self) -> None:
        """Free the cache."""
        self.passes, self.past = None, []
        self._close_noise()

    @property
    def blocks_kept(self) -> int:
        """Blocks kept in `past`."""
        needed = max(self.stream.urcr.recent, self.stream.mci.injected)
        return max(1, -(-needed // self.stream.config.block_frames))

    def state_dict(self, copied: bool) -> dict[str, Any]:
        """All that the next block depends on besides the recipe; views of the cache where it is not `copied`."""
        past = [block.state_dict() for block in self.past]
        return {
            "block": self.block,
            "cursor": self.cursor,
            "cache": self.passes.cache.state_dict(copied),
            "past": copy.deepcopy(past) if copied else past,
            "last": self.last.clone() if copied and self.last is not None else self.last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the block at which `state` was taken."""
        self.passes.cache.load_state_dict(state["cache"])
        self.block = state["block"]
        self.cursor = state["cursor"]
        self.past = [PastBlock.of(self._on_device(past)) for past in state["past"]]
        last = self._on_device({"last": state.get("last")})["last"]  # states of earlier versions have none
        self.last = self.past[-1].latents[:, :, -1:] if last is None and self.past else last

    # --- what a block is made of -----------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """URCR: reset where the positions run out, or drop what left the window; True for a reset."""
        config, urcr, cache = self.stream.config, self.stream.urcr, self.passes.cache
        if urcr.mode == "window":
            dropped = set(urcr.oldest_to_drop(cache.frame_ids, config))
            if dropped:
                cache.keep([slot for slot in range(cache.length) if slot not in dropped])
            return False
        if not urcr.reset_due(self.cursor, config.block_frames, config):
            return False
        self._keep(urcr.recent)
        return True

    def _keep(self, count: int) -> None:
        """Keep the sinks and the newest `count` frames alone, at positions 0, 1, 2 ..."""
        config, urcr, cache = self.stream.config, self.stream.urcr, self.passes.cache
        first_recent = self.block * config.block_frames - count
        sinks = [slot for slot, frame in enumerate(cache.frame_ids) if frame < urcr.sinks]
        recent = [slot for slot, frame in enumerate(cache.frame_ids) if frame >= first_recent]
        if urcr.mode != "prefill":
            back = self.cursor - count - len(sinks)  # how far the recent frames move
            cache.keep(sinks + recent)
            cache.shift(range(len(sinks), cache.length), -back)
        else:
            cache.keep(sinks)
            for past in self.past[len(self.past) - count // config.block_frames :]:
                self._store(past, position=cache.length)
        self.cursor = len(sinks) + count

    def _make_block(self, levels: Sequence[Level]) -> Tensor:
        """Denoise the next block and update the cache with it; [B, 16, K, h, w]."""
        audio_embedding = self._audio_embedding(self._frame_ids_of(self.block))
        overlay = self._overlay_motion()
        latents = self._denoise(levels, audio_embedding, overlay)
        self._update_cache(latents, audio_embedding)
        return latents

    def _overlay_motion(self) -> int:
        """MCI: write noisy copies of the newest generated frames behind the past; returns how many."""
        mci, count = self.stream.mci, self.stream.config.block_frames
        now = self.block * count
        generated = now - (1 if self.passes.reference is not None else 0)
        copies = min(mci.injected, generated, len(self.past) * count)
        if copies <= 0:
            return 0
        latents = torch.cat([past.latents for past in self.past], dim=2)[:, :, -copies:]
        audio_embedding = None
        if self.past[-1].audio_embedding is not None:
            audio_embedding = torch.cat([past.audio_embedding for past in self.past], dim=1)[:, -copies:]
        noisy = add_noise(latents, self._draw(INJECT, latents.shape), mci.noise)
        self.passes.forward(
            noisy, [1000 * mci.noise] * copies, audio_embedding, range(now - copies, now),
            range(self.cursor - copies, self.cursor), cache_only=True,
        )  # fmt: skip
        return copies

    def _denoise(self, levels: Sequence[Level], audio_embedding: Tensor | None, overlay: int) -> Tensor:
        """Noise -> clean latents [B, 16, K, h, w], over the past and the `overlay` frames behind it."""
        frame_ids, positions = self._frame_ids_of(self.block), range(self.cursor, self.cursor + self.shape[2])
        run = self.passes.prepare(audio_embedding, frame_ids, positions, slot=self.passes.cache.length + overlay)
        x = self._initial(self.block, levels[0])
        for step, (timestep, sigma) in enumerate(levels):
            self._check_interrupt()
            x = self._with_portrait(x)
            x0 = predict_x0(x, run(x, [timestep] * len(frame_ids)), sigma)
            if self.stream.on_step is not None:
                self.stream.on_step(self.block, step + 1, len(levels))
            if step + 1 < len(levels):
                x = add_noise(x0, self._draw(RENOISE, self.shape, step + 1), levels[step + 1][1])
        return self._with_portrait(x0)

    def _with_portrait(self, x: Tensor) -> Tensor:
        """Block 0 with the portrait as its conditioning frame, whatever was predicted there."""
        if self.block or self.passes.reference is None:
            return x
        return torch.cat([self.passes.reference, x[:, :, 1:]], dim=2)

    def _update_cache(self, latents: Tensor, audio_embedding: Tensor | None) -> None:
        """Cache the finished block's keys and values, and go on to the next block."""
        count = self.stream.config.block_frames
        past = PastBlock(self.block, latents, audio_embedding, self.stream.mci.context_noise)
        if self.block == 0 and self.stream.urcr.sinks and self.stream.urcr.sink_source == "portrait":
            still = dataclasses.replace(past, latents=self.passes.references(count), context_noise=0.0)
            self._store(still, self.cursor)
        else:
            self._store(past, self.cursor)
        self.past = [*self.past, past][-self.blocks_kept :]
        self.block += 1
        self.cursor += count

    def _store(self, past: PastBlock, position: int) -> None:
        """The pass of a cache update: a block's keys and values at `position`, under its context noise."""
        frame_ids = self._frame_ids_of(past.index)
        positions = range(position, position + len(frame_ids))
        conditioning = 1 if self.passes.is_conditioning(frame_ids[0]) else 0
        levels = [0.0] * conditioning + [past.context_noise] * (len(frame_ids) - conditioning)
        latents = past.latents
        if past.context_noise:
            noisy = add_noise(latents, self._draw(CONTEXT, latents.shape, block=past.index), past.context_noise)
            latents = torch.cat([latents[:, :, :conditioning], noisy[:, :, conditioning:]], dim=2)
        timesteps = [1000 * level for level in levels]
        self.passes.forward(latents, timesteps, past.audio_embedding, frame_ids, positions, cache_only=True)
        self.passes.cache.commit(frame_ids, positions)

    # --- inputs of a block -----------------------------------------------------------------------------------------

    def _frame_ids_of(self, block: int) -> range:
        """Latent frames of a block."""
        config = self.stream.config
        return block_to_latents(block, config.block_frames, config.lead_frames)

    def _initial(self, block: int, level: Level) -> Tensor:
        """What a block's first step gets, [B, 16, K, h, w]: noise, or initial latents at the first noise level."""
        noise, latents = self._draw(INITIAL, self.shape, block=block), self.stream.initial_latents
        if latents is None:
            return noise
        frame_ids = self._frame_ids_of(block)[-self.shape[2] :]
        clean = to_device(latents[:, :, frame_ids.start : frame_ids.stop], self.device, self.dtype)
        return add_noise(clean, noise, level[1])

    def _video_features(self, block: int, count: int | None = None) -> Tensor | None:
        """The audio features of a block's video frames, [n, audio_dim], or of the first `count`; None without audio."""
        config, audio = self.stream.config, self.stream.audio
        if audio is None or not config.audio_dim or self.stream.batch > 1:
            return None
        if block < 0:
            return torch.zeros(0, config.audio_dim)
        frame_ids = self._frame_ids_of(block)
        return ungroup_frames(self._latent_features(frame_ids), frame_ids.start)[:count]

    def _audio_embedding(self, frame_ids: range) -> Tensor | None:
        """The audio embedding of some latent frames, [B, F, audio_hidden]; None for checkpoints without audio."""
        config, audio = self.stream.config, self.stream.audio
        if not config.audio_dim:
            return None
        if audio is None:
            return self.passes.audio_embedding(torch.zeros(len(frame_ids), VIDEO_FRAMES_PER_LATENT, config.audio_dim))
        return self.passes.audio_embedding(self._latent_features(frame_ids))

    def _latent_features(self, frame_ids: range) -> Tensor:
        """The audio features of some latent frames, [F, 4, audio_dim], or [B, F, 4, audio_dim] of a batch.

        Those of the last call are kept.
        """
        if self._features is None or self._features[0] != frame_ids:
            self._features = frame_ids, self.stream.audio.latent_features(frame_ids.start, len(frame_ids))
        return self._features[1]

    def _draw(self, role: str, shape: Sequence[int], step: int = 0, block: int | None = None) -> Tensor:
        noise = self.noise.draw(role, self.block if block is None else block, step, shape)
        return to_device(noise, self.device, self.dtype)

    def _new_noise(self) -> Noise:
        """The stream's noise under MCI's carry; noise of our own is drawn ahead on CUDA."""
        stream = self.stream
        noise = CarriedNoise(stream.noise or NoiseSource(stream.seed), stream.mci.carried)
        own = stream.noise is None or stream.batch > 1
        return NoiseAhead(noise) if own and self.device.type == "cuda" else noise

    def _close_noise(self) -> None:
        if isinstance(self.noise, NoiseAhead):
            self.noise.close()

    def _wait_for_audio(self, block: int) -> bool:
        """Whether there is audio for a block."""
        audio = self.stream.audio
        if audio is None:
            return True
        while audio.num_video_frames is None:
            self._check_interrupt()
            if audio.wait(block, WAIT_SECONDS):
                return True
        return audio.wait(block)

    def _check_interrupt(self) -> None:
        if self.interrupt.is_set():
            raise InterruptedError("the block was left")

    def _is_over(self, frame: int) -> bool:
        total = self.stream.num_video_frames
        return total is not None and frame >= total

    def _on_device(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A part of a state with copies of its tensors: a state may lie in a mapped file that is replaced later."""
        return {
            name: value.to(self.device, self.dtype, copy=True) if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
