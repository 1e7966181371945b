"""Self-rollouts over clips, and what training makes of their errors."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, multiprocessing, nn

pytest.importorskip("skia")

from joyavatar_core.distributed.process_group import end_process_group
from joyavatar_core.sampling.flow import add_noise
from joyavatar_core.sampling.noise import INITIAL, NoiseSource
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.training.batches import forcing_batch
from joyavatar_core.training.configs import TINY
from joyavatar_core.training.initial_weights import new_transformer
from joyavatar_core.training.latents import LatentClips
from joyavatar_core.training.layout import COPY, PAST, TARGET
from joyavatar_core.training.loop import LoopSettings
from joyavatar_core.training.parallel import Share
from joyavatar_core.training.self_rollouts import RolloutBatch, SelfRollouts, stream_from_clip
from joyavatar_core.training.teacher_forcing import ForcingRecipe, train_forcing

SMALL = dataclasses.replace(TINY, dim=32, ffn_dim=64, num_heads=2, num_layers=4, audio_hidden=8)
RECIPE = ForcingRecipe(blocks=3, batch=2, clean=1.0, still=0.0, joined=0.0, trained_levels=0.0)


def draw(batch: int, salt: int = 0, step: int = 0) -> list[torch.Generator]:
    return Share().generators(0, step, batch, salt)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = new_transformer(SMALL)
    nn.init.normal_(model.head.head.weight, std=0.1)
    return model


@pytest.fixture
def clips() -> LatentClips:
    torch.manual_seed(1)
    boxes = torch.tensor([1.0, 2, 3, 4]).expand(2, 14, 4)
    return LatentClips(torch.randn(2, 16, 14, 4, 4).bfloat16(), torch.randn(2, 14, 4, 8), boxes)


@torch.no_grad()
def test_blocks_start_from_the_clip_at_the_first_level_that_is_left(model, clips):
    order = [*range(12), 3, 4, 5]
    run = StreamRun(stream_from_clip(model, clips.latents[0], clips.features[0], order, seed=7, with_mci=False))
    assert run.stream.config.levels == model.config.levels[1:] and run.stream.model is model
    steps = [block.steps for block in run]
    assert steps == [len(model.config.levels) - 1] * 5  # the stream ends with the clip's latents
    sigma, shape = model.config.levels[1][1], (1, 16, 3, 4, 4)
    sampler = run.sampler
    for block, frames in ((1, [3, 4, 5]), (4, [3, 4, 5])):
        expected = add_noise(
            clips.latents[0][None, :, frames].float(), NoiseSource(7).draw(INITIAL, block, 0, shape), sigma
        )
        assert torch.equal(sampler._initial(block, run.stream.config.levels[0]), expected)


@torch.no_grad()
def test_a_self_rollout_goes_over_its_clip_again_and_its_errors_change(model, clips):
    one = RolloutBatch(model, clips, draw(2), rounds=3, with_mci=True)
    assert one.order[:15] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 3, 4, 5]  # whole blocks: 14 frames hold 12
    seen = []
    while not one.over:
        one.advance()
        seen.append(one.errors.clone())
    assert len(seen) == len(one.order) // 3 == 10
    assert not seen[-1][:, :, :3].any() and not seen[-1][:, :, 12:].any()  # what comes first is the clip's own
    assert seen[3][:, :, 3:12].any()
    assert not torch.equal(seen[3][:, :, 3:6], seen[4][:, :, 3:6])  # the second round is another
    assert torch.equal(seen[3][:, :, 6:], seen[4][:, :, 6:])


@pytest.mark.parametrize("with_mci", [True, False])
@torch.no_grad()
def test_rollouts_of_a_batch_are_those_that_are_made_one_by_one(model, clips, with_mci):
    """Three rounds, which is past the first reset of the cache."""
    clips = dataclasses.replace(clips, latents=clips.latents.float())
    together = RolloutBatch(model, clips, draw(3), rounds=3, with_mci=with_mci)
    alone = [RolloutBatch(model, clips, [one], rounds=3, with_mci=with_mci) for one in draw(3)]
    assert together.clips == [clip for one in alone for clip in one.clips]
    while not together.over:
        for one in (together, *alone):
            one.advance()
        torch.testing.assert_close(together.errors, torch.cat([one.errors for one in alone]), atol=2e-5, rtol=1e-5)
    assert all(one.over for one in alone) and together.errors[:, :, 3:12].abs().mean() > 1e-2
    assert not torch.equal(together.errors[0], together.errors[1])


def test_batches_of_self_rollouts_take_turns_and_give_way_when_they_are_over(model, clips):
    several = SelfRollouts(model, clips, 3, together=2)
    for step in range(5):
        several.advance(step, lambda batch, salt, step=step: draw(batch, salt, step))
    assert several.sizes == [2, 1] and len(several) == 3
    assert [one.run.block for one in several.running.values()] == [3, 2]
    clip_and_error = [(one.clip, one.error) for one in several]
    assert all(torch.equal(error, several.running[0].errors[k]) for k, (_, error) in enumerate(clip_and_error[:2]))
    first = several.running[0]
    first.order = first.order[:9]  # so that it is over
    several.advance(6, draw)
    assert several.running[0] is not first and several.running[0].run.block == 1
    assert torch.is_grad_enabled() and all(weight.requires_grad for weight in model.parameters())


def test_all_processes_make_the_same_passes(model, clips):
    """With sharded weights every pass gathers them, so rounds and MCI must not depend on the process."""
    shapes = []
    for rank in range(2):
        several = SelfRollouts(model, clips, 4)
        for step in range(4):
            several.advance(
                step, lambda batch, salt, step=step, rank=rank: Share(rank, 2).generators(0, step, batch, salt), 2
            )
        shapes.append([(len(one.order), one.run.stream.mci) for one in several.running.values()])
    assert shapes[0] == shapes[1] and len(set(map(str, shapes[0]))) > 1


def with_and_without(clips: LatentClips, error: torch.Tensor, cells: int | None = None):
    layout = RECIPE.layout(3)
    batches = [
        forcing_batch(clips, RECIPE, layout, draw(2), cells, self_rollouts)
        for self_rollouts in ([SimpleNamespace(clip=0, error=0 * error)], [SimpleNamespace(clip=0, error=error)])
    ]
    return layout, *batches


def test_a_past_has_its_errors_and_the_block_behind_it_takes_them_back(clips):
    error = torch.zeros(16, 14, 4, 4)
    error[:, 3:] = 1.0
    layout, right, wrong = with_and_without(clips, error)
    strength = 1 - right.timesteps[:, None, :, None, None] / 1000
    difference = ((wrong.latents - right.latents)[:, :16] / strength.clamp_min(1e-3)).mean((0, 1, 3, 4))
    for segment in layout.segments:
        shown = difference[segment.start : segment.stop]
        late = segment.block > (1 if segment.kind in (COPY, TARGET) else 0)
        expected = [0.75, 0.5, 0.25] if segment.kind == TARGET else [1.0, 1.0, 1.0]
        expected = expected if late else [0.0] * len(segment.frames)
        torch.testing.assert_close(shown, torch.tensor(expected), atol=1e-3, rtol=1e-3)
    taken_back = (right.target - wrong.target).mean((0, 1, 3, 4))
    torch.testing.assert_close(taken_back, torch.tensor([0.0] * 6 + [0.75, 0.5, 0.25]), atol=1e-4, rtol=1e-4)
    assert {segment.kind for segment in layout.segments} == {PAST, COPY, TARGET}


def test_a_close_up_has_the_errors_of_its_place(clips):
    wide = dataclasses.replace(clips, latents=clips.latents.repeat(1, 1, 1, 4, 4))
    error = torch.zeros(16, 14, 16, 16)
    error[:, 3:] = torch.arange(256.0).view(16, 16)
    layout, right, wrong = with_and_without(wide, error, cells=8)
    past = layout.of_kind(PAST)[1]
    shown = (wrong.latents - right.latents)[0, 0, past.start]
    assert shown.shape == (8, 8)
    torch.testing.assert_close(shown - shown[0, 0], error[0, 3, :8, :8], atol=1e-3, rtol=1e-4)


def one_of_two(rank: int, folder, clips: LatentClips) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.set_num_threads(1)
    recipe = dataclasses.replace(RECIPE, self_rollouts=2)
    settings = LoopSettings(folder / "run", steps=4, warmup=1)
    weights = train_forcing(clips, settings, recipe, SMALL, bfloat16=False, sharded=True)
    torch.save(weights, folder / f"weights-{rank}.pt")
    end_process_group()


def test_two_processes_with_shared_weights_each_have_self_rollouts(clips, tmp_path):
    multiprocessing.spawn(one_of_two, (tmp_path, clips), nprocs=2)
    one, two = (torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(tensor, two[name]) and torch.isfinite(tensor).all() for name, tensor in one.items())
