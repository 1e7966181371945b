"""The rolling schedule: AvatarForcing's numbers, what it remembers, how it ends, and what it refuses.

tests/golden/avatarforcing.safetensors holds what AvatarForcing's own model and loop produced on the CPU: 6 blocks in
float32 with the steps it runs with (out, some passes' flows, its cache), the same with the steps that its default
configuration means (unwarped.out), and in bfloat16 (bfloat16.out). Weights and inputs are `seeded`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from joyavatar_core.audio import FixedFeatures
from joyavatar_core.audio.clock import block_of_latent, block_to_frames, block_to_latents, num_blocks
from joyavatar_core.checkpoints.families import AVATARFORCING
from joyavatar_core.cli.live import warm_up
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.recording.snapshot import check_run_state
from joyavatar_core.recording.state import DamagedError, read_state, write_state
from joyavatar_core.sampling.mci import MciSettings
from joyavatar_core.sampling.presets import parse_settings, preset
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.sampling.urcr import UrcrSettings
from joyavatar_core.vae import random_weights_vae

from .test_parity import AVATAR, Recording, SeededNoise, assert_near, portrait, relative_rms, seeded, seeded_weights

GOLDEN = load_file(Path(__file__).parent / "golden" / "avatarforcing.safetensors")
CONFIG = dataclasses.replace(AVATAR, **AVATARFORCING.behaviour)
# timesteps 1000, 800, 400, 200 with the nearest entries of the schedule of 1000 steps
UNWARPED = ((1000.0, 1.0), (800.0, 0.7997118830680847), (400.0, 0.4008152484893799), (200.0, 0.20134228467941284))
BLOCKS = 6
FRAMES = 16 * BLOCKS + 1
# which of the public loop's passes ours are: the portrait's, four to fill the window, then update and window in turn
THEIRS = [0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]


def make_stream(config=CONFIG, dtype=torch.float32, frames=FRAMES, **fields) -> AvatarStream:
    model = Recording(config)
    model.load_state_dict(seeded_weights({name: tuple(p.shape) for name, p in model.state_dict().items()}))
    model.flows = []
    features = torch.cat([torch.zeros(1, config.audio_dim), seeded("voice", 16 * BLOCKS, config.audio_dim)])
    if frames > FRAMES:
        features = features.repeat(-(-frames // FRAMES), 1)
    settings = preset("rolling", config)
    fields = {"psb": settings.psb, "mci": settings.mci, "urcr": settings.urcr, "noise": SeededNoise()} | fields
    return AvatarStream(
        model.to(dtype), reference=portrait(), text=seeded("prompt", 1, 20, config.text_dim), video_frames=frames,
        audio=FixedFeatures(features, config.fps, config.block_frames, config.lead_frames), **fields,
    )  # fmt: skip


def latents_of(run) -> Tensor:
    return torch.cat([block.latents for block in run], dim=2)


@pytest.fixture(scope="module")
def played():
    stream = make_stream()
    run = StreamRun(stream)
    return stream, run, list(run)


def test_the_latents_equal_the_public_loops(played):
    _, _, blocks = played
    assert_near(torch.cat([block.latents for block in blocks], dim=2), GOLDEN["out"], "out")


def test_every_pass_predicts_the_public_models_flow(played):
    stream, _, _ = played
    assert len(stream.model.flows) == len(THEIRS)
    stored = [index for index in THEIRS if f"call.{index}.v" in GOLDEN]
    assert len(stored) == 6
    for index in stored:
        assert_near(stream.model.flows[THEIRS.index(index)], GOLDEN[f"call.{index}.v"], f"pass {index}")


def test_the_other_value_of_its_doubled_setting_equals_too():
    latents = latents_of(StreamRun(make_stream(dataclasses.replace(CONFIG, levels=UNWARPED))))
    assert_near(latents, GOLDEN["unwarped.out"], "out")
    assert (latents - GOLDEN["out"]).abs().max() > 1  # the two differ


def test_bfloat16_rounds_where_the_public_loop_does():
    exact, theirs = GOLDEN["out"], GOLDEN["bfloat16.out"].float()
    ours = latents_of(StreamRun(make_stream(dtype=torch.bfloat16))).float()
    assert relative_rms(ours - exact, exact) <= 1.2 * relative_rms(theirs - exact, exact)


def test_the_cache_holds_the_public_loops_history(played):
    """Their last cache update: the portrait's key unrotated, two frames of history, the last block."""
    _, run, _ = played
    theirs = GOLDEN["keys.first"][0].flatten(1).unflatten(0, (7, 16))
    order = sorted(range(run.cache.length), key=run.cache.frame_ids.__getitem__)
    ours = run.cache.keys[0, 0].flatten(1).unflatten(0, (-1, 16))[order]
    assert [run.cache.frame_ids[slot] for slot in order] == [0, 19, 20, 21, 22, 23, 24]
    assert_near(ours[1:], theirs[1:], "keys")
    values = run.cache.values[-1, 0].flatten(1).unflatten(0, (-1, 16))[order]
    assert_near(values, GOLDEN["values.last"][0].flatten(1).unflatten(0, (7, 16)), "values")


