"""The parts of a recording: intervals, fingerprints, state files."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from joyavatar_core.audio import ArrayAudio
from joyavatar_core.errors import AvatarError
from joyavatar_core.recording import DEFAULT_INTERVAL, Interval
from joyavatar_core.recording import fingerprint as prints
from joyavatar_core.recording.state import DamagedError, read_state, write_state

STATE = {
    "numbers": [1, 2.5, None, True, "text"],
    "nested": {"odd": torch.arange(5, dtype=torch.int8), "list": [torch.randn(2, 3), {"b": torch.ones(3).bfloat16()}]},
    "empty": torch.zeros(2, 0, 4),
    "scalar": torch.tensor(3.0),
}


@pytest.mark.parametrize(("text", "blocks"), [("40", 40), ("1", 1), ("30s", 40), ("0.1s", 1), ("1.5 s", 2),
                                              ("80MB", 100), ("8GB", 1), ("7.63MiB", 1000)])  # fmt: skip
def test_an_interval_is_blocks_or_seconds_or_bytes(text, blocks):
    assert abs(Interval.parse(text).in_blocks(100_000_000, fps=16, block_frames=3) - blocks) <= (text == "7.63MiB")


@pytest.mark.parametrize("text", ["", "0", "-3", "0s", "nan", "inf", "1e9", "40 blocks", "5TBs", "1.5", "9" * 99])
def test_other_intervals_are_refused(text):
    with pytest.raises(AvatarError, match="interval"):
        Interval.parse(text)


def test_the_default_is_rarer_for_large_states():
    assert DEFAULT_INTERVAL.in_blocks(2_000_000, 16, 3) == 40
    assert DEFAULT_INTERVAL.in_blocks(4_000_000_000, 16, 3) == 320  # 4 minutes


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_state_comes_back_as_it_was(tmp_path):
    path = tmp_path / "s.safetensors"
    assert write_state(path, STATE) == path.stat().st_size
    read = read_state(path, 10**6)
    assert read.pop("format") == 1
    assert equal(read, STATE)


def test_a_state_is_a_safetensors_file_anybody_can_open(tmp_path):
    write_state(tmp_path / "s.safetensors", STATE)
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("nested/odd"), STATE["nested"]["odd"])
        assert json.loads(file.metadata()["joyavatar_state"])["numbers"] == [1, 2.5, None, True, "text"]


def test_a_view_is_written_without_a_copy_of_the_whole(tmp_path):
    cache = torch.randn(4, 1, 100, 2, 3)
    write_state(tmp_path / "s.safetensors", {"keys": cache[:, :, :30]})
    assert torch.equal(read_state(tmp_path / "s.safetensors", 10**6)["keys"], cache[:, :, :30])


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_flipped_bit_and_every_cut_of_a_state_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "s.safetensors"
    size = write_state(path, STATE)
    place = data.draw(st.integers(0, size - 1))
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        raw = raw[:place]
    path.write_bytes(raw)
    with pytest.raises(DamagedError):
        read_state(path, 10**6)


def test_a_state_that_is_written_again_replaces_the_old_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    write_state(path, STATE)
    old = path.read_bytes()

    def stop(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(OSError, match="No space"):
        write_state(path, {"other": torch.zeros(9)})
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_a_fingerprint_sees_a_changed_number_dtype_shape_and_name():
    base = {"a": torch.zeros(10), "b": torch.zeros(3, 4)}
    changed = [
        {**base, "a": torch.zeros(10).index_fill(0, torch.tensor(3), 1e-30)}, {**base, "a": torch.zeros(10).double()},
        {**base, "b": torch.zeros(4, 3)}, {"c": base["a"], "b": base["b"]}, {"a": base["a"]},
    ]  # fmt: skip
    all_prints = {prints.tensors_fingerprint(tensors.items()) for tensors in [base, *changed]}
    assert len(all_prints) == 6
    assert prints.tensors_fingerprint(reversed(base.items())) in all_prints


def test_a_fingerprint_of_a_large_tensor_sees_any_merge():
    weight = torch.zeros(1200, 1000)
    before = prints.tensors_fingerprint([("w", weight)])
    assert prints.tensors_fingerprint([("w", weight + 1e-6)]) != before
    weight[-1, -1] = 1
    assert prints.tensors_fingerprint([("w", weight)]) != before


def test_a_voice_is_told_by_its_samples_or_its_file(tmp_path, monkeypatch):
    import soundfile

    from joyavatar_core.audio import FileAudio

    samples = np.sin(np.arange(9000) / 9).astype(np.float32)
    other = samples.copy()
    other[8999] += 0.01
    assert len({prints.voice_fingerprint(ArrayAudio(s, r)) for s, r in
                ((samples, 8000), (other, 8000), (samples, 8001), (samples[:-1], 8000))}) == 4  # fmt: skip
    for name, wave in (("a", samples), ("b", samples), ("c", other)):
        soundfile.write(tmp_path / f"{name}.wav", wave, 8000)
    for limit in (prints.WHOLE_FILE, 100):  # whole, and sampled as a file of gigabytes would be
        monkeypatch.setattr(prints, "WHOLE_FILE", limit)
        monkeypatch.setattr(prints, "FILE_SAMPLE", 100)
        a, b, c = (prints.voice_fingerprint(FileAudio(tmp_path / f"{name}.wav")) for name in "abc")
        assert a == b != c
