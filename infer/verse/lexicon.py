"""What is known of the characters of one poet, as tensors: made once, and used by every poem. Nothing is decided here.

Shapes: V tokens of the vocabulary, G rhyme groups, M compounds, P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from data.vocabulary import Vocabulary
from infer.verse.pairs import read_pairs
from infer.verse.plan import token_masks
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE, RhymeTable, read_divisions
from models.poet import Poet
from utils.errors import UserError

CLASSES = (EITHER, LEVEL, OBLIQUE)
RARE = 20  # predecessors: characters that have fewer count as if they had so many
# Which power of a character's frequency the number of its predecessors grows as: 0.85, least squares over the corpus.
PREDECESSORS = 0.85


@dataclass(frozen=True)
class Compounds:
    """Compounds of two in which a character has not the readings that it has alone.

    `keys` (M), sorted: first id x V + second id, at last V x V. `first`, `second` (3, M): whether their tones in it fit
    each of CLASSES (of a first character that has all its readings any). `words`: the compounds themselves.
    """

    keys: Tensor
    first: Tensor
    second: Tensor
    words: Sequence[str]


@dataclass(frozen=True)
class Rhyming:
    """What rhymes with what: in the groups of 平水韵 (level tone only), or in the 部 of 词林正韵.

    `names` (G); `groups` (2, G, V) whether a character rhymes in it, in level and in oblique tone; `compounds`
    (2, M, G) the same of the last character of each compound; `leads` (2, G, V) the same of what often follows it.
    """

    names: list[str]
    groups: Tensor
    compounds: Tensor
    leads: Tensor
    groups_of: Callable[[str, int, str], list[str]]  # of the character at a place of a verse, in a tone


@dataclass(frozen=True)
class Pairs:
    """Which characters follow each other in verse: `keys` (P) first id x V + second id, sorted; `common` (P): often."""

    keys: Tensor
    common: Tensor
    size: int

    @classmethod
    def of(cls, vocabulary: Vocabulary, device: torch.device) -> "Pairs":
        first, second, common = read_pairs()
        ids = np.full(0x40000, -1, np.int64)
        for character, i in vocabulary.ids.items():
            if len(character) == 1 and ord(character) < len(ids):
                ids[ord(character)] = i
        first, second = ids[first], ids[second]
        known = (first >= 0) & (second >= 0)
        keys = first[known] * len(vocabulary) + second[known]
        order = np.argsort(keys)
        found = (torch.from_numpy(values).to(device) for values in (keys[order], common[known][order]))
        return cls(*found, len(vocabulary))

    def followers(self, first: Tensor) -> Tensor:
        """(R, V) whether each character follows `first` (R) in verse."""
        found = torch.zeros(len(first), self.size, dtype=torch.bool, device=first.device)
        row, number = starting(self.keys, first, self.size)
        found[row, self.keys[number] % self.size] = True
        return found

    def leads(self, sets: Tensor) -> Tensor:
        """(..., V) whether one of each of the sets (..., V) of characters often follows a character."""
        first, second = (ids[self.common] for ids in (self.keys // self.size, self.keys % self.size))
        found = torch.zeros_like(sets)
        for own, into in zip(sets.flatten(0, -2), found.flatten(0, -2), strict=True):  # views
            into[first[own[second]]] = True
        return found

    @cached_property
    def log_frequency(self) -> Tensor:
        """(V) how common each character is in verse, in nats, up to a constant: by how many characters precede it."""
        predecessors = torch.bincount(self.keys % self.size, minlength=self.size)
        return predecessors.clamp(min=RARE).log() / PREDECESSORS

    def attested(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Whether pairs of ids, of any shape, occur in verse, and whether they do often."""
        keys = first * self.size + second
        if not len(self.keys):
            return torch.zeros_like(keys, dtype=torch.bool), torch.zeros_like(keys, dtype=torch.bool)
        seen, number = find(self.keys, keys)
        return seen, seen & self.common[number]


def find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(whether it is among the sorted keys, which are some; its number there, any if it is not) of each one wanted."""
    number = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return keys[number] == wanted, number


def starting(keys: Tensor, first: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(row, number) of each of the sorted keys, first id x `size` + second id, that starts with one of `first` (R)."""
    start, end = (torch.searchsorted(keys, (first + i) * size) for i in (0, 1))
    count = end - start
    row = torch.repeat_interleave(torch.arange(len(first), device=first.device), count)
    before = count.cumsum(0) - count
    return row, start[row] + torch.arange(len(row), device=first.device) - before[row]


