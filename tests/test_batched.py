"""Several streams as one batch: each row is what its stream gives alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from joyavatar_core.audio import FixedFeatures
from joyavatar_core.errors import AvatarError
from joyavatar_core.sampling.batched import batched
from joyavatar_core.sampling.mci import MCI_OFF, MciSettings
from joyavatar_core.sampling.noise import NoiseSource
from joyavatar_core.sampling.presets import ROLLING
from joyavatar_core.sampling.psb import PSB_OFF, PsbSettings
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.urcr import UrcrSettings

from .conftest import MINIATURE, build_model

ROTATE, PREFILL = UrcrSettings("rotate", 3, 6, "portrait"), UrcrSettings("prefill", 3, 6, "first")


def rows(make_stream, count: int = 3, **fields) -> list:
    """Streams that differ in portrait, voice and seed."""
    streams = []
    for k in range(count):
        random = torch.Generator().manual_seed(k)
        voice = FixedFeatures(torch.randn(93, 6, generator=random), 16, 3)  # 93 frames: the last block is cut
        portrait = torch.randn(1, 16, 1, 4, 4, generator=random)
        streams.append(make_stream(reference=portrait, audio=voice, seed=k, **fields))
    return streams


@pytest.mark.parametrize(
    "settings",
    [
        {"psb": PsbSettings(), "urcr": ROTATE, "mci": MciSettings()},
        {"urcr": PREFILL, "mci": MciSettings("context", 3, 0.2)},
        {"text": torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(9))},
    ],
)
def test_each_row_is_what_its_stream_gives_alone(make_stream, settings):
    streams = rows(make_stream, **settings)
    together, alone = list(StreamRun(batched(streams))), [list(StreamRun(stream)) for stream in streams]
    assert len(together) == len(alone[0]) == 8
    assert any(block.reset for block in together) == (settings.get("urcr") is not None)
    for number, block in enumerate(together):
        expected = torch.cat([blocks[number].latents for blocks in alone])
        torch.testing.assert_close(block.latents, expected, atol=2e-5, rtol=1e-5)
        assert (block.first_frame, block.last_frame) == (alone[0][number].first_frame, alone[0][number].last_frame)
        assert block.features is None
    assert not torch.allclose(together[0].latents[0], together[0].latents[1])


def test_a_rolling_window_is_batched_alike(make_stream):
    config = dataclasses.replace(MINIATURE, sampler="rolling", trained_positions=21)
    model = build_model(config)
    streams = [
        dataclasses.replace(
            stream, model=model, config=config, psb=PSB_OFF, mci=MCI_OFF, urcr=ROLLING,
            audio=FixedFeatures(stream.audio.features, 16, 3, lead=1),
        )
        for stream in rows(make_stream, 2)
    ]  # fmt: skip
    together, alone = list(StreamRun(batched(streams))), [list(StreamRun(stream)) for stream in streams]
    for number, block in enumerate(together):
        expected = torch.cat([blocks[number].latents for blocks in alone])
        torch.testing.assert_close(block.latents, expected, atol=2e-5, rtol=1e-5)


def test_initial_latents_and_recorded_noise_are_each_row_s_own(make_stream):
    streams = [
        dataclasses.replace(stream, initial_latents=torch.randn(1, 16, 12, 4, 4), noise=NoiseSource(10 + k))
        for k, stream in enumerate(rows(make_stream, 2))
    ]
    levels = dataclasses.replace(MINIATURE, levels=MINIATURE.levels[1:])
    streams = [dataclasses.replace(stream, config=levels) for stream in streams]
    together = torch.cat([block.latents for block in StreamRun(batched(streams))], dim=2)
    alone = torch.cat([torch.cat([b.latents for b in StreamRun(stream)], dim=2) for stream in streams])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def test_a_batch_takes_the_memory_of_its_rows(make_stream):
    streams = rows(make_stream)
    together = batched(streams)
    assert together.cache_bytes == 3 * streams[0].cache_bytes
    assert StreamRun(together).cache.nbytes == together.cache_bytes


def test_streams_of_other_settings_are_no_batch(make_stream):
    one, other = rows(make_stream, 2)
    with pytest.raises(AvatarError, match="differ in psb"):
        batched([one, dataclasses.replace(other, psb=PsbSettings())])
    with pytest.raises(AvatarError, match="differ in audio"):
        batched([one, dataclasses.replace(other, audio=None)])
    with pytest.raises(AvatarError, match="expected one latent"):
        dataclasses.replace(one, reference=torch.cat([one.reference, other.reference]))
