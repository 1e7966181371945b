"""The clock: every sample is heard with exactly one video frame, for hours, at any rate."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyavatar_core.audio import Clock, block_to_frames, latent_to_frames, num_blocks
from joyavatar_core.errors import AvatarError

RATES = st.sampled_from([8000, 16000, 22050, 44100, 48000])
FPS = st.sampled_from([16, 25, Fraction(30000, 1001)])
FRAMES = st.integers(0, 30 * 3600 * 24)  # a day


@given(RATES, FPS, FRAMES, st.integers(1, 100))
def test_consecutive_frames_leave_no_gap_and_no_overlap(rate, fps, first, count):
    clock = Clock(rate, fps)
    edges = [clock.frame_samples(range(n, n + 1)) for n in range(first, first + count)]
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    assert clock.frame_samples(range(first, first + count)) == (edges[0][0], edges[-1][1])


@given(RATES, FPS, FRAMES)
def test_a_frame_never_drifts_by_a_whole_sample(rate, fps, frame):
    exact = Fraction(frame * rate) / Fraction(fps)
    assert 0 <= exact - Clock(rate, fps).frame_start(frame) < 1


@given(RATES, FPS, st.integers(1, 48000 * 3600 * 10))
def test_video_is_as_long_as_the_audio_to_within_one_frame(rate, fps, samples):
    clock = Clock(rate, fps)
    frames = clock.num_frames(samples)
    assert clock.frame_start(frames - 1) < samples <= clock.frame_start(frames)


def test_ten_hours_at_the_worst_rates_end_on_the_exact_sample():
    assert Clock(44100, Fraction(30000, 1001)).frame_start(30000 * 36) == 44100 * 1001 * 36
    assert Clock(22050, 16).frame_start(16 * 36000) == 22050 * 36000
    assert Clock(44100, 16).num_frames(1) == 1
    assert Clock(44100, 16).num_frames(0) == 1


def test_latent_frames_stand_for_one_video_frame_and_then_four():
    assert [list(latent_to_frames(g)) for g in range(3)] == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert block_to_frames(0, 3) == range(0, 9)
    assert block_to_frames(1, 3) == range(9, 21)
    assert block_to_frames(7, 3) == range(12 * 7 - 3, 12 * 7 + 9)
    assert block_to_frames(0, 1) == range(0, 1)


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_blocks_tile_the_video(block_frames, block):
    assert block_to_frames(block, block_frames).stop == block_to_frames(block + 1, block_frames).start


@given(st.integers(1, 12), st.integers(1, 10**6))
def test_num_blocks_is_the_least_that_covers_the_video(block_frames, frames):
    blocks = num_blocks(frames, block_frames)
    assert block_to_frames(blocks - 1, block_frames).start < frames <= block_to_frames(blocks - 1, block_frames).stop


@pytest.mark.parametrize("rate", [0, -1, 3999, 384001, 44100.5, float("nan"), None])
def test_implausible_sample_rates_are_refused_with_a_sentence(rate):
    with pytest.raises(AvatarError, match=r"sample rate is .* expected a whole number from 4000 to 384000"):
        Clock(rate, 16)


@pytest.mark.parametrize("fps", [0, -25, 241, 29.97, None])
def test_implausible_frame_rates_are_refused_with_a_sentence(fps):
    with pytest.raises(AvatarError, match=r"fps is .* expected an integer or a Fraction from 1 to 240"):
        Clock(48000, fps)
