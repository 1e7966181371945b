"""The refiner's training: its pairs, the truth brought into a rollout's pose, mistakes, and a loop that learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.refiner.model import RefinerNet, viseme_condition
from joyavatar_core.synthetic.clips import make_clip
from joyavatar_core.synthetic.dataset import clip_path, save_clip
from joyavatar_core.training.loop import LoopSettings
from joyavatar_core.training.parameters import parameter_groups
from joyavatar_core.training.refiner_alignment import align, moved
from joyavatar_core.training.refiner_augment import Random, other_mouth, shade, smear
from joyavatar_core.training.refiner_pairs import make_pairs, pair_path
from joyavatar_core.training.refiner_samples import Pairs, RefinerRecipe
from joyavatar_core.training.refiner_training import refiner_losses, train_refiner

SIDE = 128


def generators(count: int, salt: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A clip of a drawn person of 1.06 s and its pair."""
    root = tmp_path_factory.mktemp("refiner")
    (root / "data").mkdir()
    clip = clip_path(root / "data", 3, "train", "drawn")
    save_clip(clip, make_clip(3, "train", 1.06, 2 * SIDE))
    (pair,) = make_pairs(load_avatar(), [clip], root / "pairs")
    return SimpleNamespace(clip=clip, pair=pair, pairs=root / "pairs")


def test_a_pair_holds_the_round_trip_a_rollout_and_portraits(folders: SimpleNamespace) -> None:
    from safetensors.numpy import load_file

    pair = load_file(folders.pair)
    assert pair["round_trip"].shape == (17, SIDE, SIDE, 3)
    assert pair["portraits"].shape == (8, SIDE, SIDE, 3) and len(pair["chosen"]) == 4
    count = len(pair["shows"])
    assert pair["followed"].shape == (count, SIDE, SIDE, 3) and pair["flow"].shape == (count, 2, 8, 8)
    assert np.isfinite(pair["apart"]).all() and pair["shows"].max() <= 16
    assert pair["visemes"].shape == (17, 8) and pair["visemes"][:, 0].std() > 0.3
    error = np.abs(pair["followed"].astype(float) - pair["round_trip"][pair["shows"]]).mean()
    assert 0.5 < error < 40  # it is the clip, and not exactly


