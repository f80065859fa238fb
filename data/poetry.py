"""Poems as training samples: [form] [author …] [title …] [keywords …] <bos> body <eos>, packed into sequences of ids.

The part before <bos> is a condition, and left out at random, so that one network writes with and without it.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from data.loading import chunks
from data.verse import STOPS, Poem
from data.vocabulary import KEYWORD, MORE, SPECIALS, Vocabulary

IGNORE = -1  # target of positions that are not counted: padding and condition


def character_counts(poems: Iterable[Poem], vocabulary: Vocabulary) -> Tensor:
    """(V,) how often each token is a target in the bodies of the poems."""
    counts = np.zeros(len(vocabulary), np.int64)
    for poem in poems:
        np.add.at(counts, [*vocabulary.encode(poem.text), vocabulary.eos], 1)
    return torch.from_numpy(counts)


class PoetryDataset(Dataset):
    """Sequences of ids to train on or to evaluate; each is filled with whole poems, so that little is padding.

    Conditions and packing are a function of (seed, epoch).

    Args:
        condition: "none" (text alone), "all" (form, author and title given) or "random": half of the poems get none,
            the others form, author and title with probability 0.7 each, one to four own words with 0.5.
        sequence_length: longer poems are cut at the ends of lines; a later chunk starts with <more> instead of <bos>.
            0: one whole poem a sequence, in the order given; for evaluation.
    """

    def __init__(
        self,
        poems: list[Poem],
        vocabulary: Vocabulary,
        condition: str = "random",
        sequence_length: int = 128,
        seed: int = 0,
    ):
        self.vocabulary, self.condition, self.sequence_length, self.seed = vocabulary, condition, sequence_length, seed
        # ids of form, author and title of each poem
        self.conditions = [vocabulary.condition(p.form, p.author, p.title, tune=p.tune)[:3] for p in poems]
        self.chunks: list[tuple[int, np.ndarray]] = []  # (poem, ids with <bos> or <more> in front)
        for number, poem in enumerate(poems):
            body = np.array([vocabulary.bos, *vocabulary.encode(poem.text), vocabulary.eos], np.int32)
            for start, stop in _cut(poem.text, sequence_length):
                ids = body[start:stop].copy()
                ids[0] = vocabulary.bos if start == 0 else vocabulary.ids[MORE]
                self.chunks.append((number, ids))
        self.characters = sum(len(ids) - 1 for _, ids in self.chunks)  # counted ones: bodies and end tokens
        self.keywords = _KeywordSampler(vocabulary, [ids for _, ids in self.chunks])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws the conditions of that epoch, and packs its sequences."""
        n = len(self.chunks)
        random = np.random.default_rng((self.seed, epoch, 0))
        self.given = [self.conditions[poem] if self.condition == "all" else [] for poem, _ in self.chunks]
        if self.condition == "random":
            chosen = random.random(n) < 0.5
            parts = random.random((n, 4)) < (0.7, 0.7, 0.7, 0.5)
            for i in chosen.nonzero()[0]:
                poem, body = self.chunks[i]
                keywords = self.keywords.draw(body, random) if parts[i, 3] else []
                whole = (*self.conditions[poem], keywords)
                self.given[i] = [part for part, there in zip(whole, parts[i], strict=True) if there]
        self.sequences = [[i] for i in range(n)]  # the chunks of each
        if self.sequence_length:
            lengths = [len(ids) + sum(map(len, given)) for (_, ids), given in zip(self.chunks, self.given, strict=True)]
            self.sequences = _pack(lengths, random.permutation(n), self.sequence_length)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """A sequence of n tokens: {"ids": (n,), "counted": (n,) whether the loss counts the token (bodies and end
        tokens, not conditions), "poem": (n,) the number of its poem in the sequence}."""
        ids, counted, poem = [], [], []
        for place, chunk in enumerate(self.sequences[index]):
            body = self.chunks[chunk][1]
            condition = [i for part in self.given[chunk] for i in part]
            if self.sequence_length:
                condition = condition[: max(0, self.sequence_length - len(body))]
            ids += [*condition, *body]
            counted += [False] * (len(condition) + 1) + [True] * (len(body) - 1)
            poem += [place] * (len(condition) + len(body))
        return {"ids": np.array(ids, np.int64), "counted": np.array(counted), "poem": np.array(poem)}

    def batches(self, batch_size: int, epoch: int, shuffle: bool = True) -> list[list[int]]:
        """The epoch's batches of indices; without shuffle sequences of equal length together, for evaluation."""
        if shuffle:
            order = np.random.default_rng((self.seed, epoch, 1)).permutation(len(self))
        else:
            order = np.argsort(
                [sum(len(self.chunks[i][1]) for i in chunks) for chunks in self.sequences], kind="stable"
            )
        return chunks(order.tolist(), batch_size)


