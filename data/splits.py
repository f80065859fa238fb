"""Splits of a corpus: poems that share a couplet (7 of 100 in the Tang corpus), and near duplicates, stay together."""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator

from data.verse import MARKS, Poem, is_verse
from utils.errors import UserError

SPLITS = ("train", "val", "test")
COUPLET, VERSE = 8, 4  # Chinese characters of the shortest couplet and verse that tell a poem by
LETTERS = 20  # in other languages: of two lines
ALIKE = 1 / 3  # of the pairs of characters of two poems: those that both have
NEIGHBOURS = 20  # poems that share a verse: each is compared with so many others


def choose_split(poems: list[Poem], split: str) -> list[Poem]:
    """The poems of "train", "val" or "test". Raises UserError if there is none."""
    chosen = [p for p in poems if p.split == split]
    if not chosen:
        raise UserError(f"none of the {len(poems)} poems is in the {split} split: give a larger data_root")
    return chosen


def assign_splits(poems: list[Poem]) -> None:
    """Gives poems without a split one by a hash of their text (90 : 5 : 5), and related ones the same."""
    related = _groups(poems)
    free = [group for group in related if not any(poem.split for poem in group)]
    for group in related:
        given = [split for split in SPLITS if any(poem.split == split for poem in group)]
        split = given[0] if given else {0: "val", 1: "test"}.get(_hash(group) % 20, "train")
        for poem in group:
            poem.split = poem.split or split
    for split in SPLITS if len(free) == len(related) else ():
        counts = {name: sum(group[0].split == name for group in related) for name in SPLITS}
        donors = [group for group in related if counts[group[0].split] > 1]  # a small corpus may lack one by chance
        if donors and not counts[split]:
            for poem in min(donors, key=_hash):
                poem.split = split


def _hash(group: list[Poem]) -> int:
    return min(zlib.crc32(poem.text.encode()) for poem in group)


def _groups(poems: list[Poem]) -> list[list[Poem]]:
    """The poems, those that are related together: they share a couplet, or a verse and much else."""
    parent = list(range(len(poems)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    texts = [poem.text for poem in poems]
    couplets: dict[str, int] = {}
    verses: defaultdict[str, list[int]] = defaultdict(list)
    for i, poem in enumerate(poems):
        for couplet in _couplets(poem, texts[i]):
            if (j := couplets.setdefault(couplet, i)) != i:
                parent[root(i)] = root(j)
        for verse in {verse for verse in re.split(f"[{MARKS}]", texts[i]) if len(verse) >= VERSE}:
            verses[verse].append(i)
    for numbers in (numbers for numbers in verses.values() if len(numbers) > 1):
        numbers.sort(key=texts.__getitem__)
        for place, i in enumerate(numbers[:-1]):
            for j in numbers[place + 1 : place + 1 + NEIGHBOURS]:
                if root(i) != root(j) and _alike(texts[i], texts[j]):
                    parent[root(i)] = root(j)
    groups: defaultdict[int, list[Poem]] = defaultdict(list)
    for i, poem in enumerate(poems):
        groups[root(i)].append(poem)
    return list(groups.values())


def _couplets(poem: Poem, text: str) -> Iterator[str]:
    """What tells a poem: two adjacent verses without marks, in other languages two lines; and the whole of it."""
    if is_verse(poem.lines):
        parts, least = [part for part in re.split(f"[{MARKS}]", text) if part], COUPLET
    else:
        parts, least = [re.sub(r"\W", "", line).lower() for line in poem.lines], LETTERS
    if whole := "".join(parts):
        yield whole
    for first, second in zip(parts, parts[1:], strict=False):
        if len(first) + len(second) >= least:
            yield first + second


def _alike(a: str, b: str) -> bool:
    """Whether two texts have ALIKE of their pairs of characters in common (Jaccard's index)."""
    pairs, others = ({text[i : i + 2] for i in range(len(text) - 1)} for text in (a, b))
    return len(pairs & others) >= ALIKE * len(pairs | others)
