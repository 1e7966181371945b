"""The options of `speak` and `live` as data, and what can be known to be wrong with them before anything is loaded."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch

from ..errors import AvatarError
from ..paths import STDOUT, check_place, existing_file
from ..pipeline.avatar_options import EMBEDDED, FULL_DECODER, AvatarOptions
from ..recording.interval import Interval

if TYPE_CHECKING:
    from ..audio import AudioSource
    from ..config import AvatarConfig
    from ..framing.crop import Box
    from ..refiner import FaceMotion
    from ..sampling.presets import Preset

DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ENCODERS = ("auto", "x264", "nvenc")  # of video/h264.py, which needs PyAV
KV_DTYPES = {"auto": None, "fp8": torch.float8_e4m3fn}
MOST_SECONDS = 366 * 86_400  # of a video
USUAL_DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What every command that makes a video takes. A field has the name of its flag, whose help describes it.

    size: (width, height) in pixels, None for the checkpoint's.
    seconds: the longest video, None for the length of the voice. live: whether frames are watched as they are made.
    """

    live: ClassVar[bool] = False
    avatar: AvatarOptions
    portrait: str
    audio: str
    out: str | None
    crop: str | Box
    background: str
    audio_rate: int
    audio_channels: int
    audio_format: str
    preset: str
    psb: str | None
    mci: str | None
    urcr: str | None
    size: tuple[int, int] | None
    refine: str | None
    blinks: float
    articulation: float
    head_motion: float
    fps: int | None
    seconds: float | None
    seed: int
    quality: int
    encoder: str
    report: str | None
    plot: str | None
    monitor: bool
    reset_on_drift: bool
    prompt_embeds: str | None
    kv_dtype: torch.dtype | None
    cuda_graphs: bool

    def face_motion(self) -> FaceMotion:
        """How the refined face moves. Raises AvatarError for values out of bounds."""
        from ..refiner import FaceMotion

        return FaceMotion(self.blinks, self.articulation, self.head_motion, self.fps)

    def settings(self, config: AvatarConfig) -> Preset:
        """The preset for a checkpoint, with what the options for PSB, MCI and URCR change of it. Raises AvatarError."""
        from ..sampling.presets import PLAIN, all_on, parse_settings, preset

        chosen, everything, plain = preset(self.preset, config), all_on(config), preset("plain", config)
        for name in ("psb", "mci", "urcr"):
            text, settings = getattr(self, name), getattr(chosen, name)
            if text is not None:
                default = getattr(everything, name) if settings == PLAIN[type(settings)] else settings
                chosen = replace(chosen, **{name: parse_settings(text, default, getattr(plain, name))})
        chosen.psb.check(config)
        chosen.urcr.check(config, chosen.mci)
        if self.reset_on_drift and not chosen.urcr.sinks:
            raise AvatarError(
                "--reset-on-drift resets to the sinks, and these settings keep none; add --urcr rotate,sinks=3."
            )
        return chosen

    @property
    def title(self) -> str:
        """The video's title in its metadata."""
        return "live" if self.out in (None, STDOUT) else Path(self.out).stem

    def check(self) -> AudioSource:
        """Find every mistake that can be found without the avatar; returns the voice, opened.

        Raises AvatarError for the first one.
        """
        from ..audio import open_voice
        from ..audio.survey import check_voice

        self.check_all_but_voice()
        self.check_settings()
        voice = open_voice(self.audio, self.audio_rate, self.audio_channels, self.audio_format)
        check_voice(voice, f"The voice '{self.audio}'", self.seconds)
        return voice

    def check_all_but_voice(self) -> None:
        """The part of `check` for a voice that comes in another way."""
        from ..framing.portrait_framing import check_portrait
        from ..video.h264 import check_quality, chosen_encoder
        from ..video.portrait import check_size

        if self.seconds is not None and not 0 < self.seconds <= MOST_SECONDS:
            raise AvatarError(f"--seconds is {self.seconds}; give a length above 0 and up to {MOST_SECONDS} (a year).")
        for name, value in (("portrait", self.portrait), ("voice", self.audio)):
            if value is not None and not str(value).strip():
                raise AvatarError(f"The name of the {name} is empty; give the path of a file.")
        self._check_places()
        check_quality(self.quality)
        self.face_motion()
        chosen_encoder(self.encoder)
        if self.size is not None:
            check_size(*self.size)
        for name, path in self._model_files():
            if not os.path.exists(path):
                raise AvatarError(f"The {name} '{path}' does not exist; check the path.")
        check_portrait(existing_file(self.portrait), self.crop, self.background)

    def check_settings(self) -> None:
        """The part of `check` that needs the description of the weights. Raises AvatarError."""
        from ..pipeline.avatar import load_prompt, open_weights
        from ..pipeline.refinement import check_refine, has_refiner
        from ..refiner import chosen_rate
        from ..video.portrait import check_trained_size

        config = open_weights(self.avatar).config
        if self.size is not None:
            check_trained_size(*self.size, config)
        self.settings(config)
        if self.refine is not None:
            check_refine(self.avatar, self.refine, self.size or (config.width, config.height))
        chosen_rate(config.fps, self.fps, refined=has_refiner(self.avatar) and self.refine != "off")
        if self.prompt_embeds:
            load_prompt(self.prompt_embeds, config)

    def _model_files(self) -> list[tuple[str, str | Path]]:
        """(what it is, path) of every file that the avatar is loaded from. Words in place of files are left out."""
        avatar = self.avatar
        named = [
            ("file of weights", avatar.weights), ("VAE", avatar.vae), ("decoder", avatar.decoder),
            ("audio encoder", avatar.audio_encoder), ("base model", avatar.base),
            *(("LoRA", path) for path, _ in avatar.loras), ("prompt file", self.prompt_embeds),
        ]  # fmt: skip
        return [(name, path) for name, path in named if path not in (None, EMBEDDED, FULL_DECODER)]

    def _places(self) -> list[tuple[str, str | Path]]:
        """(what it is, path) of every file that is written."""
        from ..video.containers import checked_target

        reports = (("report", self.report), ("plot", self.plot))
        places = [(name, Path(path).expanduser()) for name, path in reports if path]
        if self.out and self.out != STDOUT:
            places.append(("video", checked_target(self.out)))
        return places

    def _check_places(self) -> None:
        """Raises AvatarError where a file cannot be written, or would replace another one of this run."""
        from ..audio.opening import STDIN

        read = [("portrait", self.portrait), ("voice", self.audio), *self._model_files()]
        files = [(name, existing_file(path)) for name, path in read if path not in (None, STDIN)]
        for name, path in self._places():
            check_place(path, name)
            for other, file in files:
                if same_place(path, file):
                    raise AvatarError(f"The {name} {path} would replace the {other}; choose another name.")
            files.append((name, path))
        if self.plot and not str(self.plot).lower().endswith(".png"):
            raise AvatarError(f"The plot's name is '{self.plot}', expected one that ends in .png; rename it.")


