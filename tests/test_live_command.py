"""The live command from end to end: PCM on standard input, a video that grows, every sample once."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from joyavatar_core.audio import VisemeEncoder
from joyavatar_core.cli import main

RATE = 16000
SECONDS = 3.0
FRAMES, SAMPLES = 48, 48000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.effect_noise((64, 64), 80).save(folder / "portrait.png")
    soundfile.write(folder / "voice.wav", voice() / 32768, RATE)
    return folder


def voice() -> np.ndarray:
    t = np.arange(SAMPLES) / RATE
    return (8000 * np.sin(2 * np.pi * 150 * t) * (np.sin(2 * np.pi * 3 * t) > 0)).astype("<i2")


@pytest.fixture
def pipes(monkeypatch):
    """Standard input as a real pipe to write to, standard output as bytes."""
    read_end, write_end = os.pipe()
    reader, writer = open(read_end, "rb"), open(write_end, "wb", buffering=0)  # noqa: SIM115
    out = SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False, write=lambda text: None, flush=lambda: None)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=reader, isatty=lambda: False))
    yield SimpleNamespace(writer=writer, out=out, capture=lambda: monkeypatch.setattr("sys.stdout", out))
    writer.close()


def run(files, *more: object, audio: object = "-") -> int:
    given = ["--portrait", files / "portrait.png", "--audio", audio, "--size", "32x32", "--psb", "1", *more]
    return main(["live", *map(str, given)])


def speak(pipe, speed: float) -> None:
    """Write the voice in small portions, `speed` times as fast as it is spoken."""
    data = voice().tobytes()
    for start in range(0, len(data), 3201):  # odd on purpose: samples are cut
        pipe.write(data[start : start + 3201])
        time.sleep(1600 / RATE / speed)
    pipe.close()


def decoded(data) -> tuple[int, int]:
    with av.open(data) as file:
        frames = sum(1 for _ in file.decode(video=0))
    if hasattr(data, "seek"):
        data.seek(0)
    with av.open(data) as file:
        return frames, sum(frame.samples for frame in file.decode(audio=0))


def test_a_piped_voice_becomes_a_file_and_a_stream_and_every_sample_counts(files, tmp_path, pipes):
    pipes.capture()
    threading.Thread(target=speak, args=(pipes.writer, 6)).start()
    report = tmp_path / "r.json"
    assert run(files, "--out", "-", "--report", report, "--plot", tmp_path / "p.png") == 0
    frames, samples = decoded(io.BytesIO(pipes.out.buffer.getvalue()))
    assert frames == FRAMES and 0 <= samples - SAMPLES <= 3 * 1024
    found = json.loads(report.read_text())
    assert found["frames"] == FRAMES
    assert found["live"]["samples_in"] == found["live"]["samples_out"] == SAMPLES
    assert all(block["delay"] >= 0 for block in found["blocks"]) and found["live"]["first_frame_seconds"] > 0
    assert {"colour", "sharpness", "distance"} <= set(found["blocks"][0])
    assert Image.open(tmp_path / "p.png").width == 1200


def test_the_stream_is_watched_over_http_while_it_is_made(files, tmp_path, pipes, caplog):
    caplog.set_level("INFO")
    got: dict[str, bytes] = {}

    def watch() -> None:
        while not (found := [r.getMessage() for r in caplog.records if "watch at" in r.getMessage()]):
            time.sleep(0.02)
        base = found[0].removeprefix("watch at ")
        threading.Thread(target=speak, args=(pipes.writer, 6)).start()
        got["mp4"] = urllib.request.urlopen(base + "live.mp4", timeout=30).read()

    viewer = threading.Thread(target=watch)
    viewer.start()
    assert run(files, "--serve", "0", "--out", tmp_path / "v.mp4") == 0
    viewer.join(30)
    assert decoded(io.BytesIO(got["mp4"]))[0] == decoded(str(tmp_path / "v.mp4"))[0] == FRAMES


def test_the_live_video_is_the_one_that_speak_makes(files, tmp_path, pipes, monkeypatch):
    monkeypatch.setattr(VisemeEncoder, "lookahead", 0.0)  # a file could be heard ahead, a pipe not
    threading.Thread(target=speak, args=(pipes.writer, 50)).start()
    given = ["--portrait", files / "portrait.png", "--size", "32x32", "--psb", "1"]
    raw = ["--audio", "-", "--out", tmp_path / "piped.mp4", "--refine", "2x"]  # what live does by itself
    assert main(["speak", *map(str, given + raw)]) == 0
    assert run(files, "--out", tmp_path / "file.mp4", "--pace", "off", audio=files / "voice.wav") == 0

    def pictures(name):
        with av.open(str(tmp_path / name)) as file:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])

    assert np.array_equal(pictures("piped.mp4"), pictures("file.mp4"))


def test_a_files_blocks_wait_for_their_time(files, tmp_path):
    started = time.monotonic()
    assert run(files, "--out", tmp_path / "v.mp4", audio=files / "voice.wav") == 0
    assert time.monotonic() - started > 33 / 16  # the last block begins with frame 33


def test_a_voice_that_ends_at_once_or_breaks_is_one_sentence(files, tmp_path, pipes, capsys):
    pipes.writer.close()
    assert run(files, "--out", tmp_path / "v.mp4") == 2
    assert "before its first sample" in capsys.readouterr().err


def test_a_taken_port_is_said_before_anything_is_loaded(files, pipes, capsys, monkeypatch):
    from joyavatar_core.pipeline import avatar

    monkeypatch.setattr(avatar, "load_avatar", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(files, f"--serve={port}", audio=files / "voice.wav") == 2
    assert f"cannot be served at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "sentence"), [
    ([], "nowhere to go"), (["--serve", "here"], "HOST:PORT"), (["--out", "v.avi"], ".mp4"),
    (["--serve", "0", "--audio-channels", "0"], "0 channels"), (["--serve", "0", "--audio-rate", "3"], "sample rate"),
    (["--serve", "0", "--plot", "absent/p.png"], "plot"), (["--serve", "0", "--quality", "99"], "quality"),
])  # fmt: skip
def test_every_mistake_is_one_sentence(files, pipes, capsys, monkeypatch, more, sentence):
    monkeypatch.chdir(files)
    assert run(files, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and sentence in error


@pytest.mark.parametrize("how", ["enough", "interrupted"])
def test_a_run_ends_cleanly_although_the_pipe_stays_open(files, tmp_path, how):
    flags = ["--portrait", files / "portrait.png", "--audio", "-", "--size", "32x32", "--psb", "1"]
    limit = ["--seconds", "0.5"] if how == "enough" else []
    command = [sys.executable, "-m", "joyavatar_core", "live", *flags, "--out", tmp_path / "v.mp4", *limit]
    with subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(voice().tobytes())
        process.stdin.flush()
        if how == "interrupted":
            assert any(b"first frame" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == (0 if how == "enough" else 130)
        said = process.stderr.read().decode()
    assert "Fatal" not in said and "Traceback" not in said
    left = tmp_path / ("v.mp4" if how == "enough" else "v.part.mp4")
    assert decoded(str(left))[0] >= 8


@pytest.mark.parametrize(("more", "sentence"), [
    (["--reset-on-drift"], "--reset-on-drift"), (["--audio", "-"], "cannot be read again"),
])  # fmt: skip
def test_a_recording_refuses_what_it_could_not_resume(files, tmp_path, capsys, more, sentence):
    given = ["--portrait", files / "portrait.png", "--audio", files / "voice.wav", "--out", tmp_path / "v.mp4"]
    assert main(["speak", *map(str, [*given, "--state", tmp_path / "state", *more])]) == 2
    assert sentence in capsys.readouterr().err


def test_a_reset_on_drift_without_sinks_is_one_sentence(files, tmp_path, capsys):
    given = ["--portrait", files / "portrait.png", "--audio", files / "voice.wav", "--out", tmp_path / "v.mp4"]
    assert main(["speak", *map(str, [*given, "--preset", "plain", "--reset-on-drift"])]) == 2
    assert "keep none" in capsys.readouterr().err


def test_speak_reports_the_monitors_measures_unless_told_not_to(files, tmp_path):
    given = ["--portrait", files / "portrait.png", "--audio", files / "voice.wav", "--size", "32x32", "--psb", "1"]
    for name, more in (("with", ["--heal"]), ("without", ["--no-monitor"])):
        report = tmp_path / f"{name}.json"
        assert main(["speak", *map(str, [*given, "--out", tmp_path / "v.mp4", "--report", report, *more])]) == 0
        blocks = json.loads(report.read_text())["blocks"]
        assert all(("colour" in block) == (name == "with") for block in blocks)
