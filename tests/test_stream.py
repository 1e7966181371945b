from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import threading
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joyavatar_core.audio import AudioFeatures, GrowingAudio
from joyavatar_core.errors import AvatarError
from joyavatar_core.sampling.mci import MCI_OFF, MciSettings
from joyavatar_core.sampling.noise import INITIAL, RENOISE, NoiseSource
from joyavatar_core.sampling.presets import PRESETS, preset
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.urcr import UrcrSettings

from .conftest import MINIATURE, RecordedFeatures

SETTINGS = {
    "psb": PsbSettings(),
    "urcr": UrcrSettings("rotate", 3, 6, "portrait"),
    "mci": MciSettings("inject", 3, 0.25),
}
BLOCKS = 12


class Six:
    """An audio encoder of six features: the loudness of each sixth of a frame."""

    sample_rate, feature_dim, hop = 16000, 6, 1
    left_reach, right_reach, left_context, lookahead = 0, 0, 0.0, 0.0

    def encode(self, waveform, edges):
        return torch.stack([torch.from_numpy(waveform[a:b][:996]).view(6, -1).std(1) for a, b in pairwise(edges)])


@pytest.fixture(scope="module")
def whole(make_stream):
    return [block.latents for block in itertools.islice(StreamRun(make_stream(**SETTINGS)), BLOCKS)]


def test_a_recipe_can_be_iterated_again(make_stream, whole):
    stream = make_stream(**SETTINGS)
    for _ in range(2):
        again = [block.latents for block in itertools.islice(StreamRun(stream), 3)]
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=False))


@settings(deadline=None, max_examples=8)
@given(stop=st.integers(0, BLOCKS - 1), urcr_mode=st.sampled_from(["rotate", "prefill", "window"]),
       mci_mode=st.sampled_from(["inject", "context"]))  # fmt: skip
def test_resuming_after_any_block_gives_the_same_bits(make_stream, stop, urcr_mode, mci_mode):
    stream = make_stream(
        psb=PsbSettings(), urcr=UrcrSettings(urcr_mode, 3, 6, "portrait"), mci=MciSettings(mci_mode, 3, 0.25)
    )
    run = StreamRun(stream)
    for _ in range(stop):
        next(run)
    state = copy.deepcopy(run.state_dict())
    rest = [next(run).latents for _ in range(BLOCKS - stop)]
    resumed = StreamRun(stream)
    resumed.load_state_dict(state)
    assert all(torch.equal(next(resumed).latents, expected) for expected in rest)


def test_a_run_stopped_inside_a_block_makes_the_same_block_again(make_stream, whole):
    class Stop(Exception):
        pass

    seen = []

    def on_step(block, step, steps):
        seen.append((block, step, steps))
        if len(seen) == 23:
            raise Stop

    run = StreamRun(make_stream(on_step=on_step, **SETTINGS))
    got = []
    while len(got) < BLOCKS:
        with contextlib.suppress(Stop):
            got.append(next(run).latents)
    assert all(torch.equal(a, b) for a, b in zip(got, whole, strict=True))
    assert seen[:8] == [(0, step, 8) for step in range(1, 9)]


def test_noise_is_addressed_not_counted():
    source = NoiseSource(3)
    first = source.draw(RENOISE, 5, 1, (2, 3))
    source.draw(INITIAL, 0, 0, (100,))
    assert torch.equal(source.draw(RENOISE, 5, 1, (2, 3)), first)
    others = [("initial", 5, 1, 3), ("renoise", 4, 1, 3), ("renoise", 5, 2, 3), ("renoise", 5, 1, 4)]
    for role, block, step, seed in others:
        assert not torch.equal(NoiseSource(seed).draw(role, block, step, (2, 3)), first)


def test_a_block_with_more_steps_leaves_the_next_ones_noise_alone(make_stream):
    drawn: dict[str, list] = {}
    for name, psb in (("few", PsbSettings(steps=(4,))), ("many", PsbSettings(steps=(9, 4)))):

        class Spy(NoiseSource):
            calls: list = drawn.setdefault(name, [])

            def draw(self, role, block, step, shape):
                noise = super().draw(role, block, step, shape)
                if block:
                    self.calls.append((role, block, step, noise.sum().item()))
                return noise

        list(itertools.islice(StreamRun(make_stream(psb=psb, noise=Spy(0))), 3))
    assert drawn["few"] == drawn["many"]


