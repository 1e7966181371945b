"""`describe` tells what a weights file is, without reading a tensor."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from joyavatar_core.checkpoints import canonical_shapes, inspection, open_checkpoint, save_checkpoint
from joyavatar_core.checkpoints.reader import from_state_dict
from joyavatar_core.cli import main
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.embedded import ASSETS

MINI = AvatarConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=4, text_dim=8, freq_dim=8, audio_dim=6, audio_hidden=4)


def described(monkeypatch, shapes, dtype=torch.bfloat16):
    """The description of a file that would have these tensors."""
    state = {name: torch.empty(shape, device="meta", dtype=dtype) for name, shape in shapes.items()}
    monkeypatch.setattr(inspection, "read_file", lambda path: from_state_dict(state, "file"))
    description = inspection.describe("file.safetensors")
    assert json.loads(json.dumps(description)) == description
    assert inspection.format_description(description)
    return description


def umt5_shapes():
    shapes = {"token_embedding.weight": (256384, 4096), "norm.weight": (4096,)}
    for block in (f"blocks.{n}" for n in range(24)):
        shapes |= {f"{block}.attn.{letter}.weight": (4096, 4096) for letter in "qkvo"}
        shapes |= {f"{block}.norm{n}.weight": (4096,) for n in (1, 2)}
        shapes |= {f"{block}.ffn.{name}.weight": (10240, 4096) for name in ("gate.0", "fc1")}
        shapes |= {f"{block}.ffn.fc2.weight": (4096, 10240), f"{block}.pos_embedding.embedding.weight": (32, 64)}
    return shapes


@pytest.mark.parametrize(("name", "kind"), [
    ("avatar", "transformer"), ("visemes", "JoyAvatar viseme encoder"), ("face_locator", "JoyAvatar face locator"),
    ("face_aligner", "JoyAvatar face aligner"), ("refiner", "JoyAvatar portrait refiner"),
    ("face_editor", "JoyAvatar face editor"), ("latent_flow", "JoyAvatar latent flow"),
    ("person_finder", "JoyAvatar person finder"),
])  # fmt: skip
def test_the_projects_own_networks_are_known(name, kind):
    assert inspection.describe(ASSETS / f"{name}.safetensors")["kind"] == kind
    with pytest.raises(AvatarError) if kind != "transformer" else nullcontext():
        open_checkpoint(ASSETS / f"{name}.safetensors")


def test_the_embedded_avatar_is_described_by_its_word(capsys):
    assert main(["inspect", "embedded"]) == 0
    assert "avatar.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shapes", "kind", "name", "parameters"),
    [
        (
            canonical_shapes(AvatarConfig(in_channels=16, audio_dim=0)),
            "transformer",
            "Wan2.1-T2V-1.3B or a student of it",
            1_418_996_800,
        ),
        (
            canonical_shapes(AvatarConfig()),
            "transformer",
            "avatar 1.3B (LiveTalk, OmniAvatar or AvatarForcing merged)",
            1_421_187_232,
        ),
        (umt5_shapes(), "umt5 text encoder", "umt5-xxl encoder (Wan2.1)", 5_680_910_336),
    ],
)
def test_a_public_release_is_known_by_name(monkeypatch, shapes, kind, name, parameters):
    description = described(monkeypatch, shapes)
    assert (description["kind"], description["name"], description["parameters"]) == (kind, name, parameters)


def test_a_prefix_does_not_hide_a_public_release(monkeypatch):
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in canonical_shapes(AvatarConfig()).items()}
    description = described(monkeypatch, shapes)
    assert description["layout"] == "ComfyUI"
    assert description["name"] == "avatar 1.3B (LiveTalk, OmniAvatar or AvatarForcing merged)"


def test_a_file_of_ours_says_its_behaviour(tmp_path):
    state = {name: torch.ones(shape) for name, shape in canonical_shapes(MINI).items()}
    save_checkpoint(tmp_path / "ours.safetensors", state, MINI)
    description = inspection.describe(tmp_path / "ours.safetensors")
    assert (description["layout"], description["heads"], description["fps"]) == ("JoyAvatar", "2 of 12", 16)
    text = inspection.format_description(description)
    assert "1000 (sigma 1), 936 (sigma 0.9375)" in text
    assert "float32" in text


def test_a_transformer_that_cannot_be_used_says_why(monkeypatch):
    shapes = canonical_shapes(AvatarConfig(in_channels=36, audio_dim=0))
    assert "takes 36 input channels" in described(monkeypatch, shapes)["problem"]
    assert "is int8" in described(monkeypatch, canonical_shapes(MINI), torch.int8)["problem"]


def test_a_vae_says_its_width(monkeypatch):
    shapes = {
        "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
        "decoder.conv1.weight": (384, 16, 3, 3, 3),
        "decoder.head.2.weight": (3, 96, 3, 3, 3),
    }
    description = described(monkeypatch, shapes)
    assert (description["kind"], description["base_dim"], description["latent_channels"]) == ("Wan2.1 VAE", 96, 16)


def test_a_tiny_vae_and_an_audio_encoder_are_told_apart(monkeypatch):
    tiny = described(monkeypatch, {"decoder.1.weight": (256, 16, 3, 3), "decoder.3.conv.0.weight": (256, 512, 3, 3)})
    assert (tiny["kind"], tiny["latent_channels"]) == ("TAEHV tiny VAE", 16)
    audio = described(
        monkeypatch,
        {
            "wav2vec2.feature_extractor.conv_layers.0.conv.weight": (512, 1, 10),
            "wav2vec2.feature_projection.projection.weight": (768, 512),
            "wav2vec2.encoder.layers.0.final_layer_norm.weight": (768,),
            "wav2vec2.encoder.layers.1.final_layer_norm.weight": (768,),
        },
    )
    assert (audio["kind"], audio["hidden"], audio["layers"]) == ("wav2vec2 audio encoder", 768, 2)


def test_a_lora_says_its_rank_and_whether_its_scale_is_known(tmp_path):
    lora = {
        "blocks.0.ffn.0.lora_A.default.weight": torch.ones(8, 24),
        "blocks.0.ffn.0.lora_B.default.weight": torch.ones(32, 8),
        "audio_proj.proj.bias": torch.ones(4),
    }
    torch.save(lora, tmp_path / "pytorch_model.pt")
    description = inspection.describe(tmp_path / "pytorch_model.pt")
    assert (description["kind"], description["pairs"], description["rank"]) == ("LoRA", 1, 8)
    assert "has to be given" in description["alpha"]
    (tmp_path / "config.json").write_text('{"lora_alpha": 64, "lora_rank": 8}')
    assert inspection.describe(tmp_path / "pytorch_model.pt")["alpha"] == 64


def test_an_unknown_file_shows_its_first_tensors_and_a_wrong_one_its_kind(tmp_path):
    save_file({"some.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    description = inspection.describe(tmp_path / "x.safetensors")
    assert (description["kind"], description["first_tensors"]) == ("unknown", ["some.weight"])
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(AvatarError, match="is a PNG picture"):
        inspection.describe(tmp_path / "x.png")


def test_a_vae_with_other_shapes_says_so(tmp_path):
    names = ("decoder.middle.0.residual.0.gamma", "decoder.conv1.weight")
    save_file({name: torch.zeros(3) for name in names}, tmp_path / "vae.safetensors")
    assert "other shapes than a Wan2.1 VAE's" in inspection.describe(tmp_path / "vae.safetensors")["problem"]
