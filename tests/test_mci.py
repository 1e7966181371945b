from __future__ import annotations

import itertools

import pytest
import torch

from joyavatar_core.errors import AvatarError
from joyavatar_core.model.transformer import SelfContext
from joyavatar_core.sampling.flow import add_noise
from joyavatar_core.sampling.mci import MCI_OFF, CarriedNoise, MciSettings
from joyavatar_core.sampling.noise import INITIAL, INJECT, RENOISE, NoiseSource
from joyavatar_core.sampling.run import StreamRun
from joyavatar_core.sampling.urcr import UrcrSettings

ROTATE = UrcrSettings(sink_source="first", recent=3)


def take(stream, count):
    run = StreamRun(stream)
    return run, [block.latents for block in itertools.islice(run, count)]


@pytest.mark.parametrize("mode", ["inject", "context"])
@pytest.mark.parametrize("nothing", [{"frames": 0}, {"noise": 0.0}])
def test_no_frames_or_no_noise_is_off_exactly(make_stream, mode, nothing):
    off, on = make_stream(mci=MCI_OFF, urcr=ROTATE), make_stream(mci=MciSettings(mode=mode, **nothing), urcr=ROTATE)
    assert all(torch.equal(a, b) for a, b in zip(take(off, 7)[1], take(on, 7)[1], strict=True))
    assert on.cache_bytes == off.cache_bytes


@pytest.mark.parametrize("mci", [MciSettings("inject", 3, 0.25), MciSettings("context", 3, 0.25)])
def test_block_0_is_untouched_and_later_blocks_are_not(make_stream, mci):
    plain, noisy = take(make_stream(urcr=ROTATE), 2)[1], take(make_stream(mci=mci, urcr=ROTATE), 2)[1]
    assert torch.equal(plain[0], noisy[0])
    assert not torch.allclose(plain[1], noisy[1], atol=1e-3)


def test_injecting_leaves_no_trace_in_the_cache(make_stream):
    """Given the same finished block, the cache is the same bit for bit with and without the overlay."""
    with_overlay, _ = take(make_stream(mci=MciSettings(), urcr=ROTATE), 3)
    without, _ = take(make_stream(mci=MCI_OFF, urcr=ROTATE), 2)
    last = with_overlay.sampler.past[-1]
    without.cache.load_state_dict(with_overlay.cache.state_dict())
    without.cache.keep(range(6))
    without.sampler._update_cache(last.latents, last.audio_embedding)
    used = without.cache.length * without.cache.tokens
    assert torch.equal(without.cache.keys[:, :, :used], with_overlay.cache.keys[:, :, :used])
    assert torch.equal(without.cache.values[:, :, :used], with_overlay.cache.values[:, :, :used])


@pytest.mark.parametrize("role", [INITIAL, RENOISE])
def test_carried_noise_goes_on_across_the_seam_and_nowhere_else(role):
    shape = (1, 16, 3, 64, 64)
    before, fresh = (NoiseSource(7).draw(role, block, 1, shape) for block in (4, 5))
    whole, half = (CarriedNoise(NoiseSource(7), carry).draw(role, 5, 1, shape) for carry in (1.0, 0.5))
    assert torch.equal(whole[:, :, 0], before[:, :, 2])
    for carried in (whole, half):
        assert torch.equal(carried[:, :, 1:], fresh[:, :, 1:])
        assert carried[:, :, 0].var().item() == pytest.approx(1, abs=0.02)
        apart = torch.corrcoef(torch.stack([carried[:, :, 0].flatten(), carried[:, :, 1].flatten()]))[0, 1]
        assert abs(apart) < 0.02  # inside a block all noise is independent
    along = torch.corrcoef(torch.stack([half[:, :, 0].flatten(), before[:, :, 2].flatten()]))[0, 1]
    assert along.item() == pytest.approx(0.5**0.5, abs=0.02)
    assert torch.equal(
        CarriedNoise(NoiseSource(7), 1.0).draw(role, 0, 1, shape), NoiseSource(7).draw(role, 0, 1, shape)
    )
    assert torch.equal(
        CarriedNoise(NoiseSource(7), 1.0).draw(INJECT, 5, 0, shape), NoiseSource(7).draw(INJECT, 5, 0, shape)
    )


def test_noise_from_elsewhere_is_carried_too(make_stream):
    class Recorded:
        """Not a NoiseSource: anything that draws."""

        def draw(self, role, block, step, shape):
            return NoiseSource(7).draw(role, block, step, shape)

    own, other = (
        make_stream(seed=7, mci=MciSettings(), urcr=ROTATE),
        make_stream(noise=Recorded(), mci=MciSettings(), urcr=ROTATE),
    )
    without = make_stream(noise=Recorded(), mci=MciSettings(carry=0.0), urcr=ROTATE)
    one, two, three = (take(stream, 3)[1] for stream in (own, other, without))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(one[0], three[0]) and not torch.equal(one[1], three[1])


