"""Draws the cats and dogs in dataset/sample/dogcat: what a classifier is trained on where there is no other data.

`python dataset/make_dogcat.py [FOLDER]` writes FOLDER/train/cat.0.jpg …, FOLDER/test/1.jpg …, FOLDER/test_labels.csv,
always the same. To each cat there is a dog with its scene, coat and pose: only the animal tells which it is.

Shapes are arrays (N, 2) of (x, y), y down, in units of half a head's width; (0, 0) is the middle of the head.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator
from pen import Colour, Marks, Pen, both, curve, oval, rgb, tube
from PIL import Image, ImageDraw, ImageFilter

OVERSAMPLING = 4
TRAIN, TEST = 48, 24  # pictures of each kind to train with; pictures of both kinds to test with


# ------------------------------------------------------------------------------------------------------------ animals

FURS = ["35323b", "4a3429", "7b5138", "b9814a", "dd8a3c", "e8cc9c", "f0ebe2", "8f9299", "667080"]
PATTERNS = ["plain", "white", "white", "stripes", "stripes", "patches", "spots", "points", "saddle"]
CHEST = ("white", "stripes", "saddle")  # patterns with a pale one
DARK, PINK = rgb("37282a"), rgb("d9938c")  # of lids and lips; of the inner ear


@dataclass(frozen=True)
class Coat:
    """The colours of the fur, its marks, what is pale, and the muzzle, and how the marks lie."""

    base: Colour
    mark: Colour
    pale: Colour
    muzzle: Colour
    pattern: str

    def on(self, rng: Generator, shape: Array, part: str) -> tuple[Colour, Marks]:
        """Colour and marks of a part of the animal: head, ear, body, leg or tail."""
        (left, top), (w, h) = shape.min(0), np.ptp(shape, axis=0)

        def spot(x: float, y: float, rx: float, ry: float) -> tuple[Array, Colour]:
            """An ellipse in shares of the part's box."""
            return oval(left + x * w, top + y * h, rx * w, ry * h), self.mark

        base, marks = self.base, []
        if self.pattern == "points" and part in ("ear", "tail"):
            base = self.mark
        elif self.pattern in ("points", "white") and part == "leg":
            marks = [(spot(0.5, 1, 1, 0.42)[0], self.muzzle)]
        elif self.pattern == "saddle" and part in ("body", "tail", "ear"):
            marks = [spot(0.42, 0.1, 0.55, 0.5)]
        elif self.pattern == "spots" and part != "ear":
            marks = [spot(*rng.uniform(0, 1, 2), r / w, r / h) for r in rng.uniform(0.05, 0.16, round(2 + 4 * w * h))]
        elif self.pattern == "patches" and part != "leg":
            count = 3 if part == "body" else 1
            marks = [spot(rng.uniform(), rng.uniform(0, 0.6), *rng.uniform(0.2, 0.45, 2)) for _ in range(count)]
        elif self.pattern == "stripes" and part in ("body", "tail", "leg"):
            count = max(3, round(max(w, h) / 0.42))
            for t in (np.arange(count) + 0.5) / count:  # from the back down, or from both sides to the middle
                sides = [(t, 0, t, 0.9)] if w > h else [(0, t, 0.4, t), (1, t, 0.6, t)]
                for x, y, to_x, to_y in sides:
                    path = np.linspace((x, y), (to_x, to_y * rng.uniform(0.6 if w > h else 0.95, 1)), 6)
                    marks.append((tube((left, top) + path * (w, h), 0.09, 0.02), self.mark))
        return base, marks


def new_coat(rng: Generator) -> Coat:
    code, pattern = rng.choice(FURS), rng.choice(PATTERNS)
    mark = rgb(code, 1.3 if sum(rgb(code)) < 330 else 0.55)
    if pattern in ("patches", "saddle", "spots") and rng.uniform() < 0.6:
        code, mark = rng.choice(["f0ebe2", "e8cc9c", "b9814a"]), rgb(rng.choice(FURS[:5]))
    if pattern == "points":
        code, mark = rng.choice(["f0ebe2", "e8cc9c"]), rgb(rng.choice(FURS[:3]))
    pale = rgb("f6f0e6") if rng.uniform() < 0.7 else rgb(code, 1.4)
    return Coat(rgb(code), mark, pale, {"points": mark, "plain": rgb(code)}.get(pattern, pale), pattern)


