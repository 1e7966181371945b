"""Claims about the rendered people: who they are, what their labels say, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="rendering people needs scipy, from the extra 'train'")
pytest.importorskip("skia", reason="making data needs skia-python, from the extra 'train'")

from joyavatar_core.errors import AvatarError
from joyavatar_core.synthetic.clips import Moment, generator, make_script
from joyavatar_core.synthetic.rendered import mouth, studio, wardrobe
from joyavatar_core.synthetic.rendered.bundle import DATA, Bundle, load_bundle
from joyavatar_core.synthetic.rendered.expression import Rest, face_units, head_pose
from joyavatar_core.synthetic.rendered.head import FACE, Head
from joyavatar_core.synthetic.rendered.landmarks import LOWER_LIP, Landmarks
from joyavatar_core.synthetic.rendered.person import Person, sample_person
from joyavatar_core.synthetic.rendered.shot import sample_camera
from joyavatar_core.synthetic.rendered.transforms import rotation

ROOT = Path(__file__).parents[1]
SIZE = 256


def person(seed: int, split: str = "train") -> Person:
    return sample_person(generator(seed, split, 16), split, load_bundle(), (seed,))


@pytest.fixture(scope="module")
def head() -> Head:
    return Head(load_bundle(), person(3).morphs)


@pytest.fixture(scope="module")
def labels(head):
    """Labels of a moment, seen from the front."""
    landmarks, camera = Landmarks(head), sample_camera(np.random.default_rng(1))

    def read(moment: Moment):
        posed = head.pose(face_units(moment, head.bundle.units, Rest()))
        pose = head_pose(moment)
        moved = posed @ rotation(pose.yaw, pose.pitch, pose.roll).T
        return landmarks.read(posed, moved, camera.matrix, SIZE, (pose.yaw, -pose.pitch, -pose.roll))

    return read


@pytest.fixture(scope="module")
def rendering() -> None:
    try:
        studio.check_rendering()
    except AvatarError as problem:
        pytest.skip(f"THE RENDERER IS NOT TESTED HERE: {problem}")


def test_the_bundle_is_small_whole_and_has_its_sources():
    files = {line.split()[1]: line.split()[0] for line in (DATA / "SHA256SUMS").read_text().splitlines()}
    for name, digest in files.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest, name
    kept = {str(p.relative_to(DATA)) for p in DATA.rglob("*") if p.is_file()}
    assert kept == {*files, "SHA256SUMS", "SOURCES.md"}
    assert sum((DATA / name).stat().st_size for name in kept) < 12 << 20
    sources = (DATA / "SOURCES.md").read_text()
    assert all(Path(name).name in sources for name in files if name != "CC0.md")


def test_the_bundle_is_in_nothing_that_users_install():
    assert f"{DATA.relative_to(ROOT).as_posix()}/" in (ROOT / ".comfyignore").read_text().split()
    packed = (ROOT / "pyproject.toml").read_text().split("[tool.setuptools.package-data]")[1]
    assert packed.split("[tool.")[0].split("\n") == ["", 'joyavatar_core = ["assets/**"]', "", ""]


def test_a_seed_is_a_person():
    assert person(4) == person(4)
    assert person(4) != person(5)
    assert person(4) != person(4, "held-out")


def test_splits_share_no_skin_hair_or_clothes():
    people = {split: [person(seed, split) for seed in range(150)] for split in ("train", "held-out")}
    for worn in (lambda p: set(p.skins), lambda p: {p.clothes}, lambda p: {p.hair} if "mesh" in p.hair else set()):
        train, held_out = (set().union(*map(worn, people[split])) for split in ("train", "held-out"))
        assert train and held_out and not train & held_out


def test_everything_in_the_wardrobe_is_in_the_bundle():
    bundle = load_bundle()
    textures = {path.stem for path in bundle.textures.iterdir()}
    for table in (wardrobe.SKINS, wardrobe.HAIR, wardrobe.CLOTHES):
        for names in table.values():
            for name in " ".join(names).split():
                kind = {id(wardrobe.SKINS): "skin.", id(wardrobe.CLOTHES): "cloth."}.get(id(table), "")
                if table is wardrobe.HAIR:
                    if not name.startswith("mesh:"):
                        continue
                    name = f"hair.{name.removeprefix('mesh:')}"
                assert kind + name in textures
                assert table is wardrobe.SKINS or kind + name in bundle.parts


def test_every_face_is_as_high(head):
    other = Head(load_bundle(), person(8).morphs)
    for one in (head, other):
        assert np.allclose(one.eyes.mean(0), 0, atol=1e-4)
        skin = one.positions[one.bundle.skin.source]
        chin = skin[(np.abs(skin[:, 0]) < 0.1) & (np.abs(skin[:, 1] + FACE) < 0.02)]
        assert len(chin) and chin[:, 2].max() > 0


def test_the_gap_follows_the_jaw_and_pressed_lips_close_it(labels):
    gaps = [labels(Moment(open=x)).opening for x in np.linspace(0, 1, 9)]
    assert np.all(np.diff(gaps) > 0) and gaps[0] < 1 and gaps[-1] > 0.06 * SIZE
    assert labels(Moment(open=0.0, press=1.0)).opening == 0


def test_round_lips_are_narrow_and_spread_lips_wide(labels):
    narrow, rest, wide = (labels(m).width for m in (Moment(round=1, open=0.2), Moment(), Moment(spread=0.85)))
    assert narrow < 0.85 * rest < rest < 0.9 * wide


def test_lower_teeth_go_with_the_jaw_as_one_piece_and_upper_teeth_stay(head):
    teeth = mouth.teeth(head)
    closed, opened = (teeth.jaw.moved(teeth.positions, x) for x in (0.0, 1.0))
    lower = teeth.jaw.lower
    assert np.allclose(closed, teeth.positions, atol=1e-6) and np.array_equal(opened[~lower], closed[~lower])
    some = np.flatnonzero(lower)[::97]
    apart = [np.linalg.norm(x[some, None] - x[some], axis=-1) for x in (closed, opened)]
    assert np.allclose(*apart, atol=1e-5)
    lips = [head.pose(face_units(Moment(open=x), head.bundle.units, Rest())) for x in (0.0, 1.0)]
    lip = head.bundle.vertex(LOWER_LIP[0])
    front = lower & (closed[:, 2] > closed[lower, 2].max() - mouth.INCISORS)
    edges = [x[front, 1].max() - posed[lip, 1] for x, posed in zip((closed, opened), lips, strict=True)]
    assert max(edges) < 0.1 and abs(edges[1] - edges[0]) < 0.15  # hidden by the lip, or nearly


def test_lids_follow_the_track(labels):
    lids = np.array([labels(Moment(lid=x)).lids for x in (1.15, 1.0, 0.5, 0.0)])
    assert np.all(np.diff(lids, axis=0) < 0)
    assert np.all(lids[-1] < 0.15) and np.all(lids[0] > 1)


def test_boxes_hold_what_they_name(labels):
    for moment in (Moment(), Moment(yaw=0.3, open=0.8), Moment(yaw=-0.3, pitch=0.2, roll=0.2)):
        found = labels(moment)
        (left, right), face, mouth = found.eyes, found.face, found.box
        assert face[0] < left[0] < left[2] < right[0] < right[2] < face[2]
        assert face[1] < left[1] < left[3] < mouth[3] < face[3] + 0.1 * (face[3] - face[1])
        assert mouth[0] < mouth[2] and mouth[2] - mouth[0] > found.width


def test_a_pose_has_the_signs_of_a_moment(labels):
    centre = lambda box: (box[0] + box[2]) / 2  # noqa: E731
    assert labels(Moment(yaw=0.3)).pose == pytest.approx((0.3, 0, 0))
    assert centre(labels(Moment(yaw=0.3)).box) > centre(labels(Moment(yaw=-0.3)).box)  # to the picture's right
    assert labels(Moment(pitch=0.2)).box[1] < labels(Moment(pitch=-0.2)).box[1]  # up
    clockwise = labels(Moment(roll=0.2)).eyes
    assert clockwise[0][1] < clockwise[1][1]


def test_a_missing_bundle_is_one_sentence(tmp_path):
    with pytest.raises(AvatarError, match="checkout of the repository"):
        Bundle(tmp_path)


def test_missing_moderngl_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "moderngl", None)
    with pytest.raises(AvatarError, match="extra 'train', or choose drawn people"):
        studio.open_context()


def test_missing_egl_is_one_sentence(monkeypatch):
    moderngl = pytest.importorskip("moderngl")

    def fail(**_: object) -> None:
        raise OSError("libEGL.so.1 not loaded")

    monkeypatch.setattr(moderngl, "create_context", fail)
    with pytest.raises(AvatarError, match=r"libEGL.so.1 not loaded.*libgl1-mesa-dri"):
        studio.open_context()


@pytest.fixture(scope="module")
def figure(rendering):
    from joyavatar_core.synthetic.rendered.figure import RenderedFigure

    return RenderedFigure(person(6), SIZE)


@pytest.mark.usefixtures("rendering")
class TestPixels:
    """What needs OpenGL; pixels are compared within one process only, as rasterisers differ."""

    def test_a_moment_is_a_picture(self, figure):
        first, found = figure.draw(Moment(open=0.4))
        figure.draw(Moment(yaw=0.2, lid=0.0))
        again, same = figure.draw(Moment(open=0.4))
        assert first.shape == (SIZE, SIZE, 3) and first.dtype == np.uint8
        assert np.array_equal(first, again) and found == same
        assert first.std() > 15

    def test_the_mouth_moves_inside_its_box(self, figure):
        closed, _ = figure.draw(Moment())
        opened, found = figure.draw(Moment(open=0.9))
        changed = np.abs(closed.astype(float) - opened).max(-1) > 60
        left, top, right, bottom = (round(side) for side in found.box)
        inside = changed[max(top, 0) : bottom, max(left, 0) : right].sum()
        assert inside > 100 and inside > 0.8 * changed.sum()

    def test_clips_are_resumed(self, tmp_path):
        import ctypes.util
        import shutil

        if shutil.which("flite") is None or ctypes.util.find_library("espeak-ng") is None:
            pytest.skip("making data needs espeak-ng and flite")
        from joyavatar_core.synthetic.dataset import clip_frames, load_clip, write_dataset

        options = {"split": "train", "seconds": 0.5, "workers": 1, "size": 64, "people": ("rendered",)}
        (path,) = write_dataset(tmp_path, 1, 3, **options)
        before = path.stat().st_mtime_ns
        assert write_dataset(tmp_path, 1, 3, **options) == [path] and path.stat().st_mtime_ns == before
        clip, script = load_clip(path), make_script(3, "train", 0.5, "rendered")
        assert len(clip.frames) == clip_frames(path) == len(clip.eyes) == len(clip.pose) == 9
        assert np.array_equal(clip.tracks, script.tracks)
        assert np.allclose(clip.pose[:, 0], script.tracks[:, 0] + script.character.turned[0], atol=1e-4)
        assert clip.portraits.shape == (4, 64, 64, 3)


def test_a_rendered_person_is_judged_by_the_labels_of_the_posed_mouth(rendering):
    from joyavatar_core.evaluation.rollout import Judge, Truth

    truth = Truth.of(101, 4.0, 128, people="rendered")
    assert truth.frames.shape == (65, 128, 128, 3)
    assert len(truth.opening) == len(truth.width) == len(truth.box) == 65
    assert truth.lids.min() < 0.3 < 0.8 < truth.lids.max()  # somebody who blinks
    judge = Judge(truth, np.stack([truth.frames[::2].mean(0)]))
    own = judge.measure(truth.frames)
    assert own["mouth_r"] == own["mouth_r_drawn"]
    assert own["amplitude"] == pytest.approx(1)
