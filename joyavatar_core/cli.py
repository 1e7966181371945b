"""The command line: ``speak`` makes a video of a portrait and a voice, ``inspect`` tells what a file is."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from .errors import AvatarError
from .model.attention import BACKENDS
from .sampling.mci import MciSettings
from .sampling.presets import PRESETS, Preset, parse_settings, preset
from .sampling.psb import PsbSettings
from .sampling.urcr import UrcrSettings

DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SEED = 2**64 - 1


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = argparse.ArgumentParser(prog="joyavatar", description="One portrait, one voice, a video of any length.")
    commands = top.add_subparsers(dest="command", required=True)

    speak = commands.add_parser("speak", help="make a talking video", description="Make a talking video.")
    speak.set_defaults(run=run_speak)
    speak.add_argument("--portrait", required=True, help="a picture of any size")
    speak.add_argument("--audio", required=True, help="the voice: any audio or video file")
    speak.add_argument("--out", required=True, help="the video to write, *.mp4")
    speak.add_argument(
        "--preset", choices=PRESETS, default="checkpoint", help="default: what the checkpoint recommends"
    )
    speak.add_argument("--psb", help="steps: off | first=8,base=4,blocks=4,curve=1,mode=restart|dense | 8,6,4")
    speak.add_argument("--mci", help="motion: off | inject,frames=3,noise=0.25 | context,noise=0.1")
    speak.add_argument("--urcr", help="memory: off | rotate,sinks=3,recent=6,sink_source=portrait|first | prefill,...")
    speak.add_argument("--size", type=parse_size, help="WxH in pixels, multiples of 16; default: the checkpoint's")
    speak.add_argument("--seconds", type=float, help="stop after this much; default: as long as the voice")
    speak.add_argument("--seed", type=parse_seed, default=0)
    speak.add_argument("--quality", type=int, default=18, help="x264's crf, 1 (best) to 51; default 18")
    speak.add_argument("--report", help="write a JSON report of the run here")
    models = speak.add_argument_group("models")
    models.add_argument("--weights", default="embedded", help="transformer: 'embedded' or a file")
    models.add_argument("--vae", default="embedded", help="'embedded' or a Wan2.1 VAE file")
    models.add_argument("--decoder", help="a faster decoder (taew2_1) in place of the VAE's")
    models.add_argument("--audio-encoder", help="wav2vec2-base file, for checkpoints that hear through it")
    models.add_argument("--prompt-embeds", help="file with the prompt's embeddings")
    models.add_argument("--base", help="base model, where --weights is a LoRA release")
    models.add_argument("--lora-alpha", type=float, help="its alpha, where no config.json beside it tells")
    models.add_argument("--lora-rank", type=int, help="its rank, likewise")
    machine = speak.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ...")
    machine.add_argument("--dtype", choices=DTYPES, default="auto", help="default: the file's, float32 on a CPU")
    machine.add_argument("--attention", choices=BACKENDS, default="sdpa")

    inspect = commands.add_parser("inspect", help="tell what a file of weights is")
    inspect.set_defaults(run=run_inspect)
    inspect.add_argument("file")
    return top


def parse_size(text: str) -> tuple[int, int]:
    """'512x512' -> (512, 512)."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; write it as 512x512")
    return int(match[1]), int(match[2])


def parse_seed(text: str) -> int:
    """A whole number from 0 to 2^64 - 1."""
    if not text.isdigit() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"'{text}' is not a seed; give a whole number from 0 to {MAX_SEED}")
    return int(text)


def choose_device(name: str) -> torch.device:
    """'auto' is the first GPU there is. Raises AvatarError for a device this machine does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise AvatarError(f"The device '{name}' cannot be used ({reason}); use cpu, or auto.") from None
    return device


def frame_limit(seconds: float | None, fps: int) -> int | None:
    """--seconds as video frames."""
    if seconds is None:
        return None
    if not 0 < seconds < float("inf"):
        raise AvatarError(f"--seconds is {seconds}; give a length above 0.")
    return max(1, round(seconds * fps))


def chosen_settings(args: argparse.Namespace, config) -> Preset:
    """The preset, with what --psb, --mci and --urcr change of it."""
    chosen = preset(args.preset, config)
    for name, kind in (("psb", PsbSettings), ("mci", MciSettings), ("urcr", UrcrSettings)):
        text = getattr(args, name)
        if text is not None:
            chosen = replace(chosen, **{name: parse_settings(kind, text, getattr(chosen, name))})
    return chosen


def run_speak(args: argparse.Namespace) -> None:
    """``speak``: load, generate, write, report."""
    from tqdm import tqdm

    from .audio import FileAudio
    from .avatar import load_avatar, load_prompt
    from .report import RunReport
    from .talk import talk
    from .video import VideoWriter

    if args.report and not Path(args.report).resolve().parent.is_dir():  # known before the work, not after it
        raise AvatarError(f"The report {args.report} cannot be written: there is no such folder; choose another place.")
    device = choose_device(args.device)
    dtype = DTYPES[args.dtype] or (torch.float32 if device.type == "cpu" else None)
    voice = FileAudio(args.audio)
    avatar = load_avatar(
        args.weights, args.vae, decoder=args.decoder, audio_encoder=args.audio_encoder, base=args.base,
        lora_alpha=args.lora_alpha, lora_rank=args.lora_rank, device=device, dtype=dtype, attention=args.attention,
    )  # fmt: skip
    config = avatar.config
    settings = chosen_settings(args, config)
    width, height = args.size or avatar.size()
    text = load_prompt(args.prompt_embeds, config) if args.prompt_embeds else None
    frames = frame_limit(args.seconds, config.fps)
    stream = avatar.stream(
        args.portrait, voice, settings, size=(width, height), text=text, seed=args.seed, frames=frames
    )
    facts = {"preset": args.preset, "seed": args.seed, "width": width, "height": height, **asdict(settings)}
    report = RunReport(config.fps, avatar.name, config.trained, facts)
    writer = VideoWriter(
        args.out, width, height, config.fps, voice.sample_rate, voice.channels, crf=args.quality,
        metadata={"title": Path(args.out).stem, "joyavatar": {"weights": avatar.name, **facts}},
    )  # fmt: skip
    started = time.perf_counter()
    total = stream.num_frames
    with writer, contextlib.closing(iter(stream)) as run, tqdm(total=total, unit="frame", disable=None) as bar:

        def on_block(block, shown) -> None:
            report.add(block, len(shown))
            bar.set_postfix_str(f"block {block.index}, {report.frames / config.fps:.1f} s of video")
            bar.update(len(shown))

        talk(run, avatar.decoder, writer, voice, on_block)
    seconds = time.perf_counter() - started
    report.audio_seconds = min(voice.num_samples / voice.sample_rate, report.frames / config.fps)
    if args.report:
        report.to_json(args.report)
    stand_in = "" if config.trained else " (seeded stand-in weights: the picture means nothing yet)"
    print(f"{args.out}: {report.frames} frames, {report.frames / config.fps:.2f} s, "
          f"{report.frames / seconds:.1f} frames/s{stand_in}")  # fmt: skip


def run_inspect(args: argparse.Namespace) -> None:
    """``inspect``: what is this file?"""
    from .inspection import describe, format_description

    print(format_description(describe(args.file)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for bad input said in one sentence, 130 when interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except AvatarError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was written so far is kept and plays", file=sys.stderr)
        return 130
    return 0
