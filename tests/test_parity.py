"""The engine against the public loops: the same seeded weights and inputs go in, the same numbers come out.

tests/golden/livetalk.safetensors and selfforcing.safetensors hold what LiveTalk's and Self-Forcing's own models and
loops produced on the CPU. Weights, noise, voice, portrait and prompt are not stored: `seeded` makes them again, from
their names.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from joyavatar_core.audio import Features
from joyavatar_core.config import PUBLIC_LEVELS, AvatarConfig
from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.transformer import AvatarTransformer
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.stream import AvatarStream
from joyavatar_core.sampling.urcr import UrcrSettings

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-5
SIZE = (8, 8)  # latents; 16 tokens a frame
BLOCKS = 9
VIDEO_FRAMES = 4 * 3 * BLOCKS - 3
STORED_BLOCKS = (0, 5, 8)  # the first, the one at which LiveTalk's window first rolls, the last
EXACT_LEVELS = tuple((1000 * sigma, sigma) for _, sigma in PUBLIC_LEVELS)  # the timesteps of a float32 run
TEXT_TO_VIDEO = AvatarConfig(
    dim=96, ffn_dim=256, num_heads=4, num_layers=6, in_channels=16, text_dim=32, audio_dim=0, levels=EXACT_LEVELS
)
AVATAR = dataclasses.replace(TEXT_TO_VIDEO, in_channels=33, audio_dim=24)
LIVETALK_WINDOW = UrcrSettings("window", sinks=9, recent=0, sink_source="first", window=15)
SELF_FORCING_WINDOW = UrcrSettings("window", sinks=3, recent=0, sink_source="first", window=9)


def seeded(name: str, *shape: int) -> Tensor:
    """Uniform float32 numbers of unit variance that depend on the name alone (raw Philox words never change)."""
    words = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(math.prod(shape)) >> np.uint64(40)
    uniform = words.astype(np.float64) * 2.0**-23 - 1
    return torch.from_numpy((uniform * math.sqrt(3)).astype(np.float32)).reshape(shape)


def seeded_weights(shapes: dict[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights under which every branch matters: norms about 1.2, modulations 0.3, the rest keeps the variance."""
    weights = {}
    for name, shape in shapes.items():
        u = seeded(name, *shape)
        if "norm" in name and name.endswith("weight"):
            weights[name] = 1.2 + 0.2 * u
        elif name.endswith(("bias", "modulation")):
            weights[name] = (0.3 if name.endswith("modulation") else 0.1) * u
        else:
            weights[name] = u / math.sqrt(math.prod(shape[1:]))
    return weights


def portrait() -> Tensor:
    return seeded("portrait", 1, 16, 1, *SIZE)


def prompt(config: AvatarConfig) -> Tensor:
    return seeded("prompt", 1, 20, config.text_dim)


def voice(config: AvatarConfig) -> Tensor:
    """Features of every video frame, [frames, audio_dim]."""
    return seeded("voice", VIDEO_FRAMES, config.audio_dim)


class SeededNoise:
    """A NoiseSource whose draws are `seeded`."""

    def draw(self, role: str, block: int, step: int, shape: Sequence[int]) -> Tensor:
        return seeded(f"{role}.{block}.{step}", *shape)


class Voice(Features):
    """An audio source of given features, the first one four times in latent frame 0."""

    def __init__(self, features: Tensor) -> None:
        self.feature_dim = features.shape[-1]
        self.fps, self.block_frames = 16, 3
        self.num_video_frames = len(features)
        self.groups = torch.cat([features[:1].expand(3, -1), features]).unflatten(0, (-1, 4))

    def wait(self, block: int, timeout: float | None = None) -> bool:
        return True

    def latent_features(self, first: int, count: int) -> Tensor:
        return self.groups[first : first + count]


class Recording(AvatarTransformer):
    """Keeps the flow of every pass, those of cache updates too."""

    def forward(self, latents, timesteps, text, audio, context, cache_only=False):
        self.flows.append(super().forward(latents, timesteps, text, audio, context))
        return self.flows[-1]


def make_stream(config: AvatarConfig, urcr: UrcrSettings, dtype=torch.float32, frames=VIDEO_FRAMES, kind=Recording):
    model = kind(config)
    model.load_state_dict(seeded_weights({name: tuple(p.shape) for name, p in model.state_dict().items()}))
    model.flows = []
    return AvatarStream(
        model.to(dtype), reference=portrait() if config.has_reference else None,
        audio=Voice(voice(config)) if config.audio_dim else None, text=prompt(config), urcr=urcr,
        latent_size=SIZE, video_frames=frames, noise=SeededNoise(),
    )  # fmt: skip


def latents_of(run: StreamRun) -> Tensor:
    return torch.cat([block.latents for block in run], dim=2)


def by_frame(cache: KVCache, tensor: Tensor, layer: int) -> Tensor:
    """[frames, tokens, heads * head_dim] in the order of time, whatever slot a frame is in."""
    slots = tensor[layer, 0].flatten(1).unflatten(0, (cache.slots, cache.tokens))
    return slots[sorted(range(cache.length), key=cache.frame_ids.__getitem__)]


def assert_near(ours: Tensor, theirs: Tensor, what: str) -> None:
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max().item()
    assert difference <= TOLERANCE, f"{what} differs by {difference:.1e}"


