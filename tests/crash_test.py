"""Kill the command line again and again, fill its disk, and hold what it leaves behind to an uninterrupted run.

    python tests/crash_test.py --kills 20

Every kill is a real SIGKILL of a process that runs ``joyavatar speak``, at a random moment or while a certain file is
being written. After each, what is left must play and be the beginning of the uninterrupted video; resumed to its end,
a recording must have the same frames before encoding, the same segments and the same decoded video. To be quick, the
processes are forked from one that has imported everything but computed nothing that matters.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

RATE, SECONDS, EVERY = 16000, 12.0, 3  # 192 frames, 17 blocks, 6 segments
CODED = 6.0  # grey levels between two encodings of a picture
KILLED = -signal.SIGKILL if os.name == "posix" else None
MOMENTS = {  # a kill may wait for one of these to appear in the state folder (or beside the video)
    "state being written": "state-*.tmp",
    "segment being written": "segment-*.part.mp4",
    "segment being finished": "segment-*.mp4.tmp",
    "video being joined": "../v.mp4.tmp",
}
ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="SKIPPED: kill -9 and fork are POSIX; nothing was killed")


class Nursery:
    """A process that has imported everything and forks a ``joyavatar`` for every command line it is sent."""

    def __enter__(self) -> Nursery:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
        self.child: int | None = None
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        return self

    def start(self, arguments: list[str], log: Path) -> int:
        """Returns the process id."""
        self.child = self._ask([*arguments, str(log)])
        return self.child

    def wait(self) -> int:
        """Exit code of the process started last; minus the signal where one ended it."""
        code = self._ask("wait")
        self.child = None
        return code

    def _ask(self, request: object) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        if self.child is not None:  # a check failed in the middle
            os.kill(self.child, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(60)


def serve() -> None:
    """The nursery's side."""
    import torch

    from joyavatar_core import cli
    from joyavatar_core.audio import ArrayAudio
    from joyavatar_core.audio.resample import read_resampled
    from joyavatar_core.recording import Recording  # noqa: F401

    torch.set_num_threads(1)
    read_resampled(ArrayAudio(np.zeros(2000, np.float32), 8000), 0, 1000, 16000)  # lazy imports inside
    child = 0
    for line in sys.stdin:
        request = json.loads(line)
        if request == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            log = os.open(request.pop(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = 99
            try:
                code = cli.main(request)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(child, flush=True)


def make_inputs(folder: Path) -> None:
    import soundfile
    from PIL import Image

    Image.effect_noise((64, 64), 80).save(folder / "portrait.png")
    t = np.arange(round(SECONDS * RATE)) / RATE
    syllables = np.sin(2 * np.pi * 3 * t) > 0
    soundfile.write(folder / "voice.wav", 0.3 * np.sin(2 * np.pi * (150 + 5 * t) * t) * syllables, RATE)


def decoded(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


class Trial:
    """A recording in `place` that is going to be ended, again and again, and then resumed to its end."""

    def __init__(self, nursery: Nursery, inputs: Path, place: Path, reference: Trial | None = None) -> None:
        self.nursery, self.inputs, self.place, self.reference = nursery, inputs, place, reference
        self.state, self.out, self.log = place / "state", place / "v.mp4", inputs / "log.txt"
        place.mkdir(exist_ok=True)

    def start(self) -> int:
        return self.nursery.start(
            ["speak", "--portrait", str(self.inputs / "portrait.png"), "--audio", str(self.inputs / "voice.wav"),
             "--out", str(self.out), "--size", "32x32", "--state", str(self.state), "--checkpoint-every", str(EVERY),
             "--resume"], self.log,
        )  # fmt: skip

    def finish(self) -> None:
        """Run to the end and compare with the uninterrupted recording."""
        self.start()
        code = self.nursery.wait()
        assert code == 0, f"exit code {code}: {self.log.read_text()[-2000:]}"
        self.segments = self.read_segments()
        self.frames = decoded(self.out)
        if self.reference is not None:
            assert self.segments == self.reference.segments, "other frames than the uninterrupted run"
            assert np.array_equal(self.frames, self.reference.frames), "another video"

    def read_segments(self) -> list[str]:
        """Hashes of the segments' frames before coding."""
        from joyavatar_core.recording.state import read_state

        segments = read_state(max(self.state.glob("state-*.safetensors")), 1 << 30)["segments"]
        return [pictures for _, _, pictures in segments]

    def check_what_is_left(self) -> int:
        """What is there plays and is the beginning of the uninterrupted video; returns its frames.

        Of a segment that was not finished the encoder saw less ahead, so its pictures may be coded differently.
        """
        from joyavatar_core.errors import AvatarError
        from joyavatar_core.recording import join_recording

        finished = len(list(self.state.glob("segment-????????.mp4"))) if self.state.exists() else 0
        saved = self.inputs / "saved.mp4"
        try:
            join_recording(self.state, saved)
        except AvatarError as problem:
            assert not finished, f"{finished} segments, and yet: {problem}"
            return 0
        frames = decoded(saved)
        true = self.reference.frames[: len(frames)]
        exact = max(0, 12 * EVERY * finished - 3)  # block 0 shows 9 frames, the others 12
        assert np.array_equal(frames[:exact], true[:exact]), "a finished segment is not the video"
        for place in range(exact, len(frames)):
            away = [np.abs(frames[place].astype(int) - picture).mean() for picture in self.reference.frames]
            assert away[place] < CODED, "what was saved is not the video"
            assert away[place] < min(away) + CODED / 12, "what was saved is another frame of the video"
        if self.out.exists():
            assert np.array_equal(decoded(self.out), self.reference.frames)
        return len(frames)


def wait_until(condition: Callable[[], bool], process: int, seconds: float = 120) -> bool:
    """Watch closely; False when the process ended first."""
    deadline = time.monotonic() + seconds
    while not condition():
        time.sleep(0.0005)
        if time.monotonic() > deadline:
            return False
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{process}/stat", encoding="utf-8") as status:
            if status.read().rsplit(")", 1)[1].split()[0] == "Z":
                return False
    return True


def kill(trial: Trial, dice: random.Random, moment: str, duration: float) -> str:
    """Start, and SIGKILL at a random time or at a moment; returns what happened."""
    process = trial.start()
    if moment == "random":
        segments = len(trial.reference.segments)
        name = f"segment-{EVERY * dice.randrange(segments):08d}*.mp4"  # progress, not time: other programs run as well
        wait_until(lambda: any(trial.state.glob(name)), process)
        time.sleep(dice.uniform(0, min(0.3, duration / segments)))
    else:
        skip = dice.randrange(3)  # not always the first such moment

        def seen() -> bool:
            nonlocal skip
            if any(trial.state.glob(MOMENTS[moment])):
                if not skip:
                    return True
                skip -= 1
                time.sleep(0.05)
            return False

        wait_until(seen, process)
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0, 0.01))
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    code = trial.nursery.wait()
    assert code in (KILLED, 0), trial.log.read_text()[-2000:]
    return moment if code == KILLED else "finished first"


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path | None]:
    """A folder on a tmpfs of `size`; None where it cannot be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "joyavatar-crash-test", folder]
        mounted = False
        with contextlib.suppress(OSError):
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        try:
            yield Path(folder) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Leave so many bytes free."""
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    ballast.write_bytes(bytes(max(0, free - leave)))
    return ballast


