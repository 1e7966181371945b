"""Refines the frames of one portrait.

Each depends on itself or on the latents of its block and the one before, its visemes, the voice of the last 0.7 s, a
seed and its number alone, so streams resume.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import quick_dtype, to_device
from ..errors import AvatarError
from ..framing.find_face import find_face
from ..geometry import PIXELS_PER_CELL, VIDEO_FRAMES_PER_LATENT, Size
from ..weights import load_frozen
from .eye_movements import EyeMovements
from .face_editor import EYES_SIZE, MOUTH_SIZE, FaceEditorNet, expression_of, less_round, scaled_mouth
from .face_motion import USUAL_MOTION, FaceMotion
from .frame_rate import FrameRate, at_moments, chosen_rate
from .head_movements import HeadMovements, HeadPose
from .head_turn import HeadTurn
from .latent_flow import CELLS, LatentFlowNet, between
from .model import SCALE, SHARPER, Prediction, RefinerNet, blended, resized, sharpened, viseme_condition, warp
from .portrait_face import PortraitFace
from .still_background import StillBackground

if TYPE_CHECKING:
    from ..sampling.stream import AvatarStream, LatentBlock
    from ..vae import Decoder

log = logging.getLogger(__name__)

ARTICULATION = 1.3  # factor of the visemes: their encoder predicts movements that are too small
WITHOUT_EDITOR = 1.5  # factor of the visemes where no face is edited: the refiner moves the lips too little
# Size of the portrait that is warped, as a multiple of the refined frame's.
FINER = 1.6  # of a portrait with that much detail; more would alias
ENLARGED = 2.0  # of any other portrait, which is enlarged
LOUD = MOUTH_SIZE  # column of the voice's loudness in the viseme features
HELD_GAZE = 2.8  # the gaze moves against the head, so that the eyes stay on what they look at
AT_ONCE = 4  # frames refined together: more do not run quicker and take memory
# Bytes for each pixel of a frame that is being drawn (measured on a CPU with four frames together), and of one that
# was: as float32, and two copies of that while it becomes uint8.
DRAWING, SHOWN = 135, 36


class PortraitRefiner:
    """Refines the frames of one stream.

    net: on its device, in float32. portrait: [3, H, W] in [-1, 1], as large as `carried_size` says.
    round_trip: [3, h, w], the portrait through the autoencoder, of the frames' size. pixel_size: (width, height) of
    what comes out. uses_visemes: whether the stream's features are visemes. eyes: their movements, such as an
    `EyeMovements`; None: they stay as in the portrait. articulation: as in `FaceMotion`. head: its movements
    on top of the frames' own; None: there are none. reference: [1, 16, 1, h, w], the portrait's latent; with it, and
    with CELLS by CELLS cells, the latents of a block move the head, and the block need not be decoded. rate: of the
    frames that `block` gives; None: the stream's. Where the refiner `draws_from_latents`, `eyes` and `head` have its
    `fps`, otherwise the stream's.
    """

    def __init__(
        self,
        net: RefinerNet,
        portrait: Tensor,
        round_trip: Tensor,
        pixel_size: Size,
        uses_visemes: bool = True,
        eyes: Callable[[int, int], Tensor] | None = None,
        articulation: float = FaceMotion.articulation,
        head: HeadMovements | None = None,
        reference: Tensor | None = None,
        rate: FrameRate | None = None,
    ) -> None:
        device = next(net.parameters()).device
        self.net, self.pixel_size, self.uses_visemes = net, pixel_size, uses_visemes
        self.eyes, self.articulation, self.head, self.rate = eyes, articulation, head, rate
        self.portrait = portrait
        fits = reference is not None and net.latent_flow is not None and reference.shape[-2:] == (CELLS, CELLS)
        self.reference = reference[0].movedim(1, 0).to(device, torch.float32) if fits else None
        self.round_trip = round_trip.to(device, torch.float32)[None]
        picture = portrait.to(device, torch.float32)[None]
        predicted = [SCALE * side for side in round_trip.shape[-2:]]
        self._seen = resized(picture, predicted).clamp(-1, 1)  # by the network
        self._shape = tuple(max(pair) for pair in zip(predicted, pixel_size[::-1], strict=True))
        # What is moved has more pixels than what is shown: interpolation between near ones softens little.
        sides = zip(self._shape, picture.shape[-2:], strict=True)
        fine = all(FINER * shown <= given for shown, given in sides)
        larger = [round((FINER if fine else ENLARGED) * shown) for shown in self._shape]
        finer = resized(picture, larger).clamp(-1, 1)
        self._moved = finer if fine else sharpened(finer, SHARPER).clamp(-1, 1)
        self.crop = crop = None if net.editor is None else find_face(portrait)
        self._face = None
        if crop is not None:
            self._face = PortraitFace(net.editor, self._moved, crop.within(portrait, finer), seen=finer)
        self._turn = None if crop is None else HeadTurn(crop, picture)
        self._still = None if crop is None else StillBackground(portrait, crop, device, self.head_motion)

    @classmethod
    def of(
        cls,
        net: RefinerNet,
        stream: AvatarStream,
        decoder: Decoder,
        pixel_size: Size,
        motion: FaceMotion = USUAL_MOTION,
    ) -> PortraitRefiner:
        """For a stream that carries its portrait; `decoder` shows what the autoencoder makes of it.

        Raises AvatarError for a stream without a portrait's picture, and for a frame rate that cannot be.
        """
        if stream.portrait is None or stream.reference is None:
            raise AvatarError("The stream carries no portrait to refine its frames with; refine nothing, or give one.")
        if pixel_size[0] > stream.portrait.shape[-1]:
            log.warning(
                "the frames are %d pixels wide, and the portrait has detail for at most %d; choose a larger "
                "portrait, or a smaller refined size", pixel_size[0], stream.portrait.shape[-1],
            )  # fmt: skip
        seed, fps = stream.seed, stream.config.fps
        rate = chosen_rate(fps, motion.fps, refined=True)
        with torch.no_grad():
            refiner = cls(
                net, stream.portrait, decode_still(decoder, stream.reference), pixel_size,
                uses_visemes=stream.config.audio_features == "visemes",
                eyes=EyeMovements(seed, fps, motion.blinks), articulation=motion.articulation,
                head=HeadMovements(seed, fps, motion.head_motion) if motion.head_motion else None,
                reference=stream.reference, rate=rate,
            )  # fmt: skip
        if refiner.draws_from_latents:  # each frame has its own moment
            refiner.eyes = replace(refiner.eyes, fps=rate.fps)
            refiner.head = refiner.head and replace(refiner.head, fps=rate.fps)
        elif rate.changes:
            log.warning(
                "the stream's frames are repeated for %d frames per second; only a face that is found in a stream of "
                "%d x %d pixels is drawn for each frame", rate.fps, *2 * [PIXELS_PER_CELL * CELLS],
            )  # fmt: skip
        return refiner

    @property
    def face(self) -> PortraitFace | None:
        """The portrait's face; None where none was found or nothing edits faces."""
        return self._face

    @property
    def blinks(self) -> float | None:
        """Mean number of blinks in a minute; None if the eyes' movements are not an `EyeMovements`."""
        return self.eyes.blinks if isinstance(self.eyes, EyeMovements) else None

    @property
    def head_motion(self) -> float:
        """Factor of the head's and the brows' movements, 0 without any."""
        return 0.0 if self.head is None else self.head.size

    @property
    def draws_from_latents(self) -> bool:
        """Whether no decoded frames are needed: all pixels are the portrait's, and the latents move the head."""
        return self.reference is not None and self._face is not None and self.uses_visemes

    @torch.no_grad()
    def __call__(
        self, video: Tensor, features: Tensor | None = None, first_frame: int = 0, before: Tensor | None = None
    ) -> Tensor:
        """Decoded frames [3, T, h, w] in [-1, 1] -> refined frames [3, T, H, W], on the same device, in float32.

        features: the audio features of each frame, [T, audio_dim]. If they are visemes, they shape the lips. Otherwise
        lips and eyes stay as decoded, and neither head nor brows follow the voice. first_frame: number of the first
        frame in its stream, for eyes and head. before: the features of earlier frames, [n, audio_dim], best of 0.7 s;
        nods begin there.
        """
        device, count = self.round_trip.device, video.shape[1]
        frames = video.movedim(1, 0).to(device, torch.float32)
        heard = self._heard(features)
        if self._face is not None and heard is not None:
            flow = torch.cat([self.decoded_flow(part) for part in frames.split(AT_ONCE)])
            refined = self._edited(flow, heard, first_frame, before)
        else:
            poses, _ = self._head_and_brows(first_frame, count, heard, before)
            told = viseme_condition(None if heard is None else self.articulation * heard, count)
            told[:, 1:] *= WITHOUT_EDITOR
            parts = (frames, to_device(told, device), to_device(poses, device))
            parts = zip(*(x.split(AT_ONCE) for x in parts), strict=True)
            refined = torch.cat([self._refine(*part) for part in parts])
        return refined.movedim(0, 1).to(video.device)

    @torch.no_grad()
    def block(self, block: LatentBlock, video: Tensor | None = None) -> Tensor:
        """A block's frames at the refiner's `rate`, refined, [3, T, H, W], as in a call.

        video: its decoded frames [3, T, h, w] in [-1, 1]. Where the refiner `draws_from_latents` it is not used, the
        mouth is at rest in a block without a voice, and every frame is drawn for its own moment. Elsewhere the stream's
        frames are repeated for a higher rate.
        """
        frames, more = range(block.first_frame, block.last_frame + 1), self.rate is not None and self.rate.changes
        shown = self.rate.shown(frames) if more else frames
        if not self.draws_from_latents:
            refined = self(video, block.features, block.first_frame, block.features_before)
            if more:
                repeated = self.rate.moments(shown, frames.start).ceil().long()
                refined = refined.index_select(1, to_device(repeated, refined.device))
            return refined
        heard, before = block.features, block.features_before
        if heard is None:
            heard, before = F.pad(scaled_mouth(torch.zeros(len(frames), MOUTH_SIZE)), (0, 1)), None
        flow = self._latent_flow(block)
        if more:
            flow = at_moments(flow, self.rate.moments(shown, frames.start - 1))
            heard, before = self._heard_at(shown, frames.start, heard, before)
        else:
            flow = flow[1:]
        sides = [side // 2 for side in self.round_trip.shape[-2:]]
        flow = F.interpolate(flow, sides, mode="bilinear", align_corners=False)
        return self._edited(flow, heard, shown.start, before).movedim(0, 1)

    def decoded_flow(self, frames: Tensor) -> Tensor:
        """How decoded frames [B, 3, h, w] have moved from the portrait, [B, 2, h / 2, w / 2] in halves of the side."""
        with quick_arithmetic(frames.device.type):
            return self.net.flow(frames, self.round_trip, self._seen)

    def _latent_flow(self, block: LatentBlock) -> Tensor:
        """How the frame before a block and the block's frames have moved from the portrait, [1 + T, 2, h, w].

        In halves of the side, on the latent flow's own grid.
        """
        latents = block.latents if block.latents_before is None else torch.cat([block.latents_before, block.latents], 2)
        latents = latents[0].movedim(1, 0).to(self.reference)
        flow = self.net.latent_flow(latents, self.reference.expand_as(latents))
        if not block.first_frame:  # the first latent of a stream is one frame, the portrait
            still = 0 * flow[:1]
            flow = torch.cat([still, still, between(torch.cat([still, flow[1:]]))])
        else:
            flow = flow if block.latents_before is not None else torch.cat([flow[:1], flow])
            flow = torch.cat([flow[:1], between(flow)])
        return flow[: 1 + block.num_video_frames]

    def _heard_at(
        self, shown: range, first_frame: int, heard: Tensor, before: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features of the frames `shown`, and those of frames before them, from the features of the stream's.

        first_frame: the stream's frame that `heard` begins with.
        """
        if before is None or not len(before):
            return at_moments(heard, self.rate.moments(shown, first_frame)), None
        known = torch.cat([before, heard])
        begin = self.rate.shown(range(first_frame - len(before), first_frame))
        return tuple(at_moments(known, self.rate.moments(part, first_frame - len(before))) for part in (shown, begin))

    def _heard(self, features: Tensor | None) -> Tensor | None:
        """The visemes among the audio features; None where there are none."""
        return features if self.uses_visemes else None

    def _edited(self, flow: Tensor, heard: Tensor, first_frame: int, before: Tensor | None) -> Tensor:
        """Frames with edited faces, [T, 3, H, W]. The flow [T, 2, h, w] moves the head.

        All pixels are the edited portrait's, because those of decoded frames are smeared.
        """
        count = len(flow)
        poses, brows = self._head_and_brows(first_frame, count, heard, before)
        eyes = self.eyes(first_frame, count) if self.eyes else torch.zeros(count, EYES_SIZE)
        eyes = eyes + F.pad(HELD_GAZE * poses[:, 3:] * torch.tensor([-1, 1]), (1, 0))
        mouth = less_round(ARTICULATION * self.articulation * heard[:, :MOUTH_SIZE])
        parts = (flow, to_device(expression_of(mouth, eyes, brows), flow.device), to_device(poses, flow.device))
        made = flow.new_empty(count, 3, *self.pixel_size[::-1])
        for frames, *part in zip(*(x.split(AT_ONCE) for x in (made, *parts)), strict=True):
            frames.copy_(self._shown(*part))
        return made

    def _shown(self, flow: Tensor, expressions: Tensor, poses: Tensor) -> Tensor:
        with quick_arithmetic(flow.device.type):
            edit = self._face.edit(expressions)
        flow = self._face.moved_as_one(flow)
        flow = flow if self.head is None else self._turn.flow(flow, poses)
        flow = self._still(flow)
        return self._finished(self._face.shown(edit, expressions, flow, self._shape))

    def _head_and_brows(
        self, first_frame: int, count: int, heard: Tensor | None, before: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Poses of the head [count, 5], in the columns of `HeadPose`, and how far the brows are raised, [count].

        heard: the visemes of the frames, [count, audio_dim], and `before` those of earlier ones; None: unknown.
        """
        if self.head is None:
            return torch.zeros(count, len(HeadPose._fields)), torch.zeros(count)
        if heard is None:
            return self.head(first_frame, count), torch.zeros(count)
        loud = (heard if before is None else torch.cat([before, heard]))[:, LOUD]
        return self.head(first_frame, count, loud), self.head.brows(first_frame, count, loud)

    def _refine(self, frames: Tensor, condition: Tensor, poses: Tensor) -> Tensor:
        with quick_arithmetic(frames.device.type):
            predicted = self.net(frames, self.round_trip, self._seen, condition)
        predicted, frames = self._turned(predicted, frames, poses)
        portraits = warp(self._moved.expand(len(frames), -1, -1, -1), predicted.flow, self._shape)
        return self._finished(blended(frames, portraits, predicted))

    def _turned(self, predicted: Prediction, frames: Tensor, poses: Tensor) -> tuple[Prediction, Tensor]:
        if self.head is None or self._turn is None:
            return predicted, frames
        return self._turn(predicted, frames, poses)

    def _finished(self, pictures: Tensor) -> Tensor:
        width, height = self.pixel_size
        if pictures.shape[-2:] == (height, width):
            return pictures
        return resized(pictures, (height, width)).clamp_(-1, 1)


def decode_still(decoder: Decoder, latent: Tensor) -> Tensor:
    """One normalised latent [1, 16, 1, h, w] as a picture [3, 8h, 8w] in [-1, 1]."""
    latent = latent.to(decoder.compute_device, decoder.compute_dtype)
    return decoder.decode(latent, decoder.new_cache())[0, :, 0].float()


def refining_bytes(pixel_size: Size, block_frames: int, rate: FrameRate) -> int:
    """Bytes that refining a block of so many latent frames takes on a GPU, besides the networks.

    pixel_size: (width, height) of what comes out.
    """
    width, height = pixel_size
    frames = math.ceil(VIDEO_FRAMES_PER_LATENT * block_frames * rate.fps / rate.stream_fps)
    return width * height * (DRAWING * min(frames, AT_ONCE) + SHOWN * frames)


def quick_arithmetic(device: str) -> torch.autocast:
    """Autocast to `quick_dtype`, where there is one."""
    quick = quick_dtype(device)
    return torch.autocast(device, quick or torch.bfloat16, enabled=quick is not None)


def load_refiner(
    path: str | Path, editor: str | Path | None = None, latent_flow: str | Path | None = None
) -> RefinerNet:
    """A refiner from a safetensors file, in float32, and its face editor and its latent flow, where there are files.

    Raises AvatarError for any other files.
    """
    net = load_frozen(RefinerNet(), path, "portrait refiner")
    if editor is not None:
        net.editor = load_frozen(FaceEditorNet(), editor, "face editor")
    if latent_flow is not None:
        net.latent_flow = load_frozen(LatentFlowNet(), latent_flow, "latent flow")
    return net.to(memory_format=torch.channels_last)
