"""The rules of verse while it is written: which characters may stand at the next place, for many poems at once.

The rules are infer/verse/prosody.py's and infer/verse/tunes.py's; here they are masks. Nothing is drawn here.

Shapes: R poems, V characters in the vocabulary, K patterns, L rhyme letters, G rhyme groups, T places (with marks).
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from data.verse import PAIR
from infer.verse.check import tone_faults
from infer.verse.lexicon import CLASSES, Lexicon, find, starting
from infer.verse.plan import Form
from infer.verse.prosody import Pattern
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE
from infer.verse.shape import MARK, Shape

ENOUGH = 15  # characters that a rhyme group must have among the commonest: poorer ones trap a poem
COMMON = 3000
# nats that a pair which verse never has is less likely: at the places of words of two and of rhymes, and elsewhere
UNSEEN_WORD, UNSEEN = 2.0, 0.5
GAP = "\0"  # stands for a character that is yet to be written
# The same of a character from which verse does not often go on with the tone, or the rhymes, of the next place: 婵
# where 娟 is no rhyme.
DEAD_END = 3.0
REPEATED = 2.5  # nats that a character which the poem has already is less likely; a third of real poems repeat one


class Rules:
    """Tone patterns, rhyme groups and repetition for poems of one shape.

    Args:
        lexicon: the characters, and what is known of them; it has a rhyme table.
        form: that of the poem; it has a shape. Regulated verse has liberties, a pair no character twice.
        patterns: those that it may have; those are kept that the given characters fit best.
        given: character at each place, folded to the vocabulary where it can be; "" where it is to be written, and at
            the places of punctuation.
        rhyme: name of the rhyme group of the first letter; empty: each that the given characters fit best.

    Given characters that no pattern fits, or that do not rhyme, stand all the same: `remarks` names them for each
    pattern, and the others keep the rules. Raises UserError for an unknown rhyme group.
    """

    def __init__(
        self, lexicon: Lexicon, form: Form, patterns: Sequence[Pattern], given: Sequence[str], rhyme: str = ""
    ):
        vocabulary, device = lexicon.vocabulary, lexicon.classes.device
        self.lexicon, self.size, self.regulated = lexicon, len(vocabulary), form.regulated
        self.shape, self.copies, self.distinct = form.shape, form.copies, form.name == PAIR
        self.given = {place: c for place, c in enumerate(given) if c}
        self.patterns = list(patterns)
        # What each place wants: an index of CLASSES, (K, T); and whether it rhymes, (K, T).
        self.wants = torch.tensor(
            [[CLASSES.index(c) for verse in p.verses for c in verse + EITHER] for p in self.patterns]  # EITHER: a mark
        )
        self.letter = self._letters()
        self.letters = max(1, *(number + 1 for number in self.letter))
        places = [(place, verse, self.letter[place] >= 0) for place, verse in enumerate(self.shape.verses)]
        self.rhymes = torch.tensor(
            [[may and (p.rhymes[v] != "" or i in self.sources) for i, v, may in places] for p in self.patterns]
        )
        self.rhyming = lexicon.ci_rhymes if form.tune else lexicon.level_rhymes
        self.names, self.classes = self.rhyming.names, lexicon.classes  # (3, V)
        self.groups, self.compounds = self.rhyming.groups, lexicon.compounds  # (2, G, V)
        self.possible = self._possible_groups(rhyme)  # (L, G)
        self._fit(bool(rhyme))
        self.wants, self.rhymes, self.possible = (t.to(device) for t in (self.wants, self.rhymes, self.possible))
        ids = torch.tensor([vocabulary.ids[c] for c in self.given.values() if c in vocabulary.ids], dtype=torch.long)
        self.used = ids.bincount(minlength=self.size).to(device, torch.uint8)  # (V) how often in what is given

    def _letters(self) -> list[int]:
        """For each place the number of the letter of its rhyme, -1 for none. What a rhyme repeats must rhyme, too."""
        shape, found, names = self.shape, [-1] * len(self.shape.columns), []
        for place in shape.characters:
            if shape.is_last(place):
                for letter in {p.rhymes[shape.verses[place]].upper() for p in self.patterns} - {""}:
                    names += [letter] if letter not in names else []
                    found[place] = names.index(letter)
        self.sources = {first for place, first in self.copies.items() if found[place] >= 0 > found[first]}
        for place, first in self.copies.items():
            found[first] = found[place] if first in self.sources else found[first]
        return found

    def _possible_groups(self, rhyme: str) -> Tensor:
        """(L, G) the groups in which each letter may rhyme: those that have enough characters of the tones it wants."""
        rich = self.groups[:, :, :COMMON].sum(2).cpu() >= ENOUGH  # (2, G)
        possible = torch.ones(self.letters, len(self.names), dtype=torch.bool)
        for place, letter in enumerate(self.letter):
            if letter >= 0:
                possible[letter] &= rich[self.tone(place)]
        if rhyme:
            possible[0] = torch.tensor([name == rhyme for name in self.names])
        possible[~possible.any(1)] = True
        return possible

    def tone(self, place: int) -> int:
        """Of a place that rhymes: 0 in level, 1 in oblique tone."""
        return int(not self.regulated and CLASSES[self.wants[0, place]] == OBLIQUE)

    def _fit(self, rhyme_is_set: bool) -> None:
        """Keeps the patterns and the rhyme groups that the given characters fit best."""
        # (G) for each given character that rhymes: its groups; those of one that the table lacks are unknown
        self.given_groups = {place: self._groups_of(place) for place in self.given if self.letter[place] >= 0}
        for letter in range(rhyme_is_set, self.letters):
            ends = [p for p in self.given if self.letter[p] == letter and bool(self.rhymes[:, p].all())]
            counts = Counter(g for p in ends for g in self.given_groups[p].nonzero()[:, 0].tolist())
            if counts:
                best, most = counts.most_common(1)[0]
                # all groups that they have in common, or the one that most of them have
                common = [g for g in counts if counts[g] == most] if most == len(ends) else [best]
                self.possible[letter] = torch.tensor([g in common for g in range(len(self.names))])
        misfits = [self._misfits(k) for k in range(len(self.patterns))]
        fewest = min(map(len, misfits))
        kept = [k for k, bad in enumerate(misfits) if len(bad) == fewest]
        self.patterns = [self.patterns[k] for k in kept]
        self.remarks = [[self._remark(place) for place in misfits[k]] for k in kept]
        self.wants, self.rhymes = self.wants[kept], self.rhymes[kept]

    def _groups_of(self, place: int) -> Tensor:
        """(G) the groups that the given character at a place rhymes in, all if it is unknown."""
        start = self.shape.starts[self.shape.verses[place]]
        text = "".join(self.given.get(i, GAP) for i in range(start, place + 1))
        known = self.lexicon.table.tones(text, place - start)
        own = self.rhyming.groups_of(text, place - start, (LEVEL, OBLIQUE)[self.tone(place)])
        return torch.tensor([not known or name in own for name in self.names])

    def _misfits(self, k: int) -> list[int]:
        """The places of given characters that break pattern k."""
        places = []
        for verse, start in enumerate(self.shape.starts):
            wants = self.patterns[k].verses[verse]
            text = "".join(self.given.get(start + i, GAP) for i in range(len(wants)))
            tones = [
                self.lexicon.table.tones(text, i) if text[i] != GAP else want.strip(EITHER)
                for i, want in enumerate(wants)
            ]  # of what is yet to be written the pattern's own
            tones = [t or LEVEL + OBLIQUE for t in tones]
            if self.regulated:
                bad = {start + fault.place - 1 for fault in tone_faults(tones, wants[1], wants[-1], verse + 1)}
            else:
                bad = {start + i for i, want in enumerate(wants) if want != EITHER and want not in tones[i]}
            last = start + len(wants) - 1
            if self.rhymes[k, last] and last in self.given:
                if not bool((self.given_groups[last] & self.possible[self.letter[last]]).any()):
                    bad.add(last)
            places += sorted(bad)
        return places

    def _remark(self, place: int) -> str:
        rule = "does not rhyme or has the wrong tone" if self.shape.is_last(place) else "has the wrong tone"
        where = f"{self.given[place]} (verse {self.shape.verses[place] + 1}, character {self.shape.columns[place] + 1})"
        return f"{where} {rule} in every pattern; it stands, the rest keeps the rules"


def ends_word(column: int) -> bool:
    """Whether the character at that place of a verse, from 0, is the second of a word of two, as a rule."""
    return column % 2 == 1


def begins_word(shape: Shape, place: int) -> bool:
    """Whether a word begins at a place, as a rule: neither a word of two nor the verse ends there."""
    return not ends_word(shape.columns[place]) and not shape.is_last(place)


class Progress:
    """Poems that are being written by `rules`: what they still can become, and what they have already."""

    def __init__(self, rules: Rules, rows: int):
        device = rules.wants.device
        self.rules = rules
        self.alive = torch.ones(rows, len(rules.patterns), dtype=torch.bool, device=device)  # (R, K) patterns
        self.possible = rules.possible.expand(rows, -1, -1).clone()  # (R, L, G) rhyme groups
        self.used = rules.used.expand(rows, -1).clone()  # (R, V) times, given ones included
        self.ids = torch.zeros(rows, 0, dtype=torch.long, device=device)  # (R, places so far)

    def apply_rules(self, logits: Tensor, place: int) -> Tensor:
        """logits (R, V) of the next character -> with what the rules forbid at minus infinity, repeated ones lower.

        Where nothing is left, as in a tiny vocabulary, repetition is allowed, then everything that was.
        """
        fitting = self._fitting(place)  # (R, V)
        again = self.used > 0
        rhyming = (self.rules.rhymes[:, place] & self.alive).any(1, keepdim=True)  # (R, 1)
        banned = (self.used > 1) | (again & rhyming)
        if self.rules.shape.columns[place]:
            last = self.ids[:, -1:]  # (R, 1)
            banned |= self._followed(last)
            pairs = self.rules.lexicon.pairs
            doubled = pairs.attested(last, last)[1]  # (R, 1) 悠悠 is no repetition, 雪雪 is one
            again = again.scatter(1, last, False)
            banned |= again & self.rules.distinct
            banned = banned.scatter(1, last, banned.gather(1, last) | ~doubled)
            weight = UNSEEN if begins_word(self.rules.shape, place) else UNSEEN_WORD
            logits = logits - weight * ~pairs.followers(self.ids[:, -1])
        following = place + 1
        if self.rules.shape.columns[following] != MARK and following not in self.rules.given | self.rules.copies:
            goes_on = self._matching(following, self.rules.lexicon.leads, self.rules.rhyming.leads)
            logits = logits - DEAD_END * ~goes_on
        weighed = (logits - REPEATED * again).masked_fill(banned | ~fitting, -torch.inf)
        for fallback in (logits.masked_fill(~fitting, -torch.inf), logits):
            stuck = weighed.isneginf().all(1, keepdim=True)
            weighed = torch.where(stuck, fallback, weighed)
        return weighed

    def _fitting(self, place: int) -> Tensor:
        """(R, V) what fits tone and rhyme of a pattern that is still possible."""
        rules, letter = self.rules, self.rules.letter[place]
        fitting = self._matching(place, rules.classes, rules.groups)
        if rules.shape.columns[place]:
            row, number = starting(rules.compounds.keys, self.ids[:, -1], rules.size)
            second = rules.compounds.keys[number] % rules.size
            fits, groups = self._as_compounds(number, place)
            rhymed = (self.possible[row, letter] & groups).any(1, keepdim=True)  # (C, 1); without a letter of no use
            fits &= self.alive[row] & (rhymed | ~rules.rhymes[:, place])
            fitting[row, second] = fits.any(1)
        return fitting

    def _matching(self, place: int, classes: Tensor, groups: Tensor) -> Tensor:
        """(R, V) what `classes` (3, V) or, where a pattern rhymes, `groups` (2, G, V) have of what the place wants."""
        rules, letter = self.rules, self.rules.letter[place]
        rhyming = self.alive & rules.rhymes[:, place]  # (R, K)
        plain = self.alive & ~rules.rhymes[:, place]
        wanted = torch.stack([(plain & (rules.wants[:, place] == c)).any(1) for c in range(len(CLASSES))], 1)  # (R, 3)
        found = wanted.float() @ classes.float()  # (R, 3) @ (3, V)
        if letter >= 0:
            possible = self.possible[:, letter] & rhyming.any(1, keepdim=True)  # (R, G)
            found += possible.float() @ groups[rules.tone(place)].float()  # (R, G) @ (G, V)
        return found > 0

    def _as_compounds(self, number: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """For compounds (C) that end at `place`: (patterns that their tones fit (C, K), groups that they rhyme in)."""
        rules = self.rules
        first, second = rules.compounds.first[:, number], rules.compounds.second[:, number]  # (3, C)
        fits = first[rules.wants[:, place - 1]] & second[rules.wants[:, place]]  # (K, C)
        return fits.T, rules.rhyming.compounds[rules.tone(place), number]

    def _followed(self, last: Tensor) -> Tensor:
        """(R, V) what has followed the character `last` (R, 1) in this poem."""
        found = torch.zeros_like(self.used, dtype=torch.bool)
        before, after = self.ids[:, :-1], self.ids[:, 1:]
        row, where = (before == last).nonzero(as_tuple=True)
        found[row, after[row, where]] = True
        return found

    def take(self, tokens: Tensor, place: int) -> None:
        """Goes on with the tokens (R)."""
        rules = self.rules
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        column, letter = rules.shape.columns[place], rules.letter[place]
        if column == MARK:
            return
        wants, rhymes = rules.wants[:, place], rules.rhymes[:, place]  # (K), (K)
        groups = rules.groups[rules.tone(place)][:, tokens].T  # (R, G)
        if place in rules.given:
            fits = torch.ones_like(self.alive)  # (R, K) see Rules
            if letter >= 0:
                groups = rules.given_groups[place].to(wants.device).expand(len(tokens), -1)
        else:
            fits = rules.classes[:, tokens][wants].T  # (3, R) -> (K, R) -> (R, K)
            if column:
                found, number = find(rules.compounds.keys, self.ids[:, -2] * rules.size + tokens)
                in_compound, its_groups = self._as_compounds(number, place)
                fits = torch.where(found[:, None], in_compound, fits)
                groups = torch.where(found[:, None], its_groups, groups)
            self.used.scatter_add_(1, tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.uint8))
        alive = self.alive & fits
        self.alive = torch.where(alive.any(1, keepdim=True), alive, self.alive)  # nothing fitted: see apply_rules
        if letter >= 0:
            left = self.possible[:, letter] & groups  # (R, G)
            rhymed = (self.alive & rhymes).any(1, keepdim=True) & left.any(1, keepdim=True)
            self.possible[:, letter] = torch.where(rhymed, left, self.possible[:, letter])

    def select(self, rows: Tensor) -> None:
        """Leaves the poems `rows` (R), which may repeat."""
        self.alive, self.possible, self.used, self.ids = (
            t[rows] for t in (self.alive, self.possible, self.used, self.ids)
        )

    def remarks(self, row: int) -> list[str]:
        """Which given characters break the rules in that poem."""
        return self.rules.remarks[int(self.alive[row].int().argmax())]
