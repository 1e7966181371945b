"""Carry on training the shipped avatar on a GPU that is at hand for minutes only.

    python scripts/train_on_gpu.py pack --count 2000 --out takes.safetensors     # anywhere, with the speech programs
    python scripts/train_on_gpu.py train --takes takes.safetensors --out out     # on the GPU: at most 9 minutes
    python scripts/train_on_gpu.py train --tiny --device cpu --out out           # the whole script in seconds

`pack` writes what moves and what is heard, about 8 kB a clip. `train` draws the clips with all processors, encodes
them as they come, trains from the shipped weights, and leaves in its folder, a few MB each: avatar.safetensors (or,
with --stage vae, vae.safetensors), sheet.png (the avatar talks), log.tsv and result.json. A training that fails leaves
the weights it had. Rendered people need moderngl and glcontext there, drawn ones skia-python. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from joyavatar_core.audio import ArrayAudio, AudioFeatures, FixedFeatures, VisemeEncoder
from joyavatar_core.checkpoints import save_checkpoint
from joyavatar_core.errors import AvatarError
from joyavatar_core.geometry import VIDEO_FRAMES_PER_LATENT, to_latent_frames
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.pipeline.avatar import open_embedded
from joyavatar_core.pipeline.embedded import EMBEDDED_TRANSFORMER, EMBEDDED_VAE, EMBEDDED_VISEME_ENCODER
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.synthetic.dataset import load_clip, save_clip
from joyavatar_core.synthetic.takes import Take, load_takes, save_takes
from joyavatar_core.training.initial_weights import read_weights
from joyavatar_core.training.latents import LatentClips, encode_pictures
from joyavatar_core.training.loop import LoopSettings

BLOCK, FPS = 3, 16


def encode_voice(waveform: np.ndarray, frames: int) -> np.ndarray:
    """What the shipped avatar hears of a clip, [L, 4, C]."""
    encoder = VisemeEncoder.load(EMBEDDED_VISEME_ENCODER)
    features = AudioFeatures(ArrayAudio(waveform, 16000), encoder, FPS, BLOCK)
    return features.latent_features(0, to_latent_frames(frames)).numpy()


def _take(seed: int, people: str, seconds: float) -> Take:
    return Take.of(seed, people, seconds, encode_voice)


def pack(args: argparse.Namespace) -> None:
    """Takes of `count` seeds, of each kind of people in turn."""
    jobs = [
        (seed, args.people[seed % len(args.people)], args.seconds)
        for seed in range(args.first, args.first + args.count)
    ]
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        save_takes(args.out, list(pool.map(_take, *zip(*jobs, strict=True), chunksize=8)))
    print(f"{args.out}: {args.count} takes, {args.out.stat().st_size / 1e6:.1f} MB")


def made_up(count: int, frames: int, seed: int = 0) -> list[Take]:
    """Takes of nobody in particular, for a rehearsal without the speech programs."""
    rng = np.random.default_rng(seed)
    tracks = rng.uniform(0, 0.3, (count, frames, 20)).astype(np.float32)
    heard = rng.normal(size=(count, to_latent_frames(frames), VIDEO_FRAMES_PER_LATENT, 8)).astype(np.float32)
    return [Take("drawn", k, tracks[k], tracks[k, :4], heard[k]) for k in range(count)]


def _draw(take: Take, number: int, size: int, folder: str) -> int:
    save_clip(Path(folder) / f"train-{number:07d}.safetensors", take.draw(size))
    return number


def drawn_clips(takes: list[Take], size: int, folder: Path, workers: int, seconds: float) -> Iterator[int]:
    """Draw takes into files until the time is up; gives the number of each as soon as it is there.

    Takes that cannot be drawn are left out. Raises AvatarError where none can.
    """
    end, done, problems = time.monotonic() + seconds, 0, []
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers: one thread each
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_draw, take, k, size, str(folder)) for k, take in enumerate(takes)]
        for job in as_completed(jobs):
            if not job.cancelled() and job.exception() is not None:
                problems.append(job.exception())
            elif not job.cancelled():
                done += 1
                yield job.result()
            if time.monotonic() > end:
                pool.shutdown(wait=True, cancel_futures=True)
                break
    if problems:
        first = (str(problems[0]).splitlines() or [""])[0]
        print(f"{len(problems)} takes could not be drawn, the first: {type(problems[0]).__name__}: {first}", flush=True)
    if not done:
        raise AvatarError("No clip could be drawn; give drawn people where nothing renders, or more --minutes.")


@torch.no_grad()
def encoded(takes: list[Take], numbers: Iterable[int], folder: Path, device: str) -> LatentClips:
    """The clips as the transformer sees them, from the shipped autoencoder; each while later ones are drawn."""
    vae = shipped_vae().to(device)
    shown = {number: encode_pictures(load_clip(clip_file(folder, number)), vae) for number in numbers}
    order = sorted(shown)
    latents, boxes = (torch.stack([shown[number][name] for number in order]) for name in ("latents", "boxes"))
    return LatentClips(latents, torch.from_numpy(np.stack([takes[number].features for number in order])), boxes)


def clip_file(folder: Path, number: int) -> Path:
    return folder / f"train-{number:07d}.safetensors"


def shipped_vae():
    from joyavatar_core.checkpoints.reader import read_file
    from joyavatar_core.vae import vae_from_state_dict

    return vae_from_state_dict({k: t.copy(torch.float32) for k, t in read_file(EMBEDDED_VAE).tensors.items()})


def train(args: argparse.Namespace) -> None:
    """Draw, encode, train, look."""
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, object] = {"device": args.device, "torch": torch.__version__, "stage": args.stage}
    if args.device.startswith("cuda"):
        facts["card"] = torch.cuda.get_device_name(args.device)

    def note(**more: object) -> None:
        """Add to the facts, on the disk at once."""
        facts.update(more, minutes=round((time.monotonic() - started) / 60, 2))
        (args.out / "result.json").write_text(json.dumps(facts, indent=1))
        print(more, flush=True)

    if args.tiny:
        takes, args.size, args.minutes = made_up(3, 81), 64, math.inf  # three steps, however long they take
    elif args.takes is None:
        raise AvatarError("There is nothing to learn from; give --takes with a file made by 'pack'.")
    else:
        takes = load_takes(args.takes)[: args.count]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        numbers = drawn_clips(takes, args.size, folder, args.workers, 0.3 * 60 * args.minutes)
        left = lambda: args.minutes - (time.monotonic() - started) / 60 - args.spare  # noqa: E731
        settings = LoopSettings(
            folder / "run", steps=3 if args.tiny else 10**9, minutes=max(0.1, left()), device=args.device,
            learning_rate=args.learning_rate, warmup=50, save_seconds=45, resume=False, seed=args.seed,
        )  # fmt: skip
        try:
            if args.stage == "vae":
                _train_vae(args, folder, numbers, settings, left, note)
            else:
                _train_transformer(args, takes, numbers, folder, settings, left, note)
        finally:
            log = settings.folder / "log.tsv"
            if log.exists():
                (args.out / "log.tsv").write_text(log.read_text())
    peak = torch.cuda.max_memory_allocated(args.device) / 2**30 if args.device.startswith("cuda") else 0.0
    note(peak_gib=round(peak, 2), done=True)


def _train_transformer(args, takes, numbers, folder, settings: LoopSettings, left, note) -> None:
    from joyavatar_core.training.teacher_forcing import ForcingRecipe, train_forcing

    clips = encoded(takes, numbers, folder, args.device)
    note(clips=len(clips), takes=len(takes), latents=list(clips.latents.shape))
    checkpoint = open_embedded()
    config = dataclasses.replace(checkpoint.config, width=args.size, height=args.size)
    weights = read_weights(EMBEDDED_TRANSFORMER)
    settings = dataclasses.replace(settings, minutes=max(0.1, left()))
    with _rescued(settings, note) as rescued:
        if args.stage == "forcing":
            recipe = ForcingRecipe(
                batch=args.batch, levels=tuple(sigma for _, sigma in config.levels),
                advance_every=args.advance_every, rollout_batch=ForcingRecipe.self_rollouts // 2,
            )  # fmt: skip
            trained = train_forcing(clips, settings, recipe, config, weights, args.compile)
        else:
            from joyavatar_core.training.distillation import EXCERPTS, DistillRecipe, distil

            student, teacher = AvatarTransformer(config), AvatarTransformer(config)
            for model in (student, teacher):
                model.load_state_dict(weights)
            settings = dataclasses.replace(settings, weight_decay=0.0)
            excerpts = dataclasses.replace(EXCERPTS, batch=args.batch)
            recipe = DistillRecipe(pool=2 if args.tiny else DistillRecipe.pool, excerpts=excerpts)
            trained = distil(student, teacher, clips, settings, recipe, args.compile)
    if rescued:
        mark = "student." if args.stage == "distill" else ""
        trained = {name.removeprefix(mark): one for name, one in rescued.items() if name.startswith(mark)}
    save_checkpoint(args.out / "avatar.safetensors", {name: t.half() for name, t in trained.items()}, config)
    note(trained=args.stage, **_steps(settings))
    look(args, trained, config, clips)


def _train_vae(args, folder: Path, numbers: Iterable[int], settings: LoopSettings, left, note) -> None:
    from joyavatar_core.training.vae_training import VaeRecipe, save_vae, train_vae

    paths = [clip_file(folder, number) for number in sorted(numbers)]
    note(clips=len(paths))
    settings = dataclasses.replace(settings, minutes=max(0.1, left()))
    recipe = VaeRecipe(batch=args.batch, crop=32 if args.tiny else 64, whole_frames=9)
    vae = shipped_vae()
    with _rescued(settings, note) as rescued:
        vae = train_vae(
            paths, settings, recipe, args.compile, start=vae.state_dict(), decoder_only=args.decoder_only
        )  # fmt: skip
    if rescued:
        vae.load_state_dict(rescued)
    save_vae(vae, args.out / "vae.safetensors")
    note(trained="vae", **_steps(settings))


def _state(settings: LoopSettings) -> dict:
    return torch.load(settings.checkpoint, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _rescued(settings: LoopSettings, note) -> Iterator[dict[str, Tensor]]:
    """A training; where it fails behind its first step, the averaged weights last stored come into the dictionary."""
    weights: dict[str, Tensor] = {}
    try:
        yield weights
    except Exception as problem:
        note(failed=f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:300]}")
        state = _state(settings) if settings.checkpoint.exists() else {"step": 0}
        if not state["step"]:
            raise
        traceback.print_exc()
        weights.update(state["ema"])


def _steps(settings: LoopSettings) -> dict[str, object]:
    """Steps and milliseconds a step, from the run's checkpoint."""
    state = _state(settings)
    return {"steps": state["step"], "ms_a_step": round(1e3 * state["seconds"] / max(1, state["step"]), 1)}


