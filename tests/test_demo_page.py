"""The page's callbacks and the works behind them, called without a server: what they are told that the page never
says, whom a Stop stops, and what is looked at before the work."""

import base64
import io
import json
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import main
from config import DemoConfig
from demo.guard import Uploads
from demo.page import NEITHER, Page, _read_state, to_url
from demo.poems import GONE
from demo.work import CANDIDATES, LENGTHS, Photo, Stopped, Workshop
from tests.servers import HOST, ROOT, free_port
from utils.errors import UserError
from utils.images import read_image

POEM = {
    "form": "五绝",
    "title": "登鹳雀楼",
    "lines": ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"],
    "remarks": [],
}
ASKED = {"form": "五绝", "title": "题", "keywords": "", "acrostic": "", "temperature": 0.8, "seed": 1}
STATE = {"asked": ASKED, "poems": [POEM, {**POEM, "title": "又"}], "chosen": 0}
BROKEN = {
    "null": None,
    "a number": 3,
    "a text": "poems",
    "a list": [STATE],
    "empty": {},
    "no poems": {**STATE, "poems": []},
    "poems that are none": {**STATE, "poems": [None]},
    "a poem without lines": {**STATE, "poems": [{"title": "题"}]},
    "lines that are none": {**STATE, "poems": [{**POEM, "lines": 3}]},
    "no request": {**STATE, "asked": None},
    "another request": {**STATE, "asked": {"bogus": 1}},
}


class Idle(Workshop):
    """Has no networks: keeps what it is asked, and paints by calling `painting`."""

    def __init__(self, painting=lambda progress: None):
        super().__init__(DemoConfig())
        self.asked, self.painting = {}, painting

    def check(self, lines):
        return None

    def compose(self, *args, **asked):
        self.asked = asked
        return [SimpleNamespace(as_dict=lambda: POEM)]

    def paint(self, photo, style="", strength=1.0, keep_color=False, progress=None):
        self.painting(progress)
        return np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)

    def postcard(self, photo, title="", poem="", style="", strength=0.8, seal="诗画", progress=None):
        return self.paint(photo, progress=progress)[1], poem


def page_of(workshop, folder) -> Page:
    return Page(workshop, Uploads(folder, 1000))


def event(**data) -> SimpleNamespace:
    return SimpleNamespace(**data)


# ------------------------------------------------------------------------------------------ a state from elsewhere


@pytest.mark.parametrize("state", BROKEN.values(), ids=BROKEN)
def test_a_state_that_the_page_has_not_made_is_told_in_a_line(tmp_path, state):
    page = page_of(Idle(), tmp_path)
    for callback, *more in ((page.choose, event(index=0)), (page.rewrite, []), (page.carry,)):
        with pytest.raises(UserError, match=GONE):
            callback(state, *more)


@pytest.mark.parametrize("chosen", [2, -3, 10**30, None, "0", [], {}, 0.5])
def test_a_choice_of_no_poem_is_told_in_a_line(tmp_path, chosen):
    page = page_of(Idle(), tmp_path)
    with pytest.raises(UserError, match=GONE):
        page.choose(STATE, event(index=chosen))
    with pytest.raises(UserError, match=GONE):
        page.carry({**STATE, "chosen": chosen})


@pytest.mark.parametrize("data", [None, {}, "x", 3])
def test_a_click_without_a_card_is_told_in_a_line(tmp_path, data):
    from gradio import EventData

    with pytest.raises(UserError, match=GONE):
        page_of(Idle(), tmp_path).choose(STATE, EventData(None, data))


def test_only_what_is_known_is_asked_again(tmp_path):
    workshop = Idle()
    page_of(workshop, tmp_path).rewrite({**STATE, "asked": {**ASKED, "n": 8, "bogus": 1}}, [])
    assert workshop.asked == {**ASKED, "seed": -1, "kept": ()}


def test_a_state_is_read_as_texts_and_no_longer_than_it_was_made():
    poem = {"form": None, "title": 3, "lines": [1, [2]], "remarks": "ab", "more": 1}
    state = _read_state({**STATE, "poems": [poem] * 1000, "chosen": 1})
    assert len(state["poems"]) == CANDIDATES and state["chosen"] == 1
    assert state["poems"][0] == {"form": "None", "title": "3", "lines": ["1", "[2]"], "remarks": ["a", "b"]}
    assert _read_state(STATE) == STATE


