"""infer/postcard/fonts.py: fonts are found, asked for every character, and never trusted."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageDraw

from infer.postcard import fonts
from infer.postcard.fonts import Face, choose_face
from tests.fonts import make_font, make_variable_font
from utils.errors import UserError


@pytest.fixture
def found(monkeypatch):
    """Lets the system, and the package, have these fonts only."""

    def set_faces(*system: Face, package: tuple[Face, ...] = ()) -> None:
        monkeypatch.setattr(fonts, "system_faces", lambda: system)
        monkeypatch.setattr(fonts, "package_faces", lambda: package)

    set_faces()
    return set_faces


@pytest.fixture
def fresh():
    """Fonts are looked for anew, before the test and after it."""
    fonts.system_faces.cache_clear()
    yield
    fonts.system_faces.cache_clear()


def test_a_face_knows_what_it_lacks(tmp_path):
    face = make_font(tmp_path / "a.ttf", "春江花月")
    assert face.lacks("春江花月") == "" and face.lacks("") == ""
    assert face.lacks("春夜江夜山") == "夜山", "each once, in their order"
    assert face.lacks("春 江\n花　月") == "", "white space needs no glyph"


def test_a_character_mapped_to_the_box_is_lacking(tmp_path):
    code, file = ord("𠮷"), Path(make_font(tmp_path / "a.ttf", "春𠮷").path)
    data = file.read_bytes()
    assert data.count(struct.pack(">III", code, code, 2)) == 1  # fontTools would not write it: glyph 0 is the box
    file.write_bytes(data.replace(struct.pack(">III", code, code, 2), struct.pack(">III", code, code, 0)))
    assert Face(str(file)).lacks("春𠮷") == "𠮷"


def test_the_first_font_with_all_characters_is_taken(tmp_path, found):
    """A given one first, then those of the system, the package's last; a broken one is passed over."""
    broken = tmp_path / "broken.ttf"
    few, more, most = (make_font(tmp_path / f"{t}.ttf", t, f"Face {t}") for t in ("春", "春江", "春江花"))
    broken.write_bytes(Path(few.path).read_bytes()[:300])
    found(Face(str(broken), 0, "Broken"), few, more, most)
    assert choose_face("春") == (few, [])
    assert choose_face("春江") == (more, ["Face 春 lacks 江"])
    assert choose_face("江花春") == (most, ["Face 春 lacks 江花", "Face 春江 lacks 花"])
    given, system, brought = (make_font(tmp_path / f"{t}.ttf", t, "Kai") for t in ("春", "春江", "春江花"))
    found(system, package=(brought,))
    assert choose_face("春", given.path) == (given, [])
    assert choose_face("春江", given.path) == (system, ["Kai lacks 江"])
    assert choose_face("花")[0] == brought
    found(brought, package=(system,))
    with pytest.raises(UserError, match="no font found has 山月: "):  # the second one lacks 花, too
        choose_face("春山江花月")
    found()
    with pytest.raises(UserError, match="no Chinese font found"):
        choose_face("春")


@pytest.mark.parametrize("content", [None, b"", b"no font", b"\x00\x01\x00\x00" + bytes(200), "folder"])
def test_a_given_file_that_is_no_font_is_named(tmp_path, content):
    file = tmp_path / "font.ttf"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match="font.ttf: (does not exist: give a font|not a font)|font.ttf is not a font"):
        choose_face("春", str(file))


def test_the_name_of_a_given_face(tmp_path):
    """Of a collection the best known one is taken."""
    file = make_font(tmp_path / "mine.ttf", "春", "楷体").path  # FreeType gives names in ASCII
    assert choose_face("春", file)[0].name == "mine"
    collection = TTCollection()
    for number, family in enumerate(("Test Sans", "SimSun", "KaiTi", "Test Serif")):
        make_font(tmp_path / f"{number}.ttf", "春江", family)
        collection.fonts.append(TTFont(tmp_path / f"{number}.ttf"))
    collection.save(tmp_path / "all.ttc")
    assert choose_face("春", str(tmp_path / "all.ttc"))[0] == Face(str(tmp_path / "all.ttc"), 2, "KaiTi")


def test_files_are_searched_where_there_is_no_fontconfig(tmp_path, fresh, monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    kai, song = make_font(tmp_path / "simkai.ttf", "春", "KaiTi"), make_font(tmp_path / "mysong.otf", "春", "SimSun")
    make_font(tmp_path / "sunny.ttf", "春", "Sunny Sans")
    (tmp_path / "kai-broken.ttf").write_bytes(b"broken")
    monkeypatch.setattr(fonts.subprocess, "run", missing)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: list(map(str, tmp_path.iterdir())))
    assert fonts.system_faces() == (kai, song)


def test_fontconfigs_list_is_ranked(fresh, monkeypatch):
    lines = [
        "/f/bold.ttc\t2\t200\tFalse\tNoto Serif CJK SC",
        "/f/normal.ttc\t2\t80\tFalse\tNoto Serif CJK SC",
        "/f/kai.ttf\t0\t80\tFalse\t楷体,KaiTi",
        "/f/vf.otf\t131072\t200\tFalse\tNoto Serif SC",  # a named weight of the next one
        "/f/vf.otf\t-2147483648\t[40 210]\tTrue\tNoto Serif SC",
        "/f/old.pcf.gz\t0\t80\tFalse\tSimSun",
        "/f/sans.ttf\t0\t80\tFalse\tDejaVu Sans",
    ]
    output = subprocess.CompletedProcess([], 0, "\n".join(lines).encode(), b"")
    monkeypatch.setattr(fonts.subprocess, "run", lambda *_, **__: output)
    serifs = [Face(f"/f/{name}.ttc", 2, "Noto Serif CJK SC") for name in ("normal", "bold")]
    assert fonts.system_faces() == (Face("/f/kai.ttf", 0, "KaiTi"), *serifs, Face("/f/vf.otf", 0, "Noto Serif SC"))


def test_a_variable_font_is_set_to_its_regular_weight(tmp_path):
    face = make_variable_font(tmp_path / "v.ttf")
    image = Image.new("L", (100, 120))
    ImageDraw.Draw(image).text((0, 100), "永", 255, face.at(100), anchor="ls")
    width = (np.asarray(image)[60] > 127).sum()
    assert abs(width - (10 + 70 * 200 / 700)) <= 1, "weight 400 of 200..900"


def test_the_package_has_the_commonest_characters():
    if not fonts.package_faces():
        pytest.skip("the package with the fonts is not installed: uv sync")
    gb2312 = bytes(b for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF) for b in (row, cell))
    common = gb2312.decode("gb2312", "ignore")
    assert len(common) == 6763 and fonts.package_faces()[0].lacks(common) == ""
    face, _ = choose_face("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。")
    assert all(face.at(40).getmask(c).getbbox() for c in "白日依山尽")
