"""One person before one camera: `frame` draws any face at any pose."""

from __future__ import annotations

import numpy as np

from ..labels import FaceLabels
from .expression import Pose
from .head import Head
from .landmarks import Landmarks
from .mesh import Mesh
from .occlusion import seen_sky
from .parts import person_meshes
from .person import Person
from .shot import Shot
from .studio import OCCLUSION_SIDE, Studio
from .transforms import rotation

PIVOT = np.array([0, -1.05, -0.75], np.float32)  # the top of the neck
CULLED = ("skin", "eye", "teeth", "tongue")  # closed surfaces: their backs are not drawn
OCCLUSION_POWER = 0.8
BREATH = 0.02  # how far the chest rises


class Scene:
    """Owns buffers on the studio's device; they are released with the scene."""

    def __init__(self, studio: Studio, person: Person, shot: Shot) -> None:
        self.studio, self.person, self.shot = studio, person, shot
        self.head = Head(studio.bundle, person.morphs)
        self.landmarks = Landmarks(self.head)
        self.meshes = person_meshes(person, self.head)
        self._drawn = [_Drawn(studio, mesh) for mesh in self.meshes]
        self._scenery = studio.upload(shot.scenery)
        self._jaw = studio.bundle.units["jawOpen"]
        for mesh, drawn, sky in zip(self.meshes, self._drawn, seen_sky(self), strict=True):
            mesh.extra[:, 0] = self._smoothed(sky) if mesh.name == "skin" else sky
            mesh.extra[:, 0] **= OCCLUSION_POWER
            drawn.extra.write(mesh.extra.astype("f4").tobytes())

    def set_backdrop(self, colour: tuple[int, int, int]) -> None:
        """Use a plain background colour, 0 ... 255, from now on. The film response applies to it, too."""
        self._scenery = self.studio.upload(np.full((4, 4, 3), colour, np.uint8))

    def frame(self, units: np.ndarray, pose: Pose, seed: float = 0.0) -> tuple[np.ndarray, FaceLabels]:
        """A picture [S, S, 3] uint8 and its labels, for unit weights [52]; `seed` 0..1 is the grain's."""
        studio, context = self.studio, self.studio.context
        posed = self.head.pose(units)
        self._move_vertices(posed, float(units[self._jaw]))
        angles = np.array([pose.yaw, pose.pitch, pose.roll]) + self.person.turned
        turn, shift = rotation(*angles), np.array([*pose.shift, 0.0], np.float32) * self.shot.camera.half
        for program in (studio.depth, *(studio.materials[name] for name in {m.material for m in self.meshes})):
            self._set(program, turn, shift, pose, float(units[self._jaw]))
        self._draw_depth(studio.shadow_map, self.shot.light.shadow_matrix)
        studio.canvas.use()
        studio.canvas.clear(depth=1.0)
        context.enable_only(context.NOTHING)
        studio.backdrop["gain"].value = self.shot.scenery_gain
        self._scenery.use(0)
        studio.backdrop_quad.render(context.TRIANGLE_STRIP)
        self._draw_meshes()
        moved = (posed - PIVOT) @ turn.T + PIVOT + shift
        labelled = float(angles[0]), -float(angles[1]), -float(angles[2])
        labels = self.landmarks.read(posed, moved, self.shot.camera.matrix, studio.size, labelled)
        return self._develop(seed), labels

    def depth_from(self, matrix: np.ndarray) -> np.ndarray:
        """[D, D] depth 0..1 of the meshes at rest, row 0 lowest, for an orthographic `matrix`."""
        program = self.studio.depth
        _write(program, turn=np.eye(3), pivot=np.zeros(3), shift=np.zeros(3), breath=0.0, eye=np.zeros(3))
        self._draw_depth(self.studio.sky_map, matrix)
        return np.frombuffer(self.studio.sky.read(), "f4").reshape(OCCLUSION_SIDE, OCCLUSION_SIDE)

    def _move_vertices(self, posed: np.ndarray, opened: float) -> None:
        source = self.studio.bundle.skin.source
        skin, normals = posed[source], self.head.normals(posed)[source]
        for mesh, drawn in zip(self.meshes, self._drawn, strict=True):
            if mesh.follows_face:
                if mesh.on_skin:
                    vertices, heights = mesh.on_skin
                    facing = normals[vertices]
                    drawn.write(skin[vertices] + facing * heights[:, None], facing)
                elif mesh.name == "skin":
                    drawn.write(skin, normals)
                elif mesh.jaw:
                    drawn.write(mesh.jaw.moved(mesh.positions, opened), mesh.normals)
                else:
                    fitted = self.studio.bundle.parts[mesh.name].fit(posed)
                    drawn.write(fitted if mesh.offset is None else fitted + mesh.offset, mesh.normals)

    def _set(self, program, turn: np.ndarray, shift: np.ndarray, pose: Pose, jaw: float) -> None:
        light, person = self.shot.light, self.person
        _write(
            program, camera=self.shot.camera.matrix, light=light.shadow_matrix, turn=turn, pivot=PIVOT, shift=shift,
            eye=self.shot.camera.eye, breath=BREATH * pose.breath, jaw=jaw, light_direction=light.directions,
            light_colour=light.colours, sky=light.sky, ground=light.ground, hair_colour=person.hair_colour,
            tone=person.tone, lips=person.lips, contrast=person.contrast,
            beard=person.beard_density * (person.beard != "none"),
            freckles=person.freckles, blend=person.skin_blend, scalp=0.25 if person.hair == "none" else 0.92,
            eye_centre=self.head.eyes, gaze=pose.gaze_directions(),
        )  # fmt: skip
        for unit, name in enumerate(("colours", "masks", "shadow", "noise", "colours2")):
            if name in program:
                program[name].value = unit

    def _draw_depth(self, target, matrix: np.ndarray) -> None:
        studio, context = self.studio, self.studio.context
        target.use()
        context.enable_only(context.DEPTH_TEST)
        target.clear(depth=1.0)
        _write(studio.depth, camera=matrix, depth_offset=0.0)
        for mesh, drawn in zip(self.meshes, self._drawn, strict=True):
            if mesh.shadow:
                studio.depth["cut"].value = mesh.material == "hair"
                studio.texture(mesh.texture).texture.use(0)
                drawn.depth.render()

    def _draw_meshes(self) -> None:
        studio, context = self.studio, self.studio.context
        context.enable_only(context.DEPTH_TEST)
        for unit, texture in ((1, studio.masks), (2, studio.shadow), (3, studio.noise)):
            texture.use(unit)
        context.blend_func = context.SRC_ALPHA, context.ONE_MINUS_SRC_ALPHA
        for mesh, drawn in sorted(
            zip(self.meshes, self._drawn, strict=True), key=lambda pair: studio.order[pair[0].material]
        ):
            blended = mesh.material == "decal"
            (context.enable if blended else context.disable)(context.BLEND)
            (context.enable if mesh.material in CULLED else context.disable)(context.CULL_FACE)
            studio.canvas.depth_mask = not blended
            program, texture = studio.materials[mesh.material], studio.texture(mesh.texture)
            texture.texture.use(0)
            _write(program, tint=mesh.tint, brightness=texture.luminance, depth_offset=0.035 if blended else 0.0)
            _write(program, **mesh.uniforms)
            if mesh.material == "skin":
                second = studio.texture(f"skin.{self.person.skins[1]}.jpg")
                second.texture.use(4)
                _write(program, mean=texture.face, mean2=second.face)
            drawn.shaded.render()
        studio.canvas.depth_mask = True

    def _develop(self, seed: float) -> np.ndarray:
        studio, context, film = self.studio, self.studio.context, self.shot.film
        studio.picture.use()
        context.enable_only(context.NOTHING)
        studio.light.use(0)
        _write(studio.film, seed=seed % 1.0, pixel=np.full(2, 1 / studio.side), **film.response())
        studio.film_quad.render(context.TRIANGLE_STRIP)
        pixels = np.frombuffer(studio.picture.read(components=3, alignment=1), np.uint8)
        return pixels.reshape(studio.size, studio.size, 3)[::-1]

    def _smoothed(self, sky: np.ndarray) -> np.ndarray:
        """The skin's seen sky, half of it averaged over neighbours."""
        bundle = self.studio.bundle
        whole = np.zeros(len(bundle.base))
        whole[bundle.skin.source] = sky
        spread = bundle.spread()
        near = spread @ whole[bundle.skin_triangles].mean(1) / np.maximum(np.asarray(spread.sum(1)).ravel(), 1)
        return (0.5 * whole + 0.5 * near)[bundle.skin.source]


