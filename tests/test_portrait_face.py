"""Drawing a portrait's face: edits lie on the face, keep its skin and its colours, and cover what was there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from joyavatar_core.framing.face_crop import FaceCrop
from joyavatar_core.refiner import portrait_face
from joyavatar_core.refiner.face_editor import CELL, EXPRESSION_SIZE, SIDE, Edit, FaceEditorNet, edited, expression_of
from joyavatar_core.refiner.portrait_face import PortraitFace, affine_fit, part_within, tinted


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(*shape[:2], 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, shape[-2:], mode="bicubic", align_corners=False).clamp(-1, 1)


@pytest.fixture
def editor() -> FaceEditorNet:
    """An editor with random weights everywhere, so that nothing is switched off."""
    torch.manual_seed(0)
    net = FaceEditorNet()
    with torch.no_grad():
        for weight in (net.flow.weight, net.head[-1].weight, net.usual_flow, net.usual_out):
            torch.nn.init.normal_(weight, std=0.05)
    return net.eval().requires_grad_(False)


def only_changed(editor: FaceEditorNet, colour: tuple[float, float, float], covered: float = 0.0) -> FaceEditorNet:
    """An editor that moves nothing and adds a colour everywhere, over what was there or over nothing."""
    with torch.no_grad():
        for weight in (editor.flow.weight, editor.flow.bias, editor.head[-1].weight):
            weight.zero_()
        for weight in (editor.usual_flow, editor.usual_out):
            weight.zero_()
        editor.head[-1].bias.copy_(torch.tensor([-100.0, covered, *colour]).repeat_interleave(CELL**2))
    return editor


def test_an_edit_stays_in_the_face(editor: FaceEditorNet) -> None:
    portrait, crop = smooth(1, 3, 256, 256), FaceCrop(120.0, 110.0, 100.0, -0.2)
    told = torch.randn(3, EXPRESSION_SIZE, generator=torch.Generator().manual_seed(0))
    face = PortraitFace(editor, portrait, crop)
    made = face.shown(face.edit(told), told, torch.zeros(3, 2, 64, 64), (256, 256))
    changed = (made - portrait).abs().amax((0, 1))
    outside = crop.placed(256, 256, 256, 256).abs().amax(-1) >= 1
    assert changed[outside].max() < 1e-4 and changed[~outside].max() > 0.05
    assert (made[0] - made[1]).abs().max() > 0.02


@pytest.mark.parametrize(
    ("crop", "least"),
    [
        (FaceCrop(120.0, 110.0, 100.0, -0.2), 100**2),
        (FaceCrop(20.0, 230.0, 90.0, 0.5), 70**2),
        (FaceCrop(-300.0, 50.0, 90.0, 0.0), 0),  # outside the picture
    ],
)
def test_only_the_part_with_the_face_is_computed(
    editor: FaceEditorNet, crop: FaceCrop, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = crop.placed(256, 256, 256, 256)[None]
    rows, columns = part_within(place)
    assert least <= place[:, rows, columns].numel() / 2 <= 2.5 * least
    face, told = PortraitFace(editor, smooth(1, 3, 256, 256), crop), torch.randn(3, EXPRESSION_SIZE)
    edit, flow = face.edit(told), 0.1 * torch.randn(3, 2, 8, 8)
    part = face.shown(edit, told, flow, (256, 256))
    monkeypatch.setattr(portrait_face, "part_within", lambda square: (slice(None), slice(None)))
    torch.testing.assert_close(part, face.shown(edit, told, flow, (256, 256)), rtol=0, atol=1e-5)
    monkeypatch.setattr(portrait_face, "frames_at_once", lambda _: None)  # as on a GPU
    torch.testing.assert_close(part, face.shown(edit, told, flow, (256, 256)), rtol=0, atol=1e-5)


def test_an_edit_moves_the_portrait_as_it_moves_the_square(editor: FaceEditorNet) -> None:
    """Flow found on a turned square of another size moves the portrait's own pixels alike."""
    portrait, crop = smooth(1, 3, 256, 256), FaceCrop(128.0, 120.0, 160.0, 0.4)
    small = crop.cut(portrait, SIDE)
    with torch.no_grad():
        for weight in (editor.head[-1].weight, editor.usual_out):
            weight.zero_()
        editor.head[-1].bias[: CELL**2] = 100.0  # the moved face alone
    told = torch.randn(1, EXPRESSION_SIZE, generator=torch.Generator().manual_seed(1))
    face = PortraitFace(editor, portrait, crop)
    whole = face.shown(face.edit(told), told, torch.zeros(1, 2, 64, 64), (256, 256))
    whole = crop.cut(whole, SIDE)
    alone = edited(small, editor(small, told))
    middle = slice(36, -36)
    assert (alone - small)[..., middle, middle].abs().max() > 0.1
    assert (whole - alone)[..., middle, middle].abs().mean() < 0.01


