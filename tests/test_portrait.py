"""Portraits of any kind become the same kind of tensor, or one sentence."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from joyavatar_core.config import AvatarConfig
from joyavatar_core.errors import AvatarError
from joyavatar_core.video.portrait import check_trained_size, load_portrait, to_uint8

RED = torch.tensor([1.0, -1.0, -1.0])


def picture(width=48, height=32, seed=0) -> Image.Image:
    """Smooth and without symmetry: a turned, mirrored or shifted copy is far from it."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def levels(a, b) -> float:
    """Largest difference in 8-bit levels."""
    return float((a - b).abs().max()) * 127.5


def test_a_picture_of_the_target_size_is_untouched_and_round_trips():
    image = picture(48, 32)
    tensor = load_portrait(image, 48, 32)
    assert tensor.shape == (3, 32, 48)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert np.array_equal(to_uint8(tensor[:, None])[0].numpy(), np.asarray(image))


def test_wide_and_tall_pictures_are_cropped_in_the_middle():
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 255
    assert (load_portrait(wide, 32, 32)[..., 3:-3] > 0.9).all()
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    assert levels(load_portrait(tall, 32, 32), load_portrait(wide, 32, 32).transpose(1, 2)) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (17, 3000), (33, 31)])
def test_any_shape_covers_the_target(size):
    tensor = load_portrait(Image.new("RGB", size, (255, 0, 0)), 48, 16)
    assert tensor.shape == (3, 16, 48)
    assert torch.equal(tensor, RED[:, None, None].expand(3, 16, 48))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("I;16", "PNG"),
     ("RGB", "WEBP"), ("RGB", "BMP"), ("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("CMYK", "TIFF"), ("F", "TIFF"),
     ("I", "TIFF")],
)  # fmt: skip
def test_every_mode_gives_the_same_grey_ramp(mode, kind):
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None] * 4, 64, 0)
    if mode == "1":
        ramp = (ramp > 127).astype(np.uint8) * 255
    deep = {"I;16": ramp.astype(np.uint16) * 257, "I": ramp.astype(np.int32) * 257, "F": ramp.astype(np.float32) / 255}
    if mode in deep:
        image = Image.fromarray(deep[mode])
    else:
        image = Image.fromarray(ramp).convert("RGB")
        image = image.quantize(256) if mode == "P" else image.convert(mode)
    tensor = load_portrait(saved(image, kind), 64, 64)
    expected = torch.from_numpy(ramp).float() / 127.5 - 1
    lossy = kind in ("JPEG", "WEBP")
    assert levels(tensor, expected.expand(3, 64, 64)) <= (8 if lossy else 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_shows_white_whatever_colour_hides_under_it(mode, tmp_path):
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (32, 32), (0,) * len(mode))
        file = saved(image, "PNG")
    else:
        file = saved(Image.new(mode, (32, 32)), "PNG", transparency=0 if mode == "P" else (0, 0, 0))
    assert (load_portrait(file, 32, 32) == 1).all()


def test_half_transparent_red_is_half_way_to_white():
    tensor = load_portrait(Image.new("RGBA", (32, 32), (255, 0, 0, 128)), 32, 32)
    assert levels(tensor, torch.tensor([1.0, 0.0, 0.0])[:, None, None]) <= 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotated_picture_equals_the_upright_one(orientation):
    upright = picture(320, 192)
    turn = {
        1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"],
        6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"],
    }  # fmt: skip
    stored = upright
    for step in turn[orientation]:
        stored = stored.transpose(Image.Transpose[step])
    exif = Image.Exif()
    exif[0x0112] = orientation
    tensor = load_portrait(saved(stored, "PNG", exif=exif), 64, 48)
    assert levels(tensor, load_portrait(upright, 64, 48)) <= 1


def test_a_nonsense_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    image = picture()
    assert torch.equal(load_portrait(saved(image, "PNG", exif=exif), 48, 32), load_portrait(image, 48, 32))


def test_an_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (32, 32), (255, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 255))
    file = saved(first, "GIF", save_all=True, append_images=[second])
    assert levels(load_portrait(file, 32, 32), RED[:, None, None]) <= 1


def test_a_large_picture_reduced_in_strips_is_close_to_one_plain_resize(monkeypatch):
    monkeypatch.setattr("joyavatar_core.video.portrait.STRIP_PIXELS", 50_000)
    image = picture(1201, 803)
    plain = image.resize((96, 64), Image.Resampling.LANCZOS, box=(0, (803 - 1201 * 64 / 96) / 2, 1201, 803 - 1.2))
    expected = torch.from_numpy(np.array(plain)).permute(2, 0, 1) / 127.5 - 1
    assert levels(load_portrait(image, 96, 64), expected) <= 4


def test_a_jpeg_decoded_at_reduced_size_looks_like_the_picture():
    image = picture(1600, 1200)
    assert levels(load_portrait(saved(image, "JPEG", quality=95), 64, 48), load_portrait(image, 64, 48)) <= 5


def test_a_callers_image_is_left_as_it_was():
    file = saved(picture(1600, 1200), "JPEG")
    image = Image.open(file)
    load_portrait(image, 64, 48)
    assert image.size == (1600, 1200)


