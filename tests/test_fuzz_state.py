"""Whatever happens to a recording's folder, resuming it is a sentence or the same video; never a traceback.

RECORDING_FUZZ_CASES sets the number of cases; 200 take about 15 s of one core.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from joyavatar_core.errors import AvatarError
from joyavatar_core.recording import Interval, join_recording
from joyavatar_core.recording.state import read_state, write_state

from .recordings import pictures, record

SHORT = {"video_frames": 69, "every": Interval(blocks=2)}  # 6 blocks, states behind every other
CASES = int(os.environ.get("RECORDING_FUZZ_CASES", "200"))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A folder left inside its third and last segment, the segments of the whole recording, a foreign folder."""
    root = tmp_path_factory.mktemp("fuzz")
    segments = record(root / "whole", **SHORT)
    record(root / "crashed", crash_at=5, **SHORT)
    record(root / "foreign", crash_at=5, seed=9, **SHORT)
    return root / "crashed", segments, root / "foreign"


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Cut, flipped, zeroed, doubled, overwritten with noise."""
    raw, place = bytearray(data), dice.randrange(len(data))
    kind = dice.choice(["cut", "tail", "flip", "flips", "zeros", "noise", "longer", "header", "empty"])
    if kind == "cut":
        del raw[place:]
    elif kind == "tail":
        del raw[-dice.randrange(1, 64) :]
    elif kind == "flip":
        raw[place] ^= 1 << dice.randrange(8)
    elif kind == "flips":
        for _ in range(50):
            raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    elif kind in ("zeros", "noise"):  # a page the disk never got
        start = place // 4096 * 4096
        length = len(raw[start : start + 4096])
        raw[start : start + length] = bytes(length) if kind == "zeros" else dice.randbytes(length)
    elif kind == "longer":
        raw += dice.randbytes(dice.randrange(1, 9000))
    elif kind == "header":
        raw[dice.randrange(min(2000, len(raw)))] = dice.randrange(256)
    else:
        raw.clear()
    return bytes(raw)


def forged(path: Path, dice: random.Random) -> None:
    """A state with a valid checksum and wrong contents: fields missing, of other types, absurd."""
    state = {**read_state(path, 1 << 30)}
    state.pop("format")
    places: list[tuple[object, object]] = []

    def walk(value: object) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((value, key))
            walk(item)

    copy = clone(state)
    walk(copy)
    owner, key = dice.choice(places)
    choices = [None, -1, 2**70, "x", [], {}, 1.5, float("nan"), {"$tensor": "absent"}, {"$tensor": 3}, True]
    if isinstance(owner, dict) and dice.random() < 0.3:
        del owner[key]
    else:
        owner[key] = dice.choice(choices)
    write_state(path, copy)


def clone(value: object) -> object:
    """Containers copied, tensors too: the file they are mapped from is about to be replaced."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value.clone() if hasattr(value, "clone") else value


def mutate(folder: Path, foreign: Path, dice: random.Random) -> bool:
    """Do something to the folder; returns whether it was a forgery, whose video may be anything."""
    files = sorted(path for path in folder.iterdir() if path.name not in ("lock", "owner"))
    states = [path for path in files if path.name.startswith("state")]
    kind = dice.choice(["damage"] * 5 + ["several", "forge", "forge", "swap", "foreign", "rename", "remove", "folder"])
    victim = dice.choice(files)
    if kind == "damage":
        victim.write_bytes(damaged(victim.read_bytes(), dice))
    elif kind == "several":
        for path in dice.sample(files, 3):
            path.write_bytes(damaged(path.read_bytes(), dice))
    elif kind == "forge":
        forged(dice.choice(states), dice)
    elif kind == "swap":
        other = dice.choice(files)
        a, b = victim.read_bytes(), other.read_bytes()
        victim.write_bytes(b)
        other.write_bytes(a)
    elif kind == "foreign":
        shutil.copyfile(foreign / victim.name, victim)
    elif kind == "rename":
        victim.rename(folder / victim.name.replace("0000000", f"000000{dice.randrange(10)}", 1))
    elif kind == "remove":
        victim.unlink()
    else:
        victim.unlink()
        victim.mkdir()
    return kind == "forge"


def test_a_mutated_folder_is_refused_in_a_sentence_or_resumes_to_the_same_video(crashed, tmp_path, capsys, caplog):
    caplog.set_level("CRITICAL")  # hundreds of warnings tell nothing
    source, segments, foreign = crashed
    outcomes = Counter()
    for case in range(CASES):
        folder = tmp_path / "state"
        shutil.copytree(source, folder)
        dice = random.Random(case)
        forgery = mutate(folder, foreign, dice)
        try:
            same = record(folder, **SHORT) == segments
        except AvatarError as problem:
            assert str(problem).endswith(".") and "\n" not in str(problem), f"case {case}"
            outcomes["refused"] += 1
        else:
            assert same or forgery, f"case {case}: another video"
            outcomes["resumed" if same else "forged"] += 1
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f" {dict(outcomes)}", end="")
    assert outcomes["refused"] and outcomes["resumed"] and sum(outcomes.values()) == CASES
    assert outcomes["forged"] < CASES / 50


def test_a_mutated_tail_is_joined_up_to_the_damage(crashed, tmp_path):
    source, _, _ = crashed
    expected = pictures(join_recording(source, tmp_path / "whole.mp4"))
    for case in range(max(20, CASES // 8)):
        folder = tmp_path / "state"
        shutil.copytree(source, folder)
        dice = random.Random(10_000 + case)
        tail = next(folder.glob("*.part.mp4"))
        data = tail.read_bytes()
        tail.write_bytes(data[: dice.randrange(len(data))])
        saved = pictures(join_recording(folder, tmp_path / "v.mp4"))
        assert len(saved) >= 45, f"case {case}"
        assert (saved == expected[: len(saved)]).all(), f"case {case}"
        shutil.rmtree(folder)
