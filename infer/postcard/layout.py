"""Where the words of a postcard stand: in columns from right to left, where the picture is quiet, or on paper.

Lengths are in pixels; boxes are (left, top, right, bottom), the last two outside.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from infer.postcard.contrast import lightness, luminance
from infer.postcard.text import Inscription

SMALLEST = 12  # pixels: what a character needs to be told from others
RELATIVE_EM = 0.05  # the em of a quatrain, relative to the picture's size (the root of its area)
LEGIBLE = 0.028  # the same: what can be read when the whole picture is looked at
ADVANCE, PITCH, GAP = 1.14, 1.5, 0.62  # in ems: from character to character, column to column, between two verses
TITLE, SIGNATURE, SEAL = 0.76, 0.66, 1.05  # in ems of the verses
SEEN = 400  # pixels: side of the reduced picture in which a quiet place is looked for
Box = tuple[int, int, int, int]


class Glyph(NamedTuple):
    """A character, the middle of its em, and the em."""

    character: str
    x: float
    y: float
    size: float

    @property
    def box(self) -> Box:
        half = self.size / 2
        return int(self.x - half), int(self.y - half), int(self.x + half) + 1, int(self.y + half) + 1

    def scaled(self, factor: float) -> "Glyph":
        return Glyph(self.character, self.x * factor, self.y * factor, self.size * factor)


@dataclass(frozen=True)
class Block:
    """All of the text in columns (title, verses, signature; the first is the rightmost), and where the seal is."""

    columns: list[list[Glyph]]
    seal: Box | None
    width: int
    height: int
    em: float

    def move(self, x: int, y: int) -> "Block":
        columns = [[g._replace(x=g.x + x, y=g.y + y) for g in column] for column in self.columns]
        seal = self.seal and (self.seal[0] + x, self.seal[1] + y, self.seal[2] + x, self.seal[3] + y)
        return replace(self, columns=columns, seal=seal)

    @property
    def glyphs(self) -> list[Glyph]:
        return [glyph for column in self.columns for glyph in column]

    def boxes(self) -> list[Box]:
        return [glyph.box for glyph in self.glyphs] + ([self.seal] if self.seal else [])


def _arrangements(sections: Sequence[Sequence[str]]) -> Iterator[tuple[float, list[list[str]]]]:
    """(how well it reads, columns); a column is a list of pieces of verses, with gaps between them.

    Between sections there is an empty column.
    """
    yield 1.0, _join([[line] for line in lines] for lines in sections)
    lines = [line for section in sections for line in section]
    for together in (2, 4):
        if len(lines) >= 2 * together:
            groups = ([section[i : i + together] for i in range(0, len(section), together)] for section in sections)
            yield 0.9 / together**0.2, _join([list(group) for group in section] for section in groups)
    longest = max(map(len, lines))
    for parts in range(2, longest // 2 + 1):  # low pictures: a verse goes on in the next column
        rows = -(-longest // parts)
        yield 0.5, _join([[piece] for line in section for piece in _pieces(line, rows)] for section in sections)
    whole = ["".join(section) for section in sections]
    longest = max(map(len, whole))
    for rows in np.unique(np.geomspace(2, max(2, longest), 24).round().astype(int)):  # one stream, as in letters
        yield 0.4, _join([[piece] for piece in _pieces(text, rows)] for text in whole)


def _join(sections: Iterable[list[list[str]]]) -> list[list[str]]:
    """The columns of all sections, an empty one between them."""
    columns: list[list[str]] = []
    for section in sections:
        columns += [[""], *section] if columns else section
    return columns


def _pieces(text: str, length: int) -> list[str]:
    return [text[i : i + length] for i in range(0, len(text), length)]


def _set_columns(columns: list[list[str]], em: float, text: Inscription) -> Block:
    """The verses with title, signature and seal around them, at a given size, from (0, 0)."""
    title_em, signature_em = (max(ratio * em, min(em, SMALLEST)) for ratio in (TITLE, SIGNATURE))
    side = max(round(SEAL * em), 8) if text.seal else 0
    seal_height = side * 3 // 2 if len(text.seal) == 2 else side
    height = max(max(map(_column_height, columns)) * em, seal_height)
    room = height - (seal_height + 0.4 * em if text.seal else 0)  # above the seal
    signatures = _pieces(text.signature, _fitting(room, signature_em))
    placed: list[list[Glyph]] = []
    x = 0.0  # from the right edge, negative
    titles = [([title], title_em) for title in _pieces(text.title, _fitting(height, title_em))]
    for pieces, size in (*titles, *((column, em) for column in columns)):
        placed.append(_column(pieces, x - size / 2, 0, size))
        x -= size * PITCH
    for number, piece in enumerate(signatures):
        bottom = room if text.seal and number == len(signatures) - 1 else height
        top = bottom - _column_height([piece]) * signature_em
        placed.append(_column([piece], x - signature_em / 2, top, signature_em))
        x -= signature_em * PITCH
    left = x + (signature_em if signatures else em) * (PITCH - 1)
    seal = None
    if text.seal:  # under the signature, or in a column of its own
        middle = placed[-1][0].x if signatures else left - 0.35 * em - side / 2
        seal = round(middle - side / 2), round(height - seal_height)
        left = min(left, seal[0])
        seal = (*seal, seal[0] + side, seal[1] + seal_height)
    offset = -int(np.floor(left))
    return Block(placed, seal, offset, round(height), em).move(offset, 0)


def _fitting(height: float, em: float) -> int:
    """How many characters a column of that height takes, at least one."""
    return max(1, int((height / em - 1) / ADVANCE) + 1)


def _column_height(pieces: list[str]) -> float:
    """In ems of its characters."""
    return sum(map(len, pieces)) * ADVANCE - (ADVANCE - 1) + (len(pieces) - 1) * GAP


def _column(pieces: list[str], x: float, top: float, em: float) -> list[Glyph]:
    glyphs, y = [], top + em / 2
    for piece in pieces:
        for character in piece:
            glyphs.append(Glyph(character, x, y, em))
            y += ADVANCE * em
        y += GAP * em
    return glyphs


def _blocks(text: Inscription, size: float, scales: Sequence[float]) -> list[tuple[float, Block]]:
    """(preference, block) of all arrangements at several sizes, none too small to read in a picture of that size."""
    count = max(28, sum(map(len, text.lines)))
    wanted = max(RELATIVE_EM * size * (28 / count) ** 0.35, SMALLEST)
    least = max(LEGIBLE * size * (28 / count) ** 0.2, SMALLEST)
    ems = sorted({max(least, wanted * scale) for scale in scales}, reverse=True)
    return [
        (good * (em / wanted) ** 0.5, _set_columns(columns, em, text))
        for good, columns in _arrangements(text.sections)
        for em in ems
    ]


def find_quiet_place(rgb: np.ndarray, text: Inscription, most: float) -> Block | None:
    """The block where it hides and meets the least; None if the picture is too small for it, or that is over `most`."""
    height, width = rgb.shape[:2]
    margin = max(2, round(0.05 * min(height, width)))
    sums, scale = _busyness(rgb)
    best, met, found = np.inf, np.inf, None
    for good, block in _blocks(text, (height * width) ** 0.5, (1.1, 1.0, 0.9, 0.8, 0.7)):
        if block.width > width - 2 * margin or block.height > height - 2 * margin:
            continue
        pad = 0.4 * block.em
        xs = np.unique(np.linspace(margin, width - margin - block.width, 13).round().astype(int))
        ys = np.unique(np.linspace(margin, height - margin - block.height, 9).round().astype(int))
        left, top = np.maximum(xs - pad, 0) * scale, np.maximum(ys - pad, 0) * scale
        right, bottom = (xs + block.width + pad) * scale, (ys + block.height + pad) * scale
        busy = _box_cost(sums, left, top, right, bottom)  # (ys, xs)
        # Painters write at the side and above rather than below, and never across what the picture is about.
        aside = np.minimum(xs, width - block.width - xs) / width
        area = block.width * block.height / (width * height)
        cost = busy + 0.2 * aside[None] + 0.1 * (ys / height)[:, None] + 0.4 * (1 - good) + 0.1 * area
        cost = cost + 0.01 * (xs < (width - block.width) / 2)[None]  # to the right, all else equal
        row, column = np.unravel_index(cost.argmin(), cost.shape)
        if cost[row, column] < best:
            best, met = cost[row, column], busy[row, column]
            found = block.move(int(xs[column]), int(ys[row]))
    return found if met <= most else None


def _busyness(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """(sums (4, h + 1, w + 1) of gradient, lightness, its square, and nearness to the middle, over what is above and
    left; scale of h, w)."""
    height, width = rgb.shape[:2]
    scale = min(1.0, SEEN / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    step = max(1, max(height, width) // (4 * SEEN))  # every pixel of a large picture would be a second copy of it
    image = Image.fromarray(rgb[::step, ::step]).resize(small, Image.Resampling.BOX)
    light = lightness(luminance(np.asarray(image))) / 100  # (h, w)
    gradient = np.zeros_like(light)
    gradient[:, 1:] += np.abs(np.diff(light, axis=1))
    gradient[1:] += np.abs(np.diff(light, axis=0))
    y, x = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in light.shape)
    middle = np.exp(-((x[None] / 0.25) ** 2) - ((y[:, None] + 0.05) / 0.25) ** 2)  # faces are a little above it
    maps = np.stack((gradient, light, light**2, middle)).astype(np.float64)  # (4, h, w)
    return np.pad(maps.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0))), scale


def _box_cost(sums: np.ndarray, left: np.ndarray, top: np.ndarray, right: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """How much the boxes of all rows (ys) and columns (xs) would hide, and how hard it would be to read -> (ys, xs)."""
    h, w = sums.shape[1] - 1, sums.shape[2] - 1
    x0, y0 = np.clip(np.floor(left), 0, w - 1).astype(int), np.clip(np.floor(top), 0, h - 1).astype(int)
    x1, y1 = np.clip(np.ceil(right), x0 + 1, w).astype(int), np.clip(np.ceil(bottom), y0 + 1, h).astype(int)
    area = (y1 - y0)[:, None] * (x1 - x0)[None]
    gradient, mean, square, middle = (
        (s[np.ix_(y1, x1)] - s[np.ix_(y0, x1)] - s[np.ix_(y1, x0)] + s[np.ix_(y0, x0)]) / area for s in sums
    )
    return 4 * gradient + np.sqrt(np.maximum(square - mean**2, 0)) + 0.35 * middle


def mount(height: int, width: int, text: Inscription) -> tuple[tuple[int, int], tuple[int, int], Block]:
    """(size (width, height) of a sheet of paper, the picture's left top corner on it, the text).

    The text stands above a high or square picture, to the left of a wide one, on as little paper as reads well.
    """
    size = (height * width) ** 0.5
    border = max(4, round(0.035 * size))
    beside = width > 1.25 * height
    best, found = np.inf, None
    for good, block in _blocks(text, size, (1.3, 1.15, 1.0)):
        space = round(1.5 * block.em)
        # along: the side of the picture at which the text stands; across: the direction from it to the text
        side, other, along, across = (
            (height, width, block.height, block.width) if beside else (width, height, block.width, block.height)
        )
        inner, paper = max(side, along + 2 * space - 2 * border), across + 2 * space
        sheet = (paper + other + border, inner + 2 * border)
        if sheet[0] * sheet[1] / good >= best:
            continue
        best = sheet[0] * sheet[1] / good
        picture, place = (paper, border + (inner - side) // 2), (space, (sheet[1] - along) // 2)
        if not beside:
            sheet, picture, place = sheet[::-1], picture[::-1], place[::-1]
        found = sheet, picture, block.move(*place)
    return found
