"""data/rhyme.py: the table of readings is read, cut to the characters of a poet, and travels in its file."""

import json

import pytest

from data.rhyme import read_rhymes, restrict
from infer.verse.check import check
from infer.verse.model_file import SHIPPED
from infer.verse.new_rhymes import NewRhymes
from infer.verse.rhyme import LEVEL, OBLIQUE, RhymeTable
from models.basemodule import read_metadata
from tests.training import CHARACTERS, options, run, write_corpus
from utils.errors import UserError

TABLE = {
    "groups": {"一东": "平", "一送": "去", "一先": "平"},
    "chars": {"东": [["平", "一东"]], "中": [["平", "一东"], ["仄", "一送"]], "天": [["平", "一先"]]},
}


def test_groups_of_the_characters_that_are_asked_for(tmp_path):
    (tmp_path / "rhyme.json").write_text(json.dumps(TABLE), encoding="utf-8")
    rhymes = read_rhymes(tmp_path / "rhyme.json", ["<pad>", "中", "东", "山"])
    assert rhymes == {"rhyme_tones": TABLE["groups"], "rhymes": {"一东": "中东", "一送": "中", "一先": ""}}
    assert restrict(rhymes, ["中"])["rhymes"] == {"一东": "中", "一送": "中", "一先": ""}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"groups": {"a": "平"}, "chars": []}', json.dumps({**TABLE, "chars": {}})]
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "rhyme.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"rhymes=.*rhyme.json: expected a JSON file"):
        read_rhymes(path, ["东"])
    with pytest.raises(UserError, match="rhymes="):
        read_rhymes(tmp_path / "missing.json", ["东"])


def test_the_table_travels_in_the_poets_file(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "rhyme.json").write_text(json.dumps(TABLE), encoding="utf-8")
    given = options(tmp_path, max_epoch=1)
    run(tmp_path, **given, rhymes=tmp_path / "rhyme.json", run="one")
    first = tmp_path / "one" / "best.safetensors"
    metadata = read_metadata(first)
    assert metadata["rhyme_tones"] == TABLE["groups"] and metadata["rhymes"]["一送"] == ""
    assert "rhyme.json" not in json.dumps(metadata["config"])
    for name in ("load", "init"):  # a poet that starts from it has the table, too
        run(tmp_path, **given, **{name: first}, run=name)
        assert read_metadata(tmp_path / name / "best.safetensors")["rhyme_tones"] == TABLE["groups"]


def test_without_one_it_is_the_shipped_poets(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    run(tmp_path, **options(tmp_path, max_epoch=1), run="one")
    rhymes = read_metadata(tmp_path / "one" / "best.safetensors")["rhymes"]
    assert set("春人") <= set(rhymes["十一真"]) and set().union(*rhymes.values()) <= set(CHARACTERS + "甲乙")


# ----------------------------------------------------------------------------------------------------- 中华新韵


@pytest.mark.parametrize(
    "characters, group",
    {"花家瓜鸭": "一麻", "波歌多伯": "二波", "街月雪别": "三皆", "开怀来": "四开", "灰杯飞": "五微", "高桥遥": "六豪",
     "楼秋忧": "七尤", "山天船圆烟": "八寒", "门林春云": "九文", "光江床": "十唐", "风星中穷英": "十一庚",
     "儿鱼衣七": "十二齐", "知诗时吃": "十三支", "书屋读": "十四姑"}.items(),
)  # fmt: skip
def test_new_rhymes_by_hand(characters, group):
    table = NewRhymes()
    assert group in table.level and len(table.level) == 14
    for c in characters:
        tone = table.tones(c)
        assert table.groups(c, 0, tone) == table.divisions(c, -1, tone) == [group], c
        assert table.groups(c, 0, OBLIQUE if tone == LEVEL else LEVEL) == []


def test_new_tones_are_those_of_today_in_the_verse():
    table = NewRhymes()
    assert "".join(table.tones("白日依山尽", i) for i in range(5)) == "平仄平平仄", "白 has no entering tone any more"
    assert table.tones("重叠金明灭", 0) == LEVEL and table.tones("重量", 0) == OBLIQUE
    assert table.tones("a") == table.tones("。") == "" and table.groups("嗯") == []


def test_check_by_new_rhymes():
    """屋 and 书 rhyme today; 屋 had an entering tone."""
    poem = "山前一水绕青竹，日落归来且读书。最爱晚风吹细雨，满天星斗照茅屋。"
    table = NewRhymes()
    found = check(poem, table)
    assert found.rhyme == "十四姑" and not [f for f in found.faults if f.kind == "出韵"]
    assert found.pattern.endswith("首句入韵") and not found.style
    assert check(poem, RhymeTable.of(read_metadata(SHIPPED))).rhyme != "十四姑"
