"""The commands that make data, train a stage, and ship what was trained."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..checkpoints import save_checkpoint
from ..errors import AvatarError
from ..pipeline.embedded import (
    EMBEDDED_DECODER,
    EMBEDDED_FACE_EDITOR,
    EMBEDDED_LATENT_FLOW,
    EMBEDDED_REFINER,
    EMBEDDED_TRANSFORMER,
    EMBEDDED_VAE,
    EMBEDDED_VISEME_ENCODER,
)
from ..synthetic.clips import PEOPLE
from ..synthetic.dataset import write_dataset
from ..vae import StreamingVAE, TinyDecoder, vae_from_state_dict
from .configs import CONFIGS
from .loop import FOREVER, LoopSettings, averaged_weights
from .parallel import Share
from .run_folder import RunFolder, judged_avatar, vae_weights

if TYPE_CHECKING:
    from .face_canvases import Cutouts


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


def train_viseme_encoder(options: argparse.Namespace) -> None:
    """The viseme encoder, from voices alone; prints its correlations on held-out voices."""
    from safetensors.torch import save_file

    from . import viseme_encoder

    folder, workers = options.runs / "voices", options.threads
    voices = viseme_encoder.write_voices(folder, options.voices, workers=workers)
    held_out = viseme_encoder.write_voices(folder, viseme_encoder.HELD_OUT, "held-out", workers=workers)
    settings = _settings(options, "viseme-encoder", 2e-3)
    model = viseme_encoder.train_viseme_encoder(
        voices, settings, viseme_encoder.VisemeRecipe(batch=options.batch or 48)
    )
    if Share.mine().leads:
        state = {name: tensor.half() for name, tensor in model.state_dict().items()}
        save_file(state, RunFolder.of(options).viseme_encoder_path)
        print(json.dumps(viseme_encoder.correlations(model, held_out), indent=1))


def train_face_locator(options: argparse.Namespace) -> None:
    """The face locator, from drawn and rendered people; writes runs/face_locator.safetensors."""
    from . import locator_training as training

    drawn, rendered = _cutouts(options)
    settings = _settings(options, "locator", 3e-3, ema=0.995)
    recipe = training.LocatorRecipe(batch=options.batch or training.LocatorRecipe.batch)
    locator = training.train_locator(drawn, rendered, settings, recipe)
    if Share.mine().leads:
        _save_half(locator, options.runs / "face_locator.safetensors")


def train_person(options: argparse.Namespace) -> None:
    """The person finder, from drawn and rendered people; writes runs/person_finder.safetensors."""
    from .person_training import BATCH, train_person_finder

    settings = _settings(options, "person", 3e-3, ema=0.995)
    finder = train_person_finder(*_cutouts(options), settings, _start(options), options.batch or BATCH)
    if Share.mine().leads:
        _save_half(finder, options.runs / "person_finder.safetensors")


def train_face_aligner(options: argparse.Namespace) -> None:
    """The face aligner, on clips of 256 x 256; writes runs/face_aligner.safetensors and prints its errors."""
    from .aligner_training import PICTURES, FaceSquares, aligner_errors, train_aligner

    run = RunFolder.of(options)
    clips = run.clips()
    settings = _settings(options, "aligner", 2e-3, weight_decay=1e-3, ema=0.995)
    aligner = train_aligner(FaceSquares(clips), settings, options.batch or PICTURES)
    if Share.mine().leads:
        _save_half(aligner, options.runs / "face_aligner.safetensors")
        if held_out := run.held_out_clips():
            print(json.dumps(aligner_errors(aligner, held_out), indent=1))


def train_vae(options: argparse.Namespace) -> None:
    """The VAE; at the end its raw latents get Wan2.1's mean and a scaled deviation; writes runs/vae.safetensors."""
    from . import vae_training as training

    if options.decoder_only and not options.fine_tune:
        raise AvatarError("--decoder-only keeps the latents of an existing VAE; give it as --fine-tune.")
    if options.frames % 4 != 1 or options.frames < 5:
        raise AvatarError(f"--frames is {options.frames}, expected 4 n + 1 such as 9 or 17.")
    recipe = training.VaeRecipe(frames=options.frames, batch=options.batch or training.VaeRecipe.batch)
    settings = _settings(options, "vae", 1e-3, weight_decay=0.0, by_inputs=True)
    start = vae_weights(options.fine_tune) if options.fine_tune else None
    run = RunFolder.of(options)
    clips = run.clips()
    vae = training.train_vae(clips, settings, recipe, options.compile, start=start, decoder_only=options.decoder_only)
    if not Share.mine().leads:
        return
    if not options.decoder_only:
        statistics = training.latent_statistics(vae, clips[:100])
        vae = training.fold_statistics(vae, *statistics, training.channel_scales(vae, clips[:8]))
    training.save_vae(vae, run.vae_path)


