"""Which files are a VAE, which are the tiny decoder, and what everything else is told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from joyavatar_core.errors import AvatarError
from joyavatar_core.vae import StreamingVAE, TinyDecoder, random_state_dict, random_weights_vae, vae_from_state_dict
from joyavatar_core.vae.state_dicts import from_diffusers

STATE = random_state_dict(8)
VAE = random_weights_vae(8)
LATENTS = torch.randn(1, 16, 5, 3, 2, generator=torch.Generator().manual_seed(0))


def tiny_state(latent_channels: int = 16) -> dict[str, Tensor]:
    """taew2_1's layout with narrow seeded weights, and a bit of its encoder."""
    torch.manual_seed(0)
    state = TinyDecoder((16, 8, 8, 8)).state_dict()
    state["decoder.1.weight"] = torch.randn(16, latent_channels, 3, 3) * 0.1
    return state | {"encoder.0.weight": torch.zeros(64, 3, 3, 3)}


TINY = TinyDecoder.from_state_dict(tiny_state())


def test_width_is_read_from_the_shapes() -> None:
    vae = vae_from_state_dict(random_state_dict(24))
    assert isinstance(vae, StreamingVAE)
    assert vae.dim == 24


def test_loaded_weights_are_frozen_and_kept_in_their_dtype() -> None:
    vae = vae_from_state_dict({name: tensor.bfloat16() for name, tensor in STATE.items()})
    assert not vae.training
    assert {(p.dtype, p.requires_grad) for p in vae.parameters()} == {(torch.bfloat16, False)}


@pytest.mark.parametrize("prefix", ["model.", "vae.", "first_stage_model."])
def test_a_prefix_is_dropped(prefix: str) -> None:
    assert isinstance(vae_from_state_dict({prefix + name: tensor for name, tensor in STATE.items()}), StreamingVAE)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("quant_conv.weight", "conv1.weight"),
        ("post_quant_conv.bias", "conv2.bias"),
        ("encoder.conv_in.weight", "encoder.conv1.weight"),
        ("encoder.norm_out.gamma", "encoder.head.0.gamma"),
        ("decoder.conv_out.bias", "decoder.head.2.bias"),
        ("encoder.down_blocks.3.conv_shortcut.weight", "encoder.downsamples.3.shortcut.weight"),
        ("encoder.down_blocks.5.time_conv.weight", "encoder.downsamples.5.time_conv.weight"),
        ("encoder.down_blocks.2.resample.1.bias", "encoder.downsamples.2.resample.1.bias"),
        ("encoder.down_blocks.0.norm1.gamma", "encoder.downsamples.0.residual.0.gamma"),
        ("decoder.mid_block.attentions.0.to_qkv.weight", "decoder.middle.1.to_qkv.weight"),
        ("decoder.mid_block.resnets.1.conv2.weight", "decoder.middle.2.residual.6.weight"),
        ("decoder.up_blocks.1.resnets.0.conv_shortcut.bias", "decoder.upsamples.4.shortcut.bias"),
        ("decoder.up_blocks.3.resnets.2.norm2.gamma", "decoder.upsamples.14.residual.3.gamma"),
        ("decoder.up_blocks.0.upsamplers.0.time_conv.bias", "decoder.upsamples.3.time_conv.bias"),
        ("decoder.up_blocks.2.upsamplers.0.resample.1.weight", "decoder.upsamples.11.resample.1.weight"),
    ],
)
def test_diffusers_names_become_the_official_ones(theirs: str, ours: str) -> None:
    assert from_diffusers(theirs) == ours


def diffusers_name(name: str) -> str:
    """The official name under diffusers' layout, written independently of the loader (block by block)."""
    top, *rest = name.split(".")
    if top in ("conv1", "conv2"):
        return ".".join([{"conv1": "quant_conv", "conv2": "post_quant_conv"}[top], *rest])
    part, *tail = rest
    if part == "conv1":
        return ".".join([top, "conv_in", *tail])
    if part == "head":
        return ".".join([top, {"0": "norm_out", "2": "conv_out"}[tail[0]], *tail[1:]])
    index, *leaf = tail
    kind = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
    if leaf[0] == "residual":
        leaf = [kind[".".join(leaf[:2])], *leaf[2:]]
    leaf = ["conv_shortcut" if piece == "shortcut" else piece for piece in leaf]
    if part == "middle":
        where = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}[index]
    elif part == "downsamples":
        where = f"down_blocks.{index}"
    else:
        level, place = divmod(int(index), 4)
        where = f"up_blocks.{level}.upsamplers.0" if place == 3 else f"up_blocks.{level}.resnets.{place}"
    return ".".join([top, where, *leaf])


def test_a_whole_diffusers_state_dict_loads() -> None:
    vae = vae_from_state_dict({diffusers_name(name): tensor for name, tensor in STATE.items()})
    assert torch.equal(vae.decode(LATENTS), VAE.decode(LATENTS))


