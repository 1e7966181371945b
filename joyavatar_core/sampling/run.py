"""StreamRun: the one place with state. It makes one block after another from a recipe.

Order inside a block: URCR reset, PSB step count, MCI overlay, denoising, refresh, emit. Nothing counts until the
refresh is stored, so a run stopped inside a block makes the same block again when it is pulled once more.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..audio.clock import block_to_frames
from ..device import to_device
from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT, tokens_per_frame
from ..model.graphs import GraphedPasses
from ..model.kv_cache import KVCache
from ..model.transformer import SelfContext
from .flow import Level, add_noise, predict_x0
from .noise import CONTEXT, INITIAL, INJECT, RENOISE, NoiseSource
from .noise_ahead import NoiseAhead
from .psb import levels_for
from .run_state import check_state, environment_of, recipe_of
from .stream import AvatarStream, LatentBlock

WAIT_SECONDS = 0.5  # after which a run that waits for its voice looks whether it is to stop
TABLES = 64


@dataclass(frozen=True)
class PastBlock:
    """A finished block as far as it may be shown to the model again."""

    index: int
    latents: Tensor  # [1, 16, K, h, w]
    hidden: Tensor | None  # its voice, [1, K, audio_hidden]
    context_noise: float  # level at which it was remembered


class StreamRun:
    """Iterator over the blocks of an `AvatarStream`; memory and time a block do not depend on how many came before.

    Life cycle: made by ``iter(stream)``; each ``next`` is one block; `state_dict` / `load_state_dict` between blocks;
    `update` changes the recipe from the next block on; `close` frees the cache. While `interrupt` is set, a block that
    is being made, or waits for its voice, ends with InterruptedError.
    """

    def __init__(self, stream: AvatarStream) -> None:
        config = stream.model.config
        self.stream = stream
        self.block = 0  # index of the next block
        self.cursor = 0  # position of its first frame
        self.past: list[PastBlock] = []
        self.highest_position = 0  # of any pass since the last block
        self._was_reset = False  # by `reset`, since the last block
        self.interrupt = threading.Event()
        self._tables: dict[tuple, Tensor] = {}  # what passes need and blocks share, on the device
        width, height = stream.latent_size
        self.device = stream.compute_device
        self.dtype = stream.compute_dtype
        self.noise = stream.noise or self._new_noise(stream)
        self.cache: KVCache | None = self._new_cache()
        self.reference = None
        if stream.reference is not None:
            self.reference = stream.reference.to(self.device, self.dtype)
        self.shape = (1, config.out_channels, config.block_frames, height, width)
        self._encode_text()

    def __iter__(self) -> StreamRun:
        return self

    @torch.no_grad()
    def __next__(self) -> LatentBlock:
        self._expect_open()
        config = self.stream.model.config
        shown = block_to_frames(self.block, config.block_frames, config.lead_frames)
        if self._over(shown.start) or not self._wait_for_voice(self.block):
            raise StopIteration
        if self._over(shown.start):  # a voice that was still being spoken may have ended meanwhile
            raise StopIteration
        total = self.stream.num_frames

        self.highest_position = 0
        started = time.perf_counter()  # waiting for a voice that is still being spoken does not count
        reset = self._make_room() or self._was_reset
        hidden = self._hear()
        trained = config.levels
        levels = levels_for(
            self.stream.psb.steps_for(self.block, len(trained)), trained, self.stream.psb.mode, config.shift
        )
        overlay = self._overlay_motion()
        latents = self._denoise(levels, hidden, behind=overlay)
        self._remember(latents, hidden)
        self._was_reset = False
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the one time a block waits for the device

        stop = shown.stop if total is None else min(shown.stop, total)
        return LatentBlock(
            index=self.block - 1, latents=latents, first_frame=shown.start, last_frame=stop - 1, steps=len(levels),
            reset=reset, max_position=self.highest_position, seconds=time.perf_counter() - started,
        )  # fmt: skip

    def _wait_for_voice(self, block: int) -> bool:
        """Whether there is a voice for a block; waits while it is still being spoken."""
        audio = self.stream.audio
        if audio is None:
            return True
        while audio.num_video_frames is None:
            self._heed_interrupt()
            if audio.wait(block, WAIT_SECONDS):
                return True
        return audio.wait(block)

    def _heed_interrupt(self) -> None:
        if self.interrupt.is_set():
            raise InterruptedError("the block was left")

    def _expect_open(self) -> None:
        if self.cache is None:
            raise AvatarError("This run is closed; iterate the stream again for a new one.")

    def _over(self, frame: int) -> bool:
        total = self.stream.num_frames
        return total is not None and frame >= total

    def update(self, **changes: object) -> None:
        """Change fields of the recipe (text, audio, psb, mci, frames, on_step) from the next block on.

        The past stays as it is; only the text's keys are made anew. Raises AvatarError for a field that cannot change
        inside a run, and for values the recipe refuses.
        """
        fixed = sorted(set(changes) - {"text", "audio", "psb", "mci", "frames", "on_step"})
        if fixed:
            raise AvatarError(f"A running stream cannot change its {fixed[0]}; start a new one.")
        updated = dataclasses.replace(self.stream, **changes)
        room = self.cache.slots - self.stream.urcr.capacity(self.stream.model.config)
        if updated.mci.injected > room:
            raise AvatarError(
                f"MCI cannot show {updated.mci.injected} frames in a run that was begun with room for {room}; "
                "start a new one."
            )
        self.stream = updated
        if "mci" in changes and updated.noise is None:
            self.noise = self._new_noise(updated)
        if "text" in changes:
            self._encode_text()

    @torch.no_grad()
    def reset(self, recent: int = 0) -> None:
        """Forget all but the sinks and the newest `recent` latent frames, before the next block.

        What URCR does when the positions run out, at any time and with any multiple of the block up to URCR's recent
        or MCI's frames: with 0 only the sinks stay, so that whatever has gone wrong since is not seen again; the motion
        has a seam there. Raises AvatarError for another number.
        """
        self._expect_open()
        block = self.stream.model.config.block_frames
        newest = min(len(self.past), self.block - -(-self.stream.urcr.sinks // block)) * block
        if not (isinstance(recent, int) and 0 <= recent <= max(0, newest) and recent % block == 0):
            raise AvatarError(
                f"A reset is to keep {recent} recent latent frames; give a multiple of {block} from 0 to "
                f"{max(0, newest)}."
            )
        self._keep(recent)
        self.past = self.past[len(self.past) - recent // block :]
        self._was_reset = True

    def close(self) -> None:
        """Free the cache; the run is over."""
        self.cache = self._graphs = None
        self.past = []
        if isinstance(self.noise, NoiseAhead):
            self.noise.close()

    def _new_noise(self, stream: AvatarStream) -> NoiseSource | NoiseAhead:
        source = NoiseSource(stream.seed, stream.mci.carried)
        return NoiseAhead(source) if self.device.type == "cuda" else source

    @property
    def blocks_kept(self) -> int:
        """How many of the newest blocks are kept as latents, to be shown again."""
        needed = max(self.stream.urcr.recent, self.stream.mci.injected)
        return max(1, -(-needed // self.stream.model.config.block_frames))

    # --- one block -------------------------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """URCR: reset where the positions run out, or let the window slide; True if it was a reset."""
        config, urcr = self.stream.model.config, self.stream.urcr
        if urcr.mode == "off":
            dropped = set(urcr.oldest_to_drop(self.cache.frames, config))
            if dropped:
                self.cache.keep([slot for slot in range(self.cache.length) if slot not in dropped])
            return False
        if not urcr.reset_due(self.cursor, config):
            return False
        self._keep(urcr.recent)
        return True

    def _keep(self, count: int) -> None:
        """Remember the sinks and the newest `count` frames alone, at positions 0, 1, 2 ..."""
        config, urcr = self.stream.model.config, self.stream.urcr
        first_recent = self.block * config.block_frames - count
        sinks = [slot for slot, frame in enumerate(self.cache.frames) if frame < urcr.sinks]
        recent = [slot for slot, frame in enumerate(self.cache.frames) if frame >= first_recent]
        if urcr.mode != "prefill":
            back = self.cursor - count - len(sinks)  # how far the recent frames move
            self.cache.keep(sinks + recent)
            self.cache.shift(range(len(sinks), self.cache.length), -back)
        else:
            self.cache.keep(sinks)
            for past in self.past[len(self.past) - count // config.block_frames :]:
                self._store(past, position=self.cache.length)
        self.cursor = len(sinks) + count

    def _hear(self) -> Tensor | None:
        """The voice of the next block, [1, K, audio_hidden]; None for checkpoints without audio."""
        return self._voice_of(self._block_frames())

    def _voice_of(self, frames: range) -> Tensor | None:
        """The voice of some latent frames, [1, frames, audio_hidden]."""
        config, audio = self.stream.model.config, self.stream.audio
        if not config.audio_dim:
            return None
        if audio is None:
            features = torch.zeros(len(frames), VIDEO_FRAMES_PER_LATENT, config.audio_dim)
        else:
            features = audio.latent_features(frames.start, len(frames))
        return self.stream.model.encode_audio(to_device(features.unsqueeze(0), self.device, self.dtype))

    def _overlay_motion(self) -> int:
        """MCI: write noisy copies of the newest generated frames behind the past; returns how many."""
        mci, frames = self.stream.mci, self.stream.model.config.block_frames
        given = 1 if self.reference is not None else 0
        now = self.block * frames
        count = min(mci.injected, now - given, len(self.past) * frames)
        if count <= 0:
            return 0
        latents = torch.cat([past.latents for past in self.past], dim=2)[:, :, -count:]
        hidden = None
        if self.past[-1].hidden is not None:
            hidden = torch.cat([past.hidden for past in self.past], dim=1)[:, -count:]
        noisy = add_noise(latents, self._draw(INJECT, latents.shape), mci.noise)
        self._forward(
            noisy, [1000 * mci.noise] * count, hidden, range(now - count, now),
            range(self.cursor - count, self.cursor), cache_only=True,
        )  # fmt: skip
        return count

    def _denoise(self, levels: Sequence[Level], hidden: Tensor | None, behind: int) -> Tensor:
        """Noise -> clean latents [1, 16, K, h, w], seeing the past and the overlay of `behind` frames."""
        frames, positions = self._block_frames(), self._block_positions()
        run = self._prepare(hidden, frames, positions, slot=self.cache.length + behind)
        x = self._draw(INITIAL, self.shape)
        for step, (label, sigma) in enumerate(levels):
            self._heed_interrupt()
            x = self._pin_given(x)
            x0 = predict_x0(x, run(x, [label] * len(frames)), sigma)
            if self.stream.on_step is not None:
                self.stream.on_step(self.block, step + 1, len(levels))
            if step + 1 < len(levels):
                x = add_noise(x0, self._draw(RENOISE, self.shape, step + 1), levels[step + 1][1])
        return self._pin_given(x0)

    def _remember(self, latents: Tensor, hidden: Tensor | None) -> None:
        """Refresh: store the finished block's keys and values, and move on."""
        config = self.stream.model.config
        past = PastBlock(self.block, latents, hidden, self.stream.mci.context_noise)
        portrait = self.block == 0 and self.stream.urcr.sinks and self.stream.urcr.sink_source == "portrait"
        if portrait:
            still = dataclasses.replace(past, latents=self._references(config.block_frames), context_noise=0.0)
            self._store(still, self.cursor)
        else:
            self._store(past, self.cursor)
        self.past = [*self.past, past][-self.blocks_kept :]
        self.block += 1
        self.cursor += config.block_frames

    def _store(self, past: PastBlock, position: int) -> None:
        """One pass that leaves a past block in the cache, at `position`, as noisy as it was first remembered."""
        count = past.latents.shape[2]
        frames = range(past.index * count, (past.index + 1) * count)
        positions = range(position, position + count)
        levels = [0.0 if self._is_given(frame) else past.context_noise for frame in frames]
        latents = past.latents
        if past.context_noise:
            noisy = add_noise(latents, self._draw(CONTEXT, latents.shape, block=past.index), past.context_noise)
            clean = 1 if self._is_given(frames[0]) else 0
            latents = torch.cat([latents[:, :, :clean], noisy[:, :, clean:]], dim=2)
        self._forward(latents, [1000 * level for level in levels], past.hidden, frames, positions, cache_only=True)
        self.cache.commit(frames, positions)

    # --- passes through the model ----------------------------------------------------------------------------------

    def _forward(self, latents, labels, hidden, frames, positions, cache_only=False) -> Tensor | None:
        return self._prepare(hidden, frames, positions, self.cache.length)(latents, labels, cache_only)

    def _prepare(self, hidden: Tensor | None, frames: Sequence[int], positions: Sequence[int], slot: int):
        """What stays the same over a block's passes, made once; returns run(latents, labels, cache_only=False)."""
        model = self.stream.model
        self.highest_position = max(self.highest_position, positions[-1])
        width, height = self.stream.latent_size
        rope = self._table(("rope", *positions), lambda: model.rope(positions, height, width, self.device))
        context = SelfContext(rope, self.cache, slot, attention=model.attention, pointwise=model.pointwise)
        audio = model.project_audio(hidden) if hidden is not None and self._graphs is None else None
        conditions = self._conditions(frames)

        def run(latents: Tensor, labels: Sequence[float], cache_only: bool = False) -> Tensor | None:
            if conditions is not None:
                latents = torch.cat([latents, conditions], dim=1)
            # float32 labels, as in the public loops
            timesteps = self._table(
                ("labels", *labels), lambda: to_device(torch.tensor([labels], dtype=torch.float32), self.device)
            )
            if self._graphs is not None:
                return self._graphs(latents, timesteps, hidden, rope, slot, cache_only)
            return model(latents, timesteps, self.text, audio, context, cache_only)

        return run

    def _conditions(self, frames: Sequence[int]) -> Tensor | None:
        """Reference and mask channels [1, 17, F, h, w]; mask 0 says that a frame is given."""
        if self.reference is None:
            return None
        given = [self._is_given(frame) for frame in frames]
        return self._table(("conditions", *given), lambda: self._make_conditions(given))

    def _make_conditions(self, given: Sequence[bool]) -> Tensor:
        mask = torch.ones(1, 1, len(given), *self.shape[-2:], dtype=self.dtype)
        mask[:, :, given] = 0
        return torch.cat([self._references(len(given)), to_device(mask, self.device)], dim=1)

    def _table(self, key: tuple, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that many blocks need, made once; the oldest ones go where a stream needs more and more."""
        if key not in self._tables:
            if len(self._tables) >= TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[key] = make()
        return self._tables[key]

    def _references(self, count: int) -> Tensor:
        return self.reference.expand(-1, -1, count, -1, -1)

    def _is_given(self, frame: int) -> bool:
        return frame == 0 and self.reference is not None

    def _pin_given(self, x: Tensor) -> Tensor:
        """The stream's first frame is the portrait itself, at every step."""
        if self.block or self.reference is None:
            return x
        return torch.cat([self.reference, x[:, :, 1:]], dim=2)

    def _block_frames(self) -> range:
        count = self.stream.model.config.block_frames
        return range(self.block * count, (self.block + 1) * count)

    def _block_positions(self) -> range:
        return range(self.cursor, self.cursor + self.stream.model.config.block_frames)

    def _draw(self, role: str, shape: Sequence[int], step: int = 0, block: int | None = None) -> Tensor:
        noise = self.noise.draw(role, self.block if block is None else block, step, shape)
        return to_device(noise, self.device, self.dtype)

    def _encode_text(self) -> None:
        config = self.stream.model.config
        text = torch.zeros(1, 0, config.text_dim)
        if self.stream.text is not None:
            used = self.stream.text.any(dim=2).any(dim=0).nonzero()
            text = self.stream.text[:, : int(used[-1]) + 1 if len(used) else 0]
        text = to_device(text, self.device, self.dtype)
        with torch.no_grad():
            self.text = self.stream.model.encode_text(text, padding=config.text_tokens - text.shape[1])
        graphs = self.stream.graphs and self.device.type == "cuda"
        self._graphs = GraphedPasses(self.stream.model, self.cache, self.text) if graphs else None

    def _new_cache(self) -> KVCache:
        stream, config = self.stream, self.stream.model.config
        return KVCache(
            layers=config.num_layers, batch=1, slots=stream.urcr.capacity(config) + stream.mci.injected,
            tokens=tokens_per_frame(stream.latent_size), heads=config.num_heads, head_dim=config.head_dim,
            dtype=stream.kv_dtype or self.dtype, device=self.device,
        )  # fmt: skip

    # --- resuming --------------------------------------------------------------------------------------------------

    def state_dict(self, copy: bool = True) -> dict[str, object]:
        """All that the next block depends on besides the recipe: tensors, numbers and lists of them.

        Without `copy` the keys and values are views that the next block overwrites: to be stored at once.
        """
        self._expect_open()
        return {
            "block": self.block,
            "cursor": self.cursor,
            "cache": self.cache.state_dict(copy),
            "past": [dataclasses.asdict(past) if copy else vars(past) for past in self.past],
            "recipe": self.recipe(),
            "environment": environment_of(self.stream.model, self.device),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on after the block at which `state` was taken.

        Raises AvatarError where the recipe differs; another torch, device or thread count is only a warning, since it
        costs nothing but bit-for-bit identity.
        """
        self._expect_open()
        check_state(state, self.recipe(), environment_of(self.stream.model, self.device))
        self.cache.load_state_dict(state["cache"])
        self.block = state["block"]
        self.cursor = state["cursor"]
        self.past = [PastBlock(**{**past, **self._on_device(past)}) for past in state["past"]]

    def _on_device(self, past: dict[str, object]) -> dict[str, Tensor]:
        """Copies of a stored block's tensors: a state may lie in a mapped file that is replaced later."""
        tensors = {name: value for name, value in past.items() if isinstance(value, Tensor)}
        return {name: value.to(self.device, self.dtype, copy=True) for name, value in tensors.items()}

    def recipe(self) -> dict[str, object]:
        """The settings that a state belongs to, as JSON gives them back."""
        return recipe_of(self.stream, self.dtype)
