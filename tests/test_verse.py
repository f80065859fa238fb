"""data/verse.py: one way to read a poem, for all commands: title, author and verses of what somebody has written."""

import io
import json
import sys

import pytest
from PIL import Image

import main
from data.verse import STDIN, given_poems, parse_poem, split_verses
from infer.verse.check_ci import one_poem
from utils.errors import UserError

TOWER = ["白日依山尽", "黄河入海流", "欲穷千里目", "更上一层楼"]
COUPLETS = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"


@pytest.mark.parametrize(
    "head",
    ["", "《登鹳雀楼》\n", "登鹳雀楼\n", "登鹳雀楼：", "《登鹳雀楼》\n王之涣\n", "登鹳雀楼\n作者：王之涣\n",
     "  登鹳雀楼\r\n\u3000\u3000唐·王之涣\r\n", "登鹳雀楼（一作鹳雀楼）\n（唐）王之涣\n",
     "登鹳雀楼\n[唐] 王之涣\n", "登鹳雀楼\n王之涣〔唐代〕\n"],
)  # fmt: skip
def test_title_and_author_are_told_from_the_verse(head):
    bodies = [COUPLETS, COUPLETS.replace("\n", ""), COUPLETS.replace("，", ",").replace("。", "."), "\n".join(TOWER)]
    for body in bodies[: 1 if head.endswith("：") else None]:  # such a title needs a mark after it
        poem = parse_poem(head + body)
        assert (poem.title, poem.author) == ("登鹳雀楼" if head else "", "王之涣" if "王" in head else "")
        assert split_verses(poem.lines) == split_verses(head + body) == TOWER


@pytest.mark.parametrize(
    "head",
    ["登鹳雀楼 王之涣 ", "《登鹳雀楼》 王之涣 ", "《登鹳雀楼》王之涣：", "登鹳雀楼（王之涣）",
     "登鹳雀楼（唐·王之涣）\n", "登鹳雀楼 唐 王之涣 ", "登鹳雀楼·王之涣 ", "1. 登鹳雀楼\n王之涣\n",
     "一、登鹳雀楼（王之涣）\n"],
)  # fmt: skip
def test_what_people_paste_is_understood(head):
    for tail in ("", "\n注释：\n①白日：太阳。", "\n【译文】\n夕阳依傍着山峦。"):
        poem = parse_poem(head + COUPLETS.replace("日", "日①") + tail)
        assert (poem.title, poem.author, split_verses(poem.lines)) == ("登鹳雀楼", "王之涣", TOWER)


def test_numbers_titles_and_notes_are_no_verse_and_verse_is_no_title():
    assert split_verses("1.白日依山尽，\n2.黄河入海流。\n3、欲穷千里目，\n（4）更上一层楼。") == TOWER
    assert split_verses("登鹳雀楼 王之涣 " + " ".join(TOWER)) == split_verses("登鹳雀楼 " + " ".join(TOWER)) == TOWER
    assert split_verses("君不见 黄河之水天上来，奔流到海不复回。") == ["君不见", "黄河之水天上来", "奔流到海不复回"]
    assert split_verses("床前明月光（一作看月光），疑是地上霜。") == ["床前明月光", "疑是地上霜"]
    for text in ("白日依山尽\n黄河入海流", "\n".join(TOWER * 2), "\n".join([*TOWER, *TOWER[:2]])):
        assert parse_poem(text).title == "" and "".join(split_verses(text)) == text.replace("\n", "")


def test_poems_are_parted_by_blank_lines_and_keep_their_titles(tmp_path, monkeypatch):
    text = f"登鹳雀楼\n王之涣\n\n{COUPLETS}\n\n \n\n《春晓》\n春眠不觉晓，处处闻啼鸟。\n"
    file = tmp_path / "poems.txt"
    file.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8")
    found = [parse_poem(poem) for poem in given_poems(str(file), "poem")]
    assert [(p.title, p.author) for p in found] == [("登鹳雀楼", "王之涣"), ("春晓", "")]
    assert [split_verses(p.lines) for p in found] == [TOWER, ["春眠不觉晓", "处处闻啼鸟"]]
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert given_poems(text) == given_poems(STDIN)
    with pytest.raises(UserError, match="poem: 2 poems with blank lines"):
        one_poem(str(file))


def test_a_file_of_a_corpus_is_read_as_such_and_a_poem_may_be_longer_than_the_name_of_a_file(tmp_path):
    file = tmp_path / "poems.jsonl"
    records = [{"title": "登鹳雀楼", "lines": COUPLETS.split("\n")}, {"lines": ["春眠不觉晓，处处闻啼鸟。"]}]
    file.write_text("\n".join(map(json.dumps, records)))
    assert given_poems(str(file)) == [f"《登鹳雀楼》\n{COUPLETS}", "春眠不觉晓，处处闻啼鸟。"]
    long = "白日依山尽，黄河入海流。" * 40
    assert given_poems(long) == [long]


def test_what_holds_no_poem_is_said(tmp_path):
    (tmp_path / "poem.txt").write_bytes("白日".encode("gbk"))
    said = {"nowhere.txt": "poem: nowhere.txt does not exist", str(tmp_path / "poem.txt"): "is not UTF-8"}
    for given, message in (said | dict.fromkeys(("", "，。", "《登高》"), "poem: no poem found")).items():
        with pytest.raises(UserError, match=message):
            given_poems(given, "poem")


def test_every_command_reads_the_same_poem(tmp_path, capsys):
    """check marks the verses, postcard and generate --lock keep them, of a file with title and author."""
    file = tmp_path / "poem.txt"
    file.write_text(f"登鹳雀楼\n王之涣\n{COUPLETS}\n", encoding="utf-8")
    assert main.main(["check", str(file)]) == 0
    out = capsys.readouterr().out
    assert "五绝 仄起首句不入韵, rhyme 十一尤: regular" in out and "王之涣" not in out
    photo = tmp_path / "photo.png"
    Image.new("RGB", (300, 200), "gray").save(photo)
    assert main.main(["postcard", str(photo), f"--poem={file}", "--style=none", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["title"] == "登鹳雀楼" and json.loads(told.out)["lines"] == TOWER
    assert main.main(["generate", f"--poem={file}", "--lock=1,2,3", "--n=1", "--candidates=1", "--seed=1"]) == 0
    assert "，".join(TOWER[:2]) in capsys.readouterr().out
