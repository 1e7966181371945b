"""The commands and their flags.

`speak` makes a video from a portrait and a voice. `batch` makes many. `live` serves the video while it is made. `serve`
serves many live sessions. `join` makes a video from an interrupted recording. `inspect` describes a file of weights.
`encode-prompt` encodes a prompt.
"""

from __future__ import annotations

import _thread
import argparse
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence

from ..audio.pcm import PCM_FORMATS
from ..checkpoints.releases import RELEASES
from ..errors import AvatarError, with_flags
from ..model.attention import BACKENDS
from ..paths import existing_file, printable
from ..pipeline.avatar_options import EMBEDDED, WEIGHT_DTYPES
from ..sampling.presets import PRESETS
from . import STOPPED
from .batch import BATCH, add_batch_flags, batch
from .live import LIVE, add_live_flags, live
from .options import DTYPES, ENCODERS, KV_DTYPES
from .processes import run_command
from .serve import SERVE, add_serve_flags, serve
from .speak import speak

MAX_SEED = 2**64 - 1
RELEASE_HELP = "which public release the file is, where others have the same tensors (docs/checkpoints.md)"


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = argparse.ArgumentParser(prog="joyavatar", description="One portrait, one voice, a video of any length.")
    commands = top.add_subparsers(dest="command", required=True)

    command = commands.add_parser("speak", help="make a talking video", description="Make a talking video.")
    command.set_defaults(run=speak)
    add_speak_flags(command)

    usage = "joyavatar batch JOBS --out DIR [options]"
    command = commands.add_parser("batch", help="make many videos from a table", description=BATCH, usage=usage)
    command.set_defaults(run=batch)
    add_batch_flags(command)

    command = commands.add_parser("serve", help="serve live sessions on a cluster", description=SERVE)
    command.set_defaults(run=serve)
    add_serve_flags(command)

    command = commands.add_parser("live", help="serve a talking video while it is made", description=LIVE)
    command.set_defaults(run=live)
    add_live_flags(command)
    add_avatar_flags(command)

    join = commands.add_parser("join", help="make one video from the segments in a --state folder")
    join.set_defaults(run=run_join)
    join.add_argument("folder", metavar="DIR")
    join.add_argument("--out", required=True, help="the video to write, *.mp4")

    inspect = commands.add_parser("inspect", help="describe a file of weights")
    inspect.set_defaults(run=run_inspect)
    inspect.add_argument("file", help="a file, or embedded")
    inspect.add_argument("--release", choices=RELEASES, help=RELEASE_HELP)

    prompt = commands.add_parser("encode-prompt", help="write the file for --prompt-embeds")
    prompt.set_defaults(run=run_encode_prompt)
    prompt.add_argument("prompt", help="one or two plain sentences: who speaks, the mood, the place, the light")
    prompt.add_argument("--text-encoder", required=True, help="umt5-xxl, of ComfyUI or Wan2.1, also fp8 or GGUF")
    prompt.add_argument("--tokenizer", help="umt5's spiece.model, where it is not inside the encoder's file")
    prompt.add_argument("--out", default="prompt.safetensors", help="the file to write; default prompt.safetensors")
    return top


