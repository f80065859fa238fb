"""Regulated verse while it is written: which characters may stand at the next place, for many poems at once.

The rules are infer/verse/prosody.py's; here they are masks. Nothing is drawn here.

Shapes: R poems, V characters in the vocabulary, K patterns, G level rhyme groups, T places of the form (with marks).
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from infer.verse.check import tone_faults
from infer.verse.lexicon import CLASSES, FITS, Lexicon
from infer.verse.prosody import patterns
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE, RhymeTable
from utils.errors import UserError

ENOUGH = 15  # characters that a rhyme group must have among the commonest: poorer ones trap a poem
COMMON = 3000
# nats that a pair which verse never has is less likely: at the places of words of two characters, and elsewhere
UNSEEN_WORD, UNSEEN = 2.0, 0.5
GAP = "\0"  # stands for a character that is yet to be written
REPEATED = 2.5  # nats that a character which the poem has already is less likely; a third of real poems repeat one


class Rules:
    """Tone patterns, rhyme groups and repetition for poems of one form.

    Args:
        lexicon: the characters, and what is known of them; it has a rhyme table.
        shape: verses, and characters in each.
        given: character at each place, folded to the vocabulary where it can be; "" where it is to be written, and at
            the places of punctuation.
        pattern: name of the pattern; auto: each that the given characters fit best.
        rhyme: name of the rhyme group; empty: each that they fit best.

    Given characters that no pattern fits, or that do not rhyme, stand all the same: `remarks` names them for each
    pattern, and the others keep the rules. Raises UserError for an unknown pattern or rhyme group.
    """

    def __init__(self, lexicon: Lexicon, shape: tuple[int, int], given: Sequence[str], pattern: str, rhyme: str):
        vocabulary, table, device = lexicon.vocabulary, lexicon.table, lexicon.classes.device
        self.lexicon, self.size, self.width = lexicon, len(vocabulary), shape[1]
        self.given = {place: c for place, c in enumerate(given) if c}
        found = patterns(*shape)
        names = [p.name for p in found]
        if pattern != "auto" and pattern not in names:
            raise UserError(f"choose auto or one of {', '.join(names)}", pattern=pattern)
        self.patterns = [p for p in found if pattern in ("auto", p.name)]
        # What each place wants: an index of CLASSES, (K, T); and whether it rhymes, (K, T).
        self.wants = torch.tensor([[CLASSES.index(c) for v in p.verses for c in v + EITHER] for p in self.patterns])
        self.rhymes = torch.zeros(self.wants.shape, dtype=torch.bool)
        for k, p in enumerate(self.patterns):
            for verse, rhyming in enumerate(p.rhymes):
                self.rhymes[k, self._end(verse)] = rhyming

        self.names = [table.find(rhyme)] if rhyme else table.level
        chosen = [table.level.index(name) for name in self.names]
        self.classes, self.groups = lexicon.classes, lexicon.groups[chosen]  # (3, V), (G, V)
        compounds = lexicon.compounds
        self.compounds = dataclasses.replace(compounds, groups=compounds.groups[:, chosen])
        self.possible = self.groups[:, :COMMON].sum(1).cpu() >= ENOUGH  # (G)
        if rhyme or not self.possible.any():
            self.possible[:] = True
        self._fit(table)
        self.wants, self.rhymes, self.possible = (t.to(device) for t in (self.wants, self.rhymes, self.possible))
        self.fits = FITS.to(device)
        self.used = torch.zeros(len(vocabulary), dtype=torch.uint8, device=device)  # (V) how often in what is given
        for c in self.given.values():
            if c in vocabulary.ids:
                self.used[vocabulary.ids[c]] += 1

    def _end(self, verse: int) -> int:
        return verse * (self.width + 1) + self.width - 1

    def _before(self, place: int) -> tuple[str, int]:
        """The given characters at a place and before it in its verse, and which of them is the one at the place."""
        start = place - place % (self.width + 1)
        return "".join(self.given.get(i, GAP) for i in range(start, place + 1)), place - start

    def _fit(self, table: RhymeTable) -> None:
        """Keeps the patterns and the rhyme groups that the given characters fit best."""
        # (G) for each given character: the groups that it rhymes in; those of one that the table lacks are unknown
        self.given_groups = {
            place: torch.tensor([not table.tones(c) or g in table.groups(*self._before(place)) for g in self.names])
            for place, c in self.given.items()
        }
        ends = [p for p in self.given if bool(self.rhymes[0, p]) and p > self.width]  # a first verse need not rhyme
        counts = Counter(g for p in ends for g in self.given_groups[p].nonzero()[:, 0].tolist())
        if counts:
            best, most = counts.most_common(1)[0]
            # all groups that they have in common, or the one that most of them have
            common = [g for g in counts if counts[g] == most] if most == len(ends) else [best]
            self.possible = torch.tensor([g in common for g in range(len(self.names))])
        misfits = [self._misfits(k, table) for k in range(len(self.patterns))]
        fewest = min(map(len, misfits))
        kept = [k for k, bad in enumerate(misfits) if len(bad) == fewest]
        self.patterns = [self.patterns[k] for k in kept]
        self.remarks = [[self._remark(place) for place in misfits[k]] for k in kept]
        self.wants, self.rhymes = self.wants[kept], self.rhymes[kept]

    def _misfits(self, k: int, table: RhymeTable) -> list[int]:
        """The places of given characters that break pattern k."""
        places = []
        for verse, rhyming in enumerate(self.patterns[k].rhymes):
            start = verse * (self.width + 1)
            wants = self.patterns[k].verses[verse]
            text = "".join(self.given.get(start + i, GAP) for i in range(self.width))
            tones = [
                table.tones(text, i) if text[i] != GAP else want.strip(EITHER) for i, want in enumerate(wants)
            ]  # of what is yet to be written the pattern's own
            tones = [t or LEVEL + OBLIQUE for t in tones]
            second, end = wants[1], wants[-1]
            bad = {start + fault.place - 1 for fault in tone_faults(tones, second, end, verse + 1)}
            last = start + self.width - 1
            if rhyming and last in self.given and not bool((self.given_groups[last] & self.possible).any()):
                bad.add(last)
            places += sorted(bad)
        return places

    def _remark(self, place: int) -> str:
        verse, column = divmod(place, self.width + 1)
        end = column == self.width - 1
        rule = "does not rhyme or has the wrong tone" if end else "has the wrong tone"
        where = f"{self.given[place]} (verse {verse + 1}, character {column + 1})"
        return f"{where} {rule} in every pattern; it stands, the rest keeps the rules"


def ends_word(column: int) -> bool:
    """Whether the character at that place of a verse, from 0, is the second of a word of two, as a rule."""
    return column % 2 == 1


class Progress:
    """Poems that are being written by `rules`: what they still can become, and what they have already."""

    def __init__(self, rules: Rules, rows: int):
        device = rules.wants.device
        self.rules = rules
        self.alive = torch.ones(rows, len(rules.patterns), dtype=torch.bool, device=device)  # (R, K) patterns
        self.possible = rules.possible.expand(rows, -1)  # (R, G) rhyme groups
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
        if place % (self.rules.width + 1):
            last = self.ids[:, -1:]  # (R, 1)
            banned |= self._followed(last)
            again = again.scatter(1, last, False)  # 悠悠 is no repetition
            weight = UNSEEN_WORD if ends_word(place % (self.rules.width + 1)) else UNSEEN
            logits = logits - weight * ~self.rules.lexicon.pairs.followers(self.ids[:, -1])
        weighed = (logits - REPEATED * again).masked_fill(banned | ~fitting, -torch.inf)
        for fallback in (logits.masked_fill(~fitting, -torch.inf), logits):
            stuck = weighed.isneginf().all(1, keepdim=True)
            weighed = torch.where(stuck, fallback, weighed)
        return weighed

    def _fitting(self, place: int) -> Tensor:
        """(R, V) what fits tone and rhyme of a pattern that is still possible."""
        rules = self.rules
        rhyming = self.alive & rules.rhymes[:, place]  # (R, K)
        plain = self.alive & ~rules.rhymes[:, place]
        wanted = torch.stack([(plain & (rules.wants[:, place] == c)).any(1) for c in range(len(CLASSES))], 1)  # (R, 3)
        fitting = wanted.float() @ rules.classes.float()  # (R, 3) @ (3, V)
        if rules.rhymes[:, place].any():
            groups = self.possible & rhyming.any(1, keepdim=True)  # (R, G)
            fitting += groups.float() @ rules.groups.float()  # (R, G) @ (G, V)
        fitting = fitting > 0
        if place % (rules.width + 1):
            row, number = rules.compounds.starting(self.ids[:, -1], rules.size)
            second = rules.compounds.keys[number] % rules.size
            fits, groups = self._as_compounds(number, place)
            rhymed = (self.possible[row] & groups).any(1, keepdim=True)  # (C, 1)
            fits &= self.alive[row] & (rhymed | ~rules.rhymes[:, place])
            fitting[row, second] = fits.any(1)
        return fitting

    def _as_compounds(self, number: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """For compounds (C) that end at `place`: (patterns that their tones fit (C, K), groups that they rhyme in)."""
        rules = self.rules
        first, second = rules.compounds.first[number], rules.compounds.second[number]  # (C)
        wants = rules.wants[:, place - 1], rules.wants[:, place]  # (K), (K)
        return rules.fits[first][:, wants[0]] & rules.fits[second][:, wants[1]], rules.compounds.groups[number]

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
        if place % (rules.width + 1) == rules.width:  # a punctuation mark
            return
        wants, rhymes = rules.wants[:, place], rules.rhymes[:, place]  # (K), (K)
        if place in rules.given:
            fits = torch.ones_like(self.alive)  # (R, K) see Rules
            groups = rules.given_groups[place].to(wants.device).expand(len(tokens), -1)  # (R, G)
        else:
            fits = rules.classes[:, tokens][wants].T  # (3, R) -> (K, R) -> (R, K)
            groups = rules.groups[:, tokens].T  # (R, G)
            if place % (rules.width + 1):
                found, number = rules.compounds.find(self.ids[:, -2], tokens, rules.size)
                in_compound, its_groups = self._as_compounds(number, place)
                fits = torch.where(found[:, None], in_compound, fits)
                groups = torch.where(found[:, None], its_groups, groups)
            self.used.scatter_add_(1, tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.uint8))
        left = self.possible & groups  # (R, G)
        alive = self.alive & fits
        self.alive = torch.where(alive.any(1, keepdim=True), alive, self.alive)  # nothing fitted: see apply_rules
        rhymed = (self.alive & rhymes).any(1, keepdim=True) & left.any(1, keepdim=True)
        self.possible = torch.where(rhymed, left, self.possible)

    def select(self, rows: Tensor) -> None:
        """Leaves the poems `rows` (R), which may repeat."""
        self.alive, self.possible, self.used, self.ids = (
            t[rows] for t in (self.alive, self.possible, self.used, self.ids)
        )

    def remarks(self, row: int) -> list[str]:
        """Which given characters break the rules in that poem."""
        return self.rules.remarks[int(self.alive[row].int().argmax())]
