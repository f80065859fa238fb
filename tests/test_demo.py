"""The demo's page in a real browser, used as a person would: at a desk or on a phone, by day or by night, in either
language. What a tab then shows is looked at in both widths, and by axe-core.
"""

import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

import utils.images  # noqa: F401  Pillow learns HEIC
from tests.servers import ROOT, until
from tests.test_board import make_run
from tests.test_demo_api import Demo
from tests.test_demo_training import record_run

SCREENS = os.environ.get("ARTIFACTS")  # folder for pictures of what the tabs show
DESK, PHONE = 1280, 390  # pixels
COMPOSE, PAINT, POSTCARD, CLASSIFY, TRAINING = range(5)  # tabs
PHOTO = ROOT / "dataset" / "sample" / "photos" / "alps_noon.jpg"
# What is shown in neither language alone: verse, names of forms and tunes, the switch.
VISIBLE = """() => {
  const texts = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    const isText = at.checkVisibility() && !at.closest('script, style, header, .examples');
    if (isText) texts.push(walk.currentNode.data.trim());
  }
  return texts.filter(text => text);
}"""
FORMS = {"五绝 4 × 5", "七绝 4 × 7", "五律 8 × 5", "七律 8 × 7", "对联 couplet", "词 to a tune"}


class Visitor:
    """A person with a browser, new to the page; `close` looks at what the browser has complained of."""

    def __init__(self, browser, demo: Demo, width: int, path: str = "", script: str = "", **options):
        self.demo, self.width, self.faults = demo, width, []
        options = {"locale": "zh-CN", "viewport": {"width": width, "height": 900}, **options}
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(240_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.on("request", self.requested)
        self.page.add_init_script(script)
        self.page.goto(demo.url + path)
        self.page.locator("#start-compose").wait_for()

    def requested(self, request) -> None:
        if not request.url.startswith((self.demo.url, "data:", "blob:")):
            self.faults.append(f"leaves the machine: {request.url[:200]}")

    @property
    def panel(self):
        """The part of the page that the chosen tab shows."""
        return self.page.locator("[role=tabpanel]:visible").first

    def tab(self, number: int) -> None:
        """Goes to a tab. A click misses it while the page is scrolled."""
        tab = self.page.locator("[role=tab]:visible").nth(number)
        until(lambda: tab.click() or tab.get_attribute("aria-selected") == "true")

    def field(self, label: str):
        return self.page.get_by_label(label).locator("visible=true")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).locator("visible=true").click()

    def write(self, title: str = "") -> None:
        """Writes quatrains, and waits for them."""
        if title:
            self.field("题目").fill(title)
        self.page.get_by_label("五绝").check()
        self.page.locator("#start-compose").click()
        until(lambda: title in self.text)
        self.page.locator(".card").nth(3).wait_for()

    @property
    def text(self) -> str:
        """The poem on show, as it is copied."""
        return self.page.locator(".scroll").get_attribute("data-text")

    def choose(self, photo: Path) -> None:
        self.panel.locator("input[type=file]").first.set_input_files(photo)
        self.panel.locator("img[src^='data:']").first.wait_for()

    def screen(self, name: str) -> None:
        """What is there fits both widths."""
        for width in sorted((DESK, PHONE), key=lambda width: width == self.width):  # the visitor's own at the end
            self.page.set_viewport_size({"width": width, "height": 900})
            if SCREENS:
                self.page.screenshot(path=f"{SCREENS}/{name}_{width}.png", full_page=True)
            until(lambda width=width: self.page.evaluate("document.documentElement.scrollWidth") <= width, 5)

    def close(self) -> None:
        self.page.close()
        assert self.faults == []


@pytest.fixture
def visit(browser, demo):
    """Opens the page as a new visitor: visit(width, path, script, locale=…, color_scheme=…)."""
    visitors = []
    yield lambda *where, **options: visitors.append(Visitor(browser, demo, *where, **options)) or visitors[-1]
    for visitor in visitors:
        visitor.close()