def test_a_jpeg_of_20000_pixels_takes_little_memory(tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "huge.jpg"
    Image.new("L", (20_000, 10_000), 255).save(path)
    code = (
        "import sys; from joyavatar_core.video.portrait import load_portrait\n"
        "from joyavatar_core.monitoring.report import peak_rss_bytes\n"
        "load_portrait(sys.argv[1].replace('huge', 'tiny'), 64, 64); before = peak_rss_bytes()\n"
        "assert (load_portrait(sys.argv[1], 512, 512) == 1).all(); print(peak_rss_bytes() - before)"
    )
    Image.new("L", (64, 64)).save(tmp_path / "tiny.jpg")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150e6  # the whole picture is 200 MB in grey, 800 MB in RGB


def test_a_picture_above_the_limit_is_one_sentence():
    png = saved(Image.new("L", (1, 1)), "PNG").getvalue()
    header = b"IHDR" + struct.pack(">II", 24_000, 24_000) + png[24:29]
    png = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    with pytest.raises(AvatarError, match=r"has 24000x24000 pixels, expected at most 536870912; scale it down"):
        load_portrait(io.BytesIO(png), 64, 64)


def test_pillows_own_limit_is_back_afterwards():
    before = Image.MAX_IMAGE_PIXELS
    load_portrait(saved(picture(), "PNG"), 32, 32)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_equal_the_picture_they_hold(dtype, channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 48, channels), dtype=np.uint8)
    array = pixels if dtype == np.uint8 else (pixels / 255).astype(dtype)
    expected = load_portrait(Image.fromarray(pixels.squeeze()), 32, 32)
    assert torch.equal(load_portrait(array, 32, 32), expected)
    assert torch.equal(load_portrait(torch.from_numpy(array), 32, 32), expected)
    batch = np.stack([array, np.zeros_like(array)])
    assert torch.equal(load_portrait(torch.from_numpy(batch), 32, 32), expected)


def test_a_bfloat16_tensor_and_a_bare_matrix_are_pictures():
    assert torch.equal(load_portrait(torch.ones(32, 32, 3, dtype=torch.bfloat16), 32, 32), torch.ones(3, 32, 32))
    assert torch.equal(load_portrait(np.full((32, 32), 255, np.uint8), 32, 32), torch.ones(3, 32, 32))


@pytest.mark.parametrize(
    "array",
    [np.zeros((32, 32, 2), np.uint8), np.zeros((3, 32, 32), np.float32), np.zeros((0, 32, 3), np.uint8),
     np.zeros((0, 32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.int64), np.full((32, 32, 3), 200.0),
     np.full((32, 32, 3), np.nan), np.full((32, 32, 3), -0.5), np.zeros(5), np.array("text"), None, 7],
)  # fmt: skip
def test_arrays_that_are_no_pictures_are_one_sentence(array):
    with pytest.raises(AvatarError, match=r"The portrait is an array .*, expected \[H, W, C\]"):
        load_portrait(array, 32, 32)


@pytest.mark.parametrize("size", [(0, 64), (15, 64), (64, 72), (-16, 16), (4112, 64), (64.0, 64), ("64", 64)])
def test_sizes_off_the_grid_or_out_of_bounds_are_one_sentence(size):
    with pytest.raises(AvatarError, match=r"expected multiples of 16 from 16 to 4096"):
        load_portrait(picture(), *size)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_one_sentence(kind, tmp_path):
    rng = np.random.default_rng(0)
    data = saved(Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)), kind).getvalue()
    for length in (10, len(data) // 3):
        path = tmp_path / f"cut.{kind.lower()}"
        path.write_bytes(data[:length])
        with pytest.raises(AvatarError, match=r"The portrait .*cut.* cannot be read as a picture"):
            load_portrait(path, 64, 64)


@settings(max_examples=60, deadline=None)
@given(
    position=st.floats(0, 0.999), junk=st.binary(min_size=1, max_size=40), kind=st.sampled_from(["PNG", "JPEG", "GIF"])
)
def test_damaged_files_give_a_picture_or_one_sentence(position, junk, kind):
    data = bytearray(saved(picture(), kind).getvalue())
    start = int(position * len(data))
    data[start : start + len(junk)] = junk
    try:
        assert load_portrait(io.BytesIO(bytes(data)), 32, 32).shape == (3, 32, 32)
    except AvatarError as sentence:
        assert str(sentence).endswith(".")


def test_missing_files_folders_and_text_are_one_sentence(tmp_path):
    with pytest.raises(AvatarError, match=r"nobody\.png does not exist, expected a picture file"):
        load_portrait(tmp_path / "nobody.png", 64, 64)
    with pytest.raises(AvatarError, match="cannot be read as a picture"):
        load_portrait(tmp_path, 64, 64)
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(AvatarError, match="cannot be read as a picture"):
        load_portrait(str(tmp_path / "a.png"), 64, 64)


def test_to_uint8_rounds_to_nearest_and_clips():
    values = torch.tensor([-5.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.0, 1.0, 5.0])
    frames = to_uint8(values.expand(3, 2, 4, 7))
    assert frames.shape == (2, 4, 7, 3)
    assert frames[0, 0, :, 0].tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert torch.equal(to_uint8(values.expand(3, 2, 4, 7).bfloat16()), frames.where(frames != 1, 0))


def test_every_level_survives_the_way_through_the_model_range():
    ramp = torch.arange(256, dtype=torch.uint8).reshape(16, 16, 1).expand(16, 16, 3)
    assert torch.equal(to_uint8(load_portrait(ramp, 16, 16)[:, None])[0], ramp)


def test_a_public_checkpoint_may_be_asked_for_more_pixels_and_says_so():
    public, own = AvatarConfig(), AvatarConfig(dim=128, num_layers=6, num_heads=1)
    assert "trained on" in check_trained_size(832, 480, public)
    assert check_trained_size(512, 512, public) is check_trained_size(480, 480, own) is None
    with pytest.raises(AvatarError, match="more pixels than the 512x512"):
        check_trained_size(832, 480, own)
