"""The face editor: faces are found and cut out, it drives a refined face, and its training learns."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from joyavatar_core.errors import AvatarError
from joyavatar_core.framing.face_crop import FaceCrop
from joyavatar_core.framing.face_locator import Face
from joyavatar_core.framing.find_face import find_face
from joyavatar_core.pipeline.embedded import EMBEDDED_FACE_EDITOR, EMBEDDED_REFINER
from joyavatar_core.refiner import PortraitRefiner, RefinerNet, load_refiner
from joyavatar_core.refiner.face_editor import (
    BROW_REACH,
    BROW_SCALE,
    CELL,
    EXPRESSION_SIZE,
    MOUTH_DEVIATION,
    MOUTH_MEAN,
    ROUND,
    SIDE,
    FaceEditorNet,
    edited,
    expression_of,
    less_round,
    scaled_mouth,
)
from joyavatar_core.refiner.head_movements import HeadMovements
from joyavatar_core.refiner.portrait_face import PortraitFace
from joyavatar_core.synthetic import expressions
from joyavatar_core.synthetic.clips import figure_of, person
from joyavatar_core.synthetic.cutouts import face_points
from joyavatar_core.synthetic.dataset import clip_path
from joyavatar_core.synthetic.expressions import HELD, SMILES, expression_set
from joyavatar_core.synthetic.expressions import SIDE as PICTURE
from joyavatar_core.synthetic.labels import FaceLabels
from joyavatar_core.synthetic.moment import Moment
from joyavatar_core.synthetic.motion import COLUMN
from joyavatar_core.training.discriminator import WithDiscriminator
from joyavatar_core.training.editor_training import Faces, editor_losses, train_editor
from joyavatar_core.training.loop import LoopSettings
from joyavatar_core.video.portrait import load_portrait

from .test_portrait_face import only_changed, smooth

PORTRAITS = Path(__file__).parents[1] / "joyavatar_core" / "assets" / "portraits"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """One drawn person in four expressions."""
    from safetensors.numpy import save_file

    path = clip_path(tmp_path_factory.mktemp("expressions"), 3, "train", "drawn")
    save_file(expression_set(3, "train", "drawn", 4)._asdict(), path)
    return Faces([path])


def test_a_cut_face_lies_where_it_is_put_back() -> None:
    picture, crop = smooth(1, 3, 200, 240), FaceCrop(110.0, 90.0, 96.0, 0.3)
    face = crop.cut(picture, 96)
    place = crop.placed(200, 240, 200, 240)[None]
    back = F.grid_sample(face, place, align_corners=False)
    inside = (place.abs().amax(-1) < 0.95)[:, None]
    assert 0.15 < inside.float().mean() < 0.25
    assert ((back - picture).abs() * inside).max() < 0.05


def test_points_and_a_located_face_give_the_same_square() -> None:
    eyes, chin = np.array([[90.0, 100], [130, 100]]), np.array([110.0, 160])
    turn = np.array([[math.cos(0.2), math.sin(0.2)], [-math.sin(0.2), math.cos(0.2)]])  # clockwise, of rows
    eyes, chin = eyes @ turn, chin @ turn
    of_points = FaceCrop.of_points(*eyes, chin)
    middle = eyes.mean(0)
    centre = middle + 0.1 * (chin - middle)
    of_face = FaceCrop.of_face(Face(*centre, 1.8 * float(np.linalg.norm(chin - middle)), 0.2, 1.0))
    np.testing.assert_allclose(dataclasses.astuple(of_points), dataclasses.astuple(of_face), atol=1e-5)
    assert of_points.within(torch.zeros(3, 20, 20), torch.zeros(3, 40, 40)).side == 2 * of_points.side


@pytest.mark.parametrize("name", ["ada", "ben", "leo", "yuki"])
def test_the_face_of_a_portrait_is_found_in_its_place(name: str) -> None:
    seed = {"ada": (12, "drawn"), "ben": (1, "drawn"), "leo": (217, "rendered"), "yuki": (324, "rendered")}[name]
    if seed[1] == "rendered":
        pytest.importorskip("moderngl")
    found = find_face(load_portrait(PORTRAITS / f"{name}.png", 512, 512))
    who = person(seed[0], "held-out", seed[1])
    _, labels = figure_of(who, 512).draw(Moment(roll=who.lean))
    true = FaceCrop.of_points(*face_points(labels))
    assert math.hypot(found.x - true.x, found.y - true.y) < 0.05 * true.side and 0.91 < found.side / true.side < 1.1


def test_a_picture_without_a_face_has_none() -> None:
    assert find_face(torch.zeros(3, 128, 128)) is None


def test_an_untrained_editor_changes_nothing() -> None:
    face, expression = smooth(2, 3, SIDE, SIDE), torch.randn(2, EXPRESSION_SIZE)
    torch.testing.assert_close(edited(face, FaceEditorNet()(face, expression)), face, atol=1e-5, rtol=0)


def test_an_edit_has_no_pattern_that_repeats_from_cell_to_cell() -> None:
    net = only_changed(FaceEditorNet(), (0.1, 0.2, 0.3))
    bias = net.head[-1].bias.detach()
    with torch.no_grad():
        bias += 0.1 * torch.randn(len(bias), generator=torch.Generator().manual_seed(0))
        made = net(torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, EXPRESSION_SIZE)).change
    wanted = bias.unflatten(0, (-1, CELL**2)).mean(1)[2:, None, None]
    torch.testing.assert_close(made, wanted.expand_as(made), rtol=0, atol=1e-5)


def test_lips_and_lids_come_from_the_editor_and_the_head_from_the_frame() -> None:
    refiner = load_refiner(EMBEDDED_REFINER, EMBEDDED_FACE_EDITOR)
    portrait = load_portrait(PORTRAITS / "ada.png", 512, 512)
    small = F.avg_pool2d(portrait[None], 4)[0]
    closed = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    given = portrait, small, (256, 256)
    refine = PortraitRefiner(refiner, *given, eyes=lambda first, count: closed[first : first + count])
    visemes = torch.zeros(2, 8)
    visemes[:, 0] = -1
    video = small[:, None].expand(-1, 2, -1, -1)
    silent = refine(video, visemes)
    wide = visemes.clone()
    wide[:, 0] = 2.5
    u, v = find_face(portrait).placed(256, 256, 512, 512).unbind(-1)
    eyes, mouth = ((v > -0.9) & (v < -0.3) & (u.abs() < 0.7)), ((v > 0) & (v < 0.6) & (u.abs() < 0.5))
    blink = (silent[:, 1] - silent[:, 0]).abs().mean(0)
    opened = (refine(video, wide)[:, 0] - silent[:, 0]).abs().mean(0)
    assert blink[eyes].mean() > 5 * blink[mouth].mean() and opened[mouth].mean() > 5 * opened[eyes].mean()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The expressions that refining asks of the face editor."""
    seen, edit = [], PortraitFace.edit
    monkeypatch.setattr(PortraitFace, "edit", lambda self, told: (seen.append(told), edit(self, told))[1])
    return seen