def test_a_very_long_poem_is_shown_without_its_prosody(tmp_path, monkeypatch):
    """Judging it takes time that grows with the square of its length."""
    judged = []
    monkeypatch.setattr(Workshop, "_network", lambda self, name: "a table")
    monkeypatch.setattr("infer.verse.check.check", lambda lines, table: judged.append(lines))
    page = page_of(Workshop(DemoConfig()), tmp_path)
    long = ["春眠不觉晓，" * (2 * LENGTHS["poem"] // 6), "春"]
    _, cards, *_ = page.choose({**STATE, "poems": [POEM, {**POEM, "lines": long}]}, event(index=1))
    assert judged == [POEM["lines"]]
    assert f"<p>{long[0]}</p><p>春</p>" in cards


# ------------------------------------------------------------------------------------------------------- stopping


WORKS = {
    "paint": lambda page, visitor: page.paint("photo", "", "", 0, 1, False, visitor, lambda share, desc: None),
    "postcard": lambda page, visitor: page.postcard("photo", "", 1, "", "", "", visitor, lambda share, desc: None),
}


@pytest.mark.parametrize("tab", WORKS)
@pytest.mark.parametrize(
    ("who", "where", "stopped"),
    [("me", "this", True), ("me", "other", False), ("you", "this", False), ("me", "all", True), ("you", "all", False)],
)
def test_stop_ends_the_works_of_its_visitor_and_its_tab(tmp_path, tab, who, where, stopped):
    (other,) = WORKS.keys() - {tab}

    def painting(progress):
        request = event(session_hash=who)
        page.leave(request) if where == "all" else page.stopper(tab if where == "this" else other)(request)
        progress(0.5)

    page = page_of(Idle(painting), tmp_path)
    with pytest.raises(Stopped) if stopped else nullcontext():
        WORKS[tab](page, event(session_hash="me"))
    assert page.stops == {}


def test_a_painting_that_is_stopped_is_not_computed_to_its_end(tmp_path):
    page, me, shares = page_of(Workshop(DemoConfig()), tmp_path), event(session_hash="me"), []

    def see(share: float, desc: str) -> None:
        shares.append(share)
        if share > 0:
            page.stopper("paint")(me)

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)).save(buffer, "PNG")
    with pytest.raises(Stopped):
        page.paint(Photo("photo.png", buffer.getvalue()), "great_wave", "", 0, 1, False, me, see)
    assert len(shares) == 2 and shares[0] == 0 < shares[1] < 0.5


def test_the_buttons_stop_their_own_tab(tmp_path, monkeypatch):
    """Each Stop is bound to the tab whose work it cancels."""
    monkeypatch.setattr(Idle, "styles", ["great_wave"])
    bound = {}
    page = page_of(Idle(), tmp_path)
    monkeypatch.setattr(page, "stopper", lambda tab: bound.setdefault(tab, lambda: None))
    functions = page.blocks().fns
    for tab, stop in bound.items():
        (button,) = (function.targets for function in functions.values() if function.fn is stop)
        (cancels,) = (
            function.cancels for function in functions.values() if function.targets == button and function.cancels
        )
        assert [functions[index].fn.__name__ for index in cancels] == [tab]
    assert set(bound) == set(WORKS)


@pytest.mark.parametrize("tab", WORKS)
def test_a_work_that_fails_is_not_remembered(tmp_path, tab):
    def painting(progress):
        assert list(page.stops.values()) == [("me", tab)]
        raise UserError("no picture")

    page = page_of(Idle(painting), tmp_path)
    with pytest.raises(UserError, match="no picture"):
        WORKS[tab](page, event(session_hash="me"))
    assert page.stops == {}


# ------------------------------------------------------------------------------------------------ before the work


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"seal": "诗 画"}, "a seal has one to four characters"),
        ({"poem": f"《{'题' * 61}》\n白日依山尽，黄河入海流。"}, "title has 61 characters"),
    ],
)
@pytest.mark.parametrize("strength", [0, 0.8])
def test_words_that_a_card_cannot_have_are_told_before_the_work(monkeypatch, words, sentence, strength):
    for work in ("decode", "_painted", "compose"):
        monkeypatch.setattr(Workshop, work, lambda *args, **options: pytest.fail("it works"))
    with pytest.raises(UserError, match=sentence):
        Workshop(DemoConfig()).postcard(Photo("photo.jpg", b""), strength=strength, **words)


def test_pictures_are_decoded_one_at_a_time(monkeypatch):
    """Twice for a classification, the second time for its explanation."""
    classify = pytest.importorskip("infer.photo.classify")
    workshop, locked = Workshop(DemoConfig()), []
    read_image = classify.read_image

    def reading(*args, **options):
        locked.append(workshop._decoding.locked())
        return read_image(*args, **options)

    monkeypatch.setattr(classify, "read_image", reading)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "gray").save(buffer, "PNG")
    *_, heat = workshop.classify(Photo("photo.png", buffer.getvalue()))
    assert locked == [True, True] and heat.shape == (48, 64, 3)


# ------------------------------------------------------------------------------------- the same as the command line


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    for name in ("poet", "style", "classifier"):
        if not (ROOT / getattr(DemoConfig, name)).exists():
            pytest.skip(f"{getattr(DemoConfig, name)} is not here")
    return Workshop(DemoConfig())


