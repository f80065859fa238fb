"""infer/postcard: the text is where it should be, as it should be, and readable on everything."""

import io
import json
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

import main
from infer.postcard.card import Postcard, destination, postcard, save_postcard
from infer.postcard.fonts import Face
from infer.postcard.ink import DARK, LIGHT, PAPER
from infer.postcard.text import Inscription, section_starts
from tests.fonts import make_font
from utils.errors import UserError
from utils.images import Picture, read_image, save_image

QUATRAIN = ["白日依山尽", "黄河入海流", "欲穷千里目", "更上一层楼"]
EIGHT = "风急天高猿啸哀 渚清沙白鸟飞回 无边落木萧萧下 不尽长江滚滚来".split()
EIGHT += "万里悲秋常作客 百年多病独登台 艰难苦恨繁霜鬓 潦倒新停浊酒杯".split()
CHARACTERS = "".join(QUATRAIN + EIGHT) + "登鹳雀楼高诗画江山如某题（）"
random = np.random.default_rng(3)


@pytest.fixture(scope="module")
def face(tmp_path_factory) -> Face:
    return make_font(tmp_path_factory.mktemp("font") / "kai.ttf", CHARACTERS)


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> Face:
    """Has all characters, and draws none: what is left is what they stand on."""
    return make_font(tmp_path_factory.mktemp("font") / "blank.ttf", CHARACTERS, blank=True)


def put(rgb, lines, face, title="", signature="", seal="", place="auto") -> Postcard:
    return postcard(rgb, Inscription(lines, title, signature, seal), face, place)


def plain(height: int, width: int, grey: int = 255) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    return random.integers(0, 256, (height, width, 3), np.uint8)


def bands(values: np.ndarray, height: int) -> np.ndarray:
    """Each column of one grey (W)."""
    return np.broadcast_to(values.astype(np.uint8)[None, :, None], (height, len(values), 3)).copy()


def blobs(height: int, width: int) -> np.ndarray:
    """Colored blobs, about as large as characters."""
    small = random.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def contrast_with(ink: tuple[int, int, int], rgb: np.ndarray) -> np.ndarray:
    """WCAG 2.2's contrast of an ink with each pixel."""
    pixels, ink = (
        np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        for value in (np.asarray(rgb) / 255, np.array(ink) / 255)
    )
    return (np.maximum(pixels, ink) + 0.05) / (np.minimum(pixels, ink) + 0.05)


def ink_in(card: Postcard, box: tuple[int, int, int, int], trim: bool = False) -> np.ndarray:
    """(h, w) bool: where a part of the card is nearer to the ink than to white (or black)."""
    left, top, right, bottom = box
    grey = card.rgb[top:bottom, left:right].mean(-1)
    seen = grey < 128 if card.dark else grey > 128
    if trim:
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        seen = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return seen


def likeness(seen: np.ndarray, face: Face, character: str, size: float, angle: int = 0) -> float:
    """The share of pixels that Pillow's own drawing of a character has in common with what is seen."""
    drawn = draw(face.path, character, size).rotate(angle, expand=True).resize(seen.shape[::-1])
    return ((np.asarray(drawn) > 127) == seen).mean()


@cache
def draw(font: str, character: str, size: float) -> Image.Image:
    mask = ImageFont.truetype(font, size).getmask(character)
    return Image.frombytes("L", mask.size, bytes(mask))


def every(card: Postcard) -> list:
    return [glyph for column in card.columns for glyph in column]


# --------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("grey", [255, 0])
def test_each_verse_is_a_column_and_columns_go_from_right_to_left(face, grey):
    card = put(plain(480, 640, grey), QUATRAIN, face, "登鹳雀楼", "某题")
    assert not card.on_paper and card.dark == (grey == 255) and card.mist == 0
    assert card.seal is None and np.ptp(card.rgb.astype(int), axis=-1).max() < 20, "nothing is red"
    for column, text in zip(card.columns, ["登鹳雀楼", *QUATRAIN, "某题"], strict=True):
        read = ""
        for glyph in column:  # read off the pixels: the character that it looks like most
            seen = ink_in(card, glyph.box, trim=True)
            read += max("登鹳雀楼某题" + "".join(QUATRAIN), key=lambda c, g=glyph, s=seen: likeness(s, face, c, g.size))
        assert read == text
        assert len({glyph.x for glyph in column}) == 1, "upright"
        tops = [glyph.y for glyph in column]
        assert tops == sorted(tops) and np.ptp(np.diff(tops)) < 1e-6, "downwards, evenly"
    middles = [column[0].x for column in card.columns]
    assert middles == sorted(middles, reverse=True)
    title, *verses, signature = card.columns
    assert title[0].size < verses[0][0].size > signature[0].size
    assert {column[0].y for column in verses} == {verses[0][0].y}, "verses begin at one height"


