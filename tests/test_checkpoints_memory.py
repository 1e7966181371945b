"""Loading costs the weights once: peak resident memory stays within 1.15 times their size."""

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
from torch import nn
from joyavatar_core.checkpoints import load_into, open_checkpoint

def resident(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

path, dtype = sys.argv[1], getattr(torch, sys.argv[2], None)
checkpoint = open_checkpoint(path)
module = nn.Module()
for name, shape in checkpoint.shapes.items():
    *parents, leaf = name.split(".")
    owner = module
    for parent in parents:
        owner.add_module(parent, owner._modules.get(parent) or nn.Module())
        owner = owner._modules[parent]
    owner.register_parameter(leaf, nn.Parameter(torch.empty(shape, device="meta")))
torch.ones(10).bfloat16().float().sum()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
before = resident("VmRSS")
load_into(module, checkpoint, dtype)
for parameter in module.parameters():  # every page is used
    parameter.detach().view(torch.uint8).max()
print(resident("VmHWM") - before, sum(p.numel() * p.element_size() for p in module.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("dtype", ["None", "float32"])
def test_loading_peaks_at_the_size_of_the_weights(dtype, tmp_path):
    path = tmp_path / "avatar.safetensors"
    save_file({name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in canonical_shapes(CONFIG).items()}, path)
    assert path.stat().st_size > 300e6
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(path), dtype], capture_output=True, text=True, check=True, cwd=root
    )
    path.unlink()
    grown, weights = map(int, run.stdout.split())
    assert 0.9 * weights < grown <= 1.15 * weights