def test_blocks_have_the_portrait_in_front_and_tile_the_video(played):
    _, _, blocks = played
    assert [block.latents.shape[2] for block in blocks] == [5, 4, 4, 4, 4, 4]
    assert torch.equal(blocks[0].latents[:, :, :1], portrait())
    assert [block.first_frame for block in blocks] == [0, 17, 33, 49, 65, 81]
    assert blocks[-1].last_frame == FRAMES - 1


@pytest.mark.parametrize("lead", [0, 1])
def test_blocks_with_a_lead_tile_the_latents(lead):
    for count in (1, 3, 4):
        spans = [block_to_latents(block, count, lead) for block in range(5)]
        assert [latent for span in spans for latent in span] == list(range(lead + 5 * count))
        assert all(block_of_latent(latent, count, lead) == b for b, span in enumerate(spans) for latent in span)
        for b in range(5):
            frames = block_to_frames(b, count, lead)
            assert num_blocks(frames.stop, count, lead) == b + 1
            assert num_blocks(frames.start + 1, count, lead) == b + 1


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_clip_shorter_than_the_window_goes_through_every_level(blocks):
    """The public loop leaves levels out here. A block's frames do not depend on what is behind a longer window."""
    stream = make_stream(frames=16 * blocks + 1)
    steps = []
    stream = dataclasses.replace(stream, on_step=lambda block, step, of: steps.append((block, step, of)))
    latents = latents_of(StreamRun(stream))
    assert latents.shape[2] == 1 + 4 * blocks and torch.isfinite(latents).all()
    assert steps == [(0, 1, 4), (0, 2, 4), (0, 3, 4), (0, 4, 4), *((b, 1, 1) for b in range(1, blocks))]


def test_urcr_bounds_the_positions_and_changes_nothing_but_the_cache_updates_distance():
    short = dataclasses.replace(CONFIG, trained_positions=22)
    bounded = list(StreamRun(make_stream(short)))
    assert [block.reset for block in bounded] == [False, False, True, False, False, False]  # then fewer are in flight
    assert max(block.max_position for block in bounded) < 22
    plain = list(StreamRun(make_stream(short, urcr=preset("plain", short).urcr)))
    assert max(block.max_position for block in plain) == 24 and not any(block.reset for block in plain)
    # the windows see the same distances, so nothing differs before the first cache update behind a reset is used
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(bounded[:2], plain[:2], strict=True))
    assert (bounded[2].latents - plain[2].latents).abs().max() < 1e-4
    assert 1e-5 < (latents_of(bounded) - latents_of(plain)).abs().max() < 0.3


def test_a_stream_goes_past_the_end_of_the_public_table():
    """1024 positions is where the public loop raises; ours goes on with positions that stay below."""
    run = StreamRun(make_stream(frames=16 * 12 + 1))
    first = next(run)
    run.cache.shift(range(1, run.cache.length), 1000 - run.sampler.cursor)  # as after 250 blocks
    run.sampler.cursor = 1000
    blocks = list(run)
    assert first.max_position == 16 and [block.reset for block in blocks].count(True) == 1
    assert all(block.max_position < 1024 for block in blocks)
    assert all(torch.isfinite(block.latents).all() for block in blocks)


def test_a_run_resumes_bit_for_bit_from_a_file(tmp_path):
    straight = latents_of(StreamRun(make_stream()))
    stream = make_stream()
    run = StreamRun(stream)
    head = [next(run).latents for _ in range(3)]
    write_state(tmp_path / "state", run.state_dict(copy=False))
    state = read_state(tmp_path / "state", 10**8)
    resumed = StreamRun(stream)
    resumed.load_state_dict(state)
    assert torch.equal(torch.cat([*head, latents_of(resumed)], dim=2), straight)


def test_a_run_stopped_inside_a_block_makes_the_same_block_again():
    stop = {"at": 6}

    def on_step(block, step, steps):
        stop["at"] -= 1
        if stop["at"] == 0:
            raise KeyboardInterrupt

    run = StreamRun(make_stream(on_step=on_step))
    found = []
    while len(found) < BLOCKS:
        try:
            found.append(next(run).latents)
        except KeyboardInterrupt:
            continue
    assert torch.equal(torch.cat(found, dim=2), latents_of(StreamRun(make_stream())))


def test_an_interrupt_ends_a_block_early():
    run = StreamRun(make_stream(on_step=lambda *_: run.interrupt.set()))
    with pytest.raises(InterruptedError):
        next(run)
    run.interrupt.clear()
    assert run.sampler.block == 0


def test_states_of_fp8_keys_fit_again_and_again():
    run = StreamRun(make_stream(kv_dtype=torch.float8_e4m3fn))
    for _ in range(3):
        next(run)
        state = run.state_dict()
        check_run_state(run, {}, {"run": state, "decoder": {}})
        run = StreamRun(make_stream(kv_dtype=torch.float8_e4m3fn))
        run.load_state_dict(state)
    with pytest.raises(AvatarError, match=r"made with kv_dtype torch\.float8_e4m3fn and this stream has None"):
        StreamRun(make_stream()).load_state_dict(state)


