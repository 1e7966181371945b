"""Nothing inside a block waits for the device: held on torch's meta device, from which no number can be read."""

from __future__ import annotations

import collections
import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from joyavatar_core import device
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.pipeline import render
from joyavatar_core.pipeline.embedded import ASSETS, load_embedded_refiner
from joyavatar_core.refiner import FrameRate, face_editor, frame_rate, portrait_refiner
from joyavatar_core.refiner import model as refiner_model
from joyavatar_core.refiner.eye_movements import EyeMovements
from joyavatar_core.refiner.head_movements import HeadMovements
from joyavatar_core.sampling.mci import MciSettings
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.psb import PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream, LatentBlock
from joyavatar_core.sampling.urcr import UrcrSettings
from joyavatar_core.vae import StreamingVAE, TinyDecoder
from joyavatar_core.video.portrait import load_portrait

from .conftest import MINIATURE, RecordedFeatures

DEVICE = torch.device("meta")


class Crossings(TorchDispatchMode):
    """Counts tensors that go from the CPU to the device, by the name of the operation; the way back raises."""

    def __init__(self) -> None:
        super().__init__()
        self.count: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        real = [x for x in tensors if x.ndim or x.device == DEVICE]  # numbers travel with the kernel that takes them
        if isinstance(out, torch.Tensor) and out.device == DEVICE and any(x.device.type == "cpu" for x in real):
            self.count[str(func)] += 1
        return out


@pytest.fixture
def handed_over(monkeypatch):
    """How many copies went through `to_device`, which queues them."""
    calls = collections.Counter()

    def counted(tensor, target=None, dtype=None):
        calls["copies"] += tensor.device.type == "cpu" and target is not None and torch.device(target) == DEVICE
        return tensor.to(target or tensor.device, dtype)

    for module in (
        "joyavatar_core.sampling.block_sampler",
        "joyavatar_core.sampling.passes",
        "joyavatar_core.model.rope",
        "joyavatar_core.model.transformer",
    ):
        monkeypatch.setattr(f"{module}.to_device", counted)
    return calls


def stream_of(**fields: object) -> AvatarStream:
    with DEVICE:
        model = AvatarTransformer(MINIATURE).eval()
    reference = torch.randn(1, 16, 1, 4, 4)
    return AvatarStream(model, reference, RecordedFeatures(), **fields)


@pytest.mark.parametrize("settings", [
    vars(preset("checkpoint", MINIATURE)), vars(preset("joyavatar", MINIATURE)),
    {"mci": MciSettings("context", 3, 0.2), "psb": PsbSettings(first=6, blocks=2), "urcr": UrcrSettings("prefill")},
])  # fmt: skip
def test_a_block_reads_nothing_back_and_copies_only_voice_and_noise(handed_over, settings):
    run = StreamRun(stream_of(**settings))
    for _ in range(8):  # every table there is: reset positions, timesteps, conditions
        next(run)
    for _ in range(8):
        handed_over.clear()
        with Crossings() as crossings:
            block = next(run)
        assert block.latents.device == DEVICE
        draws = block.steps + (run.stream.mci.injected > 0) + 3 * (run.stream.mci.context_noise > 0)
        # The voice, each draw of noise, and at a reset how far keys are turned.
        assert crossings.count.total() <= 1 + draws + block.reset, crossings.count
        assert handed_over["copies"] == crossings.count.total()


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: StreamingVAE(8), TinyDecoder])
def test_decoding_reads_nothing_back(make):
    with DEVICE:
        decoder = make().eval()
    cache, latents = decoder.new_cache(), torch.empty(1, 16, 3, 2, 2, device=DEVICE)
    decoder.decode(latents, cache)
    with Crossings() as crossings:
        assert decoder.decode(latents, cache).device == DEVICE
    assert not crossings.count


def test_a_read_would_be_noticed():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(1, device=DEVICE).item()
    with Crossings() as crossings:
        torch.ones(3).to(DEVICE)
    assert crossings.count.total() == 1


