"""The judges: a perfect video is perfect to them, and a worse one is worse."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("skia")

from joyavatar_core.evaluation.ablation import compare, named_variants, table
from joyavatar_core.evaluation.curves import plot_windows
from joyavatar_core.evaluation.drift import identity_distance
from joyavatar_core.evaluation.photo_judge import COLUMNS, photo_table
from joyavatar_core.evaluation.rollout import Judge, Rollout, Truth, mean_pictures, rollout, round_tripped
from joyavatar_core.evaluation.seams import Seams
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.sampling.presets import preset
from joyavatar_core.training.__main__ import main

SIZE = 64


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth.of(100, 6.0, SIZE)


@pytest.fixture(scope="module")
def judge(truth) -> Judge:
    return Judge(truth, mean_pictures([900, 901, 902], SIZE, 0.5))


def test_the_drawing_itself_is_perfect(truth, judge):
    perfect = judge.measure(truth.frames)
    assert perfect["mouth_r"] == perfect["mouth_r_drawn"] > 0.8
    assert perfect["lag"] == 0
    assert perfect["amplitude"] == perfect["sharpness"] == perfect["eyes"] == perfect["motion"] == pytest.approx(1)
    assert perfect["identity"] == 0
    assert perfect["chance_r"] < 0.5


def test_a_late_picture_has_a_lag(truth, judge):
    assert judge.measure(np.concatenate([truth.frames[:2], truth.frames[:-2]]))["lag"] == 2


def test_a_still_does_not_move_its_mouth(truth, judge):
    still = judge.measure(truth.frames[:1].repeat(len(truth.frames), 0))
    assert abs(still["mouth_r"]) < 0.3
    assert still["motion"] == 0
    assert still["drift"] == 0


def test_blurred_eyes_are_seen_and_a_blurred_chin_is_not(truth, judge):
    _, rows, _ = judge.eyes
    for first, last, least, most in ((rows.start, rows.stop, 0.1, 0.7), (rows.stop + 2, SIZE, 0.99, 1.01)):
        blurred = truth.frames.copy()
        part = blurred[:, first:last].astype(np.float32)
        blurred[:, first:last] = (sum(np.roll(part, shift, axis=2) for shift in range(-3, 4)) / 7).astype(np.uint8)
        assert least < judge.measure(blurred)["eyes"] < most


def test_fading_colours_are_seen_in_the_windows_they_are_in(truth, judge):
    faded = truth.frames.copy()
    faded[60:] = faded[60:] // 2 + 64
    early, late = (judge.measure(faded, part) for part in (slice(0, 60), slice(60, None)))
    for name in ("drift", "colour", "identity"):
        assert late[name] > early[name] + 0.1
    assert late["sharpness"] < 0.7 * early["sharpness"]


def test_somebody_else_is_far_away(truth):
    own, others = truth.frames.mean(0), mean_pictures([900, 901, 902, 903], SIZE, 0.5)
    assert identity_distance(truth.frames, own, others) < 0.01
    assert 0.5 < identity_distance(others, others[0], others[1:]) < 1.5


def test_seams_are_told_from_movement():
    moving = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    assert Seams([12, 24]).ratios(moving) == {"seam": 1, "reset_seam": None}
    jumping = moving.copy()
    jumping[24:] += 4
    assert Seams([12, 24]).ratios(jumping) == {"seam": 3, "reset_seam": None}
    assert Seams([12, 20, 24], resets=[24], gaps=[20]).ratios(jumping) == {"seam": 1, "reset_seam": 5}
    assert Seams([12, 24], gaps=[24]).ratios(jumping) == {"seam": 1, "reset_seam": None}
    assert Seams([0]).ratios(moving) == {"seam": None, "reset_seam": None}


def test_a_table_of_photographs_has_a_dash_where_nothing_was_measured():
    one = dict.fromkeys(COLUMNS, 0.5)
    *_, row, mean = photo_table({"a.png": one, "b.png": one | {"reset_seam": None}}).splitlines()
    assert row.count("0.50") == mean.count("0.50") == len(COLUMNS) - 1
    assert row.count("| – |") == mean.count("| – |") == 1


def test_windows_and_their_plot(truth, judge, tmp_path):
    judged = judge.judge(Rollout(truth.frames, Seams([9, 21, 33], [33]), 0.1))
    assert judged["first"] == judged["windows"][0]
    assert judged["frames_per_second"] == 10
    plot_windows({"drawn": judged["windows"] * 2}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"


def test_the_ends_of_a_video_are_what_they_are_in_the_whole():
    avatar, truth = load_avatar(), Truth.of(100, 9.0, 32)
    settings = preset("checkpoint", avatar.config)
    whole, ends = (rollout(avatar, truth, settings, ends=frames) for frames in (None, 40))
    assert np.array_equal(ends.video[:40], whole.video[:40])
    error = np.abs(ends.video[40:].astype(int) - whole.video[-40:])
    assert error.max() <= 4  # the decoder had come back 48 frames before; it may compute in bfloat16
    assert np.array_equal(truth.ends(40).frames, np.concatenate([truth.frames[:40], truth.frames[-40:]]))
    assert len(round_tripped(avatar, truth.ends(40)).video) == len(ends.video) == 80  # which is not 4 n + 1
    assert ends.seams.gaps == [40] and 40 not in ends.seams.resets
    late = len(truth.frames) - 40
    assert [s - 40 + late for s in ends.seams.starts if s > 40] == [s for s in whole.seams.starts if s > late]


def test_a_comparison_is_kept_and_not_made_twice(tmp_path, monkeypatch):
    avatar = load_avatar()
    chosen = named_variants(["plain", "all three"], avatar.config)
    results = compare(avatar, chosen, [100], 1.0, tmp_path)
    assert set(results) == {"plain", "all three", "drawn", "round trip"}

    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("joyavatar_core.evaluation.ablation.rollout", never)
    assert compare(avatar, chosen, [100], 1.0, tmp_path).keys() == results.keys()
    lines = table(results).splitlines()
    assert len(lines) == 2 + len(results)
    assert len({line.count("|") for line in lines}) == 1


def test_the_command_compares_and_refuses_ends_that_are_too_short(tmp_path, capsys):
    given = ["ablate", "--shipped", "--bfloat16", "--only", "plain", "--people", "1", "--runs", str(tmp_path)]
    assert main([*given, "--seconds", "1", "--threads", "1"]) == 0
    assert "| plain | " in capsys.readouterr().out
    photos = ["evaluate", "--photos", str(tmp_path), "--voice", "voice.wav", "--runs", str(tmp_path)]
    for command in (given, photos):
        assert main([*command, "--ends", "5"]) == 1
        assert capsys.readouterr().err == "--ends is 5, expected 10 or more.\n"


def test_the_table_tells_means_ends_and_how_much_a_seed_matters():
    def figures(value: float, reset_seam: float | None) -> dict:
        late = {"drift": value, "colour": 1.0, "sharpness": 1.0, "identity": 0.0}
        same = {"mouth_r": value, "amplitude": 1.0, "eyes": 1.0, "motion": 1.0, "seam": 1.0, "reset_seam": reset_seam}
        return same | {"first": late, "last": late | {"drift": value + 1}}

    people_then_seeds = [figures(value, None if value < 3 else 1.5) for value in (1.0, 2.0, 5.0, 8.0)]
    bounds = {"drawn": [figures(0.0, None)] * 2}
    cells = [line.strip("| ").split(" | ") for line in table(bounds | {"plain": people_then_seeds}, 2).splitlines()]
    header, _, drawn, plain, spread = cells
    at = {name: header.index(name) for name in ("mouth_r", "drift", "reset_seam")}
    assert drawn[0] == "drawn" and drawn[at["reset_seam"]] == "–"
    assert [plain[at[name]] for name in at] == ["4.00", "4.00 → 5.00", "1.50"]
    assert spread[0].startswith("±")  # the seeds' means are 3 and 5
    assert [spread[at[name]] for name in at] == ["1.41", "1.41 → 1.41", "0.00"]
    assert len(table(bounds).splitlines()) == 3
