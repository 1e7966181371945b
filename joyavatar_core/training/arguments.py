"""The options of the training commands: each group of options once, and which commands take it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from ..synthetic.clips import PEOPLE
from .configs import CONFIGS
from .loop import FOREVER


def training_parser(commands: Mapping[str, Callable], description: str) -> argparse.ArgumentParser:
    """A parser with one subcommand for each of `commands`; their docstrings are the help."""
    parser = argparse.ArgumentParser(prog="python -m joyavatar_core.training", description=description)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        sub = subparsers.add_parser(name, help=command.__doc__)
        sub.add_argument("--runs", type=Path, default=Path("runs"), help="folder of data, checkpoints and logs")
        sub.add_argument("--threads", type=int, default=2)
        for add, takers in GROUPS.items():
            if name in takers:
                add(sub)
    return parser


def _data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--people", choices=[*PEOPLE, "both"], default="drawn")
    sub.add_argument("--size", type=int, default=128, help="side of the pictures, in pixels")
    sub.add_argument("--seconds", type=float, default=7.0, help="length of a clip")
    sub.add_argument("--clips", type=int, default=700, help="clips of each kind of people")
    sub.add_argument("--held-out", type=int, default=12, help="clips of people that training does not see")
    sub.add_argument("--first", type=int, default=0, help="seed of the first clip")


def _models(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", choices=list(CONFIGS), default="tiny")
    sub.add_argument("--vae", type=Path, help="VAE file used instead of the run's own")
    sub.add_argument("--audio-encoder", type=Path, help="wav2vec2-base, or viseme weights instead of the run's own")


def _loop(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--steps", type=int, default=FOREVER)
    sub.add_argument("--minutes", type=float, default=math.inf)
    sub.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
    sub.add_argument("--learning-rate", type=float)
    sub.add_argument("--batch", type=int)
    sub.add_argument("--seed", type=int, default=0)


def _device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="cpu", help="cuda: work on a GPU")


def _fine_tune(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--fine-tune", type=Path, help="start from these weights")


def _compile(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--compile", action="store_true", help="pays where compiling takes less time than training")


def _cutouts(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--people", type=int, default=200, help="people of each kind, drawn and rendered")


def _viseme_encoder(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--voices", type=int, default=1600, help="voices of 7 s each")


def _vae(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--frames", type=int, default=17, help="frames of a crop: 4 n + 1")
    sub.add_argument("--decoder-only", action="store_true", help="keep the latents as they are")


def _decoder(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--encoder", action="store_true", help="of a VAE given as --fine-tune: train its encoder, too")


def _transformer(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--base", type=Path, help="base weights of a LoRA release given as start or teacher")
    sub.add_argument("--shard", action="store_true", help="spread weights over torchrun's processes (FSDP2)")
    usual = "1 (as in the data) for forcing, 2 for distill"
    sub.add_argument("--guidance", type=float, help=f"scale of the voice's effect; by default {usual}")


def _distill(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--blend", type=float, default=1.0, help="share of stage 2 in the weights that are written")
    sub.add_argument("--teacher", type=Path, help="public model to distill; without it the teacher is stage 1")


def _refiner(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--pairs-only", action="store_true", help="stop when the pairs are made")
    sub.add_argument("--rollouts", type=float, default=0.3, help="share of the clips that also get a self-rollout")


def _editor(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--people", type=int, default=1200, help="rendered people, and a quarter as many drawn ones")


def _latent_flow(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--people", type=int, default=300, help="people that the avatar shows, three of four rendered")


def _shipped(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--shipped", action="store_true", help="use the embedded avatar, not the run's")


def _judged(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--people", type=int, default=3, help="number of held-out people")
    sub.add_argument("--seconds", type=float, default=30.0, help="length of each video")


def _evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--preset", default="checkpoint")
    sub.add_argument("--kind", choices=list(PEOPLE), default="drawn", help="kind of held-out people")
    sub.add_argument("--rollout-only", action="store_true", help="skip the VAE and the refiner")
    sub.add_argument("--refined", action="store_true", help="judge refined frames, of twice the avatar's size")
    sub.add_argument("--landmarks", action="store_true", help="also judge by mediapipe's landmarks (extra: judge)")
    sub.add_argument("--photos", type=Path, help="folder of portraits to judge instead of held-out people")
    sub.add_argument("--voice", type=Path, help="audio file that the portraits of --photos speak")
    sub.add_argument(
        "--ends", type=float, help="of --photos: seconds judged at the beginning and at the end; all by default"
    )
    sub.add_argument("--crop", help="framing of --photos: face (the default), centre or X,Y,W,H")


def _ablate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seeds", type=int, default=1, help="number of noise seeds")
    sub.add_argument("--ends", type=float, default=10.0, help="seconds judged at a video's beginning and at its end")
    sub.add_argument("--bfloat16", action="store_true", help="quicker on processors that multiply it natively")
    sub.add_argument("--only", nargs="*", default=[], help="names of settings; all without it")


TRAINED = (
    "viseme-encoder", "locator", "aligner", "person", "vae", "decoder", "forcing", "distill", "refiner", "editor",
    "latent-flow",
)  # fmt: skip
GROUPS = {
    _data: ("data",),
    _models: (*TRAINED, "latents", "ship", "evaluate", "ablate"),
    _loop: TRAINED,
    _device: ("vae", "latents", "forcing", "distill"),
    _fine_tune: ("person", "vae", "decoder", "forcing", "distill", "refiner", "editor", "latent-flow"),
    _compile: ("vae", "decoder", "forcing", "distill"),
    _decoder: ("decoder",),
    _cutouts: ("locator", "person"),
    _viseme_encoder: ("viseme-encoder",),
    _vae: ("vae",),
    _transformer: ("forcing", "distill"),
    _distill: ("distill",),
    _refiner: ("refiner",),
    _editor: ("editor",),
    _latent_flow: ("latent-flow",),
    _shipped: ("evaluate", "ablate", "refiner", "latent-flow"),
    _judged: ("evaluate", "ablate"),
    _evaluate: ("evaluate",),
    _ablate: ("ablate",),
}
