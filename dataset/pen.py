"""Shapes that are curves, and a pen that draws them rounded, furry and lit from above.

Shapes are arrays (N, 2) of (x, y), y down.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Marks = list[tuple[Array, Colour]]  # shapes on a part, each with its colour


def rgb(code: str, light: float = 1.0) -> Colour:
    """rrggbb, made darker (light < 1) or mixed with white (up to 2)."""
    values = [int(code[i : i + 2], 16) for i in (0, 2, 4)]
    return tuple(round(v * light if light <= 1 else v + (255 - v) * (light - 1)) for v in values)


def curve(*points: tuple[float, float], closed: bool = True) -> Array:
    """A smooth line through the points: Catmull and Rom's spline, 8 steps from one to the next."""
    p = np.array(points, float)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))  # (N, 1, 2) each
    t = np.linspace(0, 1, 9)[:-1, None]  # (8, 1)
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return line.reshape(-1, 2) if closed else np.concatenate([line.reshape(-1, 2), p[-2:-1]])


def both(*points: tuple[float, float]) -> Array:
    """A closed curve that is its own mirror image, from its right half: from the top to the bottom."""
    return curve(*points, *[(-x, y) for x, y in points[::-1] if x])


def oval(x: float, y: float, rx: float, ry: float) -> Array:
    t = np.linspace(0, 2 * np.pi, 33)[:-1]
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def tube(path: Array, start: float, end: float) -> Array:
    """The outline of a rounded line along path (N, 2), whose half width goes from `start` to `end`."""
    z = path @ (1, 1j)
    ahead = np.gradient(z) / abs(np.gradient(z))
    aside = 1j * ahead * np.linspace(start, end, len(z))
    cap = np.exp(1j * np.linspace(np.pi / 2, -np.pi / 2, 9)[1:-1])
    ends = z[-1] + end * ahead[-1] * cap, z[0] - start * ahead[0] * cap
    return np.concatenate([z + aside, ends[0], (z - aside)[::-1], ends[1]]).view(float).reshape(-1, 2)


@dataclass(frozen=True)
class Pen:
    """Draws shapes into a picture: where their origin is, how many pixels their unit has, how they are turned."""

    image: Image.Image
    rng: Generator
    unit: float
    place: complex = 0.0
    turn: float = 0.0
    flip: int = 1
    fluff: float = 0.0  # length of the tufts at the edge of what is furry
    shade: float = 1.0  # brightness of the parts

    def at(self, shape: Array) -> Array:
        """Units to pixels."""
        z = shape @ (1, 1j) * self.unit * np.exp(1j * self.turn)
        return np.stack([self.flip * z.real, z.imag], 1) + (self.place.real, self.place.imag)

    def flat(self, shape: Array, colour: Colour) -> None:
        ImageDraw.Draw(self.image).polygon([tuple(p) for p in self.at(shape)], fill=colour)

    def line(self, width: float, colour: Colour, *points: tuple[float, float]) -> None:
        self.flat(tube(curve(*points, closed=False), width / 2, width / 2), colour)

    def tufted(self, shape: Array) -> Array:
        """The closed shape with tips of hair all around."""
        z = shape @ (1, 1j)
        out = np.gradient(z) / abs(np.gradient(z)) * -1j * np.sign((z.conj() * np.roll(z, -1)).imag.sum())
        length = self.fluff * self.rng.uniform(0.3, 1, len(z)) * (np.arange(len(z)) % 3 == 0)
        return (z + length * (out + 0.6j)).view(float).reshape(-1, 2)

    def part(self, shape: Array, colour: Colour, marks: Marks = (), furry: bool = False) -> None:
        """A rounded thing with `marks` on it, lit from above, with a darker outline."""
        outline = self.at(self.tufted(shape) if furry and self.fluff else shape)
        soft = min(0.25 * self.unit, 0.2 * float(np.ptp(outline, axis=0).min()))
        left, top = (int(v) for v in outline.min(0) - 3 * soft)
        right, bottom = (int(v) for v in outline.max(0) + 3 * soft)
        mask = Image.new("L", (right - left, bottom - top))
        edge = [tuple(p) for p in outline - (left, top)]
        ImageDraw.Draw(mask).polygon(edge, fill=255)
        layer = Image.new("RGB", mask.size, colour)
        draw = ImageDraw.Draw(layer)
        for mark, paint in marks:
            draw.polygon([tuple(p) for p in self.at(mark) - (left, top)], fill=paint)
        inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(soft)), np.float32) / 255  # (H, W)
        shift = int(0.8 * soft)
        shade = 1 - np.roll(inside, (-shift, -shift // 2), (0, 1))
        glow = 1 - np.roll(inside, (shift, shift // 2), (0, 1))
        pixels = np.asarray(layer) * self.shade * (1 - shade[..., None] * np.float32((0.42, 0.45, 0.38)))
        pixels += 42 * (glow * inside)[..., None]
        layer = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        ink = tuple(int(0.45 * c) for c in colour)
        ImageDraw.Draw(layer).line([*edge, edge[0]], fill=ink, width=max(2, int(0.045 * self.unit)))
        self.image.paste(layer, (left, top), mask)
