"""词: the table of the tunes, writing to them, checking them; pairs; acrostics. The judge here is its own."""

import re
from itertools import pairwise

import pytest
import torch

from data.rhyme import restrict
from data.tables import table_lines
from data.verse import FORMS, split_verses
from data.vocabulary import Vocabulary
from infer.verse.check import check, check_pair
from infer.verse.check_ci import check_tune, join_sections
from infer.verse.compose import compose
from infer.verse.constraints import Progress, Rules
from infer.verse.lexicon import Lexicon
from infer.verse.model_file import SHIPPED
from infer.verse.plan import Form
from infer.verse.prosody import patterns
from infer.verse.rhyme import RhymeTable, read_divisions
from infer.verse.settings import PoemSettings
from infer.verse.shape import MARK, Shape
from infer.verse.spelling import spell_today
from infer.verse.tunes import find_tune, tune_names
from models.basemodule import read_metadata
from models.poet import Poet
from utils.errors import UserError

LENGTHS = {  # of the forms in use, as handbooks (钦定词谱) have them
    "忆江南": 27, "如梦令": 33, "长相思": 36, "相见欢": 36, "生查子": 40, "点绛唇": 41, "浣溪沙": 42,
    "菩萨蛮": 44, "采桑子": 44, "卜算子": 44, "减字木兰花": 44, "忆秦娥": 46, "清平乐": 46, "阮郎归": 47, "西江月": 50,
    "醉花阴": 52, "浪淘沙": 54, "鹧鸪天": 55, "虞美人": 56, "玉楼春": 56, "踏莎行": 58, "蝶恋花": 60, "临江仙": 60,
    "破阵子": 62, "渔家傲": 62, "青玉案": 67, "江城子": 70, "满江红": 93, "水调歌头": 95, "满庭芳": 95, "声声慢": 97,
    "念奴娇": 100, "水龙吟": 102, "沁园春": 114, "贺新郎": 116, "调笑令": 32,
}  # fmt: skip
# fmt: off
FAMOUS = {
    "如梦令": "昨夜雨疏风骤，浓睡不消残酒。试问卷帘人，却道海棠依旧。知否，知否？应是绿肥红瘦。",
    "菩萨蛮": "平林漠漠烟如织，寒山一带伤心碧。暝色入高楼，有人楼上愁。"
              "玉阶空伫立，宿鸟归飞急。何处是归程？长亭更短亭。",
    "西江月": "明月别枝惊鹊，清风半夜鸣蝉。稻花香里说丰年，听取蛙声一片。"
              "七八个星天外，两三点雨山前。旧时茅店社林边，路转溪桥忽见。",
    "虞美人": "春花秋月何时了，往事知多少？小楼昨夜又东风，故国不堪回首月明中。"
              "雕栏玉砌应犹在，只是朱颜改。问君能有几多愁？恰似一江春水向东流。",
    "采桑子": "少年不识愁滋味，爱上层楼。爱上层楼，为赋新词强说愁。"
              "而今识尽愁滋味，欲说还休。欲说还休，却道天凉好个秋。",
    "生查子": "去年元夜时，花市灯如昼。月上柳梢头，人约黄昏后。今年元夜时，月与灯依旧。不见去年人，泪湿春衫袖。",
    "浣溪沙": "一曲新词酒一杯，去年天气旧亭台。夕阳西下几时回？无可奈何花落去，似曾相识燕归来。小园香径独徘徊。",
    "水调歌头": "明月几时有？把酒问青天。不知天上宫阙，今夕是何年。我欲乘风归去，又恐琼楼玉宇，高处不胜寒。"
                "起舞弄清影，何似在人间。转朱阁，低绮户，照无眠。不应有恨，何事长向别时圆？"
                "人有悲欢离合，月有阴晴圆缺，此事古难全。但愿人长久，千里共婵娟。",
    "满江红": "怒发冲冠，凭栏处、潇潇雨歇。抬望眼，仰天长啸，壮怀激烈。三十功名尘与土，八千里路云和月。"
              "莫等闲，白了少年头，空悲切。靖康耻，犹未雪。臣子恨，何时灭。驾长车踏破，贺兰山缺。"
              "壮志饥餐胡虏肉，笑谈渴饮匈奴血。待从头、收拾旧山河，朝天阙。",
}
# fmt: on


@pytest.fixture(scope="module")
def table() -> RhymeTable:
    return RhymeTable.of(read_metadata(SHIPPED))


