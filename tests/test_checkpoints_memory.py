"""Loading costs the weights once: peak resident memory stays within 1.15 times the larger of file and weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from joyavatar_core.checkpoints import canonical_shapes
from joyavatar_core.config import AvatarConfig

CONFIG = AvatarConfig(num_layers=3)
PROBE = """
import sys, torch
from joyavatar_core.checkpoints import open_checkpoint
from joyavatar_core.pipeline.avatar import load_transformer
from joyavatar_core.pipeline.avatar_options import AvatarOptions

def resident(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

path, dtype, weight_dtype = sys.argv[1], getattr(torch, sys.argv[2], None), sys.argv[3]
checkpoint = open_checkpoint(path)
torch.ones(10).bfloat16().float().sum()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
before = resident("VmRSS")
module = load_transformer(AvatarOptions(weights=path, dtype=dtype, weight_dtype=weight_dtype), checkpoint)
for parameter in module.parameters():  # every page is used
    parameter.detach().view(torch.uint8).max()
print(resident("VmHWM") - before, sum(p.numel() * p.element_size() for p in module.parameters()))
"""
BLOCK_LINEARS = (*(f"{a}_attn.{x}" for a in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2")


def is_linear(name: str) -> bool:
    return name.startswith("blocks.") and name.removesuffix(".weight").endswith(BLOCK_LINEARS)


def plain(path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, path)


def scaled_fp8(path: Path, state: dict[str, torch.Tensor]) -> None:
    saved = {name: t.to(torch.float8_e4m3fn) if is_linear(name) else t for name, t in state.items()}
    scales = {f"{n.removesuffix('.weight')}.scale_weight": torch.tensor(0.5) for n in state if is_linear(n)}
    save_file({**saved, **scales}, path)


def adapters_in_a_pickle(path: Path, state: dict[str, torch.Tensor]) -> None:
    """AvatarForcing's layout: the base beside its adapters."""
    saved = {}
    for name, tensor in state.items():
        layer, _, last = name.rpartition(".")
        if not layer.endswith(BLOCK_LINEARS):
            saved[f"model.{name}"] = tensor
            continue
        saved[f"model.{layer}.base_layer.{last}"] = tensor
        if last == "weight":
            saved[f"model.{layer}.lora_A.default.weight"] = torch.ones(128, tensor.shape[1], dtype=torch.bfloat16)
            saved[f"model.{layer}.lora_B.default.weight"] = torch.ones(len(tensor), 128, dtype=torch.bfloat16)
    torch.save({"generator_ema": saved}, path)


def q8_0(path: Path, state: dict[str, torch.Tensor]) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "wan")
    kinds = gguf.GGMLQuantizationType
    for name, tensor in state.items():
        data, kind = tensor.float().numpy(), kinds.Q8_0 if is_linear(name) else kinds.F32
        if data.ndim > 4:  # the format has four axes
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(data.shape))
            data = data.reshape(len(data), -1)
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("write", "dtype", "kept", "weights_are_the_file"),
    [
        (plain, "None", "auto", True),
        (plain, "float32", "full", False),
        (plain, "bfloat16", "fp8", False),
        (scaled_fp8, "bfloat16", "auto", True),
        (scaled_fp8, "bfloat16", "full", False),
        (adapters_in_a_pickle, "bfloat16", "auto", False),
        (q8_0, "bfloat16", "auto", False),
    ],
)
def test_loading_peaks_at_the_larger_of_file_and_weights(write, dtype, kept, weights_are_the_file, tmp_path):
    path = tmp_path / "avatar.safetensors" if write in (plain, scaled_fp8) else tmp_path / "avatar.bin"
    write(path, {name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in canonical_shapes(CONFIG).items()})
    size = path.stat().st_size
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(path), dtype, kept], capture_output=True, text=True, check=True, cwd=root
    )
    path.unlink()
    grown, weights = map(int, run.stdout.split())
    assert 0.9 * weights < grown <= 1.15 * max(size, weights)
    if weights_are_the_file:
        assert grown <= 1.15 * size
