"""data/poem_files.py: every kind of file, what is cleaned and what is no poem, what cannot be read."""

import gzip
import json
import lzma
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data.poem_files import EMBEDDED, read_poems
from data.poetry import PoetryDataset
from data.verse import form_of, plain, simplify, to_lines, why_not
from data.vocabulary import SPECIALS, Vocabulary
from utils.errors import UserError

NIGHT = ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]
TOWER = ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"]
DAWN = ["春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少。"]
DAWN_TRADITIONAL = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。"]
PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def write(path: Path, content: str | bytes) -> Path:
    """The file with that content, packed as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(PACK.get(path.suffix, bytes)(raw))
    return path


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def bodies(path: Path) -> list[list[str]]:
    return [poem.lines for poem in read_poems(path)]


def refusal(path: Path) -> str:
    """The message with which the file is refused: one line that names it."""
    with pytest.raises(UserError) as caught:
        read_poems(path)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------ text and JSON


@pytest.mark.parametrize("packing", PACK)
def test_txt_one_poem_a_line_or_poems_between_blank_lines(tmp_path, packing):
    path = write(tmp_path / f"p.txt{packing}", "".join(NIGHT) + "\n" + "".join(TOWER) + "\n")
    assert bodies(path) == [NIGHT, TOWER]
    text = "\n\n" + "\n".join(NIGHT) + "\n\n \n\n　" + "\n　".join(TOWER) + "\n\n"
    assert bodies(write(tmp_path / f"p.txt{packing}", text)) == [NIGHT, TOWER]


def test_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path):
    start, end = "\ufeff", "\r\n"
    blocks = start + end.join([*NIGHT, "", *TOWER, ""])
    assert bodies(write(tmp_path / "blocks.txt", blocks)) == [NIGHT, TOWER]
    lines = start + jsonl({"lines": NIGHT}, {"lines": TOWER}).replace("\n", end)
    assert bodies(write(tmp_path / "p.jsonl", lines)) == [NIGHT, TOWER]
    assert read_poems(write(tmp_path / "titled.txt", f"{start}静夜思:{''.join(NIGHT)}{end}"))[0].title == "静夜思"


night, tower = "".join(NIGHT), "".join(TOWER)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"静夜思:{night}\n登鹳雀楼：{tower}", [("静夜思", "", NIGHT), ("登鹳雀楼", "", TOWER)]),
        (f"静夜思\n李白\n{night}\n\n登鹳雀楼:{tower}", [("静夜思", "李白", NIGHT), ("登鹳雀楼", "", TOWER)]),
        ("Love: a poem, not a title.\n", [("", "", ["Love: a poem, not a title."])]),
        ("甲\n乙\n丙\n" + night + "\n\n" + tower, [("", "", ["甲", "乙", "丙", night]), ("", "", TOWER)]),
    ],
)
def test_txt_titles_where_they_can_be_told_from_the_verse(tmp_path, text, found):
    assert [(p.title, p.author, p.lines) for p in read_poems(write(tmp_path / "p.txt", text))] == found


@pytest.mark.parametrize("packing", PACK)
def test_jsonl_keeps_all_fields(tmp_path, packing):
    facts = {"id": "t1", "author": "李白", "title": "静夜思", "tune": ""}
    record = {**facts, "lines": NIGHT, "form": "五绝", "split": "test"}
    others = [{"lines": TOWER}, {"lines": ["one\u2028two\x85three"], "form": "haiku"}, {"lines": ["a", "", "b"]}]
    path = write(tmp_path / f"p.jsonl{packing}", jsonl(record, *others) + "\n")
    first, second, third, fourth = read_poems(path)
    assert vars(first) == record
    assert (second.lines, second.title, second.author, second.form) == (TOWER, "", "", "五绝")
    assert (third.text, third.form) == ("one\u2028two\x85three", ""), "a form that is not known here"
    assert fourth.text == "a\n\nb", "stanzas stay apart"


@pytest.mark.parametrize("packing", PACK)
def test_chinese_poetry_json_is_made_simplified_and_plain(tmp_path, packing):
    records = [
        {"author": "孟浩然", "paragraphs": DAWN_TRADITIONAL, "title": "春曉", "id": "1"},
        {"author": "李白", "paragraphs": ["「床前明月光（一作看月光），", "疑是地上霜。」", *NIGHT[1:]]},
        {"author": "無名", "paragraphs": [], "title": "空"},
        {"author": "李煜", "paragraphs": ["春花秋月何時了？往事知多少。"], "rhythmic": "虞美人（京本列第三首） 一"},
        {"title": "學而", "chapter": "學而", "content": ["學而時習之，不亦說乎？"]},
    ]
    dawn, night, lyric, saying = read_poems(write(tmp_path / f"p.json{packing}", json.dumps(records)))
    assert (dawn.title, dawn.author, dawn.lines, dawn.form) == ("春晓", "孟浩然", DAWN, "五绝")
    assert (night.title, night.lines) == ("", NIGHT)
    assert (lyric.title, lyric.tune, lyric.form) == ("", "虞美人", "词")
    assert lyric.lines == ["春花秋月何时了？", "往事知多少。"]
    assert saying.lines == ["学而时习之，不亦说乎？"]


CLEANED = {  # as it stands in corpora, and what is to be learnt from it
    "景[龍]年中宴，飛[燕舞]春風。": "景龍年中宴，飛燕舞春風。",
    "旌旗拂曉[二]色，鐘鼓滿秋城。不知何處[一]去，明月照人行。": "旌旗拂曉色，鐘鼓滿秋城。不知何處去，明月照人行。",
    "[百]鳥[投]林宿，各各覓高[枝]。[五]更分散去，苦[樂]不[相]知。": "百鳥投林宿，各各覓高枝。五更分散去，苦樂不相知。",
    "漠漠秋雲起，喧寒[也自鳴][八]。": "漠漠秋雲起，喧寒也自鳴。",
    "岸映西山（一作「州」）暮，「疑是（見《全唐詩》（卷一））霜」。（同上）。": "岸映西山暮，疑是霜。",
    "床前明月光,疑是地上霜.　举头望明月?!": "床前明月光，疑是地上霜。举头望明月？",
}
NO_VERSE = [
    "白日依□盡，黃河入海流。",
    "疲{艹尔}苟懷策，棲屑無所施。",
    "楚囚應積[□]，秦繫亦銜悲。",
    "古木寒鴉噪夕陽，六朝遺恨草茫茫。（輿地紀勝。",
    "（案此詩已佚。）",
    "空。",
]


@pytest.mark.parametrize("kind", ["txt", "blocks.txt", "jsonl", "json", "npz"])
def test_verse_is_cleaned_alike_whatever_the_kind_of_file(tmp_path, capsys, kind):
    texts = [*CLEANED, *NO_VERSE]
    contents = {
        "txt": "\n".join(texts),
        "blocks.txt": "\n\n".join(text.replace("。", "。\n").strip() for text in texts),
        "jsonl": jsonl(*({"lines": to_lines([text])} for text in texts)),
        "json": json.dumps([{"paragraphs": to_lines([text])} for text in texts]),
    }
    path = tmp_path / f"p.{kind}"
    if kind == "npz":
        book_file(path, texts)
    else:
        write(path, contents[kind])
    cleaned = [simplify(text) if kind == "json" else text for text in CLEANED.values()]
    assert [p.text for p in read_poems(path)] == cleaned
    report = "6 of 12 poems left out: 3 with missing characters, 2 without text, 1 with notes or other signs"
    assert capsys.readouterr().err == f"{path}: {report}\n"


def test_what_is_clean_or_no_chinese_verse_stays_as_it_is():
    others = ("雨ニモ（負）ケズ、[風]ニモマケズ。", "Roses (are) “red”, □ [a]", "我看见一只猫\n——它走了")
    for text in (*CLEANED.values(), *others):
        assert plain(text) == text and why_not(text.split("\n")) == ""


@pytest.mark.parametrize(
    "lines",
    [["Shall I compare thee to a summer's day?", "Thou art more lovely:"], ["古池や", "蛙飛びこむ", "水の音"],
     ["قفا نبك من ذكرى حبيب ومنزل"], ["👩‍🌾🌾 e\u0301", "🌕"], ["<eos> <bos> <pad> <五绝>"]],
)  # fmt: skip
def test_any_language_comes_back_from_file_and_vocabulary(tmp_path, lines):
    write(tmp_path / "a.txt", "\n".join(lines) + "\n\nx")
    write(tmp_path / "b.jsonl", jsonl({"lines": lines, "title": lines[0]}))
    from_txt, _, from_jsonl = read_poems(tmp_path)
    assert from_jsonl.lines == lines and from_txt.text == from_jsonl.text
    vocabulary = Vocabulary.build([from_jsonl])
    text = from_jsonl.text
    assert text.replace("\n", "") == "".join(lines)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert min(vocabulary.encode(text)) >= len(SPECIALS)  # also what looks like a special token is plain text
    (sample,) = PoetryDataset([from_jsonl], vocabulary, "none", 0)
    assert vocabulary.decode(sample["ids"]) == text


# ------------------------------------------------------------------------------------------------------- folders


def test_folder_is_read_with_its_subfolders_and_what_is_no_poem_is_named(tmp_path, capsys):
    folder = tmp_path / ".hidden above" / "poems"
    write(folder / "a.txt", night)
    write(folder / "deep" / "er" / "B.JSONL.gz", jsonl({"lines": TOWER}))
    strange = [{"name": "李白"}, "x", {"paragraphs": [{"a": 1}]}]
    write(folder / "c.json.xz", json.dumps([{"paragraphs": DAWN_TRADITIONAL}, *strange]))
    write(folder / "authors.tang.json", json.dumps([{"name": "李白", "desc": "詩人"}]))
    write(folder / "log.jsonl", jsonl({"step": 1}, {"step": 2}))
    write(folder / "nested.json", json.dumps([{"paragraphs": [{"chapter": "x", "paragraphs": NIGHT}]}]))
    for name in ("README.txt", "LICENSE-poems.txt", "notes.md", ".git/x.txt", "._a.txt"):
        write(folder / name, "not a poem")
    (folder / "folder.txt").mkdir()
    assert bodies(folder) == [NIGHT, DAWN, TOWER], "in the order of the names"
    said = capsys.readouterr()
    assert said.out == ""
    assert "no poem in 3 of the 6 files: authors.tang.json, log.jsonl, nested.json" in said.err
    assert "3 of 6 poems left out: 3 without text" in said.err and said.err.count("\n") == 2


def test_embedded_corpus_is_regular_and_has_every_split():
    poems = read_poems(EMBEDDED)
    assert len({p.text for p in poems}) == len(poems)
    assert sum(p.form in ("五绝", "七绝") for p in poems) >= 300
    assert {p.split for p in poems} == {"train", "val", "test"}
    assert all(p.form == form_of(p.lines) and p.title for p in poems)


# ----------------------------------------------------------------------------------------------- the book's tang.npz


def word_array(words: dict) -> np.ndarray:
    """As numpy.savez gets it from a dict: an array of one object."""
    return np.array(words, dtype=object)


def book_file(path: Path, poems: list[str], protocol: int | None = None, extra: str = "") -> Path:
    """A file like the book's: rows of 125 ids padded on the left, with <START>, <EOP> and </s>, and the words."""
    characters = [*sorted(set("".join(poems) + extra)), "<EOP>", "<START>", "</s>"]
    ids = {c: i for i, c in enumerate(characters)}
    rows = [[ids["<START>"], *(ids[c] for c in poem), ids["<EOP>"]] for poem in poems]
    data = np.array([[ids["</s>"]] * (125 - len(row)) + row for row in rows], np.int32)
    pairs = list(enumerate(characters))
    random.Random(0).shuffle(pairs)
    np.savez_compressed(path, data=data, ix2word=word_array(dict(pairs)), word2ix=word_array(ids))
    return path if protocol is None else with_protocol(path, protocol)