@pytest.fixture
def fp32(monkeypatch):
    """`auto` measures, and may come out otherwise the second time."""
    monkeypatch.setattr("utils.hardware.choose_precision", lambda *args, **options: ("fp32", "for this test"))


def photo_file(folder, kind: str = "jpg"):
    """(the path of a photograph, the same as it was sent)."""
    path = folder / f"photo.{kind}"
    with Image.open(ROOT / "dataset" / "sample" / "photos" / "fjord_dusk.jpg") as image:
        image = image.convert("RGB").resize((120, 80))
    if kind == "png":  # transparent in places
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path, format={"jpg": "JPEG", "png": "PNG", "heic": "HEIF"}[kind])
    return path, Photo(path.name, path.read_bytes())


def said(capsys, *words: object) -> list[dict]:
    """What `python main.py WORDS --json` prints."""
    assert main.main([*map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_poem_is_that_of_the_command_line(workshop, capsys):
    asked = {"form": "五绝", "title": "江行", "keywords": "月,舟", "temperature": 0.8, "seed": 3, "n": 2}
    poems = [poem.as_dict() for poem in workshop.compose(**asked)]
    assert json.loads(json.dumps(poems)) == said(capsys, "generate", *(f"--{k}={v}" for k, v in asked.items()))


@pytest.mark.parametrize("kind", ["jpg", "heic", "png"])
def test_a_painting_is_that_of_the_command_line(workshop, capsys, tmp_path, fp32, kind):
    path, photo = photo_file(tmp_path, kind)
    asked = {"style": "wave:0.6,starry:0.4", "strength": 0.8, "keep_color": True}
    _, painting = workshop.paint(photo, **asked)
    said(capsys, "stylize", path, f"--out={tmp_path / 'out.bmp'}", *(f"--{k}={v}" for k, v in asked.items()))
    assert np.abs(painting.astype(int) - read_image(tmp_path / "out.bmp").rgb).max() <= 1


@pytest.mark.parametrize("kind, strength", [("jpg", 1), ("png", 0.5), ("png", 0)])
def test_a_postcard_is_that_of_the_command_line(workshop, capsys, tmp_path, fp32, kind, strength):
    path, photo = photo_file(tmp_path, kind)
    asked = {"title": "登鹳雀楼", "poem": "".join(POEM["lines"]), "style": "wave", "strength": strength, "seal": "诗"}
    card, _ = workshop.postcard(photo, **asked)
    said(capsys, "postcard", path, f"--out={tmp_path / 'out.png'}", *(f"--{k}={v}" for k, v in asked.items()))
    other = read_image(tmp_path / "out.png").rgb
    assert card.shape == other.shape and np.abs(card.astype(int) - other).max() <= 1


def test_an_answer_is_that_of_the_command_line_and_stands_in_the_headline(workshop, capsys, tmp_path):
    animals = ROOT / "dataset" / "sample" / "dogcat" / "train"
    paths = [photo_file(tmp_path, kind)[0] for kind in ("jpg", "png")]
    labels = []
    for path in [*paths, animals / "cat.11.jpg", animals / "dog.11.jpg"]:
        photo = Photo(path.name, path.read_bytes())
        label, chances, _ = workshop.classify(photo, explain=False)
        told = {name: round(chance, 6) for name, chance in chances.items()}
        assert said(capsys, "classify", path) == [{"path": str(path), "label": label, **told}]
        verdict, _ = page_of(workshop, tmp_path / "page").classify(photo)
        assert verdict.label == {"neither": NEITHER, "cat": "猫 cat", "dog": "狗 dog"}[label]
        assert [bar.confidence for bar in verdict.confidences] == sorted(chances.values(), reverse=True)
        labels.append(label)
    assert "neither" in labels


def test_what_is_transparent_or_moves_is_received_as_it_is(workshop, tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr("demo.page.gr.Info", lambda text, **options: notes.append(text))
    path, photo = photo_file(tmp_path, "png")
    page = page_of(workshop, tmp_path / "page")
    received = page.receive(photo)
    assert (received == np.asarray(Image.open(path))).all() and notes == []
    again = base64.b64decode(to_url(received).partition(",")[2])
    assert (workshop.decode(Photo("again", again)).alpha == received[..., 3]).all()
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (page.receive(Photo("a.gif", (tmp_path / "a.gif").read_bytes()))[0, 0] == (255, 0, 0)).all()
    assert notes == ["a.gif is an animation: only its first frame is used"]


# ------------------------------------------------------------------------------------------------- its benchmark


def test_the_benchmark_ends_with_a_server_that_has_ended():
    from benchmarks.demo import wait_for

    server = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    with pytest.raises(SystemExit, match="the demo has ended with 2 before it answered"):
        wait_for(f"http://{HOST}:{free_port()}/", server)
