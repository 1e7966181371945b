"""The latent flow: the head moves as the latents say, and nothing is decoded for that."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.audio.opening import open_voice
from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.pipeline.embedded import ASSETS, EMBEDDED_FACE_EDITOR, EMBEDDED_REFINER
from joyavatar_core.pipeline.render import frames_of
from joyavatar_core.recording import Interval, Recording
from joyavatar_core.refiner import FaceMotion, PortraitRefiner, load_refiner
from joyavatar_core.refiner.latent_flow import LatentFlowNet, between
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import LatentBlock
from joyavatar_core.synthetic.dataset import DESCRIPTION
from joyavatar_core.training.latent_flow_streams import write_streams
from joyavatar_core.training.latent_flow_training import Streams, latent_flow_losses, train_latent_flow
from joyavatar_core.training.loop import LoopSettings

CELLS = 16
ADA, LEO = (ASSETS / "portraits" / f"{name}.png" for name in ("ada", "leo"))


class Shift(torch.nn.Module):
    """Stands in for the network: everything has moved by the latent's mean."""

    def forward(self, latents: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return latents.mean((1, 2, 3))[:, None, None, None].expand(-1, 2, *latents.shape[-2:])


@pytest.fixture(scope="module")
def avatar():
    return load_avatar()


def stream_of(avatar, portrait: object = ADA, seconds: float = 2.0):
    voice = ArrayAudio(np.random.default_rng(0).standard_normal(round(16000 * seconds)) * 0.1, 16000)
    return avatar.stream(portrait, voice, preset("checkpoint", avatar.config)), voice


def refiner_with(net: torch.nn.Module) -> PortraitRefiner:
    parts = load_refiner(EMBEDDED_REFINER, EMBEDDED_FACE_EDITOR)
    parts.latent_flow = net
    framed = load_avatar().frame(ADA)
    portrait = framed.at(512, 512)
    small = F.avg_pool2d(portrait[None], 4)[0]
    return PortraitRefiner(parts, portrait, small, (128, 128), reference=torch.zeros(1, 16, 1, CELLS, CELLS))


def block(latents: torch.Tensor, first_frame: int, before: torch.Tensor | None = None) -> LatentBlock:
    frames = 4 * latents.shape[2] - (0 if first_frame else 3)
    return LatentBlock(
        0, latents, first_frame, first_frame + frames - 1, 1, False, 0, 0.0, torch.zeros(frames, 8),
        torch.zeros(0, 8), before,
    )  # fmt: skip


def test_an_untrained_network_moves_nothing() -> None:
    flow = LatentFlowNet()(*torch.randn(2, 3, 16, CELLS, 20).unbind())
    assert flow.shape == (3, 2, CELLS, 20) and not flow.any()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 22), (18, 10)])
def test_a_flow_is_in_halves_of_the_side(height: int, width: int) -> None:
    net = LatentFlowNet()
    torch.nn.init.constant_(net.flow.bias, 0.5)  # half a cell
    flow = net(*torch.randn(2, 3, 16, height, width).unbind())
    for axis, side in enumerate((width, height)):
        torch.testing.assert_close(flow[:, axis], torch.full((3, height, width), 1 / side), rtol=0.02, atol=0)


def test_frames_lie_between_the_latents() -> None:
    flow = torch.tensor([1.0, 3, 2])[None, :, None, None, None].expand(2, -1, 2, 3, 5)
    made = between(flow)
    assert made.shape == (2, 8, 2, 3, 5)
    torch.testing.assert_close(made[1, :, 0, 2, 4], torch.tensor([1.5, 2, 2.5, 3, 2.75, 2.5, 2.25, 2]))


def test_the_first_frame_is_the_portrait_and_the_blocks_fit_together() -> None:
    refine, latents = refiner_with(Shift()), torch.zeros(1, 16, 6, CELLS, CELLS)
    latents += torch.tensor([5.0, 4, 8, 4, 0, 8])[:, None, None]
    flow = [
        refine._latent_flow(block(latents[:, :, :3], 0)),
        refine._latent_flow(block(latents[:, :, 3:], 9, latents[:, :, 2:3])),
    ]
    assert flow[0].shape == (10, 2, CELLS, CELLS)
    expected = torch.tensor([0.0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 2, 4, 6, 8])
    torch.testing.assert_close(torch.cat(flow)[:, 1, 10, 5], expected)  # a block begins with the frame before it
    alone = refine._latent_flow(block(latents[:, :, 3:], 9))  # nothing is known of the latents before
    torch.testing.assert_close(alone[:, 0, 0, 0], torch.tensor([4.0, 4, 4, 4, 4, 3, 2, 1, 0, 2, 4, 6, 8]))


