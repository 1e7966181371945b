"""State folders of Stream to Video: a stopped or killed run resumes when the same graph is queued again."""

from __future__ import annotations

import logging
from pathlib import Path

import folder_paths

from ..joyavatar_core.audio import AudioSource
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.monitoring.report import clock_text
from ..joyavatar_core.recording import DEFAULT_INTERVAL, Interval, Recording
from ..joyavatar_core.refiner import PortraitRefiner
from ..joyavatar_core.sampling.stream import AvatarStream, LatentBlock
from ..joyavatar_core.vae import Decoder
from ..joyavatar_core.video.h264 import AUTO
from .prefix import quoted
from .watch import Watch

log = logging.getLogger(__name__)

REPORT = "report.json"  # in a state folder, beside what the recording itself keeps there


def state_folder(name: str) -> Path | None:
    """The folder for `name` below the host's output folder, None for an empty name; its parents are made.

    Raises AvatarError for a name that leads out of the output folder, also through links.
    """
    if not name.strip():
        return None
    output = Path(folder_paths.get_output_directory()).resolve()
    try:
        folder = (output / name.strip()).resolve()
        inside = output in folder.parents
        if inside:
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise AvatarError(f"The state folder {quoted(name)} cannot be used ({reason}); give another name.") from None
    if not inside:
        raise AvatarError(
            f"The state folder {quoted(name)} leads out of the output folder; give a name or a folder below it."
        )
    return folder


def interval(text: str) -> Interval:
    """How often a state is written: as the command line's --checkpoint-every, empty for its default."""
    return Interval.parse(text) if text.strip() else DEFAULT_INTERVAL


def record(
    folder: Path,
    every: Interval,
    target: Path,
    recipe: AvatarStream,
    decoder: Decoder,
    sound: AudioSource,
    watch: Watch,
    quality: int,
    metadata: dict[str, object],
    refine: PortraitRefiner | None = None,
    encoder: str = AUTO,
) -> None:
    """Make a video in a state folder, from the beginning or from an earlier run's state, and join it to `target`."""
    with Recording(
        folder, recipe, decoder, sound, every=every, crf=quality, resume=True, metadata=metadata, refine=refine,
        encoder=encoder,
    ) as made:  # fmt: skip
        log.info(
            "every %d blocks a segment and a state of up to %.1f MB in %s", made.every, made.state_bytes / 1e6, folder
        )
        if made.blocks:
            watch.go_on(made, folder / REPORT)

        def on_block(block: LatentBlock, frames: object) -> None:
            watch(block, frames)
            if (block.index + 1) % made.every == 0:  # a resume ignores blocks after its state
                watch.report.to_json(folder / REPORT)

        try:
            made.record(on_block)
        except BaseException:
            reached = clock_text(made.frames / float(watch.report.fps))
            watch.progress.tell(f"stopped; queue it again with the state folder '{folder.name}' to resume at {reached}")
            log.warning(
                "stopped; the finished segments in %s are playable; queue it again to resume at %s", folder, reached
            )
            raise
        watch.report.to_json(folder / REPORT)
        made.join(target)
