"""Shared miniature: a seeded transformer small enough for hundreds of blocks, and a voice as recorded features."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from joyavatar_core.audio import Features
from joyavatar_core.config import AvatarConfig
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.sampling.stream import AvatarStream

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with Ctrl-C ignored

MINIATURE = AvatarConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=4, text_dim=8, freq_dim=16, audio_dim=6, audio_hidden=4,
    text_tokens=4, trained_positions=15,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RecordedFeatures(Features):
    """Features of a voice that is `num_video_frames` long; a frame's numbers depend on its index alone."""

    feature_dim: int = 6
    block_frames: int = 3
    num_video_frames: int | None = None
    fps: int = 16

    def wait(self, block: int, timeout: float | None = None) -> bool:
        return True

    def latent_features(self, first: int, count: int) -> torch.Tensor:
        frames = torch.arange(first * 4, (first + count) * 4, dtype=torch.float32)
        angles = frames[:, None] * torch.arange(1, self.feature_dim + 1) * 0.37
        return angles.sin().unflatten(0, (count, 4))


def build_model(config: AvatarConfig = MINIATURE, seed: int = 0) -> AvatarTransformer:
    """A transformer whose weights are lively enough that every input matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)  # of the layers' own initialisation
        model = AvatarTransformer(config).eval()
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter += torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    return model


@pytest.fixture(scope="session")
def model() -> AvatarTransformer:
    return build_model()


@pytest.fixture(scope="session")
def make_stream(model):
    """make_stream(**fields) -> AvatarStream over the miniature with a seeded portrait of 4 x 4 latents."""

    def make(**fields: object) -> AvatarStream:
        reference = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(5))
        return AvatarStream(**{"model": model, "reference": reference, "audio": RecordedFeatures(), **fields})

    return make


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The pack as a host imports it, over the stand-in of the host's API; `pack.nodes` are its nodes."""
    root = Path(__file__).parent.parent
    sys.path.insert(0, str(root / "tests" / "fake_comfy"))
    spec = importlib.util.spec_from_file_location("joyavatar_pack", root / "__init__.py")
    module = sys.modules["joyavatar_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("joyavatar_pack.nodes")
    return module


@pytest.fixture(scope="session")
def host(pack: ModuleType) -> SimpleNamespace:
    """The nodes by their short names, an embedded model, 2.2 s of voice, and the pack's error."""
    nodes = {node.__name__.removeprefix("JoyAvatar"): node for node in pack.nodes.NODES}
    model = nodes["ModelLoader"].execute("embedded", "default", "none")[0]
    wave = torch.sin(torch.arange(round(2.2 * 16000)) * 0.05) * 0.3
    voice = nodes["AudioEncode"].execute({"waveform": wave[None, None], "sample_rate": 16000}, model, 0.0)[0]
    return SimpleNamespace(**nodes, pack=pack, model=model, voice=voice, error=pack.joyavatar_core.errors.AvatarError)


@pytest.fixture(scope="session")
def vae(pack: ModuleType) -> object:
    """A narrow Wan2.1 VAE as the host's Load VAE gives it."""
    from comfy.model_patcher import ModelPatcher

    class HostVAE:
        patcher = ModelPatcher(None, torch.device("cpu"), torch.device("cpu"))

        def get_sd(self):
            return pack.joyavatar_core.vae.random_state_dict(8)

    return HostVAE()


@pytest.fixture
def output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in host's output folder."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "base", tmp_path)
    return tmp_path / "output"
