"""Training of the tiny decoder, and the discriminator that it shares with the face editor."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from joyavatar_core.errors import AvatarError
from joyavatar_core.pipeline.avatar import EMBEDDED, load_vae, open_embedded
from joyavatar_core.synthetic.dataset import write_dataset
from joyavatar_core.training.__main__ import main
from joyavatar_core.training.decoder_training import (
    EYES_WEIGHT,
    MOUTH_WEIGHT,
    DecoderRecipe,
    decoder_losses,
    decoder_sample,
    train_decoder,
)
from joyavatar_core.training.discriminator import (
    PatchDiscriminator,
    WithDiscriminator,
    discriminator_loss,
    generator_losses,
)
from joyavatar_core.training.loop import LoopSettings
from joyavatar_core.vae import StreamingVAE, TinyDecoder

RECIPE = DecoderRecipe(cells=4, latents=2, batch=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One short clip of 128 x 128."""
    return write_dataset(tmp_path_factory.mktemp("clips"), 1, seed=5, seconds=0.5, workers=1)


@pytest.fixture
def vae() -> StreamingVAE:
    return load_vae(EMBEDDED, open_embedded().config)


def test_each_side_of_the_contest_trains_its_own_weights_only() -> None:
    discriminator = PatchDiscriminator(2)
    true, made, given = (torch.rand(1, 3, 32, 32) for _ in range(3))
    told, weight = torch.rand(1, 2), torch.ones(1, 1, 32, 32)
    made.requires_grad_()
    discriminator_loss(discriminator, true, made, weight, given, told).backward()
    assert made.grad is None and discriminator.first.weight.grad.abs().max() > 0
    discriminator.zero_grad()
    fooled, features = generator_losses(discriminator, true, made, weight, given, told)
    (fooled + features).backward()
    assert made.grad.abs().max() > 0 and all(weight.grad is None for weight in discriminator.parameters())


def test_the_discriminator_learns_to_tell_pictures_apart() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(1)
    true, given = torch.rand(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    made, told, weight = torch.nn.functional.avg_pool2d(true, 3, 1, 1), torch.zeros(4, 1), torch.ones(4, 1, 32, 32)
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    for _ in range(40):
        loss = discriminator_loss(discriminator, true, made, weight, given, told)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5  # 2 is chance


def test_a_sample_is_a_crop_of_the_clip(clips: list[Path]) -> None:
    video, weight, noise, size, half = decoder_sample(clips[0], RECIPE, torch.Generator().manual_seed(1))
    assert video.shape == (3, 5, 32, 32) and -1 <= video.min() < video.max() <= 1
    assert weight.shape == (2, 5, 32, 32) and weight.min() == 1 < weight[0].max()
    errors, sharpness = weight
    assert (errors >= sharpness).all() and {*sharpness.unique().tolist()} <= {1.0, EYES_WEIGHT}
    assert {*errors.unique().tolist()} <= {1.0, EYES_WEIGHT, MOUTH_WEIGHT}
    assert half in (0, 1)
    assert noise.shape == (16, 2, 4, 4) and noise.std() == pytest.approx(size.item(), rel=0.2)


def test_clips_that_are_too_small_are_refused(clips: list[Path]) -> None:
    with pytest.raises(AvatarError, match="has 9 frames of 128 x 128, expected at least 13 of 160 x 160"):
        DecoderRecipe().check(clips[0])
    RECIPE.check(clips[0])


def test_an_encoder_needs_a_vae(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["decoder", "--encoder", "--steps", "1", "--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "--encoder trains the encoder of a VAE; give the VAE as --fine-tune.\n"


def test_the_decoder_learns_and_a_resumed_training_goes_on(
    clips: list[Path], vae: StreamingVAE, tmp_path: Path
) -> None:
    samples = [decoder_sample(clips[0], RECIPE, torch.Generator().manual_seed(k)) for k in range(2)]
    batch = [torch.stack(parts) for parts in zip(*samples, strict=True)]
    both = WithDiscriminator(TinyDecoder((16, 16, 8, 8)), 1)
    optimizer, losses = torch.optim.Adam(both.parameters(), 3e-3), []
    for _ in range(12):
        found = decoder_losses(both, vae, False, torch.tensor(1.0), *batch)
        losses.append(found["pixel"].detach())
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    for steps in (1, 2):
        settings = LoopSettings(tmp_path / "run", steps=steps, learning_rate=1e-4)
        decoder = train_decoder(clips, vae, TinyDecoder((16, 16, 8, 8)), settings, RECIPE)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 2
    assert decoder.decode(torch.zeros(1, 16, 1, 4, 4)).shape == (1, 3, 1, 32, 32)


@pytest.mark.parametrize("encodes", [False, True])
def test_the_vaes_own_decoder_learns_and_its_encoder_on_request(
    clips: list[Path], vae: StreamingVAE, tmp_path: Path, encodes: bool
) -> None:
    settings = LoopSettings(tmp_path / "run", steps=2, learning_rate=1e-3)
    trained = train_decoder(clips, vae, copy.deepcopy(vae), settings, RECIPE, encodes)
    changed = {name for name, one in vae.state_dict().items() if not torch.equal(one, trained.state_dict()[name])}
    assert any(name.startswith("decoder.") for name in changed)
    assert any(name.startswith("encoder.") for name in changed) == encodes


def test_an_encoder_that_is_trained_pays_for_moving_its_latents(clips: list[Path], vae: StreamingVAE) -> None:
    batch = [one[None] for one in decoder_sample(clips[0], RECIPE, torch.Generator().manual_seed(1))]
    other = copy.deepcopy(vae)
    losses = [decoder_losses(WithDiscriminator(other, 1), vae, True, torch.tensor(0.0), *batch)["kept"]]
    with torch.no_grad():
        other.conv1.bias[:16] += 1
    losses.append(decoder_losses(WithDiscriminator(other, 1), vae, True, torch.tensor(0.0), *batch)["kept"])
    assert losses[0] == 0 < losses[1]