def test_the_latents_move_the_head() -> None:
    refine = refiner_with(Shift())
    latents = torch.zeros(1, 16, 3, CELLS, CELLS)
    latents[:, :, 2] = 0.125
    frames = refine.block(block(latents, 0))
    moved = frames[:, 4].roll((-8, -8), (-2, -1))  # 0.125 halves of the side are 8 pixels
    inner = (..., slice(40, 90), slice(40, 90))
    assert (frames[:, 8] - moved)[inner].abs().mean() < 0.2 * (frames[:, 8] - frames[:, 4])[inner].abs().mean()


def test_a_size_beyond_the_portrait_s_detail_is_said(avatar, caplog: pytest.LogCaptureFixture) -> None:
    stream, _ = stream_of(avatar)
    avatar.refine(stream)
    assert not caplog.records
    large = avatar.refine(stream, "8x")
    assert "the frames are 1024 pixels wide, and the portrait has detail for at most 512" in caplog.text
    frames = large.block(next(StreamRun(stream)))
    small = avatar.refine(stream).block(next(StreamRun(stream)))
    assert frames.shape[-2:] == (1024, 1024)
    assert (F.avg_pool2d(frames.movedim(1, 0), 2).movedim(0, 1) - small).abs().mean() < 0.02


def test_nothing_is_decoded_where_the_face_is_drawn(avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], type(avatar.decoder).decode
    monkeypatch.setattr(
        type(avatar.decoder),
        "decode",
        lambda self, x, cache=None: (decoded.append(x.shape[2]), decode(self, x, cache))[1],
    )
    stream, _ = stream_of(avatar)
    refine = avatar.refine(stream)
    assert refine.draws_from_latents and decoded == [1]  # the portrait's round trip
    frames = torch.cat([made for _, made in frames_of(StreamRun(stream), avatar.decoder, refine=refine)])
    assert len(frames) == stream.num_video_frames and decoded == [1]
    blank = np.full((256, 256, 3), 128, np.uint8)
    stream, _ = stream_of(avatar, blank, seconds=0.4)
    refine = avatar.refine(stream)
    assert not refine.draws_from_latents
    list(frames_of(StreamRun(stream), avatar.decoder, refine=refine))
    assert decoded == [1, 1, 3]


def test_without_a_voice_the_mouth_is_at_rest(avatar) -> None:
    stream, _ = stream_of(avatar, seconds=2.0)
    silent = dataclasses.replace(stream, audio=None, video_frames=21)
    refine = avatar.refine(silent, 128)
    made = [frames for _, frames in frames_of(StreamRun(silent), avatar.decoder, refine=refine)]
    assert [frames.shape for frames in made] == [(9, 128, 128, 3), (12, 128, 128, 3)]
    with StreamRun(stream) as run:  # the voice ends inside a run
        blocks = frames_of(run, avatar.decoder, refine=refine, overlap=False)
        next(blocks)
        run.update(audio=None, video_frames=21)
        assert len(next(blocks)[1]) == 12


def test_a_stream_of_another_size_is_decoded(avatar) -> None:
    voice = ArrayAudio(np.zeros(8000), 16000)
    stream = avatar.stream(ADA, voice, preset("checkpoint", avatar.config), pixel_size=(96, 96))
    assert not avatar.refine(stream).draws_from_latents


def test_a_reset_does_not_make_the_head_jump(avatar) -> None:
    stream, _ = stream_of(avatar, seconds=3.0)
    with StreamRun(stream) as run:
        blocks = [next(run), next(run)]
        run.reset()
        saved = run.state_dict()
        blocks.append(next(run))
    for before, block in itertools.pairwise(blocks):
        assert torch.equal(block.latents_before, before.latents[:, :, -1:])
    with StreamRun(stream) as resumed:
        resumed.load_state_dict(saved)
        assert torch.equal(next(resumed).latents_before, blocks[2].latents_before)


def test_a_state_of_an_earlier_version_goes_on(avatar) -> None:
    stream, _ = stream_of(avatar, seconds=2.0)
    with StreamRun(stream) as run, StreamRun(stream) as resumed:
        next(run)
        saved = run.state_dict()
        del saved["last"]
        resumed.load_state_dict(saved)
        assert torch.equal(next(resumed).latents_before, next(run).latents_before)


