"""The demo's page in a real browser, at the width of a desk or of a phone: each tab is used as a person would.

What a tab then shows is looked at in both widths.
"""

import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

import utils.images  # noqa: F401  Pillow learns HEIC
from tests.servers import ROOT, until
from tests.test_demo_api import Demo

SCREENS = Path(os.environ.get("ARTIFACTS") or ROOT / "tmp" / "screens")
DESK, PHONE = 1280, 390  # pixels


class Visitor:
    """A person with a browser of some width; `close` looks at what the browser has complained of."""

    def __init__(self, browser, demo: Demo, width: int):
        self.demo, self.width, self.faults = demo, width, []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, locale="zh-CN")
        self.page.set_default_timeout(240_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.on("request", self.requested)
        self.page.goto(demo.url)
        self.tab("写诗")

    def requested(self, request) -> None:
        if not request.url.startswith((self.demo.url, "data:", "blob:")):
            self.faults.append(f"leaves the machine: {request.url[:200]}")

    def tab(self, name: str):
        """Goes to a tab; the part of the page that it shows. A click misses it while the page is scrolled."""
        tab = self.page.get_by_role("tab", name=name)
        until(lambda: tab.click() or tab.get_attribute("aria-selected") == "true")
        return self.page.locator("[role=tabpanel]:visible").first

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).locator("visible=true").click()

    def sample(self) -> None:
        """Takes a sample photograph."""
        self.press("用一张样片")
        self.page.locator("[role=tabpanel]:visible img[src^='data:']").first.wait_for()

    def screen(self, name: str) -> None:
        """What is there fits both widths; pictures of it."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        for width in sorted((DESK, PHONE), key=lambda width: width == self.width):  # the visitor's own at the end
            self.page.set_viewport_size({"width": width, "height": 900})
            self.page.wait_for_timeout(300)
            self.page.screenshot(path=SCREENS / f"{name}_{width}.png", full_page=True)
            assert self.page.evaluate("document.documentElement.scrollWidth") <= width

    def close(self) -> None:
        self.page.close()
        assert self.faults == []


@pytest.fixture
def desk(browser, demo):
    visitor = Visitor(browser, demo, DESK)
    yield visitor
    visitor.close()


@pytest.fixture
def phone(browser, demo):
    visitor = Visitor(browser, demo, PHONE)
    yield visitor
    visitor.close()


def test_poems_are_written_chosen_and_rewritten(phone):
    page = phone.page
    page.get_by_label("题目").locator("visible=true").fill("春江夜泊")
    page.get_by_label("五绝").check()
    phone.press("写诗")
    page.locator(".card").nth(3).wait_for()
    assert page.locator(".card .rhyme").count() >= 8  # two rhymes in each of the four, at least
    page.locator(".card").nth(2).click()
    page.locator(".card[data-index='2'][aria-pressed=true]").wait_for()
    verses = page.locator(".scroll p").all_inner_texts()
    assert [len(verse) for verse in verses] == [5] * 4
    page.get_by_label(verses[1]).check()
    phone.screen("compose")
    phone.press("重写其余")
    page.locator(f".card[data-index='0'][aria-pressed=true]:has-text('{verses[1][-1]}')").wait_for()
    until(lambda: page.locator(".scroll p").all_inner_texts() != verses)
    again = page.locator(".scroll p").all_inner_texts()
    assert again[1] == verses[1] and again != verses  # by chance one of the other verses may come again
    phone.press("题到画上")
    assert page.get_by_label("空着：").locator("visible=true").input_value().startswith(again[0])


def test_a_photograph_is_painted(desk, demo):
    desk.tab("绘画")
    page = desk.page
    photo = ROOT / "dataset" / "sample" / "photos" / "alps_noon.jpg"
    page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(photo)
    page.locator("[role=tabpanel]:visible img[src^='data:']").first.wait_for()
    page.get_by_label("神奈川浪").locator("visible=true").check(force=True)
    desk.press("开始画")
    page.locator("#before-after img").nth(1).wait_for()
    desk.screen("paint")
    sizes = page.evaluate(
        "[...document.querySelectorAll('#before-after img')].map(i => [i.naturalWidth, i.naturalHeight])"
    )
    assert set(map(tuple, sizes)) == {Image.open(photo).size}
    assert demo.files() == []
    # each style has a painted sample, and no two are alike
    styles = page.locator("[role=tabpanel]:visible .styles label")
    until(lambda: 'url("data:image/jpeg' in styles.last.evaluate("l => getComputedStyle(l).backgroundImage"))
    pictures = styles.evaluate_all("labels => labels.map(l => getComputedStyle(l).backgroundImage)")
    assert len(set(pictures)) == len(styles.all())


def test_a_postcard_is_made(phone, demo):
    phone.tab("诗画")
    phone.sample()
    page = phone.page
    page.get_by_label("空着：").locator("visible=true").fill("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。")
    page.get_by_role("textbox", name="题目", exact=True).fill("登鹳雀楼")
    phone.press("题画")
    page.locator(".downloads button").nth(2).wait_for()
    phone.screen("postcard")
    files = {}
    for button in page.locator(".downloads [data-kind]").all():
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


def test_a_cat_is_a_cat(phone, tmp_path):
    phone.tab("猫狗")
    page = phone.page
    photo = tmp_path / "cat.png"
    Image.fromarray(skimage.data.cat()).save(photo)
    page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(photo)
    page.locator("[role=tabpanel]:visible img[src^='data:']").first.wait_for()
    phone.press("辨认")
    page.locator("[role=tabpanel]:visible img[src^='data:']").nth(1).wait_for()
    page.locator("[role=tabpanel]:visible").get_by_role("heading", name="猫").wait_for()
    phone.screen("classify")


def test_a_landscape_from_a_phone_is_neither(desk, tmp_path):
    """The photograph is HEIC, which browsers cannot show; the headline is the verdict, not the likeliest class."""
    page = desk.page
    with Image.open(ROOT / "dataset" / "sample" / "photos" / "fjord_dusk.jpg") as image:
        image.save(tmp_path / "IMG_1.HEIC", format="HEIF")
    desk.tab("猫狗")
    page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(tmp_path / "IMG_1.HEIC")
    page.locator("[role=tabpanel]:visible img[src^='data:']").first.wait_for()
    desk.press("辨认")
    page.locator("[role=tabpanel]:visible img[src^='data:']").nth(1).wait_for()
    assert page.locator("[role=tabpanel]:visible h2").inner_text().startswith("都不是")


def test_titles_are_shown_as_text(desk):
    for evil in ("<img src=x onerror=window.hacked=1>"[:30], "${window.hacked=1}{{x}}"):
        desk.page.get_by_label("题目").locator("visible=true").fill(evil)
        desk.page.get_by_label("五绝").check()
        desk.press("写诗")
        desk.page.locator(".scroll h2", has_text=evil).wait_for()
    assert desk.page.evaluate("window.hacked") is None


def test_mistakes_are_one_sentence_under_the_name_of_the_field(phone, tmp_path):
    page = phone.page
    page.get_by_label("藏头").fill("春夏秋冬年")
    page.get_by_label("五绝").check()
    phone.press("写诗")
    page.get_by_text("五绝只有4句，藏不下5个字").first.wait_for()
    phone.tab("绘画")
    phone.press("开始画")
    page.get_by_text("先选一张照片").first.wait_for()
    broken = tmp_path / "photo.jpg"
    broken.write_text("no picture")
    page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(broken)
    page.get_by_text("photo.jpg 不是能读的图片").first.wait_for()
    phone.screen("mistake")


def test_stop_ends_the_job(desk, tmp_path):
    """That the painting is not computed to its end behind the page: test_demo_page.py."""
    page = desk.page
    desk.tab("绘画")
    photo = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1400, 1400, 3), dtype=np.uint8)).save(photo)
    page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(photo)
    page.locator("[role=tabpanel]:visible img[src^='data:']").first.wait_for()
    desk.press("开始画")
    page.locator("#start-paint[aria-busy]").wait_for()
    desk.press("停")
    page.get_by_text("已停止").wait_for()
    page.locator("#start-paint:not([aria-busy])").wait_for()
    assert page.locator("#before-after img").count() == 0
    desk.press("开始画")  # it can be begun anew
    page.locator("#before-after img").nth(1).wait_for()


def test_two_at_once(desk, phone):
    """Two visitors, one paints while the other one writes: each gets what is theirs."""
    desk.tab("绘画")
    desk.sample()
    phone.page.get_by_label("题目").locator("visible=true").fill("雪夜")
    desk.press("开始画")
    phone.press("写诗")
    phone.page.locator(".card .title", has_text="雪夜").first.wait_for()
    desk.page.locator("#before-after img").nth(1).wait_for()
    assert desk.page.locator(".card").count() == 0 and phone.page.locator("#before-after img").count() == 0
