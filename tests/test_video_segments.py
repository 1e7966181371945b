"""Segments written apart and joined are the same pictures."""

from pathlib import Path

import av
import numpy as np
import pytest

from joyavatar_core.errors import AvatarError
from joyavatar_core.video import AI_NOTICE, VideoWriter, join_segments


def segment(path: Path, frames: int, size: int = 32, **options) -> Path:
    options = {"fps": 16, "preset": "ultrafast", **options}
    pictures = np.random.default_rng(frames).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)
    with VideoWriter(path, size, size, **options) as video:
        video.write(pictures)
    return path


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray() for frame in video.decode(video=0)])


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_the_joined_file_decodes_to_the_frames_of_the_segments(preset, tmp_path):
    parts = [segment(tmp_path / f"{n}.mp4", n, preset=preset) for n in (13, 40, 1, 7)]
    out = join_segments(parts, tmp_path / "out.mp4", metadata={"title": "joined"})
    assert np.array_equal(pictures(out), np.concatenate([pictures(part) for part in parts]))
    with av.open(str(out)) as video:
        stream = video.streams.video[0]
        assert (stream.frames, stream.duration * stream.time_base) == (61, 61 / 16)
        assert video.metadata["title"] == "joined"
        assert video.metadata["synthetic_media"] == AI_NOTICE["synthetic_media"]


def test_the_sound_is_encoded_once_and_in_time(tmp_path):
    parts = [segment(tmp_path / f"{n}.mp4", n) for n in (13, 40)]
    samples = np.zeros(80_000, np.float32)
    samples[[13_000, 40_000]] = 1  # a click at the seam, one later
    out = join_segments(parts, tmp_path / "out.mp4", (samples, 16000))
    with av.open(str(out)) as video:
        assert video.duration == 53 * 1_000_000 // 16
        sound = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
    assert np.abs(np.abs(sound[:26_000]).argmax() - 13_000) < 16
    assert np.abs(np.abs(sound[26_000:]).argmax() - 14_000) < 16


def test_segments_that_do_not_fit_are_one_sentence_and_nothing_is_written(tmp_path):
    first = segment(tmp_path / "a.mp4", 5)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    others = {
        "48x48 at 16 frames/s": segment(tmp_path / "b.mp4", 5, size=48),
        "32x32 at 25 frames/s": segment(tmp_path / "c.mp4", 5, fps=25),
        "with H.264 parameters": segment(tmp_path / "d.mp4", 5, preset="veryfast"),
        "could not be joined into .*: Invalid data": text,
        "could not be joined into .*: No such file": tmp_path / "e.mp4",
    }
    for sentence, other in others.items():
        with pytest.raises(AvatarError, match=sentence):
            join_segments([first, other], tmp_path / "out.mp4")
    with pytest.raises(AvatarError, match="no segments to join"):
        join_segments([], tmp_path / "out.mp4")
    with pytest.raises(AvatarError, match="NaN"):
        join_segments([first], tmp_path / "out.mp4", (np.full(9, np.nan), 16000))
    assert not list(tmp_path.glob("out*"))


def test_a_segment_that_was_never_closed_is_refused(tmp_path):
    video = VideoWriter(tmp_path / "a.mp4", 32, 32, 16).open()
    video.write(np.zeros((40, 32, 32, 3), np.uint8))
    with pytest.raises(AvatarError, match=r"a\.part\.mp4 holds no finished video"):
        join_segments([video.growing], tmp_path / "out.mp4")
    video.abort(discard=True)
