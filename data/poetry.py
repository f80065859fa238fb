"""Poems as training samples: packed into sequences of token ids without waste.

A poem becomes [form] [author …] [title …] [keywords …] <bos> body <eos>. The part before <bos> is a condition and is
left out at random in training, so that one network writes with and without it.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.verse import STOPS, Poem
from data.vocabulary import KEYWORD, MORE, SPECIALS, Vocabulary

IGNORE = -1  # target of positions that are not counted: padding and condition


def character_counts(poems: Iterable[Poem], vocabulary: Vocabulary) -> Tensor:
    """(V,) how often each sign is a target in the bodies of the poems."""
    counts = np.zeros(len(vocabulary), np.int64)
    for poem in poems:
        np.add.at(counts, [*vocabulary.encode(poem.text), vocabulary.eos], 1)
    return torch.from_numpy(counts)


class PoetryDataset(Dataset):
    """Rows of ids to train or judge on; a row holds one poem after the other, as many as fit.

    Rows keep padding away: poems have 20 to 3,000 characters, rows are all nearly full, and a batch of rows is as mixed
    as the corpus, which a batch of poems of equal length is not.

    Args:
        row_length: signs in a row; longer poems are cut into stretches at the ends of lines, a later stretch starts
            with <more> instead of <bos>. 0: one whole poem a row, in the order given; for judging.
        condition: "none" (text alone), "all" (form, author and title given) or "random": in training half of the poems
            get none, in the others form, author and title are each there with probability 0.7, and one to four
            keywords, words of the poem itself, with probability 0.5.
        seed: which conditions are drawn and which poems share a row is a function of (seed, epoch), so that a resumed
            run sees what the uninterrupted one would have seen.
    """

    def __init__(
        self, poems: list[Poem], vocabulary: Vocabulary, condition: str = "random", row_length: int = 128, seed: int = 0
    ):
        self.vocabulary, self.condition, self.row_length, self.seed = vocabulary, condition, row_length, seed
        # ids of form, author and title of each poem
        self.conditions = [vocabulary.condition(p.form, p.author, p.title)[:3] for p in poems]
        self.stretches: list[tuple[int, np.ndarray]] = []  # (poem, ids with <bos> or <more> in front)
        for number, poem in enumerate(poems):
            body = np.array([vocabulary.bos, *vocabulary.encode(poem.text), vocabulary.eos], np.int32)
            for start, stop in _stretches(poem.text, row_length):
                ids = body[start:stop].copy()
                ids[0] = vocabulary.bos if start == 0 else vocabulary.ids[MORE]
                self.stretches.append((number, ids))
        self.characters = sum(len(ids) - 1 for _, ids in self.stretches)  # counted ones: bodies and end marks
        self.keyword = _KeywordChoice(vocabulary, [ids for _, ids in self.stretches])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws the conditions and the rows of that epoch."""
        n = len(self.stretches)
        random = np.random.default_rng((self.seed, epoch, 0))
        self.given = [self.conditions[poem] if self.condition == "all" else [] for poem, _ in self.stretches]
        if self.condition == "random":
            chosen = random.random(n) < 0.5
            parts = random.random((n, 4)) < (0.7, 0.7, 0.7, 0.5)
            for i in chosen.nonzero()[0]:
                poem, body = self.stretches[i]
                keywords = self.keyword.draw(body, random) if parts[i, 3] else []
                whole = (*self.conditions[poem], keywords)
                self.given[i] = [part for part, there in zip(whole, parts[i], strict=True) if there]
        if self.row_length:
            lengths = [
                len(ids) + sum(map(len, given)) for (_, ids), given in zip(self.stretches, self.given, strict=True)
            ]
            self.rows = _pack(lengths, random.permutation(n), self.row_length)
        else:
            self.rows = [[i] for i in range(n)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """A row of n signs: {"ids": (n,), "counted": (n,) whether the loss counts the sign (bodies and end marks, not
        conditions), "poem": (n,) the number of its poem in the row}."""
        ids, counted, poem = [], [], []
        for number in self.rows[row]:
            body = self.stretches[number][1]
            condition = [i for part in self.given[number] for i in part]
            room = max(0, self.row_length - len(body)) if self.row_length else len(condition)
            poem += [self.rows[row].index(number)] * (min(len(condition), room) + len(body))
            ids += [*condition[:room], *body]
            counted += [False] * (min(len(condition), room) + 1) + [True] * (len(body) - 1)
        return {"ids": np.array(ids), "counted": np.array(counted), "poem": np.array(poem)}

    def batches(self, batch_size: int, epoch: int, shuffle: bool = True) -> list[list[int]]:
        """The epoch's batches of row numbers; without shuffle rows of equal length together, for judging."""
        if shuffle:
            order = np.random.default_rng((self.seed, epoch, 1)).permutation(len(self))
        else:
            order = np.argsort([sum(len(self.stretches[i][1]) for i in row) for row in self.rows], kind="stable")
        return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


class _KeywordChoice:
    """Draws words of a poem: single characters, and pairs that start at an even place of their verse.

    Common characters are drawn less often, by the square root of their frequency as in word2vec (Mikolov et al. 2013):
    nobody asks for a poem about 不.
    """

    COMMON = 1e-3  # frequency from which on a character is drawn less often

    def __init__(self, vocabulary: Vocabulary, bodies: list[np.ndarray]):
        counts = np.bincount(np.concatenate(bodies), minlength=len(vocabulary))
        self.word = np.array([c not in SPECIALS and c.isalnum() for c in vocabulary.characters])
        frequency = np.maximum(counts, 1) / max(1, counts[self.word].sum())
        self.share = np.minimum(1, (self.COMMON / frequency) ** 0.5)
        self.sign = vocabulary.ids[KEYWORD]

    def draw(self, body: np.ndarray, random: np.random.Generator) -> list[int]:
        """Up to four words of the body, as ids, each behind a <keyword>."""
        keywords: list[int] = []
        letters = self.word[body]
        tries = random.integers(0, len(body), 2 * random.integers(1, 5))
        for place, pair, luck in zip(tries, random.random(len(tries)) < 0.5, random.random(len(tries)), strict=True):
            if not letters[place] or luck > self.share[body[place]]:
                continue
            start = place
            if pair:
                verse = place - int(letters[place::-1].argmin())  # the sign before the verse
                start -= (place - verse - 1) % 2
                if start + 1 >= len(body) or not letters[start + 1]:
                    start -= 1  # the last of an odd number: with the one before
            word = body[start : start + 1 + pair]
            if letters[start : start + 1 + pair].all() and self.word[word].all():
                keywords += [self.sign, *word.tolist()]
        return keywords


def _pack(lengths: list[int], order: np.ndarray, row_length: int, open_rows: int = 32) -> list[list[int]]:
    """Fills rows of `row_length` with items in that order: each goes into the fullest open row that it fits in."""
    done: list[list[int]] = []
    rows: list[list[int]] = [[] for _ in range(open_rows)]
    room = [row_length] * open_rows
    for item in order.tolist():
        length = min(int(lengths[item]), row_length)
        fitting = [r for r in room if r >= length]
        best = room.index(min(fitting if fitting else room))
        if not fitting:  # close the fullest
            done.append(rows[best])
            rows[best], room[best] = [], row_length
        rows[best].append(item)
        room[best] -= length
    return done + [row for row in rows if row]


def _stretches(text: str, row_length: int) -> list[tuple[int, int]]:
    """Where to cut <bos> + text + <eos> into stretches of at most `row_length` signs: (start, stop) pairs.

    Each starts one sign early: that place is for <bos> or <more>.
    """
    if not row_length or len(text) + 2 <= row_length:
        return [(0, len(text) + 2)]
    cuts, last, longest = [], 0, row_length - 2
    while len(text) - last > longest:
        # the last end of a line that fits; a line longer than a row is cut where it is
        fitting = [i + 1 for i in range(last, last + longest) if text[i] in STOPS + "\n"]
        last = fitting[-1] if fitting else last + longest
        cuts.append(last)
    return [(a, b + 1) for a, b in zip([0, *cuts], [*cuts, len(text) + 1], strict=True) if b > a]


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Rows -> {"ids": (B, T), "targets": (B, T), the next sign at each position or IGNORE, "poem": (B, T)}, padded."""
    length = max(len(s["ids"]) for s in samples) - 1
    ids = torch.zeros(len(samples), length, dtype=torch.long)
    targets = torch.full((len(samples), length), IGNORE, dtype=torch.long)
    poem = torch.full((len(samples), length), -1)
    for row, sample in enumerate(samples):
        sequence, counted = torch.from_numpy(sample["ids"]).long(), torch.from_numpy(sample["counted"])
        n = len(sequence) - 1
        ids[row, :n] = sequence[:-1]
        targets[row, :n] = sequence[1:].where(counted[1:], IGNORE)
        poem[row, :n] = torch.from_numpy(sample["poem"][:-1])
    return {"ids": ids, "targets": targets, "poem": poem}
