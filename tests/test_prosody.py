"""infer/verse/rhyme.py, prosody.py, check.py: patterns as in a handbook, tones that were found by hand."""

import random
from pathlib import Path

import pytest

from data.verse import FORMS, split_verses
from infer.verse.check import check
from infer.verse.model_file import SHIPPED
from infer.verse.prosody import pattern_name, patterns, template
from infer.verse.readings import Readings, read_readings
from infer.verse.rhyme import RhymeTable
from models.basemodule import read_metadata
from utils.errors import UserError

# Tones by hand, in the readings of the 平水韵; 中: the character has readings of both tones.
KNOWN = {
    "登鹳雀楼": ("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。", "仄仄平平仄平平仄仄平仄平平仄仄中仄仄平平"),
    "静夜思": ("床前明月光，疑是地上霜。举头望明月，低头思故乡。", "平平平仄平平仄仄仄平仄平中平仄平平中仄平"),
    "春望": (
        "国破山河在，城春草木深。感时花溅泪，恨别鸟惊心。烽火连三月，家书抵万金。白头搔更短，浑欲不胜簪。",
        "仄仄平平仄平平仄仄平仄平平仄仄仄仄仄平平平仄平平仄平平仄仄平仄平平中仄平仄仄平平",
    ),
    "登高": (
        "风急天高猿啸哀，渚清沙白鸟飞回。无边落木萧萧下，不尽长江滚滚来。"
        "万里悲秋常作客，百年多病独登台。艰难苦恨繁霜鬓，潦倒新停浊酒杯。",
        "平仄平平平仄平仄平平仄仄平平平平仄仄平平仄仄仄平平仄仄平"
        "仄仄平平平仄仄仄平平仄仄平平平平仄仄平平仄仄仄平平仄仄平",
    ),
    "早发白帝城": (
        "朝辞白帝彩云间，千里江陵一日还。两岸猿声啼不住，轻舟已过万重山。",
        "平平仄仄仄平中平仄平平仄仄平仄仄平平平仄仄平平仄中仄平平",
    ),
    "枫桥夜泊": (
        "月落乌啼霜满天，江枫渔火对愁眠。姑苏城外寒山寺，夜半钟声到客船。",
        "仄仄平平平仄平平平平仄仄平平平平平仄平平仄仄仄平平仄仄平",
    ),
    "渭城曲": (
        "渭城朝雨浥轻尘，客舍青青柳色新。劝君更尽一杯酒，西出阳关无故人。",
        "仄平平仄仄平平仄仄平平仄仄平仄平中仄仄平仄平仄平平平仄平",
    ),
}
RHYMES = {
    "十一尤": "流楼", "七阳": "光霜乡", "十二侵": "深心金簪", "十灰": "哀回来台杯", "十五删": "间还山",
    "一先": "天眠船", "十一真": "尘新人",
}  # fmt: skip


def table_of_poems() -> tuple[dict[str, str], dict[str, str]]:
    """(groups, tones): the rhymes in their groups, all other level characters in 一东, the oblique ones in 一董."""
    groups, tones = {**RHYMES, "一东": "", "一董": ""}, dict.fromkeys([*RHYMES, "一东"], "平") | {"一董": "上"}
    rhyming = "".join(RHYMES.values())
    readings = {}
    for text, by_hand in KNOWN.values():
        readings |= dict(zip("".join(split_verses(text)), by_hand, strict=True))
    for character, tone in readings.items():
        groups["一东"] += character if tone != "仄" and character not in rhyming else ""
        groups["一董"] += character if tone != "平" else ""
    return groups, tones


@pytest.fixture(scope="module")
def table() -> RhymeTable:
    return RhymeTable(*table_of_poems())


def kinds(found) -> list[tuple[str, int, int]]:
    return [(fault.kind, fault.verse, fault.place) for fault in found.faults]


# ------------------------------------------------------------------------------------------------------- the table


def test_a_character_has_the_tones_of_all_its_readings(table):
    assert [table.tones(c) for c in "白山间龘"] == ["仄", "平", "平仄", ""]
    assert table.groups("间") == ["十五删"] and table.groups("白") == [] and table.groups("龘") == []


def test_a_rhyme_group_is_found_by_its_name(table):
    assert {table.find(name) for name in ("先", "一先", "下平一先", "下平声先")} == {"一先"}
    for name, message in (("董", "一董 is no level-tone group"), ("一", "no such"), ("猫", "choose one of")):
        with pytest.raises(UserError, match=message):
            table.find(name)


