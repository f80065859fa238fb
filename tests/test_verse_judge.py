"""benchmarks/verse_judge.py, the judge of the poet's verse: poems worked out by hand, each fault made on purpose."""

import itertools
import math
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from benchmarks.verse import bits, main
from benchmarks.verse_judge import (
    FORMS,
    RhymeTable,
    ThemeJudge,
    Verdict,
    bigrams,
    choices,
    distinct_bigrams,
    is_informative,
    judge,
    rhymes,
    title_core,
    tone_fault,
    verses_of,
)
from data.poem_files import read_poems
from data.verse import Poem
from data.vocabulary import SPECIALS
from infer.verse.check import check
from infer.verse.prosody import patterns
from models.poet import Poet
from tests.test_prosody import KNOWN, spelt, table_of_poems
from tests.training import TANG, tang_test_split

CLIMBING = ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"]


def by_hand() -> RhymeTable:
    groups, tones = table_of_poems()
    chars: dict[str, list[list[str]]] = {}
    for group, characters in groups.items():
        for c in characters:
            chars.setdefault(c, []).append(["平" if tones[group] == "平" else "仄", group])
    return RhymeTable({"groups": tones, "chars": chars})


# 平 and 仄 stand for themselves: a verse is its own row of tones. 中 may be either, 东 is level in another group.
PLAIN = RhymeTable(
    {
        "groups": {"甲": "平", "乙": "平", "丙": "仄"},
        "chars": {"平": [["平", "甲"]], "仄": [["仄", "丙"]], "中": [["平", "甲"], ["仄", "丙"]], "东": [["平", "乙"]]},
    }
)

FLIP = {"平": "仄", "仄": "平"}


def changed(verses: list[str], number: int, verse: str) -> list[str]:
    return [*verses[: number - 1], verse, *verses[number:]]


# ----------------------------------------------------------------------------------------------------------- the rules


def test_poems_worked_out_by_hand():
    table = by_hand()
    titles = (("登鹳雀楼", "五绝", ""), ("早发白帝城", "七绝", ""), ("静夜思", "五绝", "平仄"), ("登高", "七律", ""))
    for title, form, tones in titles:
        verdict = judge([KNOWN[title][0]], form, table, set())
        assert verdict.form and verdict.rhyme and verdict.first_rhyme and verdict.any_rhyme, title
        assert verdict.tones == tones, title
        assert not verdict.unknown and not verdict.copied and not verdict.same_rhyme, title
    assert judge([KNOWN["早发白帝城"][0]], "五绝", table, set()).form is False


FIRST = "仄仄平平仄 平平仄仄平 平平平仄仄 仄仄仄平平".split()


@pytest.mark.parametrize("form", FORMS)
def test_it_finds_what_the_projects_own_check_finds(form):
    """Two programs, from the same rules: of regular poems of which some tones are changed."""
    random = np.random.default_rng(0)
    ways, found = patterns(*FORMS[form]), Counter()
    for _ in range(100):
        verses = [[random.choice(["平", "仄"]) if c == "中" else c for c in v] for v in random.choice(ways).verses]
        for _ in range(random.integers(4)):
            v, i = random.integers(len(verses)), random.integers(len(verses[0]))
            verses[v][i] = FLIP[verses[v][i]]
        tones = ["".join(verse) for verse in verses]
        fault = tone_fault(tones, form, PLAIN)
        poem, table = spelt(*tones)
        checked = check(poem, table)
        if checked.style or "对句相救" in " ".join(checked.remarks):
            continue  # which the judge does not know
        kinds = {found.kind for found in checked.faults}
        assert kinds == {fault} if fault in ("孤平", "三平尾") else bool(kinds) == bool(fault), tones
        found[fault] += 1
    assert min(found[kind] for kind in ("", "平仄", "孤平", "三平尾")) > 0


