"""Public students in the layouts of their files, and what their names say that their tensors do not."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from joyavatar_core.checkpoints import canonical_shapes, inspection, load_into, open_checkpoint
from joyavatar_core.checkpoints.reader import from_state_dict
from joyavatar_core.checkpoints.releases import AVATARS, RELEASES, TEXT_TO_VIDEO
from joyavatar_core.config import METADATA_KEY, AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.sampling.mci import MCI_OFF
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.psb import levels_for
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream

STUDENT = AvatarConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=4, in_channels=16, text_dim=8, freq_dim=8, audio_dim=0
)
HEADS = {METADATA_KEY: json.dumps({"num_heads": 2})}
LINEARS = [*(f"{a}_attn.{x}" for a in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2"]
FOUR = [(1000, 1), (937.5, 0.9375), (2500 / 3, 5 / 6), (625, 0.625)]  # 1000, 750, 500 and 250, shifted by 5


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in canonical_shapes(STUDENT).items()}


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


EMA, PLAIN, CRITIC = weights(0), weights(1), {"model.blocks.0.q.weight": torch.ones(2, 2), "step": torch.ones(1)}
TRAINED = {"generator": under("model.", PLAIN), "critic": CRITIC, "generator_ema": under("model.", EMA)}
DUMPS = {  # as each repository's trainer saves it, and the network that counts
    "Causal-Forcing": (TRAINED, EMA),
    "Causal-Forcing, no average": ({"generator": under("model._fsdp_wrapped_module.", PLAIN), "critic": CRITIC}, PLAIN),
    "One-Forcing": ({"step": 200, **TRAINED}, EMA),
    "LongLive, base": ({"generator": under("model.", PLAIN)}, PLAIN),
    "LongLive, trained on": ({"model": under("model.", PLAIN)}, PLAIN),
}


@pytest.mark.parametrize("name", DUMPS)
def test_a_students_dump_loads(tmp_path, name):
    dump, expected = DUMPS[name]
    torch.save(dump, tmp_path / "student.pt")
    checkpoint = open_checkpoint(tmp_path / "student.pt", metadata=HEADS)
    found = dict(checkpoint.tensors())
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    assert (checkpoint.config.width, checkpoint.config.height) == (832, 480)


def test_longlives_lora_is_merged_on_its_base_with_alpha_as_its_rank(tmp_path):
    """Its configuration has rank 256 and alpha 256, and its file says neither."""
    generator, lora = torch.Generator().manual_seed(2), {}
    for name, shape in canonical_shapes(STUDENT).items():
        layer, _, last = name.rpartition(".")
        if last == "weight" and any(layer.endswith(f".{linear}") for linear in LINEARS):
            lora[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(3, shape[1], generator=generator)
            lora[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(shape[0], 3, generator=generator)
    torch.save(DUMPS["LongLive, base"][0], tmp_path / "longlive_base.pt")
    torch.save({"generator_lora": lora, "critic_lora": {}, "step": 1}, tmp_path / "lora.pt")
    base = open_checkpoint(tmp_path / "longlive_base.pt", metadata=HEADS)
    checkpoint = open_checkpoint(tmp_path / "lora.pt", base=base, release="longlive")
    merged = dict(checkpoint.tensors())
    assert len(lora) == 2 * len(LINEARS) * STUDENT.num_layers
    for name, tensor in merged.items():
        pair = [lora.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight") for side in "BA"]
        change = pair[0] @ pair[1] if pair[0] is not None else 0
        torch.testing.assert_close(tensor, PLAIN[name] + change, rtol=1e-5, atol=1e-4)
    assert checkpoint.config.trained_positions == 12 and checkpoint.family.name == "LongLive-1.3B"


def test_longlive_2_is_refused(monkeypatch):
    shapes = canonical_shapes(
        dataclasses.replace(AvatarConfig(), in_channels=48, out_channels=48, dim=3072, audio_dim=0)
    )
    state = {f"model.{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}
    monkeypatch.setattr(inspection, "read_file", lambda path: from_state_dict({"generator": state}, "model.pt"))
    assert "Wan2.2 5B is not supported" in inspection.describe("model.pt")["problem"]


STEPS = {  # levels of the first block and of the later ones, as the releases' configurations list them
    "self-forcing": (3, FOUR, FOUR), "causal-forcing": (3, FOUR, FOUR), "causal-forcing-framewise": (1, FOUR, FOUR),
    "causal-forcing-2step": (1, FOUR, [FOUR[0], FOUR[2]]), "causal-forcing-1step": (1, FOUR, FOUR[:1]),
    "one-forcing": (1, FOUR, FOUR[:1]), "longlive": (3, FOUR, FOUR),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_TO_VIDEO)
def test_a_student_runs_with_its_own_blocks_and_steps(tmp_path, name):
    block, first, later = STEPS[name]
    torch.save({"generator": under("model.", PLAIN)}, tmp_path / "student.pt")
    checkpoint = open_checkpoint(tmp_path / "student.pt", metadata=HEADS, release=name)
    config, chosen = checkpoint.config, preset("checkpoint", checkpoint.config)
    assert config.block_frames == block and (config.width, config.height) == (832, 480)
    for index, expected in ((0, first), (1, later), (9, later)):
        steps = chosen.psb.steps_for(index, len(config.levels))
        found = levels_for(steps, config.levels, chosen.psb.mode, config.shift)
        assert [number for level in found for number in level] == pytest.approx([n for pair in expected for n in pair])
    model = AvatarTransformer(config)
    load_into(model, checkpoint)
    taken = []
    stream = AvatarStream(
        model, psb=chosen.psb, mci=chosen.mci, urcr=chosen.urcr, latent_size=(4, 4), video_frames=8 * block,
        on_step=lambda index, step, steps: taken.append((index, steps)),
    )  # fmt: skip
    latents = [made.latents for made in StreamRun(stream)]
    assert all(torch.isfinite(x).all() and x.shape[2] == block for x in latents)
    assert dict(taken) == {index: len(later if index else first) for index in range(len(latents))}


def test_longlives_positions_stay_within_its_window(tmp_path):
    torch.save({"generator": under("model.", PLAIN)}, tmp_path / "student.pt")
    config = open_checkpoint(tmp_path / "student.pt", metadata=HEADS, release="longlive").config
    urcr = preset("checkpoint", config).urcr
    assert (urcr.mode, urcr.sinks, urcr.recent, urcr.sink_source) == ("rotate", 3, 6, "first")
    assert urcr.capacity(config) == 12
    urcr.check(config, MCI_OFF)


def test_a_merged_copy_of_avatarforcing_is_what_it_is_said_to_be(tmp_path):
    config = dataclasses.replace(STUDENT, in_channels=33, audio_dim=6)
    state = {name: torch.zeros(shape) for name, shape in canonical_shapes(config).items()}
    torch.save(state, tmp_path / "merged.pt")
    plain = open_checkpoint(tmp_path / "merged.pt", metadata=HEADS)
    said = open_checkpoint(tmp_path / "merged.pt", metadata=HEADS, release="avatarforcing")
    assert (plain.config.sampler, said.config.sampler, said.config.fps) == ("blocks", "rolling", 25)
    with pytest.raises(AvatarError, match="merged copy of it"):
        preset("rolling", plain.config)
    assert preset("rolling", said.config).urcr.sinks == 1


@pytest.mark.parametrize(
    ("portrait", "name", "sentence"),
    [(False, "livetalk", "takes no portrait, so it is not LiveTalk"),
     (True, "longlive", "takes a portrait, so it is not LongLive"),
     (False, "loglive", "is not known; choose one of livetalk")],
)  # fmt: skip
def test_a_release_that_a_file_cannot_be_is_one_sentence(tmp_path, portrait, name, sentence):
    config = dataclasses.replace(STUDENT, in_channels=33, audio_dim=6) if portrait else STUDENT
    torch.save({n: torch.zeros(s) for n, s in canonical_shapes(config).items()}, tmp_path / "file.pt")
    with pytest.raises(AvatarError, match=sentence):
        open_checkpoint(tmp_path / "file.pt", metadata=HEADS, release=name)


@pytest.mark.parametrize("portrait", [False, True])
def test_inspect_says_which_releases_a_file_may_be(monkeypatch, portrait):
    config = AvatarConfig() if portrait else AvatarConfig(in_channels=16, audio_dim=0)
    state = {f"model.{name}": torch.empty(shape, device="meta") for name, shape in canonical_shapes(config).items()}
    monkeypatch.setattr(inspection, "read_file", lambda path: from_state_dict({"generator_ema": state}, "file.pt"))
    facts = inspection.describe("file.pt")
    assert all(name in facts["release"] for name in (AVATARS if portrait else TEXT_TO_VIDEO))
    said = "avatarforcing" if portrait else "one-forcing"
    facts = inspection.describe("file.pt", said)
    assert facts["name"] == RELEASES[said].name and facts["terms"] == RELEASES[said].terms
    assert "release" not in facts and facts["size"] == "832x480"