def train_decoder(options: argparse.Namespace) -> None:
    """A decoder of the VAE's latents, on clips of twice the avatar's size: a tiny one, in runs/decoder.safetensors.

    Where `--fine-tune` names a VAE, its own decoder is trained, with `--encoder` its encoder, too, and
    runs/vae.safetensors is written.
    """
    from . import decoder_training as training

    start = vae_from_state_dict(_start(options)) if options.fine_tune else None
    own = isinstance(start, StreamingVAE)
    if options.encoder and not own:
        raise AvatarError("--encoder trains the encoder of a VAE; give the VAE as --fine-tune.")
    run = RunFolder.of(options)
    clips = run.clips()
    settings = _settings(options, "decoder", 4e-4 if own else 2e-3, weight_decay=0.0)
    recipe = training.DecoderRecipe(batch=options.batch or training.DecoderRecipe.batch)
    recipe.check(clips[0])
    decoder = training.train_decoder(
        clips, copy.deepcopy(start) if own else run.vae(), start or TinyDecoder(training.WIDTHS), settings, recipe,
        encodes=options.encoder, compiled=options.compile,
    )  # fmt: skip
    if Share.mine().leads:
        _save_half(decoder, run.vae_path if own else run.decoder_path)


def make_latents(options: argparse.Namespace) -> None:
    """All clips as latents of the trained VAE, for `forcing`."""
    RunFolder.of(options).latents(options.device)


def train_transformer(options: argparse.Namespace) -> None:
    """Stage 1 of the transformer, from scratch or from `--fine-tune`; writes runs/avatar.safetensors."""
    from . import teacher_forcing
    from .initial_weights import start_from

    chosen = CONFIGS[options.config]
    guidance = 1.0 if options.guidance is None else options.guidance
    if guidance < 1:
        raise AvatarError(f"--guidance is {guidance:g}, expected 1 (as the data) or more.")
    recipe = teacher_forcing.ForcingRecipe(
        batch=options.batch or teacher_forcing.ForcingRecipe.batch, guidance=guidance,
        levels=tuple(sigma for _, sigma in chosen.model.levels),
    )  # fmt: skip
    start = start_from(options.fine_tune, chosen.model, options.base) if options.fine_tune else None
    settings = _settings(options, "forcing", chosen.rates[0])
    run = RunFolder.of(options)
    weights = teacher_forcing.train_forcing(
        run.latents(options.device), settings, recipe, chosen.model, start, options.compile, sharded=options.shard
    )
    if Share.mine().leads:
        run.save_transformer(weights)


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
    if chosen.bidirectional_scores and not options.teacher:
        raise AvatarError(f"The config {options.config} is distilled from a public model; give it as --teacher.")
    likely = start_from(options.teacher, chosen.model, options.base) if options.teacher else begin
    student, teacher = AvatarTransformer(chosen.model), AvatarTransformer(chosen.model)
    student.load_state_dict(begin)
    teacher.load_state_dict(likely)
    recipe = distillation.DistillRecipe(
        guidance=2.0 if options.guidance is None else options.guidance,
        bidirectional_scores=chosen.bidirectional_scores,
        excerpts=dataclasses.replace(
            distillation.EXCERPTS, batch=options.batch or distillation.EXCERPTS.batch,
            # Bidirectional models were not trained on cuts or close-ups.
            **({"joined": 1.0, "close": 0} if chosen.bidirectional_scores else {}),
        ),
    )  # fmt: skip
    settings = _settings(options, "distill", chosen.rates[1], weight_decay=0.0)
    run = RunFolder.of(options)
    latents = run.latents(options.device)
    weights = distillation.distil(student, teacher, latents, settings, recipe, options.compile, sharded=options.shard)
    if Share.mine().leads:
        run.save_transformer(blended(begin, weights, options.blend))


def train_refiner(options: argparse.Namespace) -> None:
    """The portrait refiner, on clips of twice the avatar's size; first their pairs. Writes runs/refiner.safetensors."""
    from .refiner_pairs import make_pairs
    from .refiner_samples import Pairs, RefinerRecipe
    from .refiner_training import train_refiner as train

    if not 0 <= options.rollouts <= 1:
        raise AvatarError(f"--rollouts is {options.rollouts:g}, expected 0 to 1.")
    avatar, run = judged_avatar(options), RunFolder.of(options)
    clips = run.clips()
    settings = _settings(options, "refiner", 2e-3, weight_decay=1e-3, ema=0.995, by_inputs=True)
    pairs = make_pairs(avatar, clips, options.runs / "pairs", options.rollouts)
    if options.pairs_only:
        return
    batch = options.batch or RefinerRecipe.batch
    recipe = RefinerRecipe(batch=batch, close_batch=3 * batch)
    net = train(Pairs(clips, pairs, recipe), settings, _start(options))
    if Share.mine().leads:
        _save_half(net, run.refiner_path)


