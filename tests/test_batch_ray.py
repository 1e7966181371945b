"""The batch command with workers of a Ray cluster that is started on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joyavatar_core.cli import main

from .batches import SMALL, inputs, manifest, process, spoken, statuses, table, until_recorded
from .recordings import same_video

pytest.importorskip("ray", reason="ray is not installed: pip install -e .[ray]")
pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]
CLUSTER = ["--ray=local", "--workers=2", "--cpus-per-job=0.5"]  # a machine of one core is enough


@contextlib.contextmanager
def recording_batch(jobs: Path, videos: Path) -> Iterator[subprocess.Popen]:
    """A batch on a cluster of its own that has begun to record the job "portrait-long"."""
    while True:
        with process("batch", jobs, "--out", videos, *SMALL, *CLUSTER, cwd=jobs.parent) as driver:
            if until_recorded(driver, videos / "states" / "portrait-long"):
                yield driver
                return


def test_a_worker_killed_in_the_middle_of_a_job_changes_no_video(tmp_path):
    inputs(tmp_path, long=4.0, a=0.4, b=0.3, c=0.5, d=0.2)
    rows = ["portrait.png,long.wav,1", *(f"portrait.png,{name}.wav," for name in ("a", "absent", "b", "c", "d"))]
    jobs = table(tmp_path, *rows, header="portrait,voice,checkpoint_every")
    videos = tmp_path / "videos"
    with recording_batch(jobs, videos) as driver:
        lost = manifest(videos)["jobs"]["portrait-long"]["worker"]
        os.kill(int(lost.rpartition(":")[2]), signal.SIGKILL)
        out, err = driver.communicate()
    assert driver.returncode == 2, err
    assert err.count("absent.wav") == 1 and "row 4: The voice 'absent.wav' is missing" in err
    assert "6 jobs: 5 done, 1 failed" in out and f"The worker {lost} was lost" in err
    found = manifest(videos)
    assert set(statuses(videos).values()) == {"done"} and [row["row"] for row in found["bad_rows"]] == [4]
    jobs = found["jobs"]
    assert jobs["portrait-long"]["tries"] == 2 and jobs["portrait-long"]["worker"] != lost
    assert "resuming after block" in (videos / "logs" / "portrait-long.log").read_text()
    assert same_video(
        videos / "portrait-long.mp4", spoken(tmp_path, "long", f"--state={tmp_path}/s", "--checkpoint-every=1")
    )
    for name in ("a", "b", "c", "d"):
        assert same_video(videos / f"portrait-{name}.mp4", spoken(tmp_path, name))


def test_ctrl_c_ends_workers_and_keeps_what_they_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(inputs(tmp_path, long=6.0))
    jobs = table(tmp_path, "portrait.png,long.wav,1", header="portrait,voice,checkpoint_every")
    videos = tmp_path / "videos"
    given = ["batch", jobs, "--out", videos, *SMALL]
    with recording_batch(jobs, videos) as driver:
        worker = int(manifest(videos)["jobs"]["portrait-long"]["worker"].rpartition(":")[2])
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
        err = driver.communicate()[1]
    assert driver.returncode == 130 and "Traceback" not in err, err
    assert statuses(videos) == {"portrait-long": "stopped"}
    for _ in range(600):
        if not os.path.exists(f"/proc/{worker}"):
            break
        time.sleep(0.1)
    assert main([str(word) for word in given]) == 0
    assert "resuming after block" in (videos / "logs" / "portrait-long.log").read_text()
    assert statuses(videos) == {"portrait-long": "done"}
