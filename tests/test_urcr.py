from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from joyavatar_core.errors import AvatarError
from joyavatar_core.sampling.mci import MCI_OFF, MciSettings
from joyavatar_core.sampling.noise import NoiseSource
from joyavatar_core.sampling.presets import parse_settings, preset
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.sampling.urcr import SLIDING_WINDOW, UrcrSettings

from .conftest import MINIATURE, RecordedFeatures, build_model

P, K = MINIATURE.trained_positions, MINIATURE.block_frames
MODES = ["rotate", "prefill", "window"]


def latents(stream, count):
    return [block.latents for block in itertools.islice(StreamRun(stream), count)]


@pytest.mark.parametrize("mci", [MCI_OFF, MciSettings("inject", 3, 0.25), MciSettings("context", 3, 0.25)])
@pytest.mark.parametrize("source", ["first", "portrait"])
def test_clips_within_the_trained_length_are_the_same_in_every_mode(make_stream, mci, source):
    streams = [make_stream(mci=mci, urcr=UrcrSettings(mode, 3, 3, source)) for mode in MODES]
    first, *others = (latents(stream, P // K) for stream in streams)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@settings(deadline=None, max_examples=6)
@given(
    mode=st.sampled_from(MODES),
    sinks=st.sampled_from([0, 3, 6]),
    recent=st.sampled_from([3, 6]),
    inject=st.integers(0, 3),
    source=st.sampled_from(["first", "portrait"]),
)
def test_400_blocks_stay_bounded(make_stream, mode, sinks, recent, inject, source):
    assume(mode != "rotate" or recent <= 2 * (P - sinks - recent))  # else refused: too many rotations of a key
    urcr = UrcrSettings(mode, sinks, recent, source)
    one_level = dataclasses.replace(MINIATURE, levels=MINIATURE.levels[:1], num_layers=2)
    model = build_model(one_level)
    stream = make_stream(model=model, mci=MciSettings("inject", inject, 0.25), urcr=urcr)
    run = StreamRun(stream)
    allocated = run.cache.nbytes
    assert allocated == stream.cache_bytes
    cursor, storage = 0, run.cache.keys.data_ptr()
    for block in itertools.islice(run, 400):
        now = (block.index + 1) * K
        due = mode != "window" and cursor + K > P
        assert block.reset == due
        cursor = (sinks + recent if due else cursor) + K
        assert block.max_position == cursor - 1
        if mode != "window":
            assert max(run.cache.positions) <= P - 1
            assert sorted(run.cache.positions) == list(range(cursor))
        newest = run.cache.length - min(sinks, now)
        visible = {*range(min(sinks, now)), *range(now - newest, now)}
        assert set(run.cache.frame_ids) == visible and run.cache.length <= P
        assert len(run.sampler.past) <= max(1, -(-max(recent, inject) // K))
        assert torch.isfinite(block.latents).all()
    assert run.cache.nbytes == allocated and run.cache.keys.data_ptr() == storage


def test_resets_leave_voice_noise_and_steps_in_the_streams_own_time(make_stream):
    """A reset renumbers positions and nothing else: block b hears frames 3b ..., draws noise b, and walks PSB on."""
    heard, drawn = [], set()

    class Ear(RecordedFeatures):
        def latent_features(self, first, count):
            heard.append(first)
            return super().latent_features(first, count)

    class Spy(NoiseSource):
        def draw(self, role, block, step, shape):
            drawn.add(block)
            return super().draw(role, block, step, shape)

    stream = make_stream(audio=Ear(), noise=Spy(0), psb=PsbSettings(blocks=8), urcr=UrcrSettings())
    blocks = list(itertools.islice(StreamRun(stream), 14))
    assert sum(block.reset for block in blocks) >= 2
    assert list(dict.fromkeys(heard)) == [3 * index for index in range(14)]
    assert drawn == set(range(14))
    assert [block.steps for block in blocks] == [PsbSettings(blocks=8).steps_for(b, trained=4) for b in range(14)]


@pytest.mark.parametrize(("sinks", "recent", "times"), [(3, 6, 1), (0, 9, 2)])
def test_rotate_moves_a_key_once_or_twice(make_stream, sinks, recent, times):
    run = StreamRun(make_stream(urcr=UrcrSettings("rotate", sinks, recent, "first")))
    moved: Counter[int] = Counter()
    shift = run.cache.shift
    run.cache.shift = lambda slots, by: (moved.update(run.cache.frame_ids[s] for s in slots), shift(slots, by))[1]
    list(itertools.islice(run, 60))
    assert max(moved.values()) == times


def test_settings_that_would_rotate_a_key_more_often_are_refused(make_stream):
    with pytest.raises(AvatarError, match="would rotate a key more than 2 times within 15 positions"):
        make_stream(urcr=UrcrSettings("rotate", 3, 9, "first"))


@torch.no_grad()
def test_rotate_keeps_what_prefill_of_unchanged_context_would_make(make_stream):
    """With one layer, a key depends on its own frame alone, so rotating equals recomputing at the new place."""
    model = build_model(dataclasses.replace(MINIATURE, num_layers=1))
    urcr = UrcrSettings("rotate", 3, 6, "first")
    streams = (make_stream(model=model, urcr=dataclasses.replace(urcr, mode=mode)) for mode in MODES[:2])
    rotated, recomputed = map(StreamRun, streams)
    for _ in range(P // K):
        next(rotated), next(recomputed)
    rotated.sampler._make_room(), recomputed.sampler._make_room()
    used = 9 * rotated.cache.tokens
    assert rotated.cache.positions == recomputed.cache.positions == list(range(9))
    assert torch.allclose(rotated.cache.keys[:, :, :used], recomputed.cache.keys[:, :, :used], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("mci", [MCI_OFF, MciSettings("context", 3, 0.25)])
@pytest.mark.parametrize("source", ["first", "portrait"])
def test_prefill_with_nothing_dropped_reproduces_the_cache(make_stream, mci, source):
    run = StreamRun(make_stream(mci=mci, urcr=UrcrSettings("prefill", 3, 9, source)))
    for _ in range(4):
        next(run)
    before = run.cache.state_dict()
    run.sampler.cursor = P  # pretend that positions ran out: S + R = 12 frames are all there is
    assert run.sampler._make_room()
    after = run.cache.state_dict()
    assert after["frames"] == before["frames"] and after["positions"] == before["positions"]
    assert torch.allclose(after["keys"], before["keys"], atol=1e-5)
    assert torch.allclose(after["values"], before["values"], atol=1e-5)


@pytest.mark.parametrize("mci", [MCI_OFF, MciSettings("context", 3, 0.25)])
def test_only_the_first_block_is_cached_as_the_portrait_and_clean(make_stream, mci):
    run = StreamRun(make_stream(mci=mci, urcr=UrcrSettings("prefill", 6, 3, "portrait")))
    stored = []
    forward = run.sampler.passes.forward
    run.sampler.passes.forward = lambda x, timesteps, *rest, **more: (
        stored.append((x, timesteps)), forward(x, timesteps, *rest, **more)
    )[1]  # fmt: skip
    next(run), next(run)
    (first, clean), (second, timesteps) = stored[0], stored[-1]
    assert clean == [0.0] * 3 and all(
        torch.equal(frame, run.sampler.passes.reference) for frame in first.split(1, dim=2)
    )
    assert timesteps == [1000 * mci.context_noise] * 3
    assert not any(torch.equal(frame, run.sampler.passes.reference) for frame in second.split(1, dim=2))


def test_portrait_sinks_cache_the_portrait(make_stream):
    run = StreamRun(make_stream(urcr=UrcrSettings("rotate", 3, 3, "portrait")))
    stored = []
    forward = run.sampler.passes.forward
    run.sampler.passes.forward = lambda x, *rest, **more: (stored.append(x), forward(x, *rest, **more))[1]
    next(run), next(run)
    assert all(torch.equal(frame, run.sampler.passes.reference) for frame in stored[0].split(1, dim=2))
    assert torch.equal(stored[1], run.sampler.past[-1].latents)


def test_a_block_that_is_stopped_at_a_reset_is_still_marked_as_one(make_stream):
    stops = {"at": None}

    def on_step(block, step, steps):
        if block == stops["at"]:
            stops["at"] = None
            raise KeyboardInterrupt

    urcr = UrcrSettings("rotate", 3, 3, "first")
    expected = [block.reset for block in itertools.islice(StreamRun(make_stream(urcr=urcr)), 8)]
    stops["at"] = expected.index(True)
    run, found = StreamRun(make_stream(urcr=urcr, on_step=on_step)), []
    while len(found) < len(expected):
        with contextlib.suppress(KeyboardInterrupt):
            found.append(next(run).reset)
    assert stops["at"] is None and found == expected


def test_plain_slides_a_window_at_true_positions(make_stream):
    run = StreamRun(make_stream(urcr=SLIDING_WINDOW))
    blocks = list(itertools.islice(run, 9))
    assert blocks[-1].max_position == 26
    assert sorted(run.cache.frame_ids) == sorted(run.cache.positions) == list(range(12, 27))


@pytest.mark.parametrize(
    "urcr",
    [
        UrcrSettings(sinks=4), UrcrSettings(recent=4), UrcrSettings(sinks=6, recent=9), UrcrSettings(recent=9),
        UrcrSettings("window", window=5, sinks=3), UrcrSettings("window", window=0), UrcrSettings("window", sinks=1),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_checkpoint_is_refused(make_stream, urcr):
    with pytest.raises(AvatarError):
        make_stream(urcr=urcr)


@pytest.mark.parametrize(
    "values", [{"mode": "x"}, {"sinks": -3}, {"recent": 10**9}, {"sink_source": "x"}, {"window": -1}]
)
def test_nonsense_is_refused_in_one_sentence(values):
    with pytest.raises(AvatarError, match="URCR"):
        UrcrSettings(**values)


def test_more_injected_frames_than_are_kept_are_refused(make_stream):
    with pytest.raises(AvatarError, match="keeps only 3"):
        make_stream(mci=MciSettings("inject", 4, 0.25), urcr=UrcrSettings(recent=3))


def test_a_checkpoint_without_portrait_takes_no_portrait_sinks():
    config = dataclasses.replace(MINIATURE, in_channels=16, audio_dim=0)
    with pytest.raises(AvatarError, match="takes none"):
        AvatarStream(build_model(config), latent_size=(4, 4), urcr=UrcrSettings())
    stream = AvatarStream(build_model(config), latent_size=(4, 4), urcr=UrcrSettings(sink_source="first"))
    assert len(latents(stream, 8)) == 8


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("trained", [1, 3, 6, 12, 13, 21, 100])
@pytest.mark.parametrize("channels", [16, 33])
def test_presets_fit_every_checkpoint(block, trained, channels):
    config = dataclasses.replace(
        MINIATURE, block_frames=block, trained_positions=trained, in_channels=channels, preset={"urcr": {}}
    )
    for name in ("joyavatar", "checkpoint", "plain"):
        chosen = preset(name, config)
        if trained >= block:
            chosen.urcr.check(config, chosen.mci)
    chosen = preset("checkpoint", dataclasses.replace(config, preset={}))
    assert chosen.urcr.mode == "window" or chosen.urcr.sink_source == "first"


def test_a_window_is_plain_and_its_length_belongs_to_it():
    assert parse_settings("window,window=15", UrcrSettings()) == dataclasses.replace(SLIDING_WINDOW, window=15)
    assert parse_settings("window", UrcrSettings()) == SLIDING_WINDOW
    assert parse_settings("prefill", UrcrSettings()) == UrcrSettings("prefill")
    for text in ("rotate,window=15", "rotate,off", "sinks=x", "colour=3"):
        with pytest.raises(AvatarError, match="URCR"):
            parse_settings(text, UrcrSettings())


def test_off_the_old_name_of_window_is_accepted_wherever_it_may_stand(make_stream):
    assert UrcrSettings("off", 3, 6, "first", 12) == UrcrSettings("window", 3, 6, "first", 12)  # a node's inputs
    assert parse_settings("off,window=15", UrcrSettings()) == parse_settings("window,window=15", UrcrSettings())
    recommended = dataclasses.replace(MINIATURE, preset={"urcr": {"mode": "off", "window": 12}})
    assert preset("checkpoint", recommended).urcr.mode == "window"
    run = StreamRun(make_stream(urcr=SLIDING_WINDOW))
    next(run)
    state = run.state_dict()
    assert state["recipe"]["urcr"]["mode"] == "off"  # the state format keeps its spelling
    resumed = StreamRun(make_stream(urcr=UrcrSettings("off", 0, 0, "first")))
    resumed.load_state_dict(state)
    assert torch.equal(next(resumed).latents, next(run).latents)