def fur(pen: Pen, coat: Coat, shape: Array, part: str, *pale: Array, marks: Marks = ()) -> None:
    colour, own = coat.on(pen.rng, shape, part)
    pen.part(shape, colour, [*own, *marks, *[(p, coat.pale) for p in pale if coat.pattern in CHEST]], furry=True)


def eyes(pen: Pen, middle: float, y: float, apart: float, size: float, iris: Colour, pupil: float) -> None:
    """`pupil`: its width as a share of the eye's; 0: shut, contented."""
    for x in (middle - apart, middle + apart):
        if not pupil:
            pen.line(0.07, DARK, (x - size, y), (x, y + 0.5 * size), (x + size, y))
            continue
        pen.flat(oval(x, y, 1.15 * size, 1.1 * size), DARK)
        pen.flat(oval(x, y, size, 0.95 * size), iris)
        pen.flat(oval(x, y, pupil * size, 0.85 * size), rgb("100c10"))
        pen.flat(oval(x - 0.35 * size, y - 0.4 * size, 0.27 * size, 0.25 * size), rgb("ffffff"))


def ears(pen: Pen, coat: Coat, shape: Array, pricked: bool) -> None:
    for side in (-1, 1):
        fur(replace(pen, fluff=pen.fluff * (not pricked)), coat, shape * (side, 1), "ear")
        if pricked:
            pen.part((shape * 0.6 + (0.25, -0.29)) * (side, 1), PINK)


def skull(pen: Pen, coat: Coat, yaw: float, shape: Array) -> None:
    """What of a head has no features yet. `yaw`: how far the face is turned to the right."""
    blaze = both((0, -0.8), (0.12, -0.45), (0.2, -0.1), (0.52, 0.4), (0.5, 1), (0, 1.1)) + (yaw, 0)
    mask, cap = oval(yaw, 0.35, 0.6, 0.6), oval(0, -0.85, 0.75, 0.4)
    marks = {"white": [(blaze, coat.pale)], "points": [(mask, coat.mark)], "saddle": [(cap, coat.mark)]}
    marks = marks.get(coat.pattern, [])
    if coat.pattern == "stripes":
        lines = [((x, -0.95), (0.8 * x + yaw, -0.47)) for x in (-0.38, 0, 0.38)]
        lines += [((1.1 * s, y - 0.08), (0.72 * s, y + 0.05)) for s in (-1, 1) for y in (0.15, 0.42)]
        marks = [(tube(np.linspace(*line, 6), 0.08, 0.03), coat.mark) for line in lines]
    fur(pen, coat, shape, "head", marks=marks)


def cat_head(pen: Pen, coat: Coat, yaw: float) -> None:
    rng = pen.rng
    high, apart, wide = rng.uniform(1.35, 1.65), rng.uniform(0.72, 0.98), rng.uniform(0.98, 1.1)
    ear = curve((0.98, -0.2), (0.98, -0.7), (apart, -high), (apart - 0.05, 0.03 - high), (0.45, -1.08), (0.1, -0.7))
    ears(pen, coat, ear, True)
    shape = both((0, -0.88), (0.5, -0.82), (0.88, -0.4), (wide, 0.15), (wide - 0.06, 0.5), (0.58, 0.8), (0, 0.9))
    skull(pen, coat, yaw, shape)
    iris = rgb(rng.choice(["8fbf4a", "e0b23a", "6fb0d8", "c98a2e", "5fae8a"]))
    pupil = rng.choice([0, 0.2, 0.32, 0.7, 0.8])
    eyes(pen, yaw, -0.02, 0.44, rng.uniform(0.2, 0.24), iris, pupil)
    x = 1.25 * yaw
    for dx, y, rx, ry in ((0, 0.64, 0.2, 0.15), (-0.18, 0.48, 0.24, 0.18), (0.18, 0.48, 0.24, 0.18)):
        pen.part(oval(x + dx, y, rx, ry), coat.mark if coat.pattern == "points" else coat.pale)
    pen.flat(curve((x - 0.14, 0.25), (x, 0.22), (x + 0.14, 0.25), (x + 0.03, 0.38), (x - 0.03, 0.38)), rgb("c96f72"))
    pen.line(0.035, DARK, (x, 0.36), (x, 0.48))
    hair = rgb("faf8f0") if sum(coat.base) < 560 else rgb("5a5050")
    for side in (-1, 1):
        pen.line(0.04, DARK, (x, 0.48), (x + 0.12 * side, 0.56), (x + 0.26 * side, 0.5))
        for y, droop in ((0.44, -0.12), (0.49, 0.06), (0.54, 0.24)):
            end = (x + 1.4 * side, 0.48 + 1.6 * droop)
            pen.line(0.03, hair, (x + 0.28 * side, y), (x + 0.8 * side, 0.4 + droop), end)


