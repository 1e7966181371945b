"""The commands that evaluate an avatar: on held-out people, on photographs, and mechanism by mechanism."""

from __future__ import annotations

import argparse
import json

import torch

from ..errors import AvatarError
from ..synthetic.dataset import load_clip
from .run_folder import RunFolder, judged_avatar

FIRST_PERSON = 100  # of the held-out people that talk in evaluations


def evaluate(options: argparse.Namespace) -> None:
    """The figures of the VAE's round trip, of the refiner where the held-out clips are of twice the avatar's size, and
    of a talk by held-out people: JSON, sheets and a plot over time."""
    if options.photos:
        evaluate_photos(options)
        return
    if options.voice or options.crop:
        raise AvatarError("--voice and --crop apply to --photos only; held-out people have their own voices.")
    from ..evaluation.autoencoder import evaluate_vae
    from ..evaluation.curves import plot_windows
    from ..evaluation.label_judge import LabelJudge
    from ..evaluation.refined import evaluate_refiner
    from ..evaluation.rollout import BOUNDS, OTHERS, Judge, Truth, mean_pictures, rollout
    from ..evaluation.sheet import contact_sheet
    from ..refiner.model import SCALE
    from ..sampling.presets import preset

    avatar, folder = judged_avatar(options), options.runs / "evaluation"
    figures, rows = {}, []
    held_out = RunFolder.of(options).held_out_clips()
    if held_out and not options.rollout_only:
        figures["vae"] = evaluate_vae(avatar.vae, held_out[: options.people], folder / "vae.png")
        if avatar.refiner is not None and load_clip(held_out[0], 0, 1).frames.shape[1] == SCALE * avatar.config.width:
            sheet = folder / "refiner.png"
            figures["refiner"] = evaluate_refiner(avatar, avatar.refiner, held_out[: options.people], sheet)
    side = avatar.config.width * (SCALE if options.refined else 1)
    bounds = {name: bound for name, bound in BOUNDS.items() if name == "drawn" or not options.refined}
    chosen, others = preset(options.preset, avatar.config), mean_pictures(list(OTHERS), side, people=options.kind)
    for person in range(FIRST_PERSON, FIRST_PERSON + options.people):
        truth = Truth.of(person, options.seconds, side, people=options.kind)
        made = {name: bound(avatar, truth) for name, bound in bounds.items()}
        made[options.preset] = rollout(avatar, truth, chosen, refined=options.refined)
        judge = Judge(truth, others, avatar.config.fps)
        figures[str(person)] = found = {name: judge.judge(one) for name, one in made.items()}
        if options.landmarks:
            landmarks = LabelJudge(truth)
            for name, one in made.items():
                found[name]["landmarks"] = landmarks.judge(one.video)
        rows += [truth.frames, made[options.preset].video]
        plot_windows({name: one["windows"] for name, one in found.items()}, folder / f"over-time-{person}.png")
    contact_sheet(rows, folder / "rollout.png", 12)
    text = json.dumps(figures, indent=1)
    (folder / "figures.json").write_text(text)
    print(text)


def evaluate_photos(options: argparse.Namespace) -> None:
    """Evaluate the portraits of a folder with a voice: figures as a table and JSON, and a sheet."""
    from ..evaluation.photo_judge import judge_photos, photo_table
    from ..evaluation.rollout import WINDOW_SECONDS
    from ..framing.crop import parse_crop
    from ..sampling.presets import preset

    if not options.voice:
        raise AvatarError("--photos needs a voice; give --voice with an audio file.")
    if options.ends is not None and not options.ends >= WINDOW_SECONDS:
        raise AvatarError(f"--ends is {options.ends:g}, expected {WINDOW_SECONDS} or more.")
    avatar, folder = judged_avatar(options), options.runs / "evaluation"
    figures = judge_photos(
        avatar, options.photos, options.voice, preset(options.preset, avatar.config), options.seconds,
        parse_crop(options.crop or "face"), folder / "photos.png", ends=options.ends,
    )  # fmt: skip
    (folder / "photos.json").write_text(json.dumps(figures, indent=1))
    print(photo_table(figures))


def ablate(options: argparse.Namespace) -> None:
    """The mechanisms one by one and together, on held-out people: a table, and a sheet for each person."""
    from ..evaluation.ablation import compare, named_variants, table
    from ..evaluation.rollout import WINDOW_SECONDS

    avatar = judged_avatar(options)
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
