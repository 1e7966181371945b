"""One progress bar for all jobs of a batch, counted in jobs; a running job counts by its share of frames."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

FORMAT = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} jobs [{elapsed}<{remaining}{postfix}]"


class BatchBar:
    """Life cycle: made -> `show` and `end` as jobs go on -> `close`, or used as a context manager."""

    def __init__(self, jobs: int, done: int) -> None:
        self._bar = tqdm(total=jobs, initial=done, bar_format=FORMAT, disable=None)
        self._ended, self._shares = done, dict[str, float]()

    def show(self, name: str, frames: int, total: int) -> None:
        """Note how far a running job is."""
        self._shares[name] = frames / max(1, total)
        self._draw(", ".join(sorted(self._shares)[:3]))

    def pause(self, name: str) -> None:
        """Note that a job no longer runs and is not over."""
        self._shares.pop(name, None)

    def end(self, name: str, said: str) -> None:
        """Note that a job is over, and print a line about it above the bar."""
        self.pause(name)
        self._ended += 1
        self.say(said)
        self._draw("")

    def say(self, text: str) -> None:
        """Print a line on standard error above the bar."""
        tqdm.write(text, file=sys.stderr)

    def _draw(self, running: str) -> None:
        self._bar.set_postfix_str(running, refresh=False)
        self._bar.n = self._ended + sum(self._shares.values())
        self._bar.refresh()

    def __enter__(self) -> BatchBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        self._bar.close()
