"""A reset at any time, and changes to a running stream: what is forgotten, what stays, what follows."""

from __future__ import annotations

import itertools

import pytest
import torch

from joyavatar_core.audio import AudioFeatures, GrowingAudio
from joyavatar_core.errors import AvatarError
from joyavatar_core.sampling.mci import MciSettings
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.urcr import UrcrSettings

from .conftest import RecordedFeatures

MODES = ("rotate", "prefill")


def advance(run, count):
    return [next(run).latents for _ in range(count)]


def recipe(make_stream, mode="rotate", sinks=3, recent=6, inject=3):
    return make_stream(urcr=UrcrSettings(mode, sinks, recent, "portrait"), mci=MciSettings("inject", inject, 0.25))


@pytest.mark.parametrize("mode", MODES)
def test_a_reset_when_it_is_due_is_the_one_that_would_have_come(make_stream, mode):
    left, asked = StreamRun(recipe(make_stream, mode)), StreamRun(recipe(make_stream, mode))
    advance(left, 5)
    advance(asked, 5)
    asked.reset(6)
    for _ in range(6):
        a, b = next(left), next(asked)
        assert torch.equal(a.latents, b.latents)
        assert (a.reset, a.max_position) == (b.reset, b.max_position)


@pytest.mark.parametrize("mode", [*MODES, "window"])
@pytest.mark.parametrize("recent", [0, 3])
def test_after_a_reset_frames_and_positions_are_the_sinks_and_the_newest(make_stream, mode, recent):
    run = StreamRun(recipe(make_stream, mode))
    advance(run, 4)
    run.reset(recent)
    newest = [12 - recent + k for k in range(recent)]
    assert sorted(zip(run.cache.positions, run.cache.frame_ids, strict=True)) == list(enumerate([0, 1, 2, *newest]))
    block = next(run)
    assert block.reset and block.index == 4 and block.first_frame == 45
    assert block.max_position == 3 + recent + 3 - 1
    assert not next(run).reset


@pytest.mark.parametrize("mode", MODES)
def test_what_went_wrong_is_not_seen_after_a_reset_to_the_sinks(make_stream, mode):
    healthy, spoilt = StreamRun(recipe(make_stream, mode)), StreamRun(recipe(make_stream, mode))
    for run in (healthy, spoilt):
        advance(run, 4)
    for past in spoilt.sampler.past:
        past.latents.add_(5)
    later = [slot for slot, frame in enumerate(spoilt.cache.frame_ids) if frame >= 3]
    for slot in later:
        spoilt.cache._tokens(spoilt.cache.values, slot).mul_(7)
    for run in (healthy, spoilt):
        run.reset(0)
    assert all(torch.equal(a, b) for a, b in zip(advance(healthy, 12), advance(spoilt, 12), strict=True))


def test_a_stream_without_sinks_can_forget_everything(make_stream):
    run = StreamRun(recipe(make_stream, sinks=0))
    advance(run, 3)
    run.reset()
    assert run.cache.length == 0 and next(run).max_position == 2


@pytest.mark.parametrize("recent", [-3, 2, 9, 1.5])
def test_a_reset_that_cannot_be_says_what_can(make_stream, recent):
    run = StreamRun(recipe(make_stream))
    advance(run, 4)
    with pytest.raises(AvatarError, match=r"multiple of 3 from 0 to 6"):
        run.reset(recent)


def test_a_new_prompt_changes_the_text_and_nothing_else(make_stream):
    run, other = StreamRun(recipe(make_stream)), StreamRun(recipe(make_stream))
    for each in (run, other):
        advance(each, 4)
    before = {name: value.clone() for name, value in run.cache.state_dict().items() if torch.is_tensor(value)}
    past, cursor, reference = list(run.sampler.past), run.sampler.cursor, run.sampler.passes.reference
    old_text = run.sampler.passes.text
    run.update(text=torch.ones(1, 2, 8))
    assert all(torch.equal(run.cache.state_dict()[name], value) for name, value in before.items())
    assert (
        run.sampler.past == past
        and run.sampler.cursor == cursor
        and run.sampler.passes.reference is reference
        and run.sampler.passes.text is not old_text
    )
    other.update(text=torch.ones(1, 2, 8))
    other.update(text=None)  # and back again: as if nothing had been
    untouched = StreamRun(recipe(make_stream))
    assert torch.equal(advance(untouched, 5)[-1], next(other).latents)
    assert not torch.allclose(next(run).latents, next(untouched).latents, atol=1e-4)


def test_the_schedule_can_change_between_blocks(make_stream):
    run = StreamRun(recipe(make_stream))
    steps = [next(run).steps]
    run.update(psb=PsbSettings(steps=(6,)))
    steps.append(next(run).steps)
    run.update(psb=PsbSettings(steps=(5,)), video_frames=21 + 12)
    steps += [block.steps for block in run]
    assert steps == [4, 6, 5]


class TwoNumbers:
    """An encoder whose features are a frame's mean and its first sample, so that the voice can be told from them."""

    sample_rate, feature_dim, hop = 16000, 6, 1
    left_reach = right_reach = 0
    left_context = lookahead = 0.0

    def encode(self, waveform, edges):
        rows = [[waveform[a:b].mean(), waveform[a]] * 3 for a, b in itertools.pairwise(edges)]
        return torch.tensor(rows)


def live_voice(level: float, seconds: float) -> GrowingAudio:
    voice = GrowingAudio(16000)
    voice.push(torch.full((round(seconds * 16000),), level))
    return voice


def test_a_new_voice_is_heard_from_the_next_blocks_first_frame(make_stream):
    first, second = live_voice(0.25, 2.0), live_voice(0.5, 2.0)
    features = AudioFeatures(first, TwoNumbers(), 16, 3)
    run = StreamRun(make_stream(audio=features))
    advance(run, 2)  # frames 0 ... 20
    run.update(audio=run.stream.audio.followed_by(second, run.block))
    assert run.stream.audio.latent_features(3, 3).unique().tolist() == [0.25]
    assert run.stream.audio.latent_features(6, 3).unique().tolist() == [0.5]
    second.finish()
    blocks = list(run)
    assert blocks[0].first_frame == 21 and blocks[-1].last_frame == 21 + 32 - 1  # 2 s of the second voice
    source = run.stream.audio.source
    at = 21 * 1000  # samples a frame
    assert source.read(at - 1, at + 1).tolist() == [0.25, 0.5] and source.num_samples == at + 32000


def test_a_changed_voice_leaves_the_past_alone(make_stream):
    run, other = StreamRun(make_stream()), StreamRun(make_stream())
    for each in (run, other):
        advance(each, 3)
    silence = RecordedFeatures()
    object.__setattr__(silence, "latent_features", lambda first, count: torch.zeros(count, 4, 6))
    run.update(audio=silence)
    assert torch.equal(run.cache.state_dict()["keys"], other.cache.state_dict()["keys"])
    assert not torch.allclose(next(run).latents, next(other).latents, atol=1e-4)
