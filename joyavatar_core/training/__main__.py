"""The training recipe as commands: making data, training each stage, shipping and judging an avatar."""

from __future__ import annotations

import sys

import torch

from ..distributed.process_group import process_group
from ..errors import AvatarError, with_flags
from .arguments import training_parser
from .judging import ablate, evaluate
from .stages import (
    distil,
    make_data,
    make_latents,
    ship,
    train_decoder,
    train_face_aligner,
    train_face_editor,
    train_face_locator,
    train_latent_flow,
    train_person,
    train_refiner,
    train_transformer,
    train_vae,
    train_viseme_encoder,
)

COMMANDS = {
    "data": make_data, "viseme-encoder": train_viseme_encoder, "locator": train_face_locator,
    "aligner": train_face_aligner, "person": train_person, "vae": train_vae, "decoder": train_decoder,
    "latents": make_latents, "forcing": train_transformer, "distill": distil, "refiner": train_refiner,
    "editor": train_face_editor, "latent-flow": train_latent_flow, "ship": ship, "evaluate": evaluate,
    "ablate": ablate,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = training_parser(COMMANDS, __doc__).parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        with process_group():
            COMMANDS[options.command](options)
    except AvatarError as problem:
        print(with_flags(problem, options), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
