"""data/rhyme.py: the table of readings is read, cut to the characters of a poet, and travels in its file."""

import json

import pytest

import main
from config import PoetConfig
from data.rhyme import read_rhymes, restrict
from infer.verse.check import check
from infer.verse.model_file import SHIPPED
from infer.verse.new_rhymes import NewRhymes
from infer.verse.rhyme import LEVEL, OBLIQUE, RhymeTable
from models.basemodule import read_metadata
from options import parse
from tasks import make_task
from tests.training import CHARACTERS, arguments, options, write_corpus
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


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "rhyme.json"
    for content in (None, "", "[]", "{}", '{"groups": {"a": "平"}, "chars": []}', json.dumps({**TABLE, "chars": {}})):
        if content is not None:  # else there is no file
            path.write_text(content)
        with pytest.raises(UserError, match=r"rhymes=.*rhyme.json: expected a JSON file"):
            read_rhymes(path, ["东"])


def test_the_table_travels_in_the_poets_file(tmp_path):
    """A poet that starts from it has the table, too; without one it is the shipped poet's."""
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "rhyme.json").write_text(json.dumps(TABLE), encoding="utf-8")
    given = options(tmp_path, max_epoch=1)
    assert main.main(arguments(**given, rhymes=tmp_path / "rhyme.json", run="one")) == 0
    first = tmp_path / "one" / "best.safetensors"
    metadata = read_metadata(first)
    assert metadata["rhyme_tones"] == TABLE["groups"] and metadata["rhymes"]["一送"] == ""
    assert "rhyme.json" not in json.dumps(metadata["config"])
    for name in ("load", "init"):
        task = make_task(parse(PoetConfig, {**given, name: first}))
        assert task.model_metadata()["rhyme_tones"] == TABLE["groups"]
    rhymes = make_task(parse(PoetConfig, given)).model_metadata()["rhymes"]
    assert set("春人") <= set(rhymes["十一真"]) and set().union(*rhymes.values()) <= set(CHARACTERS + "甲乙")


# ----------------------------------------------------------------------------------------------------- 中华新韵


def test_new_rhymes_by_hand():
    table = NewRhymes()
    by_hand = """
        一麻 花家瓜鸭 二波 波歌多伯 三皆 街月雪别 四开 开怀来 五微 灰杯飞 六豪 高桥遥 七尤 楼秋忧 八寒 山天船圆烟
        九文 门林春云 十唐 光江床 十一庚 风星中穷英 十二齐 儿鱼衣七 十三支 知诗时吃 十四姑 书屋读""".split()
    assert table.level == by_hand[::2]
    for group, characters in zip(by_hand[::2], by_hand[1::2], strict=True):
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
