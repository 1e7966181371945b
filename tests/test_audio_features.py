"""Features of a block are a function of the audio around it and of nothing else."""

from __future__ import annotations

import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from joyavatar_core.audio import (
    ArrayAudio,
    AudioFeatures,
    AudioSource,
    FileAudio,
    FixedFeatures,
    GrowingAudio,
    LogMel,
    VisemeEncoder,
    Wav2Vec2,
)
from joyavatar_core.audio.resample import read_resampled
from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.embedded import EMBEDDED_VISEME_ENCODER

GOLDEN = Path(__file__).parent / "golden" / "wav2vec.safetensors"
K = 3


def voice(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate))
    syllables = np.sin(np.arange(len(noise)) / rate * 2 * np.pi * 3) ** 2
    return (noise * syllables * 8000).astype(np.int16)


@pytest.fixture(scope="module")
def wav2vec2() -> Wav2Vec2:
    tensors = load_file(GOLDEN)
    return Wav2Vec2.load({key[2:]: value for key, value in tensors.items() if key.startswith("w.")}, num_heads=4)


@pytest.fixture(scope="module")
def encoders(wav2vec2):
    return {"log-mel": LogMel(), "visemes": VisemeEncoder.load(EMBEDDED_VISEME_ENCODER), "wav2vec2": wav2vec2}


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000, 96000, 44101])
def test_a_resampled_window_equals_the_cut_of_the_whole_resampled(rate):
    sound = voice(4, rate)
    whole = librosa.resample(sound.astype(np.float32) / 32768, orig_sr=rate, target_sr=16000, res_type="soxr_hq")
    for start in (1000, 33333, 40001):
        window = read_resampled(ArrayAudio(sound, rate), start, start + 5000, 16000)
        np.testing.assert_allclose(window, whole[start : start + 5000], atol=1e-6)


@pytest.mark.parametrize("kind", ["log-mel", "visemes", "wav2vec2"])
@pytest.mark.parametrize("rate", [16000, 22050])
def test_array_file_and_live_chunks_give_identical_blocks_in_any_order(kind, rate, encoders, tmp_path):
    sound = voice(4.1, rate)
    with wave.open(str(tmp_path / "voice.wav"), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    chunks = [sound[i : i + 777] for i in range(0, len(sound), 777)]
    settings = {"left_context_seconds": 1.0, "lookahead_seconds": 0.25}

    def features(source):
        return AudioFeatures(source, encoders[kind], 16, K, **settings)

    array = features(ArrayAudio(sound, rate))
    blocks = [array.latent_features(K * block, K) for block in range(7)]
    file = features(FileAudio(tmp_path / "voice.wav", history_seconds=0.5))
    for block in (5, 0, 3, 1, 6, 2, 4, 3, 0):
        assert torch.equal(file.latent_features(K * block, K), blocks[block])
    live = features(GrowingAudio.from_chunks(chunks, rate))
    assert live.num_video_frames is None
    for block in range(6):
        assert live.wait(block)
        assert torch.equal(live.latent_features(K * block, K), blocks[block])
    assert live.wait(5) and not live.wait(6)  # 66 video frames: block 5 begins at 57, block 6 at 69
    assert live.num_video_frames == array.num_video_frames == 66


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 20), st.integers(1, 9))
def test_a_latent_frame_has_the_features_of_its_own_block_however_it_is_asked_for(first, count):
    features = AudioFeatures(ArrayAudio(voice(6, 16000), 16000), LogMel(), 25, K)
    every = features.latent_features(0, 30)
    assert torch.equal(features.latent_features(first, count), every[first : first + count])


