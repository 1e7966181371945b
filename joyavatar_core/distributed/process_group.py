"""The processes that `torchrun` started."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from ..errors import AvatarError


@dataclass(frozen=True)
class Launch:
    """This process among those of a launch. `local` and `locals` count on this machine alone."""

    rank: int = 0
    world: int = 1
    local: int = 0
    locals: int = 1

    @classmethod
    def mine(cls) -> Launch:
        """What `torchrun` says in the environment; a single process without it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(os.environ[name]) for name in names))

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def device(self, wanted: str) -> torch.device:
        """The device of this process: 'auto' and 'cuda' are a card of its own.

        Raises AvatarError for a named card, for a kind of device without collectives, and for too few cards.
        """
        name = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
        if name not in ("cpu", "cuda"):
            raise AvatarError(
                f"The device is '{wanted}', and {self.world} processes run on cpu or cuda; give one of them.", "device"
            )
        cards = torch.cuda.device_count() if name == "cuda" else 0
        if name == "cuda" and cards < self.locals:
            raise AvatarError(
                f"{self.locals} processes were started on a machine with {cards} GPUs; start one for each "
                "GPU, or run on cpu.",
                "device",
            )
        return torch.device(name, self.local) if name == "cuda" else torch.device("cpu")


@contextmanager
def process_group(gpu: bool | None = None) -> Iterator[None]:
    """Joins the processes that `torchrun` started, for the time of a run; nothing without it.

    gpu: whether tensors on GPUs are exchanged as well; None: where there is a GPU.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    gpu = torch.cuda.is_available() if gpu is None else gpu
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    try:
        yield
    finally:
        end_process_group()


def end_process_group() -> None:
    """Leave the process group. Its threads have ended when this returns.

    DTensor's caches keep the meshes of sharded weights, and a mesh keeps its groups. A thread of a group that is kept
    aborts the process if it frees a tensor while Python ends.
    """
    distributed.destroy_process_group()
    for mesh in [known for known in gc.get_objects() if type(known) is DeviceMesh]:
        getattr(mesh, "_pg_registry", {}).clear()  # torch has no public call for it
    gc.collect()  # sharded models keep groups in reference cycles
