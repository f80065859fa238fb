"""A strict judge of regulated verse (近体诗) and of whether a poem is about its title, for benchmarks/verse.py.

Its rules are written from the forms themselves and share nothing with the code that writes poems; it knows no network.
N poems, C candidate titles of each; characters stand for their readings in a table like rhyme.json.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import svds
from sklearn.feature_extraction.text import CountVectorizer

FORMS = {"五绝": (4, 5), "七绝": (4, 7), "五律": (8, 5), "七律": (8, 7)}  # verses, characters in each

# ----------------------------------------------------------------------------------------------------------- the rules

# The four verses of five characters by their tones; those of seven have the opposite of the first two in front.
VERSES = {"A": "仄仄平平仄", "B": "平平平仄仄", "a": "平平仄仄平", "b": "仄仄仄平平"}
OPPOSITE = str.maketrans("平仄", "仄平")
RULES = ("孤平", "三平尾", "失对", "失粘")  # faults that can be named where nothing else is wrong


class RhymeTable:
    """Tones and 平水韵 groups: {"groups": {group: tone}, "chars": {character: [[平 or 仄, group], …]}}."""

    def __init__(self, table: dict):
        self.tones = {c: {tone for tone, _ in readings} for c, readings in table["chars"].items()}
        self.groups = {c: {group for _, group in readings} for c, readings in table["chars"].items()}
        self.level = {group for group, tone in table["groups"].items() if tone == "平"}

    @classmethod
    def read(cls, path: str | Path) -> "RhymeTable":
        return cls(json.loads(Path(path).read_text(encoding="utf-8")))

    def tone(self, character: str) -> set[str]:
        """The tones that it may have; both if the table lacks it."""
        return self.tones.get(character, {"平", "仄"})


def verses_of(lines: Iterable[str]) -> list[str]:
    """The verses of printed lines, without punctuation."""
    return [verse for verse in re.split("[，。？！；、\n]", "\n".join(lines)) if verse]


def rhymes(verses: Sequence[str], table: RhymeTable, level: bool = True, first: bool = False) -> bool:
    """Whether the even verses share a rhyme group, by any reading of their last characters.

    `level`: only a group of level tone counts. `first`: a first verse that can only end in level tone must share it.
    """
    shared = set.intersection(*(table.groups.get(verse[-1], set()) for verse in verses[1::2]))
    if level:
        shared &= table.level
    end = verses[0][-1]
    if first and table.tone(end) == {"平"}:
        shared &= table.groups[end]
    return bool(shared)


def tone_fault(verses: Sequence[str], form: str, table: RhymeTable) -> str:
    """The empty string if the poem has one of the four patterns of its form by some reading of its characters.

    Else the one of RULES without which it would have; "平仄" where no single rule is to blame.
    """
    tones = [[table.tone(c) for c in verse] for verse in verses]
    for lifted in ("", *RULES):
        fitting = [{kind for kind in VERSES if _fits(verse, kind, lifted)} for verse in tones]
        if any(all(k in f for k, f in zip(order, fitting, strict=True)) for order in _orders(len(verses), lifted)):
            return lifted
    return "平仄"


def _fits(verse: Sequence[set[str]], kind: str, lifted: str) -> bool:
    return any(all(t in may for t, may in zip(want, verse, strict=True)) for want in _tones(kind, len(verse), lifted))


@cache
def _tones(kind: str, width: int, lifted: str) -> tuple[str, ...]:
    """Every row of tones that is a regular verse of this kind, the rule `lifted` left aside."""
    model = VERSES[kind] if width == 5 else VERSES[kind][:2].translate(OPPOSITE) + VERSES[kind]
    return tuple(t for t in map("".join, product("平仄", repeat=width)) if _regular(t, model, kind, lifted))


def _regular(tones: str, model: str, kind: str, lifted: str) -> bool:
    end = tones[-5:]
    if kind == "B" and end == "平平仄平仄":  # the usual variant of 平平平仄仄
        return tones[1] == model[1]
    # 一三五不论: the odd places are free, but not the last; the two faults that this can lead to are not allowed
    if any(tones[i] != model[i] for i in (*range(1, len(model) - 1, 2), len(model) - 1)):
        return False
    if end.endswith("平平平") and lifted != "三平尾":
        return False
    return lifted == "孤平" or kind != "a" or end[0] + end[2] != "仄仄"  # 仄平平仄平 makes up for its first character


@cache
def _orders(count: int, lifted: str) -> tuple[tuple[str, ...], ...]:
    """The kinds of `count` verses, one after the other, that 对 and 粘 allow, the rule `lifted` left aside."""
    opens = {kind: tones[1] for kind, tones in VERSES.items()}  # 平起 or 仄起: of the second character
    orders = []
    for order in product("ABab", *["ab", "AB"] * (count // 2 - 1), "ab"):  # all verses but the first end in 仄, 平, …
        opposed = all(opens[x] != opens[y] for x, y in zip(order[::2], order[1::2], strict=True))
        linked = all(opens[x] == opens[y] for x, y in zip(order[1:-1:2], order[2::2], strict=True))
        if (opposed or lifted == "失对") and (linked or lifted == "失粘"):
            orders.append(order)
    return tuple(orders)


def bigrams(verses: Iterable[str]) -> list[str]:
    """Pairs of neighbours inside a verse."""
    return [a + b for verse in verses for a, b in pairwise(verse)]


# ------------------------------------------------------------------------------------------------------- the whole poem


@dataclass
class Verdict:
    """What the judge says of one poem. Without the form nothing else is judged, and counts as a failure."""

    form: bool
    rhyme: bool = False  # even verses, one group of level tone
    first_rhyme: bool = False  # and the first verse, if it ends in level tone
    any_rhyme: bool = False  # even verses, a group of whatever tone
    tones: str = "平仄"  # see tone_fault
    unknown: bool = True  # a character that the table lacks: it was taken for either tone
    same_rhyme: bool = True  # a rhyme character twice
    thrice: bool = True  # a character three times
    twin: bool = True  # a bigram twice
    copied: bool = True  # a verse of the corpus
    variety: float = 0.0  # different characters / characters


def judge(lines: Iterable[str], form: str, table: RhymeTable, corpus: Collection[str]) -> Verdict:
    """Judges printed lines as a poem of `form` (one of FORMS); `corpus` are the verses that must not come again."""
    verses, (count, width) = verses_of(lines), FORMS[form]
    if [len(verse) for verse in verses] != [width] * count:
        return Verdict(form=False)
    text = "".join(verses)
    ends = [verse[-1] for verse in verses[1::2]]
    return Verdict(
        form=True,
        rhyme=rhymes(verses, table),
        first_rhyme=rhymes(verses, table, first=True),
        any_rhyme=rhymes(verses, table, level=False),
        tones=tone_fault(verses, form, table),
        unknown=any(c not in table.tones for c in text),
        same_rhyme=len(set(ends)) < len(ends),
        thrice=max(Counter(text).values()) >= 3,
        twin=max(Counter(bigrams(verses)).values()) >= 2,
        copied=any(verse in corpus for verse in verses),
        variety=len(set(text)) / len(text),
    )


def distinct_bigrams(groups: Sequence[Sequence[Sequence[str]]], counts: Sequence[int], rounds: int = 20) -> float:
    """Different ones per 1,000 bigrams of counts[i] poems (verses each) of group i, a form; mean of `rounds` draws.

    More poems repeat more bigrams: only figures of equal forms and counts can be compared.
    """
    random = np.random.default_rng(0)
    found = []
    for _ in range(rounds):
        drawn = [
            pair
            for poems, count in zip(groups, counts, strict=True)
            for i in random.choice(len(poems), count, replace=False)
            for pair in bigrams(poems[i])
        ]
        found.append(1000 * len(set(drawn)) / len(drawn))
    return float(np.mean(found))


# ------------------------------------------------------------------------------------------------------------ the title

# What says nothing of the content: which of several, how many, which form, notes.
SERIAL = re.compile(
    r"[（(].*?[)）]|\s[一二三四五六七八九十〇百]+$|\s|其[一二三四五六七八九十〇百]+|[一二三四五六七八九十〇百]+[首章绝咏韵]|并序|并引|五言|七言|绝句|律诗"
)
EMPTY = (
    "无题 偶题 偶成 偶作 偶书 失题 诗 句 偈 颂 偈颂 杂诗 杂咏 口号 口占 即事 "
    "漫兴 漫成 漫书 杂兴 书怀 遣怀 遣兴 感怀 感兴 有感 咏怀 述怀 古意 古风 戏作"
).split()


def title_core(title: str) -> str:
    """The title without serial numbers, form and notes; the empty string if it is one of those that say nothing."""
    core = SERIAL.sub("", title)
    return "" if core in EMPTY else core


def is_informative(core: str, counts: Counter, minimum: int = 20) -> bool:
    """Whether it has two characters at least that stand in `minimum` titles (`counts`, by character)."""
    return sum(counts[c] >= minimum for c in set(core)) >= 2


def choices(right: Sequence[str], pool: Collection[str], count: int = 10, seed: int = 0) -> list[list[str]]:
    """For each right title a list of `count`: itself, then others drawn from `pool` (ValueError if too few)."""
    random, others = np.random.default_rng(seed), sorted(set(pool))
    if len(others) < count:
        raise ValueError(f"{len(others)} titles are too few to draw {count}")
    drawn = []
    for title in right:
        picked = [others[i] for i in random.choice(len(others), count, replace=False)]
        drawn.append([title, *[t for t in picked if t != title][: count - 1]])
    return drawn


class ThemeJudge:
    """Says which title a poem has, by two ways that it learns from titles and bodies of a corpus, and by both together.

    "words": the probability of the body's characters given those of the title, each character being the translation
    of one of the title's or of none (IBM model 1, Brown et al. 1993). "senses": the angle between title and body in
    the directions in which the two vary together (canonical correlation, Hotelling 1936), characters counted once.

    Args:
        titles, bodies: of the corpus, one of each for a poem; bodies without punctuation.
        rounds: of expectation-maximisation; more overfit.
        directions: of the correlation.
    """

    MINIMUM = 20  # poems that a character must stand in
    SMOOTHING = 500.0  # characters of the whole corpus that are added to what a title's character gave rise to
    RIDGE = 1e-3  # variance added to that of each character

    def __init__(self, titles: Sequence[str], bodies: Sequence[str], rounds: int = 2, directions: int = 200):
        self.bags = [CountVectorizer(analyzer=list, binary=True, min_df=self.MINIMUM) for _ in ("bodies", "titles")]
        x, y = (bag.fit_transform(texts) for bag, texts in zip(self.bags, (bodies, titles), strict=True))
        self.body_ids, self.title_ids = (bag.vocabulary_ for bag in self.bags)
        self._learn_words(titles, bodies, rounds)
        self._learn_senses(sparse.csr_array(x), sparse.csr_array(y), directions)

    def score(self, bodies: Sequence[str], titles: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """N bodies, C titles for each -> {"words", "senses", "both": (N, C)}, the greater the likelier."""
        words = np.array([[self._log_p(body, t) for t in own] for body, own in zip(bodies, titles, strict=True)])
        senses = self._cosines(bodies, titles)
        both = sum((s - s.mean(1, keepdims=True)) / s.std(1, keepdims=True).clip(1e-9) for s in (words, senses))
        return {"words": words, "senses": senses, "both": both}

    def right(self, bodies: Sequence[str], titles: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """{way: (N,) whether it picks the first title}."""
        return {way: (s[:, :1] > s[:, 1:]).all(1) for way, s in self.score(bodies, titles).items()}

    def _learn_words(self, titles: Sequence[str], bodies: Sequence[str], rounds: int) -> None:
        targets = [[self.body_ids[c] for c in body if c in self.body_ids] for body in bodies]
        sources = [self._sources(title) for title in titles]
        shape = (len(self.title_ids) + 1, len(self.body_ids))  # row 0: a character that the title does not explain
        overall = np.bincount([i for target in targets for i in target], minlength=shape[1])[None] / sum(
            map(len, targets)
        )
        self.p = np.full(shape, 1 / shape[1])
        for number in range(rounds):
            counts = np.zeros(shape)
            for start in range(0, len(titles), 8000):
                counts += self._expected(targets[start : start + 8000], sources[start : start + 8000])
            weight = self.SMOOTHING if number == rounds - 1 else 20.0
            self.p = (counts + weight * overall) / (counts.sum(1, keepdims=True) + weight)

    def _expected(self, targets: list[list[int]], sources: list[list[int]]) -> np.ndarray:
        """How often each character of a title gave rise to each of a body, as it is now believed: shape of p."""
        row = np.concatenate([np.tile(s, len(t)) for t, s in zip(targets, sources, strict=True)])
        column = np.concatenate([np.repeat(t, len(s)) for t, s in zip(targets, sources, strict=True)]).astype(int)
        sizes = [len(s) for t, s in zip(targets, sources, strict=True) for _ in t]
        token = np.repeat(np.arange(len(sizes)), sizes)
        p = self.p[row, column]
        share = p / np.bincount(token, p)[token]
        return np.bincount(row * self.p.shape[1] + column, share, minlength=self.p.size).reshape(self.p.shape)

    def _sources(self, title: str) -> list[int]:
        return [0, *(self.title_ids[c] + 1 for c in sorted(set(title)) if c in self.title_ids)]

    def _log_p(self, body: str, title: str) -> float:
        columns = [self.body_ids[c] for c in sorted(set(body)) if c in self.body_ids]
        return float(np.log(self.p[np.ix_(self._sources(title), columns)].mean(0)).sum())

    def _learn_senses(self, x: sparse.csr_array, y: sparse.csr_array, directions: int) -> None:
        """x, y: (poems, characters) with a 1 where the character stands in the body, in the title."""
        self.means = x.mean(0), y.mean(0)

        def covariance(a: sparse.csr_array, b: sparse.csr_array) -> np.ndarray:
            return (a.T @ b).toarray() / a.shape[0] - np.outer(a.mean(0), b.mean(0))

        roots = [linalg.cholesky(covariance(a, a) + self.RIDGE * np.eye(a.shape[1]), lower=True) for a in (x, y)]
        whitened = linalg.solve_triangular(roots[0], covariance(x, y), lower=True)
        whitened = linalg.solve_triangular(roots[1], whitened.T, lower=True).T
        u, strength, v = svds(whitened, min(directions, min(whitened.shape) - 1), random_state=0)
        self.maps = [
            linalg.solve_triangular(root, side * np.sqrt(strength), lower=True, trans="T")
            for root, side in zip(roots, (u, v.T), strict=True)
        ]

    def _cosines(self, bodies: Sequence[str], titles: Sequence[Sequence[str]]) -> np.ndarray:
        flat = [title for own in titles for title in own]
        sides = []
        for texts, bag, mean, to in zip((bodies, flat), self.bags, self.means, self.maps, strict=True):
            projected = bag.transform(texts) @ to - mean @ to
            sides.append(projected / np.linalg.norm(projected, axis=1, keepdims=True).clip(1e-9))
        return np.einsum("nd,ncd->nc", sides[0], sides[1].reshape(len(bodies), -1, sides[1].shape[1]))
