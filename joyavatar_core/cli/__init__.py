"""The command line: `joyavatar speak`, `live`, `join`, `inspect`."""

from .parser import main

__all__ = ["main"]