def test_a_pair_without_a_rollout_is_sampled_from_its_round_trip(folders: SimpleNamespace, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    made = make_pairs(load_avatar(), [folders.clip], tmp_path / "pairs", rollouts=0)
    pair, whole = load_file(made[0]), load_file(folders.pair)
    assert pair["followed"].shape == (0, SIDE, SIDE, 3) and not len(pair["shows"])
    np.testing.assert_array_equal(pair["round_trip"], whole["round_trip"])
    sample = Pairs([folders.clip], made, RefinerRecipe(batch=2, followed=1.0)).batch(generators)
    assert sample.sure.tolist() == [1, 1]


def test_pairs_are_made_once_and_only_of_one_avatar(folders: SimpleNamespace) -> None:
    before = folders.pair.stat().st_mtime_ns
    make_pairs(load_avatar(), [folders.clip], folders.pairs)
    assert pair_path(folders.pairs, folders.clip).stat().st_mtime_ns == before
    other = dataclasses.replace(load_avatar(), encoder=None)
    with pytest.raises(AvatarError, match="was made with another avatar"):
        make_pairs(other, [folders.clip], folders.pairs)


def test_clips_of_the_stream_s_own_size_are_refused(folders: SimpleNamespace, tmp_path: Path) -> None:
    clip = clip_path(tmp_path, 3, "train", "drawn")
    save_clip(clip, make_clip(3, "train", 0.31, SIDE))
    with pytest.raises(AvatarError, match="128x128, expected 256x256"):
        make_pairs(load_avatar(), [clip], tmp_path / "pairs")


def test_alignment_finds_a_smooth_motion_and_leaves_out_what_is_ignored() -> None:
    random = Random(torch.Generator().manual_seed(1))
    truth = F.interpolate(random.normal(2, 3, 16, 16), (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(-1, 1)
    true = 0.05 * F.interpolate(random.normal(2, 2, 3, 3), (8, 8), mode="bicubic", align_corners=False)
    frames, ignored = moved(truth, true).clone(), torch.zeros(2, 1, SIDE, SIDE)
    frames[..., 70:90, 50:80], ignored[..., 66:94, 46:84] = 1.0, 1.0
    found = align(truth, frames, ignored)
    free = 1 - ignored
    before, after = (((one - frames).abs() * free).mean() for one in (truth, moved(truth, found)))
    assert after < 0.35 * before
    assert (found - true).abs().mean() < 0.5 * true.abs().mean()


def test_a_spoiled_mouth_is_another_s_and_nothing_else_is() -> None:
    random, mouth = Random(torch.Generator().manual_seed(0)), torch.zeros(1, SIDE, SIDE)
    mouth[..., 80:110, 40:90] = 1
    frame, other = torch.full((3, SIDE, SIDE), -0.5), torch.full((3, SIDE, SIDE), 0.5)
    made = torch.stack([other_mouth(frame, other, mouth, random) for _ in range(40)])
    changed = (made - frame).abs()
    assert changed[..., :70, :].max() == changed[..., 100:].max() == 0
    inside = made[..., 88:102, 48:82].mean((1, 2, 3))
    assert 0 < (inside == -0.5).float().mean() < 0.2 and (inside > 0.4).any() and inside.max() < 0.6


def test_mistakes_spare_the_mouth() -> None:
    random = Random(torch.Generator().manual_seed(0))
    frame, mouth, eyes = (
        random.normal(3, SIDE, SIDE).clamp(-1, 1),
        torch.zeros(1, SIDE, SIDE),
        torch.zeros(1, SIDE, SIDE),
    )
    mouth[..., 80:110, 40:90], eyes[..., 40:60, 30:100] = 1, 1

    def detail(picture: torch.Tensor, rows: slice, columns: slice) -> float:
        return picture[:, rows, columns].diff(dim=-1).abs().mean().item()

    kept, eye = [], []
    for _ in range(12):
        made = smear(frame, mouth, eyes, random, mild=False)
        assert made.shape == frame.shape and made.abs().max() <= 1
        for said, region in ((kept, (slice(86, 104), slice(46, 84))), (eye, (slice(40, 60), slice(30, 100)))):
            said.append(detail(made, *region) / detail(frame, *region))
    assert min(kept) > 0.85 and np.mean(eye) < 0.7


def test_samples_are_the_same_for_the_same_generator_and_show_one_person(folders: SimpleNamespace) -> None:
    pairs = Pairs([folders.clip], [folders.pair], RefinerRecipe(batch=4))
    sample, again = pairs.batch(generators), pairs.batch(generators)
    for one, other in zip(sample, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert sample.spoiled.shape == (4, 3, SIDE, SIDE) and sample.truth.shape == (4, 3, 2 * SIDE, 2 * SIDE)
    small = F.avg_pool2d(sample.truth, 2)
    assert (small - sample.frame).abs().mean() < 0.15 and 0 < sample.mouth.mean() < 0.3
    assert (sample.mouth * sample.lower).sum() > 0.8 * sample.mouth.sum()


def test_close_ups_show_the_mouth_at_its_own_size(folders: SimpleNamespace) -> None:
    pairs = Pairs([folders.clip], [folders.pair], RefinerRecipe(batch=4, close_batch=4))
    whole, close = pairs.batch(generators), pairs.batch(generators, close=True)
    assert close.frame.shape == (4, 3, SIDE // 2, SIDE // 2) and close.truth.shape == (4, 3, SIDE, SIDE)
    assert (F.avg_pool2d(close.truth, 2) - close.frame).abs().mean() < 0.15
    assert close.mouth.mean() > 2 * whole.mouth.mean()


def test_visemes_are_those_of_the_frame_and_sometimes_left_out(folders: SimpleNamespace) -> None:
    from safetensors.numpy import load_file

    visemes = viseme_condition(torch.from_numpy(load_file(folders.pair)["visemes"]), 17)
    samples = Pairs([folders.clip], [folders.pair], RefinerRecipe(batch=12, without_visemes=0.5)).batch(generators)
    told = samples.condition[:, 0] > 0
    assert told.any() and not told.all() and not samples.condition[~told].any()
    assert all((visemes == row).all(1).any() for row in samples.condition[told])


class Says(torch.nn.Module):
    """The portrait or the frame, as they are."""

    def __init__(self, mask: float) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, frame, round_trip, portrait, condition, part):
        predicted = RefinerNet()(frame, round_trip, portrait)
        return predicted._replace(mask=torch.full_like(predicted.mask, self.mask))


def test_without_visemes_the_lips_that_count_are_the_frame_s(folders: SimpleNamespace) -> None:
    """With the truth's mouth in the result the lips' loss is higher than with the frame's, where they differ."""
    pairs = Pairs([folders.clip], [folders.pair], RefinerRecipe(batch=2, followed=0, without_visemes=1))
    sample = pairs.batch(generators)
    dark = torch.where(F.avg_pool2d(sample.mouth, 2) > 0, -sample.frame, sample.frame)
    differs = sample._replace(frame=dark, spoiled=dark)

    portrait = sample._replace(frame=dark, spoiled=dark, portrait=sample.truth)
    assert refiner_losses(Says(1.0), portrait)["lips"] > 5 * refiner_losses(Says(0.0), differs)["lips"]


def test_with_visemes_the_lips_that_count_are_the_truth_s(folders: SimpleNamespace) -> None:
    sample = Pairs([folders.clip], [folders.pair], RefinerRecipe(batch=2, followed=0, without_visemes=0)).batch(
        generators
    )
    dark = torch.where(F.avg_pool2d(sample.mouth, 2) > 0, -sample.frame, sample.frame)
    sample = sample._replace(frame=dark, spoiled=dark, portrait=sample.truth)
    true, shown = (refiner_losses(Says(mask), sample) for mask in (1.0, 0.0))
    assert true["lips"] == shown["lips"] == 0 and shown["pixel"] > 5 * true["pixel"]


def test_the_loss_can_be_learned(folders: SimpleNamespace) -> None:
    sample = Pairs([folders.clip], [folders.pair], RefinerRecipe(close_batch=3)).batch(generators, close=True)
    torch.manual_seed(0)
    net = RefinerNet()
    groups = parameter_groups(net, weight_decay=0, by_inputs=True)  # as in training
    optimizer, losses = torch.optim.Adam([group | {"lr": 4e-4 * group["scale"]} for group in groups]), []
    for _ in range(40):
        losses.append(refiner_losses(net, sample, part=0.5)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_a_resumed_training_ends_as_an_unbroken_one(folders: SimpleNamespace, tmp_path: Path) -> None:
    pairs = Pairs([folders.clip], [folders.pair], RefinerRecipe(batch=1, close_batch=1))

    def train(folder: str, steps: int) -> RefinerNet:
        return train_refiner(pairs, LoopSettings(tmp_path / folder, steps=steps, learning_rate=1e-4, warmup=1))

    train("broken", 1)
    again, whole = train("broken", 2), train("whole", 2)
    # The rate follows the share of the run that is done, so the first step of both is at the same rate only roughly.
    for (name, one), other in zip(again.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0, msg=name)
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_shadow_is_the_same_on_all_pictures_and_darkens_one_side():
    pictures = [torch.full((3, 32, 32), 0.6), torch.full((3, 32, 32), 0.2)]
    shaded = [shade(pictures, Random(torch.Generator().manual_seed(seed))) for seed in range(40)]
    changed = [pair for pair in shaded if not torch.equal(pair[0], pictures[0])]
    assert 8 < len(changed) < 32
    for one, other in changed:
        assert -1 <= one.min() < one.max() <= 0.6
        torch.testing.assert_close((one + 1) / 1.6, (other + 1) / 1.2)
