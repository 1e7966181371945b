"""Pull a stream into a video file that grows block by block."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import InputImpl, io, ui

from ..joyavatar_core.audio import AudioSource
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.monitoring.report import RunReport
from ..joyavatar_core.pipeline.render import output_pixel_size, output_rate, talk
from ..joyavatar_core.refiner import USUAL_MOTION, FaceMotion, PortraitRefiner
from ..joyavatar_core.sampling.run import StreamRun
from ..joyavatar_core.sampling.stream import AvatarStream
from ..joyavatar_core.video import VideoWriter
from ..joyavatar_core.video.h264 import AUTO, ENCODERS, chosen_encoder
from .notes import note, title
from .prefix import DEFAULT, outside, quoted, safe_prefix
from .progress import StreamProgress
from .recording import interval, record, state_folder
from .refine import AUTO as REFINE
from .refine import Refine, later_inputs, refine_inputs
from .report import report_file
from .stream import HostStream
from .types import OUTPUT, Stream, advanced
from .vae import HostDecoder, streaming_vae
from .voice import waveform_of
from .watch import Watch

log = logging.getLogger(__name__)


class JoyAvatarStreamToVideo(io.ComfyNode):
    """Sample, decode and write a stream, one block in memory at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamToVideo",
            display_name="JoyAvatar Stream to Video",
            category=OUTPUT,
            description="Generates the talking video and writes it with its sound to the output folder during "
            "generation. Only one block is in memory, for any length of the voice. An interrupted run leaves a "
            "playable .part.mp4. With a state folder, the run resumes when it is queued again.",
            inputs=[
                Stream.Input("stream", tooltip="From the JoyAvatar Streaming Sampler."),
                io.String.Input(
                    "filename_prefix",
                    default=DEFAULT,
                    tooltip="Name of the file in the output folder. Placeholders such as %date:yyyy-MM-dd% are "
                    "supported.",
                ),
                io.Int.Input(
                    "quality",
                    default=18,
                    min=1,
                    max=51,
                    tooltip="H.264 constant rate factor: 1 gives the best and largest file, 18 is visually lossless, "
                    "51 is smallest.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE that encoded the portrait. The embedded avatar has its own VAE and needs none.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound of the video instead of the driving voice, for example the same voice with music. "
                    "It is trimmed to the length of the picture.",
                ),
                advanced(
                    io.String.Input(
                        "state",
                        default="",
                        optional=True,
                        tooltip="A folder in the output folder for finished segments and the state after them. After "
                        "a crash or a stop, queue the same graph again to resume, with the same seed. Empty: off.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "checkpoint_every",
                        default="",
                        optional=True,
                        tooltip="Interval between states: 40 (blocks), 30s (of video) or 200MB (maximum written per "
                        "minute of video). Empty: 30s, or longer if 30s would write more than 1 GB a minute.",
                    )
                ),
                *refine_inputs(),
                advanced(
                    io.Combo.Input(
                        "encoder",
                        options=list(ENCODERS),
                        default=AUTO,
                        optional=True,
                        tooltip="What encodes the H.264 video: 'nvenc' is the encoder of an NVIDIA GPU, 'x264' runs on "
                        "the processor; from the same frames it makes the same file on every machine. 'auto': nvenc "
                        "where it works, else x264. A state folder begins with x264 and keeps its encoder.",
                    )
                ),
                *later_inputs(),
            ],
            outputs=[io.Video.Output("video", "video", tooltip="The finished file, for native video nodes.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        stream: HostStream,
        filename_prefix: str,
        quality: int,
        vae: object | None = None,
        audio: dict | None = None,
        state: str = "",
        checkpoint_every: str = "",
        refine: str = REFINE,
        blinks: float = USUAL_MOTION.blinks,
        articulation: float = USUAL_MOTION.articulation,
        encoder: str = AUTO,
        head_motion: float = USUAL_MOTION.head_motion,
        fps: int = 0,
    ) -> io.NodeOutput:
        sound = waveform_of(audio) if audio is not None else stream.voice.source
        every, folder = interval(checkpoint_every), state_folder(state)
        decoder = streaming_vae(vae, stream.avatar)
        refining = Refine(stream, refine, FaceMotion(blinks, articulation, head_motion, fps or None))
        chosen_encoder(encoder, *refining.pixel_size)  # raises AvatarError before anything is loaded
        place = OutputFile.claim(filename_prefix, *refining.pixel_size)
        progress = StreamProgress(stream.recipe, cls.hidden.unique_id)
        watch = Watch(stream, progress, refining.pixel_size, refining.rate.fps)
        metadata = tags(cls.hidden, watch.report)
        memory = decoder.working_bytes(stream.pixel_size) + refining.working_bytes
        recipe = stream.prepared(title(cls), progress.on_step, (decoder.patcher, *refining.patchers), memory)
        refiner = refining.begin(decoder)
        if folder is None:
            write(place.path, recipe, decoder, sound, watch, quality, metadata, refiner, encoder)
        else:
            record(folder, every, place.path, recipe, decoder, sound, watch, quality, metadata, refiner, encoder)
        report = watch.report
        report.audio_seconds = min(sound.num_samples / sound.sample_rate, report.frames / report.fps)
        stream.report = report
        try:
            report.to_json(report_file(place.path))
        except AvatarError as problem:  # the video is complete
            log.warning("%s", problem)
        shown = {**ui.PreviewVideo([place.saved()]).as_dict(), **note(watch.summary)}
        return io.NodeOutput(StreamVideo(place.path, report), ui=shown)


def write(
    target: Path,
    recipe: AvatarStream,
    decoder: HostDecoder,
    sound: AudioSource,
    watch: Watch,
    quality: int,
    metadata: dict[str, object],
    refine: PortraitRefiner | None = None,
    encoder: str = AUTO,
) -> None:
    """Make a video in one run. The file of an interrupted run stays beside `target`."""
    width, height = output_pixel_size(recipe, refine)
    writer = VideoWriter(
        target, width, height, output_rate(recipe, refine).fps, sound.sample_rate, sound.channels, crf=quality,
        metadata=metadata, encoder=encoder,
    )  # fmt: skip
    with StreamRun(recipe) as run:
        try:
            with writer:
                talk(run, decoder, writer, sound, watch, refine=refine)
        except BaseException:
            if writer.growing is not None:
                log.warning("stopped after %d frames; what was made plays: %s", writer.frames, writer.growing)
            raise


class StreamVideo(InputImpl.VideoFromFile):
    """The host's VIDEO of a finished file, with the report of its run."""

    def __init__(self, path: Path, report: RunReport) -> None:
        super().__init__(str(path))
        self.report = report


@dataclass(frozen=True)
class OutputFile:
    """A new file below the host's output folder."""

    path: Path
    subfolder: str

    @classmethod
    def claim(cls, prefix: str, width: int, height: int) -> OutputFile:
        """The next free name for a prefix. Raises AvatarError for a prefix that leaves the output folder."""
        prefix = safe_prefix(prefix)
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                prefix, folder_paths.get_output_directory(), width, height
            )
        except OSError as problem:
            raise AvatarError(
                f"{quoted(prefix)} cannot be a file name ({problem.strerror}); change the prefix."
            ) from None
        except Exception:  # the host raises nothing more specific
            raise outside(prefix) from None
        return cls(Path(folder, f"{name}_{counter:05}_.mp4"), subfolder)

    def saved(self) -> ui.SavedResult:
        return ui.SavedResult(self.path.name, self.subfolder, io.FolderType.output)


def tags(hidden: object, report: RunReport) -> dict[str, object]:
    """The file's metadata: the settings, and the workflow as the host's own nodes store it."""
    own = {"joyavatar": {"weights": report.weights, **report.settings}}
    if args.disable_metadata:
        return own
    workflow = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {**own, **{name: json.dumps(value) for name, value in workflow.items() if value is not None}}
