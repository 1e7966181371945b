"""Pull a stream into a batch of images, or into one latent."""

from __future__ import annotations

import logging
from contextlib import closing
from itertools import pairwise

import comfy.model_management as mm
import torch
from comfy_api.latest import io
from torch import Tensor

from ..joyavatar_core.audio import num_blocks
from ..joyavatar_core.errors import AvatarError
from ..joyavatar_core.geometry import to_video_frames
from ..joyavatar_core.pipeline.render import frames_of
from ..joyavatar_core.refiner import USUAL_MOTION, FaceMotion
from .notes import note, show_text, title
from .progress import StreamProgress
from .refine import AUTO, Refine, later_inputs, refine_inputs
from .stream import HostStream
from .types import OUTPUT, Stream
from .vae import streaming_vae, to_host
from .watch import Watch

log = logging.getLogger(__name__)

LARGE = 2**30  # bytes of frames above which a warning is logged

ONE_BATCH, BY_RESET, BY_COUNT = "one batch", "by reset", "by count"


class JoyAvatarStreamToFrames(io.ComfyNode):
    """All frames of a stream as images, with their rate and the sound that belongs to them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamToFrames",
            display_name="JoyAvatar Stream to Frames",
            category=OUTPUT,
            description="Decodes a stream to images for native image nodes. All frames are kept in memory; the node "
            "shows the amount before it starts. For long videos use JoyAvatar Stream to Video.",
            inputs=[
                Stream.Input("stream", tooltip="From the JoyAvatar Streaming Sampler."),
                io.Combo.Input(
                    "batching",
                    options=[ONE_BATCH, BY_RESET, BY_COUNT],
                    default=ONE_BATCH,
                    tooltip="'one batch': all frames in one batch. 'by reset': a new batch at every URCR reset. 'by "
                    "count': batches of `count` frames. With several batches, the nodes after this one run once per "
                    "batch. The pictures are the same and seamless in every mode.",
                ),
                io.Int.Input(
                    "count",
                    default=64,
                    min=1,
                    max=1000000,
                    tooltip="Frames per batch with 'by count'. The last batch may be shorter.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE that encoded the portrait. The embedded avatar has its own VAE and needs none.",
                ),
                *refine_inputs(),
                *later_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    "images", "images", is_output_list=True, tooltip="The frames, in one or several batches."
                ),
                io.Float.Output("fps", "fps", tooltip="Frames per second, for Create Video."),
                io.Audio.Output(
                    "audio",
                    "audio",
                    is_output_list=True,
                    tooltip="The driving voice, trimmed to the frames of each batch.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        stream: HostStream,
        batching: str,
        count: int,
        vae: object | None = None,
        refine: str = AUTO,
        blinks: float = USUAL_MOTION.blinks,
        articulation: float = USUAL_MOTION.articulation,
        head_motion: float = USUAL_MOTION.head_motion,
        fps: int = 0,
    ) -> io.NodeOutput:
        refining = Refine(stream, refine, FaceMotion(blinks, articulation, head_motion, fps or None))
        (width, height), rate = refining.pixel_size, refining.rate
        total = rate.shown(range(stream.recipe.num_video_frames)).stop
        announce(cls, total * height * width * 3 * 4, f"{total} frames of {width}x{height}")
        decoder = streaming_vae(vae, stream.avatar)
        images = torch.empty(total, height, width, 3)  # filled block by block: no second copy at the end
        starts = [0]
        progress = StreamProgress(stream.recipe, cls.hidden.unique_id)
        watch = Watch(stream, progress, refining.pixel_size, rate.fps)
        memory = decoder.working_bytes(stream.pixel_size) + refining.working_bytes
        patchers = (decoder.patcher, *refining.patchers)
        with stream.running(title(cls), progress.on_step, patchers, memory) as run:
            refiner = refining.begin(decoder)
            with closing(frames_of(run, decoder, refine=refiner, convert=to_images)) as made:
                for block, frames in made:
                    first = watch.report.frames
                    images[first : first + len(frames)] = frames
                    if block.reset:
                        starts.append(first)
                    watch(block, frames.mul(255).round().byte())
        stream.report = watch.report
        batches = cut(total, batching, count, starts)
        sound = [trimmed(stream, frames, rate.fps) for frames in batches]
        shown = note(watch.summary)
        return io.NodeOutput(
            [images[frames.start : frames.stop] for frames in batches], float(rate.fps), sound, ui=shown
        )


def to_images(video: Tensor) -> Tensor:
    """Decoded video [3, N, H, W] in [-1, 1] as the host's IMAGE, float32 [N, H, W, 3] in 0 ... 1."""
    return video.float().permute(1, 2, 3, 0).add(1).div(2).clamp(0, 1)