def dog_head(pen: Pen, coat: Coat, yaw: float) -> None:
    rng = pen.rng
    kind = rng.choice(["long", "flop", "flop", "half", "prick"])
    wide, jaw = rng.uniform(0.8, 0.92), rng.uniform(0.36, 0.46)
    high, low = -rng.uniform(1.4, 1.75), rng.uniform(0.7, 1.05) if kind == "long" else rng.uniform(0.25, 0.5)
    if kind == "prick":
        ear = curve((0.85, -0.3), (0.95, -0.85), (0.8, high), (0.68, high), (0.4, -1.05), (0.2, -0.7))
    elif kind == "half":
        ear = curve((0.25, -0.8), (0.55, -1.25), (0.85, -1.2), (1.12, -0.78), (0.98, -0.72), (0.75, -0.9), (0.7, -0.6))
    else:
        hem = [(1.22, 0.6 * low), (1.02, low), (0.82, 0.6 * low)]
        ear = curve((0.42, -0.82), (0.85, -0.92), (1.15, -0.45), *hem, (0.72, -0.3))
    if kind == "prick":
        ears(pen, coat, ear, True)
    shape = both((0, -0.9), (0.5, -0.84), (wide, -0.4), (wide + 0.02, 0.1), (0.68, 0.55), (0.45, 0.85), (0, 0.95))
    skull(pen, coat, yaw, shape)
    if coat.pattern in ("saddle", "plain") and sum(coat.base) < 330:  # tan brows
        for side in (-1, 1):
            pen.flat(oval(0.34 * side + yaw, -0.4, 0.11, 0.08), rgb("b9814a"))
    eyes(pen, yaw, -0.14, 0.37, rng.uniform(0.125, 0.155), rgb("5a3420"), 0.8)
    x, y = 1.9 * yaw, rng.uniform(0.42, 0.64)
    if rng.uniform() < 0.55:
        pen.part(both((0, y + 0.1), (0.24, y + 0.25), (0.2, y + 0.6), (0, y + 0.68)) + (x, 0), rgb("4a2428"))
        pen.part(both((0, y + 0.25), (0.15, y + 0.3), (0.16, y + 0.7), (0, y + 0.82)) + (x, 0), rgb("e0808a"))
    cheek = (1.1 * jaw, y + 0.08)
    snout = both((0, -0.14), (0.16, -0.1), (0.8 * jaw, y - 0.22), cheek, (0.7 * jaw, y + 0.36), (0, y + 0.3))
    snout[:, 0] += np.interp(snout[:, 1], (-0.14, y), (0.8 * yaw, x))
    pen.part(snout, coat.muzzle)
    pen.line(0.045, DARK, (x, y), (x, y + 0.17))
    lips = [(x + dx, y + dy) for dx, dy in ((-0.4, 0.14), (-0.2, 0.26), (0, 0.17), (0.2, 0.26), (0.4, 0.14))]
    pen.line(0.045, DARK, *lips)
    nose = both((0, y - 0.27), (0.2, y - 0.25), (0.24, y - 0.1), (0.1, y + 0.03), (0, y + 0.05)) + (x, 0)
    pen.part(nose, rgb(rng.choice(["33282b", "33282b", "33282b", "6b4436"])))
    pen.flat(oval(x - 0.07, y - 0.18, 0.07, 0.035), rgb("cdc8cd"))
    if kind != "prick":
        ears(replace(pen, shade=0.8), coat, ear, False)


def leg(pen: Pen, coat: Coat, thick: float, *path: tuple[float, float]) -> None:
    shape, toes = tube(curve(*path, closed=False), 1.2 * thick, thick), [(1.3, -0.3), (1.7, 0.7), (0, 1), (-1, 0.8)]
    colour, marks = coat.on(pen.rng, shape, "leg")
    pen.part(shape, colour, marks)
    paw = coat.muzzle if coat.pattern in ("points", "white") else colour
    pen.part(path[-1] + thick * curve((-1.1, 0.2), (0, -0.9), *toes), paw)