def train_face_editor(options: argparse.Namespace) -> None:
    """The face editor, on people whose heads are still; first their pictures. Writes runs/face_editor.safetensors."""
    from ..synthetic.expressions import write_expressions
    from .editor_training import BATCH, Faces, train_editor

    if options.people < 1:
        raise AvatarError(f"--people is {options.people}, expected 1 or more.")
    settings = _settings(options, "editor", 2e-3, weight_decay=1e-3, ema=0.99)
    folder = options.runs / "faces"
    if Share.mine().leads:
        write_expressions(folder, options.people, workers=options.threads)
    Share.mine().wait()
    paths = write_expressions(folder, options.people, workers=options.threads)  # all are there
    net = train_editor(Faces(paths), settings, _start(options), options.batch or BATCH)
    if Share.mine().leads:
        _save_half(net, RunFolder.of(options).face_editor_path)


def train_latent_flow(options: argparse.Namespace) -> None:
    """The latent flow, on streams of the avatar with its refiner; first these. Writes runs/latent_flow.safetensors."""
    from . import latent_flow_training as training
    from .latent_flow_streams import write_streams

    if options.people < 1:
        raise AvatarError(f"--people is {options.people}, expected 1 or more.")
    settings = _settings(options, "latent-flow", 2e-3, weight_decay=1e-3, ema=0.995)
    write = functools.partial(
        write_streams, options.runs / "streams", options.people, functools.partial(judged_avatar, options),
        workers=options.threads,
    )  # fmt: skip
    if Share.mine().leads:
        write()
    Share.mine().wait()
    net = training.train_latent_flow(
        training.Streams(write()), settings, _start(options), options.batch or training.BATCH
    )
    if Share.mine().leads:
        _save_half(net, RunFolder.of(options).latent_flow_path)


def ship(options: argparse.Namespace) -> None:
    """The run's transformer, VAE, viseme encoder, decoder, refiner, face editor and latent flow as the embedded avatar,
    in half precision. What finds faces and people is copied by hand."""
    from .vae_training import save_vae

    run = RunFolder.of(options)
    state = {name: tensor.half() for name, tensor in run.transformer_weights().items()}
    save_checkpoint(EMBEDDED_TRANSFORMER, state, run.config.model)
    EMBEDDED_VAE.parent.mkdir(parents=True, exist_ok=True)
    save_vae(run.vae(), EMBEDDED_VAE)
    encoder = options.audio_encoder or run.viseme_encoder_path
    for own, embedded in (
        (encoder, EMBEDDED_VISEME_ENCODER), (run.decoder_path, EMBEDDED_DECODER), (run.refiner_path, EMBEDDED_REFINER),
        (run.face_editor_path, EMBEDDED_FACE_EDITOR), (run.latent_flow_path, EMBEDDED_LATENT_FLOW),
    ):  # fmt: skip
        if own.exists():
            shutil.copyfile(own, embedded)


def _start(options: argparse.Namespace) -> dict[str, Tensor] | None:
    """The weights that --fine-tune names, in float32; None without it."""
    from safetensors.torch import load_file

    return {name: x.float() for name, x in load_file(options.fine_tune).items()} if options.fine_tune else None


def _cutouts(options: argparse.Namespace) -> tuple[Cutouts, Cutouts]:
    """Drawn and rendered people, made where they are not there yet."""
    from .locator_training import write_cutouts

    folder = options.runs / "cutouts"
    return tuple(write_cutouts(folder, kind, options.people, workers=options.threads) for kind in ("drawn", "rendered"))


def _save_half(module: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}, path)


def _settings(options: argparse.Namespace, run: str, learning_rate: float, **others: object) -> LoopSettings:
    if math.isinf(options.minutes) and options.steps == FOREVER:
        raise AvatarError("The training has no end; give --steps or --minutes.")
    if not (options.steps > 0 and options.minutes > 0 and 0 <= options.seed < 1 << 15):
        raise AvatarError("--steps and --minutes are to be above 0, --seed from 0 to 32767.")
    parts = ("fine_tune", "teacher", "base", "guidance", "decoder_only", "encoder")
    origin = ", ".join(f"{part} {value}" for part in parts if (value := getattr(options, part, None)))
    return LoopSettings(
        options.runs / run, options.steps, options.minutes, options.learning_rate or learning_rate,
        seed=options.seed, resume=options.resume, origin=origin,
        device=getattr(options, "device", "cpu"), **others,
    )  # fmt: skip
