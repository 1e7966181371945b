"""wav2vec2: number for number the public avatars' encoder, from any layout of its weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from joyavatar_core.audio import ArrayAudio, Wav2Vec2, reference_features
from joyavatar_core.audio.wav2vec2 import normalise, stretch
from joyavatar_core.errors import AvatarError

GOLDEN = Path(__file__).parent / "golden" / "wav2vec.safetensors"
HEADS = 4


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def weights(golden):
    return {key[2:]: value for key, value in golden.items() if key.startswith("w.")}


@pytest.fixture(scope="module")
def encoder(weights):
    return Wav2Vec2.load(weights, num_heads=HEADS)


def test_conv_stack_and_hidden_states_equal_the_public_code(encoder, golden):
    conv = encoder.conv_features(golden["x"][0])
    assert (conv - golden["conv"]).abs().max() <= 1e-5
    last, *states = encoder.hidden_states(stretch(conv, 81))
    for index, state in enumerate(states):
        assert (state - golden[f"h{index}"]).abs().max() <= 1e-5
    assert torch.equal(last, states[-1])


def test_reference_timing_cuts_normalises_and_stretches_the_whole_clip(encoder, golden):
    wave = golden["x"][0] * 0.1 + 0.02  # normalisation takes scale and offset out again
    longer = ArrayAudio(torch.cat([wave, wave]), 16000)
    features = reference_features(longer, encoder, seconds=5)
    conv = encoder.conv_features(normalise(wave))
    assert features.shape == (81, encoder.feature_dim) == (81, 5 * 48)
    assert (features - torch.cat(encoder.hidden_states(stretch(conv, 81)), -1)[0]).abs().max() <= 1e-5
    shorter = reference_features(ArrayAudio(wave[:16000], 16000), encoder, seconds=5)
    assert len(shorter) == 81  # stretched, not padded


def test_normalisation_is_that_of_the_feature_extractor():
    wave = torch.arange(8.0)
    assert torch.allclose(normalise(wave), (wave - 3.5) / (5.25 + 1e-7) ** 0.5)
    assert not normalise(torch.zeros(8)).any()


def renamed(weights, old, new):
    return {key.replace(old, new): value for key, value in weights.items()}


@pytest.mark.parametrize("layout", ["transformers", "weight_g and weight_v", "native", "wrapped", "half"])
def test_every_layout_of_the_weights_gives_the_same_model(layout, weights, encoder, tmp_path, golden):
    if layout == "transformers":
        state = {f"wav2vec2.{key}": value for key, value in weights.items()}
        state |= {"lm_head.weight": torch.zeros(32, 48), "lm_head.bias": torch.zeros(32)}
        save_file(state, tmp_path / "w.safetensors")
        loaded = Wav2Vec2.load(tmp_path / "w.safetensors", num_heads=HEADS)
    elif layout == "weight_g and weight_v":
        state = renamed(weights, "parametrizations.weight.original0", "weight_g")
        torch.save(renamed(state, "parametrizations.weight.original1", "weight_v"), tmp_path / "w.bin")
        loaded = Wav2Vec2.load(tmp_path / "w.bin", num_heads=HEADS)
    elif layout == "native":
        loaded = Wav2Vec2.load(dict(weights), num_heads=HEADS)
    elif layout == "wrapped":
        torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "w.pt")
        loaded = Wav2Vec2.load(tmp_path / "w.pt", num_heads=HEADS)
    else:
        loaded = Wav2Vec2.load({key: value.half() for key, value in weights.items()}, num_heads=HEADS)
    ours, theirs = (e.encode_stretched(golden["x"][0], 81) for e in (loaded, encoder))
    assert (ours - theirs).abs().max() <= (1e-2 if layout == "half" else 0)


def test_bfloat16_runs_and_stays_close(weights, encoder, golden):
    half = Wav2Vec2.load(weights, num_heads=HEADS, dtype=torch.bfloat16)
    edges = [1000 * n for n in range(81)]
    for ours, theirs in (
        (half.encode_stretched(golden["x"][0], 81), encoder.encode_stretched(golden["x"][0], 81)),
        (half.encode(golden["x"][0], edges), encoder.encode(golden["x"][0], edges)),
    ):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - theirs).square().mean().sqrt() < 0.05


def test_loading_draws_no_random_numbers(weights):
    state = torch.get_rng_state()
    Wav2Vec2.load(weights, num_heads=HEADS)
    assert torch.equal(state, torch.get_rng_state())


def test_a_frame_is_read_at_its_own_time_whatever_the_window_starts_with(encoder):
    """On the exact clock the conv frame a video frame reads follows from its samples, not from the window's length."""
    wave = torch.randn(32000, generator=torch.Generator().manual_seed(0))
    seen = []
    encoder_states = encoder.hidden_states
    encoder.hidden_states = lambda conv: seen.append(conv) or encoder_states(conv)
    try:
        encoder.encode(wave, [1000 * n for n in range(33)])
        encoder.encode(wave, [1000 * n for n in range(8, 33)])
    finally:
        del encoder.hidden_states
    assert torch.equal(seen[0][..., 8:], seen[1])


def test_files_that_are_no_encoder_are_refused_with_a_sentence(weights, tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"x": Attack()}, tmp_path / "attack.bin")
    (tmp_path / "cut.safetensors").write_bytes(GOLDEN.read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("hello")
    for name in ("attack.bin", "cut.safetensors", "text.pt"):
        with pytest.raises(AvatarError, match="cannot be read as weights"):
            Wav2Vec2.load(tmp_path / name)
    with pytest.raises(AvatarError, match="is not a file"):
        Wav2Vec2.load(tmp_path)
    with pytest.raises(AvatarError, match="is no wav2vec2 model"):
        Wav2Vec2.load({"model.encoder.embed_positions.weight": torch.zeros(3)})
    with pytest.raises(AvatarError, match="wav2vec2 large model"):
        Wav2Vec2.load({**weights, "feature_extractor.conv_layers.1.layer_norm.weight": torch.zeros(32)})
    with pytest.raises(AvatarError, match="48 wide, which 0 heads do not divide; give num_heads"):
        Wav2Vec2.load(weights)
    lacking = {key: value for key, value in weights.items() if key != "encoder.layers.1.attention.q_proj.bias"}
    with pytest.raises(AvatarError, match=r"lacks 1 tensors .* first 'encoder\.layers\.1\.attention\.q_proj\.bias'"):
        Wav2Vec2.load(lacking, num_heads=HEADS)
    odd = {**weights, "encoder.layers.1.attention.q_proj.bias": torch.zeros(7)}
    with pytest.raises(AvatarError, match="is no wav2vec2 base model: size mismatch"):
        Wav2Vec2.load(odd, num_heads=HEADS)


def test_without_transformers_the_sentence_says_what_to_install(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AvatarError, match="need the package 'transformers'"):
        Wav2Vec2.load(weights, num_heads=HEADS)
