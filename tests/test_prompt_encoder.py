"""`encode-prompt`: a tiny umt5 with a tokenizer of its own, in the layouts that encoders come in."""

from __future__ import annotations

import io
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from joyavatar_core.cli.parser import main
from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.prompt_encoder import WAN_NAMES, clean, encode_prompt, transformers_name

sentencepiece = pytest.importorskip("sentencepiece")
transformers = pytest.importorskip("transformers")

TEXT = "a person talks to the camera and smiles"
LAYERS, DIM, HEADS = 2, 32, 4


@pytest.fixture(scope="module")
def pieces() -> bytes:
    model = io.BytesIO()
    words = iter([TEXT, "the head moves a little", "soft light, a quiet room", "calm and friendly voices speak"] * 5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=words, model_writer=model, vocab_size=60, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = transformers.UMT5Config(
        vocab_size=64, d_model=DIM, d_kv=8, d_ff=48, num_layers=LAYERS, num_heads=HEADS, dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return transformers.UMT5EncoderModel(config).eval()


def weights(encoder) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in encoder.state_dict().items() if "embed_tokens" not in name}


def with_tokenizer(pieces: bytes) -> dict[str, torch.Tensor]:
    return {"spiece_model": torch.frombuffer(bytearray(pieces), dtype=torch.uint8).clone()}


def wan_name(name: str) -> str:
    """transformers' name -> Wan2.1's, by the same table read backwards."""
    for pattern, replacement in WAN_NAMES:
        plain = pattern.pattern.removeprefix("^").replace("\\.", ".")
        backwards = "^" + re.escape(replacement).replace(r"\\1", r"(\d+)")
        name = re.sub(backwards, plain.replace(r"(\d+)", r"\1"), name)
    return name


def expected(encoder, pieces) -> torch.Tensor:
    ids = [*sentencepiece.SentencePieceProcessor(model_proto=pieces).encode(TEXT), 1]
    with torch.no_grad():
        return encoder(input_ids=torch.tensor([ids])).last_hidden_state


def test_a_file_as_comfyui_distributes_it_gives_the_models_own_numbers(encoder, pieces, tmp_path):
    save_file(weights(encoder) | with_tokenizer(pieces), tmp_path / "umt5.safetensors")
    found = encode_prompt(f"  {TEXT}\n", tmp_path / "umt5.safetensors", dtype=torch.float32)
    torch.testing.assert_close(found, expected(encoder, pieces), rtol=1e-5, atol=1e-5)


def test_wans_own_names_give_the_same(encoder, pieces, tmp_path):
    state = {wan_name(name): tensor for name, tensor in weights(encoder).items()}
    assert "blocks.0.attn.q.weight" in state and {transformers_name(n) for n in state} == set(weights(encoder))
    torch.save(state, tmp_path / "umt5.pth")
    (tmp_path / "spiece.model").write_bytes(pieces)
    found = encode_prompt(TEXT, tmp_path / "umt5.pth", tmp_path / "spiece.model", torch.float32)
    torch.testing.assert_close(found, expected(encoder, pieces), rtol=1e-5, atol=1e-5)


def test_the_command_writes_what_prompt_embeds_takes(encoder, pieces, tmp_path, capsys):
    state = weights(encoder)
    for name in [n for n in state if n.endswith(("wo.weight", "q.weight"))]:
        scale = state[name].abs().max() / 448
        state[name.replace(".weight", ".scale_weight")] = scale
        state[name] = (state[name] / scale).to(torch.float8_e4m3fn)
    state["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(state | with_tokenizer(pieces), tmp_path / "umt5_fp8.safetensors")
    out = tmp_path / "prompt.safetensors"
    assert (
        main(["encode-prompt", TEXT, "--text-encoder", str(tmp_path / "umt5_fp8.safetensors"), "--out", str(out)]) == 0
    )
    [tensor] = load_file(out).values()
    exact = expected(encoder, pieces)
    assert tensor.shape == exact.shape and f"{exact.shape[1]} tokens of {DIM} numbers" in capsys.readouterr().out
    assert (tensor - exact).norm() / exact.norm() < 0.1


def test_what_does_not_fit_is_refused(encoder, pieces, tmp_path):
    save_file(weights(encoder), tmp_path / "bare.safetensors")
    save_file({"a.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    save_file(weights(encoder) | with_tokenizer(b"junk" * 9), tmp_path / "junk.safetensors")
    save_file(weights(encoder) | with_tokenizer(pieces), tmp_path / "whole.safetensors")
    whole, bias = weights(encoder) | with_tokenizer(pieces), ".1.layer.0.SelfAttention.relative_attention_bias.weight"
    gate = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    save_file({name: t for name, t in whole.items() if not name.endswith(bias)}, tmp_path / "t5.safetensors")
    save_file({name: t for name, t in whole.items() if name != gate}, tmp_path / "gateless.safetensors")
    norm = "encoder.final_layer_norm.weight"
    save_file({name: t for name, t in whole.items() if name != norm}, tmp_path / "normless.safetensors")
    save_file(whole | {norm: torch.ones(3)}, tmp_path / "short.safetensors")
    for name, text, found in (
        ("t5", TEXT, "is a T5 text encoder"),
        ("gateless", TEXT, "lacks tensors of a umt5 encoder"),
        ("normless", TEXT, f"has no '{norm}', expected"),
        ("short", TEXT, r"as \[3\], expected \[32\]"),
        ("bare", TEXT, "has no tokenizer inside"),
        ("other", TEXT, "is no umt5 text encoder"),
        ("junk", TEXT, "no SentencePiece model"),
        ("whole", " \n", "prompt is empty"),
        ("whole", TEXT * 60, "at most 512"),
    ):
        with pytest.raises(AvatarError, match=found):
            encode_prompt(text, tmp_path / f"{name}.safetensors", dtype=torch.float32)


def test_prompts_are_cleaned_as_wan_does():
    assert clean(" A&amp;amp;B \n\t c ") == "A&B c"
