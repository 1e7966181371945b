"""The recipe as commands, in order: data, hearing, vae, latents, forcing, distill, refiner, evaluate, ablate, ship."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path

import torch

from ..audio import FeatureEncoder
from ..checkpoints import save_checkpoint
from ..checkpoints.reader import read_file
from ..errors import AvatarError
from ..pipeline.avatar import (
    EMBEDDED_HEARING,
    EMBEDDED_REFINER,
    EMBEDDED_TRANSFORMER,
    EMBEDDED_VAE,
    Avatar,
    load_audio_encoder,
    load_avatar,
)
from ..refiner import load_refiner
from ..synthetic.clips import PEOPLE
from ..synthetic.dataset import load_clip, write_dataset
from .configs import CONFIGS
from .loop import FOREVER, LoopSettings, averaged_weights
from .parallel import Share, process_group

HEARING, REFINER = "visemes.safetensors", "refiner.safetensors"  # of a run
FIRST_PERSON = 100  # of the held-out people that talk in evaluations


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        with process_group():
            COMMANDS[options.command](options)
    except AvatarError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def make_data(options: argparse.Namespace) -> None:
    """Clips for training and, held out, for judging."""
    if options.size % 16 or not 64 <= options.size <= 1024:
        raise AvatarError(f"--size is {options.size}, expected a multiple of 16 from 64 to 1024.")
    if not 0.5 <= options.seconds <= 600:
        raise AvatarError(f"--seconds is {options.seconds:g}, expected 0.5 to 600.")
    if min(options.clips, options.held_out, options.first) < 0:
        raise AvatarError("--clips, --held-out and --first are expected to be 0 or more.")
    folder = options.runs / "data"
    people = tuple(PEOPLE) if options.people == "both" else (options.people,)
    for split, count in (("held-out", options.held_out), ("train", options.clips)):
        write_dataset(
            folder, count, options.first, split, options.seconds, options.threads, options.size, people
        )  # fmt: skip


def train_hearing(options: argparse.Namespace) -> None:
    """What the avatar hears with, from voices alone; prints how well held-out ones are heard."""
    from safetensors.torch import save_file

    from . import viseme_encoder

    folder, workers = options.runs / "voices", options.threads
    voices = viseme_encoder.write_voices(folder, options.voices, workers=workers)
    held_out = viseme_encoder.write_voices(folder, viseme_encoder.HELD_OUT, "held-out", workers=workers)
    settings = _settings(options, "hearing", 2e-3)
    model = viseme_encoder.train_hearing(voices, settings, viseme_encoder.HearingRecipe(batch=options.batch or 48))
    if Share.mine().leads:
        save_file({name: tensor.half() for name, tensor in model.state_dict().items()}, options.runs / HEARING)
        print(json.dumps(viseme_encoder.correlations(model, held_out), indent=1))


def train_face_locator(options: argparse.Namespace) -> None:
    """What finds the face in a portrait, from drawn and rendered people; writes runs/face_locator.safetensors."""
    from safetensors.torch import save_file

    from . import locator_training as training

    drawn, rendered = (
        training.write_cutouts(options.runs / "cutouts", people, options.people, workers=options.threads)
        for people in ("drawn", "rendered")
    )
    settings = _settings(options, "locator", 3e-3, ema=0.995)
    recipe = training.LocatorRecipe(batch=options.batch or training.LocatorRecipe.batch)
    locator = training.train_locator(drawn, rendered, settings, recipe)
    if Share.mine().leads:
        state = {name: tensor.half() for name, tensor in locator.state_dict().items()}
        save_file(state, options.runs / "face_locator.safetensors")


def train_vae(options: argparse.Namespace) -> None:
    """The VAE; its raw latents get Wan2.1's mean, and its deviation scaled by what channels show, at the end."""
    from . import vae_training as training

    if options.decoder_only and not options.fine_tune:
        raise AvatarError("--decoder-only keeps the latents of a VAE that is there; give it as --fine-tune.")
    if options.frames % 4 != 1 or options.frames < 5:
        raise AvatarError(f"--frames is {options.frames}, expected 4 n + 1 such as 9 or 17.")
    recipe = training.VaeRecipe(frames=options.frames, batch=options.batch or training.VaeRecipe.batch)
    settings = _settings(options, "vae", 1e-3, weight_decay=0.0, by_inputs=True)
    start = _vae_weights(options.fine_tune) if options.fine_tune else None
    vae = training.train_vae(
        _clips(options), settings, recipe, options.compile, start=start, decoder_only=options.decoder_only
    )
    if not Share.mine().leads:
        return
    if not options.decoder_only:
        statistics = training.latent_statistics(vae, _clips(options)[:100])
        vae = training.fold_statistics(vae, *statistics, training.channel_scales(vae, _clips(options)[:8]))
    training.save_vae(vae, options.runs / "vae.safetensors")


