"""Loading files of real size: every public layout of a 1.3B with random bfloat16 weights, one after the other.

    python benchmarks/loading.py [--layout NAME ...] [--layers 30] [--folder DIR] [--keep]

Each file is written, told by `inspect`, and loaded in a process of its own, which touches every page. Printed are the
file's size, the seconds of both, the peak of resident memory as a multiple of the larger of the file and the weights as
they are kept, and how much of the memory at the end is the process's own: the rest is the mapped file, which the system
may drop. fp8 is kept as it is ("auto") and expanded ("full"), a bfloat16 file also rounded to fp8. --limit ends with an
error where a peak is above that multiple. --keep leaves the files; without it each is deleted before the next is
written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from joyavatar_core.checkpoints import canonical_shapes
from joyavatar_core.config import AvatarConfig

State = dict[str, Tensor]
LINEARS = (*(f".{a}_attn.{x}." for a in ("self", "cross") for x in "qkvo"), ".ffn.0.", ".ffn.2.")
CHILD = """
import json, sys, time
import torch
from joyavatar_core.checkpoints import open_checkpoint
from joyavatar_core.checkpoints.inspection import describe
from joyavatar_core.pipeline.avatar import load_transformer
from joyavatar_core.pipeline.avatar_options import AvatarOptions

def resident(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

path, more, weight_dtype = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
start = time.perf_counter()
facts = describe(path)
told = time.perf_counter() - start
checkpoint = open_checkpoint(path, **more)
options = AvatarOptions(weights=path, weight_dtype=weight_dtype)
torch.ones(10).bfloat16().float().sum()
open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
before, own, start = resident("VmRSS"), resident("RssAnon"), time.perf_counter()
model = load_transformer(options, checkpoint)
for parameter in model.parameters():
    parameter.detach().view(torch.uint8).max()
print(json.dumps({
    "told": told, "loaded": time.perf_counter() - start, "peak": resident("VmHWM") - before,
    "own": resident("RssAnon") - own,
    "kept": sum(p.numel() * p.element_size() for p in model.parameters()),
    "layout": checkpoint.layout, "name": facts.get("name", facts["kind"]),
}))
"""


def random_state(config: AvatarConfig) -> State:
    """bfloat16 weights under which numbers stay of about unit scale."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, shape in canonical_shapes(config).items():
        noise = torch.randn(shape, generator=generator, dtype=torch.bfloat16)
        scale = 0.02 if len(shape) == 1 else torch.Size(shape[1:]).numel() ** -0.5
        state[name] = noise * scale + (1 if "norm" in name and name.endswith("weight") else 0)
    return state


def is_adapted(name: str) -> bool:
    """Whether a tensor is of one of the ten linear layers of a block."""
    return any(linear in name for linear in LINEARS)


def pairs(state: State, rank: int, side_a: str, side_b: str) -> State:
    """A LoRA on the ten linear layers of every block."""
    found = {}
    for name, weight in state.items():
        if name.endswith(".weight") and is_adapted(name):
            layer, (rows, columns) = name.removesuffix(".weight"), weight.shape
            found[f"{layer}.{side_a}.weight"] = torch.randn(rank, columns, dtype=torch.bfloat16) / columns**0.5
            found[f"{layer}.{side_b}.weight"] = torch.randn(rows, rank, dtype=torch.bfloat16) / 100
    return found


def livetalk(state: State, folder: Path) -> Path:
    save_file(state, folder / "livetalk.safetensors")
    return folder / "livetalk.safetensors"


def comfyui(state: State, folder: Path) -> Path:
    save_file({f"model.diffusion_model.{name}": t for name, t in state.items()}, folder / "comfyui.safetensors")
    return folder / "comfyui.safetensors"


def avatarforcing(state: State, folder: Path) -> Path:
    based = {}
    for name, t in state.items():
        layer, _, last = name.rpartition(".")
        based[f"model.{layer}.base_layer.{last}" if is_adapted(name) else f"model.{name}"] = t
    adapters = {f"model.{name}": t for name, t in pairs(state, 128, "lora_A.default", "lora_B.default").items()}
    torch.save({"generator_ema": {**based, **adapters}}, folder / "avatarforcing.pt")
    return folder / "avatarforcing.pt"


def omniavatar(state: State, folder: Path) -> Path:
    """The audio branch and a LoRA of the rest, beside its base."""
    torch.save({name: t for name, t in state.items() if not name.startswith("audio")}, folder / "base.pt")
    full = {name: t for name, t in state.items() if name.startswith(("audio", "patch_embedding"))}
    torch.save({**full, **pairs(state, 128, "lora_A.default", "lora_B.default")}, folder / "pytorch_model.pt")
    (folder / "config.json").write_text('{"lora_rank": 128, "lora_alpha": 64}')
    return folder / "pytorch_model.pt"


def student(state: State, folder: Path) -> Path:
    torch.save({"generator_ema": {f"model.{name}": t for name, t in state.items()}}, folder / "student.pt")
    return folder / "student.pt"


def longlive(state: State, folder: Path) -> Path:
    torch.save({"generator": {f"model.{name}": t for name, t in state.items()}}, folder / "base.pt")
    lora = {f"base_model.model.{name}": t for name, t in pairs(state, 256, "lora_A", "lora_B").items()}
    torch.save({"generator_lora": lora}, folder / "lora.pt")
    return folder / "lora.pt"


def fp8(state: State, folder: Path) -> Path:
    saved: State = {}
    for name, t in state.items():
        if is_adapted(name) and t.ndim == 2:
            scale = t.float().abs().max() / 448
            saved[name] = (t.float() / scale).to(torch.float8_e4m3fn)
            saved[f"{name.removesuffix('.weight')}.scale_weight"] = scale
        else:
            saved[name] = t
    saved["scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    save_file(saved, folder / "fp8.safetensors")
    return folder / "fp8.safetensors"


def gguf(state: State, folder: Path) -> Path:
    import gguf as format

    writer = format.GGUFWriter(folder / "q8_0.gguf", "wan")
    for name, t in state.items():
        array, kind = t.float().numpy(), format.GGMLQuantizationType.F32
        if is_adapted(name) and t.ndim == 2:
            kind = format.GGMLQuantizationType.Q8_0
            array = format.quants.quantize(array, kind)
        if t.ndim > 4:  # the format has four axes
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(t.shape))
            array = array.reshape(t.shape[0], -1)
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "q8_0.gguf"


AVATAR = AvatarConfig()
TEXT_TO_VIDEO = AvatarConfig(in_channels=16, audio_dim=0)
# name: dimensions, how the file is written, and what `open_checkpoint` is told besides
LAYOUTS: dict[str, tuple[AvatarConfig, Callable[[State, Path], Path], dict[str, str]]] = {
    "livetalk": (AVATAR, livetalk, {}),
    "comfyui": (AVATAR, comfyui, {}),
    "fp8": (AVATAR, fp8, {}),
    "gguf": (AVATAR, gguf, {}),
    "avatarforcing": (AVATAR, avatarforcing, {}),
    "omniavatar": (AVATAR, omniavatar, {"base": "base.pt"}),
    "student": (TEXT_TO_VIDEO, student, {}),
    "longlive": (TEXT_TO_VIDEO, longlive, {"base": "base.pt", "release": "longlive"}),
}
KEPT = {"livetalk": ("auto", "fp8"), "fp8": ("auto", "full"), "gguf": ("auto", "fp8")}  # of others only "auto"


def measure(name: str, layers: int, folder: Path) -> float:
    """Prints a row for every way to keep the weights; the largest multiple."""
    config, write, more = LAYOUTS[name]
    config = AvatarConfig(**{**vars(config), "num_layers": layers})
    path = write(random_state(config), folder)
    told = {key: str(folder / value) if key == "base" else value for key, value in more.items()}
    size = sum(file.stat().st_size for file in {path, *(Path(told[key]) for key in told if key == "base")})
    worst = 0.0
    for weight_dtype in KEPT.get(name, ("auto",)):
        command = [sys.executable, "-c", CHILD, str(path), json.dumps(told), weight_dtype]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(run.stderr[-2000:])
        found = json.loads(run.stdout.splitlines()[-1])
        multiple = found["peak"] / max(size, found["kept"])
        worst = max(worst, multiple)
        print(
            f"| {name} | {found['layout']} | {weight_dtype} | {size / 2**30:.2f} | {found['kept'] / 2**30:.2f} | "
            f"{found['told']:.1f} | {found['loaded']:.0f} | {found['peak'] / 2**30:.2f} | {multiple:.2f} | "
            f"{found['own'] / 2**30:.2f} |", flush=True
        )  # fmt: skip
    return worst


def main() -> None:
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("--layout", action="append", choices=LAYOUTS, help="may be repeated; default: all")
    top.add_argument("--layers", type=int, default=30)
    top.add_argument("--folder", type=Path, help="where the files are written; default: a temporary folder")
    top.add_argument("--keep", action="store_true")
    top.add_argument("--limit", type=float, default=1.15, help="of a peak over the larger of file and weights")
    args = top.parse_args()
    print("| file | told as | kept | file, GiB | weights, GiB | told, s | loaded, s | peak, GiB | ratio | own, GiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    worst = {}
    for name in args.layout or LAYOUTS:
        if args.keep:
            place = (args.folder or Path(tempfile.gettempdir())) / name
            place.mkdir(parents=True, exist_ok=True)
            worst[name] = measure(name, args.layers, place)
        else:
            with tempfile.TemporaryDirectory(dir=args.folder) as place:
                worst[name] = measure(name, args.layers, Path(place))
    above = [name for name, multiple in worst.items() if multiple > args.limit]
    if above:
        sys.exit(f"above {args.limit} times the larger of file and weights: {', '.join(above)}")


if __name__ == "__main__":
    main()
