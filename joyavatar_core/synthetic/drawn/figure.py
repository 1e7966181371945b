"""The figure of one drawn character."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import skia

from ..labels import Box, FaceLabels
from ..moment import Moment
from .backdrop import SIDE, draw_backdrop, draw_body, draw_neck
from .characters import Character
from .drawing import NECK, Turn, curve, fill, radial, stroke
from .eyes import draw_brows, draw_eyes
from .face import MOUTH_Y, draw_beard, draw_earrings, draw_ears, draw_glasses, draw_nose, draw_skin, face_outline
from .hair import hair_shape
from .mouth import MAX_GAP, draw_mouth
from .palette import Colour, darker, deeper, lighter

HEAD_X, HEAD_Y = 64.0, 62.0  # the head's centre at rest, in 1/128 of the side
JAW = 0.4  # how far the chin follows the lower lip
BOX = (19.0, 14.0)  # half size of the mouth region
EYE = (6.5, 8.6, 4.8)  # of an open eye: half its width, above and below its middle
BACK_DEPTH, TUFT_DEPTH = -9.0, -4.0


class Portrait:
    """Draws one character. Build once a character; `draw` may then be called for any moments in any order."""

    def __init__(self, character: Character, size: int = 128) -> None:
        self.character, self.size = character, size
        self._pixels = np.zeros((size, size, 4), np.uint8)
        self._surface = skia.Surface(self._pixels)
        canvas = self._surface.getCanvas()
        canvas.scale(size / SIDE, size / SIDE)
        draw_backdrop(canvas, character)
        self._backdrop = self._pixels.copy()
        recorder = skia.PictureRecorder()
        draw_body(recorder.beginRecording(skia.Rect.MakeLTRB(-90, -40, 90, 90)), character)
        self._body = recorder.finishRecordingAsPicture()
        self._hair = hair_shape(character)

    def set_backdrop(self, colour: tuple[int, int, int]) -> None:
        """Use a plain background colour, 0 ... 255, from now on."""
        self._backdrop = np.array([*colour, 255], np.uint8)

    def draw(self, moment: Moment) -> tuple[np.ndarray, FaceLabels]:
        """The picture, uint8 [size, size, 3], and its labels."""
        who, canvas = self.character, self._surface.getCanvas()
        self._pixels[:] = self._backdrop
        turn = Turn.of(moment.yaw, moment.pitch)
        head = skia.Matrix()
        head.preTranslate(HEAD_X + moment.x, HEAD_Y + moment.y)
        head.preScale(who.zoom, who.zoom)
        head.preTranslate(0, NECK)
        head.preRotate(math.degrees(moment.roll))
        head.preTranslate(0, -NECK)

        canvas.save()
        canvas.concat(head)
        self._draw_hair_layer(turn, self._hair.back, BACK_DEPTH, self.character.hair, 0.32)
        canvas.restore()
        self._draw_body(moment, head)
        canvas.save()
        canvas.concat(head)
        trace = self._draw_head(turn, moment, head)
        canvas.restore()
        return self._pixels[..., :3].copy(), trace

    def _draw_body(self, moment: Moment, head: skia.Matrix) -> None:
        who, canvas = self.character, self._surface.getCanvas()
        canvas.save()
        canvas.translate(HEAD_X + 0.45 * moment.x, HEAD_Y + 47 * who.zoom + 0.3 * moment.y - 0.9 * moment.breath)
        canvas.scale(who.zoom * (1 + 0.006 * moment.breath), who.zoom)
        draw_neck(canvas, who, 0.55 * moment.x + 14 * moment.roll, 0.7 * moment.y)
        canvas.drawPicture(self._body)
        canvas.restore()

    def _draw_head(self, turn: Turn, moment: Moment, head: skia.Matrix) -> FaceLabels:
        who, canvas, hair = self.character, self._surface.getCanvas(), self._hair
        jaw_drop = JAW * MAX_GAP * max(moment.open, 0.0)
        self._draw_hair_layer(turn, hair.over, TUFT_DEPTH, hair.cloth or who.hair, 0.15)
        if hair.ears:
            draw_ears(canvas, turn, who)
        # The far side of a turned head: without it the background would show between face and hair.
        if hair.sheer == 1:
            self._draw_hair_layer(turn, hair.front, 1.0, hair.cloth or who.hair, 0.3)
        outline = face_outline(turn, who, jaw_drop)
        draw_skin(canvas, turn, who, outline)
        front = [curve(turn.on_face(points)) for points in hair.front]
        self._shade_under_hair(front, outline)
        draw_beard(canvas, turn, who, jaw_drop, outline)
        trace = self._draw_mouth(turn, moment, head)
        draw_nose(canvas, turn, who)
        lid = min(moment.lid, 1.25)
        gaze = (moment.gaze_x, moment.gaze_y)
        draw_eyes(canvas, turn, who, lid, moment.squint, gaze)
        draw_brows(canvas, turn, who, moment.lift, moment.worry)
        if not hair.ears:  # the temples go under the hair
            draw_glasses(canvas, turn, who)
        self._draw_front_hair(turn, front)
        draw_earrings(canvas, turn, who)
        if hair.ears:
            draw_glasses(canvas, turn, who)
        return trace

    def _draw_mouth(self, turn: Turn, moment: Moment, head: skia.Matrix) -> FaceLabels:
        canvas = self._surface.getCanvas()
        local = turn.tangent(0, MOUTH_Y, lift=1.5)
        canvas.save()
        canvas.concat(local)
        g = draw_mouth(canvas, self.character, moment.mouth, moment.smile)
        canvas.restore()
        unit = self.size / SIDE
        whole = skia.Matrix.Concat(head, local)
        centre = whole.mapXY(0, 2)
        tall, wide = whole.mapVector(0, g.gap), whole.mapVector(2 * g.half_width, 0)
        x, y, (rx, ry) = centre.x() * unit, centre.y() * unit, (self.character.zoom * unit * b for b in BOX)
        who, lid = self.character, max(moment.lid, 0.0)
        eyes = (
            skia.Matrix.Concat(head, turn.tangent(side * who.eye_gap, who.eye_y)).mapRect(_eye(who.eye_size))
            for side in (-1, 1)
        )
        left, right = (self._box(eye) for eye in eyes)
        face = self._box(head.mapRect(face_outline(turn, who, JAW * MAX_GAP * max(moment.open, 0.0)).getBounds()))
        return FaceLabels(
            tall.length() * unit, wide.length() * unit, (x - rx, y - ry, x + rx, y + ry), (left, right), (lid, lid),
            face, (moment.yaw, moment.pitch, moment.roll),
        )  # fmt: skip

    def _box(self, rectangle: skia.Rect) -> Box:
        unit = self.size / SIDE
        return tuple(side * unit for side in (rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()))

    def _shade_under_hair(self, front: list[skia.Path], outline: skia.Path) -> None:
        canvas = self._surface.getCanvas()
        canvas.save()
        canvas.clipPath(outline, True)
        canvas.translate(1.2, 3.0)
        for path in front:
            canvas.drawPath(path, fill(darker(self.character.skin.shade, 0.12), 0.6, blur=1.4))
        canvas.restore()

    def _draw_hair_layer(self, turn: Turn, outlines: Iterable, depth: float, base: Colour, shade: float) -> None:
        paint = radial((-14, -36), 100, lighter(base, 0.08), deeper(base, shade), deeper(base, 0.6))
        for points in outlines:
            self._surface.getCanvas().drawPath(curve(turn.flat(points, depth)), paint)

    def _draw_front_hair(self, turn: Turn, front: list[skia.Path]) -> None:
        canvas, hair = self._surface.getCanvas(), self._hair
        base = hair.cloth or self.character.hair
        light, dark = lighter(base, 0.3), deeper(base, 0.55)
        paint = radial((-14, -44), 78, light, base, dark)
        paint.setAlphaf(hair.sheer)
        for path in front:
            canvas.drawPath(path, paint)
            canvas.save()
            canvas.clipPath(path, True)
            for strand in hair.strands:
                canvas.drawPath(curve(turn.on_face(strand), closed=False), stroke(dark, 0.8, 0.33))
            if hair.gloss:
                arc = turn.on_face([(-27, -26), (-18, -36), (-4, -41), (8, -40)])
                canvas.drawPath(curve(arc, closed=False), stroke(lighter(light, 0.35), 3.0, 0.38, blur=1.2))
            canvas.restore()


def _eye(size: float) -> skia.Rect:
    wide, up, down = (side * size for side in EYE)
    return skia.Rect.MakeLTRB(-wide, -up, wide, down)
