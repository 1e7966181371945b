"""Sources in memory and live ones: same audio, same numbers; bad audio, one sentence."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joyavatar_core.audio import ArrayAudio, GrowingAudio
from joyavatar_core.errors import AvatarError

RATE = 8000


def speechlike(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.2).astype(np.float32)


def chunked(wave: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    cuts = np.cumsum(sizes)
    return np.split(wave, cuts[cuts < wave.shape[-1]], axis=-1)


def test_samples_outside_the_audio_are_zero():
    source = ArrayAudio(np.ones(10, np.float32), RATE)
    assert source.read(-3, 12).tolist() == [0.0] * 3 + [1.0] * 10 + [0.0] * 2
    assert source.read(50, 53).tolist() == [0.0] * 3
    assert source.read(-9, -7).tolist() == [0.0] * 2
    assert source.read(4, 4).shape == (0,)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0, 128, 255], np.uint8), [-1, 0, 127 / 128]),
        (np.array([-128, 64], np.int8), [-1, 0.5]),
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([0, 32768], np.uint16), [-1, 0]),
        (np.array([-(2**31), 2**30], np.int32), [-1, 0.5]),
        (np.array([-1.0, 0.25], np.float64), [-1, 0.25]),
        (torch.tensor([-1.0, 0.25], dtype=torch.bfloat16), [-1, 0.25]),
        (torch.tensor([-32768, 16384], dtype=torch.int16), [-1, 0.5]),
    ],
)
def test_every_sample_type_is_brought_to_full_scale(samples, expected):
    assert ArrayAudio(samples, RATE).read(0, len(samples)).tolist() == expected


@pytest.mark.parametrize("channels", range(1, 9))
def test_up_to_eight_channels_are_one_voice_and_native_keeps_stereo(channels):
    wave = speechlike(100, channels)
    source = ArrayAudio(wave, RATE)
    voice = wave[2] if channels in (6, 8) else wave.mean(axis=0)  # surround speaks from its centre
    np.testing.assert_allclose(source.read(0, 100), voice, atol=1e-7)
    native = source.read_native(0, 100)
    assert native.shape == (100, source.channels) == (100, 2 if channels in (2, 6, 8) else 1)
    if channels == 2:
        assert np.array_equal(native, wave.T)


def test_an_array_is_kept_by_reference_not_copied():
    wave = torch.zeros(2, 1000)
    source = ArrayAudio(wave, RATE)
    wave[:, 5] = 0.5
    assert source.read(5, 6) == 0.5


def test_silence_and_a_single_sample_are_audio():
    assert not ArrayAudio(np.zeros(10), RATE).read(0, 10).any()
    assert ArrayAudio(np.array([0.5]), RATE).num_samples == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=12), st.integers(1, 5), st.integers(-50, 3000))
def test_growing_audio_gives_the_numbers_of_the_array_whatever_the_chunks(sizes, channels, start):
    wave = speechlike(3000, channels)
    pushed, pulled = GrowingAudio(RATE), GrowingAudio.from_chunks(chunked(wave, sizes), RATE)
    for chunk in chunked(wave, sizes):
        pushed.push(chunk)
    pushed.finish()
    expected = ArrayAudio(wave, RATE)
    for source in (pushed, pulled):
        assert np.array_equal(source.read_native(start, start + 700), expected.read_native(start, start + 700))
        assert np.array_equal(source.read(start, start + 700), expected.read(start, start + 700))


def test_a_reader_waits_for_another_threads_samples():
    source = GrowingAudio(RATE)
    assert source.num_samples is None
    assert not source.wait(1, timeout=0.01)
    wave = speechlike(1000)

    def speak():
        for chunk in chunked(wave, [100] * 9):
            source.push(chunk)
        source.finish()

    thread = threading.Thread(target=speak)
    thread.start()
    assert source.wait(950)
    assert not source.wait(1001)
    thread.join()
    assert source.num_samples == source.available == 1000
    assert np.array_equal(source.read(0, 1000), wave[0])


def test_pulled_audio_takes_no_more_chunks_than_a_reader_needs():
    taken = []

    def chunks():
        for index in range(1000):
            taken.append(index)
            yield np.zeros(100, np.float32)

    source = GrowingAudio.from_chunks(chunks(), RATE)
    source.read(0, 250)
    assert len(taken) == 3


def test_history_is_bounded_and_going_back_beyond_it_says_so():
    source = GrowingAudio(RATE, history_seconds=1)
    for second in range(100):
        source.push(speechlike(RATE, seed=second))
        source.read(second * RATE, (second + 1) * RATE)
        assert source._buffer.end - source._buffer.start <= 2 * RATE
    assert len(source.read(99 * RATE, 100 * RATE)) == RATE
    with pytest.raises(AvatarError, match=r"live audio at 50\.00 s is gone, history begins at 99\.00 s"):
        source.read(50 * RATE, 51 * RATE)


def test_unread_audio_is_never_dropped():
    source = GrowingAudio(RATE, history_seconds=1)
    wave = speechlike(10 * RATE)
    for chunk in chunked(wave, [RATE] * 9):
        source.push(chunk)
    assert np.array_equal(source.read(0, 10 * RATE), wave[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_bad_sample_is_named_by_its_time(bad):
    wave = speechlike(2 * RATE, 2)
    wave[1, RATE + 4] = bad
    with pytest.raises(AvatarError, match=r"NaN or infinite sample at 1\.0005 s"):
        ArrayAudio(wave, RATE)
    source = GrowingAudio(RATE)
    source.push(wave[:, :RATE])
    with pytest.raises(AvatarError, match=r"NaN or infinite sample at 1\.0005 s"):
        source.push(wave[:, RATE:])


@pytest.mark.parametrize(
    ("wave", "sentence"),
    [
        (np.zeros(0), "audio is empty"),
        (np.zeros((2, 0)), "audio is empty"),
        (np.zeros((0, 100)), "0 channels"),
        (np.zeros((100, 2)), r"100 channels .* expected 1 to 8, as \[channels, samples\]"),
        (np.zeros((1, 1, 100)), r"shape is \(1, 1, 100\), expected \[samples\] or \[channels, samples\]"),
        (np.zeros(4, np.int64), "samples are int64, expected floats or 8, 16 or 32-bit integers"),
        (np.zeros(4, np.complex64), "samples are complex64"),
        (torch.zeros(4, dtype=torch.bool), "samples are bool"),
        (np.array(["a"]), "samples are <U1"),
    ],
)
def test_waveforms_that_are_none_are_refused_with_a_sentence(wave, sentence):
    with pytest.raises(AvatarError, match=sentence):
        ArrayAudio(wave, RATE)


def test_live_audio_without_a_sample_and_misuse_are_refused_with_a_sentence():
    source = GrowingAudio(RATE)
    source.finish()
    with pytest.raises(AvatarError, match="ended before its first sample"):
        source.wait(1)
    with pytest.raises(AvatarError, match=r"pushed after finish\(\)"):
        source.push(np.zeros(3))
    source = GrowingAudio(RATE)
    source.push(np.zeros((2, 3)))
    with pytest.raises(AvatarError, match=r"1 channel\(s\) after chunks of 2"):
        source.push(np.zeros(3))
    with pytest.raises(AvatarError, match="sample rate is 100 Hz"):
        GrowingAudio(100)
    with pytest.raises(AvatarError, match="history is 0 s"):
        GrowingAudio(RATE, history_seconds=0)


def test_the_samples_of_frames_end_where_the_voice_ends():
    voice = ArrayAudio(np.zeros(1500, np.float32), 16000)
    assert voice.samples_of(range(0, 1), 16) == (0, 1000)
    assert voice.samples_of(range(1, 3), 16) == (1000, 1500)
    assert voice.samples_of(range(4, 6), 16) == (4000, 4000)
    growing = GrowingAudio(16000)
    assert growing.samples_of(range(1, 3), 16) == (1000, 3000)