def test_faults_of_couplets_and_of_characters_with_both_tones():
    assert tone_fault(FIRST[:2] * 2, "五绝", PLAIN) == "失粘"
    assert tone_fault(FIRST + FIRST, "五律", PLAIN) == ""
    assert tone_fault(FIRST + FIRST[2:] + FIRST[:2], "五律", PLAIN) == "失粘"
    two = changed(changed(FIRST, 2, "仄平仄仄平"), 4, "仄仄平平平")
    assert tone_fault(two, "五绝", PLAIN) == "平仄", "no single rule"
    for v, i, c in itertools.product(range(4), range(5), "中口"):  # 口 is not in the table
        assert tone_fault(changed(FIRST, v + 1, FIRST[v][:i] + c + FIRST[v][i + 1 :]), "五绝", PLAIN) == ""
    # 孤平 whatever 中 is: the readings of one verse are tried together
    assert tone_fault(changed(FIRST, 2, "仄平仄仄中"), "五绝", PLAIN) == "孤平"
    assert tone_fault(changed(FIRST, 2, "中平仄仄平"), "五绝", PLAIN) == ""


def test_rhyme():
    ends = [*FIRST[:3], "仄仄仄平东"]
    assert rhymes(FIRST, PLAIN) and not rhymes(ends, PLAIN)
    oblique = ["平平平仄平", "仄仄仄平仄", "平平平仄平", "仄仄仄平仄"]
    assert not rhymes(oblique, PLAIN) and rhymes(oblique, PLAIN, level=False)
    assert rhymes(changed(FIRST, 2, "平平仄仄中"), PLAIN)  # one of its readings rhymes
    assert not rhymes(changed(FIRST, 2, "平平仄仄口"), PLAIN)  # not in the table
    for end, first in (("平", True), ("东", False), ("仄", True), ("中", True)):
        verses = changed(FIRST, 1, "仄仄仄平" + end)
        assert rhymes(verses, PLAIN) and rhymes(verses, PLAIN, first=True) == first, end


def test_repetition_copies_and_what_the_table_lacks():
    table = by_hand()
    good = judge(CLIMBING, "五绝", table, {"白日依山", "黄河入海流欲"})
    assert not (good.thrice or good.twin or good.copied or good.same_rhyme or good.unknown) and good.variety == 1.0
    assert judge(CLIMBING, "五绝", table, {"更上一层楼"}).copied

    def with_(old: str, new: str) -> Verdict:
        return judge([CLIMBING[0].replace(old, new), CLIMBING[1]], "五绝", table, set())

    twice, pair = with_("依", "千"), with_("山尽", "千里")
    assert not twice.thrice and not twice.twin and twice.variety == 19 / 20
    assert with_("日依", "千千").thrice and pair.twin and not pair.thrice and not with_("黄", "尽").twin
    across = judge([CLIMBING[0], CLIMBING[1].replace("欲穷", "尽黄")], "五绝", table, set())
    assert not across.twin  # 尽黄 also ends a verse and starts the next one: no neighbours
    assert with_("流", "楼").same_rhyme and with_("依", "口").unknown


@pytest.mark.parametrize("lines", [CLIMBING[:1], ["白日依山，黄河入海流。", CLIMBING[1]], []])
def test_a_poem_without_the_form_fails_everything(lines):
    verdict = judge(lines, "五绝", by_hand(), set())
    assert not (verdict.form or verdict.rhyme or verdict.first_rhyme or verdict.any_rhyme)
    assert verdict.tones and verdict.copied and verdict.thrice and verdict.twin


def test_distinct_bigrams_of_known_poems():
    assert verses_of(["一、二！", "三？四；五"]) == ["一", "二", "三", "四", "五"]
    assert bigrams(["白日依", "山"]) == ["白日", "日依"]
    poem, other = ["abcde"], ["fghij"]  # four bigrams each
    assert distinct_bigrams([[poem, other]], [2]) == 1000
    assert distinct_bigrams([[poem, poem], [other]], [2, 1]) == pytest.approx(1000 * 8 / 12)
    # of two alike and one other, two drawn: a third of the draws have the same twice
    assert distinct_bigrams([[poem, poem, other]], [2], rounds=3000) == pytest.approx(1000 * (2 / 3 + 1 / 6), abs=20)