def reference_run(nursery: Nursery, folder: Path) -> tuple[Trial, float]:
    make_inputs(folder)
    trial = Trial(nursery, folder, folder / "reference")
    started = time.monotonic()
    trial.finish()
    return trial, time.monotonic() - started


def kills(nursery: Nursery, reference: Trial, duration: float, count: int, seed: int = 0) -> Counter[str]:
    """`count` real kills, two or three a recording, every recording resumed to its end."""
    dice, happened, number = random.Random(seed), Counter(), 0
    kinds = ["random", *MOMENTS]
    while sum(happened[kind] for kind in kinds) < count:
        trial = Trial(nursery, reference.inputs, reference.inputs / f"trial{number}", reference)
        for _ in range(min(dice.choice([2, 3]), count - sum(happened[kind] for kind in kinds))):
            rarest = min(kinds, key=lambda kind: happened[kind])
            happened[kill(trial, dice, rarest, duration)] += 1
            trial.check_what_is_left()
        trial.finish()
        shutil.rmtree(trial.place)
        number += 1
    return happened


def polite_end(nursery: Nursery, reference: Trial, number: signal.Signals) -> None:
    """SIGINT and SIGTERM: exit code 130, a finished file of every frame so far, resumed to the same video."""
    trial = Trial(nursery, reference.inputs, reference.inputs / number.name, reference)
    process = trial.start()
    assert wait_until(lambda: any(trial.state.glob("segment-00000003.part.mp4")), process)
    time.sleep(0.3)
    os.kill(process, number)
    assert nursery.wait() == 130, trial.log.read_text()[-2000:]
    for path in trial.state.glob("segment-*.mp4"):
        assert len(decoded(path)), f"{path.name} does not play"
    assert trial.check_what_is_left() >= 33
    trial.finish()


