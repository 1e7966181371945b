"""An OmniAvatar-style release (LoRA + full tensors) merges onto its base exactly as a dense sum."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from joyavatar_core.checkpoints import canonical_shapes, checkpoint_from_state_dict, open_checkpoint
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError

RANK, ALPHA = 4, 2.0
BASE = AvatarConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=4, in_channels=16, text_dim=8, freq_dim=8, audio_dim=0)
AVATAR = AvatarConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=4, text_dim=8, freq_dim=8, audio_dim=6)
TARGETS = [
    f"blocks.{n}.{layer}"
    for n in range(4)
    for layer in [*(f"{a}_attn.{x}" for a in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2"]
]


def random(shapes, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def lora_of(shapes, seed=2, suffix=".default.weight", dtype=torch.float32):
    pairs = {}
    for target in TARGETS:
        rows, columns = shapes[f"{target}.weight"]
        pairs[f"{target}.lora_A{suffix}"] = (RANK, columns)
        pairs[f"{target}.lora_B{suffix}"] = (rows, RANK)
    return random(pairs, seed, dtype)


def dense(base, lora, factor, suffix=".default.weight"):
    merged = dict(base)
    for target in TARGETS:
        weight = base[f"{target}.weight"]
        product = lora[f"{target}.lora_B{suffix}"].float() @ lora[f"{target}.lora_A{suffix}"].float()
        merged[f"{target}.weight"] = (weight.float() + factor * product).to(weight.dtype)
    return merged


@pytest.fixture
def release(tmp_path):
    """A 16-channel base in bfloat16 and a release in float32, as files; and what they must become."""
    base = random(canonical_shapes(BASE), 1, torch.bfloat16)
    full = {
        name: tensor
        for name, tensor in random(canonical_shapes(AVATAR), 3).items()
        if name.startswith(("patch_embedding", "audio_"))
    }
    lora = lora_of(canonical_shapes(AVATAR))
    (tmp_path / "base").mkdir()
    (tmp_path / "release").mkdir()
    save_file(base, tmp_path / "base" / "base.safetensors", metadata=BASE.metadata())
    torch.save({**lora, **full}, tmp_path / "release" / "pytorch_model.pt")
    expected = {**dense(base, lora, ALPHA / RANK), **full}
    return tmp_path / "release" / "pytorch_model.pt", tmp_path / "base" / "base.safetensors", expected


def assert_close(checkpoint, expected):
    found = dict(checkpoint.tensors())
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        # one rounding of the last bit apart at most: the product is added in one step rather than two
        tolerance = 2**-7 if tensor.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize(
    "config",
    [{"lora_rank": RANK, "lora_alpha": ALPHA}, {"lora": {"rank": RANK, "alpha": ALPHA}},
     {"model_config": {"lora_rank": RANK, "lora_alpha": ALPHA}}, {"rank": RANK, "alpha": ALPHA}],
)  # fmt: skip
def test_a_release_merges_onto_its_base_with_the_scale_of_its_config(release, config):
    path, base, expected = release
    path.with_name("config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(path, base=base)
    assert checkpoint.layout.startswith("OmniAvatar LoRA + audio on ")
    assert (checkpoint.config.in_channels, checkpoint.config.audio_dim) == (33, 6)
    assert checkpoint.shapes == canonical_shapes(AVATAR)
    assert_close(checkpoint, expected)


def test_a_release_merges_with_a_scale_that_is_given(release):
    path, base, expected = release
    assert_close(open_checkpoint(path, base=open_checkpoint(base), lora_alpha=ALPHA, lora_rank=RANK), expected)


def test_the_merge_is_computed_in_float32_and_rounded_once(release):
    path, base, expected = release
    merged = dict(open_checkpoint(path, base=base, lora_alpha=ALPHA).tensors(torch.float32))
    name = "blocks.2.ffn.0.weight"
    assert torch.equal(merged[name], merged[name].bfloat16().float())  # the same numbers as a merged bfloat16 file
    assert (merged[name] - expected[name].float()).abs().max() <= expected[name].abs().max() * 2**-7


def test_a_scale_is_asked_for_and_never_assumed(release):
    path, base, _ = release
    with pytest.raises(AvatarError, match=r"rank 4 but nothing says its alpha.*give the alpha and the rank"):
        open_checkpoint(path, base=base)
    with pytest.raises(AvatarError, match=r"has rank 4, expected 8"):
        open_checkpoint(path, base=base, lora_alpha=ALPHA, lora_rank=8)
    path.with_name("config.json").write_text("{not json")
    with pytest.raises(AvatarError, match=r"'config.json' beside the LoRA cannot be used"):
        open_checkpoint(path, base=base)


def test_a_lora_without_its_base_asks_for_it(release):
    path, _, _ = release
    with pytest.raises(AvatarError, match=r"is a LoRA \(40 pairs\) and not a whole model.*as the base"):
        open_checkpoint(path, lora_alpha=ALPHA)


def test_a_lora_of_another_width_is_refused(release, tmp_path):
    path, _, _ = release
    wide = AvatarConfig(dim=48, ffn_dim=32, num_heads=2, num_layers=4, in_channels=16, text_dim=8, audio_dim=0)
    save_file(random(canonical_shapes(wide), 1), tmp_path / "wide.safetensors", metadata=wide.metadata())
    with pytest.raises(AvatarError, match=r"expected the base it was made for"):
        open_checkpoint(path, base=tmp_path / "wide.safetensors", lora_alpha=ALPHA)


def test_without_its_own_patch_embedding_a_release_keeps_the_bases_first_channels(release, tmp_path):
    path, base, _ = release
    audio_only = {name: t for name, t in torch.load(path, weights_only=True).items() if "patch_embedding" not in name}
    torch.save(audio_only, tmp_path / "audio_only.pt")
    tensors = dict(open_checkpoint(tmp_path / "audio_only.pt", base=base, lora_alpha=ALPHA).tensors())
    patch, narrow = tensors["patch_embedding.weight"], dict(open_checkpoint(base).tensors())["patch_embedding.weight"]
    assert patch.shape == (24, 33, 1, 2, 2)
    assert torch.equal(patch[:, :16], narrow)
    assert not patch[:, 16:].any()


def test_a_longlive_lora_merges_onto_its_base(tmp_path):
    base = random(canonical_shapes(BASE), 1)
    lora = lora_of(canonical_shapes(BASE), suffix=".weight")
    torch.save({"generator": {f"model.{name}": t for name, t in base.items()}}, tmp_path / "longlive_base.pt")
    wrapped = {f"base_model.model._fsdp_wrapped_module.{name}": tensor for name, tensor in lora.items()}
    torch.save({"generator_lora": wrapped, "critic_lora": wrapped}, tmp_path / "lora.pt")
    opened = open_checkpoint(tmp_path / "longlive_base.pt", metadata=BASE.metadata())
    checkpoint = open_checkpoint(tmp_path / "lora.pt", base=opened, lora_alpha=RANK, metadata=BASE.metadata())
    assert_close(checkpoint, dense(base, lora, 1.0, ".weight"))


def test_an_unmerged_peft_dump_is_its_own_base():
    base, lora = random(canonical_shapes(AVATAR), 1), lora_of(canonical_shapes(AVATAR))
    dump = {f"base_model.model.{name}": tensor for name, tensor in (base | lora).items()}
    for target in TARGETS:
        dump[f"base_model.model.{target}.base_layer.weight"] = dump.pop(f"base_model.model.{target}.weight")
    checkpoint = checkpoint_from_state_dict(dump, AVATAR.metadata(), lora_alpha=ALPHA)
    assert_close(checkpoint, dense(base, lora, ALPHA / RANK))


def test_adapters_that_are_not_a_plain_product_are_refused():
    base = random(canonical_shapes(AVATAR), 1)
    with pytest.raises(AvatarError, match="lora_magnitude_vector' is of a DoRA"):
        checkpoint_from_state_dict(
            {**base, "blocks.0.ffn.0.lora_magnitude_vector": torch.ones(3)}, AVATAR.metadata(), lora_alpha=1
        )
    with pytest.raises(AvatarError, match="not a pair of matrices"):
        checkpoint_from_state_dict(
            {**base, "blocks.0.ffn.0.lora_A.weight": torch.ones(3, 24)}, AVATAR.metadata(), lora_alpha=1
        )