# ----------------------------------------------------------------------------------------------------------- the title


def test_what_a_title_says():
    titles = ["瓶花二首 其二", "无题", "绝句四首", "送元二使安西（一作渭城曲）", "感怀", "早梅 三"]
    assert list(map(title_core, titles)) == ["瓶花", "", "", "送元二使安西", "", "早梅"]
    counts = Counter({"春": 20, "山": 25, "甪": 19})
    assert is_informative("春山", counts) and is_informative("甪春山", counts)
    assert not is_informative("春甪", counts) and not is_informative("春春", counts) and not is_informative("", counts)


def test_choices_are_the_right_one_and_nine_others():
    pool = [f"题{i}" for i in range(15)]
    lists = choices(pool * 3, pool, seed=4)
    assert len(lists) == 45 and all(len(set(own)) == 10 for own in lists)
    assert [own[0] for own in lists] == pool * 3
    assert lists == choices(pool * 3, pool, seed=4) != choices(pool * 3, pool, seed=5)
    drawn = Counter(t for own in lists for t in own[1:])
    assert len(drawn) == 15 and max(drawn.values()) < 45
    with pytest.raises(ValueError, match="9 titles"):
        choices(pool, pool[:9])


def invented(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Titles of two characters out of twelve; each character of a title makes its own in the body likelier."""
    random = np.random.default_rng(seed)
    titles, bodies = [], []
    for _ in range(n):
        subject = random.choice(12, 2, replace=False)
        topical = [chr(0x4E00 + 10 * int(random.choice(subject)) + int(random.integers(4))) for _ in range(5)]
        any_ = [chr(0x4E00 + int(i)) for i in random.integers(0, 120, 15)]
        titles.append("".join(chr(0x6000 + int(s)) for s in subject))
        bodies.append("".join(random.permutation(topical + any_)))
    return titles, bodies


def test_the_theme_judge_learns_and_is_at_chance_where_there_is_nothing_to_know():
    theme = ThemeJudge(*invented(2500), directions=11)
    titles, bodies = invented(300, seed=1)
    lists = choices(titles, titles)
    for way, right in theme.right(bodies, lists).items():
        assert right.mean() > 0.6, way
    for way, right in theme.right(bodies[1:] + bodies[:1], lists).items():
        assert 0.04 < right.mean() < 0.17, way


# ------------------------------------------------------------------------------------------------------ real poems, CLI


def test_real_poems_of_the_test_split(tmp_path):
    poems, table = read_poems(tang_test_split(tmp_path)), RhymeTable.read(TANG.with_name("rhyme.json"))
    verdicts = [judge(poem.lines, poem.form, table, set()) for poem in poems if poem.form in FORMS]

    def percent(has) -> float:
        return 100 * sum(map(has, verdicts)) / len(verdicts)

    assert len(verdicts) == 765 and percent(lambda v: v.form) == 100
    # the corpus' own description: 93.6 rhyme, 79.6 have the tones, 4 repeat
    assert percent(lambda v: v.any_rhyme) == pytest.approx(93.6, abs=0.3)
    assert percent(lambda v: v.rhyme) == pytest.approx(89.5, abs=0.1)  # 4 % rhyme in an oblique tone: old style
    assert percent(lambda v: not v.tones) == pytest.approx(79.6, abs=0.6)
    assert percent(lambda v: v.thrice or v.twin) == pytest.approx(4, abs=1)


def test_bits_of_a_network_that_knows_nothing():
    model = Poet(SPECIALS + list("白日依山尽黄河入海流欲穷千里目更上一层楼，。"), embed=4, hidden=6, layers=1).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    assert bits(model, [Poem(CLIMBING, form="五绝")] * 2) == pytest.approx(math.log2(len(model.vocab)), rel=1e-5)


def test_a_folder_without_poems_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verse.py", f"--poetry={tmp_path}"])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "tang.jsonl.xz" in err
