"""A portrait's crop: the face stays whole wherever it is, and what is framed well is left alone."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from joyavatar_core.errors import AvatarError
from joyavatar_core.framing.crop import Crop, choose_crop, parse_crop
from joyavatar_core.framing.face_locator import Face, face_locator
from joyavatar_core.framing.portrait_framing import cut_out, frame_portrait
from joyavatar_core.pipeline.avatar import load_avatar
from joyavatar_core.sampling.presets import preset
from joyavatar_core.video.portrait import load_portrait

PORTRAITS = Path(__file__).parents[1] / "joyavatar_core" / "assets" / "portraits"
SHEET = Path(__file__).parent / "people" / "cutouts.png"  # rendered and drawn people of synthetic/cutouts.py
POINTS = json.loads(SHEET.with_suffix(".json").read_text())  # eyes and chin of each

# Twenty awkward portraits: the canvas, and every person on it as (index, face's size, its centre, tilt in degrees).
# Sizes are in the canvas' shorter side, centres in its sides.
AWKWARD = {
    "small": ((600, 600), [(0, 0.12, (0.5, 0.5), 0)]),
    "small in a corner": ((600, 600), [(1, 0.15, (0.2, 0.25), 0)]),
    "high": ((480, 640), [(2, 0.3, (0.5, 0.16), 0)]),
    "low": ((480, 640), [(3, 0.3, (0.5, 0.82), 0)]),
    "left": ((640, 480), [(4, 0.35, (0.2, 0.5), 0)]),
    "right": ((640, 480), [(5, 0.35, (0.82, 0.45), 0)]),
    "tall 9:16": ((360, 640), [(6, 0.35, (0.5, 0.2), 0)]),
    "very tall": ((300, 900), [(7, 0.4, (0.5, 0.12), 0)]),
    "wide 3:1": ((900, 300), [(0, 0.5, (0.15, 0.45), 0)]),
    "wide, far right": ((900, 300), [(4, 0.45, (0.9, 0.5), 0)]),
    "full body": ((400, 800), [(1, 0.2, (0.5, 0.13), 0)]),
    "full body, drawn": ((400, 800), [(5, 0.2, (0.45, 0.15), 0)]),
    "tilted 20 degrees": ((500, 500), [(2, 0.4, (0.4, 0.4), 20)]),
    "tilted -20 degrees": ((500, 500), [(6, 0.4, (0.6, 0.4), -20)]),
    "cut off on the left": ((500, 500), [(3, 0.45, (0.14, 0.45), 0)]),
    "cut off at the top": ((500, 500), [(7, 0.4, (0.5, 0.12), 0)]),
    "two people": ((800, 400), [(0, 0.35, (0.25, 0.4), 0), (2, 0.55, (0.75, 0.45), 0)]),
    "three people": ((900, 400), [(4, 0.5, (0.2, 0.45), 0), (5, 0.3, (0.5, 0.4), 0), (6, 0.3, (0.8, 0.4), 0)]),
    "very close": ((400, 400), [(1, 0.95, (0.5, 0.5), 0)]),
    "nobody": ((400, 700), []),
}


def canvas(size: tuple[int, int], people: list) -> tuple[Image.Image, list[Face]]:
    """A portrait of cut-out people before a soft background, and their faces."""
    rng = np.random.default_rng(size[0] * 7 + size[1])
    picture = Image.fromarray(rng.integers(60, 200, (3, 3, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    sheet, faces = Image.open(SHEET).convert("RGBA"), []
    for who, share, (x, y), tilt in people:
        side = sheet.height
        eyes, chin = np.mean(POINTS[who][:2], 0), np.array(POINTS[who][2])
        centre, length = eyes + 0.1 * (chin - eyes), np.linalg.norm(chin - eyes)
        scale, turn = 1.8 * length / (share * min(size)), math.radians(tilt)
        a, b = scale * math.cos(turn), scale * math.sin(turn)
        at = x * size[0], y * size[1]
        person = sheet.crop((who * side, 0, (who + 1) * side, side))
        tall = Image.new("RGBA", (side, 4 * side))  # the clothes go on below
        tall.paste(person.crop((0, side - 1, side, side)).resize((side, 3 * side)), (0, side))
        tall.paste(person)
        affine = (a, b, centre[0] - a * at[0] - b * at[1], -b, a, centre[1] + b * at[0] - a * at[1])
        layer = tall.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        picture.paste(layer, mask=layer)
        faces.append(Face(*at, share * min(size), turn, 1.0))
    return picture, faces


def kept_whole(crop: Crop, face: Face) -> bool:
    """Whether all of the face that is in the picture is in the crop (to 6 % of the face)."""
    left, top, right, bottom = face.box
    width, height = crop.picture
    slack = 0.06 * face.size
    x, y, w, h = crop.box
    return bool(
        x <= max(left, 0) + slack and y <= max(top, 0) + slack
        and x + w >= min(right, width) - slack and y + h >= min(bottom, height) - slack
    )  # fmt: skip


def test_the_largest_face_of_awkward_portraits_is_kept_whole():
    kept = {}
    for name, (size, people) in AWKWARD.items():
        picture, faces = canvas(size, people)
        crop = frame_portrait(picture, 128, 128).crop
        largest = max(faces, key=lambda face: face.size, default=None)
        kept[name] = "its centre is used" in crop.note if largest is None else kept_whole(crop, largest)
    assert sum(kept.values()) >= 19, [name for name, whole in kept.items() if not whole]


def test_small_faces_are_framed_as_in_training():
    picture, (face,) = canvas(*AWKWARD["small in a corner"])
    left, top, width, height = frame_portrait(picture, 128, 128).crop.box
    assert 0.55 <= face.size / width <= 0.9
    assert abs((face.x - left) / width - 0.5) < 0.12
    assert abs((face.y - top) / height - 0.46) < 0.12


def test_several_faces_and_none_are_said():
    several = frame_portrait(canvas(*AWKWARD["two people"])[0], 64, 64).crop
    assert several.found == 2 and "2 faces were found in the portrait, the largest is used" in several.note
    nobody = frame_portrait(Image.new("RGB", (300, 500), (90, 120, 60)), 64, 64).crop
    assert nobody.found == 0 and "no face was found" in nobody.note
    assert nobody.box == (0, 100, 300, 300)


@pytest.mark.parametrize("name", ["chelsea", "coins"])
def test_a_cat_and_coins_are_no_faces(name):
    picture = Path(pytest.importorskip("skimage").__file__).parent / "data" / f"{name}.png"
    assert frame_portrait(picture, 128, 128).crop.found == 0


@pytest.mark.parametrize("name", ["ada", "ben", "mia"])
@pytest.mark.parametrize("close", [True, False])
def test_the_sample_portraits_are_left_as_they_are(name, close):
    path = PORTRAITS / f"{name}.png"
    framed = frame_portrait(path, 128, 128, close=close)
    assert framed.crop.found == 1 and framed.crop.note is None
    assert torch.equal(framed.pixels, load_portrait(path, 128, 128))


def test_a_public_checkpoint_gets_the_largest_crop_that_holds_the_face():
    picture, (face,) = canvas(*AWKWARD["very tall"])
    crop = frame_portrait(picture, 128, 128, close=False).crop
    assert crop.box[2:] == (300, 300)
    assert kept_whole(crop, face)
    assert not kept_whole(frame_portrait(picture, 128, 128, "centre").crop, face)


def test_a_crop_up_to_the_edges_of_a_large_picture_is_taken():
    picture = Image.new("RGB", (6220, 6710), (90, 120, 60))
    for left, top in ((1517, 618), (3331, 4777), (2999, 1234), (17, 5003)):
        box = left, top, 6220 - left, 6710 - top
        assert frame_portrait(picture, 128, 128, box).crop.box[2] == pytest.approx(min(box[2:]), abs=2)


def test_crops_are_read_as_people_write_them():
    assert parse_crop("Face") == "face" and parse_crop("center") == "centre"
    assert parse_crop("1 20, 40,512, 512") == (120, 40, 512, 512)


def test_a_crop_of_ones_own_is_what_is_shown():
    picture = Image.new("RGB", (200, 100))
    picture.paste((255, 0, 0), (120, 10, 180, 70))
    framed = frame_portrait(picture, 32, 32, (125, 15, 50, 50))
    assert torch.equal(framed.pixels, torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 32, 32))
    assert framed.crop.summary() == {"crop": [125, 15, 50, 50], "picture": [200, 100], "faces": None, "note": None}


def test_a_small_crop_of_a_huge_picture_keeps_its_detail():
    stripes = np.zeros((7000, 7000, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    pixels = frame_portrait(Image.fromarray(stripes), 128, 128, (3000, 3000, 128, 128)).pixels
    assert pixels.std() > 0.9


def test_a_crop_of_a_huge_jpeg_is_in_its_own_pixels(tmp_path):
    picture = Image.new("RGB", (4000, 3000))
    picture.paste((255, 255, 255), (3000, 2000, 3400, 2400))
    picture.save(tmp_path / "huge.jpg")
    assert (frame_portrait(tmp_path / "huge.jpg", 64, 64, (3020, 2020, 360, 360)).pixels > 0.9).all()


@pytest.mark.parametrize(
    ("text", "crop"),
    [("face", "face"), ("centre", "centre"), ("1,2,30,40", (1, 2, 30, 40)), ("1, 2, 3, 4", (1, 2, 3, 4))],
)
def test_crops_are_read(text, crop):
    assert parse_crop(text) == crop


@pytest.mark.parametrize("text", ["", "middle", "1,2,3", "1,2,0,4", "-1,2,3,4", "1,2,3,4,5", "1.5,2,3,4"])
def test_what_is_no_crop_is_one_sentence(text):
    with pytest.raises(AvatarError, match="expected face, centre, or X,Y,W,H in pixels"):
        parse_crop(text)


@pytest.mark.parametrize("box", [(60, 0, 50, 50), (-5, 0, 50, 50), (0, -5, 50, 50), (0, 0, 0, 50), (0, 0, 50, -1)])
def test_a_crop_beyond_the_picture_is_one_sentence(box):
    with pytest.raises(AvatarError, match=f"{','.join(map(str, box))} is not within the portrait of 100x80 pixels"):
        frame_portrait(Image.new("RGB", (100, 80)), 32, 32, box)


@given(
    picture=st.tuples(st.integers(16, 4000), st.integers(16, 4000)),
    shape=st.sampled_from([(128, 128), (832, 480), (480, 832)]),
    place=st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2)), share=st.floats(0.02, 2), close=st.booleans(),
)  # fmt: skip
def test_crops_have_the_videos_proportions_and_lie_in_the_picture(picture, shape, place, share, close):
    face = Face(place[0] * picture[0], place[1] * picture[1], share * min(picture), 0.0, 1.0)
    left, top, width, height = choose_crop(picture, shape, "face", [face], close).box
    assert width / height == pytest.approx(shape[0] / shape[1])
    assert left >= -1e-6 and top >= -1e-6
    assert left + width <= picture[0] + 1e-6 and top + height <= picture[1] + 1e-6


def test_a_mask_and_an_alpha_channel_give_the_same_picture_on_any_background():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((1, 48, 48, 3), np.float32))
    alpha = torch.zeros(48, 48)
    alpha[8:40, 8:40] = 1
    file = Image.fromarray((torch.cat([image[0], alpha[..., None]], -1).numpy() * 255).round().astype(np.uint8))
    masked = cut_out(image, 1 - alpha[None])
    for background, level in (("white", 1.0), ("#000000", -1.0)):
        ours = frame_portrait(masked, 48, 48, "centre", background).pixels
        assert torch.equal(ours, frame_portrait(file, 48, 48, "centre", background).pixels)
        assert (ours[:, :8] == level).all()
    empty = cut_out(image, torch.zeros(1, 64, 64))  # what Load Image gives for a picture without transparency
    assert torch.equal(frame_portrait(empty, 48, 48, "centre").pixels, load_portrait(image, 48, 48))


def test_what_is_no_colour_is_one_sentence():
    with pytest.raises(AvatarError, match="The background is 'plaid', expected a colour"):
        frame_portrait(Image.new("RGB", (32, 32)), 32, 32, "centre", "plaid")


def test_the_locator_is_small_and_tells_tilt():
    assert sum(p.numel() for p in face_locator().parameters()) < 200_000
    picture, _ = canvas(*AWKWARD["tilted 20 degrees"])
    (face, *_) = face_locator().find(picture)
    assert math.degrees(face.roll) == pytest.approx(20, abs=12)


def test_a_portrait_framed_for_another_size_is_refused_and_its_size_is_the_default():
    avatar = load_avatar()
    framed = avatar.frame(PORTRAITS / "ada.png", (64, 48))
    assert avatar.stream(framed, None, preset("checkpoint", avatar.config), video_frames=9).pixel_size == (64, 48)
    with pytest.raises(AvatarError, match="framed for 64x48 pixels and the stream has 128x128; frame it for that size"):
        avatar.stream(framed, None, preset("checkpoint", avatar.config), pixel_size=(128, 128))
