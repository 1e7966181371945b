"""Fingerprints of the inputs of a recording: hashes that read samples of large tensors and files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from ..audio import AudioSource

WINDOW = 4 << 20  # bytes read at a time
WHOLE_TENSOR = 1 << 20  # bytes; larger tensors are sampled in SAMPLES windows of SAMPLE bytes, evenly spread
WHOLE_FILE = 1 << 30  # likewise for files
SAMPLES, SAMPLE = 64, 4096
FILE_SAMPLES, FILE_SAMPLE = 1024, 1 << 16


def new_digest() -> hashlib.blake2b:
    """The hash of all fingerprints: 128 bits of BLAKE2b."""
    return hashlib.blake2b(digest_size=16)


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in C order, whatever its dtype and device."""
    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def tensors_fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Over names, dtypes, shapes and contents; of tensors above 1 MiB, 64 windows of 4 KiB and the last one are read.

    A change is missed only if it avoids all of these windows. No training, merge or conversion does.
    """
    digest = new_digest()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        if tensor.nbytes <= WHOLE_TENSOR:
            digest.update(raw_bytes(tensor))
            continue
        flat = tensor.detach().contiguous().reshape(-1)
        count = SAMPLE // tensor.itemsize
        part = flat.numel() // SAMPLES
        digest.update(raw_bytes(flat[: part * SAMPLES].view(SAMPLES, part)[:, :count]))
        digest.update(raw_bytes(flat[-count:]))
    return digest.hexdigest()


def module_fingerprint(module: object) -> str:
    """Of a network, or of what holds one as `model` or `module`, by its tensors; of anything else, by its class."""
    for network in (module, getattr(module, "model", None), getattr(module, "module", None)):
        if isinstance(network, nn.Module):
            return tensors_fingerprint(network.state_dict().items())
    return type(module).__name__


def text_fingerprint(text: str) -> str:
    """Of a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def stream_digest(file: BinaryIO, stop: int | None = None) -> str:
    """Of an open file from where it stands, up to byte `stop` (None: its end)."""
    digest = new_digest()
    while chunk := file.read(WINDOW if stop is None else min(WINDOW, max(0, stop - file.tell()))):
        digest.update(chunk)
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Of a file's bytes; above 1 GiB its length and 1,024 windows of 64 KiB, evenly spread from first to last."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            return stream_digest(file)
        digest = new_digest()
        digest.update(str(size).encode())
        for number in range(FILE_SAMPLES):
            file.seek((size - FILE_SAMPLE) * number // (FILE_SAMPLES - 1))
            digest.update(file.read(FILE_SAMPLE))
        return digest.hexdigest()


def voice_fingerprint(voice: AudioSource) -> str:
    """Of a voice: of its file where it has one, else of its samples, read a second at a time."""
    path = getattr(voice, "path", None)
    if path is not None:
        return file_fingerprint(Path(path))
    digest = new_digest()
    digest.update(f"{voice.sample_rate} {voice.channels} {voice.num_samples};".encode())
    for start in range(0, voice.num_samples, voice.sample_rate):
        digest.update(voice.read_native(start, min(start + voice.sample_rate, voice.num_samples)).tobytes())
    return digest.hexdigest()
