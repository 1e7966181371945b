from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.attention import attention_backend, available_backends, sdpa
from joyavatar_core.model.rope import apply_rope, rope_table, section_pairs
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


def flow(model, latents, timesteps, positions, mask=None):
    text = model.encode_text(torch.zeros(1, MINIATURE.text_tokens, MINIATURE.text_dim))
    audio = model.project_audio(torch.ones(1, latents.shape[2], MINIATURE.audio_hidden))
    context = SelfContext(model.rope(positions, 4, 4), mask=mask)
    return model(latents, timesteps, text, audio, context)


@torch.no_grad()
def test_shifting_all_positions_changes_nothing(model):
    latents, timesteps = torch.randn(1, 33, 3, 4, 4), torch.full((1, 3), 832.0)
    here = flow(model, latents, timesteps, [0, 1, 2])
    assert torch.allclose(here, flow(model, latents, timesteps, [300, 301, 302]), atol=1e-5)
    assert not torch.allclose(here, flow(model, latents, timesteps, [0, 2, 4]), atol=1e-3)


@torch.no_grad()
def test_timesteps_are_per_frame(model):
    latents = torch.randn(1, 33, 3, 4, 4)
    own_only = torch.eye(3, dtype=torch.bool).repeat_interleave(4, 0).repeat_interleave(4, 1)
    mixed = flow(model, latents, torch.tensor([[0.0, 500.0, 1000.0]]), range(3), own_only)
    for frame, timestep in enumerate((0.0, 500.0, 1000.0)):
        alone = flow(model, latents, torch.full((1, 3), timestep), range(3), own_only)
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


@pytest.mark.parametrize(("name", "device", "dtype", "said"), [
    ("cudnn", "cpu", torch.bfloat16, "runs on CUDA, not on 'cpu'"),
    ("cudnn", "cuda", torch.float32, "bfloat16 or float16, not in float32"),
])  # fmt: skip
def test_a_back_end_refuses_what_it_cannot_take(name, device, dtype, said):
    with pytest.raises(AvatarError, match=said):
        attention_backend(name, device, dtype)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_prompt_is_a_constant_that_equals_its_keys_written_out(model, dtype):
    model = copy.deepcopy(model).to(dtype)
    nothing = torch.zeros(1, 0, MINIATURE.text_dim, dtype=dtype)
    constant = model.encode_text(nothing, MINIATURE.text_tokens)
    written = model.encode_text(torch.zeros(1, MINIATURE.text_tokens, MINIATURE.text_dim, dtype=dtype))
    assert constant.constants and not written.constants
    x = torch.randn(1, 3, 4, MINIATURE.dim, dtype=dtype)
    for block in model.blocks:
        one, other = (block.attend_to_text(x, text, sdpa).expand_as(x) for text in (constant, written))
        assert torch.allclose(one, other, atol=1e-6 if dtype == torch.float32 else 1e-2)


@torch.no_grad()
def test_packed_projections_are_the_same_until_one_is_moved(model):
    attention = copy.deepcopy(model.blocks[0].self_attn)
    x = torch.randn(1, 5, MINIATURE.dim)
    plain = attention.products(x)
    attention.pack()
    for one, other in zip(plain, attention.products(x), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    attention.k.weight.data = attention.k.weight.data * 2
    assert torch.allclose(attention.products(x)[1] - attention.k.bias, 2 * (plain[1] - attention.k.bias), atol=1e-5)


def test_the_rotation_of_compiled_code_is_that_of_eager_code(monkeypatch):
    x, table = torch.randn(1, 8, 2, 24), rope_table([3, 70], 2, 2, 24)
    eager = apply_rope(x, table)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(apply_rope(x, table), eager, atol=1e-6)
