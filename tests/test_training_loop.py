"""The training loop, the losses and the teacher-forced layouts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

pytest.importorskip("skia")

from joyavatar_core.checkpoints import save_checkpoint
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.transformer import SelfContext
from joyavatar_core.training.batches import forcing_batch
from joyavatar_core.training.configs import TINY
from joyavatar_core.training.initial_weights import new_transformer, start_from
from joyavatar_core.training.latents import LatentClips
from joyavatar_core.training.layout import COPY, PAST, TARGET, Layout
from joyavatar_core.training.loop import LoopSettings, Trainer
from joyavatar_core.training.losses import box_weight, flow_loss, reconstruction_losses
from joyavatar_core.training.parallel import Share
from joyavatar_core.training.steps_ahead import StepsAhead
from joyavatar_core.training.teacher_forcing import ForcedPass, ForcingRecipe, guided_target
from joyavatar_core.training.vae_start import start_linear
from joyavatar_core.training.vae_training import fold_statistics
from joyavatar_core.vae import StreamingVAE
from joyavatar_core.vae.wan import WAN_MEAN, WAN_STD

SMALL = dataclasses.replace(TINY, dim=32, ffn_dim=64, num_heads=2, num_layers=4, audio_hidden=8)


class Killed(Exception):
    pass


def regression(model: nn.Module, die_at: int | None = None):
    def loss(step: int, draw) -> dict[str, torch.Tensor]:
        if step == die_at:
            raise Killed
        x = torch.stack([torch.randn(4, generator=generator) for generator in draw(16)])
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    return loss


def first_draw(batch: int) -> list[torch.Generator]:
    return Share().generators(seed=0, step=0, batch=batch)


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    def train(folder, die_at=None):
        model = new_model()
        trainer = Trainer(model, LoopSettings(folder, steps=12, warmup=2))
        trainer.run(regression(model, die_at))
        return trainer.ema

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", die_at=7)
    resumed = train(tmp_path / "killed")
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name])


def test_a_run_that_began_elsewhere_is_refused(tmp_path):
    Trainer(new_model(), LoopSettings(tmp_path, steps=1)).run(regression(new_model()))
    with pytest.raises(AvatarError, match="began from nothing, not from other"):
        Trainer(new_model(), LoopSettings(tmp_path, steps=1, origin="other.safetensors"))


def test_training_lowers_the_loss(tmp_path):
    model = new_model()
    before = regression(model)(99, first_draw)["loss"]
    Trainer(model, LoopSettings(tmp_path, steps=60, warmup=2, learning_rate=1e-2)).run(regression(model))
    assert regression(model)(99, first_draw)["loss"] < 0.5 * before


def test_the_learning_rate_rises_and_falls(tmp_path):
    trainer = Trainer(new_model(), LoopSettings(tmp_path, steps=100, warmup=10, learning_rate=1.0))
    rates = []
    for trainer.step in range(100):
        rates.append(trainer.rate)
    assert max(rates) == rates[9]
    assert rates[0] < 0.2
    assert rates[-1] < 0.05


def test_who_sees_whom_is_what_the_sampler_does():
    layout = Layout.of(blocks=3, size=3, copies=3)
    past, copies, targets = (layout.of_kind(kind) for kind in (PAST, COPY, TARGET))
    assert [s.frames for s in past] == [(0, 1, 2), (3, 4, 5)]
    assert [s.frames for s in copies] == [(1, 2), (3, 4, 5)]  # frame 0 is given: never copied
    kinds = [[layout.segments[k] for k in target.visible] for target in targets]
    assert kinds[0] == [targets[0]]
    assert kinds[1] == [past[0], copies[0], targets[1]]
    assert kinds[2] == [past[0], past[1], copies[1], targets[2]]


@pytest.mark.parametrize("copies", [0, 3])
def test_segment_attention_equals_the_dense_mask(copies):
    torch.manual_seed(0)
    layout = Layout.of(blocks=3, size=3, copies=copies)
    tokens = 4
    q, k, v = (torch.randn(2, len(layout.frames) * tokens, 2, 8) for _ in range(3))
    dense = nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=layout.mask(tokens)
    ).transpose(1, 2)
    torch.testing.assert_close(layout.attention(tokens)(q, k, v), dense)


def test_batches_made_ahead_are_the_steps_own():
    made = []
    with StepsAhead(lambda step: made.append(step) or step**2, 3) as batches:
        assert [batches(step) for step in range(4, 9)] == [16, 25, 36, 49, 64]
    assert set(made) >= set(range(4, 9)) and max(made) <= 11 and len(made) == len(set(made))
    with StepsAhead(lambda step: made.append(-step), 0) as batches:
        batches(5)
    assert made[-1] == -5
    with StepsAhead(lambda step: 1 // (step - 2), 2) as batches:
        assert batches(1) == -1
        with pytest.raises(ZeroDivisionError):
            batches(2)


def small_batch(copies: int):
    torch.manual_seed(0)
    clips = LatentClips(
        torch.randn(2, 16, 12, 4, 4).bfloat16(),
        torch.randn(2, 12, 4, 8),
        torch.tensor([1.0, 2, 3, 4]).expand(2, 12, 4),
    )
    recipe = ForcingRecipe(blocks=3, batch=2, copies=copies, clean=1.0)
    model = new_transformer(SMALL)
    nn.init.normal_(model.head.head.weight, std=0.1)
    one = ForcedPass(model, recipe.layout(copies))
    return model, one, forcing_batch(clips, recipe, one.layout, first_draw(2))


@torch.no_grad()
def test_one_forced_pass_equals_the_cache_block_by_block():
    model, one, batch = small_batch(copies=3)
    flow = one(batch.latents, batch.timesteps, batch.features)
    text = model.encode_text(one.text.expand(2, -1, -1))
    cache = KVCache(SMALL.num_layers, 2, 12, 4, SMALL.num_heads, SMALL.head_dim)

    def run(segment, slot, cache_only=False):
        part = slice(segment.start, segment.stop)
        context = SelfContext(model.rope(segment.frames, 4, 4), cache, slot)
        audio = model.project_audio(model.encode_audio(batch.features[:, part]))
        return model(batch.latents[:, :, part], batch.timesteps[:, part], text, audio, context, cache_only)

    for block, target in enumerate(one.layout.of_kind(TARGET)):
        overlay = 0
        for copy in (s for s in one.layout.of_kind(COPY) if s.block == block):
            run(copy, cache.length, cache_only=True)
            overlay = len(copy.frames)
        start = target.start - one.first_target
        expected = run(target, cache.length + overlay)
        torch.testing.assert_close(flow[:, :, start : start + 3], expected, atol=2e-5, rtol=1e-4)
        if block < 2:
            past = one.layout.of_kind(PAST)[block]
            run(past, cache.length, cache_only=True)
            cache.commit(past.frames, past.frames)


def test_a_close_up_is_cut_between_tokens_around_mouth_and_eyes():
    clips = LatentClips(
        torch.arange(16.0 * 16).view(1, 1, 1, 16, 16).expand(1, 16, 9, 16, 16),  # every cell tells its place
        torch.randn(1, 9, 4, 8),
        torch.tensor([6.0, 9, 10, 12]).expand(1, 9, 4),
    )
    recipe = ForcingRecipe(blocks=3, clean=1.0, mouth_weight=8, eyes_weight=4)
    layout = recipe.layout(0)
    corners = set()
    for seed in range(20):
        batch = forcing_batch(clips, recipe, layout, [torch.Generator().manual_seed(seed)], cells=8)
        assert batch.latents.shape[-2:] == (8, 8)
        top, left = divmod(int(batch.latents[0, 16, 0, 0, 0]), 16)
        for weight, (first, last) in {8: ([9, 6], [11, 9]), 4: ([7, 5], [8, 10])}.items():
            found = (batch.weight[0, 0, 1] == weight).nonzero() + torch.tensor([top, left])
            assert found.amin(0).tolist() == [max(first[0], top), max(first[1], left)]
            assert found.amax(0).tolist() == [min(last[0], top + 7), min(last[1], left + 7)]
        corners.add((top, left))
    assert len(corners) > 2 and all(top % 2 == left % 2 == 0 for top, left in corners)


def test_given_frames_stay_clean_and_cost_nothing():
    _, one, batch = small_batch(copies=3)
    first = one.first_target
    assert (batch.weight[:, :, 0] == 0).all()
    assert (batch.weight[:, :, 1:] > 0).all()
    assert torch.equal(batch.latents[:, :16, first], batch.latents[:, 16:32, first])
    assert (batch.latents[:, 32, first] == 0).all()
    assert (batch.latents[:, 32, first + 1 :] == 1).all()


def test_a_step_lowers_the_flow_loss():
    model, one, batch = small_batch(copies=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = flow_loss(one(batch.latents, batch.timesteps, batch.features), batch.target, batch.weight)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("guidance", [1.0, 1.5, 4.0])
def test_guidance_comes_to_rest_where_the_voice_does_so_much_more(guidance):
    data, silent = torch.randn(5), torch.randn(5)
    guided = silent + guidance * (data - silent)
    torch.testing.assert_close(guided_target(data, guided, silent, guidance), guided)


def test_a_start_that_heard_otherwise_keeps_all_but_its_ears(tmp_path):
    log_mel = dataclasses.replace(SMALL, audio_dim=64, audio_features="log-mel")
    old = new_transformer(log_mel).state_dict()
    save_checkpoint(tmp_path / "old.safetensors", old, log_mel)
    state = start_from(tmp_path / "old.safetensors", SMALL)
    assert state["audio_proj.proj.weight"].shape == (8, 4 * 8)
    assert all(torch.equal(state[name], old[name]) for name in old if not name.startswith("audio_proj."))


def test_a_picture_too_soft_or_too_still_costs_more_than_its_error():
    torch.manual_seed(0)
    target, weight = torch.randn(1, 3, 5, 16, 16), torch.ones(1, 1, 5, 16, 16)
    moved = target.roll(1, -1)  # as lively and as sharp, in another place
    still = torch.zeros_like(target)
    for name in ("texture", "lively"):
        lost, kept = (reconstruction_losses(video, target, weight)[name] for video in (still, moved))
        assert lost > 3 * kept
    assert reconstruction_losses(target, target, weight)["reconstruction"] == 0


def test_the_mouth_weighs_more():
    weight = box_weight(torch.tensor([[2.0, 1, 4, 3]]), 6, 8, inside=5.0)
    assert weight.shape == (1, 6, 8)
    assert (weight[0, 1:3, 2:4] == 5).all()
    assert weight.sum() == 48 + 4 * 4


@torch.no_grad()
def test_folding_the_statistics_changes_the_latents_and_not_the_pictures():
    torch.manual_seed(0)
    plain = StreamingVAE(4, mean=(0.0,) * 16, std=(1.0,) * 16).eval()
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    mean, std = torch.randn(16) * 0.1, torch.rand(16) + 0.5
    scales = torch.linspace(0.5, 1.5, 16)
    folded = fold_statistics(plain, mean, std, scales)
    shape = (1, 16, 1, 1, 1)
    normal = scales.view(shape) * (plain.encode(video) - mean.view(shape)) / std.view(shape)
    torch.testing.assert_close(folded.encode(video), normal, atol=1e-4, rtol=1e-4)
    raw = normal * torch.tensor(WAN_STD).view(shape) + torch.tensor(WAN_MEAN).view(shape)
    torch.testing.assert_close(folded.encode_moments(video)[0], raw, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        folded.decode(folded.encode(video)), plain.decode(plain.encode(video)), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_new_vae_is_already_a_codec():
    torch.manual_seed(0)
    rows, columns = torch.arange(32) / 8, torch.arange(32) / 8
    waves = [torch.sin(rows[:, None] * a + columns * b + c) for a, b, c in torch.rand(24, 3)]
    video = torch.stack(waves).unflatten(0, (8, 3))[:, :, None] + torch.linspace(0, 0.3, 9)[:, None, None]
    video = 0.6 * video
    vae = StreamingVAE(8, mean=(0.0,) * 16, std=(1.0,) * 16).eval()
    start_linear(vae, video, logvar=-6.0)
    error = (vae.decode(vae.encode(video)) - video).square().mean()
    assert error < 0.1 * video.var()
