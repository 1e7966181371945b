"""The command in odd surroundings: read-only places, terminals that cannot write names, players of any kind."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from joyavatar_core.cli import main
from joyavatar_core.video.live_encoder import LiveEncoder

RATE = 16000
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.effect_noise((64, 64), 80).save(folder / "portrait.png")
    soundfile.write(folder / "voice.wav", 0.3 * np.sin(np.arange(RATE // 2) / 10), RATE)
    soundfile.write(folder / "96k.flac", 0.3 * np.sin(np.arange(48000) / 60), 96000, subtype="PCM_24")
    return folder


def flags(files, out, *more: object, audio: str = "voice.wav") -> list[str]:
    given = ["--portrait", files / "portrait.png", "--audio", files / audio, "--out", out, "--size", "32x32"]
    return ["speak", *map(str, [*given, "--psb", "1", *more])]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "joyavatar_core", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True)


# --- files that play everywhere ---------------------------------------------------------------------------------------

# What Chrome, Firefox, Safari, Windows' Media Foundation, Android and iOS all decode in an mp4.
PLAYED = {
    "h264": {"Baseline", "Constrained Baseline", "Main", "High"},
    "aac": {"LC"},
    "rates": {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000},
}


def check_plays_everywhere(path) -> None:
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert video.codec_context.name == "h264" and video.profile in PLAYED["h264"]
        assert (video.pix_fmt, video.codec_context.width % 2, video.codec_context.height % 2) == ("yuv420p", 0, 0)
        assert audio.codec_context.name == "aac" and audio.profile in PLAYED["aac"]
        assert audio.rate in PLAYED["rates"] and audio.layout.nb_channels in (1, 2)


def boxes(data: bytes) -> list[str]:
    names, position = [], 0
    while position + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        names.append(name.decode("latin1"))
        position += length
    return names


@pytest.mark.parametrize("audio", ["voice.wav", "96k.flac"])
def test_a_finished_video_plays_everywhere(audio, files, tmp_path):
    assert main(flags(files, tmp_path / "v.mp4", audio=audio)) == 0
    check_plays_everywhere(tmp_path / "v.mp4")
    order = boxes((tmp_path / "v.mp4").read_bytes())
    assert order.index("moov") < order.index("mdat")  # it plays while it is loaded


@pytest.mark.parametrize("rate", [7350, 8000, 16000, 44100, 64000, 88200, 96000, 192000])
@pytest.mark.parametrize("kind", ["mp4", "mpegts"])
def test_a_live_video_plays_everywhere_at_any_rate_of_the_voice(kind, rate, tmp_path):
    encoder = LiveEncoder(48, 32, 16, rate, formats=(kind,))
    sound = 0.1 * np.sin(np.arange(rate) / 20).astype(np.float32)
    data = encoder.heads[kind] + encoder.encode(np.zeros((16, 32, 48, 3), np.uint8), sound)[kind]
    (tmp_path / "v").write_bytes(data + encoder.finish()[kind])
    check_plays_everywhere(tmp_path / "v")


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a POSIX system")
def test_it_runs_where_neither_home_nor_package_nor_caches_can_be_written(files, tmp_path):
    """A container's surroundings: nothing is writable but the folder of the video."""
    out = tmp_path / "out"
    out.mkdir()
    nowhere = {
        name: "/proc/none"
        for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCH_HOME", "HF_HOME", "TMPDIR")
    }
    code = (
        "import sys, runpy; sys.dont_write_bytecode = True\n"
        "sys.argv[0] = 'joyavatar'\n"
        "runpy.run_module('joyavatar_core', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *flags(files, out / "v.mp4", "--report", out / "r.json")]
    mount = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"; shift; exec "$@"']
    if os.geteuid() == 0 and shutil.which("unshare"):
        command = [*mount, "sh", sys.prefix, *command]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **nowhere}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and (out / "v.mp4").exists() and (out / "r.json").exists()


