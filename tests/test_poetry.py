"""data/vocabulary.py, data/poetry.py: forms, characters to ids and back; sequences lose nothing and add nothing."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from data.poetry import IGNORE, PoetryDataset, character_counts, collate
from data.verse import FORMS, OTHER_FORMS, PAUSES, STOPS, Poem, form_of, to_lines, verses
from data.vocabulary import AUTHOR, BOS, EOS, KEYWORD, MORE, SPECIALS, TITLE, Vocabulary

DAWN, DAWN_TRADITIONAL = "春眠不觉晓，处处闻啼鸟。", "春眠不覺曉，處處聞啼鳥。"


def verse(parts: int, width: int, start: int = 0x4E00) -> str:
    """Verses of different characters, two a couplet."""
    rows = ["".join(chr(start + v * width + i) for i in range(width)) for v in range(parts)]
    return "".join(row + ("，" if v % 2 == 0 and v < parts - 1 else "。") for v, row in enumerate(rows))


def test_form_is_told_by_the_shape():
    shapes = {**FORMS, "五言": (6, 5), "七言": (3, 7), "杂言": (4, 6)}
    assert {name: form_of(to_lines([verse(*shape)])) for name, shape in shapes.items()} == {n: n for n in shapes}
    assert form_of([verse(2, 5), verse(2, 7)]) == "杂言"
    assert form_of(to_lines(["春眠不觉晓？处处闻啼鸟！夜来风雨声；花落知多少。"])) == "五绝"
    assert form_of(["春眠不觉晓"]) == form_of(["Shall I compare thee"]) == form_of([]) == ""


def test_to_lines_loses_nothing_and_is_stable():
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(generator.choice("春江花月夜" + PAUSES + STOPS) for _ in range(generator.randint(1, 40)))
        lines = to_lines([text])
        assert "".join(lines) == text
        assert to_lines(lines) == lines
        assert all(line[-1] in STOPS and not set(line.rstrip(STOPS)) & set(STOPS) for line in lines[:-1])
        assert verses(text) == [v for v in "".join(" " if c in PAUSES + STOPS else c for c in text).split(" ") if v]


def test_vocabulary_is_ordered_by_frequency_and_knows_the_unknown():
    poems = [Poem(["aaac", "cb"], title="bd", author="a")]  # a 4, b 2, c 2, d 1, line break 1
    vocabulary = Vocabulary.build(poems)
    assert vocabulary.characters == [*SPECIALS, "a", "b", "c", "\n", "d"]
    assert Vocabulary.build(poems, min_count=2).characters == [*SPECIALS, "a", "b", "c"]
    assert Vocabulary(vocabulary.characters).ids == vocabulary.ids
    ids = vocabulary.encode("abz")
    assert ids[2] == vocabulary.unknown and vocabulary.decode(ids) == "ab"
    assert vocabulary.encode("") == [] and vocabulary.decode([]) == ""
    assert len({vocabulary.pad, vocabulary.unknown, vocabulary.bos, vocabulary.eos}) == 4


def test_fold_goes_to_the_form_that_is_known_and_names_the_rest():
    simplified = Vocabulary.build([Poem([DAWN + "后发"])])
    assert simplified.fold(DAWN_TRADITIONAL + "后髮發") == (DAWN + "后发发", "")
    assert Vocabulary.build([Poem([DAWN_TRADITIONAL])]).fold(DAWN) == (DAWN_TRADITIONAL, "")
    assert Vocabulary.build([Poem(["后後"])]).fold("後后") == ("後后", "")  # what is known stays as it is
    assert simplified.fold("春🌕x🌕<") == ("春🌕x🌕<", "🌕x<")
    assert simplified.fold("") == ("", "")


# --------------------------------------------------------------------------------------------------- sequences


def corpus(seed: int, longest: int = 300) -> list[Poem]:
    """Poems in which no character but punctuation occurs twice, titles and authors included."""
    generator = random.Random(seed)
    fresh = iter(range(0x4E00, 0x9FFF))
    poems, left = [], 6000
    while left > 0 and len(poems) < 120:
        count = generator.choice([1, 5, 24, 48, generator.randint(1, longest)])
        lines, line = [], ""
        for _ in range(count):
            line += chr(next(fresh))
            if generator.random() < 0.15:
                line += generator.choice("，、。？！；" if seed % 2 else " ,")
            if line[-1] in STOPS or (not seed % 2 and len(line) > generator.randint(10, 40)):
                lines, line = [*lines, line], ""
        lines = [*lines, line + ("。" if seed % 2 else "x")]
        title, author = ("".join(chr(next(fresh)) for _ in range(generator.choice([0, 3, 40]))) for _ in range(2))
        poems.append(Poem(lines, title, author, generator.choice([*FORMS, *OTHER_FORMS, ""])))
        left -= count + len(title) + len(author)
    return poems


def dataset_of(poems: list[Poem], *options, **more) -> PoetryDataset:
    return PoetryDataset(poems, Vocabulary.build(poems), *options, **more)


def sequences(dataset: PoetryDataset) -> list[tuple[list[str], list[bool]]]:
    characters = dataset.vocabulary.characters
    return [
        ([characters[i] for i in s["ids"]], s["counted"].tolist())
        for s in map(dataset.__getitem__, range(len(dataset)))
    ]


@pytest.mark.parametrize(
    "seed, length, condition", [(0, 0, "all"), (1, 0, "random"), (0, 8, "random"), (1, 128, "none"), (0, 128, "random")]
)
def test_every_character_is_a_target_once_an_epoch_and_follows_its_neighbour(seed, length, condition):
    poems = corpus(seed)
    dataset = dataset_of(poems, condition, length, seed)
    texts = [p.text for p in poems]
    before = {c: t[i - 1] if i else BOS for t in texts for i, c in enumerate(t)}  # only asked for unique ones
    unique = Counter("".join(texts))
    for epoch in range(2):
        dataset.set_epoch(epoch)
        targets: Counter = Counter()
        for tokens, counted in sequences(dataset):
            assert not length or len(tokens) <= length
            assert not counted[0]
            for previous, token, is_target in zip(tokens, tokens[1:], counted[1:], strict=False):
                if is_target:
                    targets[token] += 1
                    if unique[token] == 1 and previous != MORE:
                        assert before[token] == previous
        assert targets == Counter("".join(texts)) + Counter({EOS: len(poems)})
        assert dataset.characters == sum(targets.values())
        counts = character_counts(poems, dataset.vocabulary).tolist()
        assert {c: n for c, n in zip(dataset.vocabulary.characters, counts, strict=True) if n} == targets


@pytest.mark.parametrize("seed", range(2))
def test_long_poems_are_cut_at_line_ends(seed):
    poems, length = corpus(seed, longest=900), 100
    assert max(len(line) for p in poems for line in p.lines) < length - 2
    after = {b: a for p in poems for a, b in zip(p.text, p.text[1:], strict=False)}
    found = [tokens for tokens, _ in sequences(dataset_of(poems, "none", length))]
    starts = [b for tokens in found for a, b in zip(tokens, tokens[1:], strict=False) if a == MORE]
    # x is no unique character: it starts a chunk as a line of its own
    assert starts and all(b in (EOS, "x") or after[b] in STOPS + "\n" for b in starts)


def test_a_line_longer_than_a_sequence_is_cut_where_it_is():
    dataset = dataset_of([Poem([verse(1, 1000)])], "none", 64)
    assert all(len(tokens) <= 64 for tokens, _ in sequences(dataset))
    assert dataset.characters == 1002 and len(dataset) == 17  # with full stop and end token, in chunks of 62
    for length in range(5, 16):
        dataset = dataset_of([Poem(["x" * length])], "none", 8)
        assert sum(sum(counted) for _, counted in sequences(dataset)) == length + 1
        assert (len(dataset) == 1) == (length + 2 <= 8)


def test_conditions_all_none_and_random():
    poems = [Poem(["春江。"], "花月", "张", "杂言"), Poem(["plain"]), Poem(["夜。"], title="长" * 40)]
    given, bare = ([(*tokens,) for tokens, _ in sequences(dataset_of(poems, c, 0))] for c in ("all", "none"))
    assert given == [
        ("<杂言>", AUTHOR, "张", TITLE, "花", "月", BOS, "春", "江", "。", EOS),
        (BOS, *"plain", EOS),
        (TITLE, *"长" * 30, BOS, "夜", "。", EOS),  # a title of prose is cut
    ]
    assert bare == [(BOS, *p.text, EOS) for p in poems]
    many = dataset_of([Poem([verse(4, 5)], "题", "人", "五绝") for _ in range(2000)], "random", 128)
    counts = Counter(token for tokens, _ in sequences(many) for token in tokens)
    assert all(abs(counts[token] / 2000 - 0.35) < 0.05 for token in (AUTHOR, TITLE, "<五绝>"))


def test_keywords_are_words_of_the_poem_and_rarely_common_characters():
    poems = [Poem([verse(4, width, 0x4E00 + 28 * seed)], "题", "人") for seed in range(400) for width in (5, 7)]
    lengths, with_keywords, places = Counter(), 0, set()
    for (tokens, counted), poem in zip(sequences(dataset_of(poems, "random", 0)), poems, strict=True):
        condition = tokens[: tokens.index(BOS)]
        assert sum(counted) == len(poem.text) + 1
        words = "".join(condition[condition.index(KEYWORD) :]).split(KEYWORD)[1:] if KEYWORD in condition else []
        with_keywords += bool(words)
        lengths.update(map(len, words))
        for word in words:
            assert word in poem.text
            if len(word) == 2 and poem.text.count(word) == 1:  # words, not what stands across two of them
                found = next(v for v in verses(poem.text) if word in v)
                places.add((len(found), found.index(word)))
    assert set(lengths) == {1, 2} and 0.15 < with_keywords / len(poems) < 0.26
    assert places == {(5, 0), (5, 2), (5, 3), (7, 0), (7, 2), (7, 4), (7, 5)}
    poems = [Poem(["不" * 4 + chr(0x4E00 + i) + "。"]) for i in range(2000)]
    found = [tokens[: tokens.index(BOS)] for tokens, _ in sequences(dataset_of(poems, "random", 0))]
    words = Counter(token for condition in found for token in condition if token != KEYWORD)
    assert 0 < words["不"] < words.total() / 2  # four of five characters are 不


def test_the_poems_of_a_sequence_are_numbered():
    poems = [Poem([verse(2, 5, 0x4E00 + 10 * seed)], "题目", "人", "五绝") for seed in range(50)]
    dataset = dataset_of(poems, "random", 64)
    for index in range(len(dataset)):
        sample = dataset[index]
        ends = [i + 1 for i in np.flatnonzero(sample["ids"] == dataset.vocabulary.eos)]
        expected = [n for n, (a, b) in enumerate(zip([0, *ends], ends, strict=False)) for _ in range(b - a)]
        assert sample["poem"].tolist() == expected
    assert sum(len(tokens) for tokens, _ in sequences(dataset)) / (64 * len(dataset)) > 0.85, "nearly full"


def test_an_epoch_is_a_function_of_seed_and_epoch():
    poems = corpus(1)

    def epoch_of(dataset: PoetryDataset, epoch: int) -> tuple:
        dataset.set_epoch(epoch)
        return sequences(dataset), dataset.batches(4, epoch)

    one, other = (dataset_of(poems, "random", 64, seed=3) for _ in range(2))
    forward = [epoch_of(one, epoch) for epoch in range(4)]
    backward = [epoch_of(other, epoch) for epoch in reversed(range(4))][::-1]
    assert forward == backward
    for part in (0, 1):
        assert all(forward[a][part] != forward[b][part] for a in range(4) for b in range(a))
    assert epoch_of(dataset_of(poems, "random", 64, seed=4), 0) != forward[0]
    whole = dataset_of(poems, "none", 0)  # the same sequences in every epoch, but not the same batches
    assert whole.batches(4, 0) != whole.batches(4, 1)
    state = np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist(), random.getstate()
    epoch_of(one, 5)  # global generators are left alone
    assert (np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist(), random.getstate()) == state


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_hold_every_sequence_once(shuffle):
    dataset = dataset_of(corpus(2), "none", 0)
    batches = dataset.batches(7, 0, shuffle)
    assert sorted(index for batch in batches for index in batch) == list(range(len(dataset)))
    assert all(len(batch) == 7 for batch in batches[:-1])
    lengths = [len(dataset[index]["ids"]) for batch in batches for index in batch]
    assert (lengths == sorted(lengths)) != shuffle


def test_collate_shifts_by_one_and_pads_on_the_right():
    samples = [
        {"ids": np.array([9, 2, 20, 21, 3, 2, 22, 3]), "counted": np.array([0, 0, 1, 1, 1, 0, 1, 1], bool)},
        {"ids": np.array([2, 20, 3]), "counted": np.array([0, 1, 1], bool)},
    ]
    samples[0]["poem"], samples[1]["poem"] = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 0])
    batch, _ = collate(samples), IGNORE
    assert batch["poem"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, -1, -1, -1, -1, -1]]
    assert batch["ids"].tolist() == [[9, 2, 20, 21, 3, 2, 22], [2, 20, 0, 0, 0, 0, 0]]
    assert batch["targets"].tolist() == [[_, 20, 21, 3, _, 22, 3], [20, 3, _, _, _, _, _]]
    assert batch["ids"].dtype == batch["targets"].dtype == torch.long
    poems = corpus(3)
    dataset = dataset_of(poems, "random", 64)
    total = torch.zeros(len(dataset.vocabulary), dtype=torch.long)
    for indices in dataset.batches(5, 0):  # no target is lost
        batch = collate([dataset[index] for index in indices])
        total += batch["targets"][batch["targets"] != IGNORE].bincount(minlength=len(total))
    assert torch.equal(total, character_counts(poems, dataset.vocabulary))
