"""What a stream is said to take against bytes that were really alive, and the sentence where there is too little."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from joyavatar_core.checkpoints import canonical_shapes
from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.transformer import AvatarTransformer, SelfContext
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.sampling.memory import (
    DECODER_PARAMETERS,
    cache_bytes,
    check_memory,
    decoder_bytes,
    memory_needed,
    pass_bytes,
)
from joyavatar_core.sampling.passes import Passes
from joyavatar_core.sampling.presets import preset
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.vae import StreamingVAE, TinyDecoder, conv, layers

LARGE = AvatarConfig()
PARAMETERS = sum(map(math.prod, canonical_shapes(LARGE).values()))
GIB = 2**30
# What fits: width, height, settings -> the card's memory in GiB.
FP8 = torch.float8_e4m3fn
FITS = [
    (512, 512, {}, 16), (832, 480, {}, 24), (832, 480, {"latent_frames": 1}, 16),
    (512, 512, {"latent_frames": 1}, 12), (832, 480, {"kv_dtype": FP8, "latent_frames": 1}, 12),
    (512, 512, {"decoder": "tiny"}, 12), (832, 480, {"decoder": "tiny"}, 12),
    (512, 512, {"kv_dtype": FP8, "decoder": "tiny"}, 8),
    (512, 512, {"kv_dtype": FP8, "latent_frames": 1, "weight_dtype": FP8}, 8),
    (832, 480, {"kv_dtype": FP8, "latent_frames": 1, "weight_dtype": FP8}, 12),
    (832, 480, {"kv_dtype": FP8, "weight_dtype": FP8, "decoder": "tiny"}, 8),
    (832, 480, {"kv_dtype": FP8, "latent_frames": 1, "weight_dtype": FP8, "decoder": "tiny"}, 8),
]  # fmt: skip


def most_alive(call) -> int:
    """Bytes alive at most while `call` runs, beside what was alive before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Convolutions, frames and passes as CUDA has them."""
    monkeypatch.setitem(conv.FORMS, "cpu", conv.VOLUME)
    monkeypatch.setattr(layers, "FRAMES_LIMIT", 1 << 60)


@torch.no_grad()
@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("kind", ["wan", "tiny"])
def test_decoding_takes_what_is_said(as_on_a_gpu, kind, latents):
    # Large enough for the CPU's convolutions to go without a copy of every window.
    decoder = StreamingVAE(32).eval() if kind == "wan" else TinyDecoder()
    decoder.at_once, cache, z = latents, decoder.new_cache(), torch.randn(1, 16, 3, 16, 16)
    decoder.decode(z, cache)
    taken = most_alive(lambda: decoder.decode(z, cache))  # with the new cache; that the old one goes is not seen
    assert 0.8 < decoder_bytes((128, 128), torch.float32, latents, kind, 32) / taken < 1.4


@torch.no_grad()
def test_a_pass_takes_what_is_said():
    config = dataclasses.replace(LARGE, num_layers=2, audio_dim=0)
    model = AvatarTransformer(config).eval()
    cache = KVCache(2, 1, 9, 36, config.num_heads, config.head_dim)
    context = SelfContext(model.rope(range(3), 12, 12), cache)
    text = model.encode_text(torch.zeros(1, 0, config.text_dim), 512)
    latents, timesteps = torch.randn(1, 33, 3, 12, 12), torch.full((1, 3), 936.0)
    taken = most_alive(lambda: model(latents, timesteps, text, None, context))
    assert 0.9 < pass_bytes(config, (12, 12), torch.float32) / taken < 1.4


@pytest.mark.parametrize("kv_dtype", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["plain", "checkpoint", "joyavatar"])
def test_the_cache_takes_what_is_said(make_stream, name, kv_dtype):
    config = make_stream().config
    chosen = preset(name, config)
    stream = make_stream(psb=chosen.psb, mci=chosen.mci, urcr=chosen.urcr, kv_dtype=kv_dtype, video_frames=12)
    said = cache_bytes(config, (4, 4), chosen.urcr, chosen.mci, kv_dtype or torch.float32)
    assert StreamRun(stream).cache.nbytes == stream.cache_bytes == said


def test_the_prompt_takes_what_is_said(make_stream):
    stream = make_stream(text=torch.randn(1, 3, 8), video_frames=12)
    layers = Passes(stream).text.layers
    assert stream.text_bytes >= sum(part.nbytes for pair in layers for part in pair) > 0
    assert make_stream(video_frames=12).text_bytes == 0


def test_parameters_are_the_decoders():
    with torch.device("meta"):
        sizes = {"wan": StreamingVAE(96), "tiny": TinyDecoder()}
    assert {kind: sum(p.numel() for p in module.parameters()) for kind, module in sizes.items()} == DECODER_PARAMETERS


@pytest.mark.parametrize(("width", "height", "settings", "card"), FITS)
def test_what_fits_a_card(width, height, settings, card):
    need = memory_needed(LARGE, PARAMETERS, (width, height), **settings)
    assert need.total < 0.95 * card * GIB, need.total / GIB


def test_ranks_share_the_cache_and_the_pass_but_not_the_weights():
    alone, shared = (memory_needed(LARGE, PARAMETERS, (512, 512), decoder=None, ranks=ranks) for ranks in (1, 4))
    assert (4 * shared.cache, 4 * shared.working, shared.weights) == (alone.cache, alone.working, alone.weights)
    assert alone.decoder == shared.decoder == 0


def test_refining_needs_memory_for_its_pictures():
    avatar = load_avatar()
    stream = avatar.stream(torch.zeros(64, 64, 3), None, preset("checkpoint", avatar.config), video_frames=9)
    plain, *refined = (
        avatar.memory_of(stream, refine=refine)
        for refine in (None, avatar.refine(stream, "4x"), avatar.refine(stream, "8x"))
    )
    usual, large = (need.working - plain.working for need in refined)
    assert 0 < 4 * usual == large and plain.weights == plain.decoder == 0
    assert all(dataclasses.replace(need, working=plain.working) == plain for need in refined)


def test_too_little_memory_is_one_sentence_that_says_what_to_turn():
    need = memory_needed(LARGE, PARAMETERS, (512, 512))
    check_memory(need, need.total)
    with pytest.raises(AvatarError, match=r"8\.0 GiB are free; use fp8 keys and values"):
        check_memory(need, 8 * GIB)


def test_a_stream_with_fp8_keys_stays_near_the_exact_one(make_stream):
    chosen = preset("joyavatar", make_stream().config)
    fields = {"psb": chosen.psb, "mci": chosen.mci, "urcr": chosen.urcr, "video_frames": 150}
    exact, small = (
        torch.cat([block.latents for block in StreamRun(make_stream(**fields, kv_dtype=dtype))], dim=2)
        for dtype in (None, torch.float8_e4m3fn)
    )
    error = ((exact - small).square().mean() / exact.square().mean()).sqrt()
    assert 0 < error < 0.02  # measured: 0.002, over 13 blocks with resets


def test_keys_beyond_what_fp8_knows_are_held_at_its_end():
    cache = KVCache(1, 1, 1, 1, 1, 12, torch.float8_e4m3fn)
    k, v = cache.write(0, torch.full((1, 1, 1, 12), 1e4), torch.full((1, 1, 1, 12), -1e4), 0)
    assert torch.equal(k, torch.full_like(k, 448)) and torch.equal(v, torch.full_like(v, -448))
