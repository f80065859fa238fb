"""The tabs' callbacks and the service behind them, called without a server: what they are asked that the page never
asks, whom a Stop stops, what is checked before the job, and that they answer what the command line answers."""

import base64
import html
import io
import json
import re
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np
import pytest
import skimage.data
from PIL import Image

import main
import shihua
from config import DemoConfig
from demo.classify import ClassifyTab
from demo.compose import GONE, ComposeTab, read_state
from demo.guard import Uploads
from demo.page import build_page
from demo.paint import PaintTab
from demo.parts import Jobs, Photos, Problems, encode
from demo.poems import verses_of
from demo.postcard import PostcardTab
from demo.service import CANDIDATES, LENGTHS, Cancelled, Service
from demo.words import both
from tests.servers import ROOT
from utils.errors import UserError
from utils.images import read_image
from utils.photo import Photo, decoding

POEM = {
    "form": "五绝",
    "title": "登鹳雀楼",
    "lines": ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"],
    "remarks": [],
    "sections": [],
    "seed": 1,
    "text": "《登鹳雀楼》\n白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。",
    "pinyin": [],
}
ASKED = {"form": "五绝", "tune": "", "title": "题", "prompt": "", "keywords": "", "acrostic": ""}
ASKED |= {"temperature": 0.8, "seed": 1}
PHOTO, CLICK, ME = Photo("photo.jpg"), SimpleNamespace(index=0), SimpleNamespace(session_hash="me")
STATE = {"asked": ASKED, "poems": [POEM, {**POEM, "title": "又"}], "chosen": 0, "kept": []}
POEMS = ([], [None], [{"title": "题"}], [{**POEM, "sections": ["x"]}], [{**POEM, "lines": 3}])  # what are none
BROKEN = (None, "poems", [STATE], {}, {**STATE, "asked": {"bogus": 1}}, *({**STATE, "poems": it} for it in POEMS))


class Written:
    """A poem as the poet gives it."""

    pinyin = POEM["pinyin"]

    def as_dict(self) -> dict:
        return POEM

    def __str__(self) -> str:
        return POEM["text"]


class Idle(Service):
    """Has no networks: keeps what it is asked, and paints by calling `painting`."""

    styles = ["great_wave"]

    def __init__(self, painting=lambda progress: None):
        super().__init__(DemoConfig())
        self.asked, self.painting = {}, painting

    def check(self, lines):
        return None

    def write(self, **asked):
        self.asked = asked
        return [Written()]

    def paint(self, photo, progress=None, **asked):
        self.painting(progress)
        return np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)

    def postcard(self, photo, poem="", progress=None, **asked):
        return self.paint(photo, progress)[1], poem


@pytest.fixture(scope="module")
def service() -> Service:
    """With the shipped networks; writes two poems at a time, each the best of four."""
    service = Service(DemoConfig())
    service.write = partial(service.write, n=2, candidates=4)
    return service


def photos_of(service, folder) -> Photos:
    return Photos(service, Uploads(folder, 1000))


# ------------------------------------------------------------------------------------------ a state from elsewhere


@pytest.mark.parametrize("state", BROKEN)
def test_a_state_that_the_page_has_not_made_is_one_line(state):
    tab = ComposeTab(Idle())
    for callback, *more in ((tab.choose, [], False, CLICK), (tab.rewrite, [], False, []), (tab.carry,)):
        with pytest.raises(UserError, match=GONE):
            callback(state, *more)


@pytest.mark.parametrize("chosen", [2, -3, 10**30, None, "0", [], 0.5])
def test_a_choice_of_no_poem_is_one_line(chosen):
    tab = ComposeTab(Idle())
    for callback, *given in (
        (tab.choose, STATE, [], False, SimpleNamespace(index=chosen)),
        (tab.choose, STATE, [], False, gr.EventData(None, chosen)),  # a click without a card
        (tab.carry, {**STATE, "chosen": chosen}),
    ):
        with pytest.raises(UserError, match=GONE):
            callback(*given)


