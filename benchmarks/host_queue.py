"""What ComfyUI's queue adds: the same talking video through a running server and through the command line.

    python benchmarks/host_queue.py [--server http://127.0.0.1:8188] [--size 128] [--rounds 5]

Alternates the two and compares medians of the time from a recipe to a finished file, without start-up and imports (the
command line is called inside one process, the server has run once before). Run both with the same torch and threads.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from joyavatar_core.cli import main as joyavatar

ASSETS = Path(__file__).parent.parent / "joyavatar_core" / "assets"
PERSON = "ada"


def graph(size: int, seed: int) -> dict:
    def node(class_type: str, **inputs: object) -> dict:
        return {"class_type": class_type, "inputs": inputs}

    model = {"model": ["model", 0]}
    return {
        "model": node("JoyAvatarModelLoader", model_name="embedded", weight_dtype="default", base_model="none"),
        "image": node("LoadImage", image=f"joyavatar_{PERSON}.png"),
        "reference": node("JoyAvatarReference", image=["image", 0], width=size, height=size, **model),
        "audio": node("LoadAudio", audio=f"joyavatar_{PERSON}.flac"),
        "voice": node("JoyAvatarAudioEncode", audio=["audio", 0], max_seconds=0.0, **model),
        "stream": node(
            "JoyAvatarStreamingSampler", reference=["reference", 0], voice=["voice", 0], preset="checkpoint", seed=seed,
            **model,
        ),
        "video": node("JoyAvatarStreamToVideo", stream=["stream", 0], filename_prefix="benchmark/queue", quality=18),
    }  # fmt: skip


def through_queue(server: str, size: int, seed: int) -> float:
    """Seconds from the start of execution to its success, by the server's own clock."""
    body = json.dumps({"prompt": graph(size, seed)}).encode()
    request = urllib.request.Request(f"{server}/prompt", body, {"Content-Type": "application/json"})
    prompt_id = json.load(urllib.request.urlopen(request))["prompt_id"]
    while prompt_id not in (history := json.load(urllib.request.urlopen(f"{server}/history/{prompt_id}"))):
        time.sleep(0.2)
    times = {name: detail["timestamp"] for name, detail in history[prompt_id]["status"]["messages"]}
    return (times["execution_success"] - times["execution_start"]) / 1000


def through_command_line(folder: Path, size: int, seed: int) -> float:
    files = ["--portrait", str(ASSETS / f"portraits/{PERSON}.png"), "--audio", str(ASSETS / f"voices/{PERSON}.flac")]
    arguments = ["speak", *files, "--out", str(folder / f"{seed}.mp4"), "--size", f"{size}x{size}", "--seed", str(seed)]
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        joyavatar(arguments)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        queue, line = [], []
        for seed in range(args.rounds + 1):  # the first round warms both up
            queue.append(through_queue(args.server, args.size, seed))
            line.append(through_command_line(Path(folder), args.size, seed))
    queue, line = statistics.median(queue[1:]), statistics.median(line[1:])
    print(f"{args.size}x{args.size}: queue {queue:.2f} s, command line {line:.2f} s, ratio {queue / line:.3f}")


if __name__ == "__main__":
    main()
