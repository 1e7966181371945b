"""A video that is recorded in segments, with a state after each, so that a run can be resumed after a crash.

A segment is finished and synced before the state after it is written. The state is synced and renamed before the
oldest state is deleted. All segments before a state are therefore on the disk. Any other file that is found after a
crash belongs to the segment that is made again.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from types import TracebackType

from torch import Tensor

from ..audio import AudioSource
from ..audio.clock import block_to_frames, num_blocks
from ..errors import AvatarError
from ..pipeline.render import OnBlock, output_pixel_size, output_rate, talk
from ..refiner import PortraitRefiner
from ..sampling.run import StreamRun
from ..sampling.stream import AvatarStream, LatentBlock
from ..vae import Decoder
from ..video import VideoWriter, join_segments
from ..video.containers import saying
from ..video.h264 import AUTO, NVENC, X264, chosen_encoder
from .files import RecordingFolder, sync_file
from .fingerprint import new_digest, raw_bytes
from .interval import DEFAULT_INTERVAL, Interval
from .snapshot import (
    Segment,
    cache_layout,
    check_identity,
    check_run_state,
    environment,
    identity_of,
    refinement_of,
)
from .state import MAX_HEADER, DamagedError, read_state, write_state

log = logging.getLogger(__name__)
STATES_KEPT = 2


class Recording:
    """A talking video in a folder of segments and states.

    Life cycle: made -> `open` (locks the folder; begins, or loads the newest valid state) -> `record` to the end, or
    until an exception or a signal stops it -> `join` -> `close` (unlocks). As a context manager it opens and closes.
    Segments end where states are written, so that a resumed and an uninterrupted recording hold the same files.
    Outside the folder only `join`'s target is written. Only files with this class's own names are deleted.

    Args:
        folder: made if absent; its parent must exist. One recording per folder.
        stream: the recipe; with an end (a voice that is not live, or `video_frames`).
        decoder: latents -> frames.
        voice: the sound; None for a silent video.
        every: how often a state is written.
        crf: the writer's quality.
        resume: continue the recording in the folder. Without it a folder that holds a recording is refused.
        metadata: tags of the video.
        refine: what draws or refines the frames.
        encoder: one of h264.ENCODERS. A recording keeps the one it began with: "auto" begins with x264, which every
            machine can go on with, and resumes with what the folder has.
    Raises AvatarError for folders, settings and states that do not fit.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        stream: AvatarStream,
        decoder: Decoder,
        voice: AudioSource | None = None,
        *,
        every: Interval = DEFAULT_INTERVAL,
        crf: int = 18,
        resume: bool = False,
        metadata: Mapping[str, object] | None = None,
        refine: PortraitRefiner | None = None,
        encoder: str = AUTO,
    ) -> None:
        if stream.num_video_frames is None:
            raise AvatarError("A stream without an end cannot be recorded to a state folder; give a number of frames.")
        self.folder = RecordingFolder(folder)
        self.stream, self.voice, self.metadata = stream, voice, metadata
        self.segments: list[Segment] = []
        self._decoder, self._refine, self._crf, self._resume = decoder, refine, crf, resume
        self._encoder = encoder
        self._size, self.rate = output_pixel_size(stream, refine), output_rate(stream, refine)
        self._layout = {} if refine is not None and refine.draws_from_latents else cache_layout(stream, decoder)
        config = stream.config
        self.every = every.in_blocks(self.state_bytes, config.fps, config.block_frames)
        self._run = self._cache = self._identity = None

    @property
    def state_bytes(self) -> int:
        """Bytes of a state's tensors once the cache is full. Two states are kept, three exist during a write."""
        decoder = sum(dtype.itemsize * prod(shape) for shape, dtype in self._layout.values())
        remembered = self.stream.urcr.capacity(self.stream.config)  # MCI's overlay is made anew
        return self.stream.cache_bytes * remembered // (remembered + self.stream.mci.injected) + decoder

    @property
    def blocks(self) -> int:
        """Blocks in finished segments."""
        return min(len(self.segments) * self.every, self._total_blocks)

    @property
    def frames(self) -> int:
        """Video frames in finished segments, at the video's frame rate."""
        return self.frames_of(self.blocks - 1).stop if self.blocks else 0

    def frames_of(self, block: int) -> range:
        """The video's frames of a block, at the video's frame rate."""
        config, last = self.stream.config, self.stream.num_video_frames
        frames = block_to_frames(block, config.block_frames, config.lead_frames)
        return self.rate.shown(range(frames.start, min(frames.stop, last)))

    @property
    def segment_paths(self) -> list[Path]:
        """The files of the finished segments, in order."""
        return [self.folder.segment(number * self.every) for number in range(len(self.segments))]

    @property
    def finished(self) -> bool:
        """Whether every segment is finished."""
        return self.blocks == self._total_blocks

    def open(self) -> Recording:
        """Lock the folder; begin, or resume from the newest state that is valid with all its segments."""
        self.folder.lock()
        try:
            self._identity = identity_of(
                self.stream, self._decoder, self.voice, fps=str(self.rate.fps), quality=self._crf,
                checkpoint_every=self.every, **refinement_of(self._refine),
                encoder=X264 if self._encoder == AUTO else chosen_encoder(self._encoder, *self._size),
            )  # fmt: skip
            self._run = StreamRun(self.stream)
            self._identity |= self._run.recipe()
            self._cache = self._decoder.new_cache()
            if self.folder.states() and self._resume:
                self._resume_newest()
            else:
                self.folder.check_unused()
                self._prune()
                self._save()
        except BaseException:
            self.close()
            raise
        return self

    def record(self, on_block: OnBlock | None = None) -> None:
        """Generate and write until the end. An earlier stop leaves files that play and can be resumed.

        Raises AvatarError for a full disk, and when called again on an object that an exception has stopped.
        """
        while not self.finished:
            self.segments.append(self._record_segment(on_block))
            self._save()

    def join(self, out: str | os.PathLike[str]) -> Path:
        """Join the finished segments to one mp4, atomically: the pictures are copied, the sound is encoded."""
        return join_segments(self.segment_paths, out, self.voice, self.metadata)

    def close(self) -> None:
        """Free the stream's memory and unlock the folder; what is recorded stays."""
        if self._run is not None:
            self._run.close()
        self._run = self._cache = None
        self.folder.unlock()

    def __enter__(self) -> Recording:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- writing ---------------------------------------------------------------------------------------------------

    def _record_segment(self, on_block: OnBlock | None) -> Segment:
        if self._run.block != self.blocks:
            raise AvatarError("This recording was stopped inside a segment; close it and resume it from its folder.")
        path = self.folder.segment(self.blocks)
        pictures = new_digest()

        def note(block: LatentBlock, frames: Tensor) -> None:
            pictures.update(raw_bytes(frames))
            if on_block is not None:
                on_block(block, frames)

        sound = (self.voice.sample_rate, self.voice.channels) if self.voice is not None else (None, 1)
        with VideoWriter(
            path, *self._size, self.rate.fps, *sound, crf=self._crf, metadata=self.metadata,
            encoder=self._identity["encoder"],
        ) as writer:  # fmt: skip
            blocks = itertools.islice(self._run, self.every)
            talk(
                self._run,
                self._decoder,
                writer,
                self.voice,
                note,
                blocks=blocks,
                cache=self._cache,
                refine=self._refine,
            )
        with self._saying():
            sync_file(path)
            return Segment.of(path, pictures.hexdigest())

    def _save(self) -> None:
        """Write the state after the last segment, then delete all but the newest two."""
        state = {
            "run": self._run.state_dict(copy=False),
            "decoder": self._cache.state_dict(),
            "identity": self._identity,
            "environment": environment(),
            "segments": [dataclasses.astuple(segment) for segment in self.segments],
        }
        with self._saying():
            size = write_state(self.folder.state(self.blocks), state)
            self._prune()
        log.debug("state behind block %d: %d bytes", self.blocks, size)

    def _prune(self) -> None:
        with self._saying():
            oldest = [block for block in self.folder.states() if block <= self.blocks][:STATES_KEPT]
            self.folder.prune(range(min(oldest, default=0), self.blocks + 1), range(self.blocks))

    # --- resuming --------------------------------------------------------------------------------------------------

    def _resume_newest(self) -> None:
        reasons = []
        for block in self.folder.states():
            path = self.folder.state(block)
            try:
                self._load(block, path)
            except (DamagedError, OSError) as problem:
                reason = problem.strerror if isinstance(problem, OSError) else problem
                reasons.append(f"{path.name}: {reason}")
                log.warning("the state %s cannot be used: %s", path.name, reason)
                continue
            self._prune()
            return
        raise AvatarError(
            f"No state in {self.folder.path} can be used ({'; '.join(reasons)}); "
            "save the finished segments with the join command, and start again in another folder."
        )

    def _load(self, block: int, path: Path) -> None:
        """Load one state. Raises DamagedError or OSError and changes nothing; AvatarError for another recording's."""
        state = read_state(path, self._most_bytes())
        try:
            if self._encoder == AUTO and state["identity"].get("encoder") == NVENC:
                self._identity["encoder"] = chosen_encoder(NVENC, *self._size)
            check_identity(self.folder.path, state["identity"], self._identity)
            segments = [Segment(*fields) for fields in state["segments"]]
            ends = min(len(segments) * self.every, self._total_blocks)
            if not state["run"]["block"] == ends == block or len(segments) > -(-self._total_blocks // self.every):
                raise DamagedError(f"it is not the state behind block {block}")
            check_run_state(self._run, self._layout, state)
            for number, segment in enumerate(segments):
                segment.check(self.folder.segment(number * self.every))
            for name, value in environment().items():
                if state["environment"].get(name) != value:
                    log.warning("resuming with %s %s where the recording began with %r: the video may not be the same "
                                "byte for byte", name, value, state["environment"].get(name))  # fmt: skip
            self._run.load_state_dict(state["run"])
        except (KeyError, TypeError, AttributeError) as problem:
            raise DamagedError(f"its contents are malformed ({type(problem).__name__})") from None
        self._cache.load_state_dict(state["decoder"])
        self.segments = segments

    def _most_bytes(self) -> int:
        past = 4 * 8 * prod(self._run.sampler.shape)  # the few newest blocks' latents, of any dtype, and their voice
        return self.state_bytes + (1 + self.stream.urcr.recent + self.stream.mci.injected) * past + MAX_HEADER

    # --- arithmetic ------------------------------------------------------------------------------------------------

    @property
    def _total_blocks(self) -> int:
        config = self.stream.config
        return num_blocks(self.stream.num_video_frames, config.block_frames, config.lead_frames)

    def _saying(self) -> AbstractContextManager[None]:
        return saying(f"The recording in {self.folder.path} cannot be written", "free some space and resume it")
