"""The portrait refiner: what it computes, what it asks for, and that streams with it resume."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from joyavatar_core.errors import AvatarError
from joyavatar_core.framing.crop import Crop
from joyavatar_core.framing.face_crop import FaceCrop
from joyavatar_core.framing.portrait_framing import FramedPortrait
from joyavatar_core.recording.snapshot import refinement_of
from joyavatar_core.refiner import (
    LARGEST_SCALE,
    FaceMotion,
    PortraitRefiner,
    RefinerNet,
    carried_size,
    load_refiner,
    refined_size,
)
from joyavatar_core.refiner.eye_movements import EyeMovements
from joyavatar_core.refiner.model import SHARPER, Prediction, compose, resized, sharpened, warp
from joyavatar_core.sampling.run import StreamRun

from .conftest import MINIATURE, RecordedFeatures, build_model
from .recordings import FRAMES, CrashError, pictures, record, recording

SIDE = 32


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    coarse = picture(1, *shape[-3:-2], shape[-2] // 8, shape[-1] // 8, seed=seed)
    fine = F.interpolate(coarse, shape[-2:], mode="bicubic", align_corners=False).clamp(-1, 1)
    return fine.reshape(shape)


@pytest.fixture
def net() -> RefinerNet:
    """A refiner with random weights everywhere, so that nothing is switched off."""
    torch.manual_seed(0)
    net = RefinerNet()
    with torch.no_grad():
        for layer in (net.coarse_flow, net.fine_flow, net.head[-1], net.fine_mouth, net.mouth_head, *net.film):
            torch.nn.init.normal_(layer.weight, std=0.05)
    return net.eval().requires_grad_(False)


def test_a_flow_names_the_place_in_the_portrait_that_a_pixel_shows() -> None:
    portrait = picture(1, 3, SIDE, SIDE)
    flow = torch.zeros(1, 2, SIDE // 4, SIDE // 4)
    flow[:, 0] = 2 * 3 / SIDE  # three pixels to the right, in halves of the side
    moved = warp(portrait, flow)
    torch.testing.assert_close(moved[..., :-3], portrait[..., 3:], atol=1e-4, rtol=0)
    torch.testing.assert_close(warp(portrait, torch.zeros_like(flow)), portrait, atol=1e-5, rtol=0)


def test_an_enlarged_portrait_is_sharpened_by_as_much_as_interpolation_blurs_it() -> None:
    portrait = F.interpolate(0.5 * picture(1, 3, SIDE, SIDE), scale_factor=2, mode="bicubic").clamp(-1, 1)

    def error(strength: float) -> float:
        enlarged = sharpened(resized(portrait, (4 * SIDE, 4 * SIDE)), strength)
        at_rest = warp(enlarged, torch.zeros(1, 2, SIDE, SIDE), (2 * SIDE, 2 * SIDE))
        return (at_rest - portrait).square().mean().item()

    assert error(SHARPER) < 0.25 * error(0) and error(SHARPER) < 0.5 * error(2 * SHARPER)


@pytest.mark.parametrize("side", [2 * SIDE, 4 * SIDE])
def test_where_the_mask_is_one_the_portrait_shows_at_its_own_size_and_where_it_is_zero_the_frame(side: int) -> None:
    frame, portrait = smooth(1, 3, SIDE, SIDE, seed=1), picture(1, 3, side, side, seed=2)
    residual = smooth(1, 3, 2 * SIDE, 2 * SIDE, seed=3) / 10
    mask = torch.zeros(1, 1, 2 * SIDE, 2 * SIDE)
    mask[..., SIDE:] = 1
    made = compose(frame, portrait, Prediction(torch.zeros(1, 2, SIDE // 2, SIDE // 2), mask, residual))
    near = side // 2 + 3 * side // SIDE  # the edge itself is soft
    torch.testing.assert_close(made[..., near:], portrait[..., near:], atol=1e-4, rtol=0)
    new = resized(resized(frame, (2 * SIDE, 2 * SIDE)) + residual, (side, side)).clamp(-1, 1)
    torch.testing.assert_close(made[..., : side - near], new[..., : side - near], atol=1e-4, rtol=0)


def test_an_untrained_refiner_trusts_the_portrait_and_moves_nothing() -> None:
    predicted = RefinerNet()(picture(2, 3, SIDE, SIDE), picture(1, 3, SIDE, SIDE), picture(1, 3, 2 * SIDE, 2 * SIDE))
    assert predicted.flow.shape == (2, 2, SIDE // 2, SIDE // 2) and not predicted.flow.any()
    assert predicted.mask.shape == (2, 1, 2 * SIDE, 2 * SIDE) and (predicted.mask > 0.5).all()
    assert predicted.residual.shape == (2, 3, 2 * SIDE, 2 * SIDE) and not predicted.residual.any()


def test_every_frame_is_refined_by_itself(net: RefinerNet) -> None:
    refine = PortraitRefiner(net, picture(3, 4 * SIDE, 4 * SIDE), picture(3, SIDE, SIDE, seed=1), (64, 64))
    video = picture(3, 6, SIDE, SIDE, seed=2)
    whole = refine(video)
    assert whole.shape == (3, 6, 64, 64)
    parts = torch.cat([refine(video[:, :1]), refine(video[:, 1:3]), refine(video[:, 3:])], dim=1)
    torch.testing.assert_close(parts, whole, atol=2e-2, rtol=0)  # bfloat16 where the machine is quicker with it
    assert (whole - refine(video.flip(1)).flip(1)).abs().max() < 2e-2


def test_what_is_heard_of_a_frame_changes_it_and_no_other(net: RefinerNet) -> None:
    refine = refiner(net)
    video, visemes = picture(3, 6, SIDE, SIDE, seed=2), picture(6, 8, seed=3)
    other = visemes.clone()
    other[2] += 1
    changed = (refine(video, visemes) - refine(video, other)).abs().amax((0, 2, 3))
    assert changed[2] > 0.01 and changed[[0, 1, 3, 4, 5]].max() < 2e-2 < 4 * changed[2]
    parts = torch.cat([refine(video[:, :1], visemes[:1]), refine(video[:, 1:], visemes[1:])], dim=1)
    torch.testing.assert_close(parts, refine(video, visemes), atol=2e-2, rtol=0)


def test_a_stream_of_other_features_is_refined_as_without_a_voice(net: RefinerNet) -> None:
    video, features = picture(3, 2, SIDE, SIDE, seed=2), picture(2, 768, seed=3)
    without_visemes = PortraitRefiner(
        net, smooth(3, 4 * SIDE, 4 * SIDE), smooth(3, SIDE, SIDE, seed=1), (64, 64), uses_visemes=False
    )
    torch.testing.assert_close(without_visemes(video, features), refiner(net)(video), rtol=0, atol=0)
    assert (
        refiner(net)(video) - refiner(net)(video, torch.zeros(2, 8))
    ).abs().max() > 0.01  # silence is a condition, too


def test_eye_movements_depend_on_seed_and_frame_alone() -> None:
    eyes = EyeMovements(seed=5, fps=16)
    whole = eyes(0, 16 * 600)
    torch.testing.assert_close(eyes(4000, 300), whole[4000:4300], rtol=0, atol=0)
    assert not torch.equal(EyeMovements(seed=6, fps=16)(0, 160), whole[:160])
    assert eyes(10**9, 4).isfinite().all()


@pytest.mark.parametrize("fps", [16, 25])
def test_people_blink_as_often_as_asked_and_their_eyes_stay_near_the_camera(fps: int) -> None:
    closure, across, up = EyeMovements(seed=5, fps=fps)(0, fps * 600).T
    began = ((closure[1:] > 0.5) & (closure[:-1] <= 0.5)).sum().item()
    assert 160 < began < 200  # 17 a minute, 7 % of them twice
    assert closure.min() == 0 and closure.max() > 0.99 and 0.02 < (closure > 0.5).float().mean() < 0.1
    assert across.abs().max() <= 0.6 and up.abs().max() <= 0.6 and 0.03 < across.std() < 0.2
    assert (across.abs() < 0.1).float().mean() > 0.7
    assert not EyeMovements(seed=5, fps=fps, blinks=0)(0, fps * 60)[:, 0].any()


def test_part_of_a_picture_moves_as_far_in_pixels(net: RefinerNet) -> None:
    given = picture(1, 3, SIDE, SIDE), picture(1, 3, SIDE, SIDE, seed=1), picture(1, 3, 2 * SIDE, 2 * SIDE, seed=2)
    torch.testing.assert_close(net(*given, part=0.5).flow, 2 * net(*given).flow)


@pytest.mark.parametrize("width", [SIDE, 2 * SIDE, 3 * SIDE, 4 * SIDE, 8 * SIDE])
def test_the_same_picture_comes_out_at_every_size(net: RefinerNet, width: int) -> None:
    portrait, round_trip = smooth(3, 4 * SIDE, 4 * SIDE), smooth(3, SIDE, SIDE, seed=1)
    video = smooth(3, SIDE, SIDE, seed=2)[:, None]
    large = PortraitRefiner(net, portrait, round_trip, (128, 128))(video)[:, 0]
    made = PortraitRefiner(net, portrait, round_trip, (width, width))(video)
    assert made.shape == (3, 1, width, width)
    assert (made[:, 0] - resized(large[None], (width, width))[0]).abs().mean() < 0.02


def test_refined_sizes() -> None:
    assert refined_size("off", (128, 128)) is None
    assert refined_size("on", (128, 96)) == (512, 384)
    assert refined_size("304", (128, 96)) == refined_size(304, (128, 96)) == (304, 228)
    assert refined_size(128, (128, 128)) == refined_size("1x", (128, 128)) == (128, 128)
    assert refined_size("2x", (128, 96)) == (256, 192) and refined_size("on", (64, 96)) == (256, 384)
    assert refined_size("8x", (128, 128)) == (1024, 1024)
    with pytest.raises(AvatarError, match=r"expected an even number from 16 .* to 64"):
        refined_size("8x", (16, 1024))
    assert refined_size("on", (256, 256)) == refined_size("on", (512, 512)) == (512, 512)


@pytest.mark.parametrize(
    ("width", "crop", "carried"),
    [(128, 90, 512), (128, 700, 640), (128, 1023, 896), (128, 3000, 1024), (512, 3000, 2048), (1024, 900, 4096)],
)
def test_a_portrait_is_carried_as_large_as_it_is_within_bounds(width: int, crop: int, carried: int) -> None:
    """The crop's pixels count that are left after a huge portrait was reduced."""
    box, before = (5, 5, 5 + crop, 5 + crop), Crop((0, 0, 9000, 9000), (9000, 9000))
    whole = FramedPortrait(Image.new("RGB", (8, 8)), box, (width, width // 2), before)
    assert carried_size(whole) == (carried, carried // 2)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("yes", "'yes', expected off, on, 1x to 8x or a width"), ("126", "is 126"), (LARGEST_SCALE * 128 + 2, "is 1026"),
     (255, "is 255"), (-256, "is -256"), ("²", "'²'")],
)  # fmt: skip
def test_other_settings_are_refused(setting: str | int, said: str) -> None:
    with pytest.raises(AvatarError, match=said):
        refined_size(setting, (128, 128))


@pytest.mark.parametrize(
    ("name", "value"),
    [("blinks", -1), ("blinks", 61), ("articulation", 4), ("head_motion", 3.5), ("blinks", float("nan"))],
)
def test_a_face_s_motion_out_of_bounds_is_refused(name: str, value: float) -> None:
    with pytest.raises(AvatarError, match=f"{name} is {value}, expected a number from 0 to"):
        FaceMotion(**{name: value})


def test_articulation_scales_what_visemes_do(net: RefinerNet) -> None:
    video, visemes = picture(3, 1, SIDE, SIDE, seed=2), picture(1, 8, seed=3)
    given = smooth(3, 4 * SIDE, 4 * SIDE), smooth(3, SIDE, SIDE, seed=1), (64, 64)
    small, usual = (PortraitRefiner(net, *given, articulation=a)(video, visemes) for a in (0.75, 1.5))
    torch.testing.assert_close(PortraitRefiner(net, *given, articulation=0.75)(video, 2 * visemes), usual)
    assert (small - usual).abs().max() > 0.01


def test_files_that_are_no_refiner_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    for name, tensors in (("empty", {}), ("other", {"a": torch.zeros(1)})):
        save_file(tensors, tmp_path / name)
        with pytest.raises(AvatarError, match=f"'{name}' is no portrait refiner of this version"):
            load_refiner(tmp_path / name)
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(AvatarError, match="'text' is no portrait refiner"):
        load_refiner(tmp_path / "text")
    with pytest.raises(AvatarError, match="is no portrait refiner"):
        load_refiner(tmp_path / "absent")


def refiner(net: RefinerNet, seed: int = 0, width: int = 2 * SIDE, uses_visemes: bool = True) -> PortraitRefiner:
    portrait, round_trip = smooth(3, 4 * SIDE, 4 * SIDE, seed=seed), smooth(3, SIDE, SIDE, seed=1)
    return PortraitRefiner(net, portrait, round_trip, (width, width), uses_visemes)


@pytest.fixture(scope="module")
def viseme_model():
    return build_model(dataclasses.replace(MINIATURE, audio_dim=8, audio_features="visemes"))


def test_a_refined_recording_resumes_to_the_very_frames(net: RefinerNet, viseme_model, tmp_path) -> None:
    condition = {"model": viseme_model, "audio": RecordedFeatures(8, num_video_frames=FRAMES)}
    whole = record(tmp_path / "whole", refine=refiner(net), **condition)
    assert record(tmp_path / "broken", crash_at=4, refine=refiner(net), **condition) == whole[:1]
    assert record(tmp_path / "broken", refine=refiner(net), **condition) == whole
    with recording(tmp_path / "whole", refine=refiner(net), **condition) as made:
        assert pictures(made.segment_paths[0]).shape[1:] == (64, 64, 3)
    assert record(tmp_path / "without_visemes", refine=refiner(net, uses_visemes=False), **condition) != whole


def test_the_place_of_the_face_belongs_to_a_recording(net: RefinerNet) -> None:
    one, other = refiner(net), refiner(net)
    assert refinement_of(one) == refinement_of(other) and refinement_of(one)["refined_face"] is None
    other.crop = FaceCrop(60.0, 50.0, 40.0, 0.1)
    assert refinement_of(other)["refined_face"] == [60.0, 50.0, 40.0, 0.1]
    assert set(refinement_of(None).values()) == {None} and refinement_of(None).keys() == refinement_of(one).keys()


def test_a_block_says_what_was_heard_of_its_frames(make_stream) -> None:
    audio = RecordedFeatures(num_video_frames=24)
    blocks = list(StreamRun(make_stream(audio=audio)))
    assert [len(block.features) for block in blocks] == [block.num_video_frames for block in blocks] == [9, 12, 3]
    rows = audio.latent_features(0, 9).flatten(0, 1)[3:27]  # the first latent frame shows one video frame
    torch.testing.assert_close(torch.cat([block.features for block in blocks]), rows, rtol=0, atol=0)
    assert not len(blocks[0].features_before)
    for before, block in pairwise(blocks):
        torch.testing.assert_close(block.features_before[: before.num_video_frames], before.features, rtol=0, atol=0)
    assert next(StreamRun(make_stream(audio=None, video_frames=9))).features is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 7}, "another portrait"),
        ({"width": 96}, "refined size .*64.* and this run has .*96"),
        (None, "refined size .*64.* and this run has None"),
    ],
)
def test_a_recording_goes_on_only_with_the_refiner_it_began_with(net: RefinerNet, tmp_path, change, said) -> None:
    begun = recording(tmp_path / "r", crash_at=4, refine=refiner(net, uses_visemes=False))
    with pytest.raises(CrashError), begun as running:
        running.record()
    other = refiner(net, **change, uses_visemes=False) if change else None
    with pytest.raises(AvatarError, match=said), recording(tmp_path / "r", refine=other):
        pass
