"""The latent flow's training data: streams of the avatar, and the flow that the refiner finds in their decoded frames.

Each stream shows another person, drawn or rendered, who speaks with a voice of the training data.
"""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import ArrayAudio
from ..errors import AvatarError
from ..evaluation.stream_pictures import as_pictures
from ..paths import replacing
from ..pipeline.avatar import Avatar
from ..recording.fingerprint import module_fingerprint, tensors_fingerprint
from ..refiner import PortraitRefiner
from ..sampling.presets import preset
from ..sampling.run import StreamRun
from ..synthetic.clips import SAMPLE_RATE, figure_of, make_script
from ..synthetic.dataset import DESCRIPTION, clip_path
from ..synthetic.moment import Moment
from ..video.portrait import to_uint8
from .refiner_augment import Random, recolour, shift

FIRST_SEED = 12000
PORTRAIT_SIDE = 256  # pixels
SECONDS = 9.0  # of a stream
SIDE = 32  # of the stored flows
RECIPE = 1  # raise it whenever streams hold something else
PRESETS = ("checkpoint", "checkpoint", "joyavatar")  # one of them makes a stream

_avatar: Avatar | None = None  # of a worker process


class MovedLatents(NamedTuple):
    """A stream: latents [F, 16, h, w] float16, the portrait's first; flow [T, 2, SIDE, SIDE] float16, T = 4 F - 3, of
    `RefinerNet` for its frames; face [2, SIDE, SIDE] float16: where the portrait has its face, and the part of it that
    speech does not move.
    """

    latents: Tensor
    flow: Tensor
    face: Tensor


@torch.no_grad()
def moved_latents(avatar: Avatar, seed: int, split: str, people: str) -> MovedLatents | None:
    """The stream of one person; None where no face is found in the portrait."""
    script = make_script(seed, split, SECONDS, people)
    random = Random(torch.Generator().manual_seed(zlib.crc32(f"{seed} {split} {people}".encode())))
    moment = script.portraits[random.below(len(script.portraits))]
    drawn, _ = figure_of(script.character, PORTRAIT_SIDE).draw(Moment(*moment))
    (portrait,) = shift(recolour(as_pictures(drawn[None]), random), random)
    framed = avatar.frame(to_uint8(portrait[:, None])[0].numpy(), crop="face" if random.chance(0.7) else "centre")
    voice = ArrayAudio(script.waveform, SAMPLE_RATE)
    chosen = preset(PRESETS[random.below(len(PRESETS))], avatar.config)
    stream = avatar.stream(framed, voice, chosen, seed=random.below(1 << 31))
    refine = avatar.refine(stream)
    if refine.face is None:
        return None
    decoder, latents, flows = avatar.decoder, [], []
    cache = decoder.new_cache()
    for block in StreamRun(stream):
        video = decoder.decode(block.latents.to(decoder.compute_device, decoder.compute_dtype), cache)[0]
        latents.append(block.latents[0].movedim(1, 0).half())
        flows.append(flow_of(refine, video))
    maps = F.interpolate(torch.cat([refine.face.region, refine.face.still]).squeeze(1)[None], (SIDE, SIDE), mode="area")
    return MovedLatents(torch.cat(latents), torch.cat(flows), maps[0].half())


def flow_of(refine: PortraitRefiner, video: Tensor) -> Tensor:
    """The refiner's flow for decoded frames [3, T, h, w], [T, 2, SIDE, SIDE] float16."""
    parts = [refine.decoded_flow(frames) for frames in video.movedim(1, 0).float().split(4)]
    return F.interpolate(torch.cat(parts), (SIDE, SIDE), mode="area").half()


def write_streams(folder: Path, people: int, load: Callable[[], Avatar], workers: int = 2) -> list[Path]:
    """Streams of so many people, three of four rendered, in files; returns the paths of those with a face.

    load: gives the avatar, in each of the processes. Streams that exist are skipped. Raises AvatarError where people
    cannot be rendered, for an avatar without a face editor, and for a folder with streams of another avatar.
    """
    from tqdm import tqdm

    from ..synthetic.rendered.studio import check_rendering

    check_rendering()
    avatar, note = load(), folder / DESCRIPTION
    if avatar.refiner is None or avatar.refiner.editor is None:
        raise AvatarError(f"The avatar '{avatar.name}' has no refiner with a face editor; train them first.")
    made_by = {name: module_fingerprint(getattr(avatar, name)) for name in ("transformer", "vae", "decoder", "encoder")}
    weights = avatar.refiner.state_dict().items()
    found_by = tensors_fingerprint((name, x) for name, x in weights if not name.startswith("latent_flow."))
    made_by |= {"refiner": found_by, "recipe": RECIPE}
    folder.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        note.write_text(json.dumps(made_by))
    elif json.loads(note.read_text()) != made_by:
        raise AvatarError(f"'{folder}' was made with another avatar or version; delete it to make the streams anew.")
    seeds = range(FIRST_SEED, FIRST_SEED + people)
    wanted = [(seed, "train", "rendered" if seed % 4 else "drawn") for seed in seeds]
    paths = [clip_path(folder, *one) for one in wanted]
    missing = [(*one, path) for one, path in zip(wanted, paths, strict=True) if not path.exists()]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (load,)) as pool:
        for made in tqdm(as_completed([pool.submit(_write, *one) for one in missing]), "streams", len(missing)):
            made.result()
    made = [path for path in paths if path.stat().st_size]
    if not made:
        raise AvatarError(f"No face was found in the portraits of {people} people; give more people.")
    return made


def _begin(load: Callable[[], Avatar]) -> None:
    """Of a worker process."""
    global _avatar
    torch.set_num_threads(1)
    _avatar = load()


def _write(seed: int, split: str, people: str, path: Path) -> None:
    """An empty file stands for a portrait in which no face is found."""
    from safetensors.torch import save_file

    made = moved_latents(_avatar, seed, split, people)
    with replacing(path, shared=True) as unfinished:
        if made is not None:
            save_file({name: part.contiguous() for name, part in made._asdict().items()}, unfinished)
        else:
            Path(unfinished).touch()
