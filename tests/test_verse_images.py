"""infer/verse/images.py and its table: modern words become images that verse has, and nothing happens in silence."""

from collections import Counter
from pathlib import Path

import pytest

from data.rhyme import restrict
from data.tables import table_lines
from data.vocabulary import Vocabulary
from infer.verse.check import check
from infer.verse.compose import compose
from infer.verse.images import find_theme, images_of, split_modern
from infer.verse.rhyme import RhymeTable
from infer.verse.settings import PoemSettings, split_words
from models.poet import Poet

POET = Path(__file__).parent.parent / "checkpoints" / "poet.safetensors"
MODERN = """咖啡 手机 高铁 飞机 电脑 空调 外卖 奶茶 地铁 加班 毕业 生日 婚礼 圣诞节 情人节 春节 国庆节 妈妈 爸爸
老师 医生 程序员 人工智能 机器人 互联网 微信 游戏 足球 篮球 马拉松 健身房 钢琴 摄影 电影 北京 上海 深圳 纽约 巴黎 火锅
冰淇淋 熊猫 猫咪 玫瑰 向日葵 台风 疫情 高考 股票 区块链 宇航员 电動車 高铁票 我的女朋友 coffee Valentine
basketball iPhone xyz 😀"""
NAMES = ["王小明", "苏轼", "欧阳娜娜", "张䶮", "Alice", "爱因斯坦"]


@pytest.fixture(scope="module")
def poet() -> Poet:
    return Poet.load(POET)


def test_the_table_is_well_formed(poet):
    known = set(poet.vocab)
    lines = table_lines("verse_images.txt")
    assert len(lines) >= 1500
    rows = [(words.split(","), images.split(" ")) for words, images in (line.split(": ") for line in lines)]
    counts = Counter(word for words, _ in rows for word in words)
    assert not [word for word, n in counts.items() if n > 1 or not word or word != word.strip().lower()]
    for words, images in rows:
        assert 2 <= len(images) == len(set(images)) <= 6, words
        assert all(len(image) in (1, 2) and set(image) <= known for image in images), words


def test_words_are_found_whatever_their_case_width_and_number():
    assert images_of("咖啡") == images_of("Coffee") == images_of("ＣＯＦＦＥＥ") == ("香", "苦", "夜", "醒")
    assert images_of("cats") == images_of("cat") and images_of("glasses") != images_of("glass") != ()
    assert images_of("咖啡s") == images_of("明月") == images_of("") == ()


def test_a_phrase_is_split_at_the_longest_words():
    """A single character alone is no modern word, and there is no cat in scatter."""
    phrases = "高铁/高铁|票/高铁站/爱|上|咖啡/爱莲说/春江花月夜/Coffee| at |midnight/scatter/AI|时代"
    for pieces in phrases.split("/"):
        assert split_modern(pieces.replace("|", "")) == pieces.split("|")


@pytest.mark.parametrize(
    "title, read, named",
    [
        ("春江花月夜", "春江花月夜", []),
        ("赠郭给事", "赠郭给事", []),
        ("寄扬州韩绰判官", "寄扬州韩绰判官", []),  # a place that verse calls so
        ("给妈妈的一首诗", "慈母诗", ["妈妈 is written as 慈母, 萱, 春晖, 寸草"]),
        ("关于明月的诗", "明月诗", []),
        ("the cat", "狸奴", ["cat is written as 狸奴, 花阴, 睡, 鼠"]),
        ("Valentine's night", "同心夜", ["Valentine is written as 同心, 相思", "night is written as 夜, 深夜"]),
        ("xyz😀", "", []),
    ],
)
def test_what_a_title_is_read_as(poet, title, read, named):
    theme = find_theme(title, [], Vocabulary(poet.vocab))
    changed = [f"the title is read as {read}" if read else "nothing of the title is read"] if read != title else []
    unknown = [] if read else [f"{word} is not known and was left out" for word in ("xyz", "😀")]
    assert (theme.title, theme.words, theme.remarks) == (read, [], [*named, *changed, *unknown])


def test_keywords_are_words_of_verse_or_become_images(poet):
    vocabulary = Vocabulary(poet.vocab)
    theme = find_theme("", ["长城", "成都", "高铁票", "咖啡", "咖啡x"], vocabulary)
    assert theme.words == ["长城", "成都", "票"] and theme.images == ["锦城", "千里", "飞", "香", "苦"]
    assert theme.remarks == [
        "成都 is written as 成都, 锦城",
        "高铁票 is written as 票, 千里, 飞",
        "咖啡 is written as 香, 苦",
        "咖啡x is written as 香, 苦",
        "x is not known and was left out",
    ]
    nothing = find_theme("给", ["～～"], vocabulary).remarks
    assert nothing == ["nothing of the title is read", "～～ is not known and was left out"]
    assert split_words("ice cream, 梅 雪，cats") == ["ice cream", "梅", "雪", "cats"]


def test_poems_about_modern_words_and_names_are_regular_and_nothing_is_silent(poet):
    words = MODERN.split() + NAMES
    images = (character for word in words for image in images_of(word) for character in image)
    known = [*dict.fromkeys([*poet.vocab[:1500], *images])]
    small = Poet(known, embed=4, hidden=4, layers=1, attention=0).eval()  # the rules hold for any network
    small.metadata = restrict(poet.metadata, known)
    table = RhymeTable.of(small.metadata)
    assert len(words) >= 60
    for number, word in enumerate(words):
        theme = find_theme("", [word], Vocabulary(known))
        assert theme.words == [word] or theme.remarks != [], word
        assert set("".join(theme.words + theme.images)) <= set(known)
        if number % 8 == 0:
            [poem] = compose(small, PoemSettings(form="五绝", keywords=[word], candidates=1), seed=1)
            assert check(poem.lines, table).regular, (word, poem.lines)
            assert poem.remarks[: len(theme.remarks)] == theme.remarks, word
