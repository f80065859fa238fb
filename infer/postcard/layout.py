"""A poem in vertical script on a picture: verses from right to left, a title, a red seal; readable on anything.

The poem goes where the picture is quiet, in dark or light ink; where that alone is too faint to read, a mist is laid
under it; where the mist would hide too much, the picture is mounted on paper, and the poem stands on that, as above a
hanging scroll or beside a handscroll. It paints no picture and writes no poem.

Lengths are in pixels; boxes are (left, top, right, bottom), the last two outside.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from data.verse import Poem, parse_poem, split_verses
from infer.postcard.fonts import Face
from utils.errors import UserError
from utils.files import atomic_save, refuse_overwriting
from utils.images import WRITABLE, Picture, save_image

DARK, LIGHT, RED, WHITE = (30, 26, 24), (252, 248, 240), (168, 34, 28), (250, 244, 232)  # inks, and the seal's colours
PAPER = (243, 237, 223)
NIGHT = (22, 22, 26)  # the mist under light ink
READABLE = 4.5  # contrast of text by WCAG 2.2, success criterion 1.4.3
SMOOTH = 9.0  # CIE L*: the spread of lightness behind a character that a reader looks past
SMALLEST = 12  # pixels: what a character needs to be told from others
SHARE = 0.05  # of the picture's size (the root of its area): the em of a quatrain
LEGIBLE = 0.028  # of that size: what can be read when the whole picture is looked at
ADVANCE, PITCH, GAP = 1.14, 1.5, 0.62  # in ems: from character to character, column to column, between two verses
TITLE, SIGNATURE, SEAL = 0.76, 0.66, 1.05  # in ems of the verses
MIST = 0.35  # more of it, and the picture is mounted on paper instead
BUSY = 0.45  # the same, of what there is in the place
LONGEST, MOST_WORDS = 600, 60  # characters of a poem; of a title or signature
PDF_SIDE = 148 / 25.4  # inches: the longer side of a page, that of a postcard (A6)
SEEN = 400  # pixels: side of the reduced picture in which a quiet place is looked for
TURNED = "（）()《》〈〉「」『』【】〔〕[]—–-…～~"  # signs that vertical script turns
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


@dataclass(frozen=True)
class Postcard:
    """A finished card: `rgb` (H, W, 3) uint8, and where everything stands on it."""

    rgb: np.ndarray
    columns: list[list[Glyph]]  # title, verses, signature; the first is the rightmost
    seal: Box | None
    picture: Box  # where the picture is; all of the card, unless it is mounted on paper
    dark: bool  # the ink
    mist: float  # its strength, 0..1
    contrast: float  # WCAG's ratio of ink and background, where it is the least

    @property
    def on_paper(self) -> bool:
        return self.picture != (0, 0, self.rgb.shape[1], self.rgb.shape[0])


def read_poem(text: str, name: str = "--poem") -> Poem:
    """A poem's title, author and verses (`lines`, without punctuation); `name` is what messages call it.

    Raises UserError for a poem without characters, or longer than LONGEST.
    """
    poem = parse_poem(text)
    lines = split_verses(poem.lines)
    count = sum(map(len, lines))
    if not count:
        raise UserError(f"{name} holds no poem: give verses such as 白日依山尽，黄河入海流。")
    if count > LONGEST:
        raise UserError(f"{name} has {count} characters, a postcard has room for {LONGEST}")
    return replace(poem, lines=lines)


def check_words(title: str, signature: str, seal: str) -> None:
    """Raises UserError for a seal of more than four characters, and for a title or signature over MOST_WORDS."""
    if len(seal) > 4 or any(c.isspace() for c in seal):
        raise UserError(f"--seal={seal}: a seal has one to four characters, without spaces")
    for name, words in (("title", title), ("signature", signature)):
        if len(words) > MOST_WORDS:
            raise UserError(f"--{name} has {len(words)} characters, a postcard has room for {MOST_WORDS}")


def postcard(
    rgb: np.ndarray,
    lines: Sequence[str],
    face: Face,
    title: str = "",
    signature: str = "",
    seal: str = "",
    place: str = "auto",
) -> Postcard:
    """Sets a poem on a picture (H, W, 3) uint8 of any size.

    Args:
        lines: the verses, without punctuation; each gets a column where that fits.
        face: a font that has all characters (`infer.postcard.fonts.choose_face`).
        title: a smaller column before the verses. signature: one after them.
        seal: one to four characters; none: no seal.
        place: "picture": on it, "paper": beside it, on the paper that it is mounted on; "auto": on it if there is a
            place where text can be read and not much is hidden by it. A picture too small for the poem is mounted.

    Raises UserError for what `check_words` refuses, and if the font lacks characters.
    """
    check_words(title, signature, seal)
    text = _Text(tuple(lines), title, signature, seal)
    if missing := face.lacks("".join(lines) + title + signature + seal):
        raise UserError(f"{face.name} lacks {missing}: give another --font")
    if place != "paper" and (found := _quiet_place(rgb, text, np.inf if place == "picture" else BUSY)):
        card = _on_picture(rgb, found, face, seal, 1.0 if place == "picture" else MIST)
        if card:
            return card
    return _on_paper(rgb, text, face)


def save_postcard(path: str | Path, rgb: np.ndarray, quality: int = 95) -> None:
    """Writes (H, W, 3) uint8 as a picture, or as a PDF of one page, by the suffix. Raises UserError if it cannot."""
    _check_suffix(path)
    if Path(path).suffix.lower() != ".pdf":
        save_image(path, rgb, quality=quality)
        return
    image, resolution = Image.fromarray(rgb), max(rgb.shape) / PDF_SIDE
    options = {"resolution": resolution, "quality": quality, "producer": "shihua"}
    atomic_save(path, lambda temporary: image.save(temporary, format="PDF", **options))


def destination(photo: str, out: str, others: Sequence[str] = ()) -> Path:
    """Where the card of a photograph goes: `out`, or NAME_postcard in the folder `out`, or beside the photograph.

    It has the photograph's type where that can be written, else it is a PNG. Raises UserError if there is no such
    photograph, for a type that cannot be written, or if the card would overwrite it or one of the files `others`.
    """
    path = Path(photo)
    if not path.exists():
        raise UserError(f"{photo} does not exist: give a photograph")
    suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
    name = f"{path.stem}_postcard{suffix}"
    target = path.with_name(name) if not out else Path(out, name) if os.path.isdir(out) else Path(out)
    _check_suffix(target)
    refuse_overwriting([target], [photo, *others])
    return target


def on_paper(picture: Picture) -> np.ndarray:
    """(H, W, 3) uint8: the picture, laid on paper where it is transparent."""
    if picture.alpha is None:
        return picture.rgb
    image = Image.fromarray(picture.rgb)
    return np.array(Image.composite(image, Image.new("RGB", image.size, PAPER), Image.fromarray(picture.alpha)))


def _check_suffix(path: str | Path) -> None:
    suffix = Path(path).suffix
    if suffix.lower() not in (*WRITABLE, ".pdf"):
        raise UserError(f"{path}: cannot write {suffix or 'a file without a suffix'}; use {', '.join(WRITABLE)}, .pdf")


# --------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class _Text:
    lines: tuple[str, ...]
    title: str
    signature: str
    seal: str


@dataclass(frozen=True)
class _Block:
    """All of the text in columns, laid out from (0, 0)."""

    columns: list[list[Glyph]]
    seal: Box | None
    width: int
    height: int
    em: float

    def moved(self, x: int, y: int) -> "_Block":
        columns = [[g._replace(x=g.x + x, y=g.y + y) for g in column] for column in self.columns]
        seal = self.seal and (self.seal[0] + x, self.seal[1] + y, self.seal[2] + x, self.seal[3] + y)
        return replace(self, columns=columns, seal=seal)

    def boxes(self) -> Iterator[Box]:
        for column in self.columns:
            for glyph in column:
                yield glyph.box
        if self.seal:
            yield self.seal


def _arrangements(lines: tuple[str, ...]) -> Iterator[tuple[float, list[list[str]]]]:
    """(how well it reads, columns); a column is a list of pieces of verses, with gaps between them."""
    yield 1.0, [[line] for line in lines]
    for together in (2, 4):
        if len(lines) >= 2 * together:
            yield 0.9 / together**0.2, [list(lines[i : i + together]) for i in range(0, len(lines), together)]
    longest = max(map(len, lines))
    whole = "".join(lines)
    for parts in range(2, longest // 2 + 1):  # low pictures: a verse goes on in the next column
        rows = -(-longest // parts)
        yield 0.5, [[line[i : i + rows]] for line in lines for i in range(0, len(line), rows)]
    for rows in np.unique(np.geomspace(2, max(2, len(whole)), 24).round().astype(int)):  # one stream, as in letters
        yield 0.4, [[whole[i : i + rows]] for i in range(0, len(whole), rows)]


def _layout(columns: list[list[str]], em: float, text: _Text) -> _Block:
    """The verses with title, signature and seal around them, at a given size."""
    rows = [_column_height(column) for column in columns]
    height = max(rows) * em
    title_em, signature_em = (max(share * em, min(em, SMALLEST)) for share in (TITLE, SIGNATURE))
    side = max(round(SEAL * em), 8) if text.seal else 0
    seal_height = side * 3 // 2 if len(text.seal) == 2 else side
    height = max(height, seal_height)
    per_column = max(1, int((height / title_em - 1) / ADVANCE) + 1)
    titles = [text.title[i : i + per_column] for i in range(0, len(text.title), per_column)]
    room = height - (seal_height + 0.4 * em if text.seal else 0)
    per_column = max(1, int((room / signature_em - 1) / ADVANCE) + 1)
    signatures = [text.signature[i : i + per_column] for i in range(0, len(text.signature), per_column)]

    placed: list[list[Glyph]] = []  # x from the right edge, negative
    x = 0.0
    for pieces, size in (*(([t], title_em) for t in titles), *((column, em) for column in columns)):
        placed.append(_column(pieces, x - size / 2, 0, size))
        x -= size * PITCH
    for number, piece in enumerate(signatures):
        bottom = room if text.seal and number == len(signatures) - 1 else height
        top = bottom - _column_height([piece]) * signature_em
        placed.append(_column([piece], x - signature_em / 2, top, signature_em))
        x -= signature_em * PITCH
    left = x + (signature_em if signatures else em) * (PITCH - 1)
    box = None
    if text.seal:  # under the signature, or in a column of its own
        middle = placed[-1][0].x if signatures else left - 0.35 * em - side / 2
        box = round(middle - side / 2), round(height - seal_height)
        left = min(left, box[0])
    offset = -int(np.floor(left))
    shifted = [[Glyph(g.character, g.x + offset, g.y, g.size) for g in column] for column in placed]
    seal = box and (box[0] + offset, box[1], box[0] + offset + side, box[1] + seal_height)
    return _Block(shifted, seal, offset, round(height), em)


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


def _candidates(text: _Text, size: float, shares: Sequence[float]) -> list[tuple[float, _Block]]:
    """(preference, block) of all arrangements at several sizes, none too small to read in a picture of that size."""
    count = max(28, sum(map(len, text.lines)))
    wanted = max(SHARE * size * (28 / count) ** 0.35, SMALLEST)
    least = max(LEGIBLE * size * (28 / count) ** 0.2, SMALLEST)
    ems = sorted({max(least, wanted * share) for share in shares}, reverse=True)
    return [
        (good * (em / wanted) ** 0.5, _layout(columns, em, text))
        for good, columns in _arrangements(text.lines)
        for em in ems
    ]


# ------------------------------------------------------------------------------------------------- a quiet place


def _quiet_place(rgb: np.ndarray, text: _Text, most: float) -> _Block | None:
    """The block where it hides and meets the least; None if the picture is too small for it, or that is over `most`."""
    height, width = rgb.shape[:2]
    size = (height * width) ** 0.5
    margin = max(2, round(0.05 * min(height, width)))
    fitting = [
        (good, block)
        for good, block in _candidates(text, size, (1.1, 1.0, 0.9, 0.8, 0.7))
        if block.width <= width - 2 * margin and block.height <= height - 2 * margin
    ]
    if not fitting:
        return None
    sums, scale = _busyness(rgb)
    best, met, found = np.inf, np.inf, None
    for good, block in fitting:
        pad = 0.4 * block.em
        xs = np.unique(np.linspace(margin, width - margin - block.width, 13).round().astype(int))
        ys = np.unique(np.linspace(margin, height - margin - block.height, 9).round().astype(int))
        left, top = np.maximum(xs - pad, 0) * scale, np.maximum(ys - pad, 0) * scale
        right, bottom = (xs + block.width + pad) * scale, (ys + block.height + pad) * scale
        busy = _box_cost(sums, left, top, right, bottom)  # (ys, xs)
        # Painters write at the side and above rather than below, and never across what the picture is about.
        aside = np.minimum(xs, width - block.width - xs) / width
        share = block.width * block.height / (width * height)
        cost = busy + 0.2 * aside[None] + 0.1 * (ys / height)[:, None] + 0.4 * (1 - good) + 0.1 * share
        cost = cost + 0.01 * (xs < (width - block.width) / 2)[None]  # to the right, all else equal
        row, column = np.unravel_index(cost.argmin(), cost.shape)
        if cost[row, column] < best:
            best, met = cost[row, column], busy[row, column]
            found = block.moved(int(xs[column]), int(ys[row]))
    return found if met <= most else None


def _busyness(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """(sums (4, h + 1, w + 1) of gradient, lightness, its square, and nearness to the middle, over what is above and
    left; scale of h, w)."""
    height, width = rgb.shape[:2]
    scale = min(1.0, SEEN / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    step = max(1, max(height, width) // (4 * SEEN))  # every pixel of a large picture would be a second copy of it
    image = Image.fromarray(rgb[::step, ::step]).resize(small, Image.Resampling.BOX)
    light = _lightness(_luminance(np.asarray(image))) / 100  # (h, w)
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


# -------------------------------------------------------------------------------------------------- ink and mist


def _luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance (WCAG 2.2) of sRGB (…, 3) uint8 -> (…) float32, 0..1."""
    return _LINEAR[rgb] @ np.array([0.2126, 0.7152, 0.0722], np.float32)


