"""The frame rate of refined frames: each is drawn for its own moment, and blocks fit together at any rate."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.cli import main
from joyavatar_core.errors import AvatarError
from joyavatar_core.evaluation.talking_judge import heard_jaw
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.pipeline.embedded import ASSETS
from joyavatar_core.pipeline.render import talk
from joyavatar_core.refiner import FaceMotion, FrameRate
from joyavatar_core.refiner.frame_rate import at_moments
from joyavatar_core.refiner.gestures import NODS, RAISED_BROWS, gestures
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun

ADA, VOICE = ASSETS / "portraits" / "ada.png", ASSETS / "voices" / "ada.flac"
STARTS = (0, 9, 21, 33, 45, 50)  # of blocks, and the end


@pytest.mark.parametrize("fps", [16, 24, 25, 30, 32, 60])
def test_blocks_give_all_frames_once_and_know_all_moments(fps: int) -> None:
    rate = FrameRate(16, fps)
    blocks = [range(*ends) for ends in pairwise(STARTS)]
    shown = [rate.shown(block) for block in blocks]
    assert [frame for part in shown for frame in part] == list(range(50 * fps // 16))
    for block, part in zip(blocks, shown, strict=True):
        moments = rate.moments(part, block.start - 1)  # 0 is the frame before
        assert ((moments >= 0 if block.start else moments > -1) & (moments <= len(block))).all()
    moments = torch.cat([rate.moments(part, 0) for part in shown])
    torch.testing.assert_close(moments.diff(), torch.full((len(moments) - 1,), 16 / fps))


def test_a_rate_far_into_a_stream_is_exact() -> None:
    frames = range(10**9, 10**9 + 12)
    rate = FrameRate(16, 25)
    moments = rate.moments(rate.shown(frames), frames.start)
    torch.testing.assert_close(moments.diff(), torch.full((len(moments) - 1,), 0.64), rtol=0, atol=1e-6)


def test_values_between_moments_are_linear_and_hold_at_the_ends() -> None:
    values = torch.tensor([[1.0, 10], [3, 30], [2, 20]])
    found = at_moments(values, torch.tensor([-1.0, 0.25, 1, 1.5, 2, 7]))
    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 1.5, 3, 2.5, 2, 2]))
    torch.testing.assert_close(found[:, 1], 10 * found[:, 0])


@pytest.mark.parametrize("fps", [0, 12, 61, 24.5])
def test_rates_that_cannot_be_are_refused(fps: float) -> None:
    with pytest.raises(AvatarError, match=f"fps is {fps}, expected a whole number from 16, the stream's, to 60"):
        FrameRate(16, fps)


def test_gestures_are_as_large_at_any_rate() -> None:
    seconds = 10
    for kind in (NODS, RAISED_BROWS):
        loud = {fps: 2 * torch.sin(torch.arange(fps * seconds) / fps * 6) for fps in (16, 48)}
        slow, fast = (gestures(kind, track, 5, 0, len(track), fps) for fps, track in loud.items())
        assert slow.abs().max() > 0.3
        torch.testing.assert_close(fast[2::3], slow, rtol=0, atol=0.15)  # the moments of both are nearly the same


@pytest.fixture(scope="module")
def avatar():
    return load_avatar()


@pytest.fixture(scope="module")
def blocks(avatar):
    """A stream of a second and a half, and its blocks."""
    voice = ArrayAudio(np.random.default_rng(0).standard_normal(24000) * 0.1, 16000)
    stream = avatar.stream(ADA, voice, preset("checkpoint", avatar.config))
    with StreamRun(stream) as run:
        return stream, list(run)


def refined(avatar, blocks, **changes: object) -> torch.Tensor:
    """All frames [3, T, H, W] of the blocks at 32 frames/s, or as `changes` of the refiner say."""
    stream, made = blocks
    refine = avatar.refine(stream, 128, FaceMotion(fps=32))
    for name, value in changes.items():
        setattr(refine, name, value)
    decoder = avatar.decoder
    cache = decoder.new_cache()
    videos = [decoder.decode(block.latents.to(decoder.compute_dtype), cache)[0] for block in made]
    return torch.cat(
        [refine.block(block, video[:, : block.num_video_frames]) for block, video in zip(made, videos, strict=True)], 1
    )


def test_every_second_frame_is_the_stream_s_own(avatar, blocks) -> None:
    """Without eyes and head, which have their own moments."""
    made = refined(avatar, blocks, eyes=None, head=None)
    own = refined(avatar, blocks, eyes=None, head=None, rate=None)
    assert made.shape[1] == 2 * own.shape[1]
    torch.testing.assert_close(made[:, 1::2], own, rtol=0, atol=0.02)
    between = made[:, 2::2]  # nearer to both of their neighbours than these are to each other
    jumps = (own[:, 1:] - own[:, :-1]).abs().mean()
    assert (between - own[:, :-1]).abs().mean() < 0.8 * jumps
    assert (between - own[:, 1:]).abs().mean() < 0.8 * jumps


def test_eyes_and_head_move_as_fast_as_before(avatar, blocks) -> None:
    own, made = (avatar.refine(blocks[0], 128, FaceMotion(fps=fps)) for fps in (None, 48))
    for slow, fast in ((own.eyes, made.eyes), (own.head, made.head)):
        torch.testing.assert_close(fast(0, 1440)[1::3], slow(0, 480))


def test_without_a_face_frames_are_repeated(avatar, blocks) -> None:
    made = refined(avatar, blocks, _face=None)
    own = refined(avatar, blocks, _face=None, rate=None)
    torch.testing.assert_close(made, own.repeat_interleave(2, 1), rtol=0, atol=0)


class Written:
    """Stands in for a writer: counts frames and keeps the sound."""

    def __init__(self) -> None:
        self.frames, self.sound = 0, []

    def write(self, frames: torch.Tensor) -> None:
        self.frames += len(frames)

    def write_audio(self, samples: np.ndarray) -> None:
        self.sound.append(samples)


@pytest.mark.parametrize("fps", [16, 25])
def test_every_block_brings_the_sound_of_its_frames(fps: int, avatar, blocks) -> None:
    stream, _ = blocks
    voice, written = stream.audio.source, Written()

    def ends_together(block: object, frames: torch.Tensor) -> None:
        given = sum(map(len, written.sound))
        assert given == min(voice.num_samples, written.frames * 16000 // fps)

    refine = avatar.refine(stream, 128, FaceMotion(fps=fps))
    with StreamRun(stream) as run:
        talk(run, avatar.decoder, written, voice, ends_together, refine=refine, overlap=False)
    sound = np.concatenate(written.sound)
    np.testing.assert_array_equal(sound, voice.read_native(0, len(sound)))


def test_features_between_blocks_are_those_of_the_whole(avatar, blocks) -> None:
    stream, _ = blocks
    refine = avatar.refine(stream, 128, FaceMotion(fps=25))
    track = torch.randn(33, 8, generator=torch.Generator().manual_seed(0))
    heard = []
    for before, start, stop in ((0, 0, 9), (0, 9, 21), (9, 21, 33)):
        shown = refine.rate.shown(range(start, stop))
        known = track[before:start] if start else None
        heard.append(refine._heard_at(shown, start, track[start:stop], known)[0])
    whole = at_moments(track, refine.rate.moments(refine.rate.shown(range(33)), 0))
    torch.testing.assert_close(torch.cat(heard), whole)


def test_the_jaw_is_heard_alike_at_every_rate() -> None:
    slow, fast = (heard_jaw(VOICE, 3 * fps, fps) for fps in (16, 48))
    np.testing.assert_allclose(fast[1::3][:40], slow[:40], atol=1e-4)  # the last frames lack what comes next


def test_the_video_has_the_rate_and_the_sound_its_length(tmp_path: Path) -> None:
    out, report = tmp_path / "talk.mp4", tmp_path / "talk.json"
    flags = f"--fps 25 --refine 128 --seconds 1.5 --portrait {ADA} --audio {VOICE} --out {out} --report {report}"
    assert main(["speak", *flags.split()]) == 0
    with av.open(str(out)) as file:
        video, sound = file.streams.video[0], file.streams.audio[0]
        assert video.average_rate == 25
        assert sum(1 for _ in file.decode(video)) == 37  # of 24 frames at 16 frames/s
        assert float(sound.duration * sound.time_base) == pytest.approx(37 / 25, abs=0.05)
    assert '"fps": 25.0' in report.read_text() and '"frames": 37' in report.read_text()


@pytest.mark.parametrize(("more", "sentence"), [
    (["--fps", "25", "--refine", "off"], "fps is 25, expected 16, the stream's; only refined frames"),
    (["--fps", "12"], "fps is 12, expected a whole number from 16"),
    (["--fps", "0"], "fps is 0, expected a whole number from 16"),
])  # fmt: skip
def test_a_rate_that_cannot_be_is_refused_before_loading(more, sentence, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr("joyavatar_core.pipeline.avatar.load_avatar", lambda *_: pytest.fail("already loading"))
    out = tmp_path / "talk.mp4"
    assert main(["speak", "--portrait", str(ADA), "--audio", str(VOICE), "--out", str(out), *more]) == 2
    assert sentence in capsys.readouterr().err
