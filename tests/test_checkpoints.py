"""Every public layout of a transformer becomes the same canonical state dict, and loads and saves as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from joyavatar_core.checkpoints import (
    canonical_shapes,
    checkpoint_from_state_dict,
    key_fingerprint,
    load_into,
    open_checkpoint,
    save_checkpoint,
)
from joyavatar_core.checkpoints.layouts import canonical_names, from_diffusers
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.transformer import AvatarTransformer

GOLDEN = Path(__file__).parent / "golden" / "livetalk_1_3b_keys.json"
MINI = AvatarConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=4, text_dim=8, freq_dim=8, audio_dim=6, audio_hidden=4, fps=25
)
METADATA = MINI.metadata()


def mini(config: AvatarConfig = MINI, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in canonical_shapes(config).items()}


def module_of(shapes: dict[str, tuple[int, ...]]) -> nn.Module:
    """A module on the meta device with these parameters."""
    root = nn.Module()
    for name, shape in shapes.items():
        *parents, leaf = name.split(".")
        owner = root
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, nn.Module())
            owner = owner._modules[parent]
        owner.register_parameter(leaf, nn.Parameter(torch.empty(shape, device="meta")))
    return root


def assert_same(checkpoint, expected: dict[str, torch.Tensor]) -> None:
    found = dict(checkpoint.tensors())
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def to_diffusers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names as diffusers writes them, from a table of its own (not the inverse of the code under test)."""
    top = {
        "text_embedding.0.": "condition_embedder.text_embedder.linear_1.",
        "text_embedding.2.": "condition_embedder.text_embedder.linear_2.",
        "time_embedding.0.": "condition_embedder.time_embedder.linear_1.",
        "time_embedding.2.": "condition_embedder.time_embedder.linear_2.",
        "time_projection.1.": "condition_embedder.time_proj.",
        "head.modulation": "scale_shift_table",
        "head.head.": "proj_out.",
    }
    inside = {
        "self_attn.": "attn1.", "cross_attn.": "attn2.", ".q.": ".to_q.", ".k.": ".to_k.", ".v.": ".to_v.",
        ".o.": ".to_out.0.", "ffn.0.": "ffn.net.0.proj.", "ffn.2.": "ffn.net.2.", "norm3.": "norm2.",
        "modulation": "scale_shift_table",
    }  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        for old, new in (inside if name.startswith("blocks.") else top).items():
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


STATE = mini()
OTHER = mini(seed=1)
WRAPPED = {
    name.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module.").replace("ffn.", "_orig_mod.ffn."): tensor
    for name, tensor in prefixed("model._fsdp_wrapped_module.", STATE).items()
}
MERGED = {
    "base_model.model." + name.replace(".q.", ".q.base_layer.").replace("ffn.0.", "ffn.0.base_layer."): tensor
    for name, tensor in STATE.items()
}
GAN = dict.fromkeys(("_cls_pred_branch.0.weight", "_gan_ca_blocks.0.q.weight", "_register_tokens"), torch.ones(3))
VAE = {"first_stage_model.conv2.weight": torch.ones(1)}
PICKLES = {
    "generator_ema before generator": {
        "generator": prefixed("model.", OTHER), "generator_ema": prefixed("model.", STATE), "critic": {}, "step": 7,
    },
    "generator": {"generator": prefixed("model.", STATE), "critic": prefixed("model.", OTHER)},
    "generator_ema that is None": {"generator_ema": None, "generator": prefixed("model.", STATE)},
    "EMA with FSDP leftovers": {"generator_ema": WRAPPED},
    "GAN variant": {"generator": {**prefixed("model.", STATE), **GAN}},
    "model": {"model": STATE, "optimizer": {"state": {}}},
    "state_dict": {"state_dict": prefixed("module.", STATE), "epoch": 3},
    "nested": {"state_dict": {"model": STATE}},
    "flat": STATE,
}  # fmt: skip
FLATS = {
    "canonical": STATE,
    "ComfyUI": prefixed("diffusion_model.", STATE),
    "ComfyUI checkpoint": {**prefixed("model.diffusion_model.", STATE), **VAE},
    "DiffSynth": prefixed("pipe.dit.", STATE),
    "flattened training dump": {**prefixed("generator.model.", STATE), **prefixed("critic.model.", OTHER)},
    "flattened with EMA": {**prefixed("generator.model.", OTHER), **prefixed("generator_ema.model.", STATE)},
    "torch.compile and DDP": prefixed("module._orig_mod.", STATE),
    "PEFT-merged": MERGED,
    "diffusers": to_diffusers(STATE),
}  # fmt: skip