def test_a_copy_to_cuda_goes_through_pinned_memory(monkeypatch):
    """No card is needed: what is asked of torch is looked at."""
    asked = []

    class Host(torch.Tensor):
        def pin_memory(self):
            asked.append("pinned")
            return self

        def to(self, *args, **kwargs):
            asked.append((args, kwargs))
            return self

    device.to_device(torch.ones(2).as_subclass(Host), "cuda", torch.bfloat16)
    assert asked[:2] == ["pinned", ((torch.device("cuda"),), {"non_blocking": True})]


class Cuda(str):
    """The meta device under the name of a GPU, for code that asks what a device is."""

    type = "cuda"


@pytest.fixture
def waits(monkeypatch):
    """Stands for CUDA's streams, and counts how often one of them, or the device, is waited for."""
    counted = collections.Counter()

    class Stream:
        def __init__(self, *_):
            pass

        def synchronize(self):
            counted["stream"] += 1

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: counted.update(["device"]))
    return counted


def test_a_block_waits_for_the_device_once_for_its_latents_and_once_for_its_frames(waits, monkeypatch):
    run = StreamRun(stream_of(**vars(preset("joyavatar", MINIATURE))))
    run.sampler.device = Cuda("meta")
    with DEVICE:
        vae = StreamingVAE(8).eval()
    downloads = []
    monkeypatch.setattr(render, "downloaded", lambda frames: downloads.append(frames) or torch.zeros(frames.shape))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    decoder = SimpleNamespace(
        new_cache=vae.new_cache, decode=vae.decode, compute_device=Cuda("meta"), compute_dtype=torch.float32
    )
    for number, (block, _) in enumerate(render.frames_of(run, decoder, overlap=False), 1):
        assert block.index == number - 1 and len(downloads) == number
        assert waits.total() == waits["stream"] == 2 * number
        if number == 10:  # behind a reset
            break


@pytest.mark.parametrize(("face", "fps", "copies"), [(True, 16, 2), (False, 16, 2), (True, 25, 3), (False, 25, 3)])
def test_a_refined_block_reads_nothing_back_and_copies_only_what_is_heard(face, fps, copies, monkeypatch):
    handed_over = collections.Counter()

    def counted(tensor, target=None):
        handed_over["copies"] += torch.device(target) == DEVICE
        return tensor.to(target)

    for module in (portrait_refiner, frame_rate):
        monkeypatch.setattr(module, "to_device", counted)
    monkeypatch.setattr(portrait_refiner, "quick_arithmetic", lambda _: contextlib.nullcontext())  # no meta autocast
    monkeypatch.setattr(face_editor, "dtype_of_layers", lambda x: x.dtype)
    for module in (face_editor, refiner_model):
        monkeypatch.setattr(module.torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    portrait = load_portrait(ASSETS / "portraits" / "ada.png", 512, 512) if face else torch.zeros(3, 512, 512)
    refiner = portrait_refiner.PortraitRefiner(
        load_embedded_refiner().to(DEVICE), portrait, torch.zeros(3, 128, 128), (512, 512), eyes=EyeMovements(0, 16),
        head=HeadMovements(0, 16), reference=torch.zeros(1, 16, 1, 16, 16), rate=FrameRate(16, fps),
    )  # fmt: skip
    assert (refiner.face is not None) == face
    latents, video = torch.zeros(1, 16, 3, 16, 16, device=DEVICE), torch.zeros(3, 12, 128, 128, device=DEVICE)
    block = LatentBlock(1, latents, 9, 20, 4, False, 0, 0.0, torch.randn(12, 8), torch.zeros(9, 8), latents)
    refiner.block(block, video)  # tables that are kept
    handed_over.clear()
    with Crossings() as crossings:
        shown = refiner.block(block, video)
    assert shown.shape == (3, 12 * fps // 16, 512, 512) and shown.device == DEVICE
    assert crossings.count.total() == handed_over["copies"] == copies  # what is said, poses, and moments
