"""A file that is not a usable transformer gets one sentence: what was found, what was expected."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from joyavatar_core.checkpoints import canonical_shapes, checkpoint_from_state_dict, open_checkpoint
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError

MINI = AvatarConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=4, text_dim=8, freq_dim=8, audio_dim=6, audio_hidden=4)
STATE = {name: torch.ones(shape) for name, shape in canonical_shapes(MINI).items()}


def refusal(path, **options) -> str:
    with pytest.raises(AvatarError) as caught:
        open_checkpoint(path, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 400
    return sentence


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"abc", "no known kind"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML or XML page"),
        (b"\n\n<html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"GGUF\x03\x00\x00\x00\x7b\x00\x00\x00", "not a whole GGUF file"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a PNG picture"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"RIFF\x00\x00\x00\x00WAVE", "a WAV"),
        (b"\x00\x00\x00\x20ftypisom", "an MP4 video"),
        (b'{"weight_map": {}}', "a JSON text"),
        (b"\x01\x02\x03\x04" * 40, "no known kind"),
        (zip_bytes(), "is a PyTorch (zip or pickle) file, not safetensors; rename it to .pt"),
        ((2**40).to_bytes(8, "little") + b"{}", "no known kind"),
        ((64).to_bytes(8, "little") + b"{" * 64, "not a whole safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_named(content, found, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert found in refusal(path)


@pytest.mark.parametrize("content", [zip_bytes(), b"\x80\x02garbage"])
def test_a_zip_or_pickle_that_is_not_pytorchs_is_refused(content, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert "expected a .safetensors or PyTorch checkpoint" in refusal(path)


def test_what_is_not_a_file_is_named(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.safetensors")
    assert "Is a directory" in refusal(tmp_path) or os.name == "nt"


@pytest.mark.parametrize("keep", [4, 9, 100, 5000, -1])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "old pickle"])
def test_a_truncated_file_is_refused(kind, keep, tmp_path):
    path = tmp_path / "model"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    refusal(path, metadata=MINI.metadata())


class Malicious:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"echo harm > {self.marker}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "old torch", "plain pickle", "inside a state dict"])
def test_a_malicious_pickle_is_refused_and_not_run(how, tmp_path):
    marker, path = tmp_path / "harm", tmp_path / "model.pt"
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(marker)))
    else:
        harm = Malicious(marker)
        content = {"generator": STATE, "extra": harm} if how == "inside a state dict" else harm
        torch.save(content, path, _use_new_zipfile_serialization=how != "old torch")
    assert "was not opened because it" in refusal(path)
    assert not marker.exists()


def test_a_pickle_that_asks_for_code_says_which(tmp_path):
    torch.save({"args": Malicious(tmp_path / "harm")}, tmp_path / "model.pt")
    assert f"asks for {os.name}.system" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"model": {}}, 5, torch.ones(3)])
def test_a_pickle_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "model.pt")
    assert "expected a state dict" in refusal(tmp_path / "model.pt")


OTHER_MODELS = {
    "a Wan2.1 VAE": {"decoder.middle.0.residual.0.gamma": (384, 1, 1, 1), "decoder.conv1.weight": (384, 16, 3, 3, 3)},
    "a diffusers VAE": {"decoder.conv_in.weight": (384, 16, 3, 3, 3), "post_quant_conv.weight": (16, 16, 1, 1, 1)},
    "a TAEHV tiny VAE": {"decoder.1.weight": (256, 16, 3, 3), "decoder.3.conv.0.weight": (256, 512, 3, 3)},
    "a wav2vec2 audio encoder": {"wav2vec2.feature_extractor.conv_layers.0.conv.weight": (512, 1, 10)},
    "a umt5 text encoder": {"token_embedding.weight": (9, 4), "blocks.0.pos_embedding.embedding.weight": (32, 64)},
    "no model that is known here": {"double_blocks.0.img_attn.qkv.weight": (4, 4)},
}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_another_model_given_as_the_transformer_is_named(name, tmp_path):
    state = {key: torch.zeros(shape, dtype=torch.bfloat16) for key, shape in OTHER_MODELS[name].items()}
    save_file(state, tmp_path / "m.safetensors")
    sentence = refusal(tmp_path / "m.safetensors")
    assert f"is {name}" in sentence
    assert "expected a Wan2.1-style transformer" in sentence


def of(**changes) -> dict[str, torch.Tensor]:
    """A miniature of Wan2.1 text to video, with one head, and some dimensions changed."""
    dims = {"dim": 128, "ffn_dim": 16, "num_heads": 1, "num_layers": 2, "text_dim": 8, "audio_dim": 0}
    config = AvatarConfig(**(dims | changes))
    return {name: torch.ones(shape) for name, shape in canonical_shapes(config).items()}


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (of(in_channels=36) | {"img_emb.proj.0.weight": torch.ones(1)}, "takes 36 input channels"),
        (of(in_channels=48, out_channels=48), "latents of 48 channels, expected 16"),
        (of(dim=192, num_heads=2), "192 wide, no multiple of the usual head of 128"),
        (of(dim=24, num_heads=2), "24 wide, no multiple of the usual head of 128"),
        (of() | {"vace_blocks.0.weight": torch.ones(1)}, r"unexpected tensors 1 (vace_blocks.0.weight)"),
        ({k: v for k, v in of().items() if "ffn.2" not in k}, "missing tensors 4 (blocks.0.ffn.2.weight"),
        (of() | {"blocks.1.ffn.2.bias": torch.ones(5)}, "blocks.1.ffn.2.bias is [5], expected [128]"),
        (of() | {"blocks.x.weight": torch.ones(5)}, "malformed names"),
        (of() | {"patch_embedding.weight": torch.ones(128, 16)}, "patch_embedding"),
        (of() | {"blocks.0.ffn.0.scale_weight": torch.ones(1)}, "the scale 'blocks.0.ffn.0.scale_weight' and no fp8"),
        (of() | {"blocks.0.ffn.0.weight": torch.ones(16, 128, dtype=torch.int8)}, "is int8"),
    ],
)
def test_a_transformer_of_another_kind_is_refused(state, found, tmp_path):
    save_file(state, tmp_path / "m.safetensors")
    assert found in refusal(tmp_path / "m.safetensors")


def test_a_14b_transformer_is_fine():
    config = AvatarConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
    state = {name: torch.empty(shape, device="meta") for name, shape in canonical_shapes(config).items()}
    assert checkpoint_from_state_dict(state).config == config


@pytest.mark.parametrize(
    "metadata",
    ["{", "[1]", "5", '{"num_heads": "two"}', '{"num_heads": 7}', '{"levels": 5}', '{"levels": [[1]]}', '{"new": 1}'],
)
def test_broken_metadata_is_refused(metadata):
    with pytest.raises(AvatarError, match="state dict"):
        checkpoint_from_state_dict(STATE, {"joyavatar": metadata})
    assert json.loads(MINI.metadata()["joyavatar"])["num_heads"] == 2
