"""Long runs in a running ComfyUI: stopped, killed and queued again they give the same video and its whole report."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
import pytest

from .test_server import decoded

VIDEO = {"stream": ["stream", 0], "quality": 18, "checkpoint_every": "1"}
FRAMES = 64  # 4 s at 16 frames/s: six blocks


@pytest.fixture
def recorded(talk, node):
    """recorded(name): a graph whose video lies in the state folder of that name."""
    return lambda name: talk(
        32,
        "medium.wav",
        seed=7,
        video=node("JoyAvatarStreamToVideo", filename_prefix=name, state=f"states/{name}", **VIDEO),
    )


@pytest.fixture(scope="module")
def uninterrupted(server):
    """The frames of a run that nothing stopped, made by the first test that asks."""
    made = []

    def frames(graph):
        if not made:
            made.append(decoded(server.files(server.run(graph)["video"])[0]))
        return made[0]

    return frames


def await_segments(server, name, count):
    """Return when so many segments are finished; they must play."""
    folder = server.output / "states" / name
    for _ in range(2400):
        segments = sorted(folder.glob("segment-????????.mp4"))
        if len(segments) >= count:
            return folder, segments
        time.sleep(0.05)
    raise AssertionError(f"no {count} segments within two minutes")


def same_video(server, shown, expected):
    frames, sound, _ = decoded(server.files(shown["video"])[0])
    assert frames.shape == (FRAMES, 128, 128, 3) and sound == expected[1]  # refined to four times the size
    assert np.array_equal(frames, expected[0])


def test_a_stopped_run_goes_on_when_it_is_queued_again(server, recorded, uninterrupted):
    prompt_id = server.queue(recorded("stopped_state"))
    folder, _ = await_segments(server, "stopped_state", 2)
    server.post("/interrupt", {})
    assert "execution_interrupted" in json.dumps(server.wait(prompt_id)["status"]["messages"])
    segments = sorted(folder.glob("segment-*.mp4"))  # the growing one too, if it has begun
    assert all(len(decoded(segment)[0]) for segment in segments) and len(segments) < 6
    assert not list(server.output.glob("stopped_state_*.mp4"))
    shown = server.run(recorded("stopped_state"))
    log = (server.base / "server.log").read_text(encoding="utf-8")
    assert "queue it again to resume at" in log and "going on with" in log
    same_video(server, shown, uninterrupted(recorded("whole_state")))


@pytest.mark.skipif(sys.platform == "win32", reason="NO SIGKILL on Windows: nothing to be killed with")
def test_a_killed_server_goes_on_after_its_restart_and_reports_the_whole_run(
    server, another_server, recorded, uninterrupted, node
):
    with another_server() as victim:
        victim.queue(recorded("killed_state"))
        await_segments(victim, "killed_state", 2)
        os.kill(victim.process.pid, signal.SIGKILL)
    with another_server() as heir:
        same_video(heir, heir.run(recorded("killed_state")), uninterrupted(recorded("whole_state")))
        loaded = {
            "load": node("LoadVideo", file="killed_state_00001_.mp4 [output]"),
            "report": node("JoyAvatarStreamReport", source=["load", 0]),
        }
        shown = heir.run(loaded)["report"]
    assert shown["images"] and shown["text"][0].startswith(f"{FRAMES} frames (0:04) in 6 blocks")
    assert "resumed_at_block" in shown["text"][0]


def test_another_seed_in_the_same_state_folder_is_refused(server, recorded, uninterrupted):
    uninterrupted(recorded("whole_state"))
    graph = recorded("whole_state")
    graph["stream"]["inputs"]["seed"] = 8
    assert "seed 7 and this run has 8; resume with the same, or choose another folder" in server.refusal(graph)
