"""Log-mel spectra augmented as if another speaker had said the same words. Synthesisers have few speakers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..audio.mel import BANDS, FLOOR, LOG_MEAN, LOG_SCALE

WARP = 0.12  # of a band's number: a vocal tract so much longer or shorter (vocal tract length perturbation)
LOUDER = 0.4  # deviations, about 6 dB
TILT = 0.6  # deviations between the lowest and the highest band
NOISE = 0.08  # deviations, of every number by itself
SILENCE = (torch.tensor(FLOOR).log10().item() - LOG_MEAN) / LOG_SCALE


def other_voice(spectra: Tensor, generator: torch.Generator) -> Tensor:
    """spectra [..., 32] as `log_mel` gives them -> the same shape, clamped at silence."""
    warp, louder, tilt = (2 * torch.rand(3, generator=generator) - 1).tolist()
    bands = (torch.arange(BANDS) * (1 + WARP * warp)).clamp(max=BANDS - 1)
    below = bands.long().clamp(max=BANDS - 2)
    share = bands - below
    warped = spectra[..., below] * (1 - share) + spectra[..., below + 1] * share
    changed = warped + LOUDER * louder + TILT * tilt * torch.linspace(-0.5, 0.5, BANDS)
    changed = changed + NOISE * torch.randn(changed.shape, generator=generator)
    return changed.clamp(min=SILENCE)
