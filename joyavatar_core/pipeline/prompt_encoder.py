"""A prompt's embeddings by Wan2.1's text encoder, umt5-xxl, through `transformers`."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints.quantised import dequantised
from ..checkpoints.reader import LazyTensor, read_file
from ..errors import AvatarError
from ..paths import replacing

TOKENIZER_KEY = "spiece_model"  # the tokenizer's file as bytes, in the encoders that ComfyUI distributes
MAX_TOKENS = 512
END = 1  # the token behind every prompt
# Wan2.1's own names -> those of transformers' UMT5EncoderModel.
WAN_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^token_embedding\.", "shared."),
        (r"^norm\.", "encoder.final_layer_norm."),
        (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
        (r"^blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
        (r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
         r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
        (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
        (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
        (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
        (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    )
)  # fmt: skip


def clean(text: str) -> str:
    """HTML entities undone twice and white space collapsed, as Wan2.1 prepares prompts."""
    return " ".join(html.unescape(html.unescape(text)).split())


def transformers_name(name: str) -> str:
    for pattern, replacement in WAN_NAMES:
        name = pattern.sub(replacement, name)
    return name


def read_encoder(path: Path, tokenizer: Path | None) -> tuple[dict[str, LazyTensor], bytes]:
    """The encoder's tensors under transformers' names, and its SentencePiece model.

    Raises AvatarError for a file that is no umt5 encoder and where no tokenizer is to be found.
    """
    tensors = dict(read_file(path).tensors)
    own = tensors.pop(TOKENIZER_KEY, None)
    tensors = {transformers_name(name): tensor for name, tensor in dequantised(tensors, path.name).items()}
    if "encoder.block.0.layer.0.SelfAttention.q.weight" not in tensors:
        raise AvatarError(f"'{path.name}' is no umt5 text encoder; give Wan2.1's umt5-xxl.", "text_encoder")
    second = "encoder.block.1.layer.0.SelfAttention."
    if f"{second}q.weight" in tensors and f"{second}relative_attention_bias.weight" not in tensors:
        raise AvatarError(
            f"'{path.name}' is a T5 text encoder, whose layers share one table of positions, and not umt5; give "
            "Wan2.1's umt5-xxl.",
            "text_encoder",
        )
    if tokenizer is not None:
        try:
            return tensors, tokenizer.read_bytes()
        except OSError as problem:
            raise AvatarError(f"Cannot read '{tokenizer}': {problem.strerror}; give umt5's spiece.model.") from None
    if own is None:
        raise AvatarError(
            f"'{path.name}' has no tokenizer inside, as the files for ComfyUI have; give umt5's spiece.model.",
            "tokenizer",
        )
    return tensors, own.copy(torch.uint8).numpy().tobytes()


def encode_prompt(
    text: str, encoder: str | Path, tokenizer: str | Path | None = None, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """The last hidden state of a prompt, float32 [1, tokens, dim], without padding.

    encoder: umt5-xxl in the names of transformers, ComfyUI or Wan2.1, also fp8 or GGUF. Raises AvatarError for files
    that do not fit, for packages that are missing, and for a prompt that is empty or too long.
    """
    try:
        from sentencepiece import SentencePieceProcessor
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as missing:
        raise AvatarError(
            f"Prompts need the package '{missing.name}'; run: pip install transformers sentencepiece."
        ) from None
    tensors, pieces = read_encoder(Path(encoder), None if tokenizer is None else Path(tokenizer))
    if not clean(text):
        raise AvatarError("The prompt is empty; describe the person and the scene in a sentence.")
    try:
        ids = [*SentencePieceProcessor(model_proto=pieces).encode(clean(text)), END]
    except RuntimeError:
        raise AvatarError("The tokenizer is no SentencePiece model; give umt5's spiece.model.", "tokenizer") from None
    if len(ids) > MAX_TOKENS:
        raise AvatarError(f"The prompt has {len(ids)} tokens, at most {MAX_TOKENS} are taken; shorten it.")
    try:
        with torch.device("meta"):
            model = UMT5EncoderModel(config_of(tensors, UMT5Config))
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as problem:
        raise AvatarError(
            f"'{Path(encoder).name}' lacks tensors of a umt5 encoder or has malformed ones ({problem}); download it "
            "again."
        ) from None
    expected = model.state_dict()
    needed = [name for name in expected if name != "encoder.embed_tokens.weight"]
    wrong = next((n for n in needed if n not in tensors or tensors[n].shape != tuple(expected[n].shape)), None)
    if wrong:
        found = f"'{wrong}' as {list(tensors[wrong].shape)}" if wrong in tensors else f"no '{wrong}'"
        raise AvatarError(
            f"'{Path(encoder).name}' has {found}, expected {list(expected[wrong].shape)}; download the encoder again."
        )
    if max(ids) >= model.config.vocab_size:
        raise AvatarError("The tokenizer has more words than the encoder; give the one that belongs to it.")
    state = {name: tensors[name].copy(dtype) for name in needed}
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    model.load_state_dict(state, assign=True)
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).last_hidden_state.float()


def config_of(tensors: Mapping[str, LazyTensor], kind):
    """The dimensions of a umt5 encoder, from its tensors' shapes."""
    words, dim = tensors["shared.weight"].shape
    block = "encoder.block.0.layer."
    buckets, heads = tensors[f"{block}0.SelfAttention.relative_attention_bias.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.block."))
    return kind(
        vocab_size=words, d_model=dim, d_kv=tensors[f"{block}0.SelfAttention.q.weight"].shape[0] // heads,
        d_ff=tensors[f"{block}1.DenseReluDense.wi_0.weight"].shape[0], num_layers=layers, num_heads=heads,
        relative_attention_num_buckets=buckets, feed_forward_proj="gated-gelu", dropout_rate=0.0, use_cache=False,
    )  # fmt: skip


def save_prompt(path: str | Path, embeddings: Tensor, text: str) -> None:
    """Write a prompt's embeddings as `load_prompt` reads them. Raises AvatarError where it cannot be written."""
    try:
        with replacing(path) as unfinished:
            save_file({"prompt": embeddings.contiguous()}, unfinished, metadata={"prompt": text})
    except Exception as problem:
        raise AvatarError(f"Cannot write '{path}' ({problem}); choose a folder that exists and has room.") from None
