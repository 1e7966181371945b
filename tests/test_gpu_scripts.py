"""The scripts for a machine with a GPU, rehearsed: they must not meet their first mistake there."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from joyavatar_core.errors import AvatarError
from joyavatar_core.training.loop import LoopSettings

ROOT = Path(__file__).parents[1]
# Packages that a machine with a GPU may lack.
LACKING = """
import importlib.abc, runpy, sys

class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"av", "librosa", "soundfile", "transformers", "skia", "aiohttp", "matplotlib",
                                  "soxr", "gguf", "ray"}:
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


def test_the_embedded_avatar_is_measured(tmp_path):
    only = ["--only", "refine on, preset realtime", "error, refine on"]
    brief = ["--device", "cpu", "--blocks", "1", "--warm", "1", "--out", str(tmp_path)]
    done = run("benchmarks/gpu_avatar.py", *brief, *only, lacking=True)
    assert done.returncode == 0, done.stderr + done.stdout
    (speed, _), (error, _) = ((row[2], row[3]) for row in json.loads((tmp_path / "gpu.json").read_text()))
    assert speed > 0 and error < 2


def test_a_row_that_fails_is_said_and_the_others_run():
    done = run("benchmarks/gpu.py", "--tiny", "--device", "cpu", "--size", "40x40", "--only", "talk", "fp8")
    assert done.returncode == 0, done.stderr
    assert "AvatarError: The latents are 5x5 cells" in done.stdout
    assert "not done: ['talk: checkpoint, 40x40', 'talk: joyavatar, 40x40'" in done.stdout
    assert "## fp8" in done.stdout.split("## talk")[-1]


@pytest.mark.parametrize("stage", ["forcing", "distill", "vae"])
def test_training_carries_on_from_what_is_shipped(tmp_path, stage):
    pytest.importorskip("skia")
    from joyavatar_core.checkpoints import open_checkpoint
    from joyavatar_core.pipeline.embedded import EMBEDDED_TRANSFORMER

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


@pytest.fixture
def train_on_gpu(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("train_on_gpu", ROOT / "scripts" / "train_on_gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_training_that_fails_leaves_the_weights_it_had(train_on_gpu, tmp_path):
    settings, said = LoopSettings(tmp_path), {}
    with pytest.raises(ZeroDivisionError), train_on_gpu._rescued(settings, lambda **facts: said.update(facts)):
        raise ZeroDivisionError("in the first step")
    assert said == {"failed": "ZeroDivisionError: in the first step"}
    torch.save({"step": 0, "ema": {}}, settings.checkpoint)
    with pytest.raises(ZeroDivisionError), train_on_gpu._rescued(settings, lambda **_: None):
        raise ZeroDivisionError
    torch.save({"step": 3, "ema": {"student.a": torch.ones(2)}}, settings.checkpoint)
    with train_on_gpu._rescued(settings, lambda **facts: said.update(facts)) as weights:
        raise RuntimeError("CUDA error\nand its explanation")
    assert said == {"failed": "RuntimeError: CUDA error"} and torch.equal(weights["student.a"], torch.ones(2))
    with train_on_gpu._rescued(settings, lambda **facts: pytest.fail()) as weights:
        pass
    assert not weights


def test_takes_that_cannot_be_drawn_are_left_out(train_on_gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_on_gpu, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))

    def draw(take, number, size, folder):
        if take == "broken":
            raise OSError("no display")
        return number

    monkeypatch.setattr(train_on_gpu, "_draw", draw)
    numbers = train_on_gpu.drawn_clips(["one", "broken", "two"], 64, tmp_path, 2, 60.0)
    assert sorted(numbers) == [0, 2]
    assert "1 takes could not be drawn, the first: OSError: no display" in capsys.readouterr().out
    with pytest.raises(AvatarError, match="No clip could be drawn"):
        list(train_on_gpu.drawn_clips(["broken"], 64, tmp_path, 1, 60.0))
