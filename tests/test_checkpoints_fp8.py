"""Weights kept as float8: what a layer computes, what a file's own float8 becomes, rounding, and LoRAs on top."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from joyavatar_core.checkpoints import canonical_shapes, open_checkpoint, rounded
from joyavatar_core.checkpoints.inspection import describe, loading_note
from joyavatar_core.config import AvatarConfig
from joyavatar_core.model.fp8_linear import FP8, Fp8Linear
from joyavatar_core.model.transformer import SelfContext
from joyavatar_core.pipeline.avatar import load_avatar, load_transformer, open_weights
from joyavatar_core.pipeline.avatar_options import AvatarOptions

from .test_checkpoints_quantised import CONFIG, error, fp8_file, is_linear, scaled_file
from .test_checkpoints_quantised import weights as weights_fixture

weights = weights_fixture
FILES = {
    "fp8": lambda path, weights: fp8_file(path, weights),
    "scaled": lambda path, weights: scaled_file(path, weights),
    "by row": lambda path, weights: scaled_file(path, weights, rows=True, new=True),
}


def outputs(model: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """One pass through everything that a linear layer is used for."""
    generator = torch.Generator().manual_seed(1)
    text = model.encode_text(torch.randn(1, 2, CONFIG.text_dim, generator=generator).to(dtype), 2)
    voice = torch.randn(1, 1, 4, CONFIG.audio_dim, generator=generator).to(dtype)
    audio = model.project_audio(model.encode_audio(voice))
    latents = torch.randn(1, CONFIG.in_channels, 1, 4, 4, generator=generator).to(dtype)
    context = SelfContext(model.rope(range(1), 4, 4))
    return model(latents, torch.full((1, 1), 500.0), text, audio, context)


def load(path, kept: str, dtype: torch.dtype = torch.bfloat16, **more) -> nn.Module:
    options = AvatarOptions(weights=path, dtype=dtype, weight_dtype=kept, **more)
    return load_transformer(options, open_weights(options))


@pytest.fixture(params=list(FILES))
def file(request, tmp_path, weights):
    path = tmp_path / "model.safetensors"
    FILES[request.param](path, weights)
    return path


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_kept_weights_give_what_expanded_ones_give(file, dtype):
    kept, whole = load(file, "auto", dtype), load(file, "full", dtype)
    linears = [layer for layer in kept.modules() if isinstance(layer, Fp8Linear)]
    assert {layer.weight.dtype for layer in linears} == {torch.float8_e4m3fn}
    assert {p.dtype for p in whole.parameters()} == {dtype}
    assert {p.dtype for name, p in kept.named_parameters() if p.dtype not in FP8} == {dtype}
    assert torch.equal(outputs(kept, dtype), outputs(whole, dtype))


def test_an_fp8_file_is_recognised_and_its_memory_told(file, weights):
    checkpoint = open_checkpoint(file)
    assert checkpoint.in_fp8
    stored = sum(t.nbytes // 2 if is_linear(name, t) else t.nbytes for name, t in weights.items())
    assert f"kept as fp8 and bfloat16, {stored / 2**30:.2f} GiB" in loading_note(checkpoint, torch.bfloat16, True)
    assert describe(file)["memory"].endswith("(as the file is)")


@torch.no_grad()
def test_any_file_can_be_kept_in_fp8(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    save_file(weights, path, metadata=CONFIG.metadata())
    checkpoint = open_checkpoint(path)
    assert not checkpoint.in_fp8 and rounded(checkpoint).in_fp8
    kept, whole = load(path, "fp8", torch.float32), load(path, "full", torch.float32)
    for (name, layer), exact in zip(kept.named_modules(), whole.modules(), strict=True):
        if isinstance(layer, Fp8Linear) and name.startswith("blocks."):
            assert layer.weight.dtype == torch.float8_e4m3fn
            assert error(layer.scaled(layer.weight.float()), exact.weight) < 0.029, name
        elif isinstance(layer, nn.Linear):  # the layers around the blocks stay exact
            assert torch.equal(layer.weight, exact.weight)
    assert 0 < error(outputs(kept, torch.float32), outputs(whole, torch.float32)) < 0.05


def test_layers_with_a_lora_become_exact_or_are_rounded_again(tmp_path, weights):
    scaled_file(tmp_path / "model.safetensors", weights)
    layer, dim = "blocks.0.self_attn.q", CONFIG.dim
    factors = {f"diffusion_model.{layer}.lora_A.weight": torch.randn(4, dim) / 8}
    factors[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(dim, 4) / 8
    save_file(factors, tmp_path / "lora.safetensors")
    loras = ((tmp_path / "lora.safetensors", 1.0),)
    auto, small, whole = (load(tmp_path / "model.safetensors", kept, loras=loras) for kept in ("auto", "fp8", "full"))
    exact = whole.get_submodule(layer).weight
    assert torch.equal(auto.get_submodule(layer).weight, exact)
    assert auto.blocks[1].self_attn.q.weight.dtype == small.get_submodule(layer).weight.dtype == torch.float8_e4m3fn
    found = small.get_submodule(layer)
    assert error(found.scaled(found.weight.float()), exact) < 0.03


def test_a_layer_of_zeros_stays_zero(tmp_path):
    config = AvatarConfig(dim=128, ffn_dim=128, num_heads=1, num_layers=1, text_dim=8, audio_dim=0, in_channels=16)
    state = {name: torch.zeros(shape) for name, shape in canonical_shapes(config).items()}
    save_file(state, tmp_path / "m.safetensors", metadata=config.metadata())
    model = load(tmp_path / "m.safetensors", "fp8", torch.float32)
    layer = model.blocks[0].ffn[0]
    assert torch.equal(layer(torch.ones(1, 128)), torch.zeros(1, 128))


def test_the_scale_of_each_row_moves_with_the_layer_and_is_in_no_state_dict():
    layer = Fp8Linear(4, 2)
    layer.set_scale(torch.tensor([1.0, 2.0]))
    assert layer.row_scales.shape == (2, 1) and "row_scales" not in layer.state_dict()
    assert layer.double().row_scales.dtype == torch.float64
    layer.set_scale(torch.tensor(3.0))
    assert layer.row_scales is None and layer.scale == 3.0
    change = torch.randn(2, 4)
    torch.testing.assert_close(layer.scaled(layer.unscaled(change)), change)


def test_the_embedded_avatar_can_be_kept_in_fp8():
    avatar = load_avatar(AvatarOptions(weight_dtype="fp8"))
    assert {p.dtype for p in avatar.transformer.parameters()} == {torch.float8_e4m3fn, torch.float32}
