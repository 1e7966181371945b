"""A recording is the same video however often its process dies, and never another one by mistake."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
from contextlib import closing, suppress
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.recording import Interval, Recording, join_recording
from joyavatar_core.recording.snapshot import check_identity, latent_means, same_value
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.video import AI_NOTICE, VideoWriter, h264

from . import recordings
from .conftest import build_model
from .recordings import (
    EVERY,
    FRAMES,
    CrashError,
    pictures,
    record,
    recording,
    same_video,
    stream,
    tiny_decoder,
    tiny_model,
    voice,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted recording: its folder and the hashes of its segments' frames."""
    folder = tmp_path_factory.mktemp("whole") / "state"
    segments = record(folder)
    with recording(folder) as finished:
        finished.join(folder.parent / "v.mp4")
    return folder, segments


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_segments_hold_the_frames_of_the_stream(whole, tmp_path):
    with closing(StreamRun(stream())) as run:
        frames = torch.cat([shown for _, shown in frames_of(run, tiny_decoder())])
    assert len(frames) == FRAMES and frames.float().diff(dim=0).abs().mean() > 10  # something is to be seen
    ends = [0, 33, 69, 100]  # block 0 shows 9 frames, the others 12
    for number, (start, stop) in enumerate(pairwise(ends)):
        with VideoWriter(tmp_path / f"{number}.mp4", 32, 32, 16) as writer:
            writer.write(frames[start:stop])
        segment = whole[0] / f"segment-{number * EVERY:08d}.mp4"
        assert np.array_equal(pictures(segment), pictures(tmp_path / f"{number}.mp4"))


def test_the_joined_file_has_every_frame_and_the_sound_to_within_one_frame(whole):
    folder, _ = whole
    joined = pictures(folder.parent / "v.mp4")
    parts = [pictures(path) for path in sorted(folder.glob("segment-*.mp4"))]
    assert np.array_equal(joined, np.concatenate(parts))
    with av.open(str(folder.parent / "v.mp4")) as video:
        sound = video.streams.audio[0]
        assert abs(sound.duration * sound.time_base - FRAMES / 16) < 1 / 16


@pytest.mark.parametrize("crash_at", [0, 1, 3, 5, 8])
def test_a_crash_in_any_block_changes_nothing(whole, tmp_path, crash_at):
    folder = tmp_path / "state"
    record(folder, crash_at)
    assert record(folder) == whole[1]
    assert names(folder) == names(whole[0])


def test_many_crashes_change_nothing(whole, tmp_path):
    folder = tmp_path / "state"
    for crash_at in (1, 4, 3, 8, 8):
        record(folder, crash_at)
    assert record(folder) == whole[1]
    with recording(folder) as finished:
        finished.join(tmp_path / "v.mp4")
    assert same_video(tmp_path / "v.mp4", whole[0].parent / "v.mp4")


def test_a_stopped_object_is_not_driven_on(tmp_path):
    with recording(tmp_path / "state", crash_at=4) as running:
        with pytest.raises(CrashError):
            running.record()
        with pytest.raises(AvatarError, match="stopped inside a segment"):
            running.record()