def test_there_is_ink_in_the_middle_of_each_em_and_nowhere_else(face):
    card = put(plain(900, 1200), QUATRAIN, face, "登鹳雀楼")
    touched = (card.rgb != 255).any(-1)
    for glyph in every(card):
        left, top, right, bottom = glyph.box
        rows, columns = np.nonzero(ink_in(card, glyph.box))
        assert abs((rows.min() + rows.max() + 1) / 2 + top - glyph.y) < 1.5
        assert abs((columns.min() + columns.max() + 1) / 2 + left - glyph.x) < 1.5
        assert touched[top:bottom, left:right].mean() > 0.2
        touched[top:bottom, left:right] = False
    assert not touched.any()


SIZES = [(64, 64), (64, 192), (192, 64), (300, 900), (900, 300), (400, 1200), (1200, 400), (1, 1), (8, 700), (700, 8)]
TEXTS = [(size, EIGHT) for size in SIZES] + [(size, QUATRAIN) for size in ((64, 64), (300, 900), (900, 300), (1, 1))]


@pytest.mark.parametrize("size, lines", TEXTS)
def test_any_size_and_aspect_is_readable(face, size, lines):
    photo = blobs(*size)
    card = put(photo, lines, face, "登高", "某题", "诗画")
    height, width = card.rgb.shape[:2]
    text = "".join(g.character for column in card.columns[1:-1] for g in column)
    assert text == "".join(lines)
    assert min(glyph.size for glyph in every(card)) >= 12 and card.contrast >= 4.5
    taken = np.zeros((height, width), int)
    for left, top, right, bottom in [*(glyph.box for glyph in every(card)), card.seal]:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        taken[top + 1 : bottom - 1, left + 1 : right - 1] += 1
    assert taken.max() == 1, "nothing overlaps"
    left, top, right, bottom = card.picture
    assert (right - left, bottom - top) == (photo.shape[1], photo.shape[0])
    if card.on_paper:
        assert (card.rgb[top:bottom, left:right] == photo).all(), "the picture is as it was"
        assert not taken[top:bottom, left:right].any(), "the text is beside it"


def test_the_text_grows_with_the_picture(face):
    small, large = (put(plain(3 * side, 4 * side), QUATRAIN, face, "登高") for side in (150, 750))
    assert large.columns[1][0].size == pytest.approx(5 * small.columns[1][0].size, rel=0.1)


def test_long_poems_and_titles_find_room(face):
    card = put(noise(300, 400), ["".join(EIGHT)[:30]] * 20, face, "登高")
    assert len(every(card)) == 602 and min(glyph.size for glyph in every(card)) >= 12
    card = put(plain(600, 800), QUATRAIN, face, "登鹳雀楼" * 6)
    titles = [column for column in card.columns if column[0].size < card.columns[-1][0].size]
    assert len(titles) > 1 and "".join(g.character for column in titles for g in column) == "登鹳雀楼" * 6


def test_brackets_are_turned(face):
    card = put(plain(600, 800), QUATRAIN, face, "登（高）")
    for glyph in card.columns[0]:
        seen = ink_in(card, glyph.box, trim=True)
        upright, turned = (likeness(seen, face, glyph.character, glyph.size, angle) for angle in (0, -90))
        assert (turned > upright) == (glyph.character in "（）"), glyph


# ---------------------------------------------------------------------------------------------- place and contrast


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_quiet_side_is_chosen(face, side):
    photo = noise(480, 640)
    photo[np.s_[:, :320] if side == "left" else np.s_[:, 320:]] = 200
    card = put(photo, QUATRAIN, face, "登高", seal="诗")
    assert not card.on_paper and card.mist == 0
    xs = [x for left, _, right, _ in (*(g.box for g in every(card)), card.seal) for x in (left, right)]
    assert max(xs) <= 320 if side == "left" else min(xs) >= 320


