"""AvatarForcing's file: an avatar beside its own adapters, known by its names, merged with its own scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from joyavatar_core.checkpoints import canonical_shapes, inspection, open_checkpoint
from joyavatar_core.checkpoints.reader import from_state_dict
from joyavatar_core.config import METADATA_KEY, AvatarConfig
from joyavatar_core.errors import AvatarError

RANK = 128
LINEARS = [*(f"{a}_attn.{x}" for a in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2"]
SMALL = AvatarConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=4, text_dim=8, freq_dim=8, audio_dim=6)
HEADS = {METADATA_KEY: json.dumps({"num_heads": 2})}


def release_shapes(config: AvatarConfig, rank: int = RANK) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of one entry of the release."""
    shapes = {}
    for name, shape in canonical_shapes(config).items():
        layer, _, last = name.rpartition(".")
        if not any(layer.endswith(f".{linear}") for linear in LINEARS):
            shapes[f"model.{name}"] = shape
            continue
        shapes[f"model.{layer}.base_layer.{last}"] = shape
        if last == "weight":
            shapes[f"model.{layer}.lora_A.default.weight"] = (rank, shape[1])
            shapes[f"model.{layer}.lora_B.default.weight"] = (shape[0], rank)
    return shapes


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in release_shapes(SMALL).items()}
    path = tmp_path_factory.mktemp("release") / "model.pt"
    torch.save({"generator": {name: torch.zeros_like(t) for name, t in state.items()}, "generator_ema": state}, path)
    return path, state


def test_its_names_are_those_of_one_entry_of_the_release():
    shapes = release_shapes(AvatarConfig())
    assert len(shapes) == 1457
    assert sum(".lora_" in name for name in shapes) == 600
    with (Path(__file__).parent / "golden" / "livetalk_1_3b_keys.json").open() as file:
        merged = {name for name in json.load(file)}
    assert {name.removeprefix("model.").replace(".base_layer", "") for name in shapes if ".lora_" not in name} == merged


def test_the_adapters_are_merged_with_half_their_product(release):
    path, state = release
    checkpoint = open_checkpoint(path, metadata=HEADS)
    assert checkpoint.family.name == "AvatarForcing One-Step"
    found = dict(checkpoint.tensors())
    assert {name: tuple(t.shape) for name, t in found.items()} == canonical_shapes(SMALL)
    for name, tensor in found.items():
        own = f"model.{name}"
        if own in state:
            assert torch.equal(tensor, state[own])
            continue
        layer, _, last = own.rpartition(".")
        expected = state[f"{layer}.base_layer.{last}"]
        if last == "weight":
            expected = (
                expected + 0.5 * state[f"{layer}.lora_B.default.weight"] @ state[f"{layer}.lora_A.default.weight"]
            )
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-4)


def test_its_behaviour_is_known_without_metadata(release):
    config = open_checkpoint(release[0], metadata=HEADS).config
    assert (config.sampler, config.fps, config.block_frames) == ("rolling", 25, 4)
    assert (config.width, config.height) == (832, 480)
    timesteps = [1000, 952.38104, 769.23077, 555.5556]  # of the public scheduler, in float32
    assert [timestep for timestep, _ in config.levels] == pytest.approx(timesteps, abs=1e-3)


def test_another_rank_is_not_given_its_scale(tmp_path):
    state = {name: torch.ones(shape) for name, shape in release_shapes(SMALL, rank=8).items()}
    torch.save({"generator": state}, tmp_path / "model.pt")
    with pytest.raises(AvatarError, match="rank 8 but nothing says its alpha"):
        open_checkpoint(tmp_path / "model.pt", metadata=HEADS)
    assert open_checkpoint(tmp_path / "model.pt", metadata=HEADS, lora_alpha=4).config.sampler == "rolling"


def test_inspect_says_what_it_is_and_its_terms(monkeypatch):
    state = {name: torch.empty(shape, device="meta", dtype=torch.bfloat16)
             for name, shape in release_shapes(AvatarConfig()).items()}  # fmt: skip
    monkeypatch.setattr(inspection, "read_file", lambda path: from_state_dict({"generator": state}, "model.pt"))
    facts = inspection.describe("model.pt")
    assert facts["kind"] == "transformer" and "problem" not in facts
    assert facts["name"] == "AvatarForcing One-Step"
    assert "academic use only" in facts["terms"] and "Apache-2.0" in facts["terms"]
    assert (facts["parameters"], facts["tensors"], facts["sampler"]) == (1_421_187_232, 857, "rolling")
    assert "AvatarForcing" in inspection.format_description(facts)
