"""GGUF files as city96's converter writes them for image and video models, read through the `gguf` package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import AvatarError
from .mapped_pages import release_pages
from .reader import EXPECTED_FILE, LazyTensor, TensorFile

NUMBERS = 1 << 18  # dequantised at a time
SHAPE_KEY = "comfy.gguf.orig_shape."  # of tensors that were reshaped to be quantised
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_gguf(path: Path) -> TensorFile:
    """The tensors of a GGUF file, lazily dequantised; a quantised one is read as bfloat16 unless asked otherwise.

    Its text metadata is the file's. Raises AvatarError where the package is missing, the file is damaged, or holds a
    quantisation that the package cannot undo.
    """
    try:
        import gguf
    except ImportError:
        raise AvatarError(
            f"'{path.name}' is a GGUF file and the package 'gguf' is not installed; install it (pip install gguf)."
        ) from None
    try:
        reader = gguf.GGUFReader(path)
        tensors = {tensor.name: lazy_tensor(tensor, shape_of(reader, tensor)) for tensor in reader.tensors}
        metadata = {
            name: str(field.contents())
            for name, field in reader.fields.items()
            if list(field.types) == [gguf.GGUFValueType.STRING]
        }
    except NotImplementedError as problem:
        raise AvatarError(f"'{path.name}' cannot be dequantised ({problem}), choose a Q4, Q5, Q6 or Q8 file.") from None
    except Exception as problem:  # the reader does not check what it reads
        raise AvatarError(
            f"'{path.name}' is not a whole GGUF file ({type(problem).__name__}), {EXPECTED_FILE}; download it again."
        ) from None
    if not tensors:
        raise AvatarError(f"'{path.name}' is a GGUF file without tensors, {EXPECTED_FILE}; download it again.")
    return TensorFile(tensors, (), metadata)


def shape_of(reader, tensor) -> tuple[int, ...]:
    """Rows first, as PyTorch counts; GGUF counts columns first and may hold a tensor of another shape."""
    field = reader.get_field(SHAPE_KEY + tensor.name)
    if field is not None:
        return tuple(int(n) for n in field.contents())
    return tuple(int(n) for n in reversed(tensor.shape))


def lazy_tensor(tensor, shape: tuple[int, ...]) -> LazyTensor:
    import gguf

    kind = tensor.tensor_type
    block, size = gguf.GGML_QUANT_SIZES[kind]
    gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)  # NotImplementedError now rather than while loading

    def copy(dtype: torch.dtype) -> torch.Tensor:
        rows = tensor.data.reshape(-1, tensor.data.shape[-1])  # quantised in blocks along the last axis
        columns = rows.shape[-1] if rows.dtype != np.uint8 else rows.shape[-1] // size * block
        result = torch.empty(len(rows), columns, dtype=dtype)
        step = max(1, NUMBERS // columns)
        for start in range(0, len(rows), step):
            part = gguf.quants.dequantize(np.ascontiguousarray(rows[start : start + step]), kind)
            result[start : start + step] = torch.from_numpy(np.array(part, np.float32))
        release_pages(rows.ctypes.data, rows.nbytes)
        return result.reshape(shape)

    dtype = FLOATS.get(kind.name, torch.bfloat16)
    stored = None if kind.name in FLOATS else kind.name
    return LazyTensor(shape, dtype, lambda: copy(dtype), copy, stored, int(tensor.n_bytes))
