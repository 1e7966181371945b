"""State files: safetensors whose last tensor is a hash of everything before it, written atomically.

A flipped bit or a cut is found before a number is used, in one pass over the file and a few MiB of memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoints.reader import SAFETENSORS_DTYPES
from .files import open_regular, replace_synced
from .fingerprint import WINDOW, raw_bytes

FORMAT = 1
METADATA_KEY = "joyavatar_state"
DIGEST = "digest"  # the last tensor: BLAKE2b of all bytes before it
DIGEST_BYTES = 32
MAX_HEADER = 32 << 20  # bytes; 300,000 segments fit
DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
TENSOR = "$tensor"


class DamagedError(Exception):
    """A file of a recording differs from what was written; the text says how."""


def write_state(path: Path, state: Mapping[str, Any]) -> int:
    """Write nested dicts, lists, numbers, strings and tensors to `path`, atomically and durably; returns its bytes.

    Tensors are written a slice of their first axis at a time, so that a cache on a GPU, or a view of one, costs no
    second copy. Raises OSError.
    """
    tensors: dict[str, Tensor] = {}
    facts = json.dumps({"format": FORMAT, **_split(state, "", tensors)}, separators=(",", ":"))
    ordered = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # every offset is a multiple of its item
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: facts}}
    offset = 0
    for name, tensor in ordered:
        stop = offset + tensor.nbytes
        header[name] = _entry(DTYPE_NAMES[tensor.dtype], list(tensor.shape), offset, stop)
        offset = stop
    header[DIGEST] = _entry("U8", [DIGEST_BYTES], offset, offset + DIGEST_BYTES)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replace_synced(path) as file:
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

        def put(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        put(len(text).to_bytes(8, "little"))
        put(text)
        for _, tensor in ordered:
            for part in tensor if tensor.ndim > 1 else [tensor]:
                put(raw_bytes(part))
        file.write(digest.digest())
        return file.tell()


def read_state(path: Path, most_bytes: int) -> dict[str, Any]:
    """What `write_state` was given, its tensors as views of the mapped file. Raises DamagedError, OSError.

    A file above `most_bytes` is refused unread; nothing is allocated by a number from the file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise DamagedError(f"it has {size} bytes, expected at most {most_bytes}")
        header = int.from_bytes(file.read(8), "little")
        if not 2 <= header <= min(MAX_HEADER, size - 8 - DIGEST_BYTES):
            raise DamagedError("it is cut short or no state")
        file.seek(0)
        _check_digest(file, size)
    try:
        with safe_open(path, framework="pt") as mapped:
            facts = json.loads((mapped.metadata() or {})[METADATA_KEY])
            if facts["format"] != FORMAT:
                raise DamagedError(f"it has format {facts['format']!r}, expected {FORMAT}; use the version it is from")
            return _merge(facts, mapped)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise DamagedError(f"its contents are malformed ({type(problem).__name__})") from None


def _check_digest(file: BinaryIO, size: int) -> None:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    while file.tell() < size - DIGEST_BYTES:
        chunk = file.read(min(WINDOW, size - DIGEST_BYTES - file.tell()))
        if not chunk:
            raise DamagedError("it shrank while it was read")
        digest.update(chunk)
    if file.read(DIGEST_BYTES) != digest.digest():
        raise DamagedError("its checksum does not match")


def _entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` with its tensors moved to `tensors` and their names in their place."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _split(item, f"{name}/{key}".lstrip("/"), tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_split(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _merge(value: Any, mapped: safe_open) -> Any:
    """The inverse of `_split`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return mapped.get_tensor(value[TENSOR])
        return {key: _merge(item, mapped) for key, item in value.items()}
    return [_merge(item, mapped) for item in value] if isinstance(value, list) else value


def same_layout(tensor: object, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether this is a tensor of exactly this shape and dtype."""
    return isinstance(tensor, Tensor) and tuple(tensor.shape) == shape and tensor.dtype == dtype