def test_speaking_loads_no_compiler_and_no_library_that_has_one(files, tmp_path):
    code = (
        "import sys; from joyavatar_core.cli import main; "
        "code = main(sys.argv[1:]); print(sorted({'librosa', 'numba', 'scipy', 'sklearn'} & set(sys.modules))); "
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *flags(files, tmp_path / "v.mp4")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A folder nothing can be created in, for root too."""
    folder = tmp_path / "read only"
    folder.mkdir()
    real = os.open

    def refusing(path, mode, *more, **named):
        if Path(os.fsdecode(path)).parent == folder and mode & os.O_CREAT:
            raise OSError(30, "Read-only file system", str(path))
        return real(path, mode, *more, **named)

    if os.name == "posix" and os.geteuid() != 0:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    else:
        monkeypatch.setattr(os, "open", refusing)
    yield folder
    folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("flag", ["--report", "--plot", "--out", "--state"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_loaded(
    flag, read_only, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("joyavatar_core.pipeline.avatar.load_avatar", lambda *a, **k: pytest.fail("already loading"))
    name = {"--report": "r.json", "--plot": "p.png", "--out": "v.mp4", "--state": "state"}[flag]
    assert main(flags(files, tmp_path / "v.mp4", flag, read_only / name)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and name in error and "cannot be written" in error


@pytest.mark.parametrize("what", ["a folder", "not a plain file", "too long"])
def test_a_name_that_is_no_file_to_write_is_said_before(what, files, tmp_path, capsys):
    (tmp_path / "r.json").mkdir()
    place = {"a folder": tmp_path / "r.json", "not a plain file": os.devnull, "too long": tmp_path / ("x" * 252)}[what]
    assert main(flags(files, tmp_path / "v.mp4", "--report", place)) == 2
    assert ("File name too long" if what == "too long" else what) in capsys.readouterr().err
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("flag", ["--report", "--plot"])
def test_a_report_that_fails_at_the_end_leaves_the_video_and_its_exit_code(flag, files, tmp_path, monkeypatch, caplog):
    name = "r.json" if flag == "--report" else "p.png"
    real = os.replace

    def full(source, target, *more, **named):
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        return real(source, target, *more, **named)

    monkeypatch.setattr(os, "replace", full)
    assert main(flags(files, tmp_path / "v.mp4", flag, tmp_path / name)) == 0
    assert any("No space left" in record.getMessage() for record in caplog.records)
    assert (tmp_path / "v.mp4").stat().st_size > 1000


def test_what_is_read_is_never_what_is_written(files, tmp_path, capsys):
    shutil.copy(files / "voice.wav", tmp_path / "voice.mp4")  # told by its contents, not its name
    before = (tmp_path / "voice.mp4").read_bytes()
    arguments = flags(files, tmp_path / "voice.mp4")
    arguments[arguments.index("--audio") + 1] = str(tmp_path / "voice.mp4")
    assert main(arguments) == 2
    assert "would replace the voice" in capsys.readouterr().err and (tmp_path / "voice.mp4").read_bytes() == before
    arguments[arguments.index("--audio") + 1] = f'"{tmp_path / "voice.mp4"}"'  # quoted, as file managers copy it
    assert main(arguments) == 2
    assert "would replace the voice" in capsys.readouterr().err and (tmp_path / "voice.mp4").read_bytes() == before


@pytest.mark.parametrize(("one", "other"), [("--report", "--plot"), ("--report", None)])
def test_two_files_of_a_run_have_different_names(one, other, files, tmp_path, capsys):
    place = tmp_path / ("v.mp4" if other is None else "r.json")
    more = [one, place] + ([] if other is None else [other, place])
    assert main(flags(files, tmp_path / "v.mp4", *more)) == 2
    assert "would replace the" in capsys.readouterr().err and not place.exists()


def test_a_report_in_the_home_folder_is_written_there(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(flags(files, tmp_path / "v.mp4", "--report", "~/r.json")) == 0
    assert (tmp_path / "r.json").is_file()


def test_a_state_folder_in_the_home_folder_is_resumed(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for more in ((), ("--resume",)):
        assert main(flags(files, tmp_path / "v.mp4", "--state=~/state", *more)) == 0
    assert (tmp_path / "state").is_dir()


def test_a_model_file_in_the_home_folder_is_found(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    assert main(flags(files, tmp_path / "v.mp4", "--weights=~/w.safetensors")) == 2
    assert "does not exist" not in capsys.readouterr().err
    assert main(["inspect", "~/w.safetensors"]) == 2
    assert "No such file" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--report", "."), "The report . is a folder, expected the name of a file; choose another name."),
        (("--plot", "p.jpg"), "The plot's name is 'p.jpg', expected one that ends in .png; rename it."),
        (("--portrait", ""), "The name of the portrait is empty; give the path of a file."),
        (("--portrait", "."), "The portrait . cannot be read as a picture: it is a folder; give a picture's name."),
        (("--out", "."), "is a folder, expected the name of a video file; add a file name."),
    ],
)
def test_a_wrong_kind_of_name_is_one_sentence(more, sentence, files, tmp_path, capsys):
    assert main(flags(files, tmp_path / "v.mp4", *more)) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith(sentence)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "stopped; what was made plays: {folder}/v.part.mp4"),
        (("--state", "{folder}/state", "--checkpoint-every", "1"), "start the command again with --resume to go on at"),
    ],
)
def test_a_stopped_run_says_what_is_kept(more, sentence, files, tmp_path, monkeypatch, capsys):
    from joyavatar_core.monitoring.observer import Observer

    soundfile.write(tmp_path / "long.wav", 0.3 * np.sin(np.arange(3 * RATE) / 10), RATE)
    add = Observer.__call__

    def stop_later(self, block, frames, **facts):
        if block.index == 2:
            raise KeyboardInterrupt
        add(self, block, frames, **facts)

    monkeypatch.setattr(Observer, "__call__", stop_later)
    more = (part.format(folder=tmp_path) for part in more)
    given = flags(files, tmp_path / "v.mp4", "--report", tmp_path / "r.json", *more, audio=tmp_path / "long.wav")
    assert main(given) == 130
    assert sentence.format(folder=tmp_path) in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["frames"] > 0


# --- terminals --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["声音 🎬.mp4", "two\nlines.mp4", os.fsdecode(b"\xff\xfe.mp4")])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_name_that_the_terminal_cannot_write_ends_nothing(name, encoding, files, tmp_path):
    done = run(flags(files, tmp_path / name), PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert (tmp_path / name).exists() and len(done.stdout.splitlines()) == 1


def test_a_sentence_about_a_name_of_two_lines_is_one_line(files, tmp_path, capsys):
    assert main(flags(files, tmp_path / "v.mp4", audio="two\nlines.wav")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "two\\nlines.wav" in error


def test_nobody_reads_the_last_line(files, tmp_path):
    command = [sys.executable, "-m", "joyavatar_core", *flags(files, tmp_path / "v.mp4")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0 and b"Traceback" not in said


def test_names_that_begin_with_a_dash_are_names(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(files / "voice.wav", "-voice.wav")
    shutil.copy(files / "portrait.png", "--portrait.png")
    short = ["--size", "32x32", "--psb", "1"]
    given = ["--portrait", "--portrait.png", "--audio", "-voice.wav", "--out", "-v.mp4", "--report", "r.json", *short]
    assert main(["speak", *given]) == 0
    assert Path("-v.mp4").exists() and json.loads(Path("r.json").read_text(encoding="utf-8"))["frames"] == 8