def test_a_state_is_read_as_texts_and_no_longer_than_it_was_made():
    poem = {**POEM, "form": None, "title": 3, "lines": [1, [2]], "remarks": "ab", "more": 1}
    state = read_state({**STATE, "poems": [poem] * 1000, "chosen": 1})
    assert len(state["poems"]) == CANDIDATES and state["chosen"] == 1
    read = {**POEM, "form": "None", "title": "3", "lines": ["1", "[2]"], "remarks": ["a", "b"]}
    assert state["poems"][0] == read
    assert read_state(STATE) == STATE
    service = Idle()
    ComposeTab(service).rewrite({**STATE, "asked": {**ASKED, "n": 8, "bogus": 1}}, [], False, [])
    asked = {name: value for name, value in ASKED.items() if name not in ("tune", "prompt")}
    assert service.asked == {**asked, "seed": -1, "kept": ()}


def test_a_very_long_poem_is_shown_without_its_prosody(monkeypatch):
    """Checking it takes time that grows with the square of its length."""
    checked = []
    monkeypatch.setattr(shihua.Poet, "check", lambda self, lines: checked.append(lines))
    long = ["春眠不觉晓，" * (2 * LENGTHS["poem"] // 6), "春"]
    state = {**STATE, "poems": [POEM, {**POEM, "lines": long}]}
    _, _, cards, *_ = ComposeTab(Service(DemoConfig())).choose(state, [], False, SimpleNamespace(index=1))
    assert checked == [POEM["lines"]]
    assert cards.count("<p>春眠不觉晓，</p>") == len(long[0]) // 6 and "<p>春</p>" in cards


# ------------------------------------------------------------------------------------------------------- stopping


def run_job(tab: str, service: Service, jobs: Jobs, folder, photo=PHOTO, see=lambda share: None):
    """The job of a tab, asked by ME."""
    photos = photos_of(service, folder)
    if tab == "paint":
        return PaintTab(photos, jobs).paint(photo, ME, see, "great_wave", "", 0, 1, "0", False)
    return PostcardTab(photos, jobs).postcard(photo, "", "", "", ME, see, "great_wave", "", 0, 1, "0", False)


@pytest.mark.parametrize("tab", ["paint", "postcard"])
@pytest.mark.parametrize(
    ("who", "where", "stopped"),
    [("me", "this", True), ("me", "other", False), ("you", "this", False), ("me", "all", True), ("you", "all", False)],
)
def test_stop_ends_the_jobs_of_its_visitor_and_its_tab(tmp_path, tab, who, where, stopped):
    jobs = Jobs()

    def painting(progress):
        assert list(jobs.running.values()) == [("me", tab)]
        request = SimpleNamespace(session_hash=who)
        other = {"paint": "postcard", "postcard": "paint"}[tab]
        jobs.leave(request) if where == "all" else jobs.stopper(tab if where == "this" else other, Problems())(request)
        progress(0.5)

    with pytest.raises(Cancelled) if stopped else nullcontext():
        run_job(tab, Idle(painting), jobs, tmp_path)
    assert jobs.running == {}


def test_a_painting_that_is_stopped_is_not_computed_to_its_end(service, tmp_path):
    jobs, shares = Jobs(), []

    def see(share: float) -> None:
        shares.append(share)
        if share > 0:
            jobs.stopper("paint", Problems())(ME)

    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    with pytest.raises(Cancelled):
        run_job("paint", service, jobs, tmp_path, Photo("photo.png", encode(noise, "PNG")), see)
    assert len(shares) == 2 and shares[0] == 0 < shares[1] < 0.5


def test_the_buttons_stop_their_own_tab(tmp_path, monkeypatch):
    """Each Stop is bound to the tab whose job it cancels."""
    bound = {}
    monkeypatch.setattr(Jobs, "stopper", lambda self, tab, problems: bound.setdefault(tab, lambda: None))
    functions = build_page(Idle(), Uploads(tmp_path, 1000)).fns
    for tab, stop in bound.items():
        [button] = (each.targets for each in functions.values() if each.fn is stop)
        [cancels] = (each.cancels for each in functions.values() if each.targets == button and each.cancels)
        assert [functions[index].fn.__name__ for index in cancels] == [tab]
    assert set(bound) == {"paint", "postcard"}


# ------------------------------------------------------------------------------------------------- before the job


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"seal": "诗 画"}, "a seal has one to four characters"),
        ({"poem": f"《{'题' * 61}》\n白日依山尽，黄河入海流。"}, "61 characters"),
    ],
)
def test_words_that_a_card_cannot_have_are_reported_before_the_job(monkeypatch, words, sentence):
    for owner, name in ((shihua, "read"), (shihua.Painter, "paint"), (shihua.Poet, "write")):
        monkeypatch.setattr(owner, name, lambda *args, **options: pytest.fail("it works"))
    with pytest.raises(UserError, match=sentence):
        Service(DemoConfig()).postcard(PHOTO, **words)


