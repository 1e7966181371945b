"""JOYAVATAR_STREAM: the recipe of a stream with the host's model behind it, and how a node pulls it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher

from ..joyavatar_core.audio import AudioSource, Features
from ..joyavatar_core.geometry import Size
from ..joyavatar_core.monitoring.report import RunReport
from ..joyavatar_core.sampling.run import StreamRun
from ..joyavatar_core.sampling.stream import AvatarStream, OnStep
from .model import HostAvatar, avatar_of
from .vae import load_together

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class HostVoice:
    """JOYAVATAR_AUDIO: the waveform, its lazy features (None: the checkpoint has no audio), and their model if any."""

    source: AudioSource
    features: Features | None
    encoder: ModelPatcher | None = None


@dataclass(eq=False)
class HostStream:
    """A stream as it travels through a graph: any number of nodes may pull it, each from its beginning.

    `report` is that of the newest completed run.
    """

    recipe: AvatarStream
    model: ModelPatcher
    voice: HostVoice
    settings: dict[str, object]  # preset, seed and mechanisms, for reports and metadata
    report: RunReport | None = None
    pulled_by: list[str] = field(default_factory=list)

    @property
    def avatar(self) -> HostAvatar:
        return avatar_of(self.model)

    @property
    def fps(self) -> int:
        return self.avatar.config.fps

    @property
    def pixel_size(self) -> Size:
        """(width, height) of the decoded frames in pixels."""
        return self.recipe.pixel_size

    def new_report(self, pixel_size: Size | None = None, fps: int | None = None) -> RunReport:
        """A report of a run whose frames have `pixel_size` (width, height) and `fps`, by default the stream's."""
        width, height = pixel_size or self.pixel_size
        facts = {"width": width, "height": height, **self.settings}
        return RunReport(fps or self.fps, self.avatar.name, self.avatar.config.trained, facts)

    def prepared(
        self, puller: str, on_step: OnStep, others: tuple[ModelPatcher, ...] = (), memory: int = 0
    ) -> AvatarStream:
        """The recipe for a run that begins now, with its models loaded by the host.

        puller: the node's name. others: models used alongside (the VAE). memory: bytes they need besides their weights.
        """
        if self.pulled_by:
            log.warning(
                "%s samples a stream anew that %s has already sampled; to pay once, use one Stream node and its "
                "output behind it", puller, self.pulled_by[-1],
            )  # fmt: skip
        self.pulled_by.append(puller)
        encoder = [self.voice.encoder] if self.voice.encoder is not None else []
        recipe = self.recipe
        own = recipe.cache_bytes + recipe.pass_bytes + recipe.text_bytes
        load_together([self.model, *others, *encoder], memory + own)
        return dataclasses.replace(recipe, on_step=on_step)

    @contextmanager
    def running(self, *args: Any, **kwargs: Any) -> Iterator[StreamRun]:
        """A run from the stream's beginning, closed at the end; arguments as in `prepared`."""
        with StreamRun(self.prepared(*args, **kwargs)) as run:
            yield run