def test_the_shape_table_is_the_public_checkpoint_of_857_tensors():
    golden = {name: tuple(shape) for name, shape in json.loads(GOLDEN.read_text()).items()}
    assert len(golden) == 857
    assert canonical_shapes(AvatarConfig.from_shapes(golden)) == golden
    assert key_fingerprint(golden) == "2bf9513c7a3e908015f11a800fc9b820"


@pytest.mark.parametrize(
    ("tensors", "fingerprint", "config"),
    [
        (825, "9269f8db9040a9d860eaca435be61814", AvatarConfig(in_channels=16, audio_dim=0)),
        (857, "2bf9513c7a3e908015f11a800fc9b820", AvatarConfig()),
        (1137, "883a90b12576b9b8693a08cf690998dd", AvatarConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)),
    ],
)
def test_fingerprints_are_those_of_the_public_releases(tensors, fingerprint, config):
    shapes = canonical_shapes(config)
    assert (len(shapes), key_fingerprint(shapes)) == (tensors, fingerprint)


@pytest.mark.parametrize("layout", PICKLES)
def test_a_pickle_layout_becomes_the_canonical_state_dict(layout, tmp_path):
    torch.save(PICKLES[layout], tmp_path / "weights.pt")
    checkpoint = open_checkpoint(tmp_path / "weights.pt", metadata=METADATA)
    assert_same(checkpoint, STATE)
    assert checkpoint.config == MINI


@pytest.mark.parametrize("layout", FLATS)
def test_a_flat_layout_becomes_the_canonical_state_dict(layout, tmp_path):
    save_file(FLATS[layout], tmp_path / "weights.safetensors", metadata=METADATA)
    checkpoint = open_checkpoint(tmp_path / "weights.safetensors")
    assert_same(checkpoint, STATE)
    assert checkpoint.config == MINI
    assert checkpoint.fingerprint() == key_fingerprint(canonical_shapes(MINI))
    assert_same(checkpoint_from_state_dict(FLATS[layout], METADATA), STATE)


def test_layouts_have_names_for_people(tmp_path):
    names = {layout: checkpoint_from_state_dict(state, METADATA).layout for layout, state in FLATS.items()}
    assert names["canonical"] == "JoyAvatar"
    assert {names["ComfyUI"], names["diffusers"], names["PEFT-merged"]} == {"ComfyUI", "diffusers", "PEFT-merged"}
    torch.save(PICKLES["generator"], tmp_path / "w.pt")
    assert open_checkpoint(tmp_path / "w.pt", metadata=METADATA).layout == "Self-Forcing .pt (generator)"


def test_the_pickle_format_before_2020_opens(tmp_path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(open_checkpoint(tmp_path / "old.pth", metadata=METADATA), STATE)


def test_shards_are_one_checkpoint(tmp_path):
    names = list(STATE)
    for n, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: STATE[name] for name in part}, tmp_path / f"t-0000{n}-of-00002.safetensors", metadata=METADATA)
    assert_same(open_checkpoint(tmp_path / "t-00002-of-00002.safetensors"), STATE)
    (tmp_path / "t-00001-of-00002.safetensors").unlink()
    with pytest.raises(AvatarError, match=r"one of 2 shards and 't-00001-of-00002.safetensors' is not beside it"):
        open_checkpoint(tmp_path / "t-00002-of-00002.safetensors")


def test_mixed_dtypes_are_kept(tmp_path):
    mixed = {name: tensor if "norm" in name else tensor.bfloat16() for name, tensor in STATE.items()}
    save_file(mixed, tmp_path / "mixed.safetensors", metadata=METADATA)
    checkpoint = open_checkpoint(tmp_path / "mixed.safetensors")
    assert_same(checkpoint, mixed)
    assert checkpoint.dtype == torch.bfloat16
    assert {tensor.dtype for _, tensor in checkpoint.tensors(torch.float16)} == {torch.float16}


