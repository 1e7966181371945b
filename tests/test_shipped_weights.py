"""The embedded weights keep their quality: two held-out people talk for 20 s, and damaged weights are noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("skia")

from joyavatar_core.evaluation.rollout import Judge, Truth, rollout
from joyavatar_core.pipeline.avatar import Avatar, load_avatar
from joyavatar_core.sampling.presets import preset

from .test_training_viseme_encoder import speaks

PEOPLE = (100, 102)  # seeds of held-out people
SECONDS = 20.0
# Floors lie about a quarter beyond the worse of the two figures, so that another processor's rounding passes.
LEAST = {"mouth_r": 0.64, "amplitude": 0.48, "sharpness": 0.37}
MOST = {"drift": 14.5, "seam": 1.45, "reset_seam": 1.5}


def figures(avatar: Avatar, person: int, seconds: float = SECONDS) -> dict[str, float]:
    """What the judge measures on a person's talk."""
    truth = Truth.of(person, seconds, avatar.config.width)
    made = rollout(avatar, truth, preset("checkpoint", avatar.config))
    return Judge(truth, np.zeros((1, *truth.frames.shape[1:]), np.float32)).judge(made)


def misses(found: dict[str, float]) -> set[str]:
    """The measures that are beyond their floor."""
    return {name for name, least in LEAST.items() if not found[name] >= least} | {
        name for name, most in MOST.items() if not found[name] <= most
    }


@speaks
@pytest.mark.parametrize("person", PEOPLE)
def test_held_out_people_talk_as_well_as_the_model_card_says(person):
    found = figures(load_avatar(), person)
    assert not misses(found), {name: found[name] for name in {**LEAST, **MOST}}


@speaks
def test_damaged_weights_are_noticed():
    avatar = load_avatar()
    generator = torch.Generator().manual_seed(0)
    for weight in avatar.transformer.parameters():
        weight += 0.3 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    assert misses(figures(avatar, PEOPLE[0], 10.0))
