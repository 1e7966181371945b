"""What each mechanism costs per block: seconds relative to `plain`, all variants interleaved in one process.

Blocks are taken after the start (PSB has settled, the memory is full); a second table gives PSB's first blocks.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import numpy as np

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.sampling.mci import MCI_OFF, MciSettings
from joyavatar_core.sampling.presets import Preset
from joyavatar_core.sampling.psb import PSB_OFF, PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.urcr import SLIDING_WINDOW, UrcrSettings

ROTATE = UrcrSettings("rotate", 3, 6, "portrait")
VARIANTS = {
    "plain": Preset(PSB_OFF, MCI_OFF, SLIDING_WINDOW),
    "PSB 8 to 4": Preset(PsbSettings(), MCI_OFF, SLIDING_WINDOW),
    "2 steps": Preset(PsbSettings(steps=(2,)), MCI_OFF, SLIDING_WINDOW),
    "8 steps": Preset(PsbSettings(steps=(8,)), MCI_OFF, SLIDING_WINDOW),
    "MCI inject, 1 frame": Preset(PSB_OFF, MciSettings("inject", 1, 0.25), SLIDING_WINDOW),
    "MCI inject, 3 frames": Preset(PSB_OFF, MciSettings("inject", 3, 0.25), SLIDING_WINDOW),
    "MCI context": Preset(PSB_OFF, MciSettings("context", 3, 0.25), SLIDING_WINDOW),
    "URCR rotate": Preset(PSB_OFF, MCI_OFF, ROTATE),
    "URCR prefill": Preset(PSB_OFF, MCI_OFF, UrcrSettings("prefill", 3, 6, "portrait")),
    "joyavatar (all three)": Preset(PsbSettings(), MciSettings(), ROTATE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10, help="runs of 4 blocks that are timed")
    args = parser.parse_args()
    avatar = load_avatar()
    generator = np.random.default_rng(0)
    voice = ArrayAudio(generator.normal(0, 0.1, 16000 * (60 + 4 * args.cycles)).astype(np.float32), 16000)
    picture = np.full((128, 128, 3), 128, np.uint8)
    runs = {name: StreamRun(avatar.stream(picture, voice, preset)) for name, preset in VARIANTS.items()}

    early = {name: [next(run).seconds for _ in range(8)] for name, run in runs.items()}
    late: dict[str, list[float]] = {name: [] for name in runs}
    for _, (name, run) in itertools.product(range(args.cycles), runs.items()):
        late[name].append(sum(next(run).seconds for _ in range(4)) / 4)
    plain = statistics.median(late["plain"])
    print("| variant | s per block | ratio to plain | first 4 blocks, ratio to plain |\n|---|---|---|---|")
    start = sum(early["plain"][1:5])
    for name, seconds in late.items():
        median = statistics.median(seconds)
        print(f"| {name} | {median:.4f} | {median / plain:.2f} | {sum(early[name][1:5]) / start:.2f} |")


if __name__ == "__main__":
    main()
