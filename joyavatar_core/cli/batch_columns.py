"""The columns of a batch's table: every option of `speak`, under the name of its flag."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from functools import cache
from typing import NoReturn

from ..batch.jobs import Checked, Outputs
from ..batch.table import Row, truth
from ..errors import AvatarError
from ..paths import existing_file
from ..pipeline.avatar_options import EMBEDDED

OWN = {"state": "records every job", "resume": "resumes every job", "report": "writes a report of every job"}
FILES = ("portrait", "audio", "weights", "vae", "decoder", "audio_encoder", "prompt_embeds", "base")
MODEL = (
    "weights", "vae", "decoder", "audio_encoder", "base", "lora", "lora_alpha", "lora_rank", "device", "dtype",
    "attention", "compile",
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


@cache
def speak_actions() -> dict[str, argparse.Action]:
    """Column -> the flag of `speak` that it stands for; hidden flags are left out."""
    actions = row_parser()._actions
    return {action.dest: action for action in actions if action.help is not argparse.SUPPRESS}


def add_default_flags(command: argparse.ArgumentParser) -> None:
    """The options of `speak` for all rows of a batch; what is given is in the namespace as ``row_NAME``."""
    group = command.add_argument_group("speak", "options for all rows; a column of the same name overrides one")
    for name, action in speak_actions().items():
        if name in OWN or name == "out":
            continue
        given: dict[str, object] = {"dest": f"row_{name}", "default": argparse.SUPPRESS, "help": action.help}
        if name == "plot" or (action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction)):
            given["action"] = "store_true"
        elif isinstance(action, argparse.BooleanOptionalAction):
            given["action"] = argparse.BooleanOptionalAction
        else:
            given["metavar"] = action.metavar or ("|".join(action.choices) if action.choices else name.upper())
            if is_list(action):
                given["action"] = "append"
        group.add_argument(*(flag for flag in action.option_strings if not flag.startswith("--no-")), **given)


def given_defaults(args: argparse.Namespace) -> dict[str, object]:
    """The options for all rows, by column."""
    return {name.removeprefix("row_"): value for name, value in vars(args).items() if name.startswith("row_")}


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
        known = [*speak_actions(), "voice"]
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
    options = tuple(flag for name, value in values.items() for flag in flags_of(name, value))
    args = row_parser().parse_args([*options, "--out=video.mp4"])
    placed = {name: path for name, path in outputs.items() if name != "state" or not args.reset_on_drift}
    flags = (*options, *(f"--{name}={path}" for name, path in placed.items()))
    if "state" in placed:
        flags = (*flags, "--resume")
    return Checked(flags, options, repr([getattr(args, name) for name in MODEL]))


def flags_of(name: str, value: object) -> list[str]:
    """The arguments that give one column's value."""
    action = speak_actions()[name]
    flag = action.option_strings[0]
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
    return str(existing_file(text).absolute()) if name in FILES and text != EMBEDDED else text
