"""scripts/queue_workflow.py against a running ComfyUI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install -e .[headless]")

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "joyavatar_core" / "assets"
TALK = ROOT / "workflows" / "api" / "talk.json"


def queue(server, *flags: object, workflow: Path = TALK) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / "queue_workflow.py", workflow, "--server", f"127.0.0.1:{server.port}"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([*map(str, command), *map(str, flags)], capture_output=True, text=True, env=environment)


def job(out: Path, name: str = "ada") -> list[object]:
    return ["--job", ASSETS / "portraits" / f"{name}.png", ASSETS / "voices" / f"{name}.flac", out]


def test_two_people_talk(server, tmp_path):
    outs = [tmp_path / "ada.mp4", tmp_path / "ben.mp4"]
    shorter = ["--set", "JoyAvatarAudioEncode.max_seconds=1.5"]
    done = queue(server, *job(outs[0]), *job(outs[1], "ben"), *shorter)
    assert done.returncode == 0, done.stderr
    assert "100 % JoyAvatarStreamToVideo" in done.stdout
    for out in outs:
        with av.open(str(out)) as file:
            assert file.streams.video[0].frames == 24 and file.streams.audio


def test_a_picture_that_is_no_picture_is_one_sentence(server, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    failed = queue(server, "--job", broken, ASSETS / "voices" / "ada.flac", tmp_path / "out.mp4")
    assert failed.returncode == 1
    assert failed.stderr.count("error: ") == 1 and "LoadImage" in failed.stderr and "Traceback" not in failed.stderr


def test_a_value_out_of_range_shows_the_hosts_sentence(server, tmp_path):
    failed = queue(server, *job(tmp_path / "out.mp4"), "--set", "JoyAvatarStreamToVideo.quality=99")
    assert failed.returncode == 1
    assert "rejected the workflow" in failed.stderr and "JoyAvatarStreamToVideo" in failed.stderr


def test_a_node_the_server_lacks_is_named(server, tmp_path):
    workflow = json.loads(TALK.read_text(encoding="utf-8"))
    for node in workflow.values():
        node["class_type"] = node["class_type"].replace("JoyAvatarReference", "JoyAvatarFutureReference")
    path = tmp_path / "future.json"
    path.write_text(json.dumps(workflow))
    failed = queue(server, *job(tmp_path / "out.mp4"), workflow=path)
    assert failed.returncode == 1
    assert "JoyAvatarFutureReference does not exist. Install the pack" in failed.stderr
