"""The command line on real files: a portrait and speech-like sound in, an mp4 out; every mistake is one sentence."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from joyavatar_core.checkpoints import save_checkpoint
from joyavatar_core.checkpoints.random_weights import RANDOM_CONFIG, random_state_dict
from joyavatar_core.cli import main, parser

RATE = 16000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.effect_noise((90, 120), 80).save(folder / "portrait.png")
    t = np.arange(round(1.6 * RATE)) / RATE
    voice = 0.3 * np.sin(2 * np.pi * 150 * t) * (np.sin(2 * np.pi * 3 * t) > 0)
    soundfile.write(folder / "voice.wav", voice, RATE)
    soundfile.write(folder / "empty.wav", np.zeros(0), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "one_sample.wav", np.ones(1) / 2, RATE)
    soundfile.write(folder / "three_channels.wav", np.stack([voice] * 3, 1), RATE)
    soundfile.write(folder / "eight_bit.wav", voice, RATE, subtype="PCM_U8")
    soundfile.write(folder / "nan.wav", np.where(t > 1, np.nan, voice), RATE, subtype="FLOAT")
    (folder / "text.png").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "portrait.png").read_bytes()[:900])
    (folder / "page.safetensors").write_text("<html>404</html>")
    with (folder / "evil.pt").open("wb") as file:
        pickle.dump(Evil(str(folder / "owned")), file)
    save_checkpoint(folder / "own.safetensors", random_state_dict(seed=3), RANDOM_CONFIG)
    return folder


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def speak(files, out, *more: str, portrait: str = "portrait.png", audio: str = "voice.wav") -> int:
    given = ["--portrait", files / portrait, "--audio", files / audio, "--out", out, "--size", "32x48", *more]
    return main(["speak", *map(str, given)])


def video_of(path):
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        length = float(file.streams.audio[0].duration * file.streams.audio[0].time_base) if file.streams.audio else 0.0
    return np.stack(frames), length


def test_the_report_holds_the_crop(files, tmp_path):
    report = tmp_path / "run.json"
    given = ["--crop", "10,20,40,60", "--background", "#204060", "--seconds", "0.1", "--report", report]
    assert speak(files, tmp_path / "video.mp4", *map(str, given)) == 0
    shown = json.loads(report.read_text())["portrait"]
    assert shown == {"crop": [10, 20, 40, 60], "picture": [90, 120], "faces": None, "note": None}


def test_a_crop_beyond_the_portrait_is_one_sentence(files, tmp_path, capsys):
    assert speak(files, tmp_path / "video.mp4", "--crop", "60,20,40,60") == 2
    assert "60,20,40,60 is not within the portrait of 90x120 pixels" in capsys.readouterr().err


def test_a_portrait_and_a_voice_become_a_video(files, tmp_path):
    assert speak(files, tmp_path / "v.mp4", "--report", tmp_path / "r.json") == 0
    frames, sound = video_of(tmp_path / "v.mp4")
    assert frames.shape == (26, 192, 128, 3)  # 1.6 s at 16 frames/s, refined to four times the size
    assert abs(sound - 1.6) < 1 / 16
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["frames"] == 26 and report["fps"] == 16 and report["weights"] == "embedded"
    assert [block["index"] for block in report["blocks"]] == [0, 1, 2]
    assert {"steps", "reset", "max_position", "seconds"} <= set(report["blocks"][0])
    assert report["audio_seconds"] == pytest.approx(1.6) and report["peak_rss_bytes"] > 1e7


def test_the_same_seed_gives_the_same_file_and_another_does_not(files, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert speak(files, tmp_path / f"{name}.mp4", "--seed", str(seed)) == 0
    a, b, c = (video_of(tmp_path / f"{name}.mp4")[0] for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize("more", [
    ["--preset", "plain"], ["--preset", "joyavatar"], ["--psb", "6,5"], ["--psb", "first=6,mode=dense"],
    ["--mci", "context,noise=0.1"], ["--urcr", "prefill,sinks=3,recent=6"], ["--seconds", "0.5"],
    ["--dtype", "bfloat16"],
])  # fmt: skip
def test_every_mechanism_is_reachable(files, tmp_path, more):
    assert speak(files, tmp_path / "v.mp4", *more) == 0
    assert len(video_of(tmp_path / "v.mp4")[0]) == (8 if "--seconds" in more else 26)


@pytest.mark.parametrize("audio", ["silent.wav", "one_sample.wav", "three_channels.wav", "eight_bit.wav"])
def test_odd_but_valid_voices_work(files, tmp_path, audio):
    assert speak(files, tmp_path / "v.mp4", audio=audio) == 0
    assert len(video_of(tmp_path / "v.mp4")[0]) == {"silent.wav": 16, "one_sample.wav": 1}.get(audio, 26)


def test_a_checkpoint_file_speaks_with_the_vae_it_is_given(files, tmp_path, capsys):
    assert speak(files, tmp_path / "v.mp4", "--weights", files / "own.safetensors") == 2
    assert "--vae" in capsys.readouterr().err


@pytest.mark.parametrize(("inputs", "more", "sentence"), [
    ({"audio": "empty.wav"}, [], "empty"),
    ({"audio": "nan.wav"}, [], "NaN"),
    ({"audio": "absent.wav"}, [], "absent.wav"),
    ({"audio": "portrait.png"}, [], "portrait.png"),
    ({"portrait": "text.png"}, [], "text.png"),
    ({"portrait": "cut.png"}, [], "cut.png"),
    ({"portrait": "absent.png"}, [], "absent.png"),
    ({}, ["--weights", "evil.pt"], "evil.pt"),
    ({}, ["--weights", "page.safetensors"], "HTML"),
    ({}, ["--weights", "absent.safetensors"], "absent.safetensors"),
    ({}, ["--size", "33x48"], "multiples of 16"),
    ({}, ["--size", "0x0"], "multiples of 16"),
    ({}, ["--size", "512x512"], "more pixels than the 128x128"),
    ({}, ["--seconds", "0"], "--seconds"),
    ({}, ["--seconds", "nan"], "--seconds"),
    ({}, ["--psb", "first=2"], "PSB"),
    ({}, ["--psb", "steps"], "PSB"),
    ({}, ["--mci", "noise=7"], "MCI"),
    ({}, ["--urcr", "sinks=-3"], "URCR"),
    ({}, ["--urcr", "recent=300"], "URCR"),
    ({}, ["--device", "quantum"], "quantum"),
    ({}, ["--quality", "0"], "quality"),
    ({}, ["--out", "v.avi"], ".mp4"),
    ({}, ["--out", "absent/v.mp4"], "absent"),
    ({}, ["--prompt-embeds", "own.safetensors"], "prompt"),
    ({}, ["--report", "absent/r.json"], "report"),
])  # fmt: skip
def test_every_mistake_is_one_sentence(files, tmp_path, capsys, monkeypatch, inputs, more, sentence):
    monkeypatch.chdir(files)
    assert speak(files, tmp_path / "v.mp4", *more, **inputs) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and sentence in error and error.endswith(".")
    assert not (files / "owned").exists()


@pytest.mark.parametrize("more", [["--seed", "-1"], ["--seed", "x"], ["--size", "big"], ["--preset", "magic"]])
def test_unreadable_flags_end_with_usage(files, tmp_path, more):
    with pytest.raises(SystemExit) as ended:
        speak(files, tmp_path / "v.mp4", *more)
    assert ended.value.code == 2


def test_ctrl_c_is_not_lost_in_a_finalizer(monkeypatch):
    class Dying:
        def __del__(self):
            raise KeyboardInterrupt

    def run(args):
        dying = Dying()
        del dying
        for _ in range(500):
            time.sleep(0.01)

    monkeypatch.setattr(parser, "speak", run)
    before = sys.unraisablehook
    start = time.monotonic()
    assert main(["speak", "--portrait", "p.png", "--audio", "v.wav", "--out", "v.mp4"]) == 130
    assert time.monotonic() - start < 4 and sys.unraisablehook is before


def test_inspect_tells_what_a_file_is(files, capsys):
    assert main(["inspect", str(files / "own.safetensors")]) == 0
    assert "transformer" in capsys.readouterr().out
    assert main(["inspect", str(files / "page.safetensors")]) == 2