def cut(total: int, batching: str, count: int, resets: list[int]) -> list[range]:
    """The frames of each batch; `resets` are the first frames of the blocks that begin one, 0 included."""
    starts = {ONE_BATCH: [0], BY_RESET: resets, BY_COUNT: list(range(0, total, count))}[batching]
    return [range(*ends) for ends in pairwise([*starts, total])]


def trimmed(stream: HostStream, frames: range, fps: int) -> dict:
    """The driving voice that belongs to some frames at `fps`, as the host's AUDIO."""
    source = stream.voice.source
    start, stop = source.samples_of(frames, fps)
    samples = source.read_native(start, max(stop, start + 1))  # [S, channels]; the host cannot encode an empty sound
    return {"waveform": torch.from_numpy(samples.T.copy())[None], "sample_rate": source.sample_rate}


def announce(cls: type[io.ComfyNode], nbytes: int, what: str) -> None:
    """Show the memory of the result before the work starts. Raises AvatarError for more than the machine has."""
    text, total = f"{what} take {nbytes / 2**20:,.0f} MiB of memory", mm.get_total_memory(torch.device("cpu"))
    if nbytes > total:
        raise AvatarError(
            f"{text}, and this machine has {total / 2**20:,.0f} MiB; use JoyAvatar Stream to Video, or lower "
            "max_seconds."
        )
    show_text(cls.hidden.unique_id, text)
    if nbytes > LARGE:
        log.warning("%s: %s; JoyAvatar Stream to Video needs one block whatever the length", title(cls), text)


class JoyAvatarStreamToLatent(io.ComfyNode):
    """All latents of a stream as one LATENT for the native VAE Decode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyAvatarStreamToLatent",
            display_name="JoyAvatar Stream to Latent",
            category=OUTPUT,
            description="Collects a stream's latents, as ComfyUI's VAE nodes use them. The last block is always "
            "complete, so the decoded frames may exceed the voice by up to a block. The node shows how many frames to "
            "keep.",
            inputs=[Stream.Input("stream", tooltip="From the JoyAvatar Streaming Sampler.")],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Latent.Output("latent", "latent", tooltip="[1, 16, frames, h, w], for VAE Decode and latent nodes.")
            ],
        )

    @classmethod
    def execute(cls, stream: HostStream) -> io.NodeOutput:
        config, kept = stream.avatar.config, stream.recipe.num_video_frames
        width, height = stream.recipe.latent_size
        blocks_made = num_blocks(kept, config.block_frames, config.lead_frames)
        latents = config.lead_frames + config.block_frames * blocks_made
        announce(cls, latents * height * width * config.out_channels * 4, f"{latents} latent frames")
        report = stream.new_report()
        progress = StreamProgress(stream.recipe, cls.hidden.unique_id)
        blocks = []
        with stream.running(title(cls), progress.on_step) as run:
            for block in run:
                blocks.append(block.latents.to(mm.intermediate_device(), torch.float32))
                report.add(block, block.num_video_frames)
                progress.block_done(block.index)
        stream.report = report
        text = f"decodes to {to_video_frames(latents)} frames; the voice ends with frame {kept}: keep the first {kept}"
        samples = to_host(torch.cat(blocks, dim=2), config)
        return io.NodeOutput({"samples": samples}, ui=note(text))
