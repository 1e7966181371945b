"""The report as a picture: every number that is there gets a panel, nothing makes it fail."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from joyavatar_core.errors import AvatarError
from joyavatar_core.monitoring.report import clock_text
from joyavatar_core.monitoring.report_plot import PANELS, draw_report, save_plot, thinned

NAMES = [name for name, _, _ in PANELS]


def summary(count: int, **measures: object) -> dict:
    blocks = [{"index": i, "steps": 4, "reset": i % 5 == 4, "seconds": 0.5, **measures} for i in range(count)]
    return {"fps": 16.0, "frames": 12 * count, "weights": "w", "trained": True, "blocks": blocks}


def test_each_measure_that_is_there_makes_the_picture_taller():
    heights = [draw_report(summary(3, **dict.fromkeys(NAMES[:n], 1.0))).height for n in range(2, len(NAMES) + 1)]
    assert all(b - a == heights[1] - heights[0] > 50 for a, b in itertools.pairwise(heights))


def test_a_missing_measure_leaves_a_gap_and_no_line():
    known, gap = summary(40, colour=1.0), summary(40, colour=1.0)
    for block in gap["blocks"][10:30]:
        block["colour"] = None
    assert draw_report(known).tobytes() != draw_report(gap).tobytes()


def test_warnings_are_drawn_and_listed():
    plain, warned = summary(20), {**summary(20), "warnings": [{"seconds": 5.0, "text": "colour moved"}]}
    assert draw_report(warned).height > draw_report(plain).height
    colours = {colour for _, colour in draw_report(warned).getcolors(1 << 16)}
    assert (213, 94, 0) in colours and (213, 94, 0) not in {c for _, c in draw_report(plain).getcolors(1 << 16)}


def test_hours_of_blocks_are_thinned_to_the_width_and_keep_their_extremes():
    points = [(i / 100, float(i == 777)) for i in range(10_000)]
    kept = thinned(points)
    assert len(kept) <= 200 and max(value for _, value in kept) == 1.0
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


anything = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-(10**9), 10**9), st.text(max_size=5))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.dictionaries(st.sampled_from([*NAMES, "reset", "frames"]), anything), max_size=6), anything, anything
)
def test_no_report_however_odd_breaks_the_picture(blocks, frames, fps):
    odd = {"blocks": blocks, "frames": frames, "fps": fps, "warnings": [{"seconds": frames, "text": fps}]}
    assert draw_report(odd, width=300, panel_height=40).width == 300


def test_a_plot_is_a_png_and_a_bad_place_is_one_sentence(tmp_path):
    read_back = json.loads(json.dumps(summary(4)))
    with Image.open(save_plot(read_back, tmp_path / "p.png")) as image:
        assert image.format == "PNG" and image.size[0] == 1200
    with pytest.raises(AvatarError, match=r"plot .*p\.png cannot be written: No such file"):
        save_plot(read_back, tmp_path / "no" / "p.png")
    with pytest.raises(AvatarError, match="not a run's report"):
        draw_report([1, 2])


def test_times_read_like_a_clock():
    assert [clock_text(t) for t in (0, 61, 3661)] == ["0:00", "1:01", "1:01:01"]
