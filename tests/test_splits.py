"""data/splits.py: stable, about 90:5:5, related poems together."""

import random
from collections import Counter
from pathlib import Path

import pytest

from data.poem_files import read_poems
from data.splits import SPLITS, choose_split
from data.verse import form_of, to_lines
from tests.test_poem_files import DAWN, NIGHT, TOWER, jsonl, write
from tests.training import tang_test_split
from utils.errors import UserError

generator = random.Random(1)


def line(width: int) -> str:
    return "".join(chr(generator.randint(0x4E00, 0x9FA5)) for _ in range(width))


def splits_of(path: Path, texts: list[str]) -> dict[str, str]:
    return {p.text: p.split for p in read_poems(write(path, "\n".join(texts)))}


def test_splits_are_stable_and_about_90_5_5(tmp_path):
    texts = [line(20) for _ in range(8000)]
    split = splits_of(tmp_path / "a.txt", texts)
    counts = Counter(split.values())
    assert set(counts) == set(SPLITS)
    assert abs(counts["val"] / 8000 - 0.05) < 0.01 and abs(counts["test"] / 8000 - 0.05) < 0.01
    generator.shuffle(texts)  # neither order nor company nor kind of file matters
    again = read_poems(write(tmp_path / "b.jsonl.gz", jsonl(*({"lines": [t]} for t in texts[:4000]))))
    assert all(p.split == split[p.text] for p in again)
    # Written down: a new version of the project must not move a test poem into the training split.
    fixed = {"".join(NIGHT): "train", "".join(TOWER): "train", "".join(DAWN): "train", "roses are red": "train"}
    fixed |= {"poem 5": "test", "poem 7": "test", "poem 15": "val", "poem 43": "val"}
    assert splits_of(tmp_path / "c.txt", list(fixed)) == fixed


def test_poems_that_share_a_couplet_or_are_nearly_the_same_get_one_split(tmp_path):
    """Pairs of poems that are related in some way; each poem is related to one other only."""
    pairs, others = [], []
    for width in (4, 5, 7) * 40:
        poem, variant, quoted = ([line(width) for _ in range(4)] for _ in range(3))
        other = [line(width) for _ in range(8)]
        pairs.append((poem, [*other[:3], *poem[2:], *other[3:]]))  # a couplet in a longer poem
        pairs.append((variant, [verse[:-1] + line(1) if i else verse for i, verse in enumerate(variant)]))
        others.append((quoted, [quoted[0], *(line(width) for _ in range(7))]))  # a verse alone is a quotation
    texts = [["，".join(verses) + "。" for verses in pair] for pair in (*pairs, *others)]
    flat = [text for pair in texts for text in pair]
    split = splits_of(tmp_path / "a.txt", flat)
    assert all(split[a] == split[b] for a, b in texts[: len(pairs)])
    assert any(split[a] != split[b] for a, b in texts[len(pairs) :])
    assert set(split.values()) == set(SPLITS)
    generator.shuffle(flat)
    assert splits_of(tmp_path / "b.txt", flat) == split


def test_lines_of_another_language_in_two_poems_keep_them_together(tmp_path):
    blocks = []
    for word in map(str, range(60)):
        lines = f"the {word} is on the lawn,\nand the dew lies long on {word}"
        blocks += [f"{lines}\nfor {word}", f"o {word}\n{lines.upper()}!"]
    split = [p.split for p in read_poems(write(tmp_path / "a.txt", "\n\n".join(blocks)))]
    assert split[::2] == split[1::2] and len(set(split)) == 3


def test_a_poem_without_a_split_follows_its_relative_that_has_one(tmp_path):
    poems = [to_lines([f"{line(7)}，{line(7)}。{line(7)}，{line(7)}。"]) for _ in range(40)]
    copies = [{"lines": [*poems[0], "春江花月夜，今夕是何年。"]}, *({"lines": poem[:1]} for poem in poems[1:])]
    records = [*copies, *({"lines": poem, "split": "test"} for poem in poems)]
    assert {p.split for p in read_poems(write(tmp_path / "p.jsonl", jsonl(*records)))} == {"test"}


@pytest.mark.parametrize("n", [3, 4, 10, 30])
def test_a_small_corpus_has_every_split(tmp_path, n):
    for start in range(0, 200, 20):
        split = splits_of(tmp_path / f"{start}.txt", [f"line {i} of nothing" for i in range(start, start + n)])
        assert set(split.values()) == set(SPLITS) and len(split) == n


def test_choose_split(tmp_path):
    records = [{"lines": [f"poem {i}"], "split": split} for i, split in enumerate(["train", "val", "train"])]
    poems = read_poems(write(tmp_path / "p.jsonl", jsonl(*records)))
    assert [p.text for p in choose_split(poems, "train")] == ["poem 0", "poem 2"]
    with pytest.raises(UserError, match="none of the 3 poems is in the test split"):
        choose_split(poems, "test")


def test_real_poems_are_read_as_their_own_table_says(tmp_path):
    poems = read_poems(tang_test_split(tmp_path))
    assert Counter(p.split for p in poems) == {"test": 1_054}
    assert all(form_of(p.lines) == p.form for p in poems)