@torch.no_grad()
def look(args: argparse.Namespace, weights: dict[str, Tensor], config, clips: LatentClips) -> None:
    """Some clips' portraits talk with the new weights: what was drawn above what the avatar makes, as a picture."""
    from joyavatar_core.evaluation.sheet import contact_sheet
    from joyavatar_core.pipeline.render import frames_of
    from joyavatar_core.sampling.presets import preset
    from joyavatar_core.sampling.stream import AvatarStream
    from joyavatar_core.video.portrait import to_uint8

    model = AvatarTransformer(config)
    model.load_state_dict(weights)
    model, vae = model.to(args.device).eval(), shipped_vae().to(args.device)
    chosen, rows = preset("checkpoint", config), []
    for clip in range(min(4, len(clips))):
        latents = clips.latents[clip : clip + 1].to(args.device).float()
        heard = torch.cat([clips.features[clip][0, -1:], clips.features[clip][1:].flatten(0, 1)])
        stream = AvatarStream(
            model, latents[:, :, :1], FixedFeatures(heard, config.fps, BLOCK), psb=chosen.psb, mci=chosen.mci,
            urcr=chosen.urcr,
        )  # fmt: skip
        with StreamRun(stream) as run:
            made = torch.cat([frames.cpu() for _, frames in frames_of(run, vae)])
        rows += [to_uint8(vae.decode(latents)[0]).cpu().numpy(), made.numpy()]
    contact_sheet(rows, args.out / "sheet.png", 10)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pack", help=pack.__doc__)
    one.add_argument("--first", type=int, default=0, help="seed")
    one.add_argument("--people", nargs="+", choices=("drawn", "rendered"), default=["rendered"])
    one.add_argument("--seconds", type=float, default=7.0)
    one.add_argument("--count", type=int, default=2000)
    two = commands.add_parser("train", help=train.__doc__)
    two.add_argument("--takes", type=Path, help="file made by 'pack'")
    two.add_argument("--stage", choices=("forcing", "distill", "vae"), default="forcing")
    two.add_argument("--count", type=int, default=10**6, help="takes used, at most")
    two.add_argument("--size", type=int, default=128, help="width and height in pixels")
    two.add_argument("--minutes", type=float, default=9.0, help="of everything")
    two.add_argument("--spare", type=float, default=0.7, help="minutes left for writing and looking")
    two.add_argument("--batch", type=int, default=16)
    two.add_argument("--learning-rate", type=float, default=5e-4)
    two.add_argument("--advance-every", type=int, default=1, help="steps for each block of the self-rollouts")
    two.add_argument("--decoder-only", action="store_true", help="of the autoencoder: the latents stay what they are")
    two.add_argument("--device", default="cuda")
    two.add_argument("--compile", action="store_true", help="pays from some thousand steps on")
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--tiny", action="store_true", help="a rehearsal: three small made-up clips, three steps")
    for command in (one, two):
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args(arguments)
    if args.command == "train" and args.tiny:
        args.batch, args.workers = min(args.batch, 2), 1
    try:
        {"pack": pack, "train": train}[args.command](args)
    except AvatarError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
