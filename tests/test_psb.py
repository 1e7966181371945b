from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyavatar_core.config import PUBLIC_LEVELS
from joyavatar_core.errors import AvatarError
from joyavatar_core.sampling.flow import dense_levels
from joyavatar_core.sampling.presets import parse_settings
from joyavatar_core.sampling.psb import PSB_OFF, PsbSettings, levels_for

counts = st.integers(1, 40)


def test_default_schedule_walks_down_to_the_trained_count():
    assert [PsbSettings().steps_for(b, trained=4) for b in range(7)] == [8, 7, 6, 5, 4, 4, 4]


def test_the_ramp_is_rounded_to_the_nearest():
    settings = PsbSettings(first=7, base=4, blocks=4)
    assert [settings.steps_for(b, trained=4) for b in range(5)] == [7, 6, 6, 5, 4]


@given(first=counts, base=counts, blocks=st.integers(0, 50), curve=st.floats(0.05, 20))
def test_steps_never_increase_and_settle_on_base(first, base, blocks, curve):
    settings = PsbSettings(first=max(first, base), base=base, blocks=blocks, curve=curve)
    steps = [settings.steps_for(block, trained=4) for block in range(blocks + 3)]
    assert steps == sorted(steps, reverse=True)
    assert steps[blocks:] == [base] * 3
    assert steps[0] == (settings.first if blocks else base)


@given(base=counts, blocks=st.integers(0, 20))
def test_no_difference_between_first_and_base_is_off(base, blocks):
    settings = PsbSettings(first=base, base=base, blocks=blocks)
    assert {settings.steps_for(b, trained=4) for b in range(25)} == {base}
    assert PSB_OFF.steps_for(0, trained=base) == base


@given(steps=st.integers(1, 64), trained=st.integers(1, 8))
def test_restart_uses_only_trained_levels_and_ends_on_the_last(steps, trained):
    levels = dense_levels(trained, shift=5.0)
    chosen = levels_for(steps, levels, "restart", shift=5.0)
    assert len(chosen) == steps
    assert set(chosen) <= set(levels)
    assert chosen[0] == levels[0]
    assert chosen[-1] == levels[-1] or steps == 1
    if steps >= trained:
        assert chosen[:trained] == levels


def test_restart_alternates_the_last_two_levels():
    timesteps = [timestep for timestep, _ in levels_for(7, PUBLIC_LEVELS, "restart", 5.0)]
    assert timesteps == [1000, 936, 832, 624, 624, 832, 624]


def test_dense_levels_are_the_shifted_schedule():
    timesteps = [timestep for timestep, _ in levels_for(8, PUBLIC_LEVELS, "dense", 5.0)]
    assert timesteps == pytest.approx([1000, 972.22, 937.5, 892.86, 833.33, 750, 625, 416.67], abs=5e-3)


def test_fewer_steps_are_spread_over_the_trained_levels():
    assert [timestep for timestep, _ in levels_for(2, PUBLIC_LEVELS, "restart", 5.0)] == [1000, 624]
    assert [timestep for timestep, _ in levels_for(3, PUBLIC_LEVELS, "dense", 5.0)] == [1000, 832, 624]


def test_an_explicit_list_holds_its_last_entry():
    settings = parse_settings("9,6,4", PsbSettings())
    assert [settings.steps_for(b, trained=4) for b in range(5)] == [9, 6, 4, 4, 4]


def test_a_list_may_come_with_a_mode():
    assert parse_settings("8,6,4,mode=dense", PsbSettings()) == PsbSettings(steps=(8, 6, 4), mode="dense")
    assert parse_settings("steps=8", PsbSettings()).steps == (8,)
    assert parse_settings("steps=8,6,4", PsbSettings()).steps == (8, 6, 4)
    assert parse_settings("off", PsbSettings()).steps_for(0, trained=4) == 4


@pytest.mark.parametrize(
    "text", ["first=0", "first=-3", "first=100000", "first=x", "blocks=-1", "curve=0", "curve=-1", "curve=nan",
             "curve=inf", "mode=magic", "first=2.5", "speed=3", "0,4", "magic", "²", "restart,dense"]
)  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(text):
    with pytest.raises(AvatarError, match="PSB"):
        parse_settings(text, PsbSettings())


def test_fewer_first_steps_than_later_ones_are_refused(make_stream):
    make_stream(psb=PsbSettings(first=3, blocks=0))  # switched off
    with pytest.raises(AvatarError, match="starts with 3 steps and goes to 4"):
        make_stream(psb=PsbSettings(first=3))
