"""Finding a font that has every character of a Chinese text: Kai or Song, on the system or from a package."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import ImageFont

from utils.errors import UserError, reason_of

# The best first: Kai (the hand of the brush), Song (the cut of the printers), Fangsong (between them).
FAMILIES = tuple(
    "LXGW WenKai, LXGW WenKai GB, LXGW WenKai Screen, LXGW WenKai Lite, Kaiti SC, STKaiti, KaiTi, KaiTi_GB2312, "
    "FZKai-Z03, AR PL UKai CN, LXGW WenKai TC, Kaiti TC, BiauKai, TW-Kai, cwTeXKai, AR PL UKai TW, "
    "Noto Serif CJK SC, Noto Serif SC, Source Han Serif SC, Source Han Serif CN, Songti SC, STSong, SimSun, NSimSun, "
    "FZShuSong-Z01, AR PL UMing CN, STFangsong, FangSong, FangSong_GB2312, "
    "Noto Serif CJK TC, Noto Serif TC, Source Han Serif TC, Songti TC, AR PL UMing TW, "
    "Noto Serif CJK JP, Source Han Serif".split(", ")
)
RANK = {family.lower(): rank for rank, family in enumerate(FAMILIES)}
REGULAR, ALL_WEIGHTS = 80, 0x8000  # fontconfig's numbers of the regular weight, and of a variable font's face
PACKAGE, PACKAGE_FONT = "pylopdf_fonts_zh_cn", "NotoSerifSC-Regular.otf"  # a package of two fonts under the OFL
LIKELY = re.compile(r"kai|song|serif|sun|ming|\.ttc$", re.IGNORECASE)  # files that may hold one of the families
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")


@dataclass(frozen=True)
class Face:
    """A font: its file, the number of the face in it, and what people call it."""

    path: str
    index: int = 0
    name: str = ""

    def lacks(self, text: str) -> str:
        """The characters of `text` for which the font has no glyph, each once; white space needs none."""
        there = _characters(self.path, self.index)
        return "".join(dict.fromkeys(c for c in text if not c.isspace() and ord(c) not in there))

    def at(self, size: float) -> ImageFont.FreeTypeFont:
        """The font with an em of `size` pixels, in its regular weight if it has several in one."""
        font = ImageFont.truetype(self.path, size, self.index, layout_engine=ImageFont.Layout.BASIC)
        try:
            axes = font.get_variation_axes()
        except (OSError, KeyError):  # Pillow's answers for a font without axes, or without names for them
            return font
        values = [axis["default"] for axis in axes]
        for number, axis in enumerate(axes):
            if axis["name"] in (b"Weight", b"wght"):
                values[number] = min(max(400, axis["minimum"]), axis["maximum"])
        font.set_variation_by_axes(values)
        return font


def choose_face(text: str, file: str = "") -> tuple[Face, list[str]]:
    """(the first font that has all of `text`, remarks about those that were passed over).

    `file` if given, then the Kai and Song fonts of the system, then the package's. Raises UserError if `file` is no
    font, or if none has all characters: it then names those that the best one lacks.
    """
    remarks: dict[str, None] = {}
    best = None
    for face in (*((_face_of(file),) if file else ()), *system_faces(), *package_faces()):
        try:
            missing = face.lacks(text)
        except UserError:  # a broken file on the system is passed over; one that was asked for has been read already
            continue
        if not missing:
            return face, list(remarks)
        remarks[f"{face.name} lacks {missing}"] = None  # regular and bold say the same
        best = missing if best is None or len(missing) < len(best) else best
    if best is None:
        raise UserError("no Chinese font found: name a file, or install the package in requirements.txt", font=None)
    raise UserError(f"no font found has {best}: name a file that does, or write something else", font=None)


@lru_cache(maxsize=1)
def system_faces() -> tuple[Face, ...]:
    """The faces of FAMILIES on this machine, the best first; by fontconfig, else by the files that matplotlib lists."""
    found: list[tuple[Face, float]] = []
    for listing in (_fontconfig_faces, _faces_in_files):
        found = found or [entry for entry in listing() if entry[0].name.lower() in RANK]
    return tuple(face for face, _ in sorted(found, key=lambda entry: (_rank(entry[0].name), entry[1], entry[0].path)))


def package_faces() -> tuple[Face, ...]:
    """The Song face that the package brings, if it is installed."""
    spec = importlib.util.find_spec(PACKAGE)
    files = [Path(place, PACKAGE_FONT) for place in (spec.submodule_search_locations or ())] if spec else []
    return tuple(Face(str(file), 0, "Noto Serif SC") for file in files if file.is_file())


def _rank(family: str) -> int:
    return RANK.get(family.lower(), len(RANK))


def _fontconfig_faces() -> Iterator[tuple[Face, float]]:
    """(face, how far it is from regular) of all fonts that fc-list names, by the family of FAMILIES if it has one."""
    form = "%{file}\t%{index}\t%{weight}\t%{variable}\t%{family}\n"
    try:
        result = subprocess.run(["fc-list", "--format", form], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in result.stdout.decode("utf-8", "replace").splitlines():
        path, index, weight, variable, families = line.split("\t")
        names = sorted(families.split(","), key=_rank)
        # The upper half of the index counts the named weights of a variable font; all of it has ALL_WEIGHTS there.
        number = int(index) % (1 << 32)
        if number >> 16 in (0, ALL_WEIGHTS) and path.lower().endswith(SUFFIXES):
            known = weight.isdigit() and variable != "True"
            yield Face(path, number % (1 << 16), names[0]), abs(int(weight) - REGULAR) if known else 0


def _faces_in_files() -> Iterator[tuple[Face, float]]:
    """(face, 0 if it is regular, else 1) of the system's font files with a likely name."""
    from matplotlib.font_manager import findSystemFonts

    for path in sorted(findSystemFonts()):
        if LIKELY.search(os.path.basename(path)):
            yield from _faces_in(path)


def _faces_in(path: str) -> Iterator[tuple[Face, float]]:
    for index in range(64):  # a collection ends by an error; no sane one is longer
        try:
            family, style = ImageFont.truetype(path, 10, index).getname()
        except OSError:
            return
        yield Face(path, index, family or ""), float(style not in ("Regular", "Normal", None))
        if not path.lower().endswith("c"):
            return


def _face_of(file: str) -> Face:
    """The best face in a file that the user names. Raises UserError if it is no font."""
    if not os.path.isfile(file):
        raise UserError("does not exist: give a font file (.ttf, .otf, .ttc)", font=file)
    faces = [face for face, _ in _faces_in(file)]
    if not faces:
        raise UserError("not a font that can be read: give a .ttf, .otf or .ttc", font=file)
    face = min(faces, key=lambda face: _rank(face.name))
    face.lacks("")
    return Face(file, face.index, face.name if face.name.strip("? ") else Path(file).stem)


@lru_cache(maxsize=16)
def _characters(path: str, index: int) -> frozenset[int]:
    """The code points that a face has glyphs for. Raises UserError if the file is broken."""
    try:
        with TTFont(path, fontNumber=index, lazy=True) as font:
            return frozenset(font.getBestCmap() or {})  # without those that the font maps to its box
    except Exception as error:  # a broken font makes fontTools raise anything
        raise UserError(f"{path} is not a font that can be read: {reason_of(error)}") from error