def test_poems_are_written_chosen_and_rewritten(visit):
    """A mistake on the way stands by its field, and what was made stays."""
    phone = visit(PHONE)
    page, problem = phone.page, phone.page.locator(".problem:visible")
    phone.write("春江夜泊")
    assert page.locator(".card .rhyme").count() >= 8  # two rhymes in each of the four, at least
    page.locator(".card").nth(2).click()
    page.locator(".card[data-index='2'][aria-pressed=true]").wait_for()
    before, verses = phone.text, page.locator(".scroll p").all_inner_texts()
    assert [len(verse) for verse in verses] == [5] * 4
    phone.field("藏头").fill("春夏秋冬年")
    page.locator("#start-compose").click()
    problem.wait_for()
    assert problem.inner_text() == "五绝只有4句，藏不下5个字；体裁选“自动”，或减少几个字"
    field = phone.field("藏头").element_handle()
    below = "(line, field) => line.getBoundingClientRect().top - field.getBoundingClientRect().bottom"
    assert 0 <= problem.evaluate(below, field) < 60  # the page may still scroll
    for verse in verses:
        page.get_by_label(verse).check()
    page.locator("#start-again").click()
    page.locator(".problem", has_text="没有可重写的").wait_for()
    assert phone.text == before
    for verse in verses[:1] + verses[2:]:
        page.get_by_label(verse).uncheck()
    phone.screen("compose")
    page.locator("#start-again").click()
    page.locator(f".card[data-index='0'][aria-pressed=true]:has-text('{verses[1][-1]}')").wait_for()
    until(lambda: page.locator(".scroll p").all_inner_texts() != verses)
    again = page.locator(".scroll p").all_inner_texts()
    assert again[1] == verses[1] and again != verses  # by chance one of the other verses may come again
    phone.press("题到画上")
    assert phone.field("空着：").input_value().startswith(again[0])


def test_a_poem_is_kept_shown_again_and_shared(visit):
    one = visit(PHONE)
    page = one.page
    one.write("春江夜泊")
    first = one.text
    assert first.startswith("《春江夜泊》\n") and first.endswith("。")
    verses = page.locator(".scroll p").all_inner_texts()
    page.get_by_label(verses[1]).check()
    page.locator("#start-again").click()
    until(lambda: verses[1] in one.text != first)
    second, link = one.text, page.locator(".scroll").get_attribute("data-link")
    page.reload()
    page.locator(".card").nth(3).wait_for()
    until(lambda: one.field("题目").input_value() == "春江夜泊")
    assert one.text == second and page.get_by_label("五绝").is_checked()
    one.press("写过的诗")
    page.locator(".past button").nth(1).click()
    until(lambda: one.text == first)
    other = visit(DESK, f"#{link}", locale="en-GB")
    other.page.locator(".scroll").wait_for()
    assert other.text == second and "#" not in other.page.url
    assert other.field("Title").input_value() == "春江夜泊"
    other.page.locator("#start-compose").click()  # the verse was that poem's alone
    until(lambda: verses[1] not in other.text)


