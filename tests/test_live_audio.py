"""Voices that are still being spoken: raw PCM, async iterators, and one voice after another on one clock."""

from __future__ import annotations

import asyncio
import io
import os
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joyavatar_core.audio import ArrayAudio, AudioFeatures, GrowingAudio, LogMel, SwitchedAudio, open_voice, read_pcm
from joyavatar_core.errors import AvatarError

RATE = 16000


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.2).astype(np.float32)


class Portions(io.RawIOBase):
    """A stream that hands its bytes out in portions of random size, as a pipe does."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.data, self.random = data, random.Random(seed)

    def read(self, size: int) -> bytes:
        count = self.random.choice([1, 2, 3, 5, 333, 4096, size])
        portion, self.data = self.data[:count], self.data[count:]
        return portion


@pytest.mark.parametrize(("sample_format", "channels"), [("s16le", 1), ("s16le", 2), ("f32le", 1), ("f32le", 6)])
def test_pcm_is_the_same_voice_as_the_array_whatever_the_portions(sample_format, channels):
    wave = noise(5000, channels)
    if sample_format == "s16le":
        wave = (wave * 32767).clip(-32768, 32767).astype("<i2")
    voice = read_pcm(Portions(wave.T.tobytes(), 7), RATE, channels, sample_format)
    assert not voice.wait(6000) and voice.num_samples == 5000
    assert np.array_equal(voice.read_native(-10, 5100), ArrayAudio(wave, RATE).read_native(-10, 5100))


def test_bytes_of_a_cut_sample_are_dropped_with_a_warning(caplog):
    voice = read_pcm(io.BytesIO(bytes(4 * 100 + 3)), RATE, 2, "s16le")
    assert not voice.wait(1000) and voice.num_samples == 100
    assert "3 of 4 bytes" in caplog.text


@pytest.mark.parametrize("tens", range(30))
def test_any_bytes_are_a_voice_or_one_sentence(tens):
    for case in range(10 * tens, 10 * tens + 10):
        chance = random.Random(case)
        channels, sample_format = chance.choice([1, 1, 2, 3, 8]), chance.choice(["s16le", "f32le"])
        count = chance.choice([0, 1, 3, 7, 100, 5000])
        data = bytearray(chance.randbytes(count) if chance.random() < 0.5 else noise(count, 1, case).tobytes())
        if chance.random() < 0.3 and count > 90:
            data[80:84] = np.array(chance.choice([np.nan, np.inf, 1e30, -65.0]), "<f4").tobytes()
        voice = read_pcm(Portions(bytes(data), case), RATE, channels, sample_format)
        try:
            assert not voice.wait(10**6)
            samples = voice.read_native(0, voice.num_samples + 50)
        except AvatarError as problem:
            assert str(problem).endswith((".", "?")) and "\n" not in str(problem), case
            continue
        dtype = np.dtype({"s16le": "<i2", "f32le": "<f4"}[sample_format])
        whole = len(data) // (channels * dtype.itemsize)
        assert voice.num_samples == whole, case
        expected = ArrayAudio(np.frombuffer(bytes(data), dtype, whole * channels).reshape(-1, channels).T, RATE)
        assert np.array_equal(samples, expected.read_native(0, whole + 50)), case


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"sample_rate": 0}, "sample rate is 0 Hz"),
        ({"sample_rate": 16000, "channels": 0}, "0 channels"),
        ({"sample_rate": 16000, "channels": 99}, "99 channels"),
        ({"sample_rate": 16000, "sample_format": "mp3"}, "format is 'mp3'"),
    ],
)
def test_pcm_settings_that_cannot_be_are_refused(settings_, sentence):
    with pytest.raises(AvatarError, match=sentence):
        read_pcm(io.BytesIO(b""), **settings_)


def test_a_stream_that_breaks_off_ends_the_waiting_with_a_sentence():
    class Broken(io.RawIOBase):
        def read(self, size):
            raise OSError("cable pulled")

    with pytest.raises(AvatarError, match=r"broke off \(cable pulled\)"):
        read_pcm(Broken(), RATE).wait(1)


def test_a_pipe_faster_than_the_reader_is_held_back_not_hoarded():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size):
            self.given += size
            return bytes(size)

    stream = Endless()
    voice = read_pcm(stream, RATE)
    for second in (0, 50, 100):
        voice.read(second * RATE, (second + 1) * RATE)
        time.sleep(0.05)
        assert stream.given / 2 < (second + 1 + 30 + 2) * RATE
    assert voice.available >= 101 * RATE
    voice.finish()


def test_arrival_tells_when_a_sample_came_in():
    voice = GrowingAudio(RATE)
    before = time.monotonic()
    voice.push(noise(100))
    between = time.monotonic()
    voice.push(noise(100))
    assert before <= voice.arrival(1) == voice.arrival(100) <= between <= voice.arrival(101)
    assert voice.arrival(201) is None and ArrayAudio(noise(9), RATE).arrival(3) is None


def test_standard_input_is_read_where_the_voice_is_a_dash(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(np.arange(10, dtype="<i2").tobytes())
        terminal = False

        def isatty(self):
            return self.terminal

    monkeypatch.setattr("sys.stdin", Stdin())
    voice = open_voice("-", 8000)
    assert np.array_equal(voice.read(0, 10) * 32768, np.arange(10)) and voice.sample_rate == 8000
    Stdin.terminal = True
    with pytest.raises(AvatarError, match="pipe raw PCM in"):
        open_voice("-")


@pytest.mark.parametrize("own_loop", [True, False])
def test_an_async_iterator_is_a_voice(own_loop):
    wave = noise(3000)

    async def chunks():
        for chunk in np.split(wave, 3, axis=1):
            await asyncio.sleep(0.001)
            yield chunk

    async def host():
        voice = GrowingAudio.from_async(chunks(), RATE, loop=asyncio.get_running_loop())
        return await asyncio.to_thread(voice.read, 0, 3500)

    heard = GrowingAudio.from_async(chunks(), RATE).read(0, 3500) if own_loop else asyncio.run(host())
    assert np.array_equal(heard, ArrayAudio(wave, RATE).read(0, 3500))


def test_an_async_iterator_that_fails_or_is_cancelled_leaves_no_reader_waiting():
    async def broken():
        yield noise(10)
        raise RuntimeError("microphone gone")

    voice = GrowingAudio(RATE)
    with pytest.raises(RuntimeError, match="microphone gone"):
        asyncio.run(voice.feed(broken()))
    with pytest.raises(RuntimeError, match="microphone gone"):
        voice.wait(11)

    async def endless():
        while True:
            yield noise(10)
            await asyncio.sleep(0.001)

    async def cancel():
        task = asyncio.create_task(voice.feed(endless()))
        await asyncio.sleep(0.02)
        task.cancel()

    voice = GrowingAudio(RATE)
    asyncio.run(cancel())
    with pytest.raises(AvatarError, match="cancelled"):
        voice.wait(10**9)


@settings(deadline=None, max_examples=40)
@example(0, 0, 1000, 1)
@given(st.integers(0, 900), st.integers(0, 900), st.integers(-20, 2500), st.integers(1, 900))
def test_switched_voices_are_their_parts_one_behind_another(first, second, start, length):
    parts = [noise(1000, 2, seed) for seed in range(3)]
    voice = SwitchedAudio(ArrayAudio(parts[0], RATE), ArrayAudio(parts[1], RATE), first)
    voice = SwitchedAudio(voice, ArrayAudio(parts[2], RATE), first + second)
    whole = ArrayAudio(np.concatenate([parts[0][:, :first], parts[1][:, :second], parts[2]], axis=1), RATE)
    assert voice.num_samples == voice.available == whole.num_samples
    assert np.array_equal(voice.read_native(start, start + length), whole.read_native(start, start + length))


def test_a_voice_at_another_rate_is_resampled_and_silence_fills_a_gap():
    late = SwitchedAudio(ArrayAudio(noise(100), RATE), ArrayAudio(np.ones(4000), 8000), 400)
    assert late.num_samples == 400 + 8000
    heard = late.read(0, late.num_samples)
    assert not heard[100:400].any() and np.allclose(heard[1000:7000], 1, atol=1e-3)


def test_switching_for_ever_keeps_only_the_last_minutes_voices():
    voice = ArrayAudio(noise(RATE), RATE)
    for second in range(1, 400):
        voice = SwitchedAudio(voice, ArrayAudio(noise(RATE), RATE), second * RATE)
    assert len(voice._pieces) <= 92
    with pytest.raises(AvatarError, match="gone"):
        voice.read(0, 10)
    with pytest.raises(AvatarError, match="before the last switch"):
        SwitchedAudio(voice, voice, 5)


def test_switched_live_voices_wait_for_the_one_that_speaks():
    first, second = GrowingAudio(RATE), GrowingAudio(RATE)
    first.push(noise(500))
    voice = SwitchedAudio(first, second, 1000)
    assert voice.live and voice.wait(500) and not voice.wait(501, timeout=0.01)
    first.finish()
    assert voice.wait(1000) and not voice.wait(1001, timeout=0.01)
    threading.Timer(0.02, lambda: second.push(noise(10))).start()
    assert voice.wait(1010) and voice.num_samples is None and voice.arrival(1001) is not None
    second.finish()
    assert not voice.wait(1011) and voice.num_samples == 1010


def test_features_after_a_switch_are_the_new_voice_from_its_beginning():
    old, new = noise(5 * RATE), noise(5 * RATE, seed=1)
    features = AudioFeatures(ArrayAudio(old, RATE), LogMel(), 16, 3)
    follower = features.followed_by(ArrayAudio(new, RATE), 2)  # block 2 begins with frame 21
    at = features.clock.frame_start(21)
    whole = AudioFeatures(ArrayAudio(np.concatenate([old[:, :at], new], axis=1), RATE), LogMel(), 16, 3)
    for block in (1, 2, 3):
        assert np.array_equal(follower.latent_features(3 * block, 3), whole.latent_features(3 * block, 3))
    assert follower.num_video_frames == 21 + 80
    untouched = AudioFeatures(ArrayAudio(old, RATE), LogMel(), 16, 3)
    assert np.array_equal(features.latent_features(6, 3), untouched.latent_features(6, 3))


def test_pcm_through_a_real_pipe_comes_as_it_is_written():
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb", buffering=0) as writer:
        voice = read_pcm(reader, RATE)
        writer.write(bytes(200))
        assert voice.wait(100) and not voice.wait(101, timeout=0.02)
        writer.write(bytes(2))
        assert voice.wait(101)
        writer.close()
        assert not voice.wait(102) and voice.num_samples == 101
