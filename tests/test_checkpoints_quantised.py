"""fp8, scaled fp8 and GGUF files are read as the numbers they stand for, near the bfloat16 file they came from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from joyavatar_core.checkpoints import canonical_shapes, inspection, load_into, open_checkpoint
from joyavatar_core.checkpoints.quantised import SCALES
from joyavatar_core.config import METADATA_KEY, AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.transformer import AvatarTransformer

gguf = pytest.importorskip("gguf")

CONFIG = AvatarConfig(dim=128, ffn_dim=256, num_heads=1, num_layers=4, text_dim=128, audio_dim=64)
FP8_MAX = 448.0
# Relative root mean square error of the worst linear layer against bfloat16, on normal weights of 0.02. Measured: fp8
# 0.033 (many are below its normal range), scaled fp8 0.027, Q8_0 0.0054, Q5_1 0.038, Q4_0 0.087, F16 2e-8.
LIMITS = {"fp8": 0.036, "scaled": 0.029, "Q8_0": 0.007, "Q5_1": 0.045, "Q4_0": 0.095, "F16": 1e-6}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.randn(shape, generator=generator) * 0.02).bfloat16()
        for name, shape in canonical_shapes(CONFIG).items()
    }


def is_linear(name: str, tensor: torch.Tensor) -> bool:
    return name.endswith(".weight") and tensor.ndim == 2


def fp8_file(path, weights, prefix=""):
    save_file(
        {prefix + name: t.to(torch.float8_e4m3fn) if is_linear(name, t) else t for name, t in weights.items()},
        path, metadata=CONFIG.metadata(),
    )  # fmt: skip


def scaled_file(path, weights, new=False, rows=False, prefix="model.diffusion_model."):
    """As ComfyUI writes them: `scale_weight` and a `scaled_fp8` marker, or `weight_scale` and `comfy_quant`."""
    state = {}
    for name, tensor in weights.items():
        if not is_linear(name, tensor):
            state[prefix + name] = tensor
            continue
        layer = prefix + name.removesuffix(".weight")
        largest = tensor.float().abs().amax(1, keepdim=True) if rows else tensor.float().abs().amax()
        scale = largest / FP8_MAX
        state[f"{layer}.weight"] = (tensor.float() / scale).to(torch.float8_e4m3fn)
        state[f"{layer}.weight_scale" if new else f"{layer}.scale_weight"] = scale.clone()
        if new:
            state[f"{layer}.input_scale"] = torch.tensor(1.0)
            state[f"{layer}.comfy_quant"] = torch.tensor(
                list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8
            )
        else:
            state[f"{layer}.scale_input"] = torch.tensor(1.0)
    if not new:
        state[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(state, path, metadata=CONFIG.metadata())


def gguf_file(path, weights, kind: str, flat_patches=False, metadata=True):
    """As city96's converter writes them: the linear layers quantised, vectors and small tensors in float32."""
    writer = gguf.GGUFWriter(path, "wan")
    qtype = getattr(gguf.GGMLQuantizationType, kind)
    if metadata:
        writer.add_string(METADATA_KEY, CONFIG.metadata()[METADATA_KEY])
    for name, tensor in weights.items():
        data = tensor.float().numpy()
        plain = not is_linear(name, tensor) or data.shape[-1] % 32
        if flat_patches and data.ndim == 5:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(data.shape))
            data = data.reshape(data.shape[0], -1)
        own = gguf.GGMLQuantizationType.F32 if plain else qtype
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(data), own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FILES = {
    "fp8": lambda path, weights: fp8_file(path, weights),
    "fp8 of ComfyUI": lambda path, weights: fp8_file(path, weights, "model.diffusion_model."),
    "scaled": lambda path, weights: scaled_file(path, weights),
    "scaled by row": lambda path, weights: scaled_file(path, weights, rows=True, prefix=""),
    "scaled, newer": lambda path, weights: scaled_file(path, weights, new=True),
    "Q8_0": lambda path, weights: gguf_file(path, weights, "Q8_0"),
    "Q5_1": lambda path, weights: gguf_file(path, weights, "Q5_1", flat_patches=True),
    "Q4_0": lambda path, weights: gguf_file(path, weights, "Q4_0"),
    "F16": lambda path, weights: gguf_file(path, weights, "F16"),
}


def limit_of(kind: str) -> float:
    return next(limit for name, limit in LIMITS.items() if kind.startswith(name))


