"""The scripts for a machine with a GPU, rehearsed: they must not meet their first mistake there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Packages that a machine with a GPU may lack.
LACKING = """
import importlib.abc, runpy, sys

class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"av", "librosa", "soundfile", "transformers", "skia", "aiohttp", "matplotlib"}:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Lacking())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str, lacking: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", LACKING] if lacking else []), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("lacking", [False, True])
def test_the_benchmark_runs_whole_and_leaves_its_table(tmp_path, lacking):
    done = run("benchmarks/gpu.py", "--tiny", "--device", "cpu", "--out", str(tmp_path), lacking=lacking)
    assert done.returncode == 0, done.stderr
    assert "not done" not in done.stdout
    rows = json.loads((tmp_path / "gpu.json").read_text())
    failed = [row for row in rows if "Error" in str(row[2]) or row[1] == "failed"]
    assert not failed
    speeds = {row[1]: row[2] for row in rows if row[3] == "frames/s"}
    assert len(speeds) == 6 and all(speed > 0 for speed in speeds.values())
    errors = {row[1]: row[2] for row in rows if row[3] == "relative"}
    assert all(error < (0.05 if "bfloat16" in what else 1e-4) for what, error in errors.items())
    assert (tmp_path / "gpu.md").read_text().count("\n") == len(rows) + 2
    assert any("no H.264" in str(row) for row in rows) == lacking


def test_a_section_that_fails_is_said_and_the_others_run():
    done = run("benchmarks/gpu.py", "--tiny", "--device", "cpu", "--size", "40x40", "--only", "talk", "fp8")
    assert done.returncode == 0, done.stderr
    assert "AvatarError: The latents are 5x5 cells" in done.stdout
    assert "not done: ['talk']" in done.stdout and "## fp8" in done.stdout.split("## talk")[-1]


@pytest.mark.parametrize("stage", ["forcing", "vae"])
def test_training_carries_on_from_what_is_shipped(tmp_path, stage):
    pytest.importorskip("skia")
    from joyavatar_core.checkpoints import open_checkpoint
    from joyavatar_core.pipeline.avatar import EMBEDDED_TRANSFORMER

    done = run(
        "scripts/train_on_gpu.py", "train", "--tiny", "--device", "cpu", "--stage", stage, "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "result.json").read_text())
    assert facts["done"] and facts["steps"] == 3 and facts["clips"] == 3
    assert all(path.stat().st_size < 16 * 2**20 for path in tmp_path.iterdir())
    if stage == "vae":
        assert (tmp_path / "vae.safetensors").exists()
        return
    assert (tmp_path / "sheet.png").exists()
    before, after = (
        dict(open_checkpoint(path).tensors()) for path in (EMBEDDED_TRANSFORMER, tmp_path / "avatar.safetensors")
    )
    moved = [(after[name].float() - before[name].float()).abs().max().item() for name in before]
    assert 0 < max(moved) < 0.1  # trained a little, and from there


def test_training_without_takes_is_one_sentence(tmp_path):
    done = run("scripts/train_on_gpu.py", "train", "--device", "cpu", "--out", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("There is nothing to learn from")