def test_what_is_busy_everywhere_is_mounted_on_paper(face):
    photo = noise(480, 640)
    card = put(photo, QUATRAIN, face, "登高")
    left, top, right, bottom = card.picture
    assert card.on_paper and (card.rgb[top:bottom, left:right] == photo).all()
    assert max(glyph.box[2] for glyph in every(card)) < left, "beside a wide picture: on its left"
    card = put(noise(640, 480), QUATRAIN, face, "登高")
    assert max(glyph.box[3] for glyph in every(card)) < card.picture[1], "above a high one"
    outside = np.ones(card.rgb.shape[:2], bool)
    outside[card.picture[1] : card.picture[3], card.picture[0] : card.picture[2]] = False
    assert {PAPER, DARK} <= set(map(tuple, np.unique(card.rgb[outside], axis=0)))


def test_what_needs_much_mist_is_mounted_on_paper(face):
    waves = 118 + 60 * np.sin(np.arange(600) / 600 * 2 * np.pi * 4)  # smooth, but too dark here and too bright there
    lines = [line[:5] for line in EIGHT]
    assert put(bands(waves, 400), lines, face, "登高").on_paper
    assert put(bands(waves, 400), lines, face, "登高", place="picture").mist > 0.35


def test_the_place_can_be_chosen_and_the_photograph_is_not_touched(face):
    quiet, busy, small = plain(480, 640), noise(480, 640), noise(40, 40)
    before = busy.copy()
    assert put(quiet, QUATRAIN, face, place="paper").on_paper
    assert not put(busy, QUATRAIN, face, place="picture").on_paper and (busy == before).all()
    assert put(small, QUATRAIN, face, place="picture").on_paper, "there is no room on it"


