"""A table of measurements that survives whatever fails: each row is printed and written at once."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


class Report:
    """Rows of (section, what, value, unit, note), printed and written to files at once."""

    def __init__(self, folder: Path | None, minutes: float, only: list[str]) -> None:
        self.folder, self.only, self.end = folder, only, time.monotonic() + 60 * minutes
        self.rows: list[tuple[str, str, float | str, str, str]] = []
        self.section = ""
        self.failed: list[str] = []

    def __call__(self, what: str, value: float | str, unit: str = "", note: str = "") -> None:
        self.rows.append((self.section, what, value, unit, note))
        print(f"  {what}: {shown(value)} {unit} {note}".rstrip(), flush=True)
        self.write()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.end

    def run(self, title: str, body: Callable[[], None]) -> None:
        """One section; whatever happens in it, the next one comes."""
        if self.only and not any(word in title for word in self.only):
            return
        if self.over:
            print(f"## {title}: skipped, the time is up", flush=True)
            self.failed.append(f"{title} (no time)")
            return
        self.section, started = title, time.monotonic()
        print(f"## {title}", flush=True)
        try:
            body()
        except Exception as problem:
            traceback.print_exc(limit=4, file=sys.stdout)
            first = (str(problem).splitlines() or [""])[0][:150]
            self("failed", f"{type(problem).__name__}: {first}")
            self.failed.append(title)
        print(f"  ({time.monotonic() - started:.1f} s)", flush=True)

    def write(self) -> None:
        lines = ["| section | what | value | unit | note |", "|---|---|---:|---|---|"]
        lines += [f"| {a} | {b} | {shown(c)} | {d} | {e} |" for a, b, c, d, e in self.rows]
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "gpu.md").write_text("\n".join(lines) + "\n")
            (self.folder / "gpu.json").write_text(json.dumps(self.rows, indent=0))


def shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
