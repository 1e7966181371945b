"""Stand-in: a progress bar that remembers what it was told."""

from __future__ import annotations

progress: list[tuple[float, float, object]] = []


class ProgressBar:
    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total = total

    def update_absolute(self, value: float, total: float | None = None, preview: object = None) -> None:
        progress.append((value, total or self.total, preview))
