"""Voices as people have them: formats that change on the way, channel layouts, names, numbers that are none."""

from __future__ import annotations

import io
import logging
import os
import shutil
import unicodedata
import wave
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from joyavatar_core.audio import ArrayAudio, FileAudio, read_pcm
from joyavatar_core.cli import main
from joyavatar_core.errors import AvatarError

RATE = 16000


def speech(seconds: float, rate: int = RATE) -> np.ndarray:
    """Something like syllables, mono [S]."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * 180 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))


def encoded(path: Path, codec: str, sound: np.ndarray, rate: int, layout: str, **options: str) -> bytes:
    """A file of [channels, S]; returns its bytes."""
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T, np.float32).reshape(1, -1), "flt", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, stream.layout, rate, stream.codec_context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path.read_bytes()


def levels(source, parts: int = 6) -> list[float]:
    """How loud the voice is in equal parts of the source."""
    mono = source.read(0, source.num_samples)
    return [float(np.sqrt(np.mean(part**2))) for part in np.array_split(mono, parts)]


LEVEL = float(np.sqrt(np.mean(speech(1.5) ** 2)))
FORMATS = {  # codec, the two files' rates, what keeps the encoder's own header out
    "mp3": ("libmp3lame", 22050, 44100, {"write_xing": "0", "id3v2_version": "0"}),
    "opus": ("libopus", 48000, 48000, {}),
    "aac": ("aac", 22050, 44100, {}),
    "ac3": ("ac3", 32000, 48000, {}),
    "flac": ("flac", 22050, 44100, {}),
    "wav": ("pcm_s16le", 8000, 44100, {}),
}


@pytest.mark.parametrize("first", ["mono", "stereo"])
@pytest.mark.parametrize("name", FORMATS)
def test_joined_files_of_two_formats_are_one_voice(name, first, tmp_path):
    codec, *rates, options = FORMATS[name]
    layouts = ["mono", "stereo"] if first == "mono" else ["stereo", "mono"]
    data = b""
    for index, (rate, layout) in enumerate(zip(rates, layouts, strict=True)):
        sound = np.stack([speech(1.5, rate)] * (2 if layout == "stereo" else 1))
        data += encoded(tmp_path / f"{index}.{name}", codec, sound, rate, layout, **options)
    (tmp_path / f"joined.{name}").write_bytes(data)
    source = FileAudio(tmp_path / f"joined.{name}", history_seconds=0.2)
    assert (source.sample_rate, source.channels) == (rates[0], 1 if first == "mono" else 2)
    assert source.num_samples / rates[0] == pytest.approx(3.0, abs=0.2)  # codecs add up to two frames each
    assert levels(source) == pytest.approx([LEVEL] * 6, rel=0.2)
    late = source.read_native(2 * rates[0], 2 * rates[0] + 500)
    source.read(0, 100)  # back to the beginning
    assert np.array_equal(source.read_native(2 * rates[0], 2 * rates[0] + 500), late)


def test_a_chain_of_equal_files_has_all_of_their_samples(tmp_path):
    data = encoded(tmp_path / "one.opus", "libopus", speech(1, 48000)[None], 48000, "mono")
    (tmp_path / "chain.opus").write_bytes(data * 3)
    one, chain = FileAudio(tmp_path / "one.opus"), FileAudio(tmp_path / "chain.opus")
    assert chain.num_samples == 3 * one.num_samples
    assert np.array_equal(chain.read(2 * one.num_samples, 3 * one.num_samples), one.read(0, one.num_samples))


# --- channel layouts ------------------------------------------------------------------------------------------------

CHANNELS = {
    "one inverted": lambda v: [v, -v],
    "one inverted and weaker": lambda v: [v, -0.7 * v],
    "inverted half of the time": lambda v: [v, np.where(np.arange(len(v)) < len(v) // 2, v, -v)],
    "left only": lambda v: [v, 0 * v],
    "right only": lambda v: [0 * v, v],
    "left only over an offset": lambda v: [v, 0 * v + 0.2],
    "dual mono": lambda v: [v, v],
    "one after the other": lambda v: np.split(v, 2)[0][None] * [[1], [0]],
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_voice_is_heard_whatever_the_two_channels_are(kind, tmp_path):
    channels = np.stack(list(CHANNELS[kind](speech(3))))
    soundfile.write(tmp_path / "voice.wav", channels.T, RATE, subtype="FLOAT")
    for source in (FileAudio(tmp_path / "voice.wav"), ArrayAudio(channels, RATE)):
        assert levels(source) == pytest.approx([LEVEL] * 6, rel=0.15)
        native = source.read_native(0, source.num_samples)
        np.testing.assert_allclose(native, channels.T, atol=1e-6)  # the sound of the video is as recorded


@pytest.mark.parametrize(("name", "codec", "layout"), [
    ("film.mkv", "ac3", "5.1(side)"), ("film.mkv", "ac3", "3.0"), ("film.flac", "flac", "5.1"),
    ("film.wav", "pcm_s16le", "5.1"), ("film.flac", "flac", "7.1"), ("film.m4a", "aac", "7.1"),
    ("film.wav", None, "5.1"), ("film.wav", None, "7.1"),  # None: a file that names no channels
])  # fmt: skip
def test_film_sound_speaks_from_its_centre(name, codec, layout, tmp_path):
    count, centre = av.AudioLayout(layout).nb_channels, 2
    sound = np.stack([0.02 * np.sin(np.arange(3 * 48000) * (0.01 + 0.003 * index)) for index in range(count)])
    sound[centre] = speech(3, 48000)
    path = tmp_path / name
    if codec is None:
        with wave.open(str(path), "wb") as file:
            file.setparams((count, 2, 48000, 0, "NONE", ""))
            file.writeframes((sound.T * 32767).astype("<i2").tobytes())
    else:
        encoded(path, codec, sound, 48000, layout)
    source = FileAudio(path)
    assert levels(source) == pytest.approx([LEVEL] * 6, rel=0.15)
    native = source.read_native(0, source.num_samples)
    assert native.shape[1] == 2  # mixed to stereo, as players do, the voice in both at -3 dB
    assert np.std(native, axis=0) == pytest.approx([LEVEL / 2**0.5] * 2, rel=0.2)


def test_surround_with_a_silent_centre_speaks_from_the_front(tmp_path):
    voice = speech(3, 48000)
    sound = np.stack([voice, voice, *[0 * voice] * 4])
    encoded(tmp_path / "upmixed.wav", "pcm_s16le", sound, 48000, "5.1")
    assert levels(FileAudio(tmp_path / "upmixed.wav")) == pytest.approx([LEVEL / 2] * 6, rel=0.2)


def test_unrelated_channels_are_averaged_as_ever():
    noise = np.random.default_rng(0).standard_normal((2, 3 * RATE)).astype(np.float32) * 0.1
    assert np.array_equal(ArrayAudio(noise, RATE).read(0, 3 * RATE), (noise[0] + noise[1]) / 2)


def test_the_default_track_is_heard_of_a_video_with_several(tmp_path):
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        tracks = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(3)]
        for track, default in zip(tracks, (False, True, False), strict=True):
            track.disposition = av.stream.Disposition.default if default else av.stream.Disposition(0)
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(video.encode(None))
        for index, track in enumerate(tracks):
            sound = speech(1.5)[None] * (1.0 if index == 1 else 0.0)
            frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    assert levels(FileAudio(tmp_path / "film.mkv")) == pytest.approx([LEVEL] * 6, rel=0.15)


# --- names ----------------------------------------------------------------------------------------------------------

NAMES = [
    "10:42:07.wav", "file,opt=1;x&y.wav", "file:voice.wav", "http:x.wav", "concat:a|b.wav", "subfile,,start,1,,:v.wav",
    "pipe:0.wav", "100%d %s %20.wav", "*?[a].wav", "q'uo\"te.wav", " space .wav", "new\nline.wav", "-dash.wav",
    "#1?.wav",
]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_the_file_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("plain.wav", speech(0.5), RATE)
    shutil.copy("plain.wav", name)
    assert FileAudio(name).num_samples == FileAudio(Path(name).absolute()).num_samples == RATE // 2


GIVEN = {
    "quoted": lambda path: f'"{path}"',
    "a line end behind": lambda path: f" {path}\n",
    "a file address": lambda path: path.as_uri(),
    "the other Unicode form": lambda path: unicodedata.normalize("NFD", str(path)),
}


@pytest.mark.parametrize("how", GIVEN)
def test_a_path_is_found_as_file_managers_and_shells_hand_it_on(how, files, tmp_path):
    path = tmp_path / unicodedata.normalize("NFC", "Grüße 1.wav")
    shutil.copy(files / "voice.wav", path)
    given = GIVEN[how](path)
    if how == "the other Unicode form" and os.path.exists(given):
        pytest.skip("this file system takes both forms for one")
    assert speak(files, tmp_path / "v.mp4", audio=given) == 0


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.effect_noise((64, 64), 80).save(folder / "portrait.png")
    soundfile.write(folder / "voice.wav", speech(0.5), RATE)
    return folder


def speak(files, out, *more: object, audio: object = None) -> int:
    given = ["--portrait", files / "portrait.png", "--audio", audio or files / "voice.wav", "--out", out]
    return main(["speak", *map(str, [*given, "--size", "32x32", "--psb", "1", *more])])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found_before_anything_is_made(value, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("joyavatar_core.video.VideoWriter.open", lambda writer: pytest.fail("the work has begun"))
    voice = speech(40)
    voice[39 * RATE] = value
    soundfile.write(tmp_path / "late.wav", voice, RATE, subtype="FLOAT")
    assert speak(files, tmp_path / "v.mp4", audio=tmp_path / "late.wav") == 2
    assert "NaN or infinite sample at 39.0000 s" in capsys.readouterr().err
    monkeypatch.undo()
    assert speak(files, tmp_path / "v.mp4", "--seconds", "0.5", audio=tmp_path / "late.wav") == 0  # not used so far


def test_integers_that_are_said_to_be_floats_are_refused(files, tmp_path, capsys):
    soundfile.write(tmp_path / "loud.wav", speech(0.5) * 32768, RATE, subtype="FLOAT")
    assert speak(files, tmp_path / "v.mp4", audio=tmp_path / "loud.wav") == 2
    assert "expected about -1 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(("channels", "words"), [
    ([0, 0], "is silent"), ([0.001, 0.001], "very quiet"), ([1, -1], "inverted"), ([1, 0], "loudest channel"),
])  # fmt: skip
def test_what_may_disappoint_is_said_at_the_start(channels, words, files, tmp_path, caplog):
    soundfile.write(tmp_path / "odd.wav", np.outer(speech(0.5), channels), RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        assert speak(files, tmp_path / "v.mp4", audio=tmp_path / "odd.wav") == 0
    assert any(words in record.getMessage() for record in caplog.records)


def test_nothing_is_said_of_a_good_voice(files, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert speak(files, tmp_path / "v.mp4", "--no-monitor") == 0
    assert not [record for record in caplog.records if "'" in record.getMessage()]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 37800, 88200, 96000, 192000])
def test_any_rate_gives_the_same_voice(rate, tmp_path):
    soundfile.write(tmp_path / "voice.wav", speech(1.5, rate), rate, subtype="PCM_24")
    source = FileAudio(tmp_path / "voice.wav")
    assert source.num_samples == round(1.5 * rate) and levels(source) == pytest.approx([LEVEL] * 6, rel=0.2)


def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path):
    with wave.open(str(tmp_path / "voice.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((speech(1) * 32767).astype("<i2").tobytes())
    data = bytearray((tmp_path / "voice.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # as ffmpeg writes to a pipe
    (tmp_path / "piped.wav").write_bytes(data)
    assert FileAudio(tmp_path / "piped.wav").num_samples == RATE


def test_a_playlist_opens_no_other_file_and_an_address_nothing(tmp_path):
    soundfile.write(tmp_path / "secret.wav", speech(1), RATE)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(AvatarError, match=r"cannot be opened|has no audio|is empty"):
        FileAudio(tmp_path / "list.m3u8")
    from joyavatar_core.audio import open_voice

    with pytest.raises(AvatarError, match="is an address; nothing is fetched"):
        open_voice("https://example.test/voice.wav")


def test_damage_in_the_middle_costs_a_moment_not_the_rest(tmp_path):
    data = bytearray(encoded(tmp_path / "v.mp3", "libmp3lame", speech(6, 44100)[None], 44100, "mono"))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(range(250)) * 8
    (tmp_path / "damaged.mp3").write_bytes(b"ID3\x03\x00\x00\x00\x00\x10\x00" + bytes(2048) + bytes(data))
    assert FileAudio(tmp_path / "damaged.mp3").num_samples / 44100 == pytest.approx(6, abs=0.4)


# --- pipes ----------------------------------------------------------------------------------------------------------


def wav(voice: np.ndarray, rate: int = RATE, channels: int = 1, extra: bytes = b"") -> bytes:
    """A 16-bit WAV as ffmpeg writes it to a pipe: lengths unknown, perhaps another chunk before the samples."""
    body = (np.repeat(voice[:, None], channels, axis=1) * 32767).astype("<i2").tobytes()
    numbers = [(16, 4), (1, 2), (channels, 2), (rate, 4), (2 * channels * rate, 4), (2 * channels, 2), (16, 2)]
    form = b"fmt " + b"".join(value.to_bytes(width, "little") for value, width in numbers)
    unknown = b"\xff\xff\xff\xff"
    return b"RIFF" + unknown + b"WAVE" + form + extra + b"data" + unknown + body


class Drip(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, portion: int) -> None:
        self.data, self.portion = data, portion

    def read(self, size: int = -1) -> bytes:
        size = min(self.portion, len(self.data) if size < 0 else size)
        data, self.data = self.data[:size], self.data[size:]
        return data


@pytest.mark.parametrize("portion", [1, 7, 4096])
@pytest.mark.parametrize("extra", [b"", b"LIST\x05\x00\x00\x00INFO!\x00"])
def test_a_wav_in_a_pipe_is_its_samples_not_its_header(portion, extra):
    voice = speech(0.2)
    source = read_pcm(Drip(wav(voice, extra=extra), portion), RATE)
    assert source.wait(len(voice)) and not source.wait(len(voice) + 1)
    np.testing.assert_allclose(source.read(0, len(voice)), voice, atol=1e-4)


def test_what_follows_the_samples_of_a_wav_in_a_pipe_is_no_sound():
    voice = speech(0.2)
    size = (2 * len(voice)).to_bytes(4, "little")
    whole = wav(voice).replace(b"data\xff\xff\xff\xff", b"data" + size) + b"LIST" + bytes(8000)
    source = read_pcm(Drip(whole, 4096), RATE)
    assert source.wait(len(voice)) and not source.wait(len(voice) + 1) and source.num_samples == len(voice)


@pytest.mark.parametrize(("data", "words"), [
    (wav(speech(0.1), rate=44100), "44100 Hz, 1 channels, s16le, expected 16000"),
    (wav(speech(0.1), channels=2), "2 channels"), (b"OggS" + bytes(100), "a file .Ogg."),
    (b"ID3\x04" + bytes(100), "a file .MP3."), (b"\x00\x00\x00\x20ftypM4A " + bytes(100), "a file .MP4."),
])  # fmt: skip
def test_another_file_in_a_pipe_is_a_sentence_not_noise(data, words):
    source = read_pcm(Drip(data, 4096), RATE)
    with pytest.raises(AvatarError, match=words):
        source.wait(1000)


def test_raw_samples_in_a_pipe_are_left_alone():
    voice = (speech(0.1) * 32767).astype("<i2")
    source = read_pcm(Drip(voice.tobytes(), 5), RATE)
    assert source.wait(len(voice)) and np.array_equal(source.read(0, len(voice)) * 32768, voice)


# --- portraits ------------------------------------------------------------------------------------------------------


def test_a_picture_with_a_damaged_orientation_tag_is_shown_as_it_is(files, tmp_path):
    data = (files / "portrait.png").read_bytes()
    tag = b"eXIf" + b"Exif\0\0nonsense"
    chunk = (len(tag) - 4).to_bytes(4, "big") + tag + zlib.crc32(tag).to_bytes(4, "big")
    (tmp_path / "odd.png").write_bytes(data[:33] + chunk + data[33:])  # behind the header
    given = ["--portrait", tmp_path / "odd.png", "--audio", files / "voice.wav", "--out", tmp_path / "v.mp4"]
    assert main(["speak", *map(str, [*given, "--size", "32x32", "--psb", "1"])]) == 0
