"""The command line: `joyavatar speak`, `live`, `join`, `inspect`, `encode-prompt`."""

from .parser import main

__all__ = ["main"]