def add_speak_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `speak`."""
    command.add_argument("--out", required=True, help="the video to write, *.mp4")
    add_avatar_flags(command)
    recording = command.add_argument_group("recording", "resume a long video after a crash")
    recording.add_argument("--state", metavar="DIR", help="write segments and states to this folder")
    recording.add_argument(
        "--checkpoint-every", metavar="N|SIZE",
        help="a state every 40 (blocks), 30s (of video) or 200MB (of states a minute of video); "
        "default: 30s, less often where that would write more than 1GB a minute",
    )  # fmt: skip
    recording.add_argument("--resume", action="store_true", help="resume the recording in --state, if there is one")


def add_avatar_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of every command that makes a video: portrait, voice, mechanisms, models, machine, report."""
    command.add_argument("--portrait", required=True, help="a picture of any size: JPEG, PNG, WebP ... (not HEIC)")
    command.add_argument(
        "--crop", type=crop_flag, default="face",
        help="the part of the portrait to show: face (framed as in training), centre, or X,Y,W,H in pixels",
    )  # fmt: skip
    command.add_argument("--background", default="white", help="colour behind a cut-out portrait; default white")
    command.add_argument("--audio", required=True, help="the voice: any audio or video file, or - for raw PCM on stdin")
    command.add_argument(
        "--audio-rate", type=int, default=16000, help="sample rate of the raw PCM in Hz; default 16000"
    )
    command.add_argument("--audio-channels", type=int, default=1, help="channels of the raw PCM; default 1")
    command.add_argument("--audio-format", choices=PCM_FORMATS, default="s16le", help="samples of the raw PCM")
    command.add_argument(
        "--preset", choices=PRESETS, default="checkpoint",
        help="checkpoint (the default): what the checkpoint recommends; realtime: the same with at most four steps a "
        "block, with a tiny --decoder where frames are decoded; joyavatar: PSB, MCI and URCR on; plain: none of them; "
        "rolling: AvatarForcing's window",
    )  # fmt: skip
    command.add_argument("--psb", help="steps: off | first=8,base=4,blocks=4,curve=1,mode=restart|dense | 8,6,4")
    command.add_argument("--mci", help="motion: off | inject,frames=3,noise=0.25,carry=1 | context,noise=0.1")
    command.add_argument(
        "--urcr", help="memory: window,window=21 | rotate,sinks=3,recent=6,sink_source=portrait|first | prefill,..."
    )
    command.add_argument("--size", type=parse_size, help="WxH in pixels, multiples of 16; default: the checkpoint's")
    command.add_argument(
        "--refine", metavar="off|on|2x|WIDTH",
        help="restore the portrait's detail in the frames; on: 512 pixels wide, or what comes nearest; 1x to 8x: "
        "times the size; WIDTH: pixels; default of the embedded avatar, which has a refiner: on (live: 2x)",
    )  # fmt: skip
    command.add_argument("--blinks", type=float, default=17.0, help="blinks of refined faces per minute; default 17")
    command.add_argument(
        "--articulation", type=float, default=1.0, help="how far the lips of refined faces move, 0 to 3; default 1"
    )
    command.add_argument(
        "--head-motion",
        type=float,
        default=1.0,
        help="how far refined heads turn, nod and raise their brows, 0 to 3; default 1",
    )
    command.add_argument(
        "--fps", type=int,
        help="frames per second of refined faces, such as 25, 30 or 32; movements look smoother, and a video "
        "takes longer to make; default: the checkpoint's (16); most: 60",
    )  # fmt: skip
    command.add_argument("--seconds", type=float, help="the longest video; default: as long as the voice")
    command.add_argument("--seed", type=parse_seed, default=0, help="another number is another take; default 0")
    command.add_argument("--quality", type=int, default=18, help="x264's crf, 1 (best) to 51; default 18")
    command.add_argument(
        "--encoder", choices=ENCODERS, default=ENCODERS[0],
        help="nvenc: the GPU's own encoder; x264: the same bytes on every machine; auto (the default): nvenc where it "
        "works, else x264; with --state x264, or what the recording began with",
    )  # fmt: skip
    command.add_argument("--report", help="write a JSON report of the run here")
    command.add_argument("--plot", metavar="FILE.png", help="draw the report as a picture here")
    command.add_argument(
        "--monitor", action=argparse.BooleanOptionalAction, default=True,
        help="measure colour, sharpness, structure and lips, and warn of drift; default: yes",
    )  # fmt: skip
    command.add_argument(
        "--reset-on-drift",
        action="store_true",
        help="at a warning of drift, reset the cache to the sinks (a visible seam)",
    )
    command.add_argument("--heal", dest="reset_on_drift", action="store_true", help=argparse.SUPPRESS)  # its old name
    models = command.add_argument_group("models")
    models.add_argument("--weights", default="embedded", help="transformer: 'embedded' or a file")
    models.add_argument("--vae", default="embedded", help="'embedded' or a Wan2.1 VAE file")
    models.add_argument("--decoder", help="a faster decoder (taew2_1); 'vae': the VAE's own decoder")
    models.add_argument("--audio-encoder", help="wav2vec2-base file, for checkpoints with wav2vec2 features")
    models.add_argument("--prompt-embeds", help="file with the prompt's embeddings")
    models.add_argument("--base", help="base model, where --weights is a LoRA release")
    models.add_argument("--lora-alpha", type=float, help="alpha of a LoRA release in --weights without config.json")
    models.add_argument("--lora-rank", type=int, help="rank of a LoRA release in --weights without config.json")
    models.add_argument(
        "--lora", action="append", default=[], metavar="FILE[=STRENGTH]", type=parse_lora,
        help="a LoRA on top of the model, in any layout ComfyUI reads; strength 1 if not given; may be repeated",
    )  # fmt: skip
    models.add_argument("--release", choices=RELEASES, help=RELEASE_HELP)
    machine = command.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ...")
    machine.add_argument("--dtype", choices=DTYPES, default="auto", help="default: bfloat16 on CUDA, float32 on a CPU")
    machine.add_argument(
        "--weight-dtype", choices=WEIGHT_DTYPES, default="auto",
        help="how the transformer's linear layers are kept: fp8 halves their memory and multiplies in fp8 on GPUs that "
        "can; full is --dtype; default: fp8 where the file is fp8",
    )  # fmt: skip
    machine.add_argument(
        "--kv-dtype", choices=KV_DTYPES, default="auto", help="format of cached keys and values; fp8: half the memory"
    )
    machine.add_argument(
        "--compile", action="store_true", help="fuse element-wise steps with torch.compile: slower start, faster blocks"
    )
    machine.add_argument("--cuda-graphs", action="store_true", help="launch each pass as one CUDA graph")
    machine.add_argument("--attention", choices=BACKENDS, default="sdpa", help="back end of attention; default sdpa")
    machine.add_argument(
        "--decode-rank", action="store_true",
        help="in several processes (torchrun --nproc_per_node N -m joyavatar_core ...): the last one decodes; "
        "the others share each pass of the model, as many as divide its heads",
    )  # fmt: skip
    command.set_defaults(team=None)