def test_a_model_without_a_table_has_none():
    assert RhymeTable.of({}) is None
    assert RhymeTable.of({"rhymes": {"一东": "东"}, "rhyme_tones": {"一东": "平"}}).tones("东") == "平"


# ---------------------------------------------------------------------------------------------------- the patterns

HANDBOOK = {  # the first quatrain of each pattern, as handbooks print it; 中 is a place that is free
    (5, "仄起首句不入韵"): "中仄平平仄 平平仄仄平 中平平仄仄 中仄仄平平",
    (5, "仄起首句入韵"): "中仄仄平平 平平仄仄平 中平平仄仄 中仄仄平平",
    (5, "平起首句不入韵"): "中平平仄仄 中仄仄平平 中仄平平仄 平平仄仄平",
    (5, "平起首句入韵"): "平平仄仄平 中仄仄平平 中仄平平仄 平平仄仄平",
    (7, "平起首句不入韵"): "中平中仄平平仄 中仄平平仄仄平 中仄中平平仄仄 中平中仄仄平平",
    (7, "平起首句入韵"): "中平中仄仄平平 中仄平平仄仄平 中仄中平平仄仄 中平中仄仄平平",
    (7, "仄起首句不入韵"): "中仄中平平仄仄 中平中仄仄平平 中平中仄平平仄 中仄平平仄仄平",
    (7, "仄起首句入韵"): "中仄平平仄仄平 中平中仄仄平平 中平中仄平平仄 中仄平平仄仄平",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_patterns_are_the_handbooks(form):
    count, width = FORMS[form]
    found = {p.name: p for p in patterns(count, width)}
    assert set(found) == {name for w, name in HANDBOOK if w == width}
    for name, pattern in found.items():
        again = pattern_name(name[0], False)  # the second quatrain is as one whose first verse does not rhyme
        expected = HANDBOOK[width, name].split() + HANDBOOK[width, again].split() * (count == 8)
        assert list(pattern.verses) == expected
        assert pattern.rhymes == tuple("A" if verse[-1] == "平" else "" for verse in expected)


# --------------------------------------------------------------------------------------------------------- checking


@pytest.mark.parametrize(
    "expected",
    ["登鹳雀楼 五绝 仄起首句不入韵 十一尤", "春望 五律 仄起首句不入韵 十二侵", "登高 七律 仄起首句入韵 十灰",
     "早发白帝城 七绝 平起首句入韵 十五删", "枫桥夜泊 七绝 仄起首句入韵 一先"],
)  # fmt: skip
def test_famous_regular_poems_are_regular(table, expected):
    title, *facts = expected.split(" ")
    found = check(KNOWN[title][0], table)
    assert found.regular and found.faults == [] and "".join(found.tones) == KNOWN[title][1]
    assert [found.form, found.pattern, found.rhyme] == facts


def spelt(*verses: str) -> tuple[list[str], RhymeTable]:
    """A poem with these tones, no character twice, and its table: all level characters rhyme."""
    characters = {"平": [chr(0x4E00 + i) for i in range(60)], "仄": [chr(0x5E00 + i) for i in range(60)]}
    table = RhymeTable({t: "".join(c) for t, c in characters.items()}, {"平": "平", "仄": "去"})
    return ["".join(characters[tone].pop() for tone in verse) for verse in verses], table


REGULAR = ("仄仄平平仄", "平平仄仄平", "平平平仄仄", "仄仄仄平平")


@pytest.mark.parametrize(
    "verse, tones, faults",
    [
        (1, "平仄平平仄", []),
        (1, "仄仄仄平仄", []),  # 一三五不论
        (2, "平平平仄平", []),
        (3, "平平仄平仄", []),  # the variant of 平平平仄仄
        (3, "仄平仄平仄", [("平仄", 3, 4)]),  # which needs a level tone at the beginning
        (2, "仄平仄仄平", [("孤平", 2, 1)]),
        (2, "仄平平仄平", []),  # the third makes up for it
        (4, "仄仄平平平", [("三平尾", 4, 3)]),
        (1, "仄平平平仄", [("平仄", 1, 2)]),
        (1, "仄仄平仄仄", [("平仄", 1, 4)]),
        (4, "仄仄仄平仄", [("平仄", 4, 5)]),
        (2, "仄仄仄平平", [("失对", 2, 2), ("失粘", 3, 2)]),
        (4, "平平仄仄平", [("失对", 4, 2)]),
    ],
)
def test_each_fault_is_found_where_it_is(verse, tones, faults):
    poem, table = spelt(*(tones if v == verse else other for v, other in enumerate(REGULAR, 1)))
    found = check([f"{line}。" for line in poem], table)
    assert kinds(found) == faults
    assert ("三仄尾" in " ".join(found.remarks)) == tones.endswith("仄仄仄")


def test_several_faults_of_seven_characters_and_faults_of_rhyme(table):
    """渭城曲: 失粘, for which it is known."""
    poem, own = spelt("平平仄仄平平仄", "平仄仄平仄仄平", "仄仄平平平仄仄", "平平仄仄平平平")
    assert kinds(check(poem, own)) == [("孤平", 2, 3), ("三平尾", 4, 5)]
    assert kinds(check(KNOWN["渭城曲"][0], table)) == [("失粘", 3, 2)]
    other = KNOWN["登鹳雀楼"][0].replace("楼", "天")
    assert kinds(check(other, table)) == [("出韵", 4, 5)] and check(other, table).rhyme == "十一尤"
    assert kinds(check(KNOWN["登鹳雀楼"][0].replace("楼", "流"), table)) == [("重韵", 4, 5)]


@pytest.mark.parametrize("form", FORMS)
def test_whatever_fills_a_pattern_is_regular_and_one_wrong_tone_is_not(form):
    count, width = FORMS[form]
    chance = random.Random(0)
    for pattern in patterns(count, width):
        for _ in range(5):
            tones = ["".join(chance.choice("平仄") if c == "中" else c for c in verse) for verse in pattern.verses]
            poem, table = spelt(*tones)
            found = check(poem, table)
            assert found.regular and found.pattern == pattern.name, tones
            verse, place = chance.randrange(count), chance.choice(range(1, width, 2))
            wrong = {"平": "仄", "仄": "平"}[tones[verse][place]]
            tones[verse] = tones[verse][:place] + wrong + tones[verse][place + 1 :]
            variant = tones[verse][-5:] == "平平平平仄"
            poem, table = spelt(*tones)
            assert not check(poem, table).regular or variant, tones


def test_unknown_characters_satisfy_either_tone_and_traditional_ones_are_looked_up_as_simplified(table):
    found = check("龘龘龘龘龘，黄河入海流。龘龘龘龘龘，更上一层楼。", table)
    assert found.regular and found.tones[0] == "？？？？？" and "not in the table: 龘" in found.remarks
    found = check("風急天高猿嘯哀，渚清沙白鳥飛回。無邊落木蕭蕭下，不盡長江滾滾來。", table)
    assert found.regular and "？" not in "".join(found.tones)


def test_other_verse_gets_its_tones_only(table):
    for text in ("白日依山尽。", "白日依山，黄河入海流。欲穷千里目，更上一层楼。"):
        found = check(text, table)
        assert found.pattern == found.rhyme == "" and found.faults == found.wants == [] and not found.regular
        assert found.tones[0].startswith("仄仄平平") and "regulated verse has" in found.remarks[0]


def test_what_is_printed_is_aligned_and_complete(table):
    text = str(check(KNOWN["静夜思"][0], table)).splitlines()
    assert text[0] == "五绝 平起首句入韵, rhyme 七阳: 2 faults"
    assert text[1:4] == ["床前明月光，疑是地上霜。", "平平平仄平　平仄仄仄平", "　" * 9 + "＾"]
    assert text[4:7] == ["举头望明月，低头思故乡。", "仄平中平仄　平平中仄平", "　＾"]
    # 上 and 头 have the wrong tone
    assert text[7].startswith("verse 2: 平仄") and text[8].startswith("verse 3: 平仄") and len(text) == 9
    assert str(check(KNOWN["登鹳雀楼"][0], table)).splitlines()[0].endswith(": regular")
    found = check(KNOWN["静夜思"][0], table).as_dict()
    assert found["regular"] is False and found["rhymes"] == [True, True, False, True]
    assert found["faults"][0] | {"text": ""} == {"kind": "平仄", "verse": 2, "place": 4, "text": ""}
    assert found["wants"] == [template(5, *tones, loose=True) for tones in ("平平", "仄平", "仄仄", "平平")]


# --------------------------------------------------------------------------------------------- famous poems, pairs


FAMOUS = Path(__file__).parent / "famous_poems.txt"


@pytest.fixture(scope="module")
def shipped() -> RhymeTable:
    return RhymeTable.of(read_metadata(SHIPPED))


def verdict(found) -> str:
    if found.style.startswith("古"):
        assert found.faults == [] and not found.regular and found.style in found.remarks[0]
        return "old"
    if found.regular:
        return "pair" if found.style else "regular"
    return "; ".join(f"{fault.kind} {fault.verse}.{fault.place}" for fault in found.faults)


def test_famous_poems_get_the_verdicts_of_the_handbooks(shipped):
    lines = [line for line in FAMOUS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    for title, text, expected in (line.split(" | ") for line in lines):
        assert verdict(check(text, shipped)) == expected.strip(), title


@pytest.mark.parametrize(
    "text, remark",
    [
        ("清明时节雨纷纷，路上行人欲断魂。借问酒家何处有，牧童遥指杏花村。", "verse 1: 首句用邻韵 纷"),
        ("横看成岭侧成峰，远近高低各不同。不识庐山真面目，只缘身在此山中。", "verse 1: 首句用邻韵 峰"),
        ("向晚意不适，驱车登古原。夕阳无限好，只是近黄昏。", "verse 1: 对句相救 verse 2"),
        ("千山鸟飞绝，万径人踪灭。孤舟蓑笠翁，独钓寒江雪。", "古绝: rhymes in oblique tone"),
    ],
)
def test_what_is_no_fault_is_named(shipped, text, remark):
    found = check(text, shipped)
    assert found.remarks[0].startswith(remark) and str(found).splitlines()[-1].startswith(found.remarks[-1])


def test_a_character_is_read_as_verse_mostly_does_and_otherwise_in_compounds(shipped):
    for verse, place, tones in (("相思", 0, "平"), ("相思", 1, "平"), ("丞相", 1, "仄"), ("沧浪", 1, "平"),
                                ("风浪", 1, "仄"), ("中", 0, "平"), ("九重", 1, "平"), ("珍重", 1, "仄")):  # fmt: skip
        assert shipped.tones(verse, place) == tones, (verse, place)
    assert shipped.groups("独行") == ["八庚"] and "七阳" in shipped.groups("雁行")


def test_readings_of_two_compounds_are_joined_and_never_all_ruled_out():
    tones = Readings({"乙": frozenset("平")}, {"甲乙": {"乙": frozenset("仄")}, "乙丙": {"乙": frozenset("平")}})
    table = RhymeTable({"一东": "乙丁", "一董": "乙丙"}, {"一东": "平", "一董": "上"}, (tones, Readings({}, {})))
    found = [table.tones("丁乙丁", 1), table.tones("甲乙", 1), table.tones("甲乙丙", 1), table.tones("丙")]
    assert found == ["平", "仄", "平仄", "仄"]
    assert table.groups("丁乙") == ["一东"] and table.groups("甲乙") == []


def test_the_readings_that_are_shipped_are_readings():
    tones, groups = read_readings()
    assert set().union(*tones.alone.values()) == {"平", "仄"} and {"八庚", "七阳"} <= groups.alone["行"]
    for readings in (tones, groups):
        assert all(len(word) == 2 and set(own) <= set(word) for word, own in readings.compounds.items())


def test_a_pair_is_checked_as_a_pair(shipped):
    for text, faults in {
        "青山有幸埋忠骨，白铁无辜铸佞臣。": [],
        "上联：青山有幸埋忠骨\n下联：白铁无辜铸佞臣\n横批：千古": [],
        "白铁无辜铸佞臣，青山有幸埋忠骨。": [("平仄", 1, 7), ("平仄", 2, 7)],
        "青山有幸埋忠骨，青史无辜铸佞臣。": [("重字", 2, 1)],
        "青山有幸埋忠骨，白铁奸佞铸罪臣。": [("平仄", 2, 4)],
        "青山有幸埋忠骨，白铁无辜铸臣。": [("字数", 2, 0)],
    }.items():
        found = check(text, shipped)
        assert found.style == "对联" and kinds(found) == faults and found.regular == (not faults), text