@pytest.mark.parametrize(("change", "left"), [(0.05, 1.0), (0.8, 0.2)])
def test_a_large_change_covers_the_portraits_fine_detail(editor: FaceEditorNet, change: float, left: float) -> None:
    """Otherwise the outline of an open eye would show through its lid."""
    signs = 1 - 2 * (torch.arange(512) % 2)
    fine = 0.1 * (signs * signs[:, None]).expand(1, 3, -1, -1)  # finer than the editor sees
    face = PortraitFace(only_changed(editor, (change, change, change)), fine, FaceCrop(256.0, 256.0, 384.0, 0.0))
    lids = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0.4, 0, 0]])  # closed, open, and closing
    told = expression_of(torch.zeros(3, 7), lids, torch.zeros(3))
    made = face.shown(face.edit(told), told, torch.zeros(3, 2, 64, 64), (512, 512))
    across = slice(200, 312)
    for shown, rows, detail in (
        (made[0], slice(142, 217), left), (made[1], slice(142, 217), 1), (made[2], slice(142, 217), left),
        (made[1], slice(285, 382), left),
    ):  # fmt: skip
        assert shown[:, rows, across].mean() == pytest.approx(change, abs=0.05)
        assert shown[:, rows, across].std() / fine[..., rows, across].std() == pytest.approx(detail, abs=0.2)


def test_changed_skin_keeps_its_texture_and_not_the_edges(editor: FaceEditorNet) -> None:
    noise = torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    portrait = (0.02 * noise - 0.3).repeat(1, 3, 1, 1)
    portrait[..., 300:304, :] = 0.5  # teeth, or a lip
    editor = only_changed(editor, (0.1, 0.1, 0.1), covered=1.0)
    face = PortraitFace(editor, portrait, FaceCrop(256.0, 256.0, 384.0, 0.0))
    told = torch.zeros(1, EXPRESSION_SIZE)
    made = face.shown(face.edit(told), told, torch.zeros(1, 2, 64, 64), (512, 512))[0, :, :, 200:312]
    shown, own = made[:, 340:400], portrait[0, :, 340:400, 200:312]
    assert shown.mean() == pytest.approx(0.1, abs=0.05)
    assert torch.corrcoef(torch.stack([shown.flatten(), own.flatten()]))[0, 1] > 0.9
    assert 0.6 < shown.std() / own.std() < 1.3
    assert (made[:, 290:314].mean((0, 2)) - 0.1).abs().max() < 0.02  # nothing is left of the edge


@pytest.mark.parametrize(("face", "grey"), [((0.1, 0.1, 0.1), True), ((0.3, 0.0, -0.2), False)])
def test_a_portrait_without_colours_gets_none(editor: FaceEditorNet, face: tuple, grey: bool) -> None:
    picture = torch.tensor([-0.8, 0.6, -0.8])[None, :, None, None].repeat(1, 1, 256, 256)  # before something green
    picture[..., 16:240, 40:216] = torch.tensor(face)[None, :, None, None]
    face = PortraitFace(only_changed(editor, (0.3, -0.1, 0.0)), picture, FaceCrop(128.0, 128.0, 200.0, 0.0))
    told = torch.zeros(1, EXPRESSION_SIZE)
    made = face.shown(face.edit(told), told, torch.zeros(1, 2, 64, 64), (256, 256))
    made = (made - picture)[0, :, 160, 128]
    wanted = torch.tensor([0.3, -0.1, 0.0])
    wanted = 3 * [(0.2126 * wanted[0] + 0.7152 * wanted[1]).item()] if grey else wanted.tolist()
    assert made.tolist() == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("enlarged", [False, True])