FILES = ("--portrait", "--audio", "--out", "--state", "--report", "--plot", "--weights", "--vae", "--base")


def joined_values(arguments: Sequence[str]) -> list[str]:
    """The arguments, where a file name that begins with a dash is joined to its flag with an equals sign."""
    joined: list[str] = []
    for argument in arguments:
        named = joined and joined[-1] in FILES and argument not in ("-", "-h")
        if named and argument.startswith("-") and (not argument.startswith("--") or os.path.exists(argument)):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def parse_size(text: str) -> tuple[int, int]:
    """'512x512' -> (512, 512)."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; write it as 512x512")
    return int(match[1]), int(match[2])


def crop_flag(text: str) -> str | tuple[float, float, float, float]:
    """`parse_crop` as an argparse type."""
    from ..framing.crop import parse_crop

    try:
        return parse_crop(text)
    except AvatarError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def parse_lora(text: str) -> tuple[str, float]:
    """'style.safetensors=0.8' -> ('style.safetensors', 0.8); without a number the strength is 1."""
    path, equals, strength = text.rpartition("=")
    if not equals:
        return text, 1.0
    try:
        number = float(strength)
    except ValueError:
        return text, 1.0  # an equals sign of the name's own
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"'{strength}' is not a strength; give a number such as 0.8")
    return path, number


def parse_seed(text: str) -> int:
    """A whole number from 0 to 2^64 - 1."""
    if not text.isdigit() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed; give a whole number from 0 to {MAX_SEED}")
    return int(text)


def run_inspect(args: argparse.Namespace) -> None:
    """``inspect``: print what a file of weights is."""
    from ..checkpoints.inspection import describe, format_description
    from ..pipeline.embedded import EMBEDDED_TRANSFORMER

    file = EMBEDDED_TRANSFORMER if args.file == EMBEDDED else existing_file(args.file)
    print(format_description(describe(file, args.release)))


def run_encode_prompt(args: argparse.Namespace) -> None:
    """``encode-prompt``: write a prompt's embeddings to a file."""
    from ..pipeline.prompt_encoder import encode_prompt, save_prompt

    embeddings = encode_prompt(args.prompt, args.text_encoder, args.tokenizer)
    save_prompt(args.out, embeddings, args.prompt)
    print(f"{args.out}: {embeddings.shape[1]} tokens of {embeddings.shape[2]} numbers")


def run_join(args: argparse.Namespace) -> None:
    """``join``: make a video from an interrupted recording."""
    from ..recording import join_recording

    print(join_recording(args.folder, args.out))


def stop(number: int, frame: object) -> None:
    """The handler of SIGTERM: raises KeyboardInterrupt, so that files are closed and play."""
    raise KeyboardInterrupt


def insist(lost: sys.UnraisableHookArgs) -> None:
    """Repeat a KeyboardInterrupt that Python dropped in a finalizer or in a callback from C."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()  # this hook is such a callback itself
    else:
        sys.__unraisablehook__(lost)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for bad input, with one sentence, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot write is escaped
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    args = parser().parse_args(joined_values(sys.argv[1:] if arguments is None else arguments))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    hook, sys.unraisablehook = sys.unraisablehook, insist
    try:
        run_command(args)
    except AvatarError as problem:
        print(f"error: {printable(with_flags(problem, args))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as problem:  # a command may say in it what is kept
        print("; ".join(["stopped", *(printable(str(said)) for said in problem.args)]), file=sys.stderr)
        return STOPPED
    finally:
        sys.unraisablehook = hook
    return 0
