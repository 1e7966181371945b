"""Rows become jobs: globs are expanded, names are made unique, and each job gets the arguments of one command."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from ..errors import AvatarError
from ..paths import existing_file
from .table import Row, Values, truth

LONGEST_NAME = 180  # bytes; a file system allows 255, and ".part.mp4.tmp" is added while a video is written
FOLDERS = ("states", "logs", "reports")


@dataclass(frozen=True)
class Job:
    """One video to make.

    row: number of its row. name: unique in the batch; the stem of its video, log, report and state folder.
    flags: the arguments of `speak` that make the video, or make the rest of it. state: the folder that it is recorded
    in. group: jobs of one group share a loaded avatar. fingerprint: changes with the options and with the files of
    portrait and voice, not with the folder of the batch. inputs: portrait and voice.
    """

    row: int
    name: str
    flags: tuple[str, ...]
    video: Path
    log: Path
    state: Path
    group: str
    fingerprint: str
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Checked:
    """What the command says about one job's values and outputs.

    flags: all its arguments. options: those of them that are not outputs. group: jobs of one group share a loaded
    avatar.
    """

    flags: tuple[str, ...]
    options: tuple[str, ...]
    group: str


Outputs = Mapping[str, Path]  # "out", "report" and "state"; "plot" where one is to be drawn
Check = Callable[[Mapping[str, object], Outputs], Checked]  # raises AvatarError for values that the command refuses


@dataclass
class Plan:
    """All jobs of a table in its order, and the sentence on each row (by its number) that cannot become one."""

    jobs: list[Job] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


def plan_jobs(rows: list[Row], out: Path, check: Check) -> Plan:
    """The jobs of a table with outputs in the folder `out`; a row with a mistake becomes a sentence."""
    plan, taken = Plan(), {}
    for row in rows:
        try:
            if row.problem:
                raise AvatarError(f"The row cannot be read: {row.problem}.")
            for job in jobs_of(row, out, check, taken):
                plan.jobs.append(job)
        except AvatarError as problem:
            plan.problems[row.number] = str(problem)
    return without_lost_inputs(plan)


def without_lost_inputs(plan: Plan) -> Plan:
    """The plan without jobs whose video would replace a portrait or a voice of any row; a sentence stands for each."""
    read = {os.path.realpath(path) for job in plan.jobs for path in job.inputs}
    for job in [job for job in plan.jobs if os.path.realpath(job.video) in read]:
        plan.jobs.remove(job)
        plan.problems[job.row] = f"The video {job.video.name} would replace a portrait or a voice; give another out."
    return plan


def jobs_of(row: Row, out: Path, check: Check, taken: dict[str, int]) -> list[Job]:
    """A row's jobs: one, or one for each pair of files where its portrait or voice is a glob.

    taken: the folded names of earlier rows' outputs with the numbers of the rows; extended.
    """
    values = dict(row.values)
    named, plot = values.pop("out", None), truth(values.pop("plot", False), "plot")
    pairs = list(product(matches(values, "portrait"), matches(values, "voice")))
    if named is not None and len(pairs) > 1:
        raise AvatarError(f"The row makes {len(pairs)} videos, so out cannot be the one name '{named}'; leave it out.")
    mine: dict[str, int] = {}
    jobs = []
    for portrait, voice in pairs:
        if named is None:
            name = free_name(f"{portrait.stem}-{voice.stem}", taken.keys() | mine.keys())
        else:
            name = stem_of(str(named))
            if folded(name) in taken:
                raise AvatarError(f"The name '{named}' is that of row {taken[folded(name)]} too; choose another out.")
        mine[folded(name)] = row.number
        outputs = {
            "out": out / f"{name}.mp4", "report": out / "reports" / f"{name}.json", "state": out / "states" / name,
            **({"plot": out / "reports" / f"{name}.png"} if plot else {}),
        }  # fmt: skip
        checked = check({**values, "portrait": portrait, "voice": voice}, outputs)
        mark = fingerprint(checked.options, (portrait, voice))
        log = out / "logs" / f"{name}.log"
        jobs.append(
            Job(
                row.number, name, checked.flags, outputs["out"], log, outputs["state"], checked.group, mark,
                inputs=(portrait, voice),
            )
        )  # fmt: skip
    taken |= mine
    return jobs


def matches(values: Values, column: str) -> list[Path]:
    """The files that a cell names, absolute: the one of that very name, or all that its glob finds, sorted."""
    text = values.get(column)
    if not isinstance(text, str):
        raise AvatarError(f"The row has no {column}; give the path of a file, or a glob such as {column}s/*.")
    named = existing_file(text)
    if named.is_file():
        return [named.absolute()]
    if not glob.has_magic(text):
        raise AvatarError(f"The {column} '{text}' is {'a folder' if named.is_dir() else 'missing'}; check the path.")
    found = [Path(name).absolute() for name in sorted(glob.glob(os.path.expanduser(text), recursive=True))]
    if not (files := [path for path in found if path.is_file()]):
        raise AvatarError(f"No {column} matches '{text}'; check the pattern.")
    return files


def stem_of(name: str) -> str:
    """'hello.mp4' or 'hello' -> 'hello'. Raises AvatarError for what is not a plain file name."""
    stem = name[:-4] if name.lower().endswith(".mp4") else name
    if not stem or stem in (".", "..") or any(sign in stem for sign in "/\\:\0") or not stem.isprintable():
        raise AvatarError(f"out is '{name}', expected the name of a file without a folder, such as hello.mp4.")
    if len(os.fsencode(stem)) > LONGEST_NAME:
        raise AvatarError(f"out is '{name[:40]}...' and longer than {LONGEST_NAME} bytes; shorten it.")
    return stem


def free_name(stem: str, taken: set[str]) -> str:
    """The stem, shortened to LONGEST_NAME, with a number behind it where it is taken: 'ada-hello', 'ada-hello-2'."""
    printable = "".join(sign if sign.isprintable() else "_" for sign in stem)
    short = printable.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore")
    name, number = short, 1
    while folded(name) in taken:
        number += 1
        name = f"{short}-{number}"
    return name


def folded(name: str) -> str:
    """One form of all names that a file system may take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def fingerprint(options: tuple[str, ...], files: tuple[Path, ...]) -> str:
    """Of the options and of the size and time of the files that are read."""
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.blake2b(json.dumps([options, facts]).encode(), digest_size=16).hexdigest()