@pytest.fixture(scope="module")
def model() -> Poet:
    """A small network of random weights with the shipped poet's commonest characters, their tones and rhymes."""
    torch.manual_seed(0)
    vocab = Poet.load(SHIPPED).vocab
    vocab = [c for i, c in enumerate(vocab) if i < 1500 or c in "婵娟沈骤浓"]
    poet = Poet(vocab, embed=8, hidden=8, layers=1, attention=0).eval()
    poet.metadata = {**restrict(read_metadata(SHIPPED), vocab), "forms": list(FORMS)}
    return poet


# ---------------------------------------------------------------------------------------------------------- tunes


def test_the_tunes_have_their_lengths_and_names():
    assert len(tune_names()) >= 40 and len(set(tune_names())) == len(tune_names())
    for name, length in LENGTHS.items():
        tune = find_tune(name)
        assert (tune.length if tune else 0) == length, name
    assert find_tune("大江东去").name == find_tune("百字令").name == "念奴娇"
    assert find_tune("滿江紅").name == "满江红" and find_tune("卖花声").name == "浪淘沙"
    assert find_tune("春晓") is None and find_tune("") is None


def rules_of(name: str) -> list[list[tuple[str, str]]]:
    """The verses of the first form of that tune in the file: (what it wants, mark) of each character, by hand."""
    line = next(li for li in table_lines("ci_tunes.txt") if re.split("[ \t]", li)[0] == name)
    verses = re.findall(r"([平仄中@~]+)(\(?[A-Da-d]?\)?)[，。、]", line.split("\t")[1])
    return [[*((c, "") for c in tones[:-1]), (tones[-1], letter)] for tones, letter in verses]


def judge(name: str, verses: list[str], table: RhymeTable) -> list[str]:
    """What is wrong with verses written to that tune."""
    wrong, rhymes = [], {}
    rules = rules_of(name)
    if [len(v) for v in verses] != [len(rule) for rule in rules]:
        return [f"lengths {[len(v) for v in verses]}"]
    for v, (verse, rule) in enumerate(zip(verses, rules, strict=True)):
        repeated = "".join(want for want, _ in rule if want in "@~")
        if repeated:
            before = verses[v - 1][-len(repeated) :]
            if verse[-len(repeated) :] != (before[::-1] if "~" in repeated else before):
                wrong.append(f"{verse} repeats nothing")
        for i, (want, _) in enumerate(rule):
            if want in "平仄" and want not in table.tones(verse, i):
                wrong.append(f"{verse}[{i}] is not {want}")
        want, letter = rule[-1]
        if letter and "(" not in letter and want in "平仄":
            rhymes.setdefault(letter.upper(), []).append(set(table.divisions(verse, -1, want)))
    return wrong + [f"no rhyme in {letter}" for letter, own in rhymes.items() if not set.intersection(*own)]


@pytest.mark.parametrize("name", tune_names())
def test_every_tune_is_written_by_its_rules(model, table, name):
    [poem] = compose(model, PoemSettings(form=name, candidates=2, temperature=1.0, title="春夜"), seed=len(name))
    assert judge(name, poem.verses, table) == [] and poem.form == name
    assert poem.check.regular and poem.check.pattern == name
    assert sum(poem.sections) == len(poem.lines) and str(poem).startswith(f"《{name}·春夜》\n")
    assert str(poem).count("\n\n") == len(poem.sections) - 1


def test_what_is_given_to_a_tune_is_kept(model, table):
    asked = PoemSettings(form="如梦令", prompt="昨夜雨疏风骤", acrostic="昨浓", rhyme="尤", candidates=2)
    poem = compose(model, asked)[0]
    assert poem.verses[0] == "昨夜雨疏风骤" and poem.verses[1][0] == "浓" and poem.rhyme == "第十二部"
    kept = PoemSettings(form="浣溪沙", lines=["一曲新词酒一杯", "", "夕阳西下几时回", "", "", ""], candidates=2)
    poem = compose(model, kept)[0]
    assert [poem.verses[0], poem.verses[2]] == [kept.lines[0], kept.lines[2]]
    assert judge("浣溪沙", poem.verses, table) == []
    for settings, message in (
        ({"form": "如梦令", "acrostic": "一二三四五六七八"}, "如梦令 has 7 verses, not 8"),
        ({"form": "浣溪沙", "lines": ["春江", ""]}, "春江 does not fit 浣溪沙, which has 7 characters"),
        ({"form": "浣溪沙", "rhyme": "甲"}, "choose one from 第一部 to 第十九部"),
        ({"form": "浣溪沙", "prompt": "春" * 43}, "43 characters, the form only 42"),
        ({"acrostic": "春" * 17}, "16 characters at most"),
        ({"form": "对联", "acrostic": "春"}, "give the first line as prompt"),
        ({"form": "对联", "lines": ["春"]}, "give the first line as prompt"),
        ({"form": "浣纱"}, "form=浣纱.*浣溪沙"),
        ({"form": "念奴"}, "念奴娇"),
        ({"form": "haiku"}, "help generate"),
    ):
        with pytest.raises(UserError, match=message):
            compose(model, PoemSettings(**settings))


