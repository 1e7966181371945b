"""The rooms of joyavatar_core: who may import whom, and no two files with one name."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "joyavatar_core"
FILES = {".".join(path.relative_to(CORE.parent).with_suffix("").parts): path for path in sorted(CORE.rglob("*.py"))}
ENTRANCES = {"__init__.py", "__main__.py"}  # a name that every package has
TWINS = {"figure.py", "mouth.py"}  # synthetic/drawn and synthetic/rendered do the same, each its way
BASE = {"checks", "config", "device", "errors", "geometry", "paths", "unet", "weights"}  # any room may import them
ALLOWED = {  # room -> rooms it may import besides the base
    "audio": set(),
    "checkpoints": {"model", "sampling"},  # float8 layers; inspect says what a stream takes in memory
    "model": set(),
    "serving": set(),
    "synthetic": {"framing"},  # faces are cut out as portraits' are
    "vae": set(),
    "video": {"audio"},
    "sampling": {"audio", "model"},
    "framing": {"video"},
    "distributed": {"model", "vae"},
    "refiner": {"framing", "sampling", "vae"},
    "pipeline": {"audio", "checkpoints", "distributed", "framing", "model", "refiner", "sampling", "vae", "video"},
    "batch": {"recording"},  # what makes a video is handed in
    "recording": {"audio", "checkpoints", "framing", "pipeline", "refiner", "sampling", "vae", "video"},
    "monitoring": {"audio", "recording", "sampling"},
    "evaluation": {"audio", "framing", "pipeline", "recording", "refiner", "sampling", "synthetic", "vae", "video"},
    "training": {
        "audio", "checkpoints", "distributed", "evaluation", "framing", "model", "pipeline", "recording", "refiner",
        "sampling", "synthetic", "vae", "video",
    },
    "cli": {
        "audio", "batch", "checkpoints", "distributed", "framing", "model", "monitoring", "pipeline", "recording",
        "refiner", "sampling", "serving", "video",
    },
}  # fmt: skip


def imported(module: str, source: str) -> set[str]:
    """Dotted names that a file imports from joyavatar_core, at its top and inside functions."""
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            home = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*home, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("joyavatar_core.")}


def arrows() -> dict[str, set[str]]:
    """Room -> other rooms that its files import."""
    graph = defaultdict(set)
    for module, path in FILES.items():
        room = module.split(".")[1]
        graph[room] |= {name.split(".")[1] for name in imported(module, path.read_text(encoding="utf-8"))} - {room}
    return {room: others for room, others in graph.items() if room not in ("__init__", "__main__")}


def test_rooms_import_only_what_they_may():
    graph = arrows()
    assert graph.keys() == ALLOWED.keys() | BASE
    unexpected = {room: others - BASE - ALLOWED.get(room, set()) for room, others in graph.items()}
    assert {room: others for room, others in unexpected.items() if others} == {}


def test_rooms_have_no_circle():
    list(TopologicalSorter(arrows()).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter(arrows() | {"audio": {"cli"}}).static_order())


def test_no_two_files_have_one_name():
    names = Counter(path.name for path in FILES.values())
    assert [name for name, count in names.items() if count > 1 and name not in ENTRANCES | TWINS] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from ..audio import Clock", {"joyavatar_core.audio.Clock"}),
        ("from .. import audio", {"joyavatar_core.audio"}),
        ("def f():\n    from ..audio.clock import Clock", {"joyavatar_core.audio.clock.Clock"}),
        ("import joyavatar_core.audio", {"joyavatar_core.audio"}),
        ("import torch", set()),
    ],
)
def test_every_way_to_import_is_seen(line, found):
    assert imported("joyavatar_core.video.writer", line) == found
