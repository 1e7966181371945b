"""What VideoWriter puts in comes out: frames, sound, colours, tags; and what it refuses."""

import json
import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joyavatar_core.cli.options import ENCODERS
from joyavatar_core.errors import AvatarError
from joyavatar_core.video import AI_NOTICE, VideoWriter, h264

SIZE = 32


def noise(frames: int, seed: int = 0, width: int = SIZE, height: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def writer(path: Path, fps=16, **options) -> VideoWriter:
    return VideoWriter(path, SIZE, SIZE, fps, preset="ultrafast", **options)


def decoded(path: Path) -> np.ndarray:
    """float [T, H, W, 3], by the formula of ITU-R BT.709-6 instead of libswscale, which also did the way in."""
    with av.open(str(path)) as video:
        planes = np.stack([frame.to_ndarray() for frame in video.decode(video=0)]).astype(float)
    y = planes[:, :SIZE] - 16
    chroma = planes[:, SIZE:].reshape(-1, 2, SIZE // 2, SIZE // 2).repeat(2, 2).repeat(2, 3) - 128
    y, cb, cr = y / 219, chroma[:, 0] / 224, chroma[:, 1] / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return np.stack([red, green, blue], -1).clip(0, 1) * 255


def sound(path: Path) -> np.ndarray:  # [C, S]
    with av.open(str(path)) as video:
        return np.concatenate([frame.to_ndarray() for frame in video.decode(audio=0)], axis=1)


@pytest.mark.parametrize("fps", [16, 25, Fraction(25, 2), Fraction(30000, 1001), Fraction(1, 3), 7])
def test_n_frames_last_exactly_n_over_fps_with_and_without_sound(fps, tmp_path):
    for sample_rate in (None, 44100):
        with writer(tmp_path / "v.mp4", fps, sample_rate=sample_rate) as video:
            video.write(noise(19))
            if sample_rate:
                video.write_audio(np.zeros(round(19 * sample_rate / fps), np.float32))
        with av.open(str(tmp_path / "v.mp4")) as read:
            stream = read.streams.video[0]
            assert stream.frames == 19
            assert stream.start_time == 0
            assert stream.duration * stream.time_base == 19 / Fraction(fps)
            assert stream.average_rate == fps
            assert abs(read.duration / 1e6 - float(19 / fps)) < 1 / 44100
            times = [frame.pts * frame.time_base for frame in read.decode(video=0)]
        assert times == [n / Fraction(fps) for n in range(19)]


def test_frames_come_out_in_order_and_alike(tmp_path):
    shades = np.arange(8, 248, 6, dtype=np.uint8)
    with writer(tmp_path / "v.mp4", crf=1) as video:
        video.write(np.broadcast_to(shades[:, None, None, None], (len(shades), SIZE, SIZE, 3)))
    assert np.abs(decoded(tmp_path / "v.mp4")[:, 9, 9, 0] - shades).max() <= 2


def test_flat_colours_survive_within_three_levels_and_are_tagged_bt709(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (64, 3), dtype=np.uint8)
    colours[:8] = [[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)]
    with writer(tmp_path / "v.mp4", crf=4) as video:
        video.write(np.broadcast_to(colours[:, None, None], (64, SIZE, SIZE, 3)))
    found = decoded(tmp_path / "v.mp4")[:, 16, 16]
    assert np.abs(found - colours).max() <= 3
    with av.open(str(tmp_path / "v.mp4")) as read:
        context = read.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert (context.color_range, context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1, 1)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 44100, 48000, 50000, 384000])
def test_a_click_stays_within_a_millisecond_at_any_rate(sample_rate, tmp_path):
    samples = np.zeros(2 * sample_rate, np.float32)
    samples[sample_rate] = 1.0
    with writer(tmp_path / "v.mp4", sample_rate=sample_rate) as video:
        video.write(noise(32))
        video.write_audio(samples)
    with av.open(str(tmp_path / "v.mp4")) as read:
        rate = read.streams.audio[0].rate
        assert rate == (sample_rate if sample_rate <= 48000 else 48000)
        assert next(read.decode(audio=0)).pts == 0
    assert abs(np.abs(sound(tmp_path / "v.mp4")[0]).argmax() / rate - 1.0) < 1e-3


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.9])
def test_the_sound_is_as_long_as_given_but_not_longer_than_the_picture(seconds, tmp_path):
    with writer(tmp_path / "v.mp4", sample_rate=16000) as video:
        video.write(noise(20))
        video.write_audio(np.ones(int(16000 * seconds), np.float32) * 0.1)
    with av.open(str(tmp_path / "v.mp4")) as read:
        audio = read.streams.audio[0]
        assert float(audio.duration * audio.time_base) == pytest.approx(min(seconds, 20 / 16), abs=1e-4)
        assert read.duration == 1_250_000
    # A decoder hands out whole AAC frames.
    assert 0 <= sound(tmp_path / "v.mp4").shape[1] - min(seconds, 1.25) * 16000 < 1024