def full_disk(nursery: Nursery, reference: Trial, leave: int) -> str:
    """A disk with `leave` bytes free once the first segment is there; returns the sentence that was said."""
    with small_disk("24m") as disk:
        if disk is None:
            return ""
        trial = Trial(nursery, reference.inputs, disk / "run", reference)
        process = trial.start()
        assert wait_until(lambda: (trial.state / "state-00000003.safetensors").exists(), process)
        os.kill(process, signal.SIGSTOP)  # so that exactly this much is left
        ballast = fill(disk, leave)
        os.kill(process, signal.SIGCONT)
        said = trial.log.stat().st_size
        code = nursery.wait()
        sentence = trial.log.read_bytes()[said:].decode().strip().splitlines()[-1]
        assert code == 2 and "error:" in sentence and os.strerror(errno.ENOSPC) in sentence, sentence
        trial.check_what_is_left()
        assert trial.start() and nursery.wait() in (0, 2)  # still full: a sentence again
        ballast.unlink()
        trial.finish()
        return sentence


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with Nursery() as nursery:
        trial, duration = reference_run(nursery, tmp_path_factory.mktemp("crash"))
        yield nursery, trial, duration


def test_killed_runs_leave_what_plays_and_resume_to_the_same_video(reference):
    happened = kills(*reference, count=4)
    assert happened["random"] and happened["state being written"]


def test_a_terminated_run_ends_cleanly(reference):
    polite_end(*reference[:2], signal.SIGTERM)


def test_a_full_disk_is_a_sentence_and_resumes_to_the_same_video(reference):
    if not full_disk(*reference[:2], leave=3_000_000):
        pytest.skip("SKIPPED: mounting a small tmpfs needs root; the full disk was not tried")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder, Nursery() as nursery:
        trial, duration = reference_run(nursery, Path(folder))
        frames, segments = len(trial.frames), len(trial.segments)
        print(f"uninterrupted: {frames} frames in {segments} segments, {duration:.1f} s")
        happened = kills(nursery, trial, duration, args.kills, args.seed)
        print("killed, every one resumed to identical frames and the same video:")
        for kind, count in happened.items():
            print(f"  {count:3} {kind}")
        for number in (signal.SIGINT, signal.SIGTERM):
            polite_end(nursery, trial, number)
            print(f"{number.name}: clean end, plays, resumed to identical frames and the same video")
        for leave in (50_000, 600_000, 1_500_000, 3_000_000):
            sentence = full_disk(nursery, trial, leave)
            if not sentence:
                print("SKIPPED: mounting a small tmpfs needs root; the full disk was not tried")
                break
            print(f"disk full with {leave:,} bytes left: resumed to identical frames; it said\n  {sentence}")


if __name__ == "__main__":
    main()
