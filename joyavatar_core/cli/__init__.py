"""The command line: `joyavatar speak`, `batch`, `live`, `serve`, `join`, `inspect`, `encode-prompt`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

STOPPED = 130  # exit code of an interrupted command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code of `parser.main`."""
    leads = os.environ.get("RANK", "0") == "0"  # one of torchrun's processes prints
    terminal = leads and sys.stderr is not None and sys.stderr.isatty()
    if terminal:  # importing torch takes seconds, on a fresh machine many
        print("loading ...", end="", file=sys.stderr, flush=True)
    try:
        from .parser import main as run
    except KeyboardInterrupt:
        return STOPPED

    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return run(arguments)