def test_the_tiny_decoder_is_recognised_at_its_own_width() -> None:
    decoder = vae_from_state_dict(tiny_state())
    assert isinstance(decoder, TinyDecoder)
    assert torch.equal(decoder.decode(LATENTS), TINY.decode(LATENTS))


def test_tiny_names_and_shapes_are_those_of_the_public_file() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in TinyDecoder().state_dict().items()}
    assert shapes["decoder.1.weight"] == (256, 16, 3, 3)
    assert shapes["decoder.3.conv.0.weight"] == (256, 512, 3, 3)
    assert [shapes[f"decoder.{i}.conv.weight"][0] for i in (7, 13, 19)] == [256, 256, 128]
    assert shapes["decoder.22.bias"] == (3,)
    assert "decoder.8.bias" not in shapes
    assert len(shapes) == 2 + 9 * 6 + 3 + 3 + 2


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 4))
def test_tiny_decode_in_two_calls_equals_whole_decode_bit_for_bit(cut: int) -> None:
    cache = TINY.new_cache()
    parts = [TINY.decode(part, cache) for part in (LATENTS[:, :, :cut], LATENTS[:, :, cut:])]
    assert torch.equal(torch.cat(parts, dim=2), TINY.decode(LATENTS))
    assert parts[0].shape == (1, 3, 4 * cut - 3, 24, 16)


def test_tiny_frames_are_in_range() -> None:
    video = TINY.decode(LATENTS * 100)
    assert video.min() >= -1 and video.max() <= 1


def wan22() -> dict[str, Tensor]:
    return STATE | {"conv2.weight": torch.zeros(48, 48, 1, 1, 1)}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({}, "holds nothing"),
        ({"blocks.0.ffn.0.weight": torch.zeros(1)}, "holds blocks.0.ffn.0.weight"),
        (wan22(), r"48 latent channels \(a Wan2.2 VAE\), expected 16"),
        (STATE | {"encoder.conv1.weight": torch.zeros(8, 4, 3, 3, 3)}, "pictures of 4 channels, expected 3"),
        ({n: t for n, t in STATE.items() if n != "decoder.conv1.bias"}, r"lacks 1 tensors \(decoder.conv1.bias\)"),
        ({n: t for n, t in STATE.items() if n != "decoder.head.0.gamma"}, "lacks decoder.head.0.gamma"),
        (STATE | {"extra": torch.zeros(1)}, r"1 unknown ones \(extra\)"),
        (STATE | {"conv1.bias": torch.zeros(7)}, r"conv1.bias has the shape \(7,\), expected \(32,\)"),
        (tiny_state(48), "reads 48 latent channels"),
        ({"decoder.22.bias": torch.zeros(3)}, "lacks 'decoder.1.weight'"),
    ],
)
def test_other_state_dicts_get_one_sentence(state: dict[str, Tensor], sentence: str) -> None:
    with pytest.raises(AvatarError, match=sentence) as caught:
        vae_from_state_dict(state)
    assert "\n" not in str(caught.value)


def test_statistics_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(AvatarError, match="3 and 16 numbers, expected 16 each"):
        vae_from_state_dict(STATE, mean=[0.0] * 3)


def test_a_tiny_decoder_cannot_encode() -> None:
    assert not hasattr(TINY, "encode")
    with pytest.raises(AvatarError, match=r"give a Wan2\.1 VAE file"):
        StreamingVAE.from_state_dict(tiny_state())


@pytest.mark.parametrize("shape", [(1, 48, 1, 2, 2), (16, 1, 2, 2), (1, 16, 0, 2, 2)])
def test_wrong_latents_are_refused(shape: tuple[int, ...]) -> None:
    for decoder in (VAE, TINY):
        with pytest.raises(AvatarError, match=r"expected \[batch, 16, frames, height, width\]"):
            decoder.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 4, 1, 16, 16), r"expected \[batch, 3, frames, height, width\]"),
        ((1, 3, 1, 20, 16), "16x20 pixels, expected multiples of 8"),
        ((1, 3, 4, 16, 16), "4 frames, expected 1 \\+ a multiple of 4"),
    ],
)
def test_wrong_videos_are_refused(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(AvatarError, match=sentence):
        VAE.encode(torch.zeros(shape))


def test_a_stream_that_goes_on_wants_whole_latents() -> None:
    cache = VAE.new_cache()
    VAE.encode(torch.zeros(1, 3, 1, 16, 16), cache)
    with pytest.raises(AvatarError, match="5 frames, expected a multiple of 4 when a stream goes on"):
        VAE.encode(torch.zeros(1, 3, 5, 16, 16), cache)


def test_a_cache_of_another_picture_size_is_refused() -> None:
    for decoder in (VAE, TINY):
        cache = decoder.new_cache()
        decoder.decode(LATENTS[:, :, :1], cache)
        with pytest.raises(AvatarError, match="use a new cache"):
            decoder.decode(LATENTS[:, :, :1, :2], cache)
