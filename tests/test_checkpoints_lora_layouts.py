"""LoRA files in every layout that ComfyUI's own loader reads change a model by the same dense sum."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from joyavatar_core.checkpoints import canonical_shapes, inspection, open_checkpoint, with_lora
from joyavatar_core.checkpoints.adapter_names import with_dots
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError

RANK = 4
CONFIG = AvatarConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=4, text_dim=8, freq_dim=8, audio_dim=6)
SHAPES = canonical_shapes(CONFIG)
LAYERS = ["blocks.0.self_attn.q", "blocks.1.cross_attn.o", "blocks.2.ffn.0", "blocks.3.ffn.2"]
DIFFUSERS = {
    "self_attn.q": "attn1.to_q", "cross_attn.o": "attn2.to_out.0", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2",
}  # fmt: skip


def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = SHAPES[f"{layer}.weight"]
    return random((RANK, columns), len(layer)), random((rows, RANK), len(layer) + 100)


def diffusers(layer: str) -> str:
    for own, name in DIFFUSERS.items():
        layer = layer.replace(own, name)
    return layer


def kohya(layer: str, prefix="lora_unet_") -> str:
    return prefix + layer.replace(".", "_")


# name -> (layer's name in the file, endings of the two factors, whether the file says alpha)
LAYOUTS = {
    "PEFT": (lambda n: f"base_model.model.{n}", ".lora_A.weight", ".lora_B.weight", False),
    "PEFT with adapter name": (lambda n: n, ".lora_A.default.weight", ".lora_B.default.weight", False),
    "ComfyUI": (lambda n: f"diffusion_model.{n}", ".lora_A.weight", ".lora_B.weight", False),
    "ComfyUI with alpha": (lambda n: f"diffusion_model.{n}", ".lora_A.weight", ".lora_B.weight", True),
    "without an ending": (lambda n: f"diffusion_model.{n}", ".lora_A", ".lora_B", False),
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight", True),
    "kohya without alpha": (kohya, ".lora_down.weight", ".lora_up.weight", False),
    "Wan Fun": (lambda n: kohya(n, "lora_unet__"), ".lora_down.weight", ".lora_up.weight", True),
    "down and up": (lambda n: f"diffusion_model.{n}", ".lora_down.weight", ".lora_up.weight", True),
    "diffusers": (lambda n: f"transformer.{diffusers(n)}", ".lora_A.weight", ".lora_B.weight", False),
    "old diffusers": (lambda n: f"transformer.{diffusers(n)}", ".lora.down.weight", ".lora.up.weight", False),
    "older diffusers": (lambda n: f"transformer.{diffusers(n)}", "_lora.down.weight", "_lora.up.weight", False),
    "LyCORIS of diffusers": (lambda n: kohya(diffusers(n), "lycoris_"), ".lora_down.weight", ".lora_up.weight", True),
    "DiffSynth": (lambda n: f"pipe.dit.{n}", ".lora_A.default.weight", ".lora_B.default.weight", False),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file({n: random(s, 7) for n, s in SHAPES.items()}, path, metadata=CONFIG.metadata())
    return path


def lora_file(path, layout: str, alpha: float = 2.0):
    name, a_end, b_end, told = LAYOUTS[layout]
    state = {}
    for layer in LAYERS:
        state[name(layer) + a_end], state[name(layer) + b_end] = pair(layer)
        if told:
            state[f"{name(layer)}.alpha"] = torch.tensor(alpha)
    save_file(state, path)
    return path, (alpha / RANK if told else 1.0)


def assert_changed(found: dict[str, torch.Tensor], base, factor: float) -> None:
    before = dict(open_checkpoint(base).tensors())
    for name, tensor in before.items():
        expected = tensor
        if name.removesuffix(".weight") in LAYERS and name.endswith(".weight"):
            a, b = pair(name.removesuffix(".weight"))
            expected = tensor + factor * b @ a
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_changes_its_layers_by_the_dense_sum(layout, base, tmp_path):
    path, factor = lora_file(tmp_path / "lora.safetensors", layout)
    changed = with_lora(open_checkpoint(base), path, 0.5)
    assert_changed(dict(changed.tensors()), base, 0.5 * factor)
    assert_changed(dict(open_checkpoint(path, base=base).tensors()), base, factor)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inspect_tells_a_loras_rank_and_alpha(layout, tmp_path):
    path, factor = lora_file(tmp_path / "lora.safetensors", layout)
    facts = inspection.describe(path)
    assert (facts["kind"], facts["pairs"], facts["rank"]) == ("LoRA", len(LAYERS), RANK)
    assert facts["alpha"] == (factor * RANK if LAYOUTS[layout][3] else "not stated: taken as the rank")
    assert facts["layout"].startswith("LoRA (")


def test_differences_of_weights_and_biases_are_added(base, tmp_path):
    name = "diffusion_model.blocks.0.ffn.0"
    diff, bias = random((32, 24), 1), random((32,), 2)
    norm = random((24,), 3)
    save_file(
        {f"{name}.diff": diff, f"{name}.diff_b": bias, "diffusion_model.blocks.1.norm3.diff": norm},
        tmp_path / "d.safetensors",
    )
    before = dict(open_checkpoint(base).tensors())
    after = dict(with_lora(open_checkpoint(base), tmp_path / "d.safetensors", 2.0).tensors())
    for own, delta in (("blocks.0.ffn.0.weight", diff), ("blocks.0.ffn.0.bias", bias), ("blocks.1.norm3.weight", norm)):
        torch.testing.assert_close(after[own], before[own] + 2 * delta)


def test_two_loras_add_up(base, tmp_path):
    path, _ = lora_file(tmp_path / "lora.safetensors", "ComfyUI")
    twice = with_lora(with_lora(open_checkpoint(base), path, 0.25), path, 0.5)
    assert_changed(dict(twice.tensors()), base, 0.75)


OTHERS = {
    "DoRA": {".lora_A.weight": (4, 24), ".lora_B.weight": (24, 4), ".dora_scale": (24, 1)},
    "LoHa": {".hada_w1_a": (24, 4), ".hada_w1_b": (4, 24), ".hada_w2_a": (24, 4), ".hada_w2_b": (4, 24)},
    "LoKr": {".lokr_w1": (4, 4), ".lokr_w2": (6, 6)},
    "OFT": {".oft_blocks": (4, 6, 6)},
    "LoCon with a middle convolution": {".lora_down.weight": (4, 24), ".lora_mid.weight": (4, 4, 1, 1)},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_adapters_are_refused_by_name(kind, base, tmp_path):
    state = {f"diffusion_model.blocks.0.self_attn.q{end}": torch.ones(shape) for end, shape in OTHERS[kind].items()}
    save_file(state, tmp_path / "x.safetensors")
    for refused in (
        lambda: with_lora(open_checkpoint(base), tmp_path / "x.safetensors"),
        lambda: open_checkpoint(tmp_path / "x.safetensors", base=base),
    ):
        with pytest.raises(AvatarError, match=kind):
            refused()
    facts = inspection.describe(tmp_path / "x.safetensors")
    assert (facts["kind"], facts["layout"]) == ("LoRA", kind)
    assert kind in facts["problem"]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"diffusion_model.blocks.9.ffn.0.diff": (32, 24)}, "changes 'blocks.9.ffn.0.weight', which the base"),
        ({"diffusion_model.blocks.0.ffn.0.diff": (3, 24)}, r"adds \[3, 24\] to 'blocks.0.ffn.0.weight' \[32, 24\]"),
        ({"diffusion_model.blocks.0.ffn.0.lora_A.weight": (4, 24)}, "not a pair of matrices"),
        (dict.fromkeys(("blocks.0.ffn.0.lora_A.weight", "blocks.0.ffn.0.lora_B.weight"), (0, 24)), "not a pair"),
        (
            {"blocks.0.ffn.0.diff": (32, 24), "blocks.0.ffn.0.alpha": (2,)},
            r"an alpha of shape \[2\], expected one number",
        ),
        ({"blocks.0.ffn.0.weight": (32, 24), "head.modulation": (1, 2, 24)}, "is no LoRA alone"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(state, found, base, tmp_path):
    save_file({name: torch.ones(shape) for name, shape in state.items()}, tmp_path / "x.safetensors")
    with pytest.raises(AvatarError, match=found):
        with_lora(open_checkpoint(base), tmp_path / "x.safetensors")


def test_every_layers_name_survives_kohyas_underscores():
    for name in SHAPES:
        layer = name.rpartition(".")[0]
        assert with_dots(f"lora_unet_{layer.replace('.', '_')}.lora_up.weight") == f"{layer}.lora_up.weight"
        flat = diffusers(layer).replace(".", "_")
        assert with_dots(f"lora_unet_{flat}.alpha") == f"{diffusers(layer)}.alpha"


def test_an_audio_adapter_of_another_model_is_named(tmp_path):
    state = {f"blocks.{n}.audio_cross_attn.q_linear.weight": torch.zeros(8, 8) for n in range(2)}
    save_file(state, tmp_path / "infinite.safetensors")
    assert "InfiniteTalk" in inspection.describe(tmp_path / "infinite.safetensors")["kind"]
    with pytest.raises(AvatarError, match="is a MultiTalk / InfiniteTalk audio adapter"):
        open_checkpoint(tmp_path / "infinite.safetensors")


@pytest.mark.parametrize(
    ("text", "given"),
    [("a.safetensors", ("a.safetensors", 1.0)), ("a.safetensors=-0.5", ("a.safetensors", -0.5)),
     ("x=y.safetensors", ("x=y.safetensors", 1.0)), ("x=y.safetensors=0.8", ("x=y.safetensors", 0.8))],
)  # fmt: skip
def test_the_command_line_takes_loras_with_a_strength(text, given):
    from joyavatar_core.cli.parser import parser

    flags = ["speak", "--portrait", "p", "--audio", "a", "--out", "o.mp4", "--lora", text, "--lora", "b.safetensors"]
    assert parser().parse_args(flags).lora == [given, ("b.safetensors", 1.0)]
