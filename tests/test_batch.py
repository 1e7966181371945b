"""The batch command on one machine: the videos of `speak`, whatever happens to a row or to the process."""

from __future__ import annotations

import signal
import sys

import pytest

from joyavatar_core.batch.cluster import WorkerResources
from joyavatar_core.cli import main
from joyavatar_core.errors import AvatarError
from joyavatar_core.recording.files import RecordingFolder

from .batches import SMALL, inputs, manifest, process, spoken, statuses, table, until_recorded
from .recordings import same_video


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return inputs(tmp_path, short=0.4, long=4.0)


def batch(*more: object) -> int:
    return main(["batch", "jobs.csv", "--out", "videos", *SMALL, *map(str, more)])


def test_the_videos_are_those_of_speak_and_a_bad_row_stops_nothing(folder, capsys):
    (folder / "noise.wav").write_bytes(b"no sound")
    rows = ["portrait.png,short.wav,", "portrait.png,absent.wav,", "portrait.png,noise.wav,", "portrait.png,long.wav,1"]
    table(folder, *rows, header="portrait,voice,seed")
    assert batch() == 2
    said = capsys.readouterr()
    assert "error: 2 of 4 jobs failed" in said.err and "row 3: The voice 'absent.wav' is missing" in said.err
    assert "4 jobs: 2 done, 2 failed; 0 of them were done before this run" in said.out
    videos = folder / "videos"
    assert same_video(videos / "portrait-short.mp4", spoken(folder, "short"))
    assert same_video(videos / "portrait-long.mp4", spoken(folder, "long", "--seed=1"))
    found = manifest(videos)
    assert statuses(videos) == {"portrait-short": "done", "portrait-noise": "failed", "portrait-long": "done"}
    assert [row["row"] for row in found["bad_rows"]] == [3]
    assert found["jobs"]["portrait-long"]["frames"] == 64 and found["jobs"]["portrait-noise"]["problem"].endswith(".")
    assert (videos / "reports" / "portrait-short.json").is_file() and not list((videos / "states").glob("*/"))
    assert "joyavatar speak" in (videos / "logs" / "portrait-noise.log").read_text()


def test_the_avatar_is_loaded_once_and_again_only_for_another_model(folder, monkeypatch):
    from joyavatar_core.pipeline import avatar

    loaded = []
    load = avatar.load_avatar
    monkeypatch.setattr(avatar, "load_avatar", lambda options: loaded.append(options.dtype) or load(options))
    rows = ["portrait.png,short.wav,", "portrait.png,short.wav,bfloat16", "portrait.png,short.wav,"]
    table(folder, *rows, header="portrait,voice,dtype")
    assert batch("--seconds=0.1") == 0 and len(loaded) == 2


def test_a_batch_started_again_makes_only_what_is_left_or_changed(folder, capsys):
    table(folder, "portrait.png,short.wav,1", "portrait.png,long.wav,1", header="portrait,voice,seed")
    assert batch("--seconds=0.5", "--keep-states") == 0
    videos = folder / "videos"
    times = {path.name: path.stat().st_mtime_ns for path in videos.glob("*.mp4")}
    (videos / "portrait-long.mp4").unlink()
    table(folder, "portrait.png,short.wav,1", "portrait.png,long.wav,2", header="portrait,voice,seed")
    capsys.readouterr()
    assert batch("--seconds=0.5") == 0
    assert "1 of them were done before" in capsys.readouterr().out
    assert (videos / "portrait-short.mp4").stat().st_mtime_ns == times["portrait-short.mp4"]
    assert same_video(videos / "portrait-long.mp4", spoken(folder, "long", "--seed=2", "--seconds=0.5"))
    assert not list((videos / "states").glob("*/"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_in_the_middle_of_a_job_goes_on_from_its_state(folder, how):
    table(folder, "portrait.png,short.wav,", "portrait.png,long.wav,1", header="portrait,voice,checkpoint_every")
    videos, state = folder / "videos", folder / "videos" / "states" / "portrait-long"
    given = ["batch", "jobs.csv", "--out", "videos", *SMALL]
    with process(*given, cwd=folder) as driver:
        assert until_recorded(driver, state)
        driver.send_signal(how)
        err = driver.communicate()[1]
    assert driver.returncode == (130 if how == signal.SIGINT else -how), err
    assert statuses(videos) == {
        "portrait-short": "done", "portrait-long": "stopped" if how == signal.SIGINT else "running",
    }  # fmt: skip
    assert batch() == 0
    assert "resumed_at_block" in (videos / "reports" / "portrait-long.json").read_text()
    assert "resuming after block" in (videos / "logs" / "portrait-long.log").read_text()
    assert same_video(videos / "portrait-long.mp4", spoken(folder, "long", "--state=s", "--checkpoint-every=1"))


def test_a_row_that_is_made_without_a_state_is_made_too(folder):
    table(folder, "portrait.png,short.wav,yes", header="portrait,voice,reset_on_drift")
    assert batch("--seconds=0.2", "--urcr=rotate,sinks=3") == 0


def test_two_drivers_do_not_share_a_folder(folder, capsys):
    table(folder, "portrait.png,short.wav")
    (folder / "videos").mkdir()
    other = RecordingFolder(folder / "videos" / "states")
    other.lock()
    assert batch() == 2 and "in use by process" in capsys.readouterr().err
    other.unlock()


@pytest.mark.parametrize(("rows", "more", "sentence"), [
    (["portrait.png,short.wav"], ["--seed=many"], "'many' is not a seed"),
    (["portrait.png,absent.wav"] * 2, [], "The voice 'absent.wav' is missing"),
    ([], [], "has no rows"),
])  # fmt: skip
def test_what_leaves_no_job_is_one_sentence_before_work_starts(folder, capsys, rows, more, sentence):
    table(folder, *rows)
    assert batch(*more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and sentence in error and not (folder / "videos").exists()


def test_a_manifest_that_is_none_is_left_alone(folder, capsys):
    table(folder, "portrait.png,short.wav")
    (folder / "videos").mkdir()
    (folder / "videos" / "manifest.json").write_text("[]")
    assert batch() == 2 and "not a manifest" in capsys.readouterr().err
    assert (folder / "videos" / "manifest.json").read_text() == "[]"


def test_ray_that_is_not_installed_is_one_sentence(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    table(folder, "portrait.png,short.wav")
    assert batch("--ray=local") == 2
    assert "pip install -e .[ray]" in capsys.readouterr().err
    assert statuses(folder / "videos") == {"portrait-short": "queued"}


@pytest.mark.parametrize(("resources", "sentence"), [
    ((3,), "2 CPUs and 0 GPUs"), ((1, 1), "2 CPUs and 0 GPUs"), ((0,), "CPUs of a worker"),
    ((1, 1.5), "GPUs of a worker"), ((1, -1), "GPUs of a worker"), ((float("nan"),), "CPUs of a worker"),
])  # fmt: skip
def test_resources_that_no_cluster_has_are_one_sentence(resources, sentence):
    with pytest.raises(AvatarError, match=sentence):
        WorkerResources(*resources).on({"CPU": 2.0}).fits({"CPU": 2.0})


def test_workers_are_as_many_as_the_scarcer_resource_allows():
    cluster = {"CPU": 64.0, "GPU": 4.0}
    workers = [WorkerResources(*given).on(cluster).fits(cluster) for given in ((2, 0.5), (1,), (16, 0))]
    assert workers == [8, 4, 4] and WorkerResources(1).on({"CPU": 3.0}) == WorkerResources(1, 0)