def with_protocol(path: Path, protocol: int) -> Path:
    """The file with `ix2word` pickled as another version of Python or numpy would."""
    with np.load(path, allow_pickle=True) as archive:
        words = archive["ix2word"]
    with zipfile.ZipFile(path) as archive:
        data = archive.read("data.npy")
        header = archive.read("ix2word.npy").split(b"\n")[0] + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", data)
        archive.writestr("ix2word.npy", header + pickle.dumps(words, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [None, 2, 5])
def test_the_books_npz(tmp_path, protocol):
    many = "".join(chr(0x5000 + i) for i in range(3000))  # as many as a pickle writes in several pieces
    poems = [night, tower, "b|O，春。"]  # b and | stand in numpy's own part of the pickle too
    path = book_file(tmp_path / "tang.npz", poems, protocol, many)
    with np.load(path, allow_pickle=True) as archive:  # numpy agrees that it is such a file
        assert len(archive["ix2word"].item()) > 3000
    found = read_poems(path)
    assert [p.text for p in found] == poems
    assert found[0].lines == NIGHT and found[0].form == "五绝"
    words = word_array(dict(enumerate("春江花月夜明", start=4)))  # numpy's own part of the pickle has 0, 1 and 3
    np.savez(path, data=np.array([[0, 1, 2, 3, 4, 5]]), ix2word=words)  # ids without a word are left out
    assert [p.text for p in read_poems(with_protocol(path, protocol or 4))] == ["春江"]


def test_npz_that_is_not_the_books(tmp_path):
    words, zeros = word_array({0: "春", 1: "江"}), np.zeros((2, 3), int)
    for name, arrays in {
        "other": {"x": zeros},
        "flat": {"data": zeros[0], "ix2word": words},
        "float": {"data": zeros.astype(float), "ix2word": words},
        "list": {"data": zeros, "ix2word": np.array(["春", "江"], dtype=object)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    whole = book_file(tmp_path / "whole.npz", [night] * 50).read_bytes()
    write(tmp_path / "whole.npz", whole[: len(whole) // 2])
    write(tmp_path / "flipped.npz", whole[:200] + bytes(b ^ 255 for b in whole[200:260]) + whole[260:])
    files = list(tmp_path.glob("*.npz"))
    assert len(files) == 6 and all("tang.npz" in refusal(file) for file in files)


# ------------------------------------------------------------------------------------------- what cannot be read

GOOD = jsonl({"lines": NIGHT})
SUFFIXES = ".txt, .jsonl, .json, .npz"
NO_LINES = 'expected an object with "lines"'
NOISE = random.Random(0).randbytes(3000).hex().encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "no poem"),
        ("nothing.jsonl", jsonl({"lines": []}, {"lines": [""]}, {"lines": [" ", "\n"]}), "no poem"),
        ("gb.txt", "床前明月光".encode("gb18030"), "not UTF-8"),
        ("cut.jsonl", GOOD + '{"lines": ["床前', ":2: not valid JSON"),
        ("list.jsonl", GOOD + "[]\n", f":2: {NO_LINES}"),
        ("string.jsonl", jsonl({"lines": "床前明月光"}), f":1: {NO_LINES}, a list of strings"),
        ("none.jsonl", GOOD + jsonl({"paragraphs": NIGHT}), f":2: {NO_LINES}"),
        ("split.jsonl", GOOD + jsonl({"lines": NIGHT, "split": "x"}), ":2: \"split\" is 'x': expected one of train"),
        ("deep.jsonl", GOOD + "[" * 100_000, ":2: not valid JSON"),
        ("digits.jsonl", GOOD + f'{{"lines": {"1" * 5000}}}', ":2: not valid JSON"),
        ("half.jsonl", GOOD + '{"lines": ["\\uD83c"]}', ":2: not valid JSON"),
        ("cut.json", '[\n{"paragraphs":\n ["床前', ":3: not valid JSON"),
        ("authors.json", json.dumps([{"name": "李白"}]), "no poem"),
        ("missing.txt", "白日依□尽，黄河入海流。", "1 of 1 poems left out: 1 with missing characters"),
        *((name, "x", SUFFIXES) for name in ("poems.pdf", "poems", "poems.txt.bz2")),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, name, content, said):
    assert said in refusal(write(tmp_path / name, content))


@pytest.mark.parametrize("packing", [".gz", ".xz"])
def test_damaged_archives(tmp_path, packing):
    whole = PACK[packing](NOISE)
    flipped = whole[:1000] + bytes(b ^ 255 for b in whole[1000:1020]) + whole[1020:]
    for number, raw in enumerate((whole[:-500], flipped, NOISE)):
        path = tmp_path / f"{number}.txt{packing}"
        path.write_bytes(raw)
        assert "cannot read" in refusal(path)
    path.write_bytes(b"")
    assert refusal(path)


def test_missing_path_empty_folder_and_a_bad_file_in_a_folder(tmp_path):
    assert "does not exist" in refusal(tmp_path / "missing.txt")
    (tmp_path / "empty").mkdir()
    assert SUFFIXES in refusal(tmp_path / "empty")
    write(tmp_path / "mixed" / "good.txt", night)
    write(tmp_path / "mixed" / "bad.jsonl", GOOD + "{")
    with pytest.raises(UserError, match=r"bad\.jsonl:2: not valid JSON"):
        read_poems(tmp_path / "mixed")
