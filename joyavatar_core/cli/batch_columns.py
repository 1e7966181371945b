"""The columns of a batch's table: every option of `speak`, under the name of its flag."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NoReturn

from ..batch.jobs import Checked, Outputs
from ..batch.table import Row, truth
from ..errors import AvatarError
from ..paths import existing_file
from ..pipeline.avatar_options import EMBEDDED, FULL_DECODER

OWN = {"state": "records every job", "resume": "resumes every job", "report": "writes a report of every job"}
FILES = ("portrait", "audio", "weights", "vae", "decoder", "audio_encoder", "prompt_embeds", "base")
MODEL = (
    "weights", "vae", "decoder", "audio_encoder", "base", "lora", "lora_alpha", "lora_rank", "release", "device",
    "dtype", "weight_dtype", "attention", "compile",
)  # fmt: skip


class RowParser(argparse.ArgumentParser):
    """A parser whose complaint is an exception, where the usual one ends the process."""

    def error(self, message: str) -> NoReturn:
        raise AvatarError(message[0].upper() + message[1:].rstrip(".") + ".")


@cache
def row_parser() -> RowParser:
    """A parser of what `speak` takes."""
    from .parser import add_speak_flags

    parser = RowParser(prog="joyavatar speak", add_help=False, allow_abbrev=False)
    add_speak_flags(parser)
    return parser


def actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Name -> flag of a parser; hidden flags are left out."""
    return {action.dest: action for action in parser._actions if action.help is not argparse.SUPPRESS}


def flags_like(command: argparse.ArgumentParser, like: argparse.ArgumentParser, without: Sequence[str], words: str):
    """Give a command the flags of another, none of them required; `flags_given` collects them.

    Values stay text. What is given is in the namespace as ``row_NAME``.
    """
    group = command.add_argument_group("video", words)
    for name, action in actions(like).items():
        if name in without:
            continue
        given: dict[str, object] = {"dest": f"row_{name}", "default": argparse.SUPPRESS, "help": action.help}
        if isinstance(action, argparse.BooleanOptionalAction):
            given["action"] = argparse.BooleanOptionalAction
        elif action.nargs == 0:
            given["action"] = "store_true"
        else:
            given["metavar"] = action.metavar or ("|".join(action.choices) if action.choices else name.upper())
            if is_list(action):
                given["action"] = "append"
        group.add_argument(*(flag for flag in action.option_strings if not flag.startswith("--no-")), **given)


def values_given(args: argparse.Namespace) -> dict[str, object]:
    """The values of the flags that `flags_like` has added, by name."""
    return {name.removeprefix("row_"): value for name, value in vars(args).items() if name.startswith("row_")}


def flags_given(args: argparse.Namespace, like: argparse.ArgumentParser) -> tuple[str, ...]:
    """The arguments for the other command, with absolute paths."""
    known = actions(like)
    return tuple(flag for name, value in values_given(args).items() for flag in flags_of(known[name], value))


def is_list(action: argparse.Action) -> bool:
    """Whether a flag may be repeated."""
    return isinstance(action.default, list)


def with_columns(row: Row, defaults: Mapping[str, object]) -> Row:
    """The row with the columns' own names and with the defaults for what it leaves open."""
    values = {("voice" if name == "audio" else name): value for name, value in defaults.items()}
    for given, value in row.values.items():
        name = given.strip().lstrip("-").replace("-", "_").lower()
        if name in OWN:
            return Row(row.number, {}, f"the column '{given}' is not for tables: batch {OWN[name]} itself")
        name = "voice" if name == "audio" else name
        known = [*actions(row_parser()), "voice"]
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else "columns are portrait, voice and the options of speak"
            return Row(row.number, {}, f"the column '{given}' is unknown; {advice}")
        values[name] = value
    return Row(row.number, values, row.problem)


def check_row(values: Mapping[str, object], outputs: Outputs) -> Checked:
    """One job's arguments for `speak`, with absolute paths. Raises AvatarError for what `speak` does not take.

    A job that is reset on drift cannot be resumed and is made without a state folder.
    """
    values = {("audio" if name == "voice" else name): value for name, value in values.items()}
    known = actions(row_parser())
    options = tuple(flag for name, value in values.items() for flag in flags_of(known[name], value))
    args = row_parser().parse_args([*options, "--out=video.mp4"])
    placed = {name: path for name, path in outputs.items() if name != "state" or not args.reset_on_drift}
    flags = (*options, *(f"--{name}={path}" for name, path in placed.items()))
    if "state" in placed:
        flags = (*flags, "--resume")
    return Checked(flags, options, repr([getattr(args, name) for name in MODEL]))


def flags_of(action: argparse.Action, value: object) -> list[str]:
    """The arguments that give one flag its value."""
    flag, name = action.option_strings[0], action.dest
    if action.nargs == 0:
        if isinstance(action, argparse.BooleanOptionalAction):
            return [flag if truth(value, name) else action.option_strings[1]]
        return [flag] if truth(value, name) else []
    if isinstance(value, list) and is_list(action):
        return [f"{flag}={absolute(name, str(item))}" for item in value]
    if isinstance(value, (bool, list, dict)):
        raise AvatarError(f"{name} is {value!r}, expected a text or a number.")
    return [f"{flag}={absolute(name, str(value))}"]


def absolute(name: str, text: str) -> str:
    """The text, as an absolute path where the column names a file: a worker may run in another folder."""
    if name == "lora":
        from .parser import parse_lora

        path, strength = parse_lora(text)
        return f"{existing_file(path).absolute()}={strength}"
    return str(existing_file(text).absolute()) if name in FILES and text not in (EMBEDDED, FULL_DECODER) else text
