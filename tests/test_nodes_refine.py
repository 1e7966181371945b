"""Refining in the pack: the portrait travels with the reference, and Stream nodes give larger frames."""

from __future__ import annotations

import av
import pytest
import torch

from .test_nodes_streams import FRAMES, SIDE, make_stream
from .test_nodes_streams import reference as bare


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    """A portrait [1, 130, 130, 3] in 0 ... 1."""
    return torch.rand(1, 130, 130, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def stream(host, vae, portrait):
    return make_stream(host, reference=host.Reference.execute(portrait, host.model, SIDE, SIDE, vae)[0])


def test_the_reference_carries_the_portrait_at_four_times_the_size(stream):
    assert stream.recipe.portrait.shape == (3, 4 * SIDE, 4 * SIDE)
    assert -1 <= stream.recipe.portrait.min() < stream.recipe.portrait.max() <= 1


def test_the_reference_carries_a_larger_portrait_s_own_pixels(host, vae):
    large = torch.rand(1, 300, 300, 3)
    stream = make_stream(host, reference=host.Reference.execute(large, host.model, SIDE, SIDE, vae)[0])
    assert stream.recipe.portrait.shape == (3, 8 * SIDE, 8 * SIDE)
    assert host.StreamToFrames.execute(stream, "one batch", 1, vae, "8x")[0][0].shape == (FRAMES, 8 * SIDE, 8 * SIDE, 3)


def test_the_host_is_asked_for_the_memory_that_refining_takes(pack, stream):
    refine = [pack.nodes.refine.Refine(stream, size) for size in ("off", "4x", "8x")]
    needed = [one.working_bytes for one in refine]
    assert needed[0] == 0 < needed[1] and needed[2] == 4 * needed[1]


def test_frames_are_refined_unless_it_is_off(host, vae, stream):
    plain = host.StreamToFrames.execute(stream, "one batch", 1, vae, "off")[0][0]
    refined = host.StreamToFrames.execute(stream, "one batch", 1, vae)[0][0]
    assert plain.shape == (FRAMES, SIDE, SIDE, 3) and refined.shape == (FRAMES, 4 * SIDE, 4 * SIDE, 3)
    assert refined.min() >= 0 and refined.max() <= 1
    small = torch.nn.functional.avg_pool2d(refined.movedim(-1, 1), 4).movedim(1, -1)
    assert (small - plain).abs().mean() > 0.01
    assert stream.report.settings["width"] == 4 * SIDE


@pytest.mark.parametrize(("refine", "side"), [("1x", SIDE), ("2x", 2 * SIDE)])
def test_videos_have_the_refined_size(host, vae, stream, output_folder, refine, side):
    video = host.StreamToVideo.execute(stream, "talk", 18, vae, refine=refine)[0]
    with av.open(str(next(output_folder.glob("talk*.mp4")))) as file:
        shown = next(file.decode(video=0))
        assert (shown.width, shown.height) == (side, side)
    assert video.report.settings["width"] == side


def test_a_reference_without_a_picture_is_not_refined(host, vae):
    stream = make_stream(host, reference=bare())
    assert host.StreamToFrames.execute(stream, "one batch", 1, vae)[0][0].shape == (FRAMES, SIDE, SIDE, 3)
    with pytest.raises(host.error, match="refine is '2x', and only the embedded avatar"):
        host.StreamToFrames.execute(stream, "one batch", 1, vae, "2x")


def test_frames_at_another_rate(host, vae, stream):
    output = host.StreamToFrames.execute(stream, "by reset", 1, vae, fps=32)
    images, fps, sound = (output[k] for k in range(3))
    assert sum(len(part) for part in images) == 2 * FRAMES and fps == 32
    samples = sum(part["waveform"].shape[-1] for part in sound)
    assert samples / sound[0]["sample_rate"] == pytest.approx(FRAMES / 16, abs=1 / 16)
    assert stream.report.frames == 2 * FRAMES and stream.report.fps == 32


def test_every_batch_has_sound_even_behind_the_end_of_the_voice(host, vae, stream):
    images, _, sound = host.StreamToFrames.execute(stream, "by count", 1, vae, fps=60).args
    assert all(len(part) == 1 for part in images)
    assert len(images) == len(sound) and all(part["waveform"].numel() for part in sound)


def test_a_video_at_another_rate(host, vae, stream, output_folder):
    host.StreamToVideo.execute(stream, "talk", 30, vae, fps=24)
    with av.open(str(next(output_folder.glob("talk*.mp4")))) as file:
        assert file.streams.video[0].average_rate == 24
        assert sum(1 for _ in file.decode(video=0)) == FRAMES * 24 // 16


def test_another_rate_needs_refined_frames(host, vae, stream):
    with pytest.raises(host.error, match="fps is 25, expected 16, the stream's; only refined frames"):
        host.StreamToFrames.execute(stream, "one batch", 1, vae, "off", fps=25)
