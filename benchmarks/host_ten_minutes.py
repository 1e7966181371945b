"""Ten minutes of speech through a running ComfyUI: the server's memory after one minute of video and at the end.

    python benchmarks/host_ten_minutes.py [--minutes 10] [--size 32]

Starts the host at $COMFYUI_PATH with the Python at $COMFYUI_PYTHON, as the tests in tests/host do, and queues one talk
with a state folder. espeak-ng reads the voice. Resident memory is read whenever a state has been written. Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import av
from one_hour import make_voice
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.host.conftest import Server, error_of, node, running_server  # noqa: E402

FPS, BLOCK = 16, 12  # of the embedded avatar: frames a second, frames a block


def graph(size: int) -> dict:
    """Portrait and voice to a video with a state folder."""
    model = {"model": ["model", 0]}
    return {
        "model": node("JoyAvatarModelLoader", model_name="embedded", weight_dtype="default", base_model="none"),
        "image": node("LoadImage", image="portrait.png"),
        "reference": node("JoyAvatarReference", image=["image", 0], width=size, height=size, **model),
        "audio": node("LoadAudio", audio="voice.wav"),
        "voice": node("JoyAvatarAudioEncode", audio=["audio", 0], max_seconds=0.0, **model),
        "stream": node(
            "JoyAvatarStreamingSampler", reference=["reference", 0], voice=["voice", 0], preset="checkpoint", seed=1,
            **model,
        ),
        "video": node(
            "JoyAvatarStreamToVideo", stream=["stream", 0], filename_prefix="long", quality=18, state="state"
        ),
    }  # fmt: skip


def watch(server: Server, prompt_id: str) -> list[tuple[int, int]]:
    """(blocks recorded, resident bytes) at every new state, and once more when the file is joined."""
    marks: list[tuple[int, int]] = []
    while prompt_id not in server.get(f"/history/{prompt_id}"):
        states = [int(path.name[6:14]) for path in server.output.glob("state/state-????????.safetensors")]
        if states and (not marks or max(states) > marks[-1][0]):
            marks.append((max(states), server.resident_bytes()))
        time.sleep(0.05)
    return [*marks, (marks[-1][0], server.resident_bytes())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--size", type=int, default=32, help="width and height in pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in ("custom_nodes", "input", "output", "models"):
            (base / name).mkdir()
        (base / "custom_nodes" / "ComfyUI-JoyAvatar").symlink_to(ROOT, target_is_directory=True)
        make_voice(base / "input" / "voice.wav", 60 * args.minutes)
        Image.effect_noise((64, 64), 80).convert("RGB").save(base / "input" / "portrait.png")
        with running_server(base) as server:
            idle, started = server.resident_bytes(), time.perf_counter()
            talk = graph(args.size)
            prompt_id = server.queue(talk)
            marks = watch(server, prompt_id)
            seconds = time.perf_counter() - started
            entry = server.wait(prompt_id)
            if entry["status"]["status_str"] != "success":
                sys.exit(str(error_of(entry)))
            plot = {**talk, "report": node("JoyAvatarStreamReport", source=["video", 0])}
            server.run(plot)  # the host remembers the video, so that only the report runs
            plotted = server.resident_bytes()
            video = server.files(entry["outputs"]["video"])[0]
            with av.open(str(video)) as file:
                tracks = file.streams.video[0], file.streams.audio[0]
                picture, sound = (float(track.duration * track.time_base) for track in tracks)
    print("at every state, MB: " + " ".join(f"{resident / 1e6:.0f}" for _, resident in marks))
    minute = next(resident for block, resident in marks if block * BLOCK >= 60 * FPS)
    recorded, joined = (resident for _, resident in marks[-2:])
    print(f"{args.minutes:g} minutes at {args.size}x{args.size} in {seconds:.0f} s; idle {idle / 1e6:.1f} MB, after "
          f"one minute {minute / 1e6:.1f} MB, at the last state {recorded / 1e6:.1f} MB "
          f"({(recorded - minute) / 1e6:+.1f}), "
          f"joined {joined / 1e6:.1f} MB ({(joined - minute) / 1e6:+.1f}), "
          f"with its plot drawn {plotted / 1e6:.1f} MB ({(plotted - minute) / 1e6:+.1f})")  # fmt: skip
    print(f"picture {picture:.4f} s, sound {sound:.4f} s")


if __name__ == "__main__":
    main()