def test_a_live_stream_is_warmed_up():
    stream = dataclasses.replace(make_stream(), audio=None)
    silent = SimpleNamespace(stream=stream, avatar=SimpleNamespace(decoder=random_weights_vae()), refine=None)
    warm_up(silent)


def test_heal_forgets_all_but_the_portrait():
    run = StreamRun(make_stream())
    for _ in range(3):
        next(run)
    run.reset(0)
    assert run.cache.frame_ids == [0] and run.sampler.cursor == 1
    block = next(run)
    assert block.reset and torch.isfinite(block.latents).all()
    with pytest.raises(AvatarError, match="give a multiple"):
        run.reset(2)


def test_a_new_voice_is_heard_by_the_blocks_in_flight():
    stream = make_stream()
    run = StreamRun(stream)
    next(run)
    changed = FixedFeatures(stream.audio.features * 0, CONFIG.fps, 4, 1)
    run.update(audio=changed)
    assert not torch.equal(next(run).latents, make_block(stream, 1))


def make_block(stream: AvatarStream, index: int) -> Tensor:
    run = StreamRun(stream)
    return [next(run) for _ in range(index + 1)][index].latents


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"psb": PsbSettings()}, "every block takes one step in each of 4 passes.*switch it off"),
        ({"psb": PsbSettings(steps=(8, 4))}, "every block takes one step in each of 4 passes.*switch it off"),
        ({"mci": MciSettings()}, "already sees noisy neighbours.*switch it off"),
        ({"mci": MciSettings("context")}, "already sees noisy neighbours.*switch it off"),
        ({"urcr": UrcrSettings("prefill", sinks=1, recent=2)}, "'rotate' or 'window'"),
        ({"urcr": UrcrSettings("rotate", sinks=4, recent=2)}, "window's sink is the portrait's frame"),
        ({"urcr": UrcrSettings("rotate", sinks=1, recent=5)}, "keep at most 4"),
    ],
)
def test_what_a_rolling_window_cannot_do_is_refused(fields, found):
    with pytest.raises(AvatarError, match=found):
        make_stream(**fields)


def test_the_presets_of_a_rolling_checkpoint():
    rolling = preset("rolling", CONFIG)
    assert rolling == preset("checkpoint", CONFIG)
    assert (rolling.urcr.sinks, rolling.urcr.recent, rolling.urcr.mode) == (1, 2, "rotate")
    assert preset("plain", CONFIG).urcr == dataclasses.replace(rolling.urcr, mode="window")
    assert parse_settings("window", rolling.urcr, preset("plain", CONFIG).urcr).recent == 2
    with pytest.raises(AvatarError, match="trained with a rolling window"):
        preset("rolling", AVATAR)
    levels = tuple((1000.0 - 100 * k, 1 - k / 10) for k in range(6))
    longer = dataclasses.replace(CONFIG, levels=levels)
    preset("realtime", longer).psb.check(longer)  # a rolling window has as many passes as levels


def test_the_sampler_is_kept_in_a_checkpoints_metadata():
    assert json.loads(CONFIG.metadata()["joyavatar"])["sampler"] == "rolling"
    assert dataclasses.replace(CONFIG, sampler="blocks").with_metadata(CONFIG.metadata()) == CONFIG
    with pytest.raises(AvatarError, match="sampler is 'loop'"):
        dataclasses.replace(CONFIG, sampler="loop")


def test_the_memory_is_what_is_allocated(played):
    stream, run, _ = played
    assert run.cache.nbytes == stream.cache_bytes
    assert run.cache.slots == 1 + 2 + 16


def test_a_plain_transformer_gives_the_same():
    """The cache update that stops at the last keys, as streams do it."""
    stream = make_stream()
    recorded = latents_of(StreamRun(stream))
    stream.model.__class__ = AvatarTransformer
    assert torch.equal(latents_of(StreamRun(stream)), recorded)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.update(sink=state["sink"][:1]),
        lambda state: state.update(sink=None),
        lambda state: state.update(sink=state["sink"].double()),
        lambda state: state["window"][0].update(latents=state["window"][0]["latents"][..., :2]),
        lambda state: state["window"][0].update(step=9),
        lambda state: state["window"][0].update(index=0),
        lambda state: state.update(window=state["window"] * 2),
    ],
)
def test_a_recorded_state_whose_window_does_not_fit_is_told_before_it_is_used(damage):
    run = StreamRun(make_stream())
    for _ in range(2):
        next(run)
    state = run.state_dict()
    check_run_state(run, {}, {"run": state, "decoder": {}})
    damage(state)
    with pytest.raises(DamagedError, match="its tensors do not fit this run"):
        check_run_state(run, {}, {"run": state, "decoder": {}})
