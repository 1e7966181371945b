"""Files: any window, in any order, holds the samples of a whole decode; memory does not grow with the file."""

from __future__ import annotations

import tracemalloc
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from joyavatar_core.audio import ArrayAudio, FileAudio
from joyavatar_core.errors import AvatarError

FORMATS = {
    "wav": ("pcm_s16le", 22050),
    "u8.wav": ("pcm_u8", 8000),
    "s32.wav": ("pcm_s32le", 48000),
    "f32.wav": ("pcm_f32le", 44100),
    "flac": ("flac", 44100),
    "mp3": ("libmp3lame", 44100),
    "m4a": ("aac", 48000),
    "opus": ("libopus", 48000),
    "mka": ("libopus", 48000),
}


def encode(path: Path, codec: str, rate: int, sound: np.ndarray) -> None:
    """Write float [channels, S] with PyAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo" if len(sound) == 2 else "mono")
        frame = av.AudioFrame.from_ndarray(sound.astype(np.float32), "fltp", stream.layout.name)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, stream.layout, rate, stream.codec_context.frame_size or 1024)
        for packet_frame in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(packet_frame))
        container.mux(stream.encode(None))


def tone(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * (200 + 40 * c + 30 * time) * time) for c in range(channels)])


def whole_decode(path: Path) -> np.ndarray:
    """[S, channels] float32, decoded in one go with PyAV's own converter."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("fltp", stream.layout, stream.rate)
        frames = [f.to_ndarray() for frame in container.decode(stream) for f in resampler.resample(frame)]
    return np.concatenate(frames, axis=1).T


@pytest.mark.parametrize("name", FORMATS)
def test_windows_in_any_order_equal_the_whole_decode(name, tmp_path):
    codec, rate = FORMATS[name]
    path = tmp_path / f"voice.{name}"
    encode(path, codec, rate, tone(31.7, rate))
    whole = whole_decode(path)
    source = FileAudio(path, history_seconds=0.5)
    assert (source.sample_rate, source.channels, source.num_samples) == (rate, 2, len(whole))
    starts = [0, 3 * rate, 2 * rate + 17, 30 * rate + 1, 14 * rate, 14 * rate - 1, 29 * rate, 5, source.num_samples - 9]
    for start in starts:
        stop = min(start + rate, len(whole))
        assert np.array_equal(source.read_native(start, stop), whole[start:stop]), start
    assert not source.read(len(whole), len(whole) + 10).any()


@pytest.mark.parametrize(("name", "exact"), [("wav", 2e-5), ("flac", 2e-5)])
def test_a_lossless_file_gives_the_numbers_of_the_array_it_was_made_from(name, exact, tmp_path):
    codec, rate = FORMATS[name]
    sound = tone(1.5, rate)
    encode(tmp_path / f"voice.{name}", codec, rate, sound)
    source, array = FileAudio(tmp_path / f"voice.{name}"), ArrayAudio(sound, rate)
    assert source.num_samples == array.num_samples
    np.testing.assert_allclose(source.read(0, rate), array.read(0, rate), atol=exact)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_an_integer_file_equals_the_integer_array_exactly(dtype, tmp_path):
    info = np.iinfo(dtype)
    samples = np.random.default_rng(0).integers(info.min, info.max, (5000, 3), dtype, endpoint=True)
    with wave.open(str(tmp_path / "voice.wav"), "wb") as file:
        file.setparams((3, samples.itemsize, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    source, array = FileAudio(tmp_path / "voice.wav"), ArrayAudio(samples.T, 16000)
    assert np.array_equal(source.read(-7, 5003), array.read(-7, 5003))
    assert np.array_equal(source.read_native(0, 5000), array.read_native(0, 5000))


@pytest.fixture(scope="module")
def three_hours(tmp_path_factory) -> Path:
    """8-bit, 8 kHz, each second at its own level; written in a stream."""
    path = tmp_path_factory.mktemp("long") / "three_hours.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 1, 8000, 3 * 3600 * 8000, "NONE", ""))
        for second in range(3 * 3600):
            file.writeframesraw(bytes([second % 251]) * 8000)
    return path


def test_three_hours_cost_the_memory_of_a_window(three_hours):
    tracemalloc.start()
    source = FileAudio(three_hours, history_seconds=10)
    assert source.num_samples == 3 * 3600 * 8000
    for second in [*range(0, 3 * 3600, 1531), 5000, 17]:
        expected = (second % 251 - 128) / 128
        assert (source.read(second * 8000, (second + 1) * 8000) == expected).all()
    source.read_native(0, 8000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_jump_without_a_seek_is_decoded_in_bounded_memory(three_hours):
    source = FileAudio(three_hours, history_seconds=10)
    source._seekable = False
    tracemalloc.start()
    assert (source.read(900 * 8000, 901 * 8000) == (900 % 251 - 128) / 128).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_reading_goes_on_after_close(tmp_path):
    encode(tmp_path / "voice.wav", "pcm_s16le", 8000, tone(2, 8000))
    source = FileAudio(tmp_path / "voice.wav")
    before = source.read(8000, 9000)
    source.close()
    assert np.array_equal(source.read(8000, 9000), before)


def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path):
    encode(tmp_path / "whole.mp3", "libmp3lame", 44100, tone(3, 44100))
    data = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(data[: len(data) // 2 + 7])
    cut, whole = FileAudio(tmp_path / "cut.mp3"), FileAudio(tmp_path / "whole.mp3")
    assert 44100 < cut.num_samples < whole.num_samples
    assert np.array_equal(cut.read(0, 44100), whole.read(0, 44100))


def test_a_nan_in_a_float_file_is_named_by_its_time(tmp_path):
    sound = tone(1, 8000, 1)
    sound[0, 2000] = np.nan
    header = np.frombuffer(b"RIFF____WAVEfmt ", np.uint8).tobytes()
    body = sound.astype("<f4").tobytes()
    fmt = np.array([16, 3 | 1 << 16, 8000, 32000, 4 | 32 << 16], "<u4").tobytes()
    (tmp_path / "nan.wav").write_bytes(header + fmt + b"data" + np.uint32(len(body)).tobytes() + body)
    with pytest.raises(AvatarError, match=r"NaN or infinite sample at 0\.2500 s"):
        FileAudio(tmp_path / "nan.wav").read(0, 8000)


def test_files_that_are_no_audio_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(AvatarError, match=r"cannot be opened as audio .*No such file"):
        FileAudio(tmp_path / "missing.wav")
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("this is not a song\n" * 50)
    for name in ("zero.wav", "text.mp3", "."):
        with pytest.raises(AvatarError, match=r"cannot be opened as audio|is empty|no audio track"):
            FileAudio(tmp_path / name)
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    with pytest.raises(AvatarError, match="is empty, expected at least one sample"):
        FileAudio(tmp_path / "empty.wav")
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    with pytest.raises(AvatarError, match="has no audio track"):
        FileAudio(tmp_path / "mute.mp4")
    with wave.open(str(tmp_path / "slow.wav"), "wb") as file:
        file.setparams((1, 2, 1000, 0, "NONE", ""))
        file.writeframes(bytes(4000))
    with pytest.raises(AvatarError, match="sample rate is 1000 Hz"):
        FileAudio(tmp_path / "slow.wav")