def test_pictures_are_decoded_one_at_a_time(service, monkeypatch):
    """Twice for a classification, the second time for its overlay."""
    from data import photos

    locked, read_image = [], photos.read_image

    def reading(*args, **options):
        locked.append(decoding.locked())
        return read_image(*args, **options)

    monkeypatch.setattr(photos, "read_image", reading)
    answer = service.classify(Photo("photo.png", encode(np.full((48, 64, 3), 128, np.uint8), "PNG")))
    assert locked and all(locked) and answer.overlay.shape == (48, 64, 3)


# ------------------------------------------------------------------------------------- the same as the command line


@pytest.fixture
def fp32(monkeypatch):
    """`auto` measures, and may come out otherwise the second time."""
    monkeypatch.setattr("utils.hardware.choose_precision", lambda *args, **options: ("fp32", "for this test"))


def photo_file(folder, kind: str):
    """(the path of a photograph, the same as it was sent)."""
    path = folder / f"photo.{kind}"
    with Image.open(ROOT / "dataset" / "sample" / "photos" / "fjord_dusk.jpg") as image:
        image = image.convert("RGB").resize((120, 80))
    if kind == "png":  # transparent in places
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path, format={"png": "PNG", "heic": "HEIF"}[kind])
    return path, Photo(path.name, path.read_bytes())


