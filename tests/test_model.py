from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.attention import attention_backend, available_backends, sdpa
from joyavatar_core.model.rope import section_pairs
from joyavatar_core.model.transformer import AvatarTransformer, SelfContext

from .conftest import MINIATURE


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_config_is_read_from_shapes(model):
    config = AvatarConfig.from_shapes(shapes_of(model), num_heads=2)
    expected = dataclasses.replace(MINIATURE, text_tokens=512, trained_positions=21)
    assert config == expected


def test_metadata_round_trips(model):
    config = dataclasses.replace(MINIATURE, preset={"mci": {"noise": 0.1}}, latent_mean=(0.5,) * 16)
    assert AvatarConfig.from_shapes(shapes_of(model), 2).with_metadata(config.metadata()) == config


@pytest.mark.parametrize("values", [
    {"preset": None}, {"preset": []}, {"preset": {"mcl": {}}}, {"preset": {"psb": 8}}, {"audio_offset": 1.5},
    {"fps": True},
    {"fps": 300}, {"shift": -1}, {"trained": "no"}, {"latent_mean": [0.0] * 3}, {"latent_std": [0.0] * 16},
    {"levels": []}, {"levels": 5}, {"text_tokens": 10**9}, {"block_frames": 0},
])  # fmt: skip
def test_metadata_out_of_range_is_one_sentence(values):
    with pytest.raises(AvatarError, match="The checkpoint's"):
        MINIATURE.with_metadata({"joyavatar": json.dumps(values)})


@pytest.mark.parametrize("heads", [0, -4, 5])
def test_impossible_heads_are_one_sentence(model, heads):
    with pytest.raises(AvatarError, match="heads"):
        AvatarConfig.from_shapes(shapes_of(model), heads)


@pytest.mark.parametrize("text", ["[1]", "{", '{"colour": 3}', "3"])
def test_broken_metadata_is_one_sentence(text):
    with pytest.raises(AvatarError, match="metadata"):
        MINIATURE.with_metadata({"joyavatar": text})


def test_other_models_are_refused():
    with pytest.raises(AvatarError, match=r"not a Wan2\.1-style"):
        AvatarConfig.from_shapes({"conv.weight": (3, 3)})
    assert json.loads(MINIATURE.metadata()["joyavatar"])["num_heads"] == 2


def test_a_head_of_128_splits_22_21_21():
    assert section_pairs(128) == (22, 21, 21)
    assert section_pairs(32) == (6, 5, 5)


def flow(model, latents, labels, positions, mask=None):
    text = model.encode_text(torch.zeros(1, MINIATURE.text_tokens, MINIATURE.text_dim))
    audio = model.project_audio(torch.ones(1, latents.shape[2], MINIATURE.audio_hidden))
    context = SelfContext(model.rope(positions, 4, 4), mask=mask)
    return model(latents, labels, text, audio, context)


@torch.no_grad()
def test_shifting_all_positions_changes_nothing(model):
    latents, labels = torch.randn(1, 33, 3, 4, 4), torch.full((1, 3), 832.0)
    here = flow(model, latents, labels, [0, 1, 2])
    assert torch.allclose(here, flow(model, latents, labels, [300, 301, 302]), atol=1e-5)
    assert not torch.allclose(here, flow(model, latents, labels, [0, 2, 4]), atol=1e-3)


@torch.no_grad()
def test_timesteps_are_per_frame(model):
    latents = torch.randn(1, 33, 3, 4, 4)
    own_only = torch.eye(3, dtype=torch.bool).repeat_interleave(4, 0).repeat_interleave(4, 1)
    mixed = flow(model, latents, torch.tensor([[0.0, 500.0, 1000.0]]), range(3), own_only)
    for frame, label in enumerate((0.0, 500.0, 1000.0)):
        alone = flow(model, latents, torch.full((1, 3), label), range(3), own_only)
        assert torch.allclose(mixed[:, :, frame], alone[:, :, frame], atol=1e-5)


@torch.no_grad()
def test_operations_supply_every_layer():
    class Counting:
        made = 0

        def __getattr__(self, name: str):
            def make(*args, **kwargs):
                Counting.made += 1
                return getattr(nn, name)(*args, **kwargs)

            return make

    model = AvatarTransformer(MINIATURE, operations=Counting())
    own = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv3d | nn.LayerNorm)]
    assert Counting.made == len(own)


def test_back_ends_agree_where_they_can_run():
    q, k, v = (torch.randn(1, 8, 2, 32, dtype=torch.bfloat16) for _ in range(3))
    reference = sdpa(q.double(), k.double(), v.double())
    for name in available_backends():
        if name == "sdpa" or torch.cuda.is_available():
            device = "cpu" if name == "sdpa" else "cuda"
            out = attention_backend(name)(q.to(device), k.to(device), v.to(device)).cpu().double()
            assert (out - reference).abs().max() < (5e-2 if name == "sage" else 2e-2)


@pytest.mark.parametrize("name", ["magic", "flash"])
def test_a_missing_back_end_is_one_sentence(name):
    if name in available_backends():
        return
    with pytest.raises(AvatarError, match=name):
        attention_backend(name)
