"""Messages from one process of a group to all others: a name, facts, and tensors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from ..errors import AvatarError

Message = tuple[str, dict, list[Tensor]]


class Channel:
    """A group in which one process speaks and all others hear.

    source: the global rank of the one that speaks. control: the group, for the CPU; it waits as long as the speaker is
    silent. data, device: the group and device for tensors, default `control` and the CPU.
    """

    def __init__(
        self,
        source: int,
        control: distributed.ProcessGroup,
        data: distributed.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source, self.control, self.data = source, control, data or control
        self.device = torch.device(device)
        self._lock = threading.Lock()
        self._broken = False  # an exchange ended with an error: nobody knows who waits for what

    def say(self, name: str, tensors: Sequence[Tensor] = (), /, **facts: object) -> None:
        """Send a message; facts are what JSON can hold."""
        forms = [[str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for tensor in tensors]
        text = bytearray(json.dumps([name, facts, forms]).encode())
        distributed.broadcast(torch.tensor([len(text)]), self.source, group=self.control)
        distributed.broadcast(torch.frombuffer(text, dtype=torch.uint8), self.source, group=self.control)
        self._broadcast(tensor.to(self.device) for tensor in tensors)

    def hear(self) -> Message:
        """The next message, its tensors on this process's device. Raises RuntimeError where the speaker has ended."""
        length = torch.empty(1, dtype=torch.int64)
        distributed.broadcast(length, self.source, group=self.control)
        text = torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(text, self.source, group=self.control)
        name, facts, forms = json.loads(text.numpy().tobytes())
        tensors = [torch.empty(shape, dtype=getattr(torch, dtype), device=self.device) for dtype, shape in forms]
        self._broadcast(tensors)
        return name, facts, tensors

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            if tensor.numel():
                distributed.broadcast(as_bytes(tensor), self.source, group=self.data)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """For the speaker: one exchange, which no other thread interrupts.

        Raises AvatarError where another process has ended, or an earlier exchange failed.
        """
        with self._lock:
            if self._broken:
                raise AvatarError("An earlier exchange between the processes failed; start the run again.")
            self._broken = True
            try:
                yield
            except RuntimeError as problem:
                if not is_lost(problem):
                    raise
                raise AvatarError(
                    "Another process of this run has ended, so the stream cannot go on; its own message says why."
                ) from problem
            self._broken = False

    def end(self) -> None:
        """For the speaker: tell the others to end, unless they have ended or an exchange is under way."""
        if self._broken or not self._lock.acquire(timeout=1):
            return
        try:
            self.say("end")
        except RuntimeError:
            pass  # they have ended
        finally:
            self._lock.release()


def as_bytes(tensor: Tensor) -> Tensor:
    """A tensor's bytes, uint8 [n]: back ends do not know every dtype. A view where it is contiguous."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def is_lost(problem: RuntimeError) -> bool:
    """Whether an error says that a process of the group has ended."""
    return isinstance(problem, distributed.DistError) or "gloo" in str(problem)