def make_latents(options: argparse.Namespace) -> None:
    """All clips as latents of the trained VAE, for `forcing`."""
    _latents(options)


def train_transformer(options: argparse.Namespace) -> None:
    """Stage 1 of the transformer, from scratch or from `--fine-tune`; writes runs/avatar.safetensors."""
    from . import teacher_forcing
    from .initial_weights import start_from

    chosen = CONFIGS[options.config]
    if options.guidance < 1:
        raise AvatarError(f"--guidance is {options.guidance}, expected 1 (as the data) or more.")
    recipe = teacher_forcing.ForcingRecipe(
        batch=options.batch or teacher_forcing.ForcingRecipe.batch, guidance=options.guidance,
        levels=tuple(sigma for _, sigma in chosen.model.levels),
    )  # fmt: skip
    start = start_from(options.fine_tune, chosen.model, options.base) if options.fine_tune else None
    settings = _settings(options, "forcing", chosen.rates[0])
    weights = teacher_forcing.train_forcing(
        _latents(options), settings, recipe, chosen.model, start, options.compile, sharded=options.shard
    )
    _finish(options, weights)


def distil(options: argparse.Namespace) -> None:
    """Stage 2, on rollouts of its own, from stage 1's weights; writes runs/avatar.safetensors."""
    from ..model.transformer import AvatarTransformer
    from . import distillation
    from .initial_weights import blended, start_from

    if not 0 <= options.blend <= 1:
        raise AvatarError(f"--blend is {options.blend:g}, expected 0 (stage 1) to 1 (stage 2).")
    chosen = CONFIGS[options.config]
    if options.fine_tune:
        begin = start_from(options.fine_tune, chosen.model)
    else:
        begin = averaged_weights(options.runs / "forcing")
    if chosen.judge_together and not options.teacher:
        raise AvatarError(f"The config {options.config} is distilled from a public model; give it as --teacher.")
    likely = start_from(options.teacher, chosen.model, options.base) if options.teacher else begin
    student, teacher = AvatarTransformer(chosen.model), AvatarTransformer(chosen.model)
    student.load_state_dict(begin)
    teacher.load_state_dict(likely)
    recipe = distillation.DistillRecipe(
        guidance=options.guidance, judge_together=chosen.judge_together,
        excerpts=dataclasses.replace(
            distillation.EXCERPTS, batch=options.batch or distillation.EXCERPTS.batch,
            # Judges that see a video at once have never seen a cut or a close-up.
            **({"joined": 1.0, "close": 0} if chosen.judge_together else {}),
        ),
    )  # fmt: skip
    settings = _settings(options, "distill", chosen.rates[1], weight_decay=0.0)
    weights = distillation.distil(student, teacher, _latents(options), settings, recipe, sharded=options.shard)
    _finish(options, blended(begin, weights, options.blend))


def train_refiner(options: argparse.Namespace) -> None:
    """The portrait refiner, on clips of twice the avatar's size; first their pairs. Writes runs/refiner.safetensors."""
    from safetensors.torch import load_file, save_file

    from .refiner_pairs import make_pairs
    from .refiner_samples import Pairs, RefinerRecipe
    from .refiner_training import train_refiner as train

    avatar = _judged(options)
    clips = _clips(options)
    settings = _settings(options, "refiner", 2e-3, weight_decay=1e-3, ema=0.995, by_inputs=True)
    if not 0 <= options.rollouts <= 1:
        raise AvatarError(f"--rollouts is {options.rollouts:g}, expected 0 to 1.")
    pairs = make_pairs(avatar, clips, options.runs / "pairs", options.rollouts)
    if options.pairs_only:
        return
    batch = options.batch or RefinerRecipe.batch
    recipe = RefinerRecipe(batch=batch, close_batch=3 * batch)
    start = load_file(options.fine_tune) if options.fine_tune else None
    net = train(Pairs(clips, pairs, recipe), settings, start)
    if Share.mine().leads:
        weights = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
        save_file(weights, options.runs / REFINER)


