"""One video to make: the options, the voice and the loaded avatar, brought together as a stream."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AvatarError
from ..monitoring.report import RunReport
from ..paths import existing_file
from ..sampling.stream import AvatarStream
from .options import VideoOptions

if TYPE_CHECKING:
    from ..audio import AudioSource
    from ..pipeline.avatar import Avatar
    from ..refiner import FrameRate, PortraitRefiner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a command makes a video of, loaded and checked.

    size: (width, height) in pixels of the video. rate: its frame rate.
    """

    avatar: Avatar
    voice: AudioSource
    stream: AvatarStream
    size: tuple[int, int]
    rate: FrameRate
    refine: PortraitRefiner | None
    report: RunReport
    metadata: dict[str, object]

    @property
    def num_frames(self) -> int | None:
        """Frames of the video; None where its end is not known."""
        frames = self.stream.num_video_frames
        return None if frames is None else self.rate.shown(range(frames)).stop


def prepare(options: VideoOptions, voice: AudioSource, avatar: Avatar) -> Job:
    """The stream that the options describe. Raises AvatarError for what the avatar cannot do.

    voice: what `options.check` returned. avatar: what `options.avatar` loads; it may serve many jobs.
    """
    from ..pipeline.avatar import load_prompt
    from ..pipeline.refinement import default_refine
    from ..pipeline.render import output_pixel_size, output_rate

    config = avatar.config
    settings = options.settings(config)
    width, height = options.size or avatar.pixel_size()
    text = load_prompt(options.prompt_embeds, config) if options.prompt_embeds else None
    video_frames = None if options.seconds is None else max(1, round(options.seconds * config.fps))
    framed = None
    if config.has_reference:
        portrait = existing_file(options.portrait)
        framed = avatar.frame(portrait, (width, height), options.crop, options.background)
    stream = avatar.stream(
        framed, voice, settings, pixel_size=(width, height), text=text, seed=options.seed,
        video_frames=video_frames,
        kv_dtype=options.kv_dtype, graphs=options.cuda_graphs,
    )  # fmt: skip
    refine = avatar.refine(stream, options.refine or default_refine(avatar, options.live), options.face_motion())
    avatar.check_memory(stream, refine)
    (width, height), rate = output_pixel_size(stream, refine), output_rate(stream, refine)
    facts = {
        "preset": options.preset, "seed": options.seed, "width": width, "height": height,
        "refined": refine is not None, **asdict(settings),
    }  # fmt: skip
    report = RunReport(rate.fps, avatar.name, config.trained, facts)
    if framed is not None:
        report.more["portrait"] = framed.crop.summary()
    metadata = {"title": options.title, "joyavatar": {"weights": avatar.name, **facts}}
    return Job(avatar, voice, stream, (width, height), rate, refine, report, metadata)


def save_report(options: VideoOptions, job: Job) -> None:
    """Write the report and the plot of a run or of its part so far; a failure is logged and the video stays."""
    from ..monitoring.report_plot import save_plot

    report, voice = job.report, job.voice
    heard = voice.available if voice.num_samples is None else voice.num_samples
    report.audio_seconds = min(heard / voice.sample_rate, report.frames / float(report.fps))
    written = ((options.report, report.to_json), (options.plot, lambda path: save_plot(report.summary(), path)))
    for path, save in written:
        try:
            if path:
                save(Path(path).expanduser())
        except (AvatarError, ValueError) as problem:
            log.error("%s", problem)