def test_a_text_to_video_model_has_no_audio_branch():
    config = AvatarConfig(dim=128, ffn_dim=32, num_heads=1, num_layers=2, in_channels=16, audio_dim=0, text_dim=8)
    checkpoint = checkpoint_from_state_dict(mini(config))
    assert checkpoint.config.audio_dim == 0
    assert (checkpoint.config.has_reference, checkpoint.layout) == (False, "Wan2.1")


@given(
    st.lists(st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])), st.data()
)
@settings(max_examples=50, deadline=None)
def test_wrapper_leftovers_vanish_wherever_they_stand(leftovers, data):
    name = data.draw(st.sampled_from(list(STATE)))
    parts = ["model", *name.split(".")]
    for leftover in leftovers:
        parts.insert(data.draw(st.integers(0, len(parts) - 1)), leftover)
    assert canonical_names([".".join(parts)]) == {name: ".".join(parts)}


def test_a_canonical_name_is_never_taken_for_a_diffusers_one():
    diffusers_only = [name for name in STATE if from_diffusers(name) != name]
    assert diffusers_only == []


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(AvatarError, match=r"both mean 'patch_embedding\.bias'"):
        checkpoint_from_state_dict({**STATE, "model.patch_embedding.bias": STATE["patch_embedding.bias"]}, METADATA)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_module_on_the_meta_device_gets_the_files_tensors(dtype, tmp_path):
    save_checkpoint(tmp_path / "w.safetensors", STATE, MINI)
    module = module_of(canonical_shapes(MINI))
    load_into(module, open_checkpoint(tmp_path / "w.safetensors"), dtype)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, STATE[name].to(dtype or torch.float32))


def test_loading_into_another_model_names_what_differs():
    checkpoint = checkpoint_from_state_dict(STATE, METADATA)
    shapes = canonical_shapes(MINI)
    del shapes["head.modulation"]
    with pytest.raises(AvatarError, match=r"unexpected tensors 1 \(head.modulation\)"):
        load_into(module_of(shapes), checkpoint)
    with pytest.raises(AvatarError, match=r"missing tensors 1 \(extra.weight\)"):
        load_into(module_of(canonical_shapes(MINI) | {"extra.weight": (2,)}), checkpoint)
    with pytest.raises(AvatarError, match=r"head.modulation is \[1, 2, 24\], expected \[1, 2, 25\]"):
        load_into(module_of(canonical_shapes(MINI) | {"head.modulation": (1, 2, 25)}), checkpoint)


def test_a_saved_checkpoint_reads_back_with_its_config(tmp_path):
    path = tmp_path / "saved.safetensors"
    save_checkpoint(path, STATE, MINI)
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint, STATE)
    assert checkpoint.config == MINI
    save_checkpoint(path, dict(checkpoint.tensors()), MINI)  # over the file that is mapped
    assert_same(open_checkpoint(path), STATE)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "saved.safetensors"
    save_checkpoint(path, STATE, MINI)
    before = load_file(path)
    with pytest.raises(AvatarError, match="was not written"):
        save_checkpoint(path, {"head.modulation": torch.ones(1)}, MINI)
    with pytest.raises(AvatarError, match="Cannot write"):
        save_checkpoint(tmp_path / "nowhere" / "saved.safetensors", STATE, MINI)
    assert set(load_file(path)) == set(before)


@pytest.mark.parametrize("config", [MINI, AvatarConfig(), AvatarConfig(in_channels=16, audio_dim=0)])
def test_the_transformer_has_exactly_the_canonical_tensors(config):
    module = AvatarTransformer(config, device="meta")
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == canonical_shapes(config)


def test_the_transformer_takes_a_public_layout(tmp_path):
    save_file(to_diffusers(STATE), tmp_path / "w.safetensors", metadata=METADATA)
    module = AvatarTransformer(MINI, device="meta")
    load_into(module, open_checkpoint(tmp_path / "w.safetensors"))
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in module.state_dict().items())
