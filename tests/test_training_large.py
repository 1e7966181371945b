"""The recipe at the public models' width: where it starts from, and that its steps run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

pytest.importorskip("skia")

from joyavatar_core.checkpoints import save_checkpoint
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.training.__main__ import main
from joyavatar_core.training.configs import LARGE, TINY
from joyavatar_core.training.initial_weights import blended, new_transformer, start_from
from joyavatar_core.training.latents import LatentClips
from joyavatar_core.training.loop import LoopSettings, Trainer
from joyavatar_core.training.teacher_forcing import ForcingRecipe, train_forcing

SMALL = dataclasses.replace(TINY, dim=32, ffn_dim=64, num_heads=2, num_layers=4, audio_hidden=8)


def test_the_recipe_runs_at_full_width(tmp_path, monkeypatch):
    config = dataclasses.replace(LARGE, num_layers=2)
    torch.manual_seed(0)
    clips = LatentClips(
        torch.randn(2, 16, 7, 4, 4).bfloat16(),
        torch.randn(2, 7, 4, 10752),
        torch.tensor([1.0, 2, 3, 4]).expand(2, 7, 4),
    )
    settings = LoopSettings(tmp_path, steps=2, warmup=1, learning_rate=1e-5, save_seconds=1e9)
    monkeypatch.setattr(Trainer, "save", lambda self: None)  # gigabytes that nobody reads
    weights = train_forcing(clips, settings, ForcingRecipe(blocks=2, batch=1), config)
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert weights["blocks.1.ffn.0.weight"].shape == (8960, 1536)
    assert weights["head.head.weight"].abs().max() > 0  # it began with zeros


def test_a_text_to_video_model_is_given_a_portrait_and_a_voice_without_effect(tmp_path):
    torch.manual_seed(0)
    narrow = dataclasses.replace(SMALL, in_channels=16, audio_dim=0)
    save_checkpoint(tmp_path / "t2v.safetensors", new_transformer(narrow).state_dict(), narrow)
    state = start_from(tmp_path / "t2v.safetensors", SMALL)
    AvatarTransformer(SMALL).load_state_dict(state)
    assert (state["patch_embedding.weight"][:, 16:] == 0).all()
    assert state["patch_embedding.weight"][:, :16].abs().max() > 0
    assert all((state[name] == 0).all() for name in state if name.startswith("audio_cond_projs"))


def test_a_model_of_another_size_is_refused(tmp_path):
    save_checkpoint(tmp_path / "small.safetensors", new_transformer(SMALL).state_dict(), SMALL)
    with pytest.raises(AvatarError, match="cannot start from small"):
        start_from(tmp_path / "small.safetensors", TINY)


def test_a_blend_goes_from_one_stage_to_the_other():
    before, after = ({"a": torch.tensor([value, 1.0])} for value in (0.0, 2.0))
    for share, expected in ((0.0, 0.0), (0.25, 0.5), (1.0, 2.0)):
        assert blended(before, after, share)["a"].tolist() == [expected, 1.0]


def test_what_is_missing_is_said(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    common = ["--config", "1.3b", "--runs", str(tmp_path), "--steps", "1"]
    assert main(["forcing", *common]) == 1
    assert "--audio-encoder" in capsys.readouterr().err
    (tmp_path / "forcing").mkdir()
    torch.save({"ema": {}}, tmp_path / "forcing" / "checkpoint.pt")
    assert main(["distill", *common]) == 1
    assert "--teacher" in capsys.readouterr().err
    assert main(["distill", *common, "--blend", "30"]) == 1
    assert "--blend is 30, expected 0" in capsys.readouterr().err