def tail(pen: Pen, coat: Coat, cat: bool, *path: tuple[float, float]) -> None:
    start, end = (0.22, 0.34) if pen.fluff else (0.2, 0.15) if cat else (0.3, 0.09)
    fur(pen, coat, tube(curve(*path, closed=False), start, end), "tail", oval(*path[-1], 0.42, 0.42))


def portrait(pen: Pen, coat: Coat, cat: bool) -> None:
    """Head and shoulders."""
    wide = 1.15 if cat else 1.3
    shape = both((0, 0.2), (0.6, 0.5), (0.85, 1.1), (wide, 1.9), (wide + 0.1, 3.2), (0, 3.4))
    fur(pen, coat, shape, "body", both((0, 0.8), (0.5, 1.1), (0.45, 2.4), (0, 3.4)))


def sitting(pen: Pen, coat: Coat, cat: bool) -> None:
    """From the front."""
    side, waist = pen.rng.choice([-1, 1]), 1.0 if cat else 0.85
    tails = [[(1.8, 3.1), (2, 1.9), (2.3, 1.1)], [(1.8, 3.1), (1.4, 3.4), (0.4, 3.45)], [(1.4, 2.9), (2, 2.1)]]
    around = cat and not pen.fluff and pen.rng.uniform() < 0.6  # the feet
    path = [(side * x, y) for x, y in [(0.9, 3.0), *tails[around if cat else 2]]]
    tail(pen, coat, cat, *path)
    for s in (-1, 1):
        fur(pen, coat, oval(0.85 * s * waist, 2.8, 0.55, 0.62), "leg")
    shape = both((0, 0.3), (0.6, 0.6), (0.92 if cat else 1.02, 1.5), (1.05 * waist, 2.5), (0.85 * waist, 3.2), (0, 3.3))
    fur(pen, coat, shape, "body", both((0, 0.7), (0.5, 1), (0.45, 1.9), (0, 2.5)))
    for s in (-1, 1):
        leg(pen, coat, 0.2 if cat else 0.25, (0.41 * s, 1.9), (0.36 * s, 2.6), (0.36 * s, 3.2))
    if around:
        tail(pen, coat, cat, *path)


def standing(pen: Pen, coat: Coat, cat: bool) -> None:
    """From the side, the head to the right."""
    rng = pen.rng
    ground, gait, long = 3.2 if cat else rng.uniform(3.1, 3.8), rng.uniform(-0.35, 0.35), rng.uniform(3.0, 3.5)
    thick, belly = (0.2, 2.15) if cat else (0.25, 1.95)
    tails = [[(0.6, 0.5), (0.8, -0.3)], [(0.8, 0.9), (1.4, 0.4)], [(0.5, 0.2), (0, -0.3), (-0.5, 0.1)]]
    if cat:
        tails = [[(0.7, 0.5), (0.6, -0.6), (1, -1.4), (0.5, -1.6)], [(0.7, 1.5), (1.1, 2.3), (1.7, 2.2)]]
    tail(pen, coat, cat, (-long, 1), *[(-long - x, y) for x, y in tails[rng.integers(len(tails))]])
    for x, swing in ((-0.25, gait), (0.3 - long, -gait)):
        leg(replace(pen, shade=0.7), coat, thick, (x, 1.7), (x + 0.5 * swing, 2.4), (x + swing, ground - 0.15))
    back = [(0.3, 0.2), (-0.5, 0.6), (-1.6, 0.8), (0.2 - long, 0.72), (-long - 0.25, 1.3)]
    shape = curve(*back, (0.2 - long, belly), (-1.7, belly), (-0.6, 2.4), (0.25, 2.1), (0.6, 1.2))
    fur(pen, coat, shape, "body", oval(0.3, 2.0, 0.9, 0.7))
    for x, swing in ((0.05, -gait), (0.05 - long, gait)):
        leg(pen, coat, 1.15 * thick, (x, 1.7), (x - 0.15 * (x < -1), 2.4), (x + swing, ground))