@pytest.mark.parametrize("head", [None, HeadMovements(seed=1, fps=16, size=3.0)])
def test_brows_rise_with_the_voice(told: list[torch.Tensor], head: HeadMovements | None) -> None:
    refiner = load_refiner(EMBEDDED_REFINER, EMBEDDED_FACE_EDITOR)
    portrait = load_portrait(PORTRAITS / "ada.png", 256, 256)
    small = F.avg_pool2d(portrait[None], 2)[0]
    refine = PortraitRefiner(refiner, portrait, small, (128, 128), head=head)
    voice = torch.zeros(64, 8)
    voice[::16, 7] = 3.0  # loud
    refine(small[:, None].expand(-1, 64, -1, -1), voice)
    brows = torch.cat(told)[:, -1]
    assert (brows.max() > 0.5 and brows.max() <= BROW_SCALE * BROW_REACH) if head else not brows.any()


def test_an_edit_lies_on_the_face_whatever_the_shape_of_the_picture() -> None:
    refiner = load_refiner(EMBEDDED_REFINER, EMBEDDED_FACE_EDITOR)
    portrait = load_portrait(PORTRAITS / "ada.png", 1024, 512)
    small = F.interpolate(portrait[None], (64, 128), mode="area")[0]
    faces = [
        PortraitRefiner(refiner, portrait, small, size)._face.face for size in ((256, 128), (322, 162), (512, 256))
    ]
    for face in faces[1:]:
        assert (face - faces[0]).abs().mean() < 0.05 < (faces[0] - faces[0].roll(8, -1)).abs().mean()


