from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joyavatar_core.model.kv_cache import KVCache
from joyavatar_core.model.rope import apply_rope, rope_table, shift_rotated, shift_table

TOKENS = 4


def filled(frames: int, slots: int | None = None) -> KVCache:
    """A cache whose frame f holds the number f everywhere."""
    cache = KVCache(layers=2, batch=1, slots=slots or frames, tokens=TOKENS, heads=2, head_dim=12)
    for frame in range(frames):
        block = torch.full((1, TOKENS, 2, 12), float(frame))
        for layer in range(2):
            cache.write(layer, block, -block, slot=frame)
        cache.commit([frame], [frame])
    return cache


@given(data=st.data(), frames=st.integers(1, 12))
def test_keep_forgets_exactly_the_other_frames(data, frames):
    cache = filled(frames)
    kept = data.draw(st.sets(st.integers(0, frames - 1)))
    cache.keep(list(kept))
    assert set(cache.frame_ids) == kept and cache.length == len(kept)
    for slot, frame in enumerate(cache.frame_ids):
        tokens = slice(slot * TOKENS, (slot + 1) * TOKENS)
        assert (cache.keys[:, :, tokens] == frame).all() and (cache.values[:, :, tokens] == -frame).all()
        assert cache.positions[slot] == frame


def test_a_pass_sees_the_past_and_itself_without_a_copy():
    cache = filled(3, slots=6)
    k, v = cache.write(0, torch.ones(1, 2 * TOKENS, 2, 12), torch.ones(1, 2 * TOKENS, 2, 12), slot=3)
    assert k.shape[1] == 5 * TOKENS
    assert k.data_ptr() == cache.keys.data_ptr() and v.data_ptr() == cache.values.data_ptr()
    assert cache.length == 3


def test_what_is_not_committed_is_forgotten():
    cache = filled(3, slots=6)
    cache.write(0, torch.full((1, TOKENS, 2, 12), 9.0), torch.zeros(1, TOKENS, 2, 12), slot=3)
    k, _ = cache.write(0, torch.full((1, TOKENS, 2, 12), 7.0), torch.zeros(1, TOKENS, 2, 12), slot=3)
    assert not (k == 9).any()


def test_byte_count_is_exact():
    cache = KVCache(layers=3, batch=1, slots=5, tokens=7, heads=2, head_dim=12, dtype=torch.bfloat16)
    assert cache.nbytes == 2 * 3 * 5 * 7 * 2 * 12 * 2


@pytest.mark.parametrize("head_dim", [12, 24, 32, 64, 128])
@pytest.mark.parametrize("by", [-5000, -12, 0, 3])
def test_a_rotated_key_equals_the_key_at_its_new_position(head_dim, by):
    keys = torch.randn(1, 2 * TOKENS, 2, head_dim)
    there = apply_rope(keys, rope_table([6000, 6001], 2, 2, head_dim))
    moved = shift_rotated(there, shift_table(head_dim, by))
    assert torch.allclose(moved, apply_rope(keys, rope_table([6000 + by, 6001 + by], 2, 2, head_dim)), atol=1e-5)


def test_a_state_restores_every_bit():
    cache = filled(4, slots=6)
    cache.keep([0, 2, 3])
    other = KVCache(layers=2, batch=1, slots=6, tokens=TOKENS, heads=2, head_dim=12)
    other.load_state_dict(cache.state_dict())
    used = 3 * TOKENS
    assert torch.equal(other.keys[:, :, :used], cache.keys[:, :, :used])
    assert other.frame_ids == cache.frame_ids and other.positions == cache.positions
