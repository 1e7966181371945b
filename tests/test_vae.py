"""The Wan2.1 VAE: its names, its numbers, and decoding block by block without seams."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from joyavatar_core.vae import StreamingVAE, VAECache, conv, layers, random_state_dict, random_weights_vae

GOLDEN = Path(__file__).parent / "golden" / "wan_vae.json"
VAE = random_weights_vae(dim=8)
LATENTS = torch.randn(1, 16, 6, 2, 3, generator=torch.Generator().manual_seed(0))
VIDEO = torch.rand(1, 3, 17, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def splits(total: int) -> st.SearchStrategy[list[int]]:
    """Every way to cut `total` frames into consecutive calls."""
    return st.lists(st.booleans(), min_size=total - 1, max_size=total - 1).map(
        lambda cuts: [len(run) for run in "".join("x|" if cut else "x" for cut in [*cuts, False]).split("|")]
    )


def test_names_and_shapes_at_width_96_are_those_of_the_official_file() -> None:
    with torch.device("meta"):
        state = StreamingVAE(96).state_dict()
    entries = [
        entry for name, t in state.items() for entry in (f"{name}:{'_'.join(str(size) for size in t.shape)}", name)
    ]
    assert len(state) == 194
    assert hashlib.md5(",".join(sorted(entries)).encode()).hexdigest() == "ccc42284ea13e1ad04693284c7a09be6"


def test_encode_and_decode_equal_the_public_implementation() -> None:
    golden = json.loads(GOLDEN.read_text())
    vae = random_weights_vae(golden["dim"], golden["seed"])
    video = (torch.arange(3 * 9 * 16 * 16) % 97 / 48 - 1).view(1, 3, 9, 16, 16)
    latents = (torch.arange(16 * 3 * 2 * 2) % 31 / 10 - 1.5).view(1, 16, 3, 2, 2)
    # The numbers came from the reference's own modules on the same seeded weights; decoding is sampled every 7th value.
    assert torch.allclose(vae.encode(video).flatten(), torch.tensor(golden["encoded"]), atol=1e-5)
    assert torch.allclose(vae.decode(latents, clamp=False).flatten()[::7], torch.tensor(golden["decoded"]), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(splits(6))
def test_decode_in_any_split_equals_whole_decode_bit_for_bit(sizes: list[int]) -> None:
    cache = VAE.new_cache()
    parts = [VAE.decode(part, cache) for part in LATENTS.split(sizes, dim=2)]
    assert torch.equal(torch.cat(parts, dim=2), VAE.decode(LATENTS))


@settings(max_examples=8, deadline=None)
@given(splits(5))
def test_encode_in_any_split_equals_whole_encode_bit_for_bit(sizes: list[int]) -> None:
    cache = VAE.new_cache()
    frames = [4 * size for size in sizes]
    frames[0] -= 3
    parts = [VAE.encode(part, cache) for part in VIDEO.split(frames, dim=2)]
    assert torch.equal(torch.cat(parts, dim=2), VAE.encode(VIDEO))


def test_first_latent_is_one_frame_and_every_further_one_four() -> None:
    cache = VAE.new_cache()
    assert VAE.decode(LATENTS[:, :, :3], cache).shape == (1, 3, 9, 16, 24)
    assert VAE.decode(LATENTS[:, :, 3:], cache).shape == (1, 3, 12, 16, 24)
    assert VAE.encode(VIDEO).shape == (1, 16, 5, 2, 3)


def test_frames_are_float32_in_range() -> None:
    video = random_weights_vae(8).bfloat16().decode(LATENTS * 5)
    assert video.dtype == torch.float32
    assert video.abs().max() == 1


def test_a_batch_decodes_like_its_members() -> None:
    pair = torch.cat([LATENTS, -LATENTS])
    assert torch.allclose(VAE.decode(pair)[1:], VAE.decode(-LATENTS), atol=1e-5)


def test_stored_cache_resumes_bit_for_bit(tmp_path: Path) -> None:
    cache = VAE.new_cache()
    VAE.decode(LATENTS[:, :, :1], cache)  # one latent: upsamplers have passed a frame but have no history yet
    save_file(cache.state_dict(), tmp_path / "cache.safetensors")
    expected = VAE.decode(LATENTS[:, :, 1:], cache)
    resumed = VAECache()
    resumed.load_state_dict(load_file(tmp_path / "cache.safetensors"))
    assert torch.equal(VAE.decode(LATENTS[:, :, 1:], resumed), expected)


def test_a_snapshot_is_not_changed_by_later_calls() -> None:
    cache = VAE.new_cache()
    VAE.decode(LATENTS[:, :, :1], cache)
    snapshot = cache.state_dict()
    before = copy.deepcopy(snapshot)
    VAE.decode(LATENTS[:, :, 1:3], cache)
    assert all(torch.equal(snapshot[name], before[name]) for name in before)


def test_cache_size_does_not_grow() -> None:
    cache = VAE.new_cache()
    assert cache.nbytes == 0
    VAE.decode(LATENTS[:, :, :1], cache)
    size = cache.nbytes
    VAE.decode(LATENTS[:, :, 1:], cache)
    assert cache.nbytes == size > 0
    assert len(cache.state_dict()) == 32


def test_one_cache_serves_an_encode_and_a_decode_stream() -> None:
    cache = VAE.new_cache()
    VAE.decode(LATENTS[:, :, :2], cache)
    assert torch.equal(VAE.encode(VIDEO[:, :, :1], cache), VAE.encode(VIDEO[:, :, :1]))


def test_stacked_conv2d_equals_causal_conv3d() -> None:
    for out, frames in ((8, 4), (3, 4), (8, 3), (32, 4)):  # several frames a window, an odd count, one frame a window
        layer = torch.nn.Conv3d(8, out, 3)
        line = torch.randn(2, frames + 2, 6, 5, 8)
        expected = F.conv3d(F.pad(line.permute(0, 4, 1, 2, 3), (1, 1, 1, 1)), layer.weight, layer.bias)
        assert torch.allclose(conv.causal_conv(layer, line), expected.permute(0, 2, 3, 4, 1), atol=1e-5)


def test_bands_of_rows_and_single_frames_change_nothing_beyond_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = torch.randn(1, 16, 2, 4, 4)
    expected = VAE.decode(latents, clamp=False)
    shapes, picture_conv = [], conv.picture_conv
    monkeypatch.setattr(conv, "picture_conv", lambda x, *a, **k: shapes.append(x.shape) or picture_conv(x, *a, **k))
    monkeypatch.setattr(conv, "STACK_LIMIT", 6000)
    monkeypatch.setattr(layers, "FRAMES_LIMIT", 4000)
    assert torch.allclose(VAE.decode(latents, clamp=False), expected, atol=1e-5)
    assert max(shape[1] for shape in shapes if shape[3] == 32) == 1  # full size: one frame,
    assert max(shape[2] for shape in shapes if shape[3] == 32) < 32  # and some rows, at a time


def test_stacked_weight_is_a_view_and_follows_updates() -> None:
    layer = copy.deepcopy(VAE).decoder.middle[0].residual["2"]
    stacked = conv.stacked_weight(layer.weight, 1)
    assert stacked.data_ptr() == layer.weight.data_ptr()
    assert stacked.is_contiguous(memory_format=torch.channels_last)
    layer.weight.data.mul_(2)
    assert torch.equal(stacked, conv.stacked_weight(layer.weight, 1))
    assert conv.stacked_weight(layer.bfloat16().weight, 1).data_ptr() == layer.weight.data_ptr()


def train_copy() -> StreamingVAE:
    return copy.deepcopy(VAE).train().requires_grad_(True)


def test_training_pass_over_all_frames_equals_streaming() -> None:
    vae = train_copy()
    assert torch.allclose(vae.encode(VIDEO), VAE.encode(VIDEO), atol=1e-5)
    assert torch.allclose(vae.decode(LATENTS), VAE.decode(LATENTS), atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    vae = train_copy()
    mu, logvar = vae.encode_moments(VIDEO[:, :, :5])
    (vae.decode(mu, clamp=False).square().mean() + logvar.square().mean()).backward()
    without = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_gradient_is_the_conv3d_gradient() -> None:
    layer = torch.nn.Conv3d(8, 8, 3)
    line = torch.randn(1, 6, 5, 5, 8)
    by_stack = torch.autograd.grad(conv.causal_conv(layer, line).square().sum(), layer.weight)[0]
    result = F.conv3d(F.pad(line.permute(0, 4, 1, 2, 3), (1, 1, 1, 1)), layer.weight, layer.bias)
    by_conv3d = torch.autograd.grad(result.square().sum(), layer.weight)[0]
    assert torch.allclose(by_stack, by_conv3d, rtol=1e-4, atol=1e-2)


def test_bfloat16_autocast_stays_close() -> None:
    vae = train_copy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoded, encoded = vae.decode(LATENTS), vae.encode(VIDEO)
    assert F.mse_loss(decoded, VAE.decode(LATENTS)) < 1e-3
    assert F.mse_loss(encoded, VAE.encode(VIDEO)) < 1e-3


def test_moments_are_raw_and_encode_normalises_them() -> None:
    vae = StreamingVAE.from_state_dict(VAE.state_dict(), mean=[1.0] * 16, std=[2.0] * 16)
    mu, logvar = vae.encode_moments(VIDEO)
    assert torch.equal(vae.encode(VIDEO), (mu - 1) / 2)
    assert logvar.shape == mu.shape
    assert torch.allclose(mu, VAE.encode_moments(VIDEO)[0])


def test_state_dict_round_trips_through_safetensors_at_any_width(tmp_path: Path) -> None:
    for dim in (8, 24):
        state = random_state_dict(dim, seed=3)
        save_file(StreamingVAE.from_state_dict(state).state_dict(), tmp_path / "vae.safetensors")
        loaded = load_file(tmp_path / "vae.safetensors")
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_operations_supply_the_layers() -> None:
    class Ops:
        class Conv2d(torch.nn.Conv2d):
            pass

        class Conv3d(torch.nn.Conv3d):
            pass

    vae = StreamingVAE.from_state_dict(VAE.state_dict(), operations=Ops)
    plain = (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)
    assert not [name for name, layer in vae.named_modules() if type(layer) in plain]
    assert torch.equal(vae.decode(LATENTS), VAE.decode(LATENTS))


def test_stand_in_is_seeded_and_stays_in_range() -> None:
    first, again = random_state_dict(8, seed=5), random_state_dict(8, seed=5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], random_state_dict(8, seed=6)["conv1.weight"])
    decoded: Tensor = random_weights_vae(16).decode(LATENTS, clamp=False)
    assert 0.1 < decoded.std() < 0.6


@torch.no_grad()
@pytest.mark.parametrize("at_once", [None, 3])
def test_the_form_for_cuda_decodes_the_same(monkeypatch, at_once):
    """conv3d over all frames at once, which only CUDA has by default, against stacked frames one latent at a time."""
    vae, latents = random_weights_vae(8), torch.randn(1, 16, 5, 4, 4)

    def decode() -> torch.Tensor:
        cache = vae.new_cache()
        return torch.cat([vae.decode(part, cache, clamp=False) for part in latents.split([2, 3], dim=2)], dim=2)

    exact = decode()
    monkeypatch.setitem(conv.FORMS, "cpu", conv.VOLUME)
    vae.at_once = at_once
    assert torch.allclose(decode(), exact, atol=1e-4)


def test_the_form_for_cuda_trains_the_same(monkeypatch):
    vae, video = random_weights_vae(8).train().requires_grad_(True), torch.randn(1, 3, 5, 16, 16)
    gradients = []
    for form in (conv.STACKED, conv.VOLUME):
        monkeypatch.setitem(conv.FORMS, "cpu", form)
        mean, _ = vae.encode_moments(video)
        vae.decode(mean, clamp=False).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in vae.parameters()])
        vae.zero_grad()
    assert all(one.abs().sum() > 0 for one in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)
