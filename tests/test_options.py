"""The options of a command as data: parsed and checked before anything is loaded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from joyavatar_core.cli import main
from joyavatar_core.cli.options import LiveOptions, SpeakOptions, parsed
from joyavatar_core.cli.parser import parser
from joyavatar_core.pipeline import avatar
from joyavatar_core.recording import Interval


@pytest.fixture
def files(tmp_path):
    Image.effect_noise((90, 120), 80).save(tmp_path / "portrait.png")
    soundfile.write(tmp_path / "voice.wav", 0.3 * np.sin(np.arange(8000) / 10), 16000)
    (tmp_path / "text.png").write_text("hello")
    return tmp_path


def flags(files, *more: str, command: str = "speak") -> list[str]:
    out = ["--out", str(files / "v.mp4")]
    return [command, "--portrait", str(files / "portrait.png"), "--audio", str(files / "voice.wav"), *out, *more]


@pytest.mark.parametrize(("command", "more", "sentence"), [
    ("speak", ["--portrait", "text.png"], "text.png"),
    ("speak", ["--portrait", "absent.png"], "absent.png does not exist"),
    ("speak", ["--crop", "60,20,40,60"], "not within the portrait of 90x120"),
    ("speak", ["--background", "nocolour"], "expected a colour"),
    ("speak", ["--audio", "absent.wav"], "absent.wav"),
    ("speak", ["--size", "33x48"], "multiples of 16"),
    ("speak", ["--size", "512x512"], "refine or upscale the finished frames"),
    ("speak", ["--state", "text.png"], "is a file; choose another name"),
    ("speak", ["--quality", "0"], "(--quality)"),
    ("speak", ["--seconds", "0"], "--seconds is 0"),
    ("speak", ["--weights", "w.safetensors"], "'w.safetensors' does not exist"),
    ("speak", ["--vae", "v.safetensors"], "The VAE 'v.safetensors' does not exist"),
    ("speak", ["--decoder", "d.safetensors"], "The decoder 'd.safetensors' does not exist"),
    ("speak", ["--lora", "l.safetensors=0.5"], "The LoRA 'l.safetensors' does not exist"),
    ("speak", ["--resume"], "--state"),
    ("speak", ["--psb", "first=x"], "PSB first is 'x'"),
    ("speak", ["--mci", "noise=2"], "MCI noise is 2.0"),
    ("speak", ["--urcr", "rotate,sinks=99"], "99"),
    ("speak", ["--preset", "rolling"], "'rolling' is for checkpoints"),
    ("speak", ["--reset-on-drift", "--urcr", "window"], "keep none"),
    ("speak", ["--refine", "9x"], "The refined size is '9x'"),
    ("speak", ["--refine", "66"], "The refined width is 66"),
    ("speak", ["--prompt-embeds", "text.png"], "text.png"),
    ("speak", ["--state", "s", "--checkpoint-every", "often"], "often"),
    ("live", ["--serve", "here"], "HOST:PORT"),
    ("live", ["--quality", "99"], "(--quality)"),
])  # fmt: skip
def test_a_mistake_is_found_before_anything_is_loaded(files, capsys, monkeypatch, command, more, sentence):
    monkeypatch.chdir(files)
    monkeypatch.setattr("joyavatar_core.pipeline.avatar.load_avatar", lambda *_: pytest.fail("already loading"))
    assert main(flags(files, *more, command=command)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and sentence in error and error.endswith(".")


@pytest.mark.parametrize(("quick", "more", "encodes", "decodes"), [
    (torch.bfloat16, [], torch.float32, torch.bfloat16),
    (torch.bfloat16, ["--dtype", "bfloat16"], torch.float32, torch.bfloat16),
    (torch.bfloat16, ["--dtype", "float32"], torch.float32, torch.float32),
    (None, [], torch.float32, torch.float32),
])  # fmt: skip
def test_the_embedded_avatar_decodes_in_what_the_processor_is_quick_with(
    files, monkeypatch, quick, more, encodes, decodes
):
    monkeypatch.setattr(avatar, "quick_dtype", lambda device: quick)
    options = parsed(SpeakOptions, parser().parse_args(flags(files, "--device", "cpu", *more)))
    loaded = avatar.load_avatar(options.avatar)
    assert (loaded.vae.compute_dtype, loaded.decoder.compute_dtype) == (encodes, decodes)


def test_flags_become_the_options(files):
    more = ["--lora", "a.safetensors=0.5", "--size", "64x32", "--checkpoint-every", "40", "--kv-dtype", "fp8"]
    options = parsed(SpeakOptions, parser().parse_args(flags(files, *more, "--device", "cpu")))
    assert options.avatar.loras == (("a.safetensors", 0.5),) and options.avatar.dtype is None
    assert options.size == (64, 32) and options.kv_dtype is torch.float8_e4m3fn
    assert options.checkpoint_every == Interval(blocks=40) and options.title == "v"
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 3


def test_the_same_files_are_the_same_avatar(files):
    """A second video may keep the avatar of the first one where their `avatar` options are equal."""
    one, two, other = (
        parsed(SpeakOptions, parser().parse_args(flags(files, "--device", "cpu", *more)))
        for more in ([], ["--seed", "7", "--size", "32x32"], ["--dtype", "bfloat16"])
    )
    assert one.avatar == two.avatar != other.avatar and hash(one.avatar) == hash(two.avatar)


@pytest.mark.parametrize("flag", ["--reset-on-drift", "--heal"])
def test_the_old_name_of_the_reset_still_works(files, flag, capsys):
    options = parsed(LiveOptions, parser().parse_args(flags(files, flag, "--device", "cpu", command="live")))
    assert options.reset_on_drift
    with pytest.raises(SystemExit):
        parser().parse_args(["live", "--help"])
    assert "--heal" not in capsys.readouterr().out


def test_checking_opens_the_voice(files):
    options = parsed(SpeakOptions, parser().parse_args(flags(files, "--device", "cpu")))
    assert options.check().num_samples == 8000