def test_two_at_once(visit, tmp_path):
    """One visitor shows a cat while the other one writes a poem, saves it and looks at it in other ways."""
    desk, phone = visit(DESK), visit(PHONE, script="delete window.speechSynthesis")
    desk.tab(CLASSIFY)
    Image.fromarray(skimage.data.cat()).save(tmp_path / "cat.png")
    desk.choose(tmp_path / "cat.png")
    desk.page.locator("#start-classify").click()
    page, title = phone.page, "<b>${x}</b>云 A"  # shown as text
    phone.write(title)
    page.locator(".scroll h2", has_text=title).wait_for()
    page.locator(".card .title", has_text=title).first.wait_for()
    desk.panel.get_by_role("heading", name="猫").wait_for()
    desk.panel.locator("img[src^='data:']").nth(1).wait_for()
    desk.screen("classify")
    assert desk.page.locator(".card").count() == 0 and page.locator(".answer").count() == 0
    with page.expect_download() as download:
        page.locator("#use-save").click()
    assert download.value.suggested_filename.endswith("云 A.txt")
    assert Path(download.value.path()).read_text(encoding="utf-8") == phone.text + "\n"
    assert not page.locator("#use-speak").is_visible()  # there is no voice
    tones, pinyin = page.locator(".card i").first, page.locator(".card .pinyin").first
    assert tones.get_attribute("aria-hidden") == "true" and not pinyin.is_visible()
    page.get_by_label("平仄").uncheck()
    page.get_by_label("拼音").check()
    tones.wait_for(state="hidden")
    pinyin.wait_for()
    page.get_by_label("繁体字").check()
    page.locator(".scroll h2", has_text="雲").wait_for()
    assert "雲" in phone.text
    latin = page.locator(".scroll .latin").first.evaluate("word => getComputedStyle(word).writingMode")
    assert latin == "horizontal-tb"
    assert page.locator(".scroll").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_a_photograph_is_painted_and_becomes_a_postcard(visit, demo):
    desk = visit(DESK)
    page = desk.page
    desk.tab(PAINT)
    desk.choose(PHOTO)
    desk.field("神奈川浪").check(force=True)
    page.locator("#start-paint").click()
    assert page.locator("#start-paint").get_attribute("aria-busy") == "true"
    page.locator("#before-after img").nth(1).wait_for()
    desk.screen("paint")
    sizes = page.locator("#before-after img").evaluate_all("all => all.map(i => [i.naturalWidth, i.naturalHeight])")
    assert set(map(tuple, sizes)) == {Image.open(PHOTO).size}
    assert demo.files() == []
    # each style has a painted sample, and no two are alike
    styles = desk.panel.locator(".styles label")
    until(lambda: 'url("data:image/jpeg' in styles.last.evaluate("l => getComputedStyle(l).backgroundImage"))
    pictures = styles.evaluate_all("labels => labels.map(l => getComputedStyle(l).backgroundImage)")
    assert len(set(pictures)) == len(styles.all())
    # the painting is uncovered by keys, shown in its own pixels, saved by name
    page.locator("#before-after input").focus()
    page.keyboard.press("End")
    assert page.locator("#before-after").evaluate("box => box.style.getPropertyValue('--at')") == "100%"
    desk.press("原大")
    assert page.locator("#before-after img").first.evaluate("i => i.clientWidth == i.naturalWidth")
    with page.expect_download() as download:
        desk.panel.locator(".downloads button").first.click()
    assert download.value.suggested_filename == "神奈川浪-alps_noon.jpg"
    desk.press("做成诗画")
    page.locator("#postcard-result .made img").wait_for()
    assert desk.field("空着：").input_value()
    assert desk.panel.locator(".styles label.selected").inner_text() == "神奈川浪"
    # another postcard, with a given poem
    desk.field("空着：").fill("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。")
    page.get_by_role("textbox", name="题目", exact=True).fill("登鹳雀楼")
    page.locator("#start-postcard").click()
    page.locator("#postcard-result .made[data-zh='登鹳雀楼']").wait_for()
    desk.screen("postcard")
    files = {}
    for button in desk.panel.locator(".downloads [data-kind]").all():
        with page.expect_download() as download:
            button.click()
        name, kind = download.value.suggested_filename.split(".")
        assert name == "登鹳雀楼"
        files[kind] = Path(download.value.path()).read_bytes()
    with Image.open(BytesIO(files["jpg"])) as card, Image.open(BytesIO(files["png"])) as exact:
        assert card.format == "JPEG" and min(card.size) > 200
        assert np.abs(np.asarray(card).astype(int) - np.asarray(exact)[..., :3]).max() <= 2  # two decoders of JPEG
    head, found, tail = files["pdf"].partition(files["jpg"])
    table = int(re.search(rb"startxref\s+(\d+)", tail)[1])
    assert found and head.startswith(b"%PDF-") and files["pdf"][table:].startswith(b"xref")
    assert demo.files() == []


def test_mistakes_are_one_sentence(visit, tmp_path):
    phone = visit(PHONE)
    page, broken = phone.page, tmp_path / "photo.jpg"
    phone.tab(PAINT)
    page.locator("#start-paint").click()
    page.get_by_text("先选一张照片").first.wait_for()
    broken.write_text("no picture")
    phone.panel.locator("input[type=file]").first.set_input_files(broken)
    page.get_by_text("photo.jpg 不是能读的图片").first.wait_for()
    phone.screen("mistake")


