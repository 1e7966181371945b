"""Training in several processes (`torchrun`): each takes its share of a step's samples, and gradients are averaged.

A sample's random numbers depend on the seed, the step and its place in the batch, not on which process draws it, so
two processes together draw the same samples as one process. (Self-rollouts and rollouts are per process.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import AvatarError


@dataclass(frozen=True)
class Share:
    """This process and the number of processes."""

    rank: int = 0
    world: int = 1

    @classmethod
    def mine(cls) -> Share:
        """This process's share; everything without `torchrun`."""
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def generators(self, seed: int, step: int, batch: int, salt: int = 0) -> list[torch.Generator]:
        """The random numbers of this process's samples of a step; another `salt` gives others.

        Raises AvatarError for a batch that the processes cannot share.
        """
        if batch % self.world:
            raise AvatarError(f"A batch of {batch} cannot be shared by {self.world} processes; give a multiple of it.")
        own = range(self.rank, batch, self.world)
        return [torch.Generator().manual_seed((seed << 48) + (step << 16) + (salt << 12) + sample) for sample in own]

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.world > 1:
            distributed.barrier()

    def average(self, numbers: Iterable[float]) -> list[float]:
        """The mean over all processes of each number."""
        values = torch.tensor(list(numbers), dtype=torch.float64)
        return (self._sum(values) / self.world).tolist()

    @torch.no_grad()
    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over all processes, in one message."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        gradients = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]  # averaged already
        if self.world == 1 or not gradients:
            return
        flat = self._sum(torch.cat([gradient.flatten() for gradient in gradients])) / self.world
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _sum(self, values: Tensor) -> Tensor:
        if self.world > 1:
            distributed.all_reduce(values)
        return values


def shard(model: nn.Module, methods: Iterable[str] = ()) -> nn.Module:
    """Spread weights, gradients and optimizer state over all processes (FSDP2), where the weights are.

    `methods` are called beside forward. The weights are gathered whole for each step.
    """
    if distributed.is_initialized():
        device = next(model.parameters()).device.type
        fully_shard(model, mesh=init_device_mesh(device, (distributed.get_world_size(),)))
        for method in methods:
            register_fsdp_forward_method(model, method)
    return model


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, sharded as `like` is."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