class _KeywordSampler:
    """Draws words of a poem: single characters, and pairs from even places of a verse; common ones less often."""

    COMMON = 1e-3  # frequency from which on a character is drawn less often

    def __init__(self, vocabulary: Vocabulary, bodies: list[np.ndarray]):
        counts = np.bincount(np.concatenate(bodies), minlength=len(vocabulary))
        self.word = np.array([c not in SPECIALS and c.isalnum() for c in vocabulary.characters])
        frequency = np.maximum(counts, 1) / max(1, counts[self.word].sum())
        self.probs = np.minimum(1, (self.COMMON / frequency) ** 0.5)
        self.token = vocabulary.ids[KEYWORD]

    def draw(self, body: np.ndarray, random: np.random.Generator) -> list[int]:
        """Up to four words of the body, as ids, each behind a <keyword>."""
        keywords: list[int] = []
        letters = self.word[body]
        tries = random.integers(0, len(body), 2 * random.integers(1, 5))
        for place, pair, luck in zip(tries, random.random(len(tries)) < 0.5, random.random(len(tries)), strict=True):
            if not letters[place] or luck > self.probs[body[place]]:
                continue
            start = place
            if pair:
                verse = place - int(letters[place::-1].argmin())  # the token before the verse
                start -= (place - verse - 1) % 2
                if start + 1 >= len(body) or not letters[start + 1]:
                    start -= 1  # the last of an odd number: with the one before
            word = body[start : start + 1 + pair]
            if letters[start : start + 1 + pair].all() and self.word[word].all():
                keywords += [self.token, *word.tolist()]
        return keywords


def _pack(lengths: list[int], order: np.ndarray, sequence_length: int, bins: int = 32) -> list[list[int]]:
    """Fills sequences with items in that order: each goes into the fullest open one that it fits in."""
    done: list[list[int]] = []
    open_: list[list[int]] = [[] for _ in range(bins)]
    room = [sequence_length] * bins
    for item in order.tolist():
        length = min(int(lengths[item]), sequence_length)
        fitting = [r for r in room if r >= length]
        best = room.index(min(fitting or room))
        if not fitting:  # close the fullest
            done.append(open_[best])
            open_[best], room[best] = [], sequence_length
        open_[best].append(item)
        room[best] -= length
    return done + [items for items in open_ if items]


def _cut(text: str, sequence_length: int) -> list[tuple[int, int]]:
    """Where to cut <bos> + text + <eos> into chunks: (start, stop), with room for <bos> or <more> in front."""
    if not sequence_length or len(text) + 2 <= sequence_length:
        return [(0, len(text) + 2)]
    cuts, last, longest = [], 0, sequence_length - 2
    while len(text) - last > longest:
        # the last end of a line that fits; a line longer than a sequence is cut where it is
        fitting = [i + 1 for i in range(last, last + longest) if text[i] in STOPS + "\n"]
        last = fitting[-1] if fitting else last + longest
        cuts.append(last)
    return [(a, b + 1) for a, b in zip([0, *cuts], [*cuts, len(text) + 1], strict=True) if b > a]


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Sequences -> {"ids": (B, T), "targets": (B, T), the next token or IGNORE, "poem": (B, T)}, padded."""
    ids, counted, poem = ([torch.from_numpy(s[name]) for s in samples] for name in ("ids", "counted", "poem"))
    targets = [i[1:].where(c[1:], IGNORE) for i, c in zip(ids, counted, strict=True)]
    return {
        "ids": pad_sequence([i[:-1] for i in ids], batch_first=True),
        "targets": pad_sequence(targets, batch_first=True, padding_value=IGNORE),
        "poem": pad_sequence([p[:-1] for p in poem], batch_first=True, padding_value=-1),
    }
