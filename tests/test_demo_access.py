"""The page for everybody: in the visitor's language, by keyboard, by day and by night, shared, saved and kept.

axe-core looks at every tab, with what a job makes there, in either language.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.servers import ROOT, until

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


@pytest.fixture
def visit(browser, demo):
    """Opens the page as a new visitor: visit(locale=…, color_scheme=…)."""
    contexts = []

    def open_page(path: str = "", **options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 390, "height": 844}, "locale": "zh-CN", **options})
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(240_000)
        page.goto(demo.url + path)
        page.locator("#start-compose").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


def panel(page):
    return page.locator("[role=tabpanel]:visible").first


def write(page, **fields) -> None:
    """Fills the fields, writes, and waits for the poems."""
    for label, text in fields.items():
        page.get_by_label(label).locator("visible=true").fill(text)
    page.get_by_label("五绝").check()
    page.locator("#start-compose").click()
    page.locator(".card").nth(3).wait_for()


def text_of(page) -> str:
    """The poem on show, as it is copied."""
    return page.locator(".scroll").get_attribute("data-text")


def choose_photo(page) -> None:
    panel(page).locator("input[type=file]").first.set_input_files(PHOTO)
    panel(page).locator("img[src^='data:']").first.wait_for()


@pytest.mark.parametrize(("locale", "scheme"), [("zh-TW", "dark"), ("de", "light")])  # read in Chinese, in English
def test_axe_finds_nothing_serious_on_any_tab(visit, locale, scheme):
    page = visit(locale=locale, color_scheme=scheme)

    def check() -> None:
        page.wait_for_timeout(500)  # what fades in is not yet of its colour
        found = Axe().run(page).response["violations"]
        found = [fault for fault in found if fault["impact"] in ("serious", "critical")]
        assert [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found] == []

    tabs = page.locator("[role=tab]:visible")
    check()
    write(page)
    check()
    tabs.nth(1).click()
    page.locator("#start-paint").click()
    page.locator(".problem:visible").wait_for()
    choose_photo(page)
    page.locator("#start-paint").click()
    page.locator("#before-after").wait_for()
    check()
    for tab, button in ((2, "#start-postcard"), (3, "#start-classify")):
        tabs.nth(tab).click()
        page.locator(button).click()
        page.locator(f"{button}:not([aria-busy])").wait_for()
        panel(page).locator(".made, .answer").wait_for()
        check()
    tabs.nth(4).click()
    check()
    assert page.locator("h1").count() == 1


def test_the_page_speaks_the_browsers_language_or_the_one_chosen(visit):
    page = visit(locale="en-GB")
    assert page.locator("html").get_attribute("lang").startswith("en")
    for tab in range(4):
        page.locator("[role=tab]:visible").nth(tab).click()
        page.wait_for_timeout(300)
        assert not [text for text in page.evaluate(VISIBLE) if any("\u4e00" <= c <= "\u9fff" for c in text)
                    and text not in FORMS]  # fmt: skip
    page.get_by_role("button", name="中文").click()
    page.locator("#start-compose", has_text="写诗").wait_for()
    page.reload()
    page.locator("#start-compose", has_text="写诗").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-CN"


def test_a_mistake_stands_by_its_field_and_what_was_made_stays(visit):
    page = visit()
    write(page, 题目="春江夜泊")
    before = text_of(page)
    page.get_by_label("藏头").locator("visible=true").fill("春夏秋冬年")
    page.locator("#start-compose").click()
    problem = page.locator(".problem:visible")
    problem.wait_for()
    assert problem.inner_text() == "五绝只有4句，藏不下5个字；体裁选“自动”，或减少几个字"
    field = page.get_by_label("藏头").locator("visible=true").element_handle()
    below = "(line, field) => line.getBoundingClientRect().top - field.getBoundingClientRect().bottom"
    assert 0 <= problem.evaluate(below, field) < 60 and text_of(page) == before  # the page may still scroll
    page.get_by_label("藏头").locator("visible=true").fill("")
    for verse in page.locator(".scroll p").all_inner_texts():
        page.get_by_label(verse).check()
    page.locator("#start-again").click()
    page.locator(".problem", has_text="没有可重写的").wait_for()
    assert text_of(page) == before


def test_a_poem_is_kept_shown_again_and_shared(visit):
    page = visit()
    write(page, 题目="春江夜泊")
    first, link = text_of(page), page.locator(".scroll").get_attribute("data-link")
    assert first.startswith("《春江夜泊》\n") and first.endswith("。")
    write(page, 题目="雪夜")
    until(lambda: text_of(page).startswith("《雪夜》"))
    page.reload()
    page.locator(".card").nth(3).wait_for()
    until(lambda: page.get_by_label("题目").locator("visible=true").input_value() == "雪夜")
    assert text_of(page).startswith("《雪夜》") and page.get_by_label("五绝").is_checked()
    page.get_by_role("button", name="写过的诗").click()
    page.locator(".past button", has_text="春江夜泊").click()
    until(lambda: text_of(page) == first)
    other = visit(f"#{link}", locale="en-GB")
    other.locator(".scroll").wait_for()
    assert text_of(other) == first and "#" not in other.url
    assert other.get_by_label("Title").locator("visible=true").input_value() == "春江夜泊"
    verse = page.locator(".scroll p").nth(1).inner_text()
    page.get_by_label(verse).check()
    page.locator("#start-again").click()
    until(lambda: verse in text_of(page) != first)
    third = visit(f"#{page.locator('.scroll').get_attribute('data-link')}")
    third.locator(".scroll").wait_for()
    assert text_of(third) == text_of(page)
    third.locator("#start-compose").click()  # the verse was that poem's alone
    until(lambda: verse not in text_of(third))


def test_the_poem_on_show_is_saved_and_shown_in_other_ways(visit):
    page = visit()
    page.add_init_script("delete window.speechSynthesis")
    page.reload()
    write(page, 题目="云 ABC")
    with page.expect_download() as download:
        page.locator("#use-save").click()
    assert download.value.suggested_filename == "云 ABC.txt"
    assert open(download.value.path(), encoding="utf-8").read() == text_of(page) + "\n"
    assert not page.locator("#use-speak").is_visible()  # there is no voice
    tones, pinyin = page.locator(".card i").first, page.locator(".card .pinyin").first
    assert tones.get_attribute("aria-hidden") == "true" and not pinyin.is_visible()
    page.get_by_label("平仄").uncheck()
    page.get_by_label("拼音").check()
    tones.wait_for(state="hidden")
    pinyin.wait_for()
    page.get_by_label("繁体字").check()
    page.locator(".scroll h2", has_text="雲").wait_for()
    assert "雲" in text_of(page)
    latin = page.locator(".scroll .latin").first.evaluate("word => getComputedStyle(word).writingMode")
    assert latin == "horizontal-tb"
    assert page.locator(".scroll").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_a_painting_is_uncovered_by_keys_saved_by_name_and_made_a_postcard(visit):
    page = visit()
    page.get_by_role("tab", name="绘画").click()
    choose_photo(page)
    page.get_by_label("神奈川浪").locator("visible=true").check(force=True)
    page.locator("#start-paint").click()
    assert page.locator("#start-paint").get_attribute("aria-busy") == "true"
    page.locator("#before-after input").focus()
    page.keyboard.press("End")
    assert page.locator("#before-after").evaluate("box => box.style.getPropertyValue('--at')") == "100%"
    page.get_by_role("button", name="原大").click()
    assert page.locator("#before-after img").first.evaluate("i => i.clientWidth == i.naturalWidth")
    with page.expect_download() as download:
        panel(page).locator(".downloads button").first.click()
    assert download.value.suggested_filename == "神奈川浪-alps_noon.jpg"
    page.get_by_role("button", name="做成诗画").click()
    page.locator("#postcard-result .made img").wait_for()
    assert page.get_by_label("空着：").locator("visible=true").input_value()
    assert panel(page).locator(".styles label.selected").inner_text() == "神奈川浪"