@dataclass(frozen=True, kw_only=True)
class SpeakOptions(VideoOptions):
    """The options of `speak`; `state` is the folder of a recording, None without one."""

    out: str
    state: str | None
    checkpoint_every: Interval | None
    resume: bool

    def check(self) -> AudioSource:
        from ..audio.opening import STDIN

        if (self.resume or self.checkpoint_every) and not self.state:
            raise AvatarError("--resume and --checkpoint-every need the folder of the recording; give --state DIR.")
        if self.state and self.reset_on_drift:
            raise AvatarError(
                "A recording's state does not hold what --reset-on-drift measures, so a resume would differ; "
                "leave out --state or --reset-on-drift."
            )
        if self.state and self.audio == STDIN:
            raise AvatarError("A voice from standard input cannot be read again to resume; give --state with a file.")
        return super().check()

    def _check_places(self) -> None:
        from ..recording.files import RecordingFolder

        super()._check_places()
        if self.state:
            folder = RecordingFolder(self.state)
            if folder.path.is_file():
                raise AvatarError(f"The state folder {folder.path} is a file; choose another name.")
            if folder.path.is_dir() and not self.resume:
                folder.check_unused()

    def _places(self) -> list[tuple[str, str | Path]]:
        places = super()._places()
        if self.state:
            folder = Path(self.state).expanduser()
            places.append(("state folder's lock", folder / "lock") if folder.is_dir() else ("state folder", folder))
        return places


