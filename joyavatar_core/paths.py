"""Names of files: as users give them, as libav takes them, as a terminal shows them, and while they are written."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from .errors import AvatarError

STDOUT = "-"  # where a command takes the name of a file to write
QUOTES = "\"'\u201c\u201d\u2018\u2019"


def existing_file(given: str | os.PathLike[str]) -> Path:
    """The file that is meant by what was given: under that very name, or as file managers and shells pass names on.

    These are quoted ("Copy as path"), with spaces or a line end around, a file:// address, ~, or the other Unicode form
    of the same letters. Returns the name as given where no file is found under any. Raises AvatarError for addresses
    on a network.
    """
    text = os.fspath(given)
    if os.path.exists(text):
        return Path(text)
    bare = text.strip().strip(QUOTES).strip()
    forms = [bare, os.path.expanduser(bare)]
    if bare.lower().startswith("file://"):
        forms.append(re.sub(r"^(localhost)?(/(?=[A-Za-z]:))?", "", unquote(bare[len("file://") :])))
    forms += [unicodedata.normalize(form, name) for name in forms for form in ("NFC", "NFD")]
    for name in forms:
        if name and os.path.exists(name):
            return Path(name)
    if re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", bare):
        raise AvatarError(f"'{bare}' is an address; nothing is fetched from a network, download it first.")
    return Path(text)


def check_place(path: str | os.PathLike[str], what: str) -> None:
    """Raises AvatarError where a file cannot be written, found out by trying; nothing is left behind.

    what: what the user calls the file, for the sentence.
    """
    target = Path(os.path.expanduser(path))
    if os.path.exists(target) and not os.path.isfile(target):
        kind = "a folder" if os.path.isdir(target) else "not a plain file"
        raise AvatarError(f"The {what} {target} is {kind}, expected the name of a file; choose another name.")
    try:
        trial = unfinished_name(target)
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        trial.unlink()
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise AvatarError(f"The {what} {path} cannot be written: there is no such folder; create it.") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise AvatarError(f"The {what} {path} cannot be written: {reason}; choose another place.") from None


def unfinished_name(target: Path) -> Path:
    """The name that `replacing` writes to."""
    return target.with_name(target.name + ".tmp")


@contextmanager
def replacing(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[Path]:
    """A name beside `path` to write to. The file becomes `path` in one step, or is deleted where an exception passes.

    shared: whether several processes may write `path` at one time; each then writes to a name of its own.
    """
    target = Path(path)
    unfinished = unfinished_name(target)
    if shared:
        unfinished = unfinished.with_suffix(f".{os.getpid()}.tmp")
    unfinished.unlink(missing_ok=True)  # left by a run that was killed, or a link at its place
    try:
        yield unfinished
        os.replace(unfinished, target)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def libav_url(path: str | os.PathLike[str]) -> str:
    """A file's name for av.open: never a protocol, whatever colons, commas or percent signs are in it."""
    return "file:" + os.path.abspath(path)


def printable(text: str) -> str:
    """A text on one line of a terminal: control characters and what UTF-8 cannot write are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
