"""Whatever stops a run, the frames so far can be played."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from joyavatar_core.errors import AvatarError
from joyavatar_core.video import VideoWriter
from joyavatar_core.video.containers import trim_to_whole_fragments
from joyavatar_core.video.live_encoder import LiveEncoder

FPS, RATE = 16, 16000


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)


def opened(path: Path, **options) -> VideoWriter:
    return VideoWriter(path, 32, 32, FPS, RATE, preset="ultrafast", **options).open()


def feed(video: VideoWriter, frames: int) -> None:
    video.write(noise(frames))
    video.write_audio(np.zeros(frames * RATE // FPS, np.float32))


def played(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


CHILD = """
import sys
import numpy as np
from joyavatar_core.video import VideoWriter
video = VideoWriter(sys.argv[1], 32, 32, 16, 16000, preset="ultrafast").open()
for block in range(int(sys.argv[2])):
    video.write(np.random.default_rng(block).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
    video.write_audio(np.zeros(12000, np.float32))
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("blocks", [2, 9])
def test_a_killed_process_leaves_a_video_that_lacks_at_most_the_last_second(blocks, tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path / "v.mp4"), str(blocks)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline().strip() == b"written"
    child.kill()
    child.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["v.part.mp4"]
    assert 12 * blocks - FPS <= played(tmp_path / "v.part.mp4") <= 12 * blocks
    with av.open(str(tmp_path / "v.part.mp4")) as video:
        heard = sum(frame.samples for frame in video.decode(audio=0))
        assert "AI-generated" in video.metadata["comment"]
    assert heard / RATE >= 12 * blocks / FPS - 1


def test_an_exception_keeps_every_frame_under_the_growing_name(tmp_path):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "v.mp4") as video:
        feed(video, 21)
        raise KeyboardInterrupt
    assert video.growing == tmp_path / "v.part.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["v.part.mp4"]
    with av.open(str(video.growing)) as read:  # already a plain file, so that hosts count right
        assert read.streams.video[0].frames == 21
        assert read.duration == 21 * 1_000_000 // FPS
    assert played(video.growing) == 21


def test_abort_can_discard(tmp_path):
    for option in ({"discard": True}, {}):
        video = opened(tmp_path / "v.mp4", **option)
        feed(video, 21)
        assert video.abort(discard=None if option else True) is None
        assert not list(tmp_path.iterdir())


def test_abort_before_the_first_frame_leaves_nothing(tmp_path):
    assert opened(tmp_path / "v.mp4").abort() is None
    assert not list(tmp_path.iterdir())


def test_abort_after_close_is_harmless(tmp_path):
    with opened(tmp_path / "v.mp4") as video:
        feed(video, 5)
    assert video.abort() is None
    assert played(tmp_path / "v.mp4") == 5


def test_the_remains_of_an_earlier_run_are_not_overwritten(tmp_path):
    first = opened(tmp_path / "v.mp4")
    second = opened(tmp_path / "v.mp4")
    feed(first, 20)
    feed(second, 30)
    first.abort()
    assert (first.growing.name, second.growing.name) == ("v.part.mp4", "v.part2.mp4")
    second.close()
    assert (played(first.growing), played(second.path)) == (20, 30)


def full_disk(container: object) -> object:
    """The container with a mux that finds no space."""

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(container, name)

        def mux(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    return Full()


def test_a_full_disk_is_one_sentence_and_the_video_so_far_is_kept(tmp_path):
    sentence = r"No space left on device; the video so far is in .*v\.part\.mp4"
    with pytest.raises(AvatarError, match=sentence), opened(tmp_path / "v.mp4") as video:
        feed(video, 40)
        video._container = full_disk(video._container)
        feed(video, 40)
    assert 40 - FPS <= played(video.growing) <= 40
    assert not (tmp_path / "v.mp4").exists()


LIMITED = """
import resource, sys
import numpy as np
from joyavatar_core.errors import AvatarError
from joyavatar_core.video import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with VideoWriter(sys.argv[1], 64, 64, 16, 16000, preset="ultrafast") as video:
        while video.frames < 1000:
            video.write(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
            video.write_audio(np.zeros(12000, np.float32))
except AvatarError as sentence:
    print(video.frames, sentence)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are a POSIX thing")
def test_a_file_the_system_stops_in_the_middle_of_a_fragment_still_decodes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "v.mp4")], capture_output=True, text=True, check=True
    )
    frames, sentence = done.stdout.split(" ", 1)
    assert "cannot be written any further: File too large" in sentence
    assert int(frames) - 2 * FPS <= played(tmp_path / "v.part.mp4") <= int(frames)
    assert [path.name for path in tmp_path.iterdir()] == ["v.part.mp4"]


class Broken:
    """An encoder whose card has gone."""

    def encode(self, frame):
        raise av.FFmpegError(errno.EIO, "Input/output error")


def test_an_encoder_that_fails_is_one_sentence_and_the_video_so_far_is_kept(tmp_path, monkeypatch):
    video = opened(tmp_path / "v.mp4")
    feed(video, 48)
    monkeypatch.setattr(video, "_video", Broken())
    with pytest.raises(
        AvatarError, match=r"v\.mp4 cannot be written any further: Input/output error; the video so far"
    ):
        feed(video, 1)
    assert played(video.abort()) >= 32
    live = LiveEncoder(32, 32, FPS)
    monkeypatch.setattr(live, "_video", Broken())
    with pytest.raises(AvatarError, match="The live stream cannot go on: Input/output error; start it again"):
        live.encode(noise(1))


def test_a_growing_file_that_a_player_holds_open_does_not_spoil_the_video(tmp_path, monkeypatch):
    unlink = Path.unlink

    def refuse(path, **options):
        if ".part" in path.name:
            raise PermissionError("in use")
        unlink(path, **options)

    video = opened(tmp_path / "v.mp4")
    feed(video, 21)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert played(video.close()) == 21


def test_no_space_for_the_final_copy_keeps_the_whole_video(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    video = opened(tmp_path / "v.mp4")
    feed(video, 21)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(AvatarError, match=r"v\.mp4 could not be completed: No space left on device; what was written"):
        video.close()
    assert [path.name for path in tmp_path.iterdir()] == ["v.part.mp4"]
    assert played(video.growing) == 21


def test_trimming_keeps_exactly_the_whole_fragments(tmp_path):
    video = opened(tmp_path / "v.mp4")
    feed(video, 48)
    whole = video.growing.read_bytes()
    video.abort(discard=True)
    path = tmp_path / "cut.mp4"
    counts = set()
    for length in range(len(whole) // 3, len(whole), len(whole) // 7):
        path.write_bytes(whole[:length])
        trim_to_whole_fragments(path)
        size = path.stat().st_size
        trim_to_whole_fragments(path)
        assert path.stat().st_size == size <= length
        counts.add(played(path))
    assert len(counts) > 2