def test_the_head_moves_as_in_the_decoded_frames(avatar) -> None:
    stream = avatar.stream(LEO, open_voice(ASSETS / "voices" / "leo.flac"), preset("checkpoint", avatar.config))
    stream = dataclasses.replace(stream, video_frames=57)
    refine = avatar.refine(stream)
    decoder, places = avatar.decoder, []
    cache = decoder.new_cache()
    for made in StreamRun(stream):
        video = decoder.decode(made.latents.to(decoder.compute_dtype), cache)[0][:, : made.num_video_frames]
        flows = refine.decoded_flow(video.movedim(1, 0).float()), refine._latent_flow(made)[1:]
        flows = [F.interpolate(flow, (64, 64), mode="bilinear") for flow in flows]
        places.append([refine.face.moved_as_one(flow)[:, 0, 24:40, 24:40].mean((1, 2)) for flow in flows])
    decoded, ours = (torch.cat(part) for part in zip(*places, strict=True))
    assert torch.corrcoef(torch.stack([decoded, ours]))[0, 1] > 0.8
    assert 0.5 < ours.std() / decoded.std() < 1.5


@pytest.mark.parametrize(("heard", "fps"), [(True, None), (False, None), (True, 25)])
def test_a_recording_without_decoded_frames_resumes(heard: bool, fps: int | None, avatar, tmp_path: Path) -> None:
    stream, voice = stream_of(avatar)
    if not heard:
        stream, voice = dataclasses.replace(stream, audio=None, video_frames=33), None

    def recording(name: str, **options: object) -> Recording:
        refine = avatar.refine(stream, 128, FaceMotion(fps=fps))
        return Recording(
            tmp_path / name, stream, avatar.decoder, voice, every=Interval(blocks=1), refine=refine, **options
        )

    with recording("whole") as whole:
        whole.record()
    stopped = recording("parts")
    with pytest.raises(KeyboardInterrupt), stopped:
        stopped.record(lambda block, frames: stop_at(block, 2))
    with recording("parts", resume=True) as resumed:
        assert 0 < resumed.blocks < len(whole.segments) * whole.every
        resumed.record()
    assert [one.pictures for one in resumed.segments] == [one.pictures for one in whole.segments]
    assert resumed.frames == stream.num_video_frames * (fps or 16) // 16
    with pytest.raises(AvatarError, match=r"was made with fps"):
        other = Recording(
            tmp_path / "whole", stream, avatar.decoder, voice, every=Interval(blocks=1), resume=True,
            refine=avatar.refine(stream, 128, FaceMotion(fps=32)),
        )  # fmt: skip
        with other:
            pass


def stop_at(block: LatentBlock, index: int) -> None:
    if block.index == index:
        raise KeyboardInterrupt


@pytest.fixture
def streams(tmp_path: Path) -> Streams:
    """One stream in which everything moves with a latent channel."""
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(0)
    shift = torch.randn(6, generator=random).cumsum(0) * 0.5
    latents = torch.randn(1, 16, CELLS, CELLS, generator=random).repeat(6, 1, 1, 1)
    latents[:, 0] += shift[:, None, None]
    flow = (0.02 * shift).repeat_interleave(4)[3:, None, None, None].expand(-1, 2, 32, 32)
    face = torch.zeros(2, 32, 32)
    face[:, 8:24, 8:24] = 1
    path = tmp_path / "train-0000001-drawn.safetensors"
    save_file({"latents": latents.half(), "flow": flow.half().contiguous(), "face": face.half()}, path)
    return Streams([path])


def test_streams_of_another_avatar_are_not_used(avatar, tmp_path: Path) -> None:
    pytest.importorskip("moderngl")
    (tmp_path / DESCRIPTION).write_text("{}")
    with pytest.raises(AvatarError, match="made with another avatar or version"):
        write_streams(tmp_path, 1, lambda: avatar)
    bare = dataclasses.replace(avatar, refiner=None)
    with pytest.raises(AvatarError, match="has no refiner with a face editor"):
        write_streams(tmp_path, 1, lambda: bare)


def test_the_network_learns_how_a_stream_moves(streams: Streams, tmp_path: Path) -> None:
    net = train_latent_flow(streams, LoopSettings(tmp_path / "run", steps=60, learning_rate=3e-3, ema=0.9), batch=4)
    batch = streams.batch([torch.Generator().manual_seed(k) for k in range(8)])
    losses = latent_flow_losses(net, *batch)
    assert losses["off"] < 0.5 * losses["moves"]