@pytest.fixture(scope="module", params=["livetalk", "selfforcing"])
def played(request):
    """What a public loop gave, and our run of the same thing: (golden, stream, run, latents)."""
    config, urcr = {"livetalk": (AVATAR, LIVETALK_WINDOW), "selfforcing": (TEXT_TO_VIDEO, SELF_FORCING_WINDOW)}[
        request.param
    ]
    stream = make_stream(config, urcr)
    run = StreamRun(stream)
    latents = latents_of(run)
    return load_file(GOLDEN / f"{request.param}.safetensors"), stream, run, latents


def test_every_pass_predicts_the_public_models_flow(played):
    golden, stream, _, _ = played
    assert len(stream.model.flows) == 5 * BLOCKS
    for block in STORED_BLOCKS:
        for index in range(5 * block, 5 * block + 5):
            assert_near(stream.model.flows[index], golden[f"call.{index}.v"], f"pass {index}")


def test_the_latents_equal_the_public_loops(played):
    golden, _, _, latents = played
    assert_near(latents, golden["out"], "out")


def test_keys_and_values_equal_the_public_cache_frame_by_frame(played):
    golden, _, run, _ = played
    assert_near(by_frame(run.cache, run.cache.keys, 0), golden["keys.first"], "first layer's keys")
    assert_near(by_frame(run.cache, run.cache.values, -1), golden["values.last"], "last layer's values")


def test_a_cache_update_that_stops_at_the_last_keys_changes_nothing():
    frames = 4 * 3 * 6 - 3
    recorded, shortcut = (
        make_stream(AVATAR, LIVETALK_WINDOW, frames=frames, kind=k) for k in (Recording, AvatarTransformer)
    )
    assert torch.equal(latents_of(StreamRun(recorded)), latents_of(StreamRun(shortcut)))


def relative_rms(difference: Tensor, scale: Tensor) -> float:
    return (difference.double().square().mean() / scale.double().square().mean()).sqrt().item()


def test_bfloat16_rounds_where_the_public_loop_does():
    """Measured: not one bit differs on the machine that made the numbers; other kernels may round sums otherwise."""
    golden = load_file(GOLDEN / "livetalk.safetensors")
    theirs = golden["bfloat16.out"]
    config = dataclasses.replace(AVATAR, levels=PUBLIC_LEVELS)  # the timesteps the public script gives in bfloat16
    frames = 4 * theirs.shape[2] - 3
    ours = latents_of(StreamRun(make_stream(config, LIVETALK_WINDOW, torch.bfloat16, frames)))
    exact = latents_of(StreamRun(make_stream(config, LIVETALK_WINDOW, torch.float32, frames)))
    assert ours.dtype == torch.bfloat16
    assert relative_rms(ours.float() - theirs.float(), exact) <= 0.008  # measured: 0 (each is 0.0063 from float32)
    assert relative_rms(ours.float() - exact, exact) <= 1.1 * relative_rms(theirs.float() - exact, exact)


@dataclass(frozen=True)
class WideBlocks:
    """The first block of the real layer shapes, in float32 and then in bfloat16."""

    exact: Tensor
    rounded: Tensor
    model: AvatarTransformer  # in bfloat16


@pytest.fixture(scope="module")
def wide() -> WideBlocks:
    with torch.device("meta"):
        model = AvatarTransformer(AvatarConfig(num_layers=4))  # the fewest layers that hear the voice
    model = model.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            p.fill_(1)
        else:
            spread = 0.3 if p.ndim == 1 or name.endswith("modulation") else math.sqrt(3 / math.prod(p.shape[1:]))
            p.uniform_(-spread, spread, generator=generator)
    exact = one_wide_block(model)
    return WideBlocks(exact, one_wide_block(model.bfloat16()), model)


def one_wide_block(model: AvatarTransformer) -> Tensor:
    stream = AvatarStream(
        model, reference=seeded("portrait", 1, 16, 1, 4, 4), text=seeded("prompt", 1, 8, 4096),
        audio=Voice(seeded("voice", 9, 10752)), noise=SeededNoise(), video_frames=9,
    )  # fmt: skip
    return next(StreamRun(stream)).latents


def test_a_block_at_full_width_in_bfloat16_is_near_float32(wide):
    assert wide.exact.dtype == torch.float32 and wide.rounded.dtype == torch.bfloat16
    assert wide.exact.shape == wide.rounded.shape == (1, 16, 3, 4, 4)
    assert torch.isfinite(wide.exact).all()
    assert 0.5 < wide.exact.std() < 2
    # measured: 0.0055 with 4 layers, 0.0085 with all 30
    assert relative_rms(wide.rounded.float() - wide.exact, wide.exact) <= 0.01


def test_the_patch_embedding_in_bfloat16_is_float32s_rounded(wide):
    """Three-dimensional convolution in bfloat16 has its own kernels, which have been wrong on some CPUs."""
    latents = seeded("latents", 1, 33, 3, 4, 4).bfloat16()
    weight, bias = (p.float() for p in wide.model.patch_embedding.parameters())
    exact = F.conv3d(latents.float(), weight, bias, stride=(1, 2, 2))
    rounded = wide.model.patch_embedding(latents).float()
    assert (rounded - exact).abs().max() <= 2**-8 * exact.abs().max()