def test_stereo_keeps_its_sides_apart(tmp_path):
    samples = np.zeros((16000, 2), np.float32)
    samples[:, 1] = np.sin(np.arange(16000) * 0.2) * 0.5
    with writer(tmp_path / "v.mp4", sample_rate=16000, channels=2) as video:
        video.write(noise(16))
        video.write_audio(torch.from_numpy(samples))
    left, right = np.sqrt((sound(tmp_path / "v.mp4")[:, 2000:14000] ** 2).mean(1))
    assert left < 0.01
    assert right == pytest.approx(0.5 / 2**0.5, rel=0.05)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 24), max_size=6), sound_first=st.booleans())
def test_any_chunking_gives_the_same_bytes(cuts, sound_first, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chunks")
    frames, samples = noise(24), np.sin(np.arange(24000) * 0.05).astype(np.float32)
    with writer(folder / "whole.mp4", sample_rate=16000) as video:
        video.write(torch.from_numpy(frames))
        video.write_audio(samples)
    edges = [0, *sorted(cuts), 24]
    with writer(folder / "parts.mp4", sample_rate=16000) as video:
        for start, end in pairwise(edges):
            for what in (0, 1) if sound_first else (1, 0):
                if what:
                    video.write(frames[start:end])
                else:
                    video.write_audio(samples[start * 1000 : end * 1000])
    assert (folder / "whole.mp4").read_bytes() == (folder / "parts.mp4").read_bytes()


def test_the_file_says_it_is_ai_generated_and_keeps_the_callers_tags(tmp_path):
    told = {"settings": {"psb": [8, 7], "seed": 1}, "title": "Grüße 你好", "synthetic_media": "false"}
    video = writer(tmp_path / "v.mp4", metadata=told).open()
    video.write(noise(40))
    for path in (lambda: video.growing, video.close):
        with av.open(str(path())) as read:
            tags = read.metadata
        assert {name: tags[name] for name in AI_NOTICE} == AI_NOTICE
        assert tags["digital_source_type"].endswith("/trainedAlgorithmicMedia")
        assert "AI-generated" in tags["comment"]
        assert json.loads(tags["settings"]) == told["settings"]
        assert tags["title"] == told["title"]


def test_the_index_is_in_front_and_nothing_else_is_left(tmp_path):
    with writer(tmp_path / "v.mp4", sample_rate=16000) as video:
        video.write(noise(16))
        video.write_audio(np.zeros(16000, np.float32))
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_an_existing_video_is_replaced_only_at_the_end(tmp_path):
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")
    with writer(target) as video:
        video.write(noise(40))
        assert target.read_bytes() == b"old"
    assert len(decoded(target)) == 40


def test_sound_that_never_comes_is_no_obstacle(tmp_path):
    with writer(tmp_path / "v.mp4", sample_rate=16000) as video:
        video.write(noise(40))
    with av.open(str(tmp_path / "v.mp4")) as read:
        assert not read.streams.audio
    assert len(decoded(tmp_path / "v.mp4")) == 40


def test_all_the_sound_before_the_picture_is_as_good(tmp_path):
    with writer(tmp_path / "v.mp4", sample_rate=8000) as video:
        video.write_audio(np.zeros(8000 * 30, np.float32))
        video.write(noise(16 * 30))
    assert len(decoded(tmp_path / "v.mp4")) == 480
    assert sound(tmp_path / "v.mp4").shape[1] == pytest.approx(240_000, abs=1023)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"width": 33}, r"size is 33x32, expected even numbers"),
        ({"height": 0}, r"size is 32x0, expected even numbers"),
        ({"width": 32.0}, r"expected even numbers"),
        ({"fps": 0}, r"frame rate is 0, expected 0\.1 to 1000"),
        ({"fps": -5}, r"frame rate is -5"),
        ({"fps": float("nan")}, r"frame rate is nan"),
        ({"crf": 99}, r"crf\) is 99, expected 1 \(best\) to 51"),
        ({"preset": "warp"}, r"preset is 'warp', expected one of ultrafast"),
        ({"sample_rate": 0}, r"sample rate is 0, expected a whole number"),
        ({"sample_rate": 44100.5}, r"sample rate is 44100\.5"),
        ({"sample_rate": 16000, "channels": 3}, r"3 channels, expected 1 or 2"),
        ({"path": "v.avi"}, r"name is 'v\.avi', expected one that ends in \.mp4"),
        ({"path": "missing/v.mp4"}, r"folder .*missing does not exist"),
        ({"path": "folder.mp4"}, r"folder\.mp4 is a folder"),
    ],
)
def test_wrong_settings_are_one_sentence_before_anything_is_made(change, sentence, tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    given = {"path": "v.mp4", "width": SIZE, "height": SIZE, "fps": 16, **change}
    with pytest.raises(AvatarError, match=sentence):
        VideoWriter(tmp_path / given.pop("path"), **given)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


def test_a_folder_without_permission_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AvatarError, match=r"v\.mp4 cannot be written: Permission denied; choose another place"):
        writer(tmp_path / "v.mp4").open()