# ------------------------------------------------------------------------------------------------------- checking


def test_the_rhymes_of_ci_are_those_of_the_handbook(table):
    assert len(read_divisions()) == 19
    for line in ("第一部 东同龙浓", "第五部 来台开", "第三部 杯回雷", "第十部 花家涯"):
        division, characters = line.split(" ")
        assert all(division in table.divisions(c) for c in characters), division
    assert table.divisions("雪", -1, "仄") == ["第十八部"] and table.divisions("天", -1, "仄") == []


@pytest.mark.parametrize("tune, text", FAMOUS.items(), ids=FAMOUS)
def test_famous_ones_are_known_and_regular(table, tune, text):
    found = check(text, table)
    assert (found.form, found.pattern, found.faults) == ("词", tune, [])
    assert check(f"《{tune}》\n{text}", table).pattern == tune


def test_faults_are_named_where_they_are(table):
    tune, text = find_tune("浣溪沙"), FAMOUS["浣溪沙"]
    verses = split_verses(text)
    for verse, place, character, kind in ((1, 4, "香", "平仄"), (2, 7, "山", "出韵"), (5, 7, "去", "平仄")):
        spoilt = list(verses)
        spoilt[verse] = spoilt[verse][: place - 1] + character + spoilt[verse][place:]
        found = check_tune(spoilt, table, tune).faults
        assert [(f.kind, f.verse, f.place) for f in found] == [(kind, verse + 1, place)]
    short = check("《浣溪沙》" + text[:-2] + "。", table)
    assert short.faults[0].kind == "字数" and "42 characters, these verses 41" in short.faults[0].text
    twice = FAMOUS["如梦令"].replace("知否？", "知我？")
    assert [f.kind for f in check(f"如梦令\n{twice}", table).faults] == ["出韵", "叠句"]
    near = check(text, table)
    assert near.rhyme == "第三部" and "来 rhymes in 第五部, as Song poets do" in near.remarks[0]


def test_verse_that_is_no_tune_is_left_alone(table):
    assert check("枯藤老树昏鸦，小桥流水人家，古道西风瘦马。夕阳西下，断肠人在天涯。", table).pattern == ""
    assert check("前不见古人，后不见来者。念天地之悠悠，独怆然而涕下。", table).pattern == ""


def test_two_sections_with_a_line_between_are_one_poem():
    first, second = FAMOUS["虞美人"][:32], FAMOUS["虞美人"][32:]
    night = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
    assert join_sections([first, second, night, night]) == [f"{first}\n\n{second}", night, night]
    assert join_sections([]) == [] and join_sections([night]) == [night]


# ---------------------------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    "first", ["春", "春风", "春风来", "明月清风", "海内存知己", "落霞与孤鹜齐飞", "风声雨声读书声声入耳"]
)
def test_the_second_line_of_a_pair_answers_the_first(model, table, first):
    for poem in compose(model, PoemSettings(form="对联", prompt=first, candidates=2), n=2):
        one, other = poem.verses
        assert one == first and len(other) == len(first) and not set(one) & set(other)
        for i in range(1, len(first) - 1, 2):
            tones = table.tones(one, i), table.tones(other, i)
            assert tones[0] not in ("平", "仄") or tones[0] != tones[1], (one, other, i)
        assert "平" in table.tones(other, len(other) - 1)
        assert poem.form == "对联" and poem.check.style == "对联"