def test_the_seed_the_voice_and_the_portrait_all_matter(make_stream, model):
    base = next(StreamRun(make_stream())).latents
    other_voice = RecordedFeatures()
    object.__setattr__(other_voice, "latent_features", lambda first, count: torch.zeros(count, 4, 6))
    for change in ({"seed": 1}, {"audio": other_voice}, {"reference": torch.zeros(1, 16, 1, 4, 4)},
                   {"text": torch.ones(1, 2, 8)}, {"audio": None}):  # fmt: skip
        assert not torch.allclose(next(StreamRun(make_stream(**change))).latents, base, atol=1e-4), change


def test_the_first_latent_frame_is_the_portrait(make_stream):
    stream = make_stream(**SETTINGS)
    assert torch.equal(next(StreamRun(stream)).latents[:, :, :1], stream.reference)


@pytest.mark.parametrize("frames", [1, 8, 9, 10, 21, 33])
def test_the_video_is_as_long_as_the_voice(make_stream, frames):
    blocks = list(StreamRun(make_stream(audio=RecordedFeatures(num_video_frames=frames))))
    assert sum(block.num_video_frames for block in blocks) == frames
    assert blocks[-1].last_frame == frames - 1
    starts = [block.first_frame for block in blocks]
    assert starts == [0, 9, 21][: len(starts)]


def test_a_prompt_can_change_between_blocks(make_stream, whole):
    run = StreamRun(make_stream(**SETTINGS))
    next(run)
    run.update(text=torch.ones(1, 2, 8))
    assert not torch.allclose(next(run).latents, whole[1], atol=1e-4)
    with pytest.raises(AvatarError, match="cannot change its seed"):
        run.update(seed=3)


def test_mci_can_be_switched_off_and_on_again(make_stream):
    run = StreamRun(make_stream(**SETTINGS))
    next(run)
    run.update(mci=MCI_OFF)
    next(run)
    run.update(mci=MciSettings())
    next(run)
    with pytest.raises(AvatarError, match="room for 3"):
        run.update(mci=MciSettings(frames=4))


def test_a_frame_limit_ends_a_stream_whose_voice_goes_on(make_stream):
    voice = GrowingAudio(16000)
    voice.push(torch.zeros(16000))
    audio = AudioFeatures(voice, Six(), 16, 3)
    assert sum(block.num_video_frames for block in StreamRun(make_stream(audio=audio, video_frames=9))) == 9


@pytest.mark.parametrize("offset", [-20, -3, 0, 3])
def test_features_that_run_ahead_or_behind_leave_the_length_alone(make_stream, offset):
    voice = GrowingAudio(16000)
    voice.push(torch.zeros(20000))
    threading.Timer(0.2, voice.finish).start()
    audio = AudioFeatures(voice, Six(), 16, 3, offset=offset)
    assert sum(block.num_video_frames for block in StreamRun(make_stream(audio=audio))) == 20


def test_a_closed_run_says_so(make_stream):
    run = StreamRun(make_stream())
    run.close()
    for use in (lambda: next(run), run.state_dict, run.reset, lambda: run.load_state_dict({})):
        with pytest.raises(AvatarError):
            use()


def test_a_state_of_other_settings_is_refused(make_stream):
    run = StreamRun(make_stream(seed=1))
    next(run)
    with pytest.raises(AvatarError, match="seed 1 and this stream has 2"):
        StreamRun(make_stream(seed=2)).load_state_dict(run.state_dict())


def test_bfloat16_runs(model, make_stream):
    half = copy.deepcopy(model).bfloat16()
    block = next(StreamRun(make_stream(model=half, **SETTINGS)))
    assert block.latents.dtype == torch.bfloat16 and torch.isfinite(block.latents).all()


def test_presets_mean_what_they_say():
    plain, joyavatar, own = (preset(name, MINIATURE) for name in ("plain", "joyavatar", "checkpoint"))
    assert plain.psb.first is None and plain.mci.mode == "off" and plain.urcr.mode == "window"
    assert (joyavatar.psb.first, joyavatar.mci.mode, joyavatar.urcr.sink_source) == (8, "inject", "portrait")
    assert own.psb.first is None and own.mci.mode == "off"
    assert (own.urcr.mode, own.urcr.sink_source) == ("rotate", "first")
    with pytest.raises(AvatarError, match=PRESETS[0]):
        preset("magic", MINIATURE)