def test_what_an_edit_draws_is_sharpened_where_it_is_enlarged(editor: FaceEditorNet, enlarged: bool) -> None:
    side = 640 if enlarged else 256
    crop = FaceCrop(side / 2, side / 2, side * 0.9, 0.0)
    face, told = PortraitFace(editor, torch.zeros(1, 3, side, side), crop), torch.zeros(1, EXPRESSION_SIZE)
    dots = torch.zeros(1, 3, SIDE, SIDE)
    dots[..., 100:160:7, 100:160:7] = 0.3
    nothing = torch.zeros(1, 1, SIDE, SIDE)
    made = face.shown(
        Edit(torch.zeros(1, 2, 64, 64), nothing, nothing, dots), told, torch.zeros(1, 2, 8, 8), 2 * (side,)
    )
    assert (made.max() > 0.25) if enlarged else (0.1 < made.max() < 0.31)
    assert made.min() < -0.01 if enlarged else made.min() > -1e-5


def test_what_is_covered_does_not_show_through(editor: FaceEditorNet) -> None:
    fine = torch.zeros(1, 3, 512, 512)
    fine[..., 200:312, 200:312] = 0.3 * torch.randn(112, 112, generator=torch.Generator().manual_seed(0))
    face = PortraitFace(only_changed(editor, (0.1, 0.1, 0.1), covered=1.0), fine, FaceCrop(256.0, 256.0, 384.0, 0.0))
    told = torch.zeros(1, EXPRESSION_SIZE)
    made = face.shown(face.edit(told), told, torch.zeros(1, 2, 64, 64), (512, 512))[..., 200:312, 200:312]
    assert made.mean() == pytest.approx(0.1, abs=0.02) and made.std() < 0.02  # the mask is never wholly 0


def test_grey_lids_get_the_colour_of_the_skin_near_them() -> None:
    skin = torch.tensor([0.8, 0.5, 0.4])[:, None, None] * torch.linspace(0.6, 1, 96)  # lit from one side
    face, grey = 2 * skin.expand(1, -1, 80, -1) - 1, torch.full((1, 3, 80, 96), -0.2)
    part, counts = torch.zeros(1, 1, 80, 96), torch.ones(1, 1, 80, 96)
    part[..., 20:60, 20:40] = 1
    made = tinted(grey, part, face, counts)
    assert torch.equal(made[..., 60:, :], grey[..., 60:, :])  # the rest stays
    red, green, blue = ((made + 1) / 2)[0, :, 40, 30]
    assert green / red == pytest.approx(0.5 / 0.8, rel=0.02) and blue / red == pytest.approx(0.4 / 0.8, rel=0.02)
    assert 0.2126 * red + 0.7152 * green + 0.0722 * blue == pytest.approx(0.4, abs=0.01)  # as bright as before
    purple = torch.tensor([0.2, -0.8, 0.4])[:, None, None].expand(1, -1, 80, 96)
    torch.testing.assert_close(tinted(purple, part, face, counts), purple)  # painted lids stay
    torch.testing.assert_close(tinted(grey, part, face, 0 * counts), grey)  # no skin is near


def test_a_face_moves_as_one_piece(editor: FaceEditorNet) -> None:
    portrait, crop = smooth(1, 3, 128, 128), FaceCrop(64.0, 60.0, 80.0, 0.0)
    face = PortraitFace(editor, portrait, crop)
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0] = 0.05
    flow[:, :, 17:22, 12:20] = 0.2  # lips of the frame
    moved = face.moved_as_one(flow)
    torch.testing.assert_close(moved[0, :, 19, 16], torch.tensor([0.05, 0.0]), atol=5e-3, rtol=0)
    torch.testing.assert_close(moved[0, :, 1, 1], flow[0, :, 1, 1])


def test_an_affine_flow_is_found_again() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 20), indexing="ij")
    true = torch.stack([0.1 + 0.05 * x - 0.02 * y, 0.03 * x])[None]
    spoiled, weight = true.clone(), torch.ones(1, 1, 16, 20)
    spoiled[..., 8:, :], weight[..., 8:, :] = 1.0, 0.0
    torch.testing.assert_close(affine_fit(spoiled, weight), true, atol=1e-3, rtol=0)
