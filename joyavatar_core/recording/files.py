"""The folder of a recording: its file names, its lock, and durable writes. Other files in it are left alone."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ..errors import AvatarError
from ..paths import replacing

log = logging.getLogger(__name__)

STATE = re.compile(r"state-(\d{8})\.safetensors(\.tmp)?")
SEGMENT = re.compile(r"segment-(\d{8})(\.part\d*)?\.mp4(\.tmp)?")
LOCK, OWNER = "lock", "owner"
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FolderInUseError(AvatarError):
    """Another process holds the folder."""


class RecordingFolder:
    """The files of one recording, numbered by the block they begin at.

    Life cycle: made -> `lock` (creates the folder; only one process can hold it) -> used -> `unlock`. The system ends
    the lock with its process. The file `owner` holds the number of the process that was last to lock the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.expanduser(path)).absolute()
        self._lock = FileLock(self.path / LOCK, thread_local=False)

    def lock(self) -> None:
        """Take the folder. Raises AvatarError where it cannot be made or is in use."""
        owner = self.path / OWNER
        try:
            self.path.mkdir(exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise FolderInUseError(
                f"The state folder {self.path} is in use by process {process_in(owner)}; "
                "wait for it, stop it, or choose another folder."
            ) from None
        except OSError as problem:
            raise AvatarError(
                f"The state folder {self.path} cannot be used: {problem.strerror}; choose another place."
            ) from None
        except NotImplementedError:
            log.warning("%s is on a file system without locks: make sure that no other run uses it", self.path)
        with contextlib.suppress(OSError), replacing(owner) as unfinished:  # a full disk must not stop a resume here
            unfinished.write_text(f"{os.getpid()}\n")

    def check_unused(self) -> None:
        """Raise AvatarError where the folder holds a recording."""
        if self.states() or self.segments():
            raise AvatarError(
                f"{self.path} already holds a recording{'' if self.states() else ' without states'}; "
                f"{'resume it, or ' if self.states() else ''}choose another folder."
            )

    def unlock(self) -> None:
        self._lock.release()

    def remove(self) -> None:
        """Delete the recording, and the folder if nothing else is in it. Raises AvatarError where it is in use."""
        if not self.path.is_dir():
            return
        self.lock()
        try:
            self.prune(range(0), range(0))
        finally:
            self.unlock()
        for name in (OWNER, LOCK):
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def state(self, block: int) -> Path:
        return self.path / f"state-{block:08d}.safetensors"

    def segment(self, block: int) -> Path:
        return self.path / f"segment-{block:08d}.mp4"

    def states(self) -> list[int]:
        """The blocks at which there are finished states, newest first."""
        return sorted((block for block, done, _ in self._files(STATE) if done), reverse=True)

    def segments(self) -> list[int]:
        """The blocks at which finished segments begin, in order."""
        return sorted(block for block, done, _ in self._files(SEGMENT) if done)

    def growing(self) -> Path | None:
        """The newest unfinished segment, None without one."""
        parts = [(block, path) for block, done, path in self._files(SEGMENT) if not done and path.suffix == ".mp4"]
        return max(parts)[1] if parts else None

    def prune(self, states: range, segments: range) -> None:
        """Delete unfinished files, states outside `states` and segments outside `segments`."""
        for pattern, kept in ((STATE, states), (SEGMENT, segments)):
            for block, done, path in self._files(pattern):
                if not done or block not in kept:
                    path.unlink()

    def _files(self, pattern: re.Pattern[str]) -> list[tuple[int, bool, Path]]:
        """(block, whether it is finished, path) of all files, or links, of one kind."""
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                match = pattern.fullmatch(entry.name)
                if match and not entry.is_dir(follow_symlinks=False):
                    found.append((int(match[1]), not any(match.groups()[1:]), Path(entry.path)))
        return found


def process_in(owner: Path) -> str:
    """The number of a process in the file `owner`."""
    with contextlib.suppress(OSError), open_regular(owner) as file:
        return file.read(20).decode("ascii", "replace").strip()
    return "(unknown)"


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for a link or a device."""
    handle = os.open(path, os.O_RDONLY | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(handle, "rb")


@contextlib.contextmanager
def replace_synced(target: Path) -> Iterator[BinaryIO]:
    """`replacing` with an open file: it and its name are on the disk when this returns."""
    with replacing(target) as unfinished:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Sync a finished file and its folder to the disk."""
    with path.open("r+b") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to the disk; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
