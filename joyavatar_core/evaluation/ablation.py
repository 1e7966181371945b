"""Compares settings on the same held-out people and makes a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..config import AvatarConfig
from ..errors import AvatarError
from ..paths import replacing
from ..pipeline.avatar import Avatar
from ..recording.fingerprint import module_fingerprint
from ..sampling.mci import MCI_OFF, MciSettings
from ..sampling.presets import PRESETS, Preset, all_on, preset
from ..sampling.psb import PSB_OFF, PsbSettings
from ..sampling.urcr import SLIDING_WINDOW, UrcrSettings
from .rollout import BOUNDS, OTHERS, WINDOW_SECONDS, Judge, Truth, mean_pictures, rollout
from .sheet import contact_sheet

COLUMNS = ("mouth_r", "amplitude", "drift", "colour", "sharpness", "eyes", "motion", "identity", "seam", "reset_seam")
MEASURED_LATE = ("drift", "colour", "sharpness", "identity")  # shown as first window -> last window


def variants(config: AvatarConfig) -> dict[str, Preset]:
    """The settings that are compared, by name."""
    usual = all_on(config)
    rotate, inject = usual.urcr, usual.mci
    window = UrcrSettings("window", 0, 0, "first", config.trained_positions)

    def urcr(mode: str, sinks: int = rotate.sinks, source: str = "portrait") -> Preset:
        return Preset(PSB_OFF, MCI_OFF, UrcrSettings(mode, sinks, rotate.recent, source))

    def both(mci: MciSettings, urcr: UrcrSettings = rotate) -> Preset:
        return Preset(PSB_OFF, mci, urcr)

    return {
        "plain": Preset(PSB_OFF, MCI_OFF, SLIDING_WINDOW),
        "PSB": Preset(usual.psb, MCI_OFF, window),
        "MCI inject": Preset(PSB_OFF, inject, window),
        "MCI context 0.1": Preset(PSB_OFF, MciSettings("context", 3, 0.1), window),
        "MCI context 0.25": Preset(PSB_OFF, MciSettings("context", 3, 0.25), window),
        "URCR rotate, portrait": urcr("rotate"),
        "URCR rotate, first": urcr("rotate", source="first"),
        "URCR rotate, no sinks": urcr("rotate", 0, "first"),
        "URCR prefill, portrait": urcr("prefill"),
        "URCR + inject m 3 c 0.25": both(inject),
        "URCR + inject m 3 c 0.1": both(MciSettings("inject", 3, 0.1)),
        "URCR + inject m 1 c 0.25": both(MciSettings("inject", 1, 0.25)),
        "URCR + inject, no carry": both(MciSettings("inject", 3, 0.25, carry=0.0)),
        "URCR + context 0.1": both(MciSettings("context", 3, 0.1)),
        "URCR + inject, 2 steps": Preset(PsbSettings(steps=(2,)), inject, rotate),
        "URCR + inject, 4 steps": Preset(PsbSettings(steps=(4,)), inject, rotate),
        "URCR + inject, 8 steps": Preset(PsbSettings(steps=(8,)), inject, rotate),
        "all three": usual,
    }


def compare(
    avatar: Avatar,
    chosen: Mapping[str, Preset],
    people: Sequence[int],
    seconds: float,
    folder: Path,
    seeds: Sequence[int] = (0,),
    ends: float = WINDOW_SECONDS,
) -> dict[str, list[dict[str, object]]]:
    """Judge every setting on every person and seed, and both bounds; kept in `folder` as it grows, so a kill loses one.

    Only the first and the last `ends` seconds of a video are decoded and judged. Figures of other weights or lengths
    are not taken for these. Writes ablation.json, and for each person a sheet with a row for every setting made now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "ablation.json"
    found: dict[str, dict[str, object]] = json.loads(kept.read_text()) if kept.exists() else {}
    others = mean_pictures(list(OTHERS), avatar.config.width)
    judged = f"{module_fingerprint(avatar.transformer)} {module_fingerprint(avatar.vae)} {seconds:g} s, {ends:g} s"
    frames = round(ends * avatar.config.fps)
    results: dict[str, list[dict[str, object]]] = {}
    for person in people:
        truth = Truth.of(person, seconds, avatar.config.width)
        shown = truth.ends(frames)
        judge, rows = Judge(shown, others, avatar.config.fps), [shown.frames]
        makers = {(name, seeds[0]): partial(bound, avatar, shown) for name, bound in BOUNDS.items()} | {
            (name, seed): partial(rollout, avatar, truth, preset, seed, frames)
            for name, preset in chosen.items() for seed in seeds
        }  # fmt: skip
        for (name, seed), make in makers.items():
            key = f"{name} | {person} | {seed} | {judged}"
            if key not in found:
                made = make()
                found[key] = judge.judge(made)
                rows += [made.video] if seed == seeds[0] else []
                with replacing(kept) as unfinished:
                    unfinished.write_text(json.dumps(found))
            results.setdefault(name, []).append(found[key])
        if len(rows) > 1:
            contact_sheet(rows, folder / f"person-{person}.png", 12)
    return results


def table(results: Mapping[str, Sequence[Mapping[str, object]]], seeds: int = 1) -> str:
    """A Markdown table of means; measures that may drift are given for the first 10 s and the last 10 s.

    With several seeds the last row tells how much they matter: the deviation of a setting's mean over people from one
    seed to the next, as the root mean square over all settings.
    """
    lines = ["| setting | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    deviations = []
    for name, figures in results.items():
        numbers = np.ma.masked_invalid([_numbers(one) for one in figures])  # [people * seeds, columns, 2]
        lines.append(_row(name, numbers.mean(0)))
        if seeds > 1 and name not in BOUNDS:
            by_seed = numbers.reshape(-1, seeds, *numbers.shape[1:]).mean(0)
            deviations.append(by_seed.std(0, ddof=1))
    if deviations:
        lines.append(_row("± from seed to seed", np.ma.sqrt((np.ma.stack(deviations) ** 2).mean(0))))
    return "\n".join(lines)


def _numbers(figures: Mapping[str, object]) -> np.ndarray:
    """The table's columns, [C, 2]: the first seconds and the last, or the whole and nothing; nan is what is not."""
    pairs = [
        (figures["first"][column], figures["last"][column]) if column in MEASURED_LATE else (figures[column], None)
        for column in COLUMNS
    ]
    return np.array(pairs, float)


def _row(name: str, numbers: np.ma.MaskedArray) -> str:
    cells = [" → ".join(f"{number:.2f}" for number in pair.compressed()) or "–" for pair in numbers]
    return f"| {name} | " + " | ".join(cells) + " |"


def named_variants(names: Sequence[str], config: AvatarConfig) -> dict[str, Preset]:
    """Presets and variants by name; without names all variants. Raises AvatarError for an unknown one."""
    suitable = [name for name in PRESETS if name != "rolling" or config.sampler == "rolling"]
    known = variants(config) | {name: preset(name, config) for name in suitable}
    for name in names:
        if name not in known:
            raise AvatarError(f"There is no setting '{name}' to compare; choose from {', '.join(known)}.")
    return {name: known[name] for name in names} if names else variants(config)
