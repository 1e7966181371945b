"""The ``speak`` command: from the flags to a video, with progress and a report."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import AvatarConfig
from ..errors import AvatarError
from ..geometry import VIDEO_FRAMES_PER_LATENT
from ..monitoring.report import RunReport
from ..paths import STDOUT, check_place, existing_file, printable
from ..sampling.presets import OFF, Preset, all_on, parse_settings, preset
from ..sampling.stream import AvatarStream, LatentBlock

if TYPE_CHECKING:
    from ..audio import AudioSource
    from ..pipeline.avatar import Avatar
    from ..recording import Recording
    from ..refiner import PortraitRefiner

log = logging.getLogger(__name__)
DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

KV_DTYPES = {"auto": None, "fp8": torch.float8_e4m3fn}


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


def chosen_settings(args: argparse.Namespace, config: AvatarConfig) -> Preset:
    """The preset, with what --psb, --mci and --urcr change of it."""
    chosen, everything, plain = preset(args.preset, config), all_on(config), preset("plain", config)
    for name in ("psb", "mci", "urcr"):
        text, settings = getattr(args, name), getattr(chosen, name)
        if text is not None:
            default = getattr(everything, name) if settings == OFF[type(settings)] else settings
            chosen = replace(chosen, **{name: parse_settings(text, default, getattr(plain, name))})
    return chosen


@dataclass(frozen=True)
class Job:
    """What a command makes a video of, loaded and checked; `size` is (width, height) in pixels of the video."""

    avatar: Avatar
    voice: AudioSource
    stream: AvatarStream
    size: tuple[int, int]
    refine: PortraitRefiner | None
    report: RunReport
    metadata: dict[str, object]


def prepare(args: argparse.Namespace, title: str) -> Job:
    """Load what the flags that all commands share name. Raises AvatarError for bad input."""
    check_places(args)
    log.info("loading")  # torch's first steps take seconds, on a fresh machine many
    from ..audio import open_voice
    from ..audio.survey import check_voice
    from ..pipeline.avatar import load_avatar, load_prompt
    from ..pipeline.render import output_pixel_size

    device = choose_device(args.device)
    usual = {"cpu": torch.float32, "cuda": torch.bfloat16}
    dtype = DTYPES[args.dtype] or usual.get(device.type)
    voice = open_voice(args.audio, args.audio_rate, args.audio_channels, args.audio_format)
    check_voice(voice, f"The voice '{args.audio}'", args.seconds)
    avatar = load_avatar(
        args.weights, args.vae, decoder=args.decoder, audio_encoder=args.audio_encoder, base=args.base,
        lora_alpha=args.lora_alpha, lora_rank=args.lora_rank, loras=args.lora, device=device,
        dtype=dtype, attention=args.attention, compiled=args.compile,
    )  # fmt: skip
    config = avatar.config
    settings = chosen_settings(args, config)
    if args.heal and not settings.urcr.sinks:
        raise AvatarError("--heal resets to the sinks and these settings keep none; give --urcr rotate,sinks=3, too.")
    width, height = args.size or avatar.pixel_size()
    text = load_prompt(args.prompt_embeds, config) if args.prompt_embeds else None
    frames = frame_limit(args.seconds, config.fps)
    framed = None
    if config.has_reference:
        framed = avatar.frame(existing_file(args.portrait), (width, height), args.crop, args.background)
    stream = avatar.stream(
        framed, voice, settings, pixel_size=(width, height), text=text, seed=args.seed, frames=frames,
        kv_dtype=KV_DTYPES[args.kv_dtype], graphs=args.cuda_graphs,
    )  # fmt: skip
    avatar.check_memory(stream)
    refine = avatar.refine(stream, args.refine)
    width, height = output_pixel_size(stream, refine)
    facts = {
        "preset": args.preset, "seed": args.seed, "width": width, "height": height, "refined": refine is not None,
        **asdict(settings),
    }  # fmt: skip
    report = RunReport(config.fps, avatar.name, config.trained, facts)
    if framed is not None:
        report.more["portrait"] = framed.crop.summary()
    metadata = {"title": title, "joyavatar": {"weights": avatar.name, **facts}}
    return Job(avatar, voice, stream, (width, height), refine, report, metadata)


def check_places(args: argparse.Namespace) -> None:
    """Raises AvatarError where something that is to be written cannot be, or would replace what is read."""
    from ..video.containers import checked_target

    places = [("report", args.report), ("plot", args.plot)]
    if args.out and args.out != STDOUT:
        places.append(("video", checked_target(args.out)))
    if getattr(args, "state", None):
        folder = Path(args.state)
        places.append(("state folder's lock", folder / "lock") if folder.is_dir() else ("state folder", folder))
    read = [("portrait", args.portrait), ("voice", args.audio), ("weights", args.weights), ("VAE", args.vae)]
    for name, path in places:
        if not path:
            continue
        check_place(path, name)
        for other, source in read:
            if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
                raise AvatarError(f"The {name} {path} would replace the {other}; choose another name.")


def speak(args: argparse.Namespace) -> None:
    """``joyavatar speak``: load, generate, write, report. Raises AvatarError for bad input."""
    from tqdm import tqdm

    from ..audio.opening import STDIN
    from ..monitoring.observer import Observer
    from ..pipeline.render import talk
    from ..recording import DEFAULT_INTERVAL, Interval, Recording
    from ..video import VideoWriter

    if (args.resume or args.checkpoint_every) and not args.state:
        raise AvatarError("--resume and --checkpoint-every need the folder of the recording; give --state DIR.")
    if args.state and args.heal:
        raise AvatarError("--heal looks at more than a recording's state holds to resume; leave one of them out.")
    if args.state and args.audio == STDIN:
        raise AvatarError("A voice from standard input cannot be heard again to resume; give --state with a file.")
    every = Interval.parse(args.checkpoint_every) if args.checkpoint_every else DEFAULT_INTERVAL
    job = prepare(args, Path(args.out).stem)
    avatar, stream, voice, report, config = job.avatar, job.stream, job.voice, job.report, job.avatar.config
    metadata = job.metadata
    observe = Observer(report, voice, args.monitor)
    with tqdm(total=stream.num_frames, unit="frame", disable=None) as bar:

        def on_block(block: LatentBlock, shown: Tensor) -> None:
            observe(block, shown)
            bar.set_postfix_str(f"block {block.index}, {report.frames / config.fps:.1f} s of video")
            bar.update(len(shown))

        started, before = time.perf_counter(), 0
        if args.state:
            with Recording(
                args.state, stream, avatar.decoder, voice, every=every, crf=args.quality, resume=args.resume,
                metadata=metadata, refine=job.refine,
            ) as recording:  # fmt: skip
                say_where(recording)
                observe.look_back(recording)
                before = bar.n = recording.frames
                report.settings = {**report.settings, "resumed_at_block": recording.blocks}
                recording.record(on_block)
                recording.join(args.out)
        else:
            with VideoWriter(
                args.out, *job.size, config.fps, voice.sample_rate, voice.channels, crf=args.quality,
                metadata=metadata,
            ) as writer, contextlib.closing(iter(stream)) as run:  # fmt: skip
                observe.heal = run if args.heal else None
                talk(run, avatar.decoder, writer, voice, on_block, refine=job.refine, overlap=not args.heal)
    seconds = time.perf_counter() - started
    save_report(args, job)
    stand_in = "" if config.trained else " (seeded stand-in weights: the picture means nothing yet)"
    say(f"{args.out}: {report.frames} frames, {report.frames / config.fps:.2f} s, "
        f"{(report.frames - before) / seconds:.1f} frames/s{stand_in}")  # fmt: skip


def save_report(args: argparse.Namespace, job: Job) -> None:
    """--report and --plot, at the end of a run or of what there is of it; what fails is logged, the video stays."""
    from ..monitoring.report_plot import save_plot

    report, voice = job.report, job.voice
    heard = voice.available if voice.num_samples is None else voice.num_samples
    report.audio_seconds = min(heard / voice.sample_rate, report.frames / float(report.fps))
    for path, save in ((args.report, report.to_json), (args.plot, lambda path: save_plot(report.summary(), path))):
        try:
            if path:
                save(path)
        except (AvatarError, ValueError) as problem:
            log.error("%s", problem)


def say(text: str) -> None:
    """The result, on standard output, if anybody reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(printable(text), flush=True)


def say_where(recording: Recording) -> None:
    """Log what a recording costs on the disk and where it begins."""
    fps = recording.stream.model.config.fps
    log.info(
        "every %d blocks a segment of %.1f s and a state of up to %.1f MB in %s (two states are kept)",
        recording.every, recording.every * recording.stream.model.config.block_frames * VIDEO_FRAMES_PER_LATENT / fps,
        recording.state_bytes / 1e6, recording.folder.path,
    )  # fmt: skip
    if recording.finished:
        log.info("this recording is finished; its video is put together again")
    elif recording.frames:
        log.info("going on behind block %d, %.1f s into the video", recording.blocks - 1, recording.frames / fps)
