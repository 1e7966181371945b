"""A real ComfyUI, started once for all tests of this folder, with folders of its own and this pack linked in.

The host is looked for at $COMFYUI_PATH, else ~/comfy/ComfyUI; its Python at $COMFYUI_PYTHON, else <host>/.venv. The
page is the host's own, or the files in $COMFYUI_FRONT_END (scripts/host_matrix.py sets all three).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from joyavatar_core.vae import random_state_dict

ROOT = Path(__file__).parents[2]
HOST = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
VENV_PYTHON = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
PYTHON = Path(os.environ.get("COMFYUI_PYTHON", HOST / ".venv" / VENV_PYTHON)).expanduser()
RATE = 16000
PATIENCE = float(os.environ.get("JOYAVATAR_PATIENCE", "60"))  # seconds until a test gives up on what shall appear


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All on one worker, since there is one server; where there is no host, one skipped test says so for all."""
    ours = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in ours:
        item.add_marker(pytest.mark.xdist_group("host"))
    missing = next((path for path in (HOST / "main.py", PYTHON) if not path.is_file()), None)
    if missing and ours:
        reason = f"NO COMFYUI HOST: {missing} is missing, so {len(ours)} tests ran in none (set COMFYUI_PATH)"
        ours[0].add_marker(pytest.mark.skip(reason=reason))
        items[:] = [item for item in items if item not in ours[1:]]
        config.hook.pytest_deselected(items=ours[1:])


class Server:
    """A running ComfyUI: queue graphs in API form and look at what came out."""

    def __init__(self, base: Path, port: int, process: subprocess.Popen) -> None:
        self.base, self.port, self.process = base, port, process
        self.output = base / "output"

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict) -> tuple[int, dict]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    def queue(self, graph: dict) -> str:
        status, answer = self.post("/prompt", {"prompt": graph})
        assert status == 200, answer
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 2 * PATIENCE) -> dict:
        """The history entry of a finished prompt."""
        for _ in range(int(seconds / 0.1)):
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise AssertionError(f"the prompt did not end within {seconds} s")

    def run(self, graph: dict) -> dict:
        """What the nodes of a graph showed, by node id; the graph must succeed."""
        entry = self.wait(self.queue(graph))
        assert entry["status"]["status_str"] == "success", error_of(entry)
        return entry["outputs"]

    def refusal(self, graph: dict) -> str:
        """The sentence with which a graph fails."""
        entry = self.wait(self.queue(graph))
        assert entry["status"]["status_str"] == "error"
        return error_of(entry)["exception_message"]

    def files(self, shown: dict) -> list[Path]:
        folders = {"output": self.output, "temp": self.base / "temp"}
        return [folders[file["type"]] / file["subfolder"] / file["filename"] for file in shown["images"]]

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def error_of(entry: dict) -> dict:
    messages = {name: detail for name, detail in entry["status"]["messages"]}
    return messages.get("execution_error") or messages.get("execution_interrupted") or messages


def environment() -> dict[str, str]:
    """One passive thread: the machine may be busy with other tests."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's folders: the pack, a narrow VAE, a LoRA of another model, a portrait and three voices."""
    base = tmp_path_factory.mktemp("host")
    for folder in ("custom_nodes", "input", "output", "models/vae", "models/loras"):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "ComfyUI-JoyAvatar").symlink_to(ROOT, target_is_directory=True)
    shutil.copy(Path(__file__).with_name("old_names.py"), base / "custom_nodes")
    vae = {name: tensor.contiguous() for name, tensor in random_state_dict(16).items()}
    save_file(vae, base / "models" / "vae" / "narrow.safetensors")
    foreign = {f"other.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}
    save_file(foreign, base / "models" / "loras" / "foreign.safetensors")
    picture = np.random.default_rng(0).integers(0, 255, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(picture).save(base / "input" / "portrait.png")
    for name, seconds in (("short", 0.7), ("medium", 4.0), ("long", 60.0)):
        samples = np.sin(np.arange(round(seconds * RATE)) * 0.05) * 9000
        with wave.open(str(base / "input" / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
    return base


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[Server]:
    """The running host."""
    with running_server(base) as started:
        yield started


@pytest.fixture
def another_server(base: Path):
    """another_server(): a host beside the first with the same folders, for a test that kills it; a context manager."""
    return lambda: running_server(base, "another.log")


@contextmanager
def running_server(base: Path, log_name: str = "server.log") -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--cpu", "--port", str(port), "--listen", "127.0.0.1", "--base-directory", str(base)]
    flags += ["--disable-auto-launch", "--database-url", "sqlite:///:memory:", "--preview-method", "none"]
    if os.environ.get("COMFYUI_FRONT_END"):
        flags += ["--front-end-root", os.environ["COMFYUI_FRONT_END"]]
    log = base / log_name
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(PYTHON), "main.py", *flags], cwd=HOST, env=environment(), stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            started = Server(base, port, process)
            await_start(started, log)
            yield started
        finally:
            process.terminate()
            process.wait(20)


def await_start(server: Server, log: Path) -> None:
    for _ in range(300):
        assert server.process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(1)
    raise AssertionError("the host did not start within five minutes")


@pytest.fixture(scope="session")
def probe(base: Path) -> dict:
    """What probe.py found inside a process of the host."""
    place = base / "probe"
    shutil.copytree(base / "models", place / "models")
    command = [str(PYTHON), str(Path(__file__).with_name("probe.py")), str(HOST), str(ROOT), str(place)]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture
def talk():
    """talk(size=64, audio="short.wav", seed=1, vae=None, **nodes): a graph up to the stream, node "stream"."""

    def graph(size: int = 64, audio: str = "short.wav", seed: int = 1, vae: str | None = None, **nodes: dict) -> dict:
        loader = {"model_name": "embedded", "weight_dtype": "default", "base_model": "none"}
        wired = {"vae": ["vae", 0]} if vae else {}
        reference = {"image": ["image", 0], "model": ["model", 0], "width": size, "height": size, **wired}
        sampler = {"model": ["model", 0], "reference": ["reference", 0], "voice": ["voice", 0], "seed": seed}
        graph = {
            "model": node("JoyAvatarModelLoader", **loader),
            "image": node("LoadImage", image="portrait.png"),
            "reference": node("JoyAvatarReference", **reference),
            "audio": node("LoadAudio", audio=audio),
            "voice": node("JoyAvatarAudioEncode", audio=["audio", 0], model=["model", 0], max_seconds=0.0),
            "stream": node("JoyAvatarStreamingSampler", preset="checkpoint", **sampler),
        }
        if vae:
            graph["vae"] = node("VAELoader", vae_name=vae)
        return {**graph, **nodes}

    return graph


def node(class_type: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs}


@pytest.fixture(name="node")
def node_fixture():
    """node(class_type, **inputs) -> a node in API form."""
    return node