def test_pairs_without_a_first_line_and_with_marks_inside(model, table):
    for poem in compose(model, PoemSettings(form="对联", candidates=2), n=2):
        assert [len(v) for v in poem.verses] == [7, 7] and poem.check.faults == []
    [poem] = compose(model, PoemSettings(form="对联", prompt="门对千竿竹短，家藏万卷书存", candidates=4))
    assert [len(v) for v in poem.verses] == [6, 6, 6, 6] and len(poem.lines) == 2
    assert poem.lines[0] == "门对千竿竹短，家藏万卷书存；" and poem.lines[1][-1] == "。"
    # 书存 ends in level tone: the given line's
    assert {f.kind for f in check_pair(poem.verses, table).faults} <= {"平仄"}


# ------------------------------------------------------------------------------------------------------ acrostics


@pytest.mark.parametrize("count", [1, 4, 5, 8, 9, 12, 13, 16])
def test_acrostics_are_completed(model, table, count):
    name = "春江花月夜山水云风雪天人日月星辰"[:count]
    poems = compose(model, PoemSettings(acrostic=name, candidates=2))
    assert len(poems) == (2 if count > 8 else 1)
    shapes = [len(poem.verses) for poem in poems]
    assert set(shapes) <= {4, 8} and sum(shapes) >= count
    starts = [[v[0] for v in poem.verses] for poem in poems]
    first = count if count <= 8 else min(8, count - 4)
    assert starts[0][:first] == list(name[:first])
    if count > 8:
        assert starts[1][: count - first] == list(name[first:]) and "two poems" in poems[0].remarks[0]
    for poem in poems:
        assert poem.form in ("七绝", "七律") and not [f for f in poem.check.faults if f.kind == "出韵"]
    if count <= 8:  # a poet that has learnt other forms
        [poem] = compose(model, PoemSettings(acrostic=name, candidates=2), forms=["五绝", "五律"])
        assert poem.form == ("五绝" if count <= 4 else "五律") and poem.verses[count - 1][0] == name[-1]


# ------------------------------------------------------------------------------------------------------ doubling


def test_a_character_is_doubled_only_where_verse_does_so(model):
    allowed = set()
    asked = PoemSettings(form="七绝", title="春夜", candidates=1, temperature=1.5, top_p=1.0)
    for poem in compose(model, asked, n=40):
        allowed |= {a for verse in poem.verses for a, b in pairwise(verse) if a == b}
    lexicon = Lexicon.of(model)
    ids = torch.tensor(lexicon.vocabulary.encode("".join(allowed)), dtype=torch.long)
    assert bool(lexicon.pairs.attested(ids, ids)[1].all()), allowed


def test_what_is_written_is_spelt_as_today_and_what_is_given_stays(model):
    """The network wants 沈 everywhere."""
    old = "江月西沈夜泊船 沈郎腰瘦不胜衣 看著梅花著此身 闭门著书多岁月 无柰春何 素柰花开，花落著，".split()
    new = "江月西沉夜泊船 沈郎腰瘦不胜衣 看着梅花着此身 闭门著书多岁月 无奈春何 素柰花开，花落著，".split()
    assert list(map(spell_today, old)) == new
    vocabulary = Vocabulary(model.vocab)
    bias = model.output_bias.data.clone()
    model.output_bias.data[vocabulary.ids["沈"]] = 50.0
    [poem] = compose(model, PoemSettings(form="七绝", prompt="沈水", candidates=1, regular=False))
    model.output_bias.data = bias
    assert poem.verses[:2] == ["沈水" + "沉" * 5, "沉" * 7]


def test_a_character_whose_word_cannot_rhyme_is_avoided(model):
    """婵 before a rhyme, where 娟 rhymes and where it does not: 3 nats less likely, beside what its pairs cost."""
    lexicon, shape = Lexicon.of(model), Shape.even(4, 7)
    ids, place = lexicon.vocabulary.ids, 7 + 1 + 5
    best = {}
    for rhyme in ("一先", "八庚"):
        rules = Rules(lexicon, Form("七绝", shape), patterns(4, 7), [""] * len(shape.columns), rhyme)
        progress, logits = Progress(rules, 64), torch.randn(64, len(model.vocab), generator=torch.manual_seed(1))
        for before in range(place):
            mark = shape.columns[before] == MARK
            tokens = torch.full((64,), ids["，"]) if mark else progress.apply_rules(logits, before).argmax(1)
            progress.take(tokens, before)
        best[rhyme] = progress.apply_rules(torch.zeros_like(logits), place)[:, ids["婵"]].max().item()
    assert best["一先"] >= -2.0 and best["八庚"] == best["一先"] - 3.0