@pytest.mark.parametrize("kind", ["log-mel", "visemes", "wav2vec2"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_audio_outside_the_window_changes_nothing(kind, rate, encoders):
    """Block 5 shows frames 57...68; 1 s before and 0.5 s behind are its window, 60 ms more its filters' reach."""
    sound = voice(8, rate)
    other = voice(8, rate, seed=1)
    start, stop = int((57 / 16 - 1.06) * rate), int((69 / 16 + 0.56) * rate)
    other[start:stop] = sound[start:stop]
    both = [
        AudioFeatures(ArrayAudio(x, rate), encoders[kind], 16, K, 1.0, 0.5).latent_features(15, 3)
        for x in (sound, other)
    ]
    assert torch.equal(*both)
    other[int(60 / 16 * rate)] += 5000
    changed = AudioFeatures(ArrayAudio(other, rate), encoders[kind], 16, K, 1.0, 0.5).latent_features(15, 3)
    assert not torch.equal(both[0], changed)


def test_a_live_block_needs_no_audio_beyond_its_own_but_the_filters_reach():
    features = AudioFeatures(GrowingAudio(48000), LogMel(), 16, K)
    assert 0 < features.samples_needed(2) - 33 * 3000 <= 0.04 * 48000
    assert not features.ready(0)
    features.source.push(np.zeros(features.samples_needed(0), np.int16))
    assert features.ready(0) and not features.ready(1)


def test_the_last_block_comes_when_the_audio_ends_and_no_block_after_it():
    features = AudioFeatures(GrowingAudio(48000), LogMel(), 16, K)
    features.source.push(np.zeros(9 * 3000, np.int16))  # all of block 0, but not the filters' reach
    assert not features.ready(0)
    features.source.finish()
    assert features.wait(0) and not features.ready(1) and not features.wait(1)
    assert features.num_video_frames == 9


def test_look_ahead_is_half_a_second_from_a_file_and_none_live(wav2vec2):
    offline = AudioFeatures(ArrayAudio(np.zeros(10), 16000), wav2vec2, 16, K)
    live = AudioFeatures(GrowingAudio(16000), wav2vec2, 16, K)
    assert (offline.left_frames, offline.right_frames) == (128, 8)
    assert (live.left_frames, live.right_frames) == (128, 0)


def test_groups_are_frame_zero_four_times_and_then_fours():
    frames = torch.arange(21.0)[:, None]
    assert FixedFeatures(frames, 16, K).latent_features(0, 6)[..., 0].tolist() == [
        [0, 0, 0, 0],
        *[[4 * g - 3, 4 * g - 2, 4 * g - 1, 4 * g] for g in range(1, 6)],
    ]
    past = FixedFeatures(frames, 16, K).latent_features(5, 2)
    assert past[0, :, 0].tolist() == [17, 18, 19, 20] and not past[1].any()
    assert FixedFeatures(frames, 16, K).ready(1) and not FixedFeatures(frames, 16, K).wait(2)


def test_a_click_shows_in_the_slot_of_the_frame_that_plays_it():
    sound = np.zeros(16000 * 4, np.float32)
    sound[33 * 1000 + 750] = 1.0  # the second half of frame 33 at 16 fps
    features = AudioFeatures(ArrayAudio(sound, 16000), LogMel(), 16, K).latent_features(0, 12)
    energy = features.flatten(0, 1)[3:].unflatten(1, (2, 32)).mean(-1)
    assert energy.flatten().argmax() == 33 * 2 + 1


@pytest.mark.parametrize("offset", [-2, 1, 7])
def test_offset_shifts_the_features_by_whole_video_frames(offset):
    source = ArrayAudio(voice(6, 16000), 16000)
    plain = AudioFeatures(source, LogMel(), 16, K).latent_features(0, 18).flatten(0, 1)[3:]
    shifted = AudioFeatures(source, LogMel(), 16, K, offset=offset).latent_features(0, 15).flatten(0, 1)[3:]
    frames = range(max(0, -offset), 57)
    assert torch.equal(shifted[frames.start : frames.stop], plain[frames.start + offset : frames.stop + offset])


def test_speech_level_features_have_unit_scale_and_silence_is_finite():
    speech = AudioFeatures(ArrayAudio(voice(6, 16000), 16000), LogMel(), 16, K).latent_features(0, 24)
    silence = AudioFeatures(ArrayAudio(np.zeros(16000), 16000), LogMel(), 16, K).latent_features(0, 6)
    assert speech.abs().max() < 6
    assert silence.isfinite().all() and silence.std() < 1e-6 and -2 < silence.mean() < 0


@pytest.mark.parametrize("samples", [1, 100])
@pytest.mark.parametrize("kind", ["log-mel", "visemes", "wav2vec2"])
def test_the_shortest_and_silent_audio_still_makes_a_block(kind, samples, encoders):
    features = AudioFeatures(ArrayAudio(np.zeros(samples), 44100), encoders[kind], Fraction(30000, 1001), 1)
    assert features.num_video_frames == 1
    assert features.wait(0) and not features.wait(1)
    assert features.latent_features(0, 1).isfinite().all()
    assert features.latent_features(0, 1).shape == (1, 4, features.feature_dim)


class Hum(AudioSource):
    """Three hours of 48 kHz that are never in memory."""

    channels, num_samples = 1, 3 * 3600 * 48000

    def __init__(self):
        super().__init__(48000)
        self.longest = 0

    def _window(self, start, stop):
        self.longest = max(self.longest, stop - start)
        return np.sin(np.arange(start, min(stop, self.num_samples)) * 0.05).astype(np.float32)[:, None] * 0.1


@pytest.mark.parametrize("kind", ["log-mel", "visemes", "wav2vec2"])
def test_hours_are_read_in_windows_of_constant_length(kind, encoders):
    source = Hum()
    features = AudioFeatures(source, encoders[kind], 16, K)
    assert features.num_video_frames == 3 * 3600 * 16
    for block in (0, 20, 7000, 14399):
        assert features.wait(block)
        assert features.latent_features(K * block, K).shape == (K, 4, features.feature_dim)
    assert source.longest <= 48000 * {"log-mel": 1, "visemes": 2, "wav2vec2": 10}[kind]
    assert not features.wait(14401)
    for block in range(100 if kind == "log-mel" else 0):
        features.latent_features(K * block, K)
    assert len(features._cached) <= 8


@pytest.mark.parametrize("seconds", [-0.1, 61, float("nan"), float("inf")])
def test_absurd_windows_are_refused_with_a_sentence(seconds):
    source = ArrayAudio(np.zeros(10), 16000)
    with pytest.raises(AvatarError, match=r"audio left context is .* expected 0 to 60 s"):
        AudioFeatures(source, LogMel(), 16, K, left_context_seconds=seconds)
    with pytest.raises(AvatarError, match=r"audio look-ahead is .* expected 0 to 60 s"):
        AudioFeatures(source, LogMel(), 16, K, lookahead_seconds=seconds)
    with pytest.raises(AvatarError, match="block has 0 latent frames"):
        AudioFeatures(source, LogMel(), 16, 0)


def test_importing_the_audio_side_loads_no_heavy_library():
    code = "import sys, joyavatar_core.audio; print({'librosa', 'av', 'transformers'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
