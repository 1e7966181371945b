"""The viseme encoder: voices follow their script in time, excerpts are cut right, held-out voices are recognised."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from joyavatar_core.audio import VisemeEncoder
from joyavatar_core.audio.mel import BANDS
from joyavatar_core.audio.visemes import SLOTS, VISEMES
from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.embedded import EMBEDDED_VISEME_ENCODER
from joyavatar_core.training import viseme_encoder
from joyavatar_core.training.augment import SILENCE, other_voice
from joyavatar_core.training.loop import LoopSettings

speaks = pytest.mark.skipif(
    not (shutil.which("espeak-ng") and shutil.which("flite")), reason="espeak-ng and flite are not installed"
)


@speaks
def test_the_embedded_avatar_hears_what_a_held_out_voice_does_with_its_lips():
    made = [viseme_encoder.voice_of(viseme_encoder.FIRST_VOICE + seed, "held-out", 7.0) for seed in (0, 3, 4, 6)]
    voices = viseme_encoder.Voices(*(torch.from_numpy(np.stack(parts)).half() for parts in zip(*made, strict=True)))
    found = viseme_encoder.correlations(VisemeEncoder.load(EMBEDDED_VISEME_ENCODER).model, voices)
    assert list(found) == list(VISEMES)
    assert found["open"] > 0.85 and found["press"] > 0.8 and min(found.values()) > 0.5
    turned = viseme_encoder.Voices(voices.spectra.roll(40, 1), voices.visemes)
    assert viseme_encoder.correlations(VisemeEncoder.load(EMBEDDED_VISEME_ENCODER).model, turned)["open"] < 0.5


@speaks
def test_voices_are_kept_and_read_back_as_they_were_made(tmp_path, monkeypatch):
    monkeypatch.setattr(viseme_encoder, "MANY", 2)
    voices = viseme_encoder.write_voices(tmp_path, 2, seconds=1.0, workers=1)
    for seed in range(2):
        spectra, visemes = viseme_encoder.voice_of(viseme_encoder.FIRST_VOICE + seed, "train", 1.0)
        torch.testing.assert_close(voices.spectra[seed], torch.from_numpy(spectra).half())
        torch.testing.assert_close(voices.visemes[seed], torch.from_numpy(visemes).half())


def test_excerpts_keep_spectra_beside_what_they_say():
    count = torch.arange(40.0).view(1, 40, 1)
    voices = viseme_encoder.Voices(count[..., None].expand(3, 40, SLOTS, BANDS).half(), count.expand(3, 40, 8).half())
    recipe = viseme_encoder.VisemeRecipe(frames=(5, 9), others=0.0)
    for seed in range(9):
        generators = [torch.Generator().manual_seed(seed + k) for k in range(4)]
        spectra, visemes = viseme_encoder.excerpts(voices, recipe, generators)
        assert 5 <= visemes.shape[1] <= 9
        assert torch.equal(spectra[:, :, 0, 0], visemes[:, :, 0])
        assert (visemes.diff(dim=1) == 1).all()


def test_a_run_learns_and_goes_on_where_it_was(tmp_path):
    torch.manual_seed(0)
    spectra = torch.randn(4, 24, SLOTS, BANDS)
    voices = viseme_encoder.Voices(spectra.half(), spectra.mean((2, 3))[..., None].expand(-1, -1, 8).half())
    recipe = viseme_encoder.VisemeRecipe(batch=4, frames=(9, 12), others=0.0)

    def train(folder, steps):
        settings = LoopSettings(tmp_path / folder, steps=steps, learning_rate=2e-3, warmup=1)
        return viseme_encoder.train_viseme_encoder(voices, settings, recipe)

    before, after = (viseme_encoder.correlations(train("run", steps), voices)["open"] for steps in (1, 30))
    assert after > before + 0.2


def test_another_voice_says_the_same_words():
    spectra = torch.full((9, SLOTS, BANDS), SILENCE)
    spectra[4:, :, 12] = 2.0
    bands = set()
    for seed in range(20):
        other = other_voice(spectra, torch.Generator().manual_seed(seed))
        assert other.shape == spectra.shape and other.min() >= SILENCE - 1e-4
        assert torch.corrcoef(torch.stack([other.mean((1, 2)), spectra.mean((1, 2))]))[0, 1] > 0.9
        bands.add(int(other[6, 2].argmax()))
    assert len(bands) > 1


def test_other_files_are_refused_in_a_sentence(tmp_path):
    for name, text in (("none.safetensors", None), ("bad.safetensors", b"no weights")):
        if text:
            (tmp_path / name).write_bytes(text)
        with pytest.raises(AvatarError, match=f"'{name}' is no viseme encoder"):
            VisemeEncoder.load(tmp_path / name)
