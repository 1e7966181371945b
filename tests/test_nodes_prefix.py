"""Filename prefixes: dates, names that every system takes, and what is refused."""

from __future__ import annotations

from datetime import datetime

import pytest

NOW = datetime(2026, 3, 7, 14, 5, 9)


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("JoyAvatar/talk", "JoyAvatar/talk"),
        ("%date:yyyy-MM-dd%/%date:yy M d h m s%", "2026-03-07/26 3 7 14 5 9"),
        ("%width%x%height%", "%width%x%height%"),  # the host's own
        ("", "JoyAvatar/talk"),
        (" / ", "JoyAvatar/talk"),
        ("a\x00b\ud800", "a_b_"),
        ('take 1: "two"?', "take 1_ _two__"),
        ("CON/lpt1.txt/console", "_CON/_lpt1.txt/console"),
        ("day./name. ", "day/name"),
        (r"mine\talk", "mine/talk"),
        ("../up", "../up"),  # the host refuses it
        ("声音/说话", "声音/说话"),
    ],
)
def test_a_prefix_is_made_safe(pack, typed, made):
    assert pack.nodes.prefix.safe_prefix(typed, NOW) == made


@pytest.mark.parametrize("typed", ["a" * 300, "folder/" + "声" * 80, "/etc/x", r"C:\x", r"\\server\share\x"])
def test_what_cannot_be_a_file_is_refused_in_one_sentence(pack, typed):
    with pytest.raises(pack.joyavatar_core.errors.AvatarError, match="filename prefix"):
        pack.nodes.prefix.safe_prefix(typed, NOW)
