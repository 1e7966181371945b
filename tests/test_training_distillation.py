"""Stage 2: rollouts by the sampler, and a student that is moved towards what its teacher thinks likely."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

pytest.importorskip("skia")

from joyavatar_core.sampling.presets import preset
from joyavatar_core.training.batches import forcing_batch
from joyavatar_core.training.configs import TINY
from joyavatar_core.training.distillation import (
    EXCERPTS,
    DistillRecipe,
    MatchingPasses,
    Pool,
    clean_estimate,
    distil,
    guided,
    matching_losses,
    noised,
    rollouts,
    without_past,
)
from joyavatar_core.training.initial_weights import new_transformer
from joyavatar_core.training.latents import LatentClips
from joyavatar_core.training.loop import LoopSettings
from joyavatar_core.training.parallel import Share
from joyavatar_core.training.teacher_forcing import ForcedPass

SMALL = dataclasses.replace(TINY, dim=32, ffn_dim=64, num_heads=2, num_layers=4, audio_hidden=8)
EXCERPTS = dataclasses.replace(EXCERPTS, blocks=3, batch=2)
RECIPE = DistillRecipe(pool=2, pool_steps=4, critic_steps=2, excerpts=EXCERPTS)


def draw(batch: int, salt: int = 0) -> list[torch.Generator]:
    return Share().generators(0, 0, batch, salt)


def losses_of(pair, teacher, recipe, *inputs):
    return matching_losses(MatchingPasses.of(pair, teacher, recipe, 3), recipe, *inputs)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    model = new_transformer(SMALL)
    nn.init.normal_(model.head.head.weight, std=0.1)
    return model.requires_grad_(False)


@pytest.fixture
def clips() -> LatentClips:
    torch.manual_seed(1)
    boxes = torch.tensor([1.0, 2, 3, 4]).expand(2, 20, 4)
    return LatentClips(torch.randn(2, 16, 20, 4, 4).bfloat16(), torch.randn(2, 20, 4, 8), boxes)


@pytest.fixture
def batch(clips, teacher):
    return forcing_batch(clips, EXCERPTS, ForcedPass(teacher, EXCERPTS.layout(3)).layout, draw(2))


def test_rollouts_are_what_the_sampler_makes(teacher, clips):
    made = rollouts(teacher, clips, preset("checkpoint", SMALL), draw(2))
    assert made.latents.shape == (2, 16, 18, 4, 4)  # whole blocks: 20 frames hold 18
    assert made.features.shape[1] == made.boxes.shape[1] == 18
    starts = {tuple(clip[:, 0].flatten().tolist()) for clip in clips.latents}
    assert all(tuple(clip[:, 0].flatten().tolist()) in starts for clip in made.latents)  # begin with the portrait
    assert not torch.equal(made.latents[0, :, 1:], made.latents[1, :, 1:])


@pytest.mark.parametrize("together", [2, 3])
def test_rollouts_of_a_batch_are_those_that_are_made_one_by_one(teacher, clips, together):
    settings = preset("checkpoint", SMALL)
    alone = rollouts(teacher, clips, settings, draw(3))
    made = rollouts(teacher, clips, settings, draw(3), together)
    assert torch.equal(made.features, alone.features)
    torch.testing.assert_close(made.latents, alone.latents, atol=2e-2, rtol=1e-2)  # they are kept in bfloat16
    assert (made.latents == alone.latents).float().mean() > 0.99


def test_given_frames_stay(teacher, batch):
    one = ForcedPass(teacher, EXCERPTS.layout(3))
    assert batch.conditioning[:, :, 0].all()
    assert not batch.conditioning[:, :, 1:].any()
    assert torch.equal(clean_estimate(one, batch)[:, :, 0], batch.blocks[:, :, 0])
    other = noised(batch, torch.zeros_like(batch.blocks), torch.tensor([0.5, 0.25]))
    assert torch.equal(other.blocks[:, :, 0], batch.blocks[:, :, 0])
    assert (other.blocks[:, :, 1:] == 0).all()
    assert (other.timesteps[0, -batch.count :] == 500).all()
    assert torch.equal(other.timesteps[:, : -batch.count], batch.timesteps[:, : -batch.count])


def test_no_guidance_is_the_teacher_itself(teacher, batch):
    one = ForcedPass(teacher, EXCERPTS.layout(3))
    assert torch.equal(guided(one, batch, 1), clean_estimate(one, batch))
    assert not torch.allclose(guided(one, batch, 3), clean_estimate(one, batch))


def test_a_student_that_is_its_teacher_need_not_move(teacher, batch):
    pair = nn.ModuleDict({"student": copy.deepcopy(teacher), "critic": copy.deepcopy(teacher)}).requires_grad_(True)
    noise, u = torch.randn_like(batch.target), torch.tensor([0.3, 0.7])
    recipe = dataclasses.replace(RECIPE, guidance=1.0)
    same = losses_of(pair, teacher, recipe, batch, noise, u, True)
    assert same["matching"] < 1e-8
    with torch.no_grad():
        pair["critic"].head.head.weight += 0.05
    assert losses_of(pair, teacher, recipe, batch, noise, u, True)["matching"] > 1e-4


def test_only_the_one_whose_turn_it_is_moves(teacher, batch):
    pair = nn.ModuleDict({"student": copy.deepcopy(teacher), "critic": copy.deepcopy(teacher)}).requires_grad_(True)
    noise, u = torch.randn_like(batch.target), torch.tensor([0.3, 0.7])
    losses_of(pair, teacher, RECIPE, batch, noise, u, False)["loss"].backward()
    assert all(parameter.grad is None for parameter in pair["student"].parameters())
    assert any(parameter.grad is not None for parameter in pair["critic"].parameters())
    losses_of(pair, teacher, RECIPE, batch, noise, u, True)["loss"].backward()
    assert any(parameter.grad is not None for parameter in pair["student"].parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_student_moves_towards_the_teacher(teacher, batch):
    pair = nn.ModuleDict({"student": copy.deepcopy(teacher), "critic": copy.deepcopy(teacher)}).requires_grad_(True)
    noise, u = torch.randn_like(batch.target), torch.tensor([0.3, 0.7])
    with torch.no_grad():
        pair["critic"].head.head.bias += 0.1  # it thinks that the student makes less than the teacher would
    recipe = dataclasses.replace(RECIPE, guidance=1.0)
    losses_of(pair, teacher, recipe, batch, noise, u, True)["matching"].backward()
    assert (pair["student"].head.head.bias.grad > 0).all()  # less flow: more picture


def test_distilling_resumes_and_changes_the_student(teacher, clips, tmp_path, monkeypatch):
    steps, before = [], copy.deepcopy(teacher.state_dict())
    make = Pool.at
    monkeypatch.setattr(Pool, "at", lambda self, step, *more: steps.append(step) or make(self, step, *more))
    distil(copy.deepcopy(teacher), teacher, clips, LoopSettings(tmp_path, steps=2, warmup=1), RECIPE)
    after = distil(copy.deepcopy(teacher), teacher, clips, LoopSettings(tmp_path, steps=4, warmup=1), RECIPE)
    assert steps == [0, 1, 2, 3]
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_judges_that_are_not_causal_see_the_blocks_alone(teacher, batch):
    pair = nn.ModuleDict({"student": copy.deepcopy(teacher), "critic": copy.deepcopy(teacher)}).requires_grad_(True)
    noise, u = torch.randn_like(batch.target), torch.tensor([0.3, 0.7])
    recipe = dataclasses.replace(RECIPE, guidance=1.0, bidirectional_scores=True)
    before = losses_of(pair, teacher, recipe, batch, noise, u, False)["critic"]
    same = losses_of(pair, teacher, recipe, batch, noise, u, True)
    assert same["matching"] < 1e-8  # the judges agree, whatever the student makes
    assert torch.equal(same["critic"], before)
    alone = without_past(batch)
    assert alone.latents.shape[2] == batch.count
    assert torch.equal(alone.blocks, batch.blocks)


def test_compiled_passes_are_those_that_are_not(teacher, batch, monkeypatch):
    """Dynamo without a compiler behind it: what it cannot trace in one piece would fail."""
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, dynamic: compile_(model, backend="eager", dynamic=dynamic, fullgraph=True)
    )
    pair = nn.ModuleDict({"student": copy.deepcopy(teacher), "critic": copy.deepcopy(teacher)}).requires_grad_(True)
    noise, u = torch.randn_like(batch.target), torch.tensor([0.3, 0.7])
    found = []
    for compiled in (False, True):
        passes = MatchingPasses.of(pair, teacher, RECIPE, 3, compiled)
        losses = matching_losses(passes, RECIPE, batch, noise, u, True)
        losses["loss"].backward()
        found.append(
            (losses, [parameter.grad.clone() for parameter in pair.parameters() if parameter.grad is not None])
        )
        pair.zero_grad()
    (eager, gradients), (traced, others) = found
    torch.testing.assert_close(traced, eager)
    torch.testing.assert_close(others, gradients)
