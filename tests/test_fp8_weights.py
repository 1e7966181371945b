"""Weights kept in float8: what is lost, what is saved, and which way a product takes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from joyavatar_core.checkpoints import canonical_shapes
from joyavatar_core.config import AvatarConfig
from joyavatar_core.model.fp8_linear import Fp8Linear, keep_in_fp8, rounded_linear
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.pipeline.avatar import load_transformer, open_embedded
from joyavatar_core.pipeline.avatar_options import AvatarOptions
from joyavatar_core.sampling.memory import weight_bytes
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun


def relative(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return ((ours.float() - exact.float()).square().mean() / exact.float().square().mean()).sqrt().item()


def test_a_layer_rounds_its_weight_alone_where_nothing_multiplies_fp8():
    linear, x = nn.Linear(32, 48), torch.randn(2, 5, 32)
    layer = rounded_linear(linear)
    rounded = nn.Linear(32, 48)
    rounded.weight.data, rounded.bias.data = layer.weight.float() * layer.scale, linear.bias.data
    torch.testing.assert_close(layer(x), rounded(x))
    assert 0.005 < relative(layer(x), linear(x)) < 0.05


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_product_in_fp8_is_near_the_exact_one(by_rows):
    linear, x = nn.Linear(64, 48).bfloat16(), (torch.randn(3, 5, 64) * torch.logspace(-3, 3, 5)[:, None]).bfloat16()
    layer = rounded_linear(linear)
    if by_rows:  # as some files scale
        layer.set_scale(torch.full((48,), layer.scale))
    made = layer.product(x)
    assert made.shape == (3, 5, 48) and made.dtype == torch.bfloat16
    for row in range(5):  # each has a scale of its own
        assert relative(made[:, row], linear(x[:, row])) < 0.08


def test_the_embedded_avatar_in_fp8_makes_nearly_the_same_stream(make_stream):
    whole = make_stream().model
    small = copy.deepcopy(whole)
    keep_in_fp8(small.blocks)
    chosen = preset("joyavatar", whole.config)
    exact, rounded = (
        torch.cat([next(run).latents for _ in range(4)], dim=2)
        for run in (StreamRun(make_stream(model=model, **vars(chosen))) for model in (whole, small))
    )
    assert 1e-4 < relative(rounded, exact) < 0.2


def test_an_avatar_is_loaded_with_fp8_weights_and_takes_the_bytes_that_are_said():
    checkpoint = open_embedded()
    model = load_transformer(AvatarOptions(weight_dtype="fp8", dtype=torch.bfloat16), checkpoint)
    kinds = {type(layer) for block in model.blocks for layer in (block.self_attn.q, block.ffn[0], block.cross_attn.o)}
    assert kinds == {Fp8Linear} and model.head.head.weight.dtype == torch.bfloat16
    assert model.patch_embedding.weight.dtype == torch.bfloat16
    kept = sum(p.nbytes for p in model.parameters())
    said = weight_bytes(checkpoint.config, checkpoint.parameters, torch.bfloat16, torch.float8_e4m3fn)
    assert abs(said / kept - 1) < 0.01


def test_the_large_model_takes_little_more_than_half():
    config = AvatarConfig()
    with torch.device("meta"):
        model = AvatarTransformer(config).bfloat16()
        keep_of = sum(p.numel() for block in model.blocks for p in block.parameters() if p.ndim == 2)
    parameters = sum(map(math.prod, canonical_shapes(config).values()))
    said = weight_bytes(config, parameters, torch.bfloat16, torch.float8_e4m3fn)
    assert said == 2 * parameters - keep_of
    assert 0.5 < said / (2 * parameters) < 0.6


def test_only_tiled_layers_in_e4m3_are_multiplied_in_fp8():
    assert rounded_linear(nn.Linear(32, 48)).fits_product()
    assert not rounded_linear(nn.Linear(24, 48)).fits_product() and not rounded_linear(nn.Linear(32, 40)).fits_product()
    other = rounded_linear(nn.Linear(32, 48))
    other.weight = nn.Parameter(other.weight.float().to(torch.float8_e5m2), requires_grad=False)
    assert not other.fits_product()