@dataclass(frozen=True, kw_only=True)
class LiveOptions(VideoOptions):
    """The options of `live`; `serve` is (host, port), None without a server."""

    live: ClassVar[bool] = True
    serve: tuple[str, int] | None
    format: str
    allow_host: tuple[str, ...]
    viewers: int
    pace: str

    def check(self) -> AudioSource:
        if not (self.serve or self.out):
            raise AvatarError("The video has nowhere to go; give --serve 127.0.0.1:8090, or --out with a file or -.")
        if self.out == STDOUT and (sys.stdout is None or sys.stdout.isatty()):
            raise AvatarError("The video would go to a terminal or nowhere; pipe it on, for example | ffplay -")
        voice = super().check()
        if self.serve:
            check_free(*self.serve, "live stream")
        return voice


Options = TypeVar("Options", SpeakOptions, LiveOptions)


def parsed(kind: type[Options], args: argparse.Namespace) -> Options:
    """The options of a command from its parsed flags. Raises AvatarError for values that cannot be read."""
    device = choose_device(args.device) if args.team is None else args.team.device
    avatar = AvatarOptions(
        weights=model_file(args.weights), vae=model_file(args.vae), decoder=model_file(args.decoder),
        audio_encoder=model_file(args.audio_encoder), base=model_file(args.base),
        lora_alpha=args.lora_alpha, lora_rank=args.lora_rank, release=args.release,
        loras=tuple((model_file(path), strength) for path, strength in args.lora),
        device=device, dtype=DTYPES[args.dtype] or usual_dtype(device, args.weights), attention=args.attention,
        weight_dtype=args.weight_dtype, compiled=args.compile, team=args.team,
    )  # fmt: skip
    values = {**vars(args), "avatar": avatar, "kv_dtype": KV_DTYPES[args.kv_dtype]}
    values["prompt_embeds"] = model_file(args.prompt_embeds)
    if kind is SpeakOptions and args.checkpoint_every is not None:
        values["checkpoint_every"] = Interval.parse(args.checkpoint_every)
    if kind is LiveOptions:
        values["serve"] = parse_address(args.serve) if args.serve else None
        values["allow_host"] = tuple(args.allow_host)
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def model_file(name: str | None) -> str | None:
    """The file that a name means, as for portrait and voice; words in place of a file, such as embedded, stay."""
    return name if name in (None, EMBEDDED, FULL_DECODER) else str(existing_file(name))


def same_place(one: str | Path, other: str | Path) -> bool:
    """Whether two paths are of one file, there or not."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def usual_dtype(device: torch.device, weights: str) -> torch.dtype | None:
    """The dtype of `auto`. None leaves it to `AvatarOptions`, whose embedded avatar decodes faster on some CPUs."""
    return None if weights == EMBEDDED and device.type == "cpu" else USUAL_DTYPES.get(device.type)


def choose_device(name: str) -> torch.device:
    """'auto' is the first GPU there is. Raises AvatarError for a device that this machine does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise AvatarError(f"The device '{name}' cannot be used ({reason}); use cpu, or auto.") from None
    return device


def parse_address(text: str) -> tuple[str, int]:
    """'8090' -> ('127.0.0.1', 8090); 'host:8090', '[::1]:8090'. Raises AvatarError for anything else."""
    host, _, port = text.rpartition(":")
    host = host or "127.0.0.1"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise AvatarError(f"--serve is '{text}', expected a port or HOST:PORT, such as 127.0.0.1:8090.")
    return host, int(port)


def check_free(host: str, port: int, served: str) -> None:
    """Raises AvatarError where nothing can listen at an address of this machine."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as problem:
        reason = problem.strerror or problem
        raise AvatarError(
            f"The {served} cannot be served at {host}:{port} ({reason}); choose another address or port.", "serve"
        ) from None