@pytest.mark.parametrize(("trained", "steps"), [(6, 4), (4, 4), (2, 2)])
def test_realtime_is_the_checkpoint_s_own_preset_in_few_steps(make_stream, trained, steps):
    levels = tuple((1000.0 - 100 * k, 1 - k / 10) for k in range(trained))
    config = dataclasses.replace(MINIATURE, levels=levels, preset={"psb": {"first": 8}, "mci": {"noise": 0.2}})
    chosen, own = preset("realtime", config), preset("checkpoint", config)
    assert (chosen.mci, chosen.urcr) == (own.mci, own.urcr)
    run = StreamRun(make_stream(config=config, **vars(chosen)))
    assert [next(run).steps for _ in range(3)] == [steps] * 3
    assert next(StreamRun(make_stream(config=config, **vars(own)))).steps == 8


@pytest.mark.parametrize("mci", [MCI_OFF, MciSettings()])
def test_initial_latents_are_noised_to_the_first_level_and_end_the_stream(make_stream, mci):
    latents = torch.randn(1, 16, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    config = dataclasses.replace(MINIATURE, levels=((1e-3, 1e-6), *MINIATURE.levels[1:]))
    fields = {"mci": mci, "initial_latents": latents, "noise": Quiet()}
    blocks = list(StreamRun(make_stream(config=config, psb=PsbSettings(steps=(1,)), **fields)))
    assert [block.steps for block in blocks] == [1, 1] and blocks[-1].last_frame == 4 * 6 - 4
    made = torch.cat([block.latents for block in blocks], dim=2)
    torch.testing.assert_close(made[:, :, 1:], latents[:, :, 1:], atol=1e-3, rtol=0)  # hardly any noise to remove
    noise_alone = list(StreamRun(make_stream(initial_latents=latents, noise=NoiseSource(0))))
    usual = list(itertools.islice(StreamRun(make_stream()), 2))  # nothing is left of them at sigma 1
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(noise_alone, usual, strict=True))


class Quiet:
    def draw(self, role, block, step, shape):
        return torch.zeros(shape)


def test_a_stream_goes_by_its_own_config_and_the_model_keeps_its(make_stream, model):
    short = dataclasses.replace(MINIATURE, trained_positions=9, levels=MINIATURE.levels[:2])
    blocks = list(itertools.islice(StreamRun(make_stream(config=short, urcr=UrcrSettings(recent=3))), 5))
    assert [block.steps for block in blocks] == [2] * 5
    assert [block.reset for block in blocks] == [False, False, False, True, True]
    assert model.config == MINIATURE


def test_a_run_is_closed_at_the_end_of_its_with_and_leaves_the_stream_as_it_was(make_stream):
    stream = make_stream(video_frames=21)
    with StreamRun(stream) as run:
        assert [block.index for block in run] == [0, 1]
        assert run.block == 2 and run.stream is stream
    with pytest.raises(AvatarError, match="make a new StreamRun"):
        next(run)
    with pytest.raises(ZeroDivisionError), StreamRun(stream) as other:
        raise ZeroDivisionError
    assert other.sampler.passes is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"initial_latents": torch.zeros(1, 16, 3, 4, 6)}, r"\[1, 16, 3, 4, 6\], expected \[1, 16, frames, 4, 4\]"),
        ({"initial_latents": torch.zeros(1, 16, 4, 4, 4)}, "4 frames, expected whole blocks of 3"),
        ({"initial_latents": torch.full((1, 16, 3, 4, 4), float("inf"))}, "NaN or infinite"),
        ({"config": dataclasses.replace(MINIATURE, num_layers=2)}, "num_layers 2 and its model has 4"),
        ({"reference": None}, "animates a portrait"),
        ({"reference": torch.zeros(1, 16, 4, 4)}, r"one latent \[1, 16, 1, h, w\]"),
        ({"reference": torch.full((1, 16, 1, 4, 4), float("nan"))}, "NaN"),
        ({"reference": torch.zeros(1, 16, 1, 5, 4)}, "even"),
        ({"text": torch.zeros(1, 2, 9)}, "text encoder"),
        ({"text": torch.zeros(1, 5, 8)}, "5 tokens"),
        ({"text": torch.zeros(2, 2, 8)}, "text encoder"),
        ({"text": torch.full((1, 2, 8), float("nan"))}, "NaN"),
        ({"video_frames": 0}, "at least 1"),
        ({"video_frames": "9"}, "whole number"),
        ({"audio": RecordedFeatures(feature_dim=7)}, "7 numbers"),
        ({"audio": RecordedFeatures(block_frames=2)}, "blocks of 2"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_when_it_is_made(make_stream, fields, sentence):
    with pytest.raises(AvatarError, match=sentence):
        make_stream(**fields)