def ship(options: argparse.Namespace) -> None:
    """The run's transformer and VAE as the embedded avatar, in half precision."""
    from .vae_training import save_vae

    state = {name: tensor.half() for name, tensor in _transformer_weights(options).items()}
    save_checkpoint(EMBEDDED_TRANSFORMER, state, CONFIGS[options.config].model)
    EMBEDDED_VAE.parent.mkdir(parents=True, exist_ok=True)
    save_vae(_vae(options), EMBEDDED_VAE)
    hearing = options.audio_encoder or options.runs / HEARING
    if hearing.exists():
        shutil.copyfile(hearing, EMBEDDED_HEARING)
    if (options.runs / REFINER).exists():
        shutil.copyfile(options.runs / REFINER, EMBEDDED_REFINER)


def evaluate(options: argparse.Namespace) -> None:
    """The figures of the VAE's round trip, of the refiner where the held-out clips are of twice the avatar's size, and
    of a talk by held-out people: JSON, sheets and a plot over time."""
    if options.photos:
        evaluate_photos(options)
        return
    from ..evaluation.autoencoder import evaluate_vae
    from ..evaluation.curves import plot_windows
    from ..evaluation.refined import evaluate_refiner
    from ..evaluation.rollout import BOUNDS, OTHERS, Judge, Truth, mean_pictures, rollout
    from ..evaluation.sheet import contact_sheet
    from ..refiner.model import SCALE
    from ..sampling.presets import preset

    avatar, folder = _judged(options), options.runs / "evaluation"
    figures, rows = {}, []
    held_out = sorted((options.runs / "data").glob("held-out-*.safetensors"))
    if held_out and not options.rollout_only:
        figures["vae"] = evaluate_vae(avatar.vae, held_out[: options.people], folder / "vae.png")
        if avatar.refiner is not None and load_clip(held_out[0], 0, 1).frames.shape[1] == SCALE * avatar.config.width:
            sheet = folder / "refiner.png"
            figures["refiner"] = evaluate_refiner(avatar, avatar.refiner, held_out[: options.people], sheet)
    chosen, others = preset(options.preset, avatar.config), mean_pictures(list(OTHERS), avatar.config.width)
    for person in range(FIRST_PERSON, FIRST_PERSON + options.people):
        truth = Truth.of(person, options.seconds, avatar.config.width)
        made = {name: bound(avatar, truth) for name, bound in BOUNDS.items()}
        made[options.preset] = rollout(avatar, truth, chosen)
        judge = Judge(truth, others, avatar.config.fps)
        figures[str(person)] = found = {name: judge.judge(one) for name, one in made.items()}
        rows += [truth.frames, made[options.preset].video]
        plot_windows({name: one["windows"] for name, one in found.items()}, folder / f"over-time-{person}.png")
    contact_sheet(rows, folder / "rollout.png", 12)
    text = json.dumps(figures, indent=1)
    (folder / "figures.json").write_text(text)
    print(text)


def evaluate_photos(options: argparse.Namespace) -> None:
    """The portraits of a folder say a voice; the judge's figures as a table and JSON, and a sheet."""
    from ..evaluation.photo_judge import judge_photos, photo_table
    from ..framing.crop import parse_crop
    from ..sampling.presets import preset

    if not options.voice:
        raise AvatarError("--photos needs something to say; give --voice with an audio file.")
    avatar, folder = _judged(options), options.runs / "evaluation"
    figures = judge_photos(
        avatar, options.photos, options.voice, preset(options.preset, avatar.config), options.seconds,
        parse_crop(options.crop), folder / "photos.png",
    )  # fmt: skip
    (folder / "photos.json").write_text(json.dumps(figures, indent=1))
    print(photo_table(figures))


