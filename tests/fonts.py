"""Fonts for tests: every character has a shape of its own, made from its code point."""

from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib.tables.TupleVariation import TupleVariation

from infer.postcard.fonts import Face

EM = 1000


def make_font(path: Path, text: str, family: str = "Test Kai", blank: bool = False) -> Face:
    """A TrueType font with the characters of `text`: grids of squares, or nothing at all if `blank`."""
    characters = sorted(set(text))
    names = [".notdef", *(f"c{ord(c):x}" for c in characters)]
    builder = FontBuilder(EM, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    glyphs = {".notdef": _squares(np.ones((8, 8)))}
    glyphs |= {name: _squares(_pattern(c, blank)) for c, name in zip(characters, names[1:], strict=True)}
    builder.setupGlyf(glyphs)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    return _saved(builder, path, names, family)


def make_variable_font(path: Path) -> Face:
    """A font with 永, a bar that is 100 wide at its default weight of 200 and 800 wide at 900."""
    names = [".notdef", "bar"]
    builder = FontBuilder(EM, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord("永"): "bar"})
    builder.setupGlyf({".notdef": _bar(10), "bar": _bar(100)})
    builder.setupNameTable({"familyName": "Test Variable", "styleName": "ExtraLight"})
    builder.setupFvar([("wght", 200, 200, 900, "Weight")], [])
    deltas = [(0, 0), (700, 0), (700, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]  # four corners, four phantom points
    builder.setupGvar({"bar": [TupleVariation({"wght": (0, 1, 1)}, deltas)]})
    return _saved(builder, path, names, "Test Variable")


def _saved(builder: FontBuilder, path: Path, names: list[str], family: str) -> Face:
    glyphs = builder.font["glyf"]
    builder.setupHorizontalMetrics({name: (EM, getattr(glyphs[name], "xMin", 0)) for name in names})
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupOS2(sTypoAscender=880, sTypoDescender=-120, usWinAscent=880, usWinDescent=120)
    builder.setupPost()
    builder.save(path)
    return Face(str(path), 0, family)


def _pattern(character: str, blank: bool) -> np.ndarray:
    """(8, 8) squares that are filled; the frame is, so that all characters have one size."""
    if blank:
        return np.zeros((8, 8))
    pattern = np.random.default_rng(ord(character)).integers(0, 2, (8, 8))
    pattern[[0, -1]] = pattern[:, [0, -1]] = 1
    return pattern


def _squares(pattern: np.ndarray):
    pen, side = TTGlyphPen(None), 110
    for row, column in np.argwhere(pattern):
        x, y = 60 + column * side, 820 - (row + 1) * side
        _rectangle(pen, x, y, x + side, y + side)
    return pen.glyph()


def _bar(width: int):
    pen = TTGlyphPen(None)
    _rectangle(pen, 0, 0, width, 800)
    return pen.glyph()


def _rectangle(pen: TTGlyphPen, left: int, bottom: int, right: int, top: int) -> None:
    pen.moveTo((left, bottom))
    for point in ((right, bottom), (right, top), (left, top)):
        pen.lineTo(point)
    pen.closePath()