def test_carrying_can_be_switched_in_a_running_stream(make_stream):
    with_carry, without = (make_stream(mci=MciSettings(carry=carry), urcr=ROTATE) for carry in (1.0, 0.0))
    carried, plain = take(with_carry, 3)[1], take(without, 3)[1]
    assert torch.equal(carried[0], plain[0]) and not torch.equal(carried[1], plain[1])
    run, _ = take(without, 1)
    run.update(mci=with_carry.mci)
    assert torch.equal(next(run).latents, carried[1])


@pytest.mark.parametrize("carry", [-0.1, 1.1, float("nan"), "1"])
def test_a_share_out_of_range_is_refused(carry):
    with pytest.raises(AvatarError, match=f"MCI carry is {carry}"):
        MciSettings(carry=carry)


def test_noise_has_the_stated_variance():
    x = 3 * torch.randn(1, 16, 3, 64, 64, generator=torch.Generator().manual_seed(0)) + 1
    c = 0.3
    noisy = add_noise(x, NoiseSource(7).draw(INJECT, 0, 0, x.shape), c)
    assert noisy.var().item() == pytest.approx((1 - c) ** 2 * x.var().item() + c**2, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_the_overlay_equals_the_copies_recomputed_in_one_masked_pass(make_stream, model, frames):
    """History, copies and block in one pass: copies see history and themselves, the block sees everything."""
    noise = 0.25
    mci = MciSettings("inject", frames, noise)
    run, latents = take(make_stream(mci=mci, urcr=UrcrSettings(sink_source="first", sinks=0)), 2)
    expected = next(run)

    stream, block = run.stream, 2
    past = torch.cat(latents, dim=2)
    history = past.shape[2]
    copies = add_noise(past[:, :, -frames:], run.sampler.noise.draw(INJECT, block, 0, (1, 16, frames, 4, 4)), noise)
    shown = [*range(history), *range(history - frames, history), *range(history, history + 3)]
    group = torch.tensor([*(f // 3 for f in range(history)), *([10] * frames), *([11] * 3)])
    sees = (group[None] < 10) & (group[None] <= group[:, None])
    sees |= (group[:, None] >= 10) & (group[None] <= group[:, None])
    mask = sees.repeat_interleave(4, 0).repeat_interleave(4, 1)
    features = stream.audio.latent_features(0, history + 3)[shown]
    audio = model.project_audio(model.encode_audio(features.unsqueeze(0)))
    context = SelfContext(model.rope(shown, 4, 4), mask=mask)
    conditions = run.sampler.passes.conditions(shown)

    x = run.sampler.noise.draw(INITIAL, block, 0, (1, 16, 3, 4, 4))
    for step, (timestep, sigma) in enumerate(model.config.levels):
        tokens = torch.cat([torch.cat([past, copies, x], dim=2), conditions], dim=1)
        timesteps = torch.tensor([[0.0] * history + [1000 * noise] * frames + [timestep] * 3])
        x0 = x - sigma * model(tokens, timesteps, run.sampler.passes.text, audio, context)[:, :, -3:]
        if step < 3:
            x = add_noise(
                x0, run.sampler.noise.draw("renoise", block, step + 1, x.shape), model.config.levels[step + 1][1]
            )
    assert torch.allclose(x0, expected.latents, atol=1e-5)


def test_the_portrait_is_never_noised(make_stream):
    """Block 1's newest frames include the given one; only the generated two are injected."""
    run, _ = take(make_stream(mci=MciSettings("inject", 3, 0.25), urcr=ROTATE), 1)
    assert run.sampler._overlay_motion() == 2
    run = StreamRun(make_stream(mci=MciSettings("context", 3, 0.25), urcr=ROTATE))
    seen = []
    forward = run.sampler.passes.forward

    def spy(latents, timesteps, *rest, **more):
        seen.append((latents, timesteps))
        return forward(latents, timesteps, *rest, **more)

    run.sampler.passes.forward = spy
    first = next(run)
    latents, timesteps = seen[-1]
    assert timesteps == [0.0, 250.0, 250.0]
    assert torch.equal(latents[:, :, :1], run.sampler.passes.reference) and not torch.equal(
        latents[:, :, 1:], first.latents[:, :, 1:]
    )


@pytest.mark.parametrize("values", [{"mode": "magic"}, {"frames": -1}, {"frames": 2.5}, {"noise": 1.0}, {"noise": -0.1},
                                    {"noise": float("nan")}])  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(values):
    with pytest.raises(AvatarError, match="MCI"):
        MciSettings(**values)
