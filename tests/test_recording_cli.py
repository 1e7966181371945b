"""speak --state, --resume and join from the command line."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from joyavatar_core.cli import main

RATE = 16000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A finished recording of 1.6 s with a state behind every block."""
    folder = tmp_path_factory.mktemp("cli")
    Image.effect_noise((64, 64), 80).save(folder / "portrait.png")
    t = np.arange(round(1.6 * RATE)) / RATE
    soundfile.write(folder / "voice.wav", 0.3 * np.sin(2 * np.pi * 150 * t), RATE)
    soundfile.write(folder / "other.wav", 0.3 * np.sin(2 * np.pi * 151 * t), RATE)
    assert speak(folder, "v.mp4", "--state", folder / "state", "--checkpoint-every", "1") == 0
    return folder


def speak(folder, out, *more: object, audio: str = "voice.wav") -> int:
    given = ["--portrait", folder / "portrait.png", "--audio", folder / audio, "--out", folder / out, "--size", "32x32"]
    return main(["speak", *map(str, [*given, *more])])


def shown(path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def test_the_frames_before_encoding_are_those_of_a_run_without_a_state(recorded, monkeypatch):
    from joyavatar_core.video import VideoWriter

    given: dict[bool, list] = {}

    def note(self, frames):
        given.setdefault("segment" in self.path.name, []).append(frames.clone())
        write(self, frames)

    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", note)
    assert speak(recorded, "plain.mp4") == 0
    assert speak(recorded, "again.mp4", "--state", recorded / "again", "--checkpoint-every", "0.5s") == 0
    assert np.array_equal(*(np.concatenate(frames) for frames in given.values())) and len(given) == 2


def test_resuming_a_finished_recording_makes_its_file_again(recorded, caplog):
    first = (recorded / "v.mp4").read_bytes()
    (recorded / "v.mp4").unlink()
    caplog.set_level("INFO")
    assert speak(recorded, "v.mp4", "--state", recorded / "state", "--checkpoint-every", "1", "--resume") == 0
    assert (recorded / "v.mp4").read_bytes() == first and "is finished" in caplog.text


def test_a_report_counts_the_whole_video_and_says_where_the_run_began(recorded):
    flags = ["--state", recorded / "state", "--checkpoint-every", "1", "--resume", "--report", recorded / "r.json"]
    assert speak(recorded, "v.mp4", *flags) == 0
    report = json.loads((recorded / "r.json").read_text())
    assert report["frames"] == 26 and report["settings"]["resumed_at_block"] == 3 and not report["blocks"]


@pytest.mark.parametrize(("more", "audio", "sentence"), [
    (["--resume"], "voice.wav", "--state"),
    (["--checkpoint-every", "4"], "voice.wav", "--state"),
    (["--state", "state", "--checkpoint-every", "often"], "voice.wav", "often"),
    (["--state", "state", "--checkpoint-every", "1"], "voice.wav", "already holds a recording"),
    (["--state", "state", "--checkpoint-every", "1", "--resume"], "other.wav", "another voice"),
    (["--state", "state", "--checkpoint-every", "1", "--resume", "--seed", "3"], "voice.wav", "seed 0"),
    (["--state", "state", "--checkpoint-every", "1", "--resume", "--psb", "6,5"], "voice.wav", "psb"),
    (["--state", "state", "--checkpoint-every", "1", "--resume", "--seconds", "1"], "voice.wav", "frames 26"),
    (["--state", "absent/state"], "voice.wav", "absent"),
])  # fmt: skip
def test_every_mistake_is_one_sentence(recorded, capsys, monkeypatch, more, audio, sentence):
    monkeypatch.chdir(recorded)
    assert speak(recorded, "w.mp4", *more, audio=audio) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and sentence in error and error.endswith(".")
    assert not (recorded / "w.mp4").exists()


def test_join_makes_a_video_of_what_there_is(recorded, capsys):
    assert main(["join", str(recorded / "state"), "--out", str(recorded / "j.mp4")]) == 0
    assert shown(recorded / "j.mp4") == 26
    assert main(["join", str(recorded / "absent"), "--out", str(recorded / "k.mp4")]) == 2
    assert "absent" in capsys.readouterr().err