_VALUES = np.arange(256, dtype=np.float32) / 255
_LINEAR = np.where(_VALUES <= 0.04045, _VALUES / 12.92, ((_VALUES + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _lightness(luminance: np.ndarray) -> np.ndarray:
    """CIE L*, 0..100, of relative luminance."""
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def _ratio(first: float, second: float) -> float:
    """WCAG's ratio of two relative luminances, 1..21."""
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def _on_picture(rgb: np.ndarray, block: _Block, face: Face, seal: str, most: float) -> Postcard | None:
    """The picture with the block on it, on as little mist as makes it readable; None if that is more than `most`."""
    height, width = rgb.shape[:2]
    reach = round(1.6 * block.em)  # of the mist
    boxes = list(block.boxes())
    left, top = max(0, min(b[0] for b in boxes) - reach), max(0, min(b[1] for b in boxes) - reach)
    right, bottom = min(width, max(b[2] for b in boxes) + reach), min(height, max(b[3] for b in boxes) + reach)
    part = Image.fromarray(rgb[top:bottom, left:right])
    cloud = _cloud(part.size, [(b[0] - left, b[1] - top, b[2] - left, b[3] - top) for b in boxes], block.em)
    found = _least_mist(part, cloud, block.moved(-left, -top), most)
    if found is None:
        return None
    dark, mist = found
    glyphs = [g for column in block.moved(-left, -top).columns for g in column]
    blurred = _blurred(part, block.em)
    while True:
        misty = np.asarray(_misty(part, blurred, cloud, dark, mist))
        least = min(ratio for ratio, _ in _contrasts(misty, glyphs, dark))
        if least >= READABLE or mist >= 1:
            break
        mist += 0.05  # the reduced picture in which the mist was chosen had lost the finest spots
    card = rgb.copy()
    card[top:bottom, left:right] = misty
    _write(card, block, face, DARK if dark else LIGHT, seal)
    return Postcard(card, block.columns, block.seal, (0, 0, width, height), dark, mist, least)


def _cloud(size: tuple[int, int], boxes: list[Box], em: float) -> Image.Image:
    """Where mist may lie, 0..255: around all characters, with soft edges."""
    shape = Image.new("L", size)
    draw = ImageDraw.Draw(shape)
    reach = 0.7 * em
    for left, top, right, bottom in boxes:
        draw.rounded_rectangle((left - reach, top - reach, right + reach, bottom + reach), reach, 255)
    return shape.filter(ImageFilter.GaussianBlur(0.42 * em))


def _blurred(part: Image.Image, em: float) -> Image.Image:
    return part.filter(ImageFilter.GaussianBlur(0.35 * em))


def _misty(part: Image.Image, blurred: Image.Image, cloud: Image.Image, dark: bool, mist: float) -> Image.Image:
    """The picture behind a mist: first blurred, then lightened for dark ink, darkened for light ink."""
    if not mist:
        return part
    veil = min(1.0, 2 * mist)
    soft = Image.composite(blurred, part, cloud.point(lambda v: round(v * veil)))
    flat = Image.new("RGB", part.size, PAPER if dark else NIGHT)
    return Image.composite(flat, soft, cloud.point(lambda v: round(v * mist)))


def _least_mist(part: Image.Image, cloud: Image.Image, block: _Block, most: float) -> tuple[bool, float] | None:
    """(whether the ink is dark, the least mist that makes all characters readable); dark if both are as good."""
    factor = min(1.0, 32 / block.em)  # strokes are still several pixels apart
    size = tuple(max(1, round(side * factor)) for side in part.size)
    small, small_cloud = (i.resize(size, Image.Resampling.BOX, reducing_gap=2.0) for i in (part, cloud))
    glyphs = [
        Glyph(g.character, g.x * factor, g.y * factor, g.size * factor) for column in block.columns for g in column
    ]
    blurred = _blurred(small, block.em * factor)
    for mist in (step / 20 for step in range(21)):
        for dark in (True, False):
            if mist > most:
                return None
            misty = np.asarray(_misty(small, blurred, small_cloud, dark, mist))
            if all(ratio >= 1.1 * READABLE and spread <= SMOOTH for ratio, spread in _contrasts(misty, glyphs, dark)):
                return dark, mist
    return None


def _contrasts(rgb: np.ndarray, glyphs: list[Glyph], dark: bool) -> Iterator[tuple[float, float]]:
    """Of the background in the em of each character: contrast of the ink with its worst twentieth, spread of L*."""
    ink = float(_luminance(np.array(DARK if dark else LIGHT, np.uint8)))
    luminance = _luminance(rgb)  # (H, W)
    for glyph in glyphs:
        left, top, right, bottom = (max(0, v) for v in glyph.box)
        behind = luminance[top:bottom, left:right]
        yield _ratio(float(np.percentile(behind, 5 if dark else 95)), ink), float(_lightness(behind).std())


# --------------------------------------------------------------------------------------------------------- paper


def _on_paper(rgb: np.ndarray, text: _Text, face: Face) -> Postcard:
    """The picture mounted on paper: the text above a high or square picture, to the left of a wide one."""
    height, width = rgb.shape[:2]
    size = (height * width) ** 0.5
    border = max(4, round(0.035 * size))
    beside = width > 1.25 * height
    best, block = np.inf, None
    for good, candidate in _candidates(text, size, (1.3, 1.15, 1.0)):
        space = round(1.5 * candidate.em)
        along, across = (candidate.height, candidate.width) if beside else (candidate.width, candidate.height)
        side, other = (height, width) if beside else (width, height)
        sheet = (max(side, along + 2 * space - 2 * border) + 2 * border) * (other + across + 2 * space + border)
        if sheet / good < best:
            best, block = sheet / good, candidate
    space = round(1.5 * block.em)
    if beside:
        paper = block.width + 2 * space
        inner = max(height, block.height + 2 * (space - border))
        card_size = (paper + width + border, inner + 2 * border)
        picture = (paper, border + (inner - height) // 2)
        x, y = space, (card_size[1] - block.height) // 2
    else:
        paper = block.height + 2 * space
        inner = max(width, block.width + 2 * (space - border))
        card_size = (inner + 2 * border, paper + height + border)
        picture = (border + (inner - width) // 2, paper)
        x, y = (card_size[0] - block.width) // 2, space
    card = np.empty((card_size[1], card_size[0], 3), np.uint8)
    card[:] = PAPER
    card[picture[1] : picture[1] + height, picture[0] : picture[0] + width] = rgb
    block = block.moved(x, y)
    _write(card, block, face, DARK, text.seal)
    ratio = _ratio(*(float(_luminance(np.array(colour, np.uint8))) for colour in (PAPER, DARK)))
    box = (*picture, picture[0] + width, picture[1] + height)
    return Postcard(card, block.columns, block.seal, box, True, 0.0, ratio)


# ------------------------------------------------------------------------------------------------------- drawing


def _write(card: np.ndarray, block: _Block, face: Face, ink: tuple[int, int, int], seal: str) -> None:
    """Draws all characters and the seal into card (H, W, 3)."""
    fonts: dict[float, tuple[ImageFont.FreeTypeFont, float]] = {}
    text = "".join(g.character for column in block.columns for g in column)
    for column in block.columns:
        for glyph in column:
            if glyph.size not in fonts:
                font = face.at(glyph.size)
                fonts[glyph.size] = font, _baseline(font, text)
            _stamp(card, *_drawn(glyph, *fonts[glyph.size]), ink)
    if block.seal:
        _draw_seal(card, block.seal, face, seal)


def _baseline(font: ImageFont.FreeTypeFont, text: str) -> float:
    """How far the baseline is below the middle of an em: so that what is drawn of all characters is in the middle."""
    boxes = [font.getbbox(c, anchor="ls") for c in dict.fromkeys(text) if c not in TURNED]
    drawn = [b for b in boxes if b[3] > b[1]]
    return -(min(b[1] for b in drawn) + max(b[3] for b in drawn)) / 2 if drawn else 0.0


def _drawn(glyph: Glyph, font: ImageFont.FreeTypeFont, baseline: float) -> tuple[Image.Image, int, int]:
    """(coverage 0..255 of a square around the character, its left, its top); signs of TURNED are turned clockwise."""
    side = int(2 * glyph.size) // 2 * 2
    mask = Image.new("L", (side, side))
    turned = glyph.character in TURNED
    place, anchor = (side / 2, side / 2 + (0.0 if turned else baseline)), "mm" if turned else "ms"
    ImageDraw.Draw(mask).text(place, glyph.character, 255, font, anchor=anchor)
    mask = mask.transpose(Image.Transpose.ROTATE_270) if turned else mask
    return mask, round(glyph.x - side / 2), round(glyph.y - side / 2)


def _stamp(card: np.ndarray, mask: Image.Image, left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Lays a colour on card (H, W, 3) through a mask; what is outside is cut off."""
    height, width = card.shape[:2]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + mask.width), min(height, top + mask.height)
    if x1 <= x0 or y1 <= y0:
        return
    part = Image.fromarray(card[y0:y1, x0:x1])
    flat = Image.new("RGB", part.size, colour)
    card[y0:y1, x0:x1] = np.asarray(Image.composite(flat, part, mask.crop((x0 - left, y0 - top, x1 - left, y1 - top))))


def _draw_seal(card: np.ndarray, box: Box, face: Face, text: str) -> None:
    """A red stone with white characters, from right to left in columns; its edge a little worn."""
    fine = 4  # drawn so many times as large
    width, height = (box[2] - box[0]) * fine, (box[3] - box[1]) * fine
    stone = Image.new("L", (width, height))
    ImageDraw.Draw(stone).rounded_rectangle((0, 0, width - 1, height - 1), 0.13 * width, 255)
    letters = Image.new("L", (width, height))
    edge, gap = 0.11 * width, 0.04 * width
    for character, (x, y, w, h) in zip(text, _SEAL_CELLS[len(text)], strict=True):
        cell = [x * (width - 2 * edge), y * (height - 2 * edge), w * (width - 2 * edge), h * (height - 2 * edge)]
        cut = _cut(face, character, max(1, round(cell[2] - gap)), max(1, round(cell[3] - gap)))
        letters.paste(cut, (round(edge + cell[0] + gap / 2), round(edge + cell[1] + gap / 2)))
    random = np.random.default_rng(7)  # the same stone each time
    grain = Image.fromarray(random.integers(0, 256, (height // 3 + 1, width // 3 + 1), np.uint8)).resize(
        (width, height)
    )
    worn = grain.filter(ImageFilter.GaussianBlur(fine)).point(lambda v: 255 if v > 88 else 120)
    stone = ImageChops.multiply(stone.filter(ImageFilter.GaussianBlur(fine / 3)), worn)
    size = (box[2] - box[0], box[3] - box[1])
    _stamp(card, stone.resize(size, Image.Resampling.BOX), box[0], box[1], RED)
    _stamp(card, letters.resize(size, Image.Resampling.BOX), box[0], box[1], WHITE)


# Left, top, width, height of the characters' cells, for each number of them.
_SEAL_CELLS = {
    1: [(0, 0, 1, 1)],
    2: [(0, 0, 1, 0.5), (0, 0.5, 1, 0.5)],
    3: [(0.5, 0, 0.5, 1), (0, 0, 0.5, 0.5), (0, 0.5, 0.5, 0.5)],
    4: [(0.5, 0, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), (0, 0, 0.5, 0.5), (0, 0.5, 0.5, 0.5)],
}


def _cut(face: Face, character: str, width: int, height: int) -> Image.Image:
    """A character that fills width x height, as seal cutters let it."""
    size = max(width, height)
    image = Image.new("L", (2 * size, 2 * size))
    weight = max(1, round(0.02 * size))
    ImageDraw.Draw(image).text((size, size), character, 255, face.at(size), anchor="mm", stroke_width=weight)
    left, top, right, bottom = image.getbbox() or (size, size, size, size)
    # What is flat or thin, such as 一, stays so.
    across, down = (max(0.0, 0.7 * size - side) / 2 for side in (right - left, bottom - top))
    box = (round(left - across), round(top - down), round(right + across), round(bottom + down))
    return image.crop(box).resize((width, height), Image.Resampling.LANCZOS)