def test_a_portrait_without_a_face_is_refined_by_the_refiner_alone() -> None:
    blank = torch.zeros(3, 512, 512)
    refiner = load_refiner(EMBEDDED_REFINER, EMBEDDED_FACE_EDITOR)
    both = [PortraitRefiner(net, blank, torch.zeros(3, 128, 128), (256, 256)) for net in (refiner, without(refiner))]
    video, visemes = smooth(1, 3, 128, 128)[0][:, None], torch.randn(1, 8)
    torch.testing.assert_close(*(refine(video, visemes) for refine in both), rtol=0, atol=0)


def without(refiner: RefinerNet) -> RefinerNet:
    net = RefinerNet().to(memory_format=torch.channels_last)
    net.load_state_dict({name: w for name, w in refiner.state_dict().items() if not name.startswith("editor.")})
    return net.eval().requires_grad_(False)


def test_files_that_are_no_editor_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(AvatarError, match="'text' is no face editor of this version"):
        load_refiner(EMBEDDED_REFINER, tmp_path / "text")


def test_expressions_are_of_one_head(faces: Faces) -> None:
    from safetensors.numpy import load_file

    made = load_file(faces.people.drawn[0])
    assert made["pictures"].shape == (4 + SMILES, PICTURE, PICTURE, 3) and made["pictures"].std() > 20
    assert not np.ptp(made["moments"][:4, [COLUMN[name] for name in HELD]], axis=0).any()
    assert not np.ptp(made["moments"][:, [COLUMN[name] for name in HELD if name != "smile"]], axis=0).any()
    assert np.ptp(made["moments"][:, -7:], axis=0).max() > 0.3
    moved = np.abs(made["pictures"].astype(int) - made["pictures"][:1]).mean((0, 3))
    part = PICTURE // 18  # of its side: the face is in the middle, the lips below it
    assert moved[7 * part : 10 * part, 4 * part : 9 * part].mean() > 3 * moved[:part, :part].mean()