def ablate(options: argparse.Namespace) -> None:
    """The mechanisms one by one and together, on held-out people: a table, and a sheet for each person."""
    from ..evaluation.ablation import compare, named_variants, table
    from ..evaluation.rollout import WINDOW_SECONDS

    avatar = _judged(options)
    for option, least in (("ends", WINDOW_SECONDS), ("seeds", 1), ("people", 1)):
        if (value := getattr(options, option)) < least:
            raise AvatarError(f"--{option} is {value:g}, expected {least} or more.")
    people = range(FIRST_PERSON, FIRST_PERSON + options.people)
    chosen = named_variants(options.only, avatar.config)
    folder = options.runs / "ablation"
    if options.bfloat16:
        avatar.transformer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
        results = compare(avatar, chosen, people, options.seconds, folder, range(options.seeds), options.ends)
    print(table(results, options.seeds))


COMMANDS = {
    "data": make_data, "locator": train_face_locator, "hearing": train_hearing, "vae": train_vae,
    "latents": make_latents, "forcing": train_transformer, "ship": ship, "distill": distil,
    "refiner": train_refiner, "evaluate": evaluate,
    "ablate": ablate,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m joyavatar_core.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.__doc__)
        if name == "data":
            sub.add_argument("--people", choices=[*PEOPLE, "both"], default="drawn")
            sub.add_argument("--size", type=int, default=128, help="of the pictures, in pixels")
            sub.add_argument("--seconds", type=float, default=7.0, help="of a clip")
            sub.add_argument("--clips", type=int, default=700, help="of each kind of people")
            sub.add_argument("--held-out", type=int, default=12, help="clips of people that training does not see")
            sub.add_argument("--first", type=int, default=0, help="seed of the first clip")
            sub.add_argument("--runs", type=Path, default=Path("runs"), help="folder of data, checkpoints and logs")
            sub.add_argument("--threads", type=int, default=2)
            continue
        sub.add_argument("--config", choices=list(CONFIGS), default="tiny")
        sub.add_argument("--runs", type=Path, default=Path("runs"), help="folder of data, checkpoints and logs")
        sub.add_argument("--threads", type=int, default=2)
        sub.add_argument("--vae", type=Path, help="instead of the run's own")
        sub.add_argument(
            "--audio-encoder",
            type=Path,
            help="wav2vec2-base, or instead of the run's own",
        )
        if name in ("hearing", "locator", "vae", "forcing", "distill", "refiner"):
            sub.add_argument("--steps", type=int, default=FOREVER)
            sub.add_argument("--minutes", type=float, default=math.inf)
            sub.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
            sub.add_argument("--learning-rate", type=float)
            sub.add_argument("--batch", type=int)
            sub.add_argument("--seed", type=int, default=0)
        if name in ("vae", "latents", "forcing", "distill"):
            sub.add_argument("--device", default="cpu", help="cuda: work on a GPU")
        if name in ("vae", "forcing", "distill", "refiner"):
            sub.add_argument("--fine-tune", type=Path, help="start from these weights")
        if name == "locator":
            sub.add_argument("--people", type=int, default=200, help="of each kind, drawn and rendered")
        if name == "hearing":
            sub.add_argument("--voices", type=int, default=1600, help="of 7 s")
        if name in ("vae", "forcing"):
            sub.add_argument("--compile", action="store_true", help="pays where compiling takes less than training")
        if name in ("forcing", "distill"):
            sub.add_argument(
                "--base",
                type=Path,
                help="of a LoRA release that is started or taught from",
            )
            sub.add_argument("--shard", action="store_true", help="spread weights over torchrun's processes (FSDP2)")
            usual = 1.0 if name == "forcing" else 2.0
            sub.add_argument("--guidance", type=float, default=usual, help="how much more the voice does; 1: as it is")
        if name == "distill":
            sub.add_argument("--blend", type=float, default=1.0, help="how much of stage 2 is in the weights written")
            sub.add_argument("--teacher", type=Path, help="a public model to be distilled; stage 1 without it")
        if name == "vae":
            sub.add_argument("--frames", type=int, default=17, help="of a crop: 4 n + 1")
            sub.add_argument("--decoder-only", action="store_true", help="keep the latents as they are")
        if name == "refiner":
            sub.add_argument("--pairs-only", action="store_true", help="stop when the pairs are made")
            sub.add_argument(
                "--rollouts", type=float, default=0.3, help="share of the clips that the avatar performs, too"
            )
        if name in ("evaluate", "ablate", "refiner"):
            sub.add_argument("--shipped", action="store_true", help="the embedded avatar, not the run's")
        if name in ("evaluate", "ablate"):
            sub.add_argument("--people", type=int, default=3)
            sub.add_argument("--seconds", type=float, default=30.0)
        if name == "evaluate":
            sub.add_argument("--preset", default="checkpoint")
            sub.add_argument("--rollout-only", action="store_true")
            sub.add_argument("--photos", type=Path, help="a folder of portraits to judge instead of held-out people")
            sub.add_argument("--voice", type=Path, help="what the portraits of --photos say")
            sub.add_argument("--crop", default="face", help="of --photos: face, centre or X,Y,W,H")
        if name == "ablate":
            sub.add_argument("--seeds", type=int, default=1, help="of the noise")
            sub.add_argument(
                "--ends", type=float, default=10.0, help="seconds that are judged, at a video's beginning and its end"
            )
            sub.add_argument("--bfloat16", action="store_true", help="quicker on processors that are made for it")
            sub.add_argument("--only", nargs="*", default=[], help="names of settings; all without it")
    return parser