def lying(pen: Pen, coat: Coat, cat: bool) -> None:
    """Flat on the ground, the head to the right."""
    top, reach = (0.1, 0.6) if cat else (0.5, 1.1)
    back = [(0.4, 0.3), (-1, top + 0.25), (-2.3, top), (-3.3, 0.9), (-3.5, 1.8)]
    shape = curve(*back, (-2, 2.05), (0.3, 2.05), (0.8, 1.3))
    fur(pen, coat, shape, "body", oval(0.5, 1.8, 0.8, 0.9))
    fur(pen, coat, oval(-2.7, 1.55, 0.75, 0.55), "leg")
    tip = [(-2.6, 2.2), (-1.6, 2.15), (-0.9, 2.0)] if cat else [(-3.9, 1.8), (-4.4, 1.3)]
    tail(pen, coat, cat, (-3.3, 1.75), *tip)
    for x in (0.0, 0.5):
        leg(pen, coat, 0.22, (x - 0.3, 1.75), (x + 0.3 * reach, 1.9), (x + reach, 1.95))


# ------------------------------------------------------------------------------------------------------------- scenes

SCENES = {  # sky or wall above and below, two grounds, trees, grass, colour of the light
    "meadow": ("8fc3ea", "dff0f5", "6b934c", "8fbf5f", "4f8a48", "5f9a48", (1.03, 1.02, 0.96)),
    "snow": ("b9cbe0", "eef2f6", "bdc4cb", "f4f6f8", "54786c", "c9d3dc", (0.97, 1.0, 1.04)),
    "evening": ("5b4a86", "f4a765", "6a4a6a", "77704f", "43344e", "5c5640", (1.0, 0.88, 0.84)),
    "room": ("", "", "f0e8da", "", "", "", (1.03, 0.99, 0.93)),
}
POSES = {  # what draws the body; left, top, right, bottom of the animal in units
    "portrait": (portrait, (-1.3, -1.5, 1.3, 1.6)),
    "sitting": (sitting, (-1.6, -1.5, 1.6, 3.5)),
    "standing": (standing, (-4.3, -1.5, 1.2, 3.5)),
    "lying": (lying, (-3.9, -1.5, 1.6, 2.3)),
}


def background(rng: Generator, size: tuple[int, int], scene: str) -> Image.Image:
    """What is behind the animal, a little out of focus. Here the unit is the picture's height."""
    above, below, far, ground, leaf, grass, _ = SCENES[scene]
    if scene == "room":
        above = below = rng.choice(["d8c4a8", "a9bfb4", "c9a9a0", "9fb0c8", "e4d6a8"])
        ground = rng.choice(["b08458", "8a6a50", "a39a92"])
    level, wide = rng.uniform(0.42, 0.68), size[0] / size[1]  # of the horizon; of the picture
    rows = np.linspace(rgb(above, rng.uniform(0.92, 1.05)), rgb(below), size[1])[:, None]  # (H, 1, 3)
    image = Image.fromarray(np.repeat(rows, size[0], axis=1).astype(np.uint8))
    pen = Pen(image, rng, size[1])
    if scene == "evening":
        pen.flat(oval(wide * rng.uniform(0.1, 0.9), level - rng.uniform(0.02, 0.2), 0.11, 0.11), rgb("ffe0a0"))
    if scene == "room" and rng.uniform() < 0.6:  # a window
        left, top = rng.uniform(-0.1, wide - 0.3), rng.uniform(0, 0.15)
        for x, half in ((left + 0.2, 0.21), (left + 0.09, 0.085), (left + 0.31, 0.085)):
            pen.flat(tube(np.array([(x, top), (x, top + 0.3)]), half, half), rgb("f5efe2" if half > 0.2 else "a9d3ee"))
    for y, colour, rough in ((level - 0.07, far, 0.04), (level, ground, 0.03)):
        x = np.linspace(-0.1, wide + 0.1, 40)
        line = y + rough * np.sin(x * rng.uniform(2, 5) + rng.uniform(0, 6)) * (scene != "room")
        pen.flat(np.concatenate([np.stack([x, line], 1), [(wide + 0.1, 1.1), (-0.1, 1.1)]]), rgb(colour))
        if colour == far and scene != "room":
            for at, tall in rng.uniform((0, 0.15), (wide, 0.38), (rng.integers(5), 2)):
                pen.line(0.03, rgb("5a4336"), (at, y + 0.06), (at, y - 0.1))
                cone = np.array([(at - 0.3 * tall, y), (at, y - tall), (at + 0.3 * tall, y)])
                crown = cone if scene == "snow" else oval(at, y + 0.06 - tall, 0.35 * tall, 0.4 * tall)
                pen.flat(crown, rgb(leaf, rng.uniform(0.9, 1.1)))
    if scene == "room":
        x, rug = wide * rng.uniform(0.3, 0.7), rng.choice(["b5524a", "4f7f86", "d0a040", "7a6a9a"])
        pen.flat(oval(x, 0.95, 0.6, 0.16), rgb(rug))
    image = image.filter(ImageFilter.GaussianBlur(1.2 * OVERSAMPLING))
    pen = replace(pen, image=image)
    for x, y in rng.uniform((0, level + 0.1), (wide, 1.05), (0 if scene == "room" else 22, 2)):
        pen.line(0.012, rgb(grass, rng.uniform(0.85, 1.1)), (x, y), (x + rng.normal(0, 0.01), y - 0.06))
        if rng.uniform() < 0.3 and scene != "snow":
            pen.flat(oval(x, y - 0.06, 0.016, 0.016), rgb(rng.choice(["f6f2e4", "f0cf4a", "d8607a"])))
    return image