def test_a_finished_segment_is_never_written_again(tmp_path):
    folder = tmp_path / "state"
    record(folder, crash_at=5)
    before = os.stat(folder / "segment-00000000.mp4")
    record(folder)
    after = os.stat(folder / "segment-00000000.mp4")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_resuming_a_finished_recording_only_joins_again(whole, tmp_path):
    with recording(whole[0]) as finished:
        assert finished.finished and finished.frames == FRAMES
        finished.record(on_block=lambda *_: pytest.fail("a block was made again"))
        finished.join(tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").read_bytes() == (whole[0].parent / "v.mp4").read_bytes()


def test_two_states_are_kept_and_are_as_large_as_announced(whole, tmp_path):
    folder = tmp_path / "state"
    record(folder, crash_at=8)
    assert [name for name in names(folder) if "state" in name] == [f"state-0000000{n}.safetensors" for n in (3, 6)]
    size = (folder / "state-00000006.safetensors").stat().st_size
    with recording(folder) as running:
        assert running.state_bytes / 2 < size < running.state_bytes + 30_000  # less until the cache is full; latents


# --- damage ---


@pytest.mark.parametrize("name", ["state-00000006.safetensors", "segment-00000003.mp4"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_damage_to_the_newest_files_costs_one_segment(whole, tmp_path, caplog, name, damage):
    folder = tmp_path / "state"
    record(folder, crash_at=7)
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    cut = {"cut": data[: len(data) // 2], "flip": data, "empty": b""}.get(damage)
    path.unlink() if cut is None else path.write_bytes(cut)
    assert record(folder) == whole[1]
    assert names(folder) == names(whole[0])
    if name.startswith("segment") or damage != "gone":
        assert "cannot be used" in caplog.text


def test_damage_to_both_states_is_refused_and_what_there_is_can_be_joined(tmp_path):
    folder = tmp_path / "state"
    record(folder, crash_at=7)
    for path in folder.glob("state-*"):
        path.write_bytes(path.read_bytes()[:-1])
    kept = names(folder)
    with pytest.raises(AvatarError, match=r"No state .* can be used \(.*checksum.*checksum.*join"):
        record(folder)
    assert names(folder) == kept
    assert len(pictures(join_recording(folder, tmp_path / "v.mp4"))) >= 69


def test_segments_without_any_state_are_not_deleted(tmp_path):
    folder = tmp_path / "state"
    record(folder, crash_at=7)
    for path in folder.glob("state-*"):
        path.unlink()
    for resume in (True, False):
        with pytest.raises(AvatarError, match="without states"):
            record(folder, resume=resume)
    assert (folder / "segment-00000003.mp4").exists()


def test_a_full_disk_is_one_sentence_and_costs_nothing(whole, tmp_path, monkeypatch):
    folder, replace = tmp_path / "state", os.replace

    def full(source, target):
        if "state-00000003" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(AvatarError, match=r"cannot be written: No space left on device; free some space"):
            record(folder)
    assert not list(folder.glob("*.tmp"))
    assert record(folder) == whole[1]


# --- another run ---


def other_config():
    """The same weights, to be run at another noise level."""
    model = copy.deepcopy(tiny_model())
    model.config = dataclasses.replace(model.config, shift=model.config.shift + 1)
    return model


@pytest.mark.parametrize(("options", "sentence"), [
    ({"portrait": 6}, "another portrait"),
    ({"voice": voice(pitch=151)}, "another voice"),
    ({"voice": None}, "another voice"),
    ({"model": build_model(seed=1)}, "other weights"),
    ({"model": other_config()}, "another configuration"),
    ({"seed": 7}, "seed 0 and this run has 7"),
    ({"crf": 20}, "quality 18 and this run has 20"),
    ({"video_frames": 50}, "frames 100 and this run has 50"),
    ({"every": Interval(blocks=4)}, "checkpoint every 3 and this run has 4"),
])  # fmt: skip
def test_what_differs_is_named_and_refused(whole, options, sentence):
    before = names(whole[0])
    with pytest.raises(AvatarError, match=sentence):
        record(whole[0], **options)
    assert names(whole[0]) == before


def test_the_same_portrait_from_another_device_is_the_same(whole):
    reference = recordings.stream().reference
    near, far = reference + 1e-5 * torch.randn(reference.shape), reference.clone()
    far[..., 0, 0] += 0.3  # one cell
    mine = latent_means(reference)
    assert same_value(mine, latent_means(near)) and not same_value(mine, latent_means(far))
    assert not same_value(mine[:-1], mine) and not same_value(None, mine)


def test_another_decoder_is_refused(whole, monkeypatch):
    monkeypatch.setattr(recordings, "tiny_decoder", lambda: tiny_decoder(seed=1))
    with pytest.raises(AvatarError, match="another decoder"):
        record(whole[0])


@pytest.fixture
def nvenc(monkeypatch):
    """x264 at another quality stands for NVENC; `nvenc(False)` takes it away."""
    monkeypatch.setitem(h264.CODECS, "nvenc", "libx264")
    monkeypatch.setattr(h264, "nvenc_options", lambda options: {**options, "crf": "40"})
    there = {}
    monkeypatch.setattr(h264, "encodes", lambda codec, *_: there["nvenc"])
    there["nvenc"] = True
    return lambda present: there.update(nvenc=present)


def test_a_recording_keeps_the_encoder_it_began_with(tmp_path, nvenc, whole):
    folder = tmp_path / "state"
    record(folder, crash_at=4, encoder="nvenc")
    for other, sentence in (("x264", "encoder 'nvenc' and this run has 'x264'"), ("auto", "does not encode 32x32")):
        nvenc(other == "x264")
        with pytest.raises(AvatarError, match=sentence):
            record(folder, encoder=other)
    nvenc(True)
    record(folder)  # auto
    small, large = (sum(path.stat().st_size for path in one.glob("segment-*.mp4")) for one in (folder, whole[0]))
    assert small < large
    with pytest.raises(AvatarError, match="encoder 'x264' and this run has 'nvenc'"):
        record(whole[0], encoder="nvenc")
    record(whole[0])  # begun by auto: with x264, though NVENC is there


def test_a_recording_from_before_encoders_were_noted_is_x264_s(whole):
    check_identity(whole[0], {"seed": 0}, {"seed": 0, "encoder": "x264"})
    with pytest.raises(AvatarError, match="encoder 'x264' and this run has 'nvenc'"):
        check_identity(whole[0], {"seed": 0}, {"seed": 0, "encoder": "nvenc"})


def test_another_thread_count_is_only_a_warning(tmp_path, caplog, monkeypatch):
    folder = tmp_path / "state"
    record(folder, crash_at=4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    record(folder)
    assert "threads 64" in caplog.text and "not bit for bit" in caplog.text


def test_a_recording_is_not_continued_unasked(whole):
    with pytest.raises(AvatarError, match="already holds a recording; resume it"):
        record(whole[0], resume=False)


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path):
    with recording(tmp_path / "state"), pytest.raises(AvatarError, match=f"in use by process {os.getpid()}"):
        recording(tmp_path / "state").open()
    recording(tmp_path / "state").open().close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "absent" / "state", tmp_path / "file"):
        with pytest.raises(AvatarError, match="cannot be used"):
            record(folder)


def test_a_stream_without_an_end_is_refused(tmp_path):
    with pytest.raises(AvatarError, match="without an end"):
        Recording(tmp_path / "state", stream(audio=None), tiny_decoder())
    assert not (tmp_path / "state").exists()


# --- a hostile folder ---


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")
def test_links_and_foreign_files_are_left_alone(whole, tmp_path):
    folder, outside = tmp_path / "state", tmp_path / "outside"
    record(folder, crash_at=4)
    outside.write_text("precious")
    foreign = ["notes.txt", "state-1.safetensors", "state-00000001.safetensors.bak", "segment-000000009.mp4", ".hidden"]
    for name in foreign:
        (folder / name).write_text("mine")
    (folder / "state-00000077.safetensors").mkdir()
    for name in ("segment-00000003.part.mp4", "segment-00000003.mp4", "segment-00000003.mp4.tmp",
                 "state-00000006.safetensors.tmp", "state-00000006.safetensors", "segment-00000006.part.mp4",
                 "segment-00000006.mp4.tmp"):  # fmt: skip
        with suppress(FileNotFoundError):
            (folder / name).unlink()
        (folder / name).symlink_to(outside)
    assert record(folder) == whole[1]
    assert outside.read_text() == "precious"
    assert all((folder / name).read_text() == "mine" for name in foreign)
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")
def test_a_state_that_is_a_link_or_too_large_is_not_read(tmp_path, caplog):
    folder = tmp_path / "state"
    record(folder, crash_at=4)
    (folder / "state-00000008.safetensors").symlink_to("/dev/zero")
    os.mkfifo(folder / "state-00000007.safetensors")
    with (folder / "state-00000006.safetensors").open("wb") as file:
        file.truncate(10**12)  # sparse
    record(folder, crash_at=4)
    assert "expected at most" in caplog.text and "not a regular file" in caplog.text


# --- what there is so far ---


@pytest.mark.parametrize("crash_at", [2, 4, 8])
def test_joining_an_interrupted_recording_saves_every_frame_with_its_sound(whole, tmp_path, crash_at):
    folder = tmp_path / "state"
    record(folder, crash_at)
    kept = {name: (folder / name).read_bytes() for name in names(folder)}
    saved = pictures(join_recording(folder, tmp_path / "v.mp4"))
    expected = 9 + 12 * (crash_at - 1)
    true = pictures(whole[0].parent / "v.mp4")[:expected]
    exact = 12 * EVERY * (crash_at // EVERY) - 3 if crash_at >= EVERY else 0  # the frames of finished segments
    assert len(saved) == expected and np.array_equal(saved[:exact], true[:exact])
    assert np.abs(saved.astype(int) - true).mean() < 6  # of the last segment the encoder saw less ahead
    with av.open(str(tmp_path / "v.mp4")) as video:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
        assert abs(len(sound) / video.streams.audio[0].rate - expected / 16) < 0.2
    assert np.abs(sound).max() > 0.2
    assert {name: (folder / name).read_bytes() for name in names(folder)} == kept
    assert names(tmp_path) == ["state", "v.mp4"]


def test_frames_whose_sound_was_not_written_are_saved_in_silence(whole, tmp_path, monkeypatch):
    folder, written = tmp_path / "state", []

    def stopped(writer, samples):
        written.append(len(samples))
        if len(written) > EVERY:
            raise CrashError
        return write(writer, samples)

    write = VideoWriter.write_audio
    monkeypatch.setattr(VideoWriter, "write_audio", stopped)
    record(folder, crash_at=8)
    saved = join_recording(folder, tmp_path / "v.mp4")
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [path for path in held if str(tmp_path) in path]  # Windows deletes no open file
    assert len(pictures(saved)) == 12 * (EVERY + 1) - 3
    heard = recordings.sound(saved)
    assert np.abs(heard).max() > 0.2
    assert np.abs(heard[-len(heard) // 8 :]).max() < 0.01  # the last quarter is the block without sound


def test_a_joined_recording_has_the_tags_of_its_run(tmp_path):
    with recording(tmp_path / "state") as stopped:
        stopped.metadata = {"title": "a title", "joyavatar": {"seed": 3}}
        stopped.record()
    with av.open(str(join_recording(tmp_path / "state", tmp_path / "v.mp4"))) as video:
        assert video.metadata["title"] == "a title" and json.loads(video.metadata["joyavatar"]) == {"seed": 3}
        assert video.metadata["comment"] == AI_NOTICE["comment"]


def test_a_recording_can_be_joined_while_it_runs(tmp_path, whole):
    seen = []

    def look(block, frames):
        if block.index == 7:
            seen.append(len(pictures(join_recording(tmp_path / "state", tmp_path / "v.mp4"))))

    with recording(tmp_path / "state") as running:
        running.record(look)
        assert [segment.pictures for segment in running.segments] == whole[1]
    assert 69 <= seen[0] <= 93


def test_joining_nothing_is_one_sentence(tmp_path):
    with pytest.raises(AvatarError, match="no state folder"):
        join_recording(tmp_path / "absent", tmp_path / "v.mp4")
    record(tmp_path / "state", crash_at=0)
    with pytest.raises(AvatarError, match="nothing to join"):
        join_recording(tmp_path / "state", tmp_path / "v.mp4")
