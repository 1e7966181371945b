"""scripts/minimal.py: it imports the package's public names alone and ends with a file."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "minimal.py"


def test_the_smallest_program_writes_a_video_with_sound(tmp_path):
    voice, video = tmp_path / "voice.wav", tmp_path / "video.mp4"
    soundfile.write(voice, 0.1 * np.sin(np.arange(8000) / 10), 16000)
    portrait = ROOT / "joyavatar_core" / "assets" / "portraits" / "ada.png"
    here = {**os.environ, "PYTHONPATH": str(ROOT)}  # this copy, not an installed one
    subprocess.run([sys.executable, SCRIPT, portrait, voice, video], env=here, check=True)
    with av.open(str(video)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        assert frames == round(0.5 * container.streams.video[0].average_rate)
        assert container.streams.audio


def test_it_imports_from_the_package_alone():
    nodes = ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8")))
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert {getattr(node, "module", None) or node.names[0].name for node in imports} == {"sys", "joyavatar_core"}
