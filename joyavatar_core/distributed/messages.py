"""Messages from one process of a group to all others: a name, facts, and tensors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from ..errors import AvatarError

Message = tuple[str, dict, list[Tensor]]
LOST = "Another process of this run has ended, so the stream cannot go on; its own message says why."
HEAD = 1024  # bytes of the first broadcast of a message, which most facts fit in
LENGTH = 8  # of these, how many say how long the facts are
ALIGNMENT = 16


class Channel:
    """A group in which one process sends and all others receive.

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
        self._broken = False  # an exchange ended with an error: the order of messages is unknown

    def send(self, name: str, tensors: Sequence[Tensor] = (), /, **facts: object) -> None:
        """Send a message; facts are what JSON can hold."""
        forms = [[str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for tensor in tensors]
        text = json.dumps([name, facts, forms]).encode()
        head = torch.zeros(HEAD, dtype=torch.uint8)
        head[:LENGTH] = _numbers(len(text).to_bytes(LENGTH, "little"))
        head[LENGTH : LENGTH + len(text)] = _numbers(text[: HEAD - LENGTH])
        self._broadcast(head, self.control)
        self._broadcast(_numbers(text[HEAD - LENGTH :]), self.control)
        self._broadcast(packed([tensor.to(self.device) for tensor in tensors], self.device), self.data)

    def receive(self) -> Message:
        """The next message, its tensors on this process's device. Raises RuntimeError where the speaker has ended."""
        head = torch.empty(HEAD, dtype=torch.uint8)
        self._broadcast(head, self.control)
        raw = head.numpy().tobytes()
        length = int.from_bytes(raw[:LENGTH], "little")
        rest = torch.empty(max(0, length + LENGTH - HEAD), dtype=torch.uint8)
        self._broadcast(rest, self.control)
        name, facts, forms = json.loads(raw[LENGTH : LENGTH + length] + rest.numpy().tobytes())
        tensors = [torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for dtype, shape in forms]
        data = torch.empty(sum(map(padded, tensors)), dtype=torch.uint8, device=self.device)
        self._broadcast(data, self.data)
        return name, facts, unpacked(data, tensors)

    def _broadcast(self, data: Tensor, group: distributed.ProcessGroup) -> None:
        if data.numel():
            distributed.broadcast(data, self.source, group=group)

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
                if is_lost(problem):
                    raise AvatarError(LOST) from problem
                raise
            self._broken = False

    def end(self) -> None:
        """For the speaker: tell the others to end, unless they have ended or an exchange is under way."""
        if self._broken or not self._lock.acquire(timeout=1):
            return
        try:
            self.send("end")
        except RuntimeError:
            pass  # they have ended
        finally:
            self._lock.release()


def as_bytes(tensor: Tensor) -> Tensor:
    """A tensor's bytes, uint8 [n]: back ends do not know every dtype. A view where it is contiguous."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def padded(tensor: Tensor) -> int:
    """Bytes that a tensor takes in a pack, so that the next one begins at a multiple of its items."""
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT


def packed(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """The bytes of tensors behind one another, uint8 [n]."""
    pack = torch.zeros(sum(map(padded, tensors)), dtype=torch.uint8, device=device)
    for part, tensor in zip(pack.split([padded(tensor) for tensor in tensors]), tensors, strict=True):
        part[: tensor.nbytes] = as_bytes(tensor)
    return pack


def unpacked(pack: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the dtypes and shapes of `like`, as views of a pack."""
    parts = pack.split([padded(tensor) for tensor in like])
    return [
        part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, like, strict=True)
    ]


def _numbers(data: bytes) -> Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def is_lost(problem: RuntimeError) -> bool:
    """Whether an error says that a process of the group has ended."""
    return isinstance(problem, distributed.DistError) or "gloo" in str(problem)
