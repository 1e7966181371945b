"""Pipeline stages that run at the same time: each in its own thread, at most one item apart."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Item = TypeVar("Item")
GRACE = 30.0  # seconds that a thread gets to end
DEPTH = 1  # finished items that wait for the next stage; a stage also works on one more
PATIENCE = 1.0  # seconds of one wait; a longer one would keep Ctrl-C from the main thread on Windows


def ahead(
    make: Callable[[], Iterator[Item]], name: str, interrupt: threading.Event | None = None, depth: int = DEPTH
) -> Iterator[Item]:
    """The items of the iterator that `make` gives, made in a thread while the caller is busy with earlier ones.

    An exception of the iterator is raised here, after the items before it. Closing this generator sets `interrupt`,
    which makes a long item end early, closes the iterator, and waits up to GRACE seconds for the thread to end. So does
    Ctrl-C at any moment, and a second one waits, too: a thread that is still at work when Python ends aborts the
    process. The thread uses the caller's gradient and inference modes.
    """
    items: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    stopped, ended = threading.Event(), threading.Event()
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def offer(kind: str, value: object) -> bool:
        """Put an item as soon as there is room; False after the generator was closed."""
        while not stopped.is_set():
            try:
                items.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        grad, inference = modes
        try:
            with torch.inference_mode(inference), torch.set_grad_enabled(grad and not inference):
                iterator = make()
                try:
                    for item in iterator:
                        if not offer("item", item):
                            return
                finally:
                    getattr(iterator, "close", lambda: None)()
        except BaseException as problem:
            offer("problem", problem)
        else:
            offer("end", None)

    def run() -> None:
        try:
            work()
        finally:
            ended.set()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    try:
        try:
            thread.start()  # Ctrl-C may come while it waits for a thread that has begun
        except RuntimeError:  # the system makes no further thread
            ended.set()
            raise
        while True:
            try:
                kind, value = items.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if kind == "problem":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        if interrupt is not None:
            interrupt.set()
        again, deadline = None, time.monotonic() + GRACE
        while not ended.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                ended.wait(left)
            except KeyboardInterrupt as another:
                again = another
        if ended.is_set():
            if thread.ident is not None:  # it was made
                thread.join()
            if interrupt is not None:
                interrupt.clear()
        if again is not None:
            raise again
