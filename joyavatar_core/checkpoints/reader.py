"""Files and state dicts as named lazy tensors: nothing is read before it is asked for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import AvatarError
from .mapped_pages import release_pages

SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
}  # fmt: skip

# What people put into a model folder by mistake: (offset, bytes, what it is).
WRONG_FILES = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself (run 'git lfs pull' or download it again)"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"RIFF", "a WAV, AVI or WebP file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"<", "an HTML or XML page (a failed download)"),
    (0, b"{", "a JSON text"),
    (4, b"ftyp", "an MP4 video"),
    (257, b"ustar", "a tar archive"),
)
MAX_HEADER = 100_000_000  # bytes, of a safetensors file (its specification)
EXPECTED_FILE = "expected a .safetensors or PyTorch checkpoint or a GGUF file"


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is known by shape and dtype and read on demand.

    `view` shares memory with its file's mapping or with the caller's tensor, where it is not quantised. `copy(dtype)`
    never does, and leaves no page of the file resident behind it.
    `stored` names the number format of a quantised tensor ("float8_e4m3fn", "Q4_K") and `stored_bytes` its size in the
    file; `dtype` is then what it is read as. `fp8` gives a tensor that can be kept so as float8 values and their scale
    (one number or one a row, None for 1).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    view: Callable[[], torch.Tensor]
    copy: Callable[[torch.dtype], torch.Tensor]
    stored: str | None = None
    stored_bytes: int | None = None
    fp8: Callable[[], tuple[torch.Tensor, torch.Tensor | None]] | None = None

    @property
    def format(self) -> str:
        """The number format in the file."""
        return self.stored or str(self.dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return prod(self.shape) * self.dtype.itemsize if self.stored_bytes is None else self.stored_bytes


@dataclass(frozen=True)
class TensorFile:
    """What a file holds: tensors under their own names, the containers they were found in, and its metadata."""

    tensors: Mapping[str, LazyTensor]
    containers: tuple[str, ...]
    metadata: Mapping[str, str]


# Where a training dump keeps the network to run, best first (Self-Forcing, CausVid, LongLive).
CONTAINERS = ("generator_ema", "generator", "model", "state_dict", "generator_lora")


def read_file(path: str | Path) -> TensorFile:
    """Open a safetensors, GGUF or PyTorch file by what its first bytes say, whatever it is called.

    Raises AvatarError for a file that is missing, empty, cut short, of another kind, or that wants to run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise AvatarError(f"Cannot read '{path}': {reason}; {EXPECTED_FILE}.") from None
    if not head:
        raise AvatarError(f"'{path.name}' is empty, {EXPECTED_FILE}; download it again.")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        shards = shards_of(path)
        return read_safetensors(path) if len(shards) == 1 else union([read_safetensors(shard) for shard in shards])
    if head.startswith(b"GGUF"):
        from .gguf_file import read_gguf

        return read_gguf(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")  # a page may begin with a byte order mark or blank lines
    for offset, magic, what in WRONG_FILES:
        if head.startswith(magic, offset) or (offset == 0 and text.startswith(magic)):
            raise AvatarError(f"'{path.name}' is {what}, {EXPECTED_FILE}.")
    if head.startswith((b"PK\x03\x04", b"\x80")):
        if path.suffix == ".safetensors":  # torch.load goes by this name
            raise AvatarError(f"'{path.name}' is a PyTorch (zip or pickle) file, not safetensors; rename it to .pt.")
        zipped = head.startswith(b"PK")
        return from_state_dict(load_pickle(path, zipped), path.name, mapped=zipped)
    raise AvatarError(f"'{path.name}' is of no known kind (it starts with {head[:4]!r}), {EXPECTED_FILE}.")


def shards_of(path: Path) -> list[Path]:
    """All files of the set that a "-00001-of-00002" name belongs to, or the file alone."""
    match = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.safetensors", path.name)
    if not match:
        return [path]
    stem, count = match.groups()
    shards = [path.with_name(f"{stem}-{n:05d}-of-{count}.safetensors") for n in range(1, int(count) + 1)]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise AvatarError(
            f"'{path.name}' is one of {int(count)} shards and '{absent[0]}' is not beside it; download the rest."
        )
    return shards


def union(files: list[TensorFile]) -> TensorFile:
    """One file out of its shards."""
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    return TensorFile(tensors, (), files[0].metadata)


def read_safetensors(path: Path) -> TensorFile:
    """Lazy tensors over one memory mapping that lives as long as they do."""
    try:
        mapping = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as problem:
        raise AvatarError(
            f"'{path.name}' is not a whole safetensors file ({problem}), {EXPECTED_FILE}; download it again."
        ) from None

    def lazy(name: str) -> LazyTensor:
        def copy(dtype: torch.dtype) -> torch.Tensor:
            # A mapping of its own, dropped at once: pages read through the shared one would stay resident.
            with safe_open(path, framework="pt") as own:
                return own.get_tensor(name).to(dtype, copy=True)

        header = mapping.get_slice(name)
        dtype = SAFETENSORS_DTYPES.get(header.get_dtype())
        if dtype is None:
            raise AvatarError(
                f"'{path.name}' holds {header.get_dtype()} tensors, expected float32, float16 or bfloat16."
            )
        return LazyTensor(tuple(header.get_shape()), dtype, lambda: mapping.get_tensor(name), copy)

    return TensorFile({name: lazy(name) for name in mapping.keys()}, (), mapping.metadata() or {})  # noqa: SIM118


def load_pickle(path: Path, zipped: bool) -> object:
    """The contents of a PyTorch file, tensors only; memory-mapped unless it is of the format before 2020."""
    if tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2]) < (2, 6):
        raise AvatarError(  # CVE-2025-32434: weights_only could be bypassed
            f"'{path.name}' is a pickle and PyTorch {torch.__version__} cannot read one safely; "
            "update PyTorch to 2.6 or convert the file to safetensors."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as problem:
        name = re.search(r"GLOBAL (\S+)", str(problem))
        found = f"it asks for {name[1]}" if name else "it holds more than tensors"
        raise AvatarError(
            f"'{path.name}' is a pickle that was not opened because {found}, "
            "expected a .safetensors or PyTorch checkpoint of plain tensors; convert it to safetensors where you trust "
            "it."
        ) from None
    except Exception as problem:  # a damaged pickle may fail in any way at all
        raise AvatarError(
            f"'{path.name}' is not a whole PyTorch file ({type(problem).__name__}), {EXPECTED_FILE}; download it again."
        ) from None


def from_state_dict(
    tree: object, label: str, metadata: Mapping[str, str] | None = None, mapped: bool = False
) -> TensorFile:
    """Lazy tensors over tensors in memory, out of the containers that training code wraps around them.

    mapped: the tensors are a mapped file, whose pages are let go once a tensor was copied.
    """
    containers: tuple[str, ...] = ()
    while isinstance(tree, Mapping):
        inner = next((key for key in CONTAINERS if isinstance(tree.get(key), Mapping)), None)
        if inner is None:
            break
        tree, containers = tree[inner], (*containers, inner)
    if not isinstance(tree, Mapping):
        raise AvatarError(f"'{label}' holds a {type(tree).__name__}, expected a state dict (name to tensor).")

    viewed: set[int] = set()  # addresses of tensors that are in use as they are: they may have been written to

    def lazy(tensor: torch.Tensor) -> LazyTensor:
        def view() -> torch.Tensor:
            viewed.add(tensor.data_ptr())
            return tensor.detach()

        def copy(dtype: torch.dtype) -> torch.Tensor:
            result = tensor.detach().to(dtype, copy=True)
            if mapped and tensor.data_ptr() not in viewed and tensor.is_contiguous():
                release_pages(tensor.data_ptr(), tensor.nbytes)
            return result

        return LazyTensor(tuple(tensor.shape), tensor.dtype, view, copy)

    tensors = {str(name): lazy(value) for name, value in tree.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        found = ", ".join(map(str, list(tree)[:3])) or "nothing"
        raise AvatarError(f"'{label}' holds no tensors (found {found}), expected a state dict (name to tensor).")
    return TensorFile(tensors, containers, metadata or {})