@pytest.mark.parametrize(
    "frames",
    [noise(2).astype(np.float32), noise(2)[0], noise(2)[:, :16], noise(2)[..., :1], np.zeros(3), None,
     torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)],
)  # fmt: skip
def test_frames_of_the_wrong_kind_are_one_sentence_and_do_no_harm(frames, tmp_path):
    with writer(tmp_path / "v.mp4") as video:
        with pytest.raises(AvatarError, match=r"The frames are .*, expected uint8 \[N, 32, 32, 3\]"):
            video.write(frames)
        video.write(noise(3))
    assert len(decoded(tmp_path / "v.mp4")) == 3


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros(100, np.int16), r"int16 \[100\], expected float samples"),
        (np.zeros((100, 2), np.float32), r"float32 \[100, 2\], expected float samples \[S, 1\] or \[S\]"),
        (np.full(100, np.nan, np.float32), "NaN or infinite"),
        (np.full(100, np.inf), "NaN or infinite"),
    ],
)
def test_sound_of_the_wrong_kind_is_one_sentence_and_does_no_harm(samples, sentence, tmp_path):
    with writer(tmp_path / "v.mp4", sample_rate=16000) as video:
        with pytest.raises(AvatarError, match=sentence):
            video.write_audio(samples)
        video.write(noise(16))
        video.write_audio(np.zeros(16000, np.float32))
    assert sound(tmp_path / "v.mp4").shape[1] >= 16000


def test_the_life_cycle_is_kept(tmp_path):
    video = writer(tmp_path / "v.mp4")
    with pytest.raises(AvatarError, match="is new, expected open"):
        video.write(noise(1))
    video.open()
    with pytest.raises(AvatarError, match="opened without sound"):
        video.write_audio(np.zeros(5))
    video.write(noise(1))
    assert video.close() == tmp_path / "v.mp4"
    for late in (lambda: video.write(noise(1)), lambda: video.write_audio(np.zeros(5)), video.close):
        with pytest.raises(AvatarError, match="is closed, expected open"):
            late()
    with pytest.raises(AvatarError, match="can be opened once"):
        video.open()
    assert len(decoded(tmp_path / "v.mp4")) == 1


def test_closing_without_frames_is_one_sentence_and_leaves_nothing(tmp_path):
    video = writer(tmp_path / "v.mp4", sample_rate=16000).open()
    video.write_audio(np.zeros(16000))
    with pytest.raises(AvatarError, match="No frames were written"):
        video.close()
    assert not list(tmp_path.iterdir())


def test_the_cards_encoder_is_taken_where_it_works(monkeypatch):
    monkeypatch.setattr(h264, "encodes", lambda codec, width, height: codec == "h264_nvenc" and width >= 145)
    assert h264.chosen_encoder("auto") == h264.chosen_encoder("nvenc") == "nvenc"
    assert h264.chosen_encoder("x264") == h264.chosen_encoder("auto", 128, 128) == "x264"
    with pytest.raises(AvatarError, match=r"does not encode 128x128 pixels here .*below 145x49"):
        h264.chosen_encoder("nvenc", 128, 128)
    monkeypatch.setattr(h264, "encodes", lambda *_: False)
    assert h264.chosen_encoder("auto") == "x264"
    assert ENCODERS == h264.ENCODERS


def test_an_encoder_is_tried_on_pictures():
    assert h264.encodes("libx264", 64, 48) and not h264.encodes("no_such_codec", 64, 48)
    assert not h264.encodes("libx264", 0, 0)


def test_an_encoder_that_fails_once_is_tried_again(monkeypatch):
    works = {"now": False}
    monkeypatch.setattr(h264, "_working", set())
    monkeypatch.setattr(h264, "_probed", lambda *_: works["now"])
    assert not h264.encodes("h264_nvenc", 256, 256)
    works["now"] = True
    assert h264.encodes("h264_nvenc", 256, 256)
    works["now"] = False
    assert h264.encodes("h264_nvenc", 256, 256)


def test_the_cards_encoder_is_given_the_same_quality_and_key_frames(tmp_path, monkeypatch):
    found = {}

    class Container:
        def add_stream(self, codec, rate, options):
            found.update(options, codec=codec)
            raise RuntimeError

    monkeypatch.setattr(h264, "encodes", lambda *_: True)
    writer = VideoWriter(tmp_path / "video.mp4", 64, 64, 25, crf=21, encoder="nvenc")
    with pytest.raises(RuntimeError):
        h264.add_h264(Container(), 64, 64, writer.fps, writer._options, writer._encoder)
    assert (found["codec"], found["cq"], found["g"], found["bf"]) == ("h264_nvenc", "21", "50", "0")
    assert not {"crf", "threads", "mbtree"} & set(found)
