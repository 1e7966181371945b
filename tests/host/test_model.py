"""The MODEL under the host's own nodes: LoRA, casting, attention, and nodes it has nothing to do with."""

from __future__ import annotations

import pytest


def test_native_lora_patches_exactly_and_comes_off_without_a_trace(probe):
    targets = ["blocks.0.self_attn.q", "blocks.1.cross_attn.o"]
    assert probe["lora_changes"] == [f"diffusion_model.{layer}.weight" for layer in targets]
    assert probe["lora_error"] < 1e-5
    assert probe["restored"] and probe["unloaded"]
    assert probe["lora_moves_latents"] > 0


NOT_OURS = ["KSampler", "ModelSamplingSD3", "ModelSave", "FreeU_V2", "SkipLayerGuidanceDiT", "PatchModelAddDownscale"]
REFUSED = "AvatarError: This node does not fit a JoyAvatar model"


@pytest.mark.parametrize("node", NOT_OURS)
def test_other_model_nodes_get_one_sentence(probe, node):
    assert probe[node].startswith(REFUSED)


def test_easy_cache_is_refused_or_said_to_have_no_effect(probe):
    """The one of 0.3.64 does not look at the model."""
    no_effect = "nothing was refused easycache, set by a node before this one, has no effect on a JoyAvatar model."
    assert probe["EasyCache"].startswith(REFUSED) or probe["EasyCache"] == no_effect


def test_the_hosts_sampler_for_autoregressive_video_refuses_an_avatar(probe):
    if "SamplerARVideo" not in probe:
        pytest.skip("THIS HOST HAS NO SamplerARVideo")
    assert probe["SamplerARVideo"].startswith("AvatarError: This node does not fit a JoyAvatar model")


def test_the_class_with_dynamic_vram_gives_the_same_stream(probe):
    if "dynamic" not in probe:
        pytest.skip("THIS HOST HAS NO DYNAMIC VRAM")
    assert probe["dynamic"] == [True, True]
    difference, moved = probe["dynamic_bare_lora"]
    assert difference < 1e-6 and moved > 0


def test_loras_that_change_nothing_are_said(probe):
    foreign, oversized, fitting = probe["lora_remarks"]
    assert "no layer of this model" in foreign[0] and "other sizes" in oversized[0] and fitting == []


def test_the_host_casts_half_precision_weights(probe):
    assert probe["compute_dtype"] == "torch.float32"  # what the host computes in on a CPU
    assert 0 < probe["bf16_difference"] < 0.05


def test_fp8_weights_are_small_near_and_take_loras(probe):
    assert probe["fp8_size"] < 0.35 and 0 < probe["fp8_difference"] < 0.1
    assert probe["fp8_lora_error"] < 0.06 < probe["fp8_lora_size"]  # relative to the weights
    assert probe["fp8_remarks"] == [] and probe["fp8_restored"] and probe["fp8_lowvram_difference"] < 0.05


def test_the_hosts_attention_gives_the_same_stream(probe):
    assert probe["repeats"] and probe["host_attention_difference"] < 1e-3


def test_torch_compile_is_honoured(probe):
    assert probe["compiled_graphs"] == 2  # a denoising pass and a pass that only remembers, each in one piece
    assert probe["compile_difference"] < 1e-5 and probe["compile_remarks"] == []
    assert probe["compile_leaves_the_model"] == "AvatarTransformer"


def test_weights_left_offloaded_give_the_same_stream_with_its_lora(probe):
    assert probe["lowvram_patches"] == 2 and probe["lowvram_difference"] < 1e-4


def test_loras_of_modulations_and_norms_are_exact_loaded_whole_or_in_part(probe):
    assert probe["bare_lora_error"] < 1e-6 and probe["bare_lora_moves_latents"] > 0
    assert probe["bare_lowvram_difference"] < 1e-4
    assert probe["bare_restored"] and probe["bare_lowvram_restored"]


def test_no_weight_is_used_where_it_is_kept(probe):
    assert probe["kept"] == ["cpu", "meta"] and probe["bare_on"] == ["meta"]
    assert probe["used_where_kept"] == []
    assert probe["wav2vec2_kept"] == ["cpu", "meta"] and probe["wav2vec2_used_where_kept"] == []


def test_the_native_audio_encoder_gives_the_features_of_its_file(probe):
    shape, difference = probe["wav2vec2"]
    assert shape == [8, 10752] and difference < 0.01  # the host keeps it in half precision
    assert "Load Audio Encoder" in probe["wav2vec2_missing"] and "disconnect" in probe["wav2vec2_unwanted"]
