"""Who does what in a run of several processes, and the groups they talk in."""

from __future__ import annotations

from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from ..errors import AvatarError
from ..model.sequence_parallel import SequenceParallel
from ..model.transformer import AvatarTransformer
from ..vae import StreamingVAE, TinyDecoder
from .messages import LOST, Channel, is_lost
from .remote_decoder import DecodingProcess, RemoteDecoder
from .shared_transformer import Follower, SharedTransformer

PATIENCE = timedelta(days=365)  # that followers wait for a leader that waits for a voice; one that ends is noticed
REPORT = 2048  # bytes of what a process says before a run


class Team:
    """All processes of a process group: rank 0 leads, the first `ranks` share passes, the last one may decode instead.

    Life cycle: made in every process at the same time -> each loads what its part needs -> `ready` -> the leader
    streams with `share` and `decode_there`, the others `follow` -> the leader's `end`.
    """

    def __init__(self, device: torch.device, decode_rank: bool = False) -> None:
        self.rank, world = distributed.get_rank(), distributed.get_world_size()
        self.device, self.ranks = device, world - decode_rank
        sharing = list(range(self.ranks))
        mesh = DeviceMesh(device.type, sharing, mesh_dim_names=("sequence",))
        self._everyone = distributed.new_group(backend="gloo", timeout=PATIENCE)
        control = distributed.new_group(sharing, backend="gloo", timeout=PATIENCE)
        self.parallel = self._channel = self._there = self._back = None
        self._streams = False  # whether all processes have their parts
        if self.ranks > 1 and self.rank < self.ranks:
            self.parallel = SequenceParallel.over(mesh)
            self._channel = Channel(0, control, self.parallel.group, device)
        if decode_rank:
            pair = distributed.new_group([0, world - 1], backend="gloo", timeout=PATIENCE)
            self._there, self._back = Channel(0, pair), Channel(world - 1, pair)

    @property
    def leads(self) -> bool:
        """Whether this process has the whole pipeline."""
        return self.rank == 0

    @property
    def decodes(self) -> bool:
        """Whether this process does nothing but decode."""
        return self.rank >= self.ranks

    def ready(self, problem: str = "") -> None:
        """Wait until every process has loaded its part; problem: why this one cannot, in a sentence.

        Raises AvatarError, in every process, where one cannot.
        """
        mine = torch.zeros(REPORT, dtype=torch.uint8)
        text = problem.encode()[:REPORT]
        mine[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
        reports = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
        try:
            distributed.all_gather(reports, mine, group=self._everyone)
        except RuntimeError as problem:
            if is_lost(problem):
                raise AvatarError(LOST) from problem
            raise
        for rank, report in enumerate(reports):
            if report.any():
                said = report.numpy().tobytes().rstrip(b"\0").decode(errors="replace")
                raise AvatarError(f"Process {rank} cannot take part: {said}")
        self._streams = True

    def share(self, model: AvatarTransformer) -> AvatarTransformer | SharedTransformer:
        """The leader's model, its passes shared with the followers."""
        if self.parallel is None:
            return model
        model.parallel = self.parallel
        return SharedTransformer(model, self._channel)

    def decode_there(self, decoder: StreamingVAE | TinyDecoder) -> StreamingVAE | TinyDecoder | RemoteDecoder:
        """The leader's decoder, in the process that decodes where there is one."""
        return decoder if self._there is None else RemoteDecoder(decoder, self._there, self._back)

    def follow(self, part: AvatarTransformer | StreamingVAE | TinyDecoder) -> None:
        """Serve the leader with a model, or with a decoder where this process `decodes`, until it ends.

        Raises RuntimeError where it ends without a word.
        """
        if self.decodes:
            DecodingProcess(part, self._there, self._back).run()
            return
        part.parallel = self.parallel
        Follower(part, self._channel).run()

    def end(self) -> None:
        """Tell the others that the leader has ended. Processes that still load notice the end of its process."""
        for channel in (self._channel, self._there):
            if self._streams and channel is not None:
                channel.end()