def test_a_talking_face_has_fewer_teeth_than_its_portrait_and_the_same_cheeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rendered people, by the face units that they would be drawn with."""
    pytest.importorskip("moderngl")
    from joyavatar_core.synthetic.rendered.bundle import load_bundle
    from joyavatar_core.synthetic.rendered.expression import face_units
    from joyavatar_core.synthetic.rendered.person import Person

    names, drawn = load_bundle().units, []

    class Figure:
        """Draws nothing."""

        def __init__(self, person: Person) -> None:
            self.rest = person.rest

        def draw(self, moment: Moment) -> tuple[np.ndarray, FaceLabels]:
            drawn.append(face_units(moment, names, self.rest))
            eyes, box = ((40.0, 40.0, 60.0, 50.0), (90.0, 40.0, 110.0, 50.0)), (30.0, 20.0, 120.0, 130.0)
            return np.zeros((160, 160, 3), np.uint8), FaceLabels(1, 1, box, eyes, (1, 1), box, (0, 0, 0))

    monkeypatch.setattr(expressions, "figure_of", lambda person, size: Figure(person))
    smiling = 0
    for seed in range(6):
        drawn.clear()
        expressions.expression_set(seed, "train", "rendered", 3)
        units = np.array(drawn)
        teeth, cheeks = (units[:, names[f"{name}Left"]] for name in ("mouthUpperUp", "cheekSquint"))
        assert np.ptp(cheeks) < 0.25
        if teeth[3:].min() > 0.25:
            smiling += 1
            assert cheeks[:3].min() > 0.3 and teeth[3:].mean() > teeth[:3].mean() + 0.1
    assert 1 <= smiling < 6


def test_only_portraits_smile_for_a_camera() -> None:
    smile, shown = COLUMN["smile"], COLUMN["teeth"]
    sets = [expression_set(seed, "train", "drawn", 2).moments for seed in range(6)]
    broad = [made for made in sets if made[2:, shown].max() > 0.2]
    assert 1 <= len(broad) < 6
    assert all(made[2:, smile].min() >= made[:2, smile].max() for made in sets)
    assert all(made[2:, smile].mean() > made[:2, smile].mean() + 0.05 for made in broad)
    assert all(not made[2:, COLUMN["press"]].any() for made in sets)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


def test_samples_are_two_faces_and_the_second_one_s_expression(faces: Faces) -> None:
    (face, wanted, told), again = faces.batch(generators(8)), faces.batch(generators(8))
    torch.testing.assert_close(face, again[0], rtol=0, atol=0)
    assert face.shape == wanted.shape == (8, 3, SIDE, SIDE) and told.shape == (8, EXPRESSION_SIZE)
    same = (face == wanted).flatten(1).all(1)
    assert not same.all() and not told[same][:, 7:].any()


def test_the_editor_learns_one_expression(faces: Faces) -> None:
    batch = faces.batch(generators(2))
    torch.manual_seed(0)
    both = WithDiscriminator(FaceEditorNet(), EXPRESSION_SIZE)
    optimizer, losses = torch.optim.Adam(both.parameters(), 3e-3), []
    for _ in range(25):
        found = editor_losses(both, *batch)
        losses.append(found["pixel"].detach())
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_a_resumed_training_goes_on(faces: Faces, tmp_path: Path) -> None:
    for steps in (1, 2):
        net = train_editor(faces, LoopSettings(tmp_path / "run", steps=steps, learning_rate=1e-4, warmup=1), batch=1)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 2
    assert net.usual_flow.abs().max() > 0


def test_mouth_shapes_are_scaled_as_the_viseme_encoder_scales_them() -> None:
    """Speech has zero mean and unit deviation."""
    from joyavatar_core.synthetic.clips import make_script

    shapes = np.concatenate([make_script(seed, "train", 7.0).tracks[:, -7:] for seed in range(6)])
    scaled = scaled_mouth(torch.from_numpy(shapes))
    assert scaled.mean(0).abs().max() < 0.5 and scaled.std(0).min() > 0.6 and scaled.std(0).max() < 1.5
    told = expression_of(scaled[:2], torch.tensor([[1.0, 0, 0], [0, 0.5, 0]]), torch.tensor([0.0, 0.6]))
    assert told.shape == (2, EXPRESSION_SIZE) and told[0, 7] > 1 and told[1, 8] > 1 and told[1, 10] > 1


def test_round_lips_stay_below_what_comes_out_soft() -> None:
    shapes = torch.zeros(3, 7)
    shapes[:, 0], shapes[:, ROUND] = 0.4, torch.tensor([0.0, 0.1, 1.2])
    bent = less_round(scaled_mouth(shapes)) * torch.tensor(MOUTH_DEVIATION) + torch.tensor(MOUTH_MEAN)
    torch.testing.assert_close(bent[:, ROUND], torch.tensor([0.0, 0.0991, 0.5784]), rtol=0, atol=1e-3)
    torch.testing.assert_close(bent[:, [0, 1, 3, 4, 5, 6]], shapes[:, [0, 1, 3, 4, 5, 6]])