@dataclass(frozen=True)
class Lexicon:
    """A vocabulary with its masks (infer/verse/plan.py), the pairs that verse has, and the poet's rhyme table, if any.

    `classes` (3, V): what may stand where a class is wanted; `leads` (3, V): after what such often stands.
    """

    vocabulary: Vocabulary
    masks: dict[str, Tensor]
    pairs: Pairs
    table: RhymeTable | None
    classes: Tensor | None = None
    leads: Tensor | None = None
    compounds: Compounds | None = None

    @classmethod
    def of(cls, model: Poet) -> "Lexicon":
        """That of a model, made once for its vocabulary, metadata and device."""
        source = (model.vocab, model.metadata, model.device)
        known = _made.get(model)
        if known is None or known[0] != source:
            known = _made[model] = (source, cls._make(model))
        return known[1]

    @classmethod
    def _make(cls, model: Poet) -> "Lexicon":
        vocabulary, table = Vocabulary(model.vocab), RhymeTable.of(model.metadata)
        masks, pairs = token_masks(vocabulary, model.device), Pairs.of(vocabulary, model.device)
        if not table:
            return cls(vocabulary, masks, pairs, None)
        characters = vocabulary.characters
        tones = [table.tones(c) if len(c) == 1 else "" for c in characters]
        classes = [map(str.isalnum, characters), (LEVEL in t for t in tones), (OBLIQUE in t for t in tones)]
        classes = torch.tensor([list(fits) for fits in classes], device=model.device)
        compounds = _compounds(vocabulary, table, model.device)
        return cls(vocabulary, masks, pairs, table, classes, pairs.leads(classes), compounds)

    def masks_without(self, avoid: str) -> dict[str, Tensor]:
        """`masks` in which the characters `avoid` may stand nowhere. Raises UserError if nothing is left."""
        if not avoid:
            return self.masks
        letters = set(filter(str.isalnum, avoid))
        avoided = torch.tensor([c in letters for c in self.vocabulary.characters])
        masks = {kind: mask | avoided.to(mask.device) for kind, mask in self.masks.items()}
        if any(mask.all() for mask in masks.values()):
            raise UserError("leaves no characters to write with", avoid=None)
        return masks

    @cached_property
    def level_rhymes(self) -> Rhyming:
        """The rhymes of regulated verse."""
        return self._rhyming(self.table.level, self.table.groups, LEVEL)

    @cached_property
    def ci_rhymes(self) -> Rhyming:
        """The rhymes of 词."""
        return self._rhyming(list(read_divisions()), self.table.divisions, LEVEL + OBLIQUE)

    def _rhyming(self, names: list[str], groups_of: Callable[[str, int, str], list[str]], tones: str) -> Rhyming:
        numbers = {name: i for i, name in enumerate(names)}
        characters, words = self.vocabulary.characters, self.compounds.words
        groups = np.zeros((2, len(names), len(characters)), bool)
        compounds = np.zeros((2, len(words), len(names)), bool)
        for t, tone in enumerate(tones):
            for i, c in enumerate(characters):
                if len(c) == 1:
                    groups[t, [numbers[g] for g in groups_of(c, 0, tone)], i] = True
            for i, word in enumerate(words):
                compounds[t, i, [numbers[g] for g in groups_of(word, -1, tone)] if word else []] = True
        device = self.classes.device
        groups, compounds = (torch.from_numpy(a).to(device) for a in (groups, compounds))
        return Rhyming(names, groups, compounds, self.pairs.leads(groups), groups_of)


_made: "WeakKeyDictionary[Poet, tuple[tuple, Lexicon]]" = WeakKeyDictionary()


def _compounds(vocabulary: Vocabulary, table: RhymeTable, device: torch.device) -> Compounds:
    ids, size = vocabulary.ids, len(vocabulary)
    any_tone = LEVEL + OBLIQUE
    found = {size * size: (any_tone, any_tone, "")}  # the last one is none, so that there always is one
    for word in {*table.readings[0].compounds, *table.readings[1].compounds}:
        if word[0] in ids and word[1] in ids and table.tones(word[0]) and table.tones(word[1]):
            restricted = word[0] in table.readings[0].compounds.get(word, {})
            first = table.tones(word, 0) if restricted else any_tone
            found[ids[word[0]] * size + ids[word[1]]] = first, table.tones(word, 1), word
    keys = sorted(found)
    first, second, words = zip(*(found[key] for key in keys), strict=True)
    fits = ([[c == EITHER or c in tones for tones in own] for c in CLASSES] for own in (first, second))
    return Compounds(*(torch.tensor(values, device=device) for values in (keys, *fits)), words)
