"""A postcard: a poem in vertical script on a picture, with a title and a red seal; readable on anything.

The poem goes where the picture is quiet, in dark or light ink; where that is too faint, a mist is laid under it; where
the mist would hide too much, the picture is mounted on paper, and the poem stands on that.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infer.postcard.contrast import contrast, luminance
from infer.postcard.fonts import Face
from infer.postcard.ink import DARK, LIGHT, PAPER, draw_text, lay_mist
from infer.postcard.layout import Box, Glyph, find_quiet_place, mount
from infer.postcard.text import Inscription
from utils.errors import UserError
from utils.files import QUALITY, atomic_save, refuse_overwriting
from utils.images import WRITABLE, save_image

MIST = 0.35  # more of it, and the picture is mounted on paper instead
BUSY = 0.45  # the same, of what there is in the place
PDF_SIDE = 148 / 25.4  # inches: the longer side of a page, that of a postcard (A6)


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


def postcard(rgb: np.ndarray, text: Inscription, face: Face, place: str) -> Postcard:
    """Sets a poem on a picture (H, W, 3) uint8 of any size, in a font that has all characters.

    place: "picture", "paper", on which it is mounted, or "auto": on the picture if it can be read there and hides
    little. Raises UserError if the font lacks characters.
    """
    if missing := face.lacks(text.characters):
        raise UserError(f"{face.name} lacks {missing}: give another font", font=None)
    height, width = rgb.shape[:2]
    anyhow = place == "picture"
    if place != "paper" and (block := find_quiet_place(rgb, text, np.inf if anyhow else BUSY)):
        card = rgb.copy()
        if misted := lay_mist(card, block, 1.0 if anyhow else MIST):
            draw_text(card, block, face, DARK if misted[0] else LIGHT, text.seal)
            return Postcard(card, block.columns, block.seal, (0, 0, width, height), *misted)
    size, (left, top), block = mount(height, width, text)
    card = np.full((*size[::-1], 3), PAPER, np.uint8)
    card[top : top + height, left : left + width] = rgb
    draw_text(card, block, face, DARK, text.seal)
    ratio = contrast(*luminance(np.array((PAPER, DARK), np.uint8)).tolist())
    box = (left, top, left + width, top + height)
    return Postcard(card, block.columns, block.seal, box, True, 0.0, ratio)


@dataclass(frozen=True)
class Card:
    """A finished postcard with what is on it, and where `save` puts it (None: the photograph was no file)."""

    rgb: np.ndarray
    title: str
    poem: str  # as it was given, or written
    lines: list[str]  # its verses
    seed: int | None  # with which the poet writes the poem again; None: it was given
    font: str
    place: str  # of the poem: picture or paper
    contrast: float  # of ink and background, by WCAG
    path: Path | None

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.rgb)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("title", "lines", "seed", "font", "place")
        height, width = self.rgb.shape[:2]
        facts = {name: getattr(self, name) for name in names} | {"contrast": round(self.contrast, 2)}
        return facts | {"width": width, "height": height}

    def save(self, path: str | Path | None = None, quality: int = QUALITY) -> Path:
        """Writes a .jpg, .png, .webp, .tif, .bmp or .pdf, and returns where. Raises UserError if it cannot."""
        if not (path := path or self.path):
            raise UserError("name the file to write", path=None)
        save_postcard(path, self.rgb, quality)
        return Path(path)


def destination(photo: str, out: str, others: Sequence[str] = ()) -> Path:
    """Where the card of a photograph goes: `out`, or NAME_postcard in the folder `out`, or beside the photograph.

    Raises UserError if there is no photograph, for another type, or if the card would overwrite it or one of `others`.
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


def save_postcard(path: str | Path, rgb: np.ndarray, quality: int) -> None:
    """Writes (H, W, 3) uint8 as a picture, or as a PDF of one page, by the suffix. Raises UserError if it cannot."""
    _check_suffix(path)
    if Path(path).suffix.lower() != ".pdf":
        save_image(path, rgb, quality=quality)
        return
    image, resolution = Image.fromarray(rgb), max(rgb.shape) / PDF_SIDE
    options = {"resolution": resolution, "quality": quality, "producer": "shihua"}
    atomic_save(path, lambda temporary: image.save(temporary, format="PDF", **options))


def _check_suffix(path: str | Path) -> None:
    suffix = Path(path).suffix
    if suffix.lower() not in (*WRITABLE, ".pdf"):
        raise UserError(f"{path}: cannot write {suffix or 'a file without a suffix'}; use {', '.join(WRITABLE)}, .pdf")