@pytest.fixture(params=list(FILES))
def quantised(request, tmp_path, weights):
    path = tmp_path / ("model.gguf" if request.param in ("Q8_0", "Q5_1", "Q4_0", "F16") else "model.safetensors")
    FILES[request.param](path, weights)
    return request.param, path


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    found, exact = found.double(), exact.double()
    return ((found - exact).square().mean() / exact.square().mean()).sqrt().item()


def test_every_layer_is_near_the_bfloat16_file(quantised, weights):
    kind, path = quantised
    found = dict(open_checkpoint(path).tensors(torch.float32))
    assert set(found) == set(weights)
    for name, exact in weights.items():
        assert found[name].shape == exact.shape
        limit = limit_of(kind) if is_linear(name, exact) else 0
        assert error(found[name], exact) <= limit, name


def test_a_quantised_file_becomes_a_model_that_runs_near_the_original(quantised, weights):
    """One pass through the model: what the errors of the weights come to."""
    kind, path = quantised
    checkpoint = open_checkpoint(path)
    assert checkpoint.dtype in (torch.bfloat16, torch.float16)
    outputs = []
    for state in (dict(checkpoint.tensors(torch.float32)), {name: t.float() for name, t in weights.items()}):
        model = AvatarTransformer(CONFIG)
        model.load_state_dict(state)
        outputs.append(model.encode_audio(torch.ones(1, 1, 4, 64)))
    assert error(*outputs) <= 3 * limit_of(kind)


def test_inspect_says_the_format_and_the_memory(quantised, weights):
    kind, path = quantised
    facts = inspection.describe(path)
    names = {"fp8": "float8_e4m3fn", "scaled": "scaled float8_e4m3fn", "F16": "float16"}
    assert facts["kind"] == "transformer" and "problem" not in facts
    assert facts["dtype"].startswith(names.get(kind.split()[0].strip(","), kind))
    assert facts["bytes"] < sum(t.nbytes for t in weights.values()) * (1.1 if kind == "F16" else 0.8)
    assert "GiB in bfloat16" in facts["memory"]
    assert facts["fps"] == CONFIG.fps


def test_a_model_gets_one_dtype_whatever_the_file_mixes(tmp_path, weights):
    gguf_file(tmp_path / "m.gguf", weights, "Q8_0")
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    with torch.device("meta"):
        model = AvatarTransformer(CONFIG)
    load_into(model, checkpoint, checkpoint.dtype)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({"blocks.0.ffn.0.weight": torch.zeros(256, 64, dtype=torch.uint8)}, r"'blocks.0.ffn.0.weight' is uint8"),
        ({"blocks.0.ffn.0.weight_scale": torch.ones(256, 8)}, r"'blocks.0.ffn.0.weight' \[256, 128\] by \[256, 8\]"),
        ({"blocks.0.norm3.weight_scale": torch.ones(())}, r"the scale 'blocks.0.norm3.weight_scale' and no fp8 weight"),
    ],
)  # fmt: skip
def test_other_quantisations_are_refused_by_what_they_are(extra, found, tmp_path, weights):
    fp8 = {name: t.to(torch.float8_e4m3fn) if is_linear(name, t) else t for name, t in weights.items()}
    save_file({**fp8, **extra}, tmp_path / "m.safetensors", metadata=CONFIG.metadata())
    with pytest.raises(AvatarError, match=found):
        open_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("new", [False, True])
def test_scaled_fp8_without_its_scales_is_refused(new, tmp_path, weights):
    scaled_file(tmp_path / "m.safetensors", weights, new=new)
    state = {n: t for n, t in load_file(tmp_path / "m.safetensors").items() if not n.endswith(SCALES)}
    save_file(state, tmp_path / "m.safetensors", metadata=CONFIG.metadata())
    with pytest.raises(AvatarError, match="is marked as scaled fp8 and has no scale for"):
        open_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("keep", [24, 4000, -1000])
def test_a_cut_gguf_file_is_refused(keep, tmp_path, weights):
    gguf_file(tmp_path / "m.gguf", weights, "Q8_0")
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[:keep])
    with pytest.raises(AvatarError, match="is not a whole GGUF file"):
        open_checkpoint(tmp_path / "m.gguf")


def test_without_the_package_a_gguf_file_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(60))
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(AvatarError, match=r"package 'gguf' is not installed; install it"):
        open_checkpoint(tmp_path / "m.gguf")


def test_a_log_says_the_format_and_the_memory(tmp_path, weights):
    gguf_file(tmp_path / "m.gguf", weights, "Q8_0")
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    kept = 2 * checkpoint.parameters / 2**30
    note = inspection.loading_note(checkpoint, torch.bfloat16)
    assert "Q8_0 + float32" in note and f"kept as bfloat16, {kept:.2f} GiB" in note