class _Drawn:
    """A mesh's buffers and vertex arrays."""

    def __init__(self, studio: Studio, mesh: Mesh) -> None:
        context = studio.context
        self.vertices = context.buffer(_interleaved(mesh.positions, mesh.normals), dynamic=True)
        self.extra = context.buffer(mesh.extra.astype("f4").tobytes())
        self.uv = context.buffer(mesh.uv.astype("f4").tobytes())
        self.index = context.buffer(mesh.triangles.astype("i4").tobytes())
        content = [
            (self.vertices, "3f 3f", "in_position", "in_normal"), (self.uv, "2f", "in_uv"),
            (self.extra, "3f", "in_extra"),
        ]  # fmt: skip
        self.shaded = context.vertex_array(studio.materials[mesh.material], content, self.index, skip_errors=True)
        self.depth = context.vertex_array(studio.depth, content, self.index, skip_errors=True)

    def write(self, positions: np.ndarray, normals: np.ndarray) -> None:
        self.vertices.write(_interleaved(positions, normals))


def _interleaved(positions: np.ndarray, normals: np.ndarray) -> bytes:
    return np.hstack([positions, normals]).astype("f4").tobytes()


def _write(program, **uniforms: object) -> None:
    """Set those uniforms that the program has; matrices are given as rows."""
    for name, value in uniforms.items():
        if name in program:
            array = np.asarray(value, "f4")
            if name in ("camera", "light", "turn"):
                array = array.T
            if isinstance(value, int):
                program[name].value = value
            else:
                program[name].write(np.ascontiguousarray(array).tobytes())