def test_stop_ends_the_job(visit, tmp_path):
    """That the painting is not computed to its end behind the page: test_demo_page.py."""
    desk, photo = visit(DESK), tmp_path / "large.png"
    page = desk.page
    desk.tab(PAINT)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (2400, 2400, 3), dtype=np.uint8)).save(photo)
    desk.choose(photo)
    desk.press("开始画")
    page.locator("#start-paint[aria-busy]").wait_for()
    desk.press("停")
    page.get_by_text("已停止").wait_for()
    page.locator("#start-paint:not([aria-busy])").wait_for()
    assert page.locator("#before-after img").count() == 0
    shown = desk.panel.locator("img[src^='data:']").first
    noise = shown.get_attribute("src")
    desk.press("用一张样片")
    until(lambda: shown.get_attribute("src") != noise)
    desk.press("开始画")  # it can be begun anew
    page.locator("#before-after img").nth(1).wait_for()


def serious(page) -> list[str]:
    """What axe-core finds that is serious."""
    page.wait_for_timeout(500)  # what fades in is not yet of its colour
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    found = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found]


def test_axe_finds_nothing_serious_in_what_is_made(visit, tmp_path):
    """By night and by day, and in both languages where the page has both."""
    visitor = visit(PHONE, locale="zh-TW")
    page = visitor.page

    def check() -> None:
        for scheme, language in (("dark", "zh-CN"), ("light", "en")):
            page.emulate_media(color_scheme=scheme)
            page.evaluate(f"document.documentElement.lang = '{language}'")
            assert serious(page) == []

    visitor.write()
    check()
    with Image.open(PHOTO) as image:
        image.save(tmp_path / "IMG_1.HEIC", format="HEIF")  # as phones do; browsers cannot show it
    visitor.tab(PAINT)
    visitor.choose(tmp_path / "IMG_1.HEIC")
    for tab, name in ((PAINT, "paint"), (POSTCARD, "postcard"), (CLASSIFY, "classify")):
        visitor.tab(tab)
        page.locator(f"#start-{name}").click()
        visitor.panel.locator(".made, .answer").wait_for()
        page.locator(f"#start-{name}:not([aria-busy])").wait_for()
        check()
    assert visitor.panel.locator("h2").inner_text().startswith("neither")  # the verdict, not the likeliest class


def test_the_page_speaks_english_elsewhere_until_another_language_is_chosen(visit):
    visitor = visit(PHONE, locale="de")
    page = visitor.page
    assert page.locator("html").get_attribute("lang").startswith("en") and page.locator("h1").count() == 1
    for tab in range(5):
        visitor.tab(tab)
        visitor.panel.locator("button, code").locator("visible=true").first.wait_for()
        if tab == PAINT:
            page.locator("#start-paint").click()
            page.locator(".problem:visible").wait_for()
        chinese = [text for text in page.evaluate(VISIBLE) if re.search("[\u4e00-\u9fff]", text)]
        assert set(chinese) <= FORMS and serious(page) == []
    visitor.press("中文")
    page.locator("#start-compose", has_text="写诗").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-CN"


def test_a_run_is_watched_while_it_goes_on(visit, demo):
    desk = visit(DESK)
    page = desk.page
    desk.tab(TRAINING)
    page.get_by_text("python main.py train").locator("visible=true").wait_for()
    desk.screen("training_none")
    make_run(demo.runs / "poet_one")  # it comes by itself
    page.get_by_text("夜来风雨声，花落知多少。").first.wait_for()
    desk.panel.locator(".vega-embed").nth(3).wait_for()
    assert page.get_by_text("onerror=").first.is_visible()  # as text
    with open(demo.runs / "poet_one" / "log.jsonl", "a", encoding="utf-8") as log:
        log.writelines(f'{{"kind": "batch", "step": {n}, "epoch": 3, "loss": 3.5}}\n' for n in range(1501, 2501))
        log.write('{"kind": "text", "step": 1501, "epoch": 3, "name": "poems", "text": "新写的诗"}\n')
    page.get_by_text("新写的诗").first.wait_for()
    desk.panel.locator(".vega-embed text", has_text="2,500").first.wait_for()  # the longer axis
    record_run(demo.runs / "two", 1)
    page.get_by_role("button", name="two", exact=True).click()
    page.get_by_text("继续训练", exact=True).wait_for()
    command = desk.panel.locator("textarea").first
    until(lambda: command.input_value() == f"python main.py train --resume={demo.runs / 'two'}")
    page.get_by_text("第1首 <b>").first.wait_for()
    desk.screen("training")
    assert page.evaluate("window.hacked") is None
