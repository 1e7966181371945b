"""`torchrun -m joyavatar_core speak`: the video of one process, recordings that resume, refusals, silence elsewhere."""

from __future__ import annotations

import multiprocessing as python_multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import multiprocessing

from joyavatar_core.checkpoints import save_checkpoint
from joyavatar_core.checkpoints.random_weights import RANDOM_CONFIG, random_state_dict
from joyavatar_core.cli import main
from joyavatar_core.monitoring.observer import Observer
from joyavatar_core.pipeline.embedded import EMBEDDED_VAE

RATE = 16000
START = "forkserver" if "forkserver" in python_multiprocessing.get_all_start_methods() else "spawn"  # Windows


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A portrait, 1.2 s of sound, weights with 4 heads, and the video that one process makes of them."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.effect_noise((90, 120), 80).save(folder / "portrait.png")
    t = np.arange(round(1.2 * RATE)) / RATE
    soundfile.write(folder / "voice.wav", 0.3 * np.sin(2 * np.pi * 150 * t), RATE)
    save_checkpoint(folder / "own.safetensors", random_state_dict(seed=3), RANDOM_CONFIG)
    assert main(["speak", *speak_flags(folder, folder / "one.mp4")]) == 0
    return folder


def speak_flags(files: Path, out: Path, *more: object) -> list[str]:
    given = ["--portrait", files / "portrait.png", "--audio", files / "voice.wav", "--out", out, "--size", "32x32",
             "--weights", files / "own.safetensors", "--vae", EMBEDDED_VAE, "--psb", "2",
             "--no-monitor", *more]  # fmt: skip
    return list(map(str, given))


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(int)


def assert_same_video(path: Path, other: Path) -> None:
    """Up to what x264 makes of a difference in the last bit."""
    ours, single = frames_of(path), frames_of(other)
    assert ours.shape == single.shape
    assert abs(ours - single).max() <= 2


def launched(rank: int, world: int, port: int, folder: Path, arguments: list[str], stop_after: int | None) -> None:
    """What `torchrun` starts; the exit code, and what was printed, into files. Ctrl-C comes after some blocks."""
    os.environ.update(
        TORCHELASTIC_RUN_ID="test", RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    if stop_after is not None and rank == 0:
        seen, count = Observer.__call__, iter(range(stop_after))

        def observe(*arguments: object, **named: object) -> None:
            seen(*arguments, **named)
            if next(count, None) is None:
                raise KeyboardInterrupt

        Observer.__call__ = observe
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name} {rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    code = main(arguments)
    (folder / f"code {rank}").write_text(str(code))


def launch(world: int, folder: Path, arguments: list[str], stop_after: int | None = None) -> tuple[int, str]:
    """Run a command in `world` processes; the leader's exit code and errors. The others have said nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if START == "forkserver":
        python_multiprocessing.set_forkserver_preload([__name__])
    given = (world, port, folder, arguments, stop_after)
    multiprocessing.start_processes(launched, given, nprocs=world, start_method=START)
    for rank in range(1, world):
        assert (folder / f"code {rank}").read_text() == "0"
        assert (folder / f"out {rank}").read_text() == (folder / f"err {rank}").read_text() == ""
    return int((folder / "code 0").read_text()), (folder / "err 0").read_text()


@pytest.mark.parametrize(("world", "more"), [(2, []), (2, ["--decode-rank"]), (3, ["--decode-rank"])])
def test_several_processes_make_the_video_of_one(files, tmp_path, world, more):
    code, said = launch(world, tmp_path, ["speak", *speak_flags(files, tmp_path / "two.mp4", *more)])
    assert code == 0, said
    assert (tmp_path / "out 0").read_text().startswith(f"{tmp_path / 'two.mp4'}: 20 frames")
    assert_same_video(tmp_path / "two.mp4", files / "one.mp4")


def test_a_recording_that_was_stopped_resumes_in_several_processes(files, tmp_path):
    flags = ["--checkpoint-every", "1", "--resume", "--state"]
    assert main(["speak", *speak_flags(files, tmp_path / "single.mp4", *flags, tmp_path / "single")]) == 0
    arguments = ["speak", *speak_flags(files, tmp_path / "whole.mp4", *flags, tmp_path / "state", "--decode-rank")]
    code, said = launch(3, tmp_path, arguments, stop_after=1)
    assert code == 130, said
    assert not (tmp_path / "whole.mp4").exists()
    code, said = launch(3, tmp_path, arguments)
    assert code == 0, said
    assert "resuming after block 0" in said
    assert_same_video(tmp_path / "whole.mp4", tmp_path / "single.mp4")


@pytest.mark.parametrize(("world", "arguments", "sentence"), [
    (3, [], "error: 3 processes cannot share the 4 heads of this model; start torchrun with 2 or 4 processes"),
    (2, ["--cuda-graphs"], "error: --cuda-graphs works in one process only"),
    (2, ["--device", "mps"], "and 2 processes run on cpu or cuda; give one of them (--device)"),
    (2, ["--crop", "60,20,400,60"], "is not within the portrait"),
])  # fmt: skip
def test_what_several_processes_cannot_do_is_one_sentence(files, tmp_path, world, arguments, sentence):
    code, said = launch(world, tmp_path, ["speak", *speak_flags(files, tmp_path / "v.mp4", *arguments)])
    assert code == 2
    assert sentence in said
    assert len(said.strip().splitlines()) <= 2  # one may say that it loads
    assert not (tmp_path / "v.mp4").exists()


def test_other_commands_run_in_one_process(files, tmp_path):
    code, said = launch(2, tmp_path, ["inspect", str(files / "own.safetensors")])
    assert (code, said) == (2, "error: 'inspect' runs in one process; start it without torchrun.\n")


def test_one_process_has_no_process_to_decode_in(files, tmp_path, capsys):
    assert main(["speak", *speak_flags(files, tmp_path / "v.mp4", "--decode-rank")]) == 2
    assert "--decode-rank needs two processes or more" in capsys.readouterr().err


def test_the_command_under_torchrun(files, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "joyavatar_core", "speak", *speak_flags(files, tmp_path / "v.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("20 frames") == 1
    assert_same_video(tmp_path / "v.mp4", files / "one.mp4")