PHOTOS = {
    "white": lambda: plain(300, 450),
    "black": lambda: plain(300, 450, 0),
    "noise": lambda: noise(300, 450),
    "stripes": lambda: bands(np.where(np.arange(450) // 5 % 2, 255, 0), 300),  # as hard to write on as anything
    "ramp": lambda: bands(np.linspace(0, 255, 450), 300),
    "blobs": lambda: blobs(300, 450),
    "red": lambda: plain(300, 450, 0) + np.array([200, 20, 20], np.uint8),
}


@pytest.mark.parametrize("place", ["auto", "picture"])
@pytest.mark.parametrize("name", PHOTOS)
def test_the_contrast_is_enough_everywhere(face, blank, name, place):
    photo = PHOTOS[name]()
    card, behind = (put(photo, EIGHT, font, "登高", "某题", place=place) for font in (face, blank))
    assert [g.box for g in every(card)] == [g.box for g in every(behind)]
    ink = DARK if card.dark else LIGHT
    worst = []
    for left, top, right, bottom in (glyph.box for glyph in every(card)):
        worst.append(np.percentile(contrast_with(ink, behind.rgb[top:bottom, left:right]), 5))
        there = card.rgb[top:bottom, left:right].reshape(-1, 3).astype(int)
        assert (np.abs(there - ink).max(1) <= 2).mean() > 0.05, "full ink"
    assert min(worst) >= 4.5
    assert card.contrast == pytest.approx(min(worst), rel=0.02)


def test_mist_lies_only_around_the_text_and_fades(blank):
    photo = noise(400, 600)
    card = put(photo, QUATRAIN, blank, "登高", place="picture")
    change = np.abs(card.rgb.astype(int) - photo).max(-1)
    boxes, em = np.array([glyph.box for glyph in every(card)]), card.columns[1][0].size
    for reach, most in ((1.4, 15), (1.7, 0)):
        (left, top), (right, bottom) = boxes[:, :2].min(0) - reach * em, boxes[:, 2:].max(0) + reach * em
        outside = np.ones(change.shape, bool)
        outside[max(0, int(top)) : int(bottom) + 1, max(0, int(left)) : int(right) + 1] = False
        assert change[outside].max() <= most < change.max()


# -------------------------------------------------------------------------------------------------- seal and text


@pytest.mark.parametrize("seal, grey", [("诗", 0), ("诗画", 128), ("江山如", 255), ("江山如画", 0)])
def test_the_seal_is_red_with_white_characters_below_at_the_left(face, seal, grey):
    card = put(plain(900, 1200, grey), QUATRAIN, face, "登高", seal=seal)
    left, top, right, bottom = card.seal
    part = card.rgb[top:bottom, left:right].astype(int)
    red = (part[..., 0] > 120) & (part[..., 1] < 100) & (part[..., 2] < 100)
    assert red.mean() > 0.3 and (part.min(-1) > 200).mean() > 0.1
    assert right < min(glyph.box[0] for glyph in every(card))
    assert abs(bottom - max(glyph.box[3] for glyph in every(card))) <= 2


def test_seal_characters_stand_from_right_to_left(face):
    sheets = []
    for seal in ("江山如画", "山江如画", "江山画如"):
        card = put(plain(900, 1200), QUATRAIN, face, seal=seal)
        left, top, right, bottom = card.seal
        sheets.append(card.rgb[top:bottom, left:right])
    first, swapped_right, swapped_left = sheets
    middle = first.shape[1] // 2
    assert (first[:, :middle] == swapped_right[:, :middle]).all() and (first != swapped_right).any()
    assert (first[:, middle + 1 :] == swapped_left[:, middle + 1 :]).all() and (first != swapped_left).any()


@pytest.mark.parametrize(
    "words, message",
    [
        ({"seal": "江山如画诗"}, "one to four characters"),
        ({"seal": "诗 画"}, "one to four characters"),
        ({"title": "登" * 61}, "title: 61 characters, a postcard has room for 60"),
        ({"signature": "登" * 61}, "signature: 61 characters, a postcard has room for 60"),
        *(({name: "鬱"}, "Test Kai lacks 鬱") for name in ("lines", "title", "signature", "seal")),  # no box is drawn
    ],
)
def test_words_that_do_not_fit_are_refused(face, words, message):
    with pytest.raises(UserError, match=message):
        put(plain(480, 640), **{"lines": QUATRAIN, "face": face, **words})


# ----------------------------------------------------------------------------------------------------------- files


def test_where_the_card_goes(tmp_path):
    photo, gif, font, link = (tmp_path / name for name in ("a.JPG", "b.gif", "f.png", "link.jpg"))
    for file in (photo, gif, font):
        file.touch()
    link.symlink_to(photo)
    assert destination(str(photo), "") == destination(str(photo), str(tmp_path)) == tmp_path / "a_postcard.JPG"
    assert destination(str(gif), "") == tmp_path / "b_postcard.png"
    assert destination(str(photo), "x/y.pdf") == Path("x/y.pdf")
    for name, out, message in [
        ("a.JPG", "x.docx", "x.docx: cannot write .docx; use .jpg, .*.pdf"),
        ("a.JPG", "x", "cannot write a file without a suffix"),
        ("missing.jpg", "", "missing.jpg does not exist"),
        *(("a.JPG", str(out), "would overwrite .*, which is an input") for out in (photo, link, font)),
    ]:
        with pytest.raises(UserError, match=message):
            destination(str(tmp_path / name), out, (str(font), ""))


@pytest.mark.parametrize("size", [(300, 400), (500, 250)])
def test_a_pdf_is_a_page_as_large_as_a_postcard(tmp_path, size):
    photo = blobs(*size)
    save_postcard(tmp_path / "a.pdf", photo, 95)
    data = (tmp_path / "a.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF") and data.count(b"/Type /Page\n") == 1
    box = [float(v) for v in re.search(rb"/MediaBox \[([^\]]*)\]", data)[1].split()]
    width, height = (148 / 25.4 * 72 * side / max(size) for side in size[::-1])  # A6 is 105 x 148 mm
    assert box == pytest.approx([0, 0, width, height], abs=0.5)
    jpeg = data[data.index(b"\xff\xd8\xff") :]
    shown = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    assert shown.shape == photo.shape and np.abs(shown - photo).mean() < 3


def test_transparent_places_become_paper():
    rgb, alpha = plain(4, 4, 0), np.zeros((4, 4), np.uint8)
    alpha[0] = 255
    laid = Picture(rgb, alpha).on(PAPER)
    assert (laid[0] == 0).all() and (laid[1:] == PAPER).all()
    assert Picture(rgb).on(PAPER) is rgb


# -------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def photo(tmp_path) -> Path:
    save_image(tmp_path / "photo.png", blobs(120, 160))
    return tmp_path / "photo.png"


def called(capsys, *words: str) -> tuple[int, str, str]:
    code = main.main(["postcard", *words])
    return code, *capsys.readouterr()


def test_the_command_sets_a_poem_on_a_photograph(capsys, photo, face):
    before = photo.read_bytes()
    poem = "《登高》" + "，".join(QUATRAIN)
    code, out, err = called(capsys, str(photo), f"--poem={poem}", "--style=none", f"--font={face.path}")
    assert code == 0 and out == f"{photo.with_name('photo_postcard.png')}\n"
    assert err == "《登高》\n" + "\n".join(QUATRAIN) + "\n"
    card = put(read_image(photo).rgb, QUATRAIN, face, "登高", "", "诗画")
    assert (read_image(out.strip()).rgb == card.rgb).all() and photo.read_bytes() == before


def test_the_command_for_programs(capsys, photo, face, tmp_path):
    words = ("--poem=白日依山尽", "--strength=0", "--json", "--seal=", f"--font={face.path}", "--place=paper")
    code, out, _ = called(capsys, str(photo), *words, f"--out={tmp_path / 'card.pdf'}")
    facts = json.loads(out)
    assert code == 0 and facts["lines"] == ["白日依山尽"] and facts["seed"] is None and facts["place"] == "paper"
    assert facts["out"] == str(tmp_path / "card.pdf") and (tmp_path / "card.pdf").read_bytes().startswith(b"%PDF")
    assert facts["contrast"] >= 4.5 and facts["width"] > 160 and facts["font"] == "Test Kai"


SLIPS = [
    ([], "postcard needs a photograph"),
    (["PHOTO", "extra"], "postcard: unexpected 'extra'"),
    (["PHOTO", "--poem=白日", "--seal=江山如画诗"], "--seal=江山如画诗"),
    (["PHOTO", "--poem=白日", "--style=nostyle"], "--style=nostyle: this network has"),
    (["PHOTO", "--poem=白日", "--out=card.gif"], "cannot write .gif"),
    (["PHOTO", "--poem=白日", "--max_megapixels=0.001"], "more than max_megapixels=0.001"),
    (["main.py", "--poem=白日", "--style=none"], "not a picture"),
]


@pytest.mark.parametrize("words, message", SLIPS, ids=[" ".join(words) for words, _ in SLIPS])
def test_slips_are_one_line(capsys, photo, face, monkeypatch, words, message):
    monkeypatch.chdir(Path(main.__file__).parent)
    font = [] if any(word.startswith("--font") for word in words) else [f"--font={face.path}"]
    code, out, err = called(capsys, *(word.replace("PHOTO", str(photo)) for word in words), *font)
    assert code == 2 and out == "" and err.startswith("error: ") and message in err
    assert len(err.splitlines()) == 1, "reported before anything is painted"
    assert os.listdir(photo.parent) == ["photo.png"]


def test_a_written_poem_on_a_photograph(capsys, photo, monkeypatch):
    """With the shipped poet, from another folder."""
    monkeypatch.chdir(photo.parent)
    code, out, err = called(capsys, "photo.png", "--title=江山", "--seed=5", "--json", "--style=none")
    facts = json.loads(out)
    assert code == 0 and facts["title"] == "江山" and facts["seed"] == 5
    assert [len(line) for line in facts["lines"]] == [7, 7, 7, 7] and all(line in err for line in facts["lines"])
    assert read_image(facts["out"]).rgb.shape == (facts["height"], facts["width"], 3)
    assert "--seed=5 writes this again" in err


def test_the_sections_of_a_poem_stand_apart(face):
    lines = EIGHT[:6]
    card = postcard(plain(900, 1400), Inscription(lines, "登高", starts=[3]), face, "picture")
    columns = [column for column in card.columns if column]
    assert ["".join(glyph.character for glyph in column) for column in columns] == ["登高", *lines]
    steps = [a[0].x - b[0].x for a, b in zip(columns[1:], columns[2:], strict=False)]
    assert steps[0] == pytest.approx(steps[1]) and steps[2] == pytest.approx(2 * steps[0]) and len(steps) == 5


def test_sections_are_what_empty_lines_part():
    assert section_starts("一曲新词酒一杯。去年天气旧亭台。\n\n夕阳西下几时回？") == [2]
    assert section_starts("《春晓》\n\n春眠不觉晓，处处闻啼鸟。") == section_starts("春眠不觉晓，\n处处闻啼鸟。") == []