def said(capsys, *words: object) -> list[dict]:
    """What `python main.py WORDS --json` prints."""
    assert main.main([*map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_ci_is_shown_with_its_tune_and_its_sections(service):
    """A button for the tune, two sections apart, tones under the characters; and kept verses are rewritten to it."""
    tab = ComposeTab(service)
    with pytest.raises(UserError, match="tune: choose a tune"):
        tab.write(None, [], False, "", "词", None, "春夜", "", "", "", 0.6, 1)
    state, _, cards, scroll, lock, *_ = tab.write(None, [], False, "", "词", "菩萨蛮", "春夜", "", "", "", 0.6, 1)
    assert "菩萨蛮·春夜" in cards and cards.count('<div class="section">') == 2 and cards.count("△") > 2 * 8
    assert scroll.count('<p class="section">') == 1 and len(lock["choices"]) == 8
    again, before = tab.rewrite(state, [], False, ["0", "1"])[0]["poems"][0], state["poems"][state["chosen"]]
    assert again["form"] == "菩萨蛮" and verses_of(again)[:2] == verses_of(before)[:2]  # with marks of its own
    assert tab.carry(state)[2] == "菩萨蛮·春夜"


def test_a_link_writes_a_poem_with_its_kept_verses_again(service):
    tab = ComposeTab(service)
    state, *_ = tab.write(None, [], False, "", "五绝", None, "春江夜泊", "", "", "", 0.6, 1)
    state, _, _, scroll, *_ = tab.rewrite(state, [], False, ["1"])
    link = dict(parse_qsl(re.search(r'data-link="(.*?)"', html.unescape(scroll))[1]))
    asked = [link["form"], None, link["title"], "", "", "", float(link["temperature"]), int(link["seed"])]
    assert link["lines"].split("/")[1] == verses_of(state["poems"][0])[1]
    again, *_ = tab.write(None, [], False, link["lines"], *asked)
    assert again["poems"][again["chosen"]] == state["poems"][0] and again["kept"] == ["1"]
    with pytest.raises(UserError, match="300 characters"):
        tab.write(None, [], False, "春" * 301, *asked)


def test_a_poem_is_that_of_the_command_line(service, capsys):
    asked = {"form": "五绝", "title": "江行", "keywords": "月,舟", "temperature": 0.8, "seed": 3}
    poems = [poem.as_dict() for poem in service.write(**asked)]
    asked |= {"n": 2, "candidates": 4}
    assert json.loads(json.dumps(poems)) == said(capsys, "generate", *(f"--{k}={v}" for k, v in asked.items()))


def test_a_painting_is_that_of_the_command_line(service, capsys, tmp_path, fp32):
    path, photo = photo_file(tmp_path, "png")
    asked = {"style": "wave:0.6,starry:0.4", "strength": 0.8, "keep_color": True}
    _, painting = service.paint(photo, **asked)
    said(capsys, "stylize", path, f"--out={tmp_path / 'out.bmp'}", *(f"--{k}={v}" for k, v in asked.items()))
    assert np.abs(painting.astype(int) - read_image(tmp_path / "out.bmp").rgb).max() <= 1


def test_a_postcard_is_that_of_the_command_line(service, capsys, tmp_path, fp32):
    path, photo = photo_file(tmp_path, "heic")
    asked = {"title": "登鹳雀楼", "poem": "".join(POEM["lines"]), "style": "wave", "strength": 0.5, "seal": "诗"}
    asked |= {"stroke": "large", "keep_color": True}
    card, _ = service.postcard(photo, **asked)
    said(capsys, "postcard", path, f"--out={tmp_path / 'out.png'}", *(f"--{k}={v}" for k, v in asked.items()))
    other = read_image(tmp_path / "out.png").rgb
    assert card.shape == other.shape and np.abs(card.astype(int) - other).max() <= 1


def test_an_answer_is_that_of_the_command_line_and_stands_in_the_headline(service, capsys, tmp_path):
    paths = [photo_file(tmp_path, "png")[0], tmp_path / "cat.png"]
    Image.fromarray(skimage.data.cat()).save(paths[1])
    labels = []
    for path, line in zip(paths, said(capsys, "classify", *paths), strict=True):
        photo = Photo(path.name, path.read_bytes())
        answer = service.classify(photo, explain=False)
        assert line == {**answer.as_dict(), "path": str(path)}
        [verdict] = ClassifyTab(photos_of(service, tmp_path / "page")).classify(photo)
        assert f"<h2>{both(answer.label)}" in verdict
        ranked = [] if answer.label == "neither" else sorted(answer.probabilities.values(), reverse=True)
        assert re.findall(r"(\d+%)</dd>", verdict) == [f"{probability:.0%}" for probability in ranked]
        labels.append(answer.label)
    assert labels == ["neither", "cat"]


def test_what_is_transparent_or_moves_is_received_as_it_is(service, tmp_path):
    path, photo = photo_file(tmp_path, "png")
    photos = photos_of(service, tmp_path / "page")
    received, note = photos.receive(photo)
    assert received.orig_name == photo.name and not note["visible"]
    with Image.open(path) as image, Image.open(io.BytesIO(base64.b64decode(received.url.partition(",")[2]))) as again:
        assert again.mode == "RGBA" and (np.asarray(again) == np.asarray(image)).all()
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    received, note = photos.receive(Photo("a.gif", (tmp_path / "a.gif").read_bytes()))
    with Image.open(io.BytesIO(base64.b64decode(received.url.partition(",")[2]))) as again:
        assert np.abs(np.asarray(again).astype(int)[0, 0] - (255, 0, 0)).max() <= 2
    assert "a.gif 是动图，只用第一帧" in note["value"] and "only its first frame is used" in note["value"]
