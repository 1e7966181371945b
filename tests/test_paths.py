"""A file that is replaced in one step, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from joyavatar_core.paths import replacing

CORE = Path(__file__).parents[1] / "joyavatar_core"


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_when_it_is_whole(tmp_path, shared):
    target = tmp_path / "report.json"
    target.write_text("old")
    with replacing(target, shared=shared) as unfinished:
        unfinished.write_text("new")
        assert target.read_text() == "old" and unfinished.parent == tmp_path
        assert (str(os.getpid()) in unfinished.name) == shared
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["report.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as unfinished:
        unfinished.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["report.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows needs a privilege for links")
def test_a_link_under_the_unfinished_name_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (tmp_path / "report.json.tmp").symlink_to(outside)
    with replacing(tmp_path / "report.json") as unfinished:
        unfinished.write_text("new")
    assert outside.read_text() == "theirs" and (tmp_path / "report.json").read_text() == "new"


def test_files_are_replaced_in_one_place_alone():
    found = [path.name for path in CORE.rglob("*.py") if "os.replace(" in path.read_text(encoding="utf-8")]
    assert found == ["paths.py"]
