"""How the words of a postcard are drawn: the mist under them where they could not be read, ink, and the seal."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from infer.postcard.contrast import contrast, lightness, luminance
from infer.postcard.fonts import Face
from infer.postcard.layout import Block, Box, Glyph

Color = tuple[int, int, int]
DARK, LIGHT, RED, WHITE = (30, 26, 24), (252, 248, 240), (168, 34, 28), (250, 244, 232)  # inks, and the seal's colors
PAPER = (243, 237, 223)
NIGHT = (22, 22, 26)  # the mist under light ink
READABLE = 4.5  # contrast of text by WCAG 2.2, success criterion 1.4.3
SMOOTH = 9.0  # CIE L*: the spread of lightness behind a character that a reader looks past
TURNED = "（）()《》〈〉「」『』【】〔〕[]—–-…～~"  # characters that vertical script turns


def lay_mist(card: np.ndarray, block: Block, most: float) -> tuple[bool, float, float] | None:
    """Lays as little mist on card (H, W, 3) as makes the block readable; does nothing if that is more than `most`.

    Returns (whether the ink is dark, strength of the mist 0..1, least contrast), or None.
    """
    height, width = card.shape[:2]
    reach = round(1.6 * block.em)
    boxes = np.array(block.boxes())
    left, top = np.maximum(boxes[:, :2].min(0) - reach, 0).tolist()
    right, bottom = np.minimum(boxes[:, 2:].max(0) + reach, (width, height)).tolist()
    part = Image.fromarray(card[top:bottom, left:right])
    cloud = _cloud(part.size, (boxes - (left, top, left, top)).tolist(), block.em)
    block = block.move(-left, -top)
    found = _least_mist(part, cloud, block, most)
    if found is None:
        return None
    dark, mist = found
    blurred = _blur(part, block.em)
    while True:
        misty = np.asarray(_add_mist(part, blurred, cloud, dark, mist))
        least = min(ratio for ratio, _ in _contrasts(misty, block.glyphs, dark))
        if least >= READABLE or mist >= 1:
            break
        mist += 0.05  # the reduced picture in which the mist was chosen had lost the finest spots
    card[top:bottom, left:right] = misty
    return dark, mist, least


def _cloud(size: tuple[int, int], boxes: list[Box], em: float) -> Image.Image:
    """Where mist may lie, 0..255: around all characters, with soft edges."""
    shape = Image.new("L", size)
    draw = ImageDraw.Draw(shape)
    reach = 0.7 * em
    for left, top, right, bottom in boxes:
        draw.rounded_rectangle((left - reach, top - reach, right + reach, bottom + reach), reach, 255)
    return shape.filter(ImageFilter.GaussianBlur(0.42 * em))


def _blur(part: Image.Image, em: float) -> Image.Image:
    return part.filter(ImageFilter.GaussianBlur(0.35 * em))


def _add_mist(part: Image.Image, blurred: Image.Image, cloud: Image.Image, dark: bool, mist: float) -> Image.Image:
    """The picture behind a mist: first blurred, then lightened for dark ink, darkened for light ink."""
    if not mist:
        return part
    veil = min(1.0, 2 * mist)
    soft = Image.composite(blurred, part, cloud.point(lambda v: round(v * veil)))
    flat = Image.new("RGB", part.size, PAPER if dark else NIGHT)
    return Image.composite(flat, soft, cloud.point(lambda v: round(v * mist)))


def _least_mist(part: Image.Image, cloud: Image.Image, block: Block, most: float) -> tuple[bool, float] | None:
    """(whether the ink is dark, the least mist that makes all characters readable); dark if both are as good."""
    factor = min(1.0, 32 / block.em)  # strokes are still several pixels apart
    size = tuple(max(1, round(side * factor)) for side in part.size)
    small, small_cloud = (i.resize(size, Image.Resampling.BOX, reducing_gap=2.0) for i in (part, cloud))
    glyphs = [glyph.scaled(factor) for glyph in block.glyphs]
    blurred = _blur(small, block.em * factor)
    for mist in (step / 20 for step in range(21)):
        for dark in (True, False):
            if mist > most:
                return None
            misty = np.asarray(_add_mist(small, blurred, small_cloud, dark, mist))
            if all(ratio >= 1.1 * READABLE and spread <= SMOOTH for ratio, spread in _contrasts(misty, glyphs, dark)):
                return dark, mist
    return None


def _contrasts(rgb: np.ndarray, glyphs: list[Glyph], dark: bool) -> Iterator[tuple[float, float]]:
    """Of the background in the em of each character: contrast of the ink with its worst twentieth, spread of L*."""
    ink = float(luminance(np.array(DARK if dark else LIGHT, np.uint8)))
    values = luminance(rgb)  # (H, W)
    for glyph in glyphs:
        left, top, right, bottom = (max(0, v) for v in glyph.box)
        behind = values[top:bottom, left:right]
        yield contrast(float(np.percentile(behind, 5 if dark else 95)), ink), float(lightness(behind).std())


def draw_text(card: np.ndarray, block: Block, face: Face, ink: Color, seal: str) -> None:
    """Draws all characters and the seal into card (H, W, 3)."""
    fonts: dict[float, tuple[ImageFont.FreeTypeFont, float]] = {}
    text = "".join(glyph.character for glyph in block.glyphs)
    for glyph in block.glyphs:
        if glyph.size not in fonts:
            font = face.at(glyph.size)
            fonts[glyph.size] = font, _baseline(font, text)
        _stamp(card, *_draw_glyph(glyph, *fonts[glyph.size]), ink)
    if block.seal:
        _draw_seal(card, block.seal, face, seal)


def _baseline(font: ImageFont.FreeTypeFont, text: str) -> float:
    """How far the baseline is below the middle of an em: so that what is drawn of all characters is in the middle."""
    boxes = [font.getbbox(c, anchor="ls") for c in dict.fromkeys(text) if c not in TURNED]
    drawn = [b for b in boxes if b[3] > b[1]]
    return -(min(b[1] for b in drawn) + max(b[3] for b in drawn)) / 2 if drawn else 0.0


def _draw_glyph(glyph: Glyph, font: ImageFont.FreeTypeFont, baseline: float) -> tuple[Image.Image, int, int]:
    """(coverage 0..255 of a square around the character, its left, its top); those of TURNED are turned clockwise."""
    side = int(2 * glyph.size) // 2 * 2
    mask = Image.new("L", (side, side))
    turned = glyph.character in TURNED
    place, anchor = (side / 2, side / 2 + (0.0 if turned else baseline)), "mm" if turned else "ms"
    ImageDraw.Draw(mask).text(place, glyph.character, 255, font, anchor=anchor)
    mask = mask.transpose(Image.Transpose.ROTATE_270) if turned else mask
    return mask, round(glyph.x - side / 2), round(glyph.y - side / 2)


def _stamp(card: np.ndarray, mask: Image.Image, left: int, top: int, color: Color) -> None:
    """Lays a color on card (H, W, 3) through a mask; what is outside is cut off."""
    height, width = card.shape[:2]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + mask.width), min(height, top + mask.height)
    if x1 <= x0 or y1 <= y0:
        return
    part = Image.fromarray(card[y0:y1, x0:x1])
    flat = Image.new("RGB", part.size, color)
    card[y0:y1, x0:x1] = np.asarray(Image.composite(flat, part, mask.crop((x0 - left, y0 - top, x1 - left, y1 - top))))


FINE = 4  # a seal is drawn so many times as large


def _draw_seal(card: np.ndarray, box: Box, face: Face, text: str) -> None:
    """A red stone with white characters, from right to left in columns; its edge a little worn."""
    size = (box[2] - box[0], box[3] - box[1])
    width, height = size[0] * FINE, size[1] * FINE
    stone = Image.new("L", (width, height))
    ImageDraw.Draw(stone).rounded_rectangle((0, 0, width - 1, height - 1), 0.13 * width, 255)
    random = np.random.default_rng(7)  # the same stone each time
    grain = Image.fromarray(random.integers(0, 256, (height // 3 + 1, width // 3 + 1), np.uint8))
    grain = grain.resize((width, height)).filter(ImageFilter.GaussianBlur(FINE))
    worn = grain.point(lambda v: 255 if v > 88 else 120)
    stone = ImageChops.multiply(stone.filter(ImageFilter.GaussianBlur(FINE / 3)), worn)
    letters = Image.new("L", (width, height))
    edge, gap = 0.11 * width, 0.04 * width
    columns = [text[-2:], text[:-2]] if len(text) > 2 else [text]  # from the left: the last two are read last
    w = (width - 2 * edge) / len(columns)
    for column, characters in enumerate(columns):
        h = (height - 2 * edge) / len(characters)
        for row, character in enumerate(characters):
            cut = _cut_character(face, character, max(1, round(w - gap)), max(1, round(h - gap)))
            letters.paste(cut, (round(edge + column * w + gap / 2), round(edge + row * h + gap / 2)))
    for mask, color in ((stone, RED), (letters, WHITE)):
        _stamp(card, mask.resize(size, Image.Resampling.BOX), box[0], box[1], color)


def _cut_character(face: Face, character: str, width: int, height: int) -> Image.Image:
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
