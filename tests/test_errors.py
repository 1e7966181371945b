"""The core speaks of settings; a command line adds the flags that it has."""

from __future__ import annotations

import pickle
import re
from argparse import Namespace
from pathlib import Path

import pytest

from joyavatar_core.cli import main
from joyavatar_core.errors import AvatarError, with_flags

CORE = Path(__file__).parents[1] / "joyavatar_core"
COMMAND_LINES = {  # files that define flags, or check the values of their own
    "cli/*.py", "training/__main__.py", "training/arguments.py", "training/stages.py", "training/judging.py",
    "training/run_folder.py", "evaluation/talking_judge.py",
}  # fmt: skip
OTHER_PROGRAMS = ("espeak-ng --voices", '"flite", "-voice", voice.speaker, "--setf"')


def test_the_core_names_no_flag():
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        if any(path.relative_to(CORE).match(pattern) for pattern in COMMAND_LINES):
            continue
        text = path.read_text(encoding="utf-8")
        for program in OTHER_PROGRAMS:
            text = text.replace(program, "")
        if flags := re.findall(r"--[a-z][a-z-]*", text):
            found[str(path.relative_to(CORE))] = flags
    assert found == {}


def test_the_files_that_may_name_flags_exist():
    assert all(list(CORE.glob(pattern)) for pattern in COMMAND_LINES)


@pytest.mark.parametrize(("settings", "sentence"), [
    ((), "It is wrong."),
    (("lora_alpha", "size"), "It is wrong (--lora-alpha, --size)."),
    (("lora_alpha", "unknown"), "It is wrong (--lora-alpha)."),
    (("no_resume",), "It is wrong (--no-resume)."),
])  # fmt: skip
def test_a_command_line_adds_the_flags_that_it_has(settings, sentence):
    options = Namespace(lora_alpha=None, size=None, resume=True)
    assert with_flags(AvatarError("It is wrong.", *settings), options) == sentence


def test_an_error_keeps_its_settings_between_processes():
    again = pickle.loads(pickle.dumps(AvatarError("It is wrong.", "size")))
    assert str(again) == "It is wrong." and again.settings == ("size",)


def test_a_sentence_of_the_core_ends_with_the_flag_to_change(tmp_path, capsys):
    (tmp_path / "p.png").touch()
    given = ["--portrait", tmp_path / "p.png", "--audio", "v.wav", "--out", tmp_path / "v.mp4", "--size", "33x48"]
    assert main(["speak", *map(str, given)]) == 2
    assert capsys.readouterr().err.strip().endswith("expected multiples of 16 from 16 to 4096 (--size).")