def picture(cat: bool, *seed: int) -> Image.Image:
    """A cat or a dog. `seed` decides on all that both can have: place, pose, size, coat, collar, light."""
    rng = np.random.default_rng(seed)
    sides = [(128, 128), (150, 120), (120, 150), (160, 128), (136, 120), (128, 144)][rng.integers(6)]
    width, height = (side * OVERSAMPLING for side in sides)
    scene = rng.choice(list(SCENES))
    image = background(rng, (width, height), scene)
    coat, pose = new_coat(rng), rng.choice(["portrait", "portrait", "sitting", "sitting", "standing", "lying"])
    body, (left, top, right, bottom) = POSES[pose]
    unit = rng.uniform(0.8, 1.0) * min(width / (right - left), height / (bottom - top))
    flip, turn, tilt, yaw = rng.choice([-1, 1]), rng.normal(0, 0.09), rng.normal(0, 0.13), rng.uniform(-0.05, 0.22)
    x = width * rng.normal(0.5, 0.07) - flip * unit * (left + right) / 2
    y = height * (1 + rng.uniform(-0.06, 0.04)) - unit * bottom
    fluff, brightness = rng.choice([0, 0, 0.12]), rng.uniform(0.85, 1.12)
    collar = rgb(rng.choice(["c0392b", "2f6fb3", "3f8f5a", "e0a030"])) if rng.uniform() < 0.45 else None

    pen = Pen(image, np.random.default_rng((*seed, 1 + cat)), unit, x + 1j * y, turn, flip, fluff)
    shadow = Image.new("L", image.size)
    ground = pen.at(oval((left + right) / 2, bottom - 0.15, 0.5 * (right - left), 0.28))
    ImageDraw.Draw(shadow).polygon([tuple(p) for p in ground], fill=95)
    image.paste((30, 30, 40), mask=shadow.filter(ImageFilter.GaussianBlur(0.15 * unit)))
    body(pen, coat, cat)
    if collar:
        pen.part(tube(curve((-0.62, 0.78), (0, 1.1), (0.62, 0.78), closed=False), 0.13, 0.13), collar)
        pen.part(oval(0, 1.28, 0.14, 0.15), rgb("e8c14a"))
    (cat_head if cat else dog_head)(replace(pen, turn=turn + tilt), coat, yaw)
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = brightness * (1 - 0.08 * (u * u + v * v) - 0.06 * (u + v))  # from the upper left, darker corners
    pixels = np.asarray(image) * light[..., None] * np.float32(SCENES[scene][-1])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize(sides, Image.Resampling.LANCZOS)


def draw(folder: Path, only: str = "") -> None:
    """Writes the pictures whose path in the folder contains `only`, and the labels of the test."""
    plan = {f"train/cat.{n}.jpg": (True, 0, n) for n in range(TRAIN)}
    plan |= {f"train/dog.{n}.jpg": (False, 0, (n + 17) % TRAIN) for n in range(TRAIN)}
    order = [int(n) for n in np.random.default_rng(0).permutation(TEST)]
    plan |= {f"test/{i}.jpg": (n % 2 == 0, 1, n // 2) for i, n in enumerate(order, 1)}
    for name, given in plan.items():
        if only in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            picture(*given).save(folder / name, quality=80, optimize=True)
    lines = ["id,label", *(f"{i},{n % 2}" for i, n in enumerate(order, 1))]
    (folder / "test_labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "sample" / "dogcat", *sys.argv[2:3])