def _settings(options: argparse.Namespace, run: str, learning_rate: float, **others: object) -> LoopSettings:
    if math.isinf(options.minutes) and options.steps == FOREVER:
        raise AvatarError("The training has no end; give --steps or --minutes.")
    if not (options.steps > 0 and options.minutes > 0 and 0 <= options.seed < 1 << 15):
        raise AvatarError("--steps and --minutes are to be above 0, --seed from 0 to 32767.")
    parts = ("fine_tune", "teacher", "base", "guidance", "decoder_only")
    origin = ", ".join(f"{part} {value}" for part in parts if (value := getattr(options, part, None)))
    return LoopSettings(
        options.runs / run, options.steps, options.minutes, options.learning_rate or learning_rate,
        seed=options.seed, resume=options.resume, origin=origin,
        device=getattr(options, "device", "cpu"), **others,
    )  # fmt: skip


def _clips(options: argparse.Namespace) -> list[Path]:
    paths = sorted((options.runs / "data").glob("train-*.safetensors"))
    if not paths:
        raise AvatarError(f"'{options.runs / 'data'}' holds no training clips; make them with the command 'data'.")
    return paths


def _vae_weights(path: Path) -> dict[str, torch.Tensor]:
    from ..vae.state_dicts import wan_state_dict

    return wan_state_dict({name: tensor.copy(torch.float32) for name, tensor in read_file(path).tensors.items()})


def _transformer_weights(options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """What a finished stage has written, or stage 1 as far as it has come."""
    from .initial_weights import read_weights

    finished = options.runs / "avatar.safetensors"
    if finished.exists():
        return read_weights(finished)
    return averaged_weights(options.runs / "forcing")


def _vae(options: argparse.Namespace):
    from ..vae import vae_from_state_dict

    own = options.runs / "vae.safetensors"
    path = options.vae or (own if own.exists() else EMBEDDED_VAE)
    if not path.exists():
        raise AvatarError(f"There is no VAE '{path}'; train one with the command 'vae'.")
    return vae_from_state_dict(_vae_weights(path))


def _latents(options: argparse.Namespace):
    from .latents import latent_clips

    encoder = _hearing(options)
    return latent_clips(_clips(options), _vae(options).to(options.device), options.runs, encoder)


def _hearing(options: argparse.Namespace) -> FeatureEncoder | None:
    """The encoder that is asked for, else the run's own, else what the avatar comes with."""
    own = options.runs / HEARING
    config = CONFIGS[options.config].model
    return load_audio_encoder(config, options.audio_encoder or (own if own.exists() else None))


def _finish(options: argparse.Namespace, weights: dict[str, torch.Tensor]) -> None:
    if Share.mine().leads:
        save_checkpoint(options.runs / "avatar.safetensors", weights, CONFIGS[options.config].model)


def _judged(options: argparse.Namespace) -> Avatar:
    return load_avatar() if options.shipped else _avatar_of_run(options)


def _avatar_of_run(options: argparse.Namespace) -> Avatar:
    from ..model.transformer import AvatarTransformer

    config = CONFIGS[options.config].model
    model = AvatarTransformer(config)
    model.load_state_dict(_transformer_weights(options))
    vae = _vae(options)
    own = options.runs / REFINER
    refiner = load_refiner(own) if own.exists() else None
    return Avatar(model.eval().requires_grad_(False), vae, vae, _hearing(options), "run", refiner)


if __name__ == "__main__":
    sys.exit(main())
