"""Claims about the procedural talking-character data set."""

from __future__ import annotations

import ctypes.util
import dataclasses
import itertools
import shutil

import numpy as np
import pytest

pytest.importorskip("skia", reason="making data needs skia-python")
if shutil.which("flite") is None or ctypes.util.find_library("espeak-ng") is None:
    pytest.skip("making data needs espeak-ng and flite", allow_module_level=True)

from hypothesis import given, settings
from hypothesis import strategies as st

from joyavatar_core.errors import AvatarError
from joyavatar_core.evaluation.mouth_pixels import mouth_opening_from_pixels
from joyavatar_core.synthetic import sentences, voices
from joyavatar_core.synthetic.clips import FPS, frame_count, make_clip, make_script, play
from joyavatar_core.synthetic.dataset import PER_FRAME, clip_frames, clip_path, load_clip, save_clip, write_dataset
from joyavatar_core.synthetic.drawn.characters import HAIR_STYLES, held_out_look, sample_character
from joyavatar_core.synthetic.drawn.figure import Moment, Portrait
from joyavatar_core.synthetic.drawn.hair import STYLES
from joyavatar_core.synthetic.drawn.palette import SCHEMES, SKINS
from joyavatar_core.synthetic.motion import COLUMN, moments
from joyavatar_core.synthetic.viseme_tracks import RATE, Phone, loudness, mouth_tracks
from joyavatar_core.synthetic.voices import Voice, speak
from joyavatar_core.training.__main__ import main

SECONDS = 3.0


@pytest.fixture(scope="module")
def clip():
    return make_clip(5, "held-out", SECONDS)


def test_same_seed_gives_the_same_clip(clip):
    again = make_clip(5, "held-out", SECONDS)
    for field in dataclasses.fields(clip):
        assert np.array_equal(getattr(clip, field.name), getattr(again, field.name)), field.name


def test_another_seed_or_split_gives_another_person(clip):
    assert sample_character(5, "held-out") != sample_character(6, "held-out")
    assert sample_character(5, "held-out") != sample_character(5, "train")


def test_sound_and_frames_are_equally_long(clip):
    assert len(clip.frames) == frame_count(SECONDS) == len(clip.mouth) == len(clip.box)
    assert len(clip.waveform) == len(clip.frames) * clip.sample_rate // clip.fps
    assert len(clip.frames) % 4 == 1
    assert np.isfinite(clip.waveform).all() and 0.1 < np.abs(clip.waveform).max() < 1


def test_mouth_is_wide_enough_and_inside_the_picture(clip):
    assert np.median(clip.mouth[:, 1]) >= 20
    assert (clip.box[:, :2] >= 0).all() and (clip.box[:, 2:] <= 128).all()


def test_the_mouth_can_be_read_back_from_pixels():
    clip = make_clip(3, "train", 5.0)
    read = mouth_opening_from_pixels(clip.frames, clip.box)
    assert np.corrcoef(read, clip.mouth[:, 0])[0, 1] > 0.85


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_splits_share_no_look(seed):
    for split in ("train", "held-out"):
        who = sample_character(seed, split)
        look = held_out_look(who.hair_style, SKINS.index(who.skin), SCHEMES.index(who.scheme))
        assert look == (split == "held-out")
        assert who == sample_character(seed, split)


def test_splits_share_no_speaker_and_no_sentence():
    for train, held_out in (voices.WOMEN, voices.MEN, *((t, h) for t, h in (voices.FLITE[False],))):
        assert not set(train.split()) & set(held_out.split())
    rng = np.random.default_rng(0)
    for language in sentences.LANGUAGES:
        said = {
            split: {sentences.sentence(rng, language, split) for _ in range(100)} for split in ("train", "held-out")
        }
        assert not said["train"] & said["held-out"], language


def test_every_hair_style_is_drawn():
    assert set(HAIR_STYLES) == set(STYLES)
    who = sample_character(1)
    pictures = {Portrait(dataclasses.replace(who, hair_style=s), 64).draw(Moment())[0].tobytes() for s in STYLES}
    assert len(pictures) == len(STYLES)


def test_every_language_is_spoken_with_timed_phonemes():
    for language in sentences.LANGUAGES:
        name = "en-us" if language == "en" else language
        text = sentences.sentence(np.random.default_rng(1), language, "train")
        audio, phones = speak(text, Voice("espeak-ng", "f2", name, 170, 50, 50))
        assert sum(bool(p.ipa) for p in phones) > 8, text
        assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(phones)), text
        assert phones[-1].end <= len(audio) / 16000 + 0.01


def test_speech_does_not_depend_on_what_was_said_before():
    voice = Voice("espeak-ng", "m3", "en-us", 170, 50, 50)
    first, _ = speak("Bob paints boats.", voice)
    speak("Eine andere Stimme.", Voice("espeak-ng", "klatt", "de", 120, 80, 20))
    again, _ = speak("Bob paints boats.", voice)
    assert np.array_equal(first, again)


