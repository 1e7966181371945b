"""One video from a recording folder: its finished segments, and the whole fragments of an unfinished one."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from ..audio import AudioSource, FileAudio
from ..errors import AvatarError
from ..paths import check_place, libav_url
from ..video import join_segments
from ..video.containers import checked_target
from ..video.segments import inspect_segment, recover_segment, tags_of
from .files import RecordingFolder

log = logging.getLogger(__name__)


class ChainedAudio(AudioSource):
    """The sound of several files in order, all of one sample rate and width; None is silence. lengths: in samples.

    The first one is a file.
    """

    def __init__(self, files: Sequence[FileAudio | None], lengths: Sequence[int]) -> None:
        super().__init__(files[0].sample_rate)
        self.files, self.lengths = files, lengths

    @property
    def channels(self) -> int:
        return self.files[0].channels

    @property
    def num_samples(self) -> int:
        return sum(self.lengths)

    def _window(self, start: int, stop: int) -> np.ndarray:
        parts, begin = [np.zeros((0, self.channels), np.float32)], 0
        for file, length in zip(self.files, self.lengths, strict=True):
            first, last = max(start - begin, 0), min(stop - begin, length)
            if file is None:
                parts.append(np.zeros((max(0, last - first), self.channels), np.float32))
            elif first < last:
                parts.append(file.read_native(first, last))
            else:
                file.close()
            begin += length
        return np.concatenate(parts)

    def close(self) -> None:
        """Close the files that are still open."""
        for file in self.files:
            if file is not None:
                file.close()


def join_recording(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Make one mp4 from a recording, finished or not. The folder is only read, and a run may write to it meanwhile.

    The pictures and the first segment's tags are copied; the sound is the segments', encoded again in one piece. A
    segment that cannot be read ends the video there, with a warning. Raises AvatarError where no segment plays, or
    where `out` cannot be written.
    """
    files = RecordingFolder(folder)
    target = checked_target(out)
    if not files.path.is_dir():
        raise AvatarError(f"There is no state folder {files.path}, expected one that a recording was made in.")
    check_place(target, "video")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".joining.") as scratch:
        paths = [files.segment(block) for block in files.segments()]
        growing = files.growing()
        if growing is not None and files.segment(int(growing.name[8:16])) not in paths:
            paths += recovered(growing, Path(scratch))
        whole = []
        for path in paths:
            try:
                whole.append((path, *inspect_segment(path)))
            except (AvatarError, OSError, av.FFmpegError) as problem:
                log.warning("the video ends before %s, which cannot be read (%s)", path.name, problem)
                break
        if not whole:
            raise AvatarError(f"{files.path} holds no segment that plays yet, so there is nothing to join.")
        sound = sound_of(whole)
        with contextlib.closing(sound) if sound else contextlib.nullcontext():  # Windows deletes no open file
            return join_segments([path for path, *_ in whole], target, sound, tags_of(whole[0][0]))


def recovered(growing: Path, scratch: Path) -> list[Path]:
    """A plain mp4 of the whole fragments of a growing file, or no path without one. The file is only read."""
    copy, plain = scratch / "fragments.mp4", scratch / growing.name
    try:
        shutil.copyfile(growing, copy)
        recover_segment(copy, plain)
    except (OSError, av.FFmpegError) as problem:
        log.warning("the video ends before %s, of which no whole part can be read (%s)", growing.name, problem)
        return []
    return [plain]


def sound_of(segments: Sequence[tuple]) -> AudioSource | None:
    """The segments' own sound, each as long as its picture; None where the first one is silent.

    A run that was stopped between the frames and the sound of a block leaves a last segment without sound.
    """
    files = [FileAudio(path) if has_sound(path) else None for path, *_ in segments]
    if files[0] is None:
        return None
    rate, ends, frames = files[0].sample_rate, [0], 0
    for _, (fps, *_), count in segments:
        frames += count
        ends.append(int(frames * rate / fps))
    return ChainedAudio(files, [stop - start for start, stop in pairwise(ends)])


def has_sound(path: Path) -> bool:
    with av.open(libav_url(path)) as file:
        return bool(file.streams.audio)
