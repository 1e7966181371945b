"""Training the viseme encoder: from spectra to mouth shapes, on voices whose phonemes are known in time.

It needs no pictures. Hours of speech, in many more voices than there are clips, are made and learned in minutes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import ArrayAudio, Clock
from ..audio.mel import WINDOW, log_mel
from ..audio.resample import read_resampled
from ..audio.visemes import SLOTS, VISEMES, VisemeNet
from ..paths import replacing
from ..synthetic.clips import FPS, make_script
from ..synthetic.moment import MouthShape
from ..synthetic.motion import COLUMN
from ..synthetic.speech import SAMPLE_RATE
from ..synthetic.viseme_tracks import loudness
from .augment import other_voice
from .loop import Draw, LoopSettings, Trainer

FIRST_VOICE = 100_000  # seeds of voices; those of clips are smaller
MANY = 50  # voices a file
HELD_OUT = 100  # voices that the encoder is judged by


@dataclass(frozen=True)
class Voices:
    """Voices of equal length: spectra [N, T, SLOTS, 32] and their visemes [N, T, 8], both float16."""

    spectra: Tensor
    visemes: Tensor


@dataclass(frozen=True)
class VisemeRecipe:
    """frames: shortest and longest excerpt, in video frames. weights: of the visemes' errors; jaw and closed lips are
    what a viewer sees first."""

    batch: int = 48
    frames: tuple[int, int] = (9, 48)
    others: float = 0.8
    weights: tuple[float, ...] = (4.0, 1.0, 1.5, 0.7, 0.5, 1.0, 2.0, 1.0)


def voice_of(seed: int, split: str, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """One voice's spectra [T, SLOTS, 32] and visemes [T, 8], not yet scaled."""
    script = make_script(seed, split, seconds)
    frames, clock = len(script.tracks), Clock(SAMPLE_RATE, FPS)
    reach = WINDOW // 2
    heard = read_resampled(
        ArrayAudio(script.waveform, SAMPLE_RATE), -reach, clock.frame_start(frames) + reach, SAMPLE_RATE
    )
    spectra = log_mel(heard, [clock.frame_start(k) + reach for k in range(frames + 1)], SLOTS)
    mouth = script.tracks[:, [COLUMN[name] for name in MouthShape._fields]]
    loud = loudness(script.waveform, SAMPLE_RATE, (np.arange(frames) + 0.5) / FPS)
    return spectra, np.concatenate([mouth, loud[:, None]], axis=1)


def write_voices(folder: Path, count: int, split: str = "train", seconds: float = 7.0, workers: int = 2) -> Voices:
    """The first `count` voices of a split (in files of 50), made where they are not there yet."""
    from safetensors.torch import load_file
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{split}-{k:06d}.safetensors": range(k, k + MANY) for k in range(0, count, MANY)}
    missing = {path: seeds for path, seeds in files.items() if not path.exists()}
    # Processes start afresh: forking one that holds torch's threads can hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_write_voices, path, seeds, split, seconds) for path, seeds in missing.items()]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=f"{split} voices", unit=f"{MANY} voices"):
            job.result()
    kept = [load_file(path) for path in files]
    return Voices(*(torch.cat([one[name] for one in kept])[:count] for name in ("spectra", "visemes")))


def _write_voices(path: Path, seeds: Iterable[int], split: str, seconds: float) -> None:
    from safetensors.numpy import save_file

    made = [voice_of(FIRST_VOICE + seed, split, seconds) for seed in seeds]
    arrays = {
        name: np.ascontiguousarray(np.stack(arrays), np.float16)  # save_file writes memory as it lies
        for name, arrays in zip(("spectra", "visemes"), zip(*made, strict=True), strict=True)
    }
    with replacing(path, shared=True) as unfinished:
        save_file(arrays, unfinished)


def train_viseme_encoder(voices: Voices, settings: LoopSettings, recipe: VisemeRecipe = VisemeRecipe()) -> VisemeNet:
    """Train until the settings' limit; the averaged network, its outputs at zero mean and unit deviation."""
    torch.manual_seed(settings.seed)
    model, (mean, deviation) = VisemeNet(), statistics(voices)
    trainer, weights = Trainer(model, settings), torch.tensor(recipe.weights)

    def step_loss(step: int, draw: Draw) -> dict[str, Tensor]:
        spectra, visemes = excerpts(voices, recipe, draw(recipe.batch))
        error = model(spectra.flatten(1, 2)) - (visemes - mean) / deviation
        return {"loss": (error.square() * weights).mean()}

    trainer.run(step_loss)
    model.load_state_dict(trainer.averaged())
    return model.eval()


def statistics(voices: Voices) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the visemes, [8] each."""
    flat = voices.visemes.float().flatten(0, 1)
    return flat.mean(0), flat.std(0)


def excerpts(voices: Voices, recipe: VisemeRecipe, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Stretches cut anywhere, as windows around blocks are: spectra [B, L, SLOTS, 32], visemes [B, L, 8].

    Their length L is the first generator's choice.
    """
    low, high = recipe.frames
    length = int(torch.randint(low, high + 1, (), generator=generators[0]))
    cut: list[tuple[Tensor, Tensor]] = []
    for generator in generators:
        voice = int(torch.randint(len(voices.spectra), (), generator=generator))
        start = int(torch.randint(voices.spectra.shape[1] - length + 1, (), generator=generator))
        spectra = voices.spectra[voice, start : start + length].float()
        if float(torch.rand((), generator=generator)) < recipe.others:
            spectra = other_voice(spectra, generator)
        cut.append((spectra, voices.visemes[voice, start : start + length].float()))
    spectra, visemes = zip(*cut, strict=True)
    return torch.stack(spectra), torch.stack(visemes)


@torch.no_grad()
def correlations(model: VisemeNet, voices: Voices) -> dict[str, float]:
    """Pearson's r of each viseme over all frames of some voices."""
    heard = torch.cat([model(one[None].float().flatten(1, 2))[0] for one in voices.spectra])
    said = voices.visemes.float().flatten(0, 1)
    pairs = zip(VISEMES, heard.unbind(1), said.unbind(1), strict=True)
    return {name: float(torch.corrcoef(torch.stack([a, b]))[0, 1]) for name, a, b in pairs}