def test_an_unknown_voice_is_refused_in_one_sentence():
    with pytest.raises(AvatarError, match="no voice 'xx-yy"):
        speak("Hello", Voice("espeak-ng", "f2", "xx-yy", 170, 50, 50))


def _spell(*sounds: str, each: float = 0.12) -> np.ndarray:
    phones = [Phone(s, 0.2 + k * each, 0.2 + (k + 1) * each) for k, s in enumerate(sounds)]
    return mouth_tracks(phones, np.ones(int((0.4 + each * len(sounds)) * RATE)))


def test_lips_close_in_a_frame_of_every_m_b_p():
    for sound in "mbp":
        opening = _spell("a", sound, "a", each=0.06)[:, 0]
        middle = round((0.2 + 0.09) * RATE)
        assert opening[middle] < 0.01
        for phase in range(RATE // FPS):  # whatever the video's phase, one of its frames sees the closure
            assert opening[phase :: RATE // FPS][1:-1].min() < 0.03, (sound, phase)


def test_a_opens_more_than_i_and_u_rounds_before_it_sounds():
    a, i, u = (_spell("t", v, "t") for v in "aiu")
    middle = round((0.2 + 0.18) * RATE)
    assert a[middle, 0] > 1.8 * i[middle, 0]
    assert i[middle, 1] > 0.4 and u[middle, 2] > 0.6
    before = round((0.2 + 0.1) * RATE)  # still in the t
    assert u[before, 2] > 0.15


def test_the_mouth_is_shut_in_silence():
    assert np.abs(mouth_tracks([], np.zeros(100))[:, 0]).max() == 0


def test_people_blink_and_turn_within_natural_bounds():
    rng, seconds = np.random.default_rng(3), 120
    n = seconds * RATE
    loud = np.clip(np.sin(np.arange(n) / 25) * 0.5 + 0.4, 0, 1)
    tracks = moments(rng, sample_character(0), [], loud, np.zeros((n, 7)), FPS)
    shut = tracks[:, COLUMN["lid"]] < 0.3
    blinks = int((shut[1:] & ~shut[:-1]).sum())
    assert 15 <= blinks <= 70
    assert 0.02 < tracks[:, COLUMN["yaw"]].std() < 0.2
    assert np.abs(np.diff(tracks[:, COLUMN["yaw"]])).max() < 0.12


def test_long_films_are_rendered_one_frame_at_a_time():
    script = make_script(2, "train", 40.0)
    frames = play(script, 64)
    assert next(frames)[0].shape == (64, 64, 3)
    assert len(script.tracks) == frame_count(40.0)


def psnr(kept: np.ndarray, made: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(kept.astype(float) - made).mean()))


def test_dataset_resumes_and_reads_back_any_window(tmp_path, clip):
    save_clip(clip_path(tmp_path, 0, "train"), clip)
    before = clip_path(tmp_path, 0, "train").stat().st_mtime_ns
    paths = write_dataset(tmp_path, 2, 0, "train", 1.0, workers=1, size=64)
    assert clip_path(tmp_path, 0, "train").stat().st_mtime_ns == before
    made, kept = make_clip(1, "train", 1.0, 64), load_clip(paths[1])
    assert min(psnr(kept.frames, made.frames), psnr(kept.portraits, made.portraits)) > 36
    for name in PER_FRAME:
        assert np.array_equal(getattr(kept, name), getattr(made, name)), name
    window, whole = load_clip(paths[0], first=8, frames=9), load_clip(paths[0])
    assert len(whole.frames) == clip_frames(paths[0]) == len(clip.frames)
    assert np.array_equal(window.frames, whole.frames[8:17])
    assert np.array_equal(window.tracks, clip.tracks[8:17])
    assert np.array_equal(window.waveform, clip.waveform[8000:17000])
    with pytest.raises(AvatarError, match="choose an empty folder"):
        write_dataset(tmp_path, 1, 0, "train", 2.0, workers=1, size=64)


def test_silence_is_never_taken_for_loud_speech():
    waveform = np.zeros(16000 * 4, np.float32)
    waveform[:1600] = np.sin(np.arange(1600) / 5)
    loud = loudness(waveform, 16000, np.arange(4 * RATE) / RATE)
    assert loud[RATE:].max() == 0 and loud[5] > 0.9


@pytest.mark.parametrize("option", [("--size", "100"), ("--size", "16"), ("--seconds", "0"), ("--clips", "-1")])
def test_what_data_cannot_be_is_refused_before_anything_is_made(option, tmp_path, capsys):
    assert main(["data", *option, "--runs", str(tmp_path)]) == 1
    assert f"{option[0]}" in capsys.readouterr().err and not list(tmp_path.iterdir())
