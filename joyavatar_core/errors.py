"""The one exception that speaks to users."""

from __future__ import annotations

import argparse


class AvatarError(ValueError):
    """Bad input, described in one sentence: the value, what was expected, what to do.

    settings: names of the settings to change, such as "lora_alpha". The sentence describes them in words. A command
    line adds their flags; a node shows the sentence as it is.
    """

    def __init__(self, sentence: str, *settings: str) -> None:
        super().__init__(sentence)
        self.settings = settings


def with_flags(problem: AvatarError, options: argparse.Namespace) -> str:
    """The sentence of an error, with the flags of its settings as far as the command that ran has them."""
    known = [name for name in problem.settings if hasattr(options, name.removeprefix("no_"))]
    flags = ", ".join("--" + name.replace("_", "-") for name in known)
    return f"{str(problem).removesuffix('.')} ({flags})." if flags else str(problem)
