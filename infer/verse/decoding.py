"""Decoding: candidates are written side by side, token by token. The rules' masks are infer/verse/constraints.py's.

Shapes: R candidates of all poems, T tokens of a poem, V tokens of the vocabulary, E features.
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.verse import PAUSES, STOPS
from data.vocabulary import Vocabulary
from infer.verse.constraints import Progress, Rules, begins_word
from infer.verse.plan import CHARACTER, KINDS
from infer.verse.settings import PoemSettings
from infer.verse.shape import MARK
from infer.verse.spelling import spell_today
from models.poet import Poet, State

RESAMPLE = 0.5  # how much of the likelihood decides which candidates survive: 0 none, 1 all of it
COLD = 1e-3  # temperatures below would overflow: the likeliest token is taken
REDRAWS = 4  # of a verse that stands in the training corpus


@dataclass
class Draft:
    """R candidates as far as they are written. For each token (R, T): its id, its log-probability, the entropy of the
    network before it, by how much the theme makes it likelier (all in nats), and whether it counts: the poem had not
    ended.

    `weight` (R): how likely the rules leave a candidate: log of the share of probability they allowed so far.
    `open` (R): whether it has not ended yet.
    """

    ids: Tensor
    log_probs: Tensor
    entropy: Tensor
    theme: Tensor
    counted: Tensor
    weight: Tensor
    open: Tensor
    progress: Progress | None

    @classmethod
    def empty(cls, rows: int, rules: Rules | None, device: torch.device) -> "Draft":
        ids = torch.zeros(rows, 0, dtype=torch.long, device=device)
        empty, weight = torch.zeros(rows, 0, device=device), torch.zeros(rows, device=device)
        return cls(ids, empty, empty, empty, ids > 0, weight, weight == 0, Progress(rules, rows) if rules else None)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of values (R, T) over the tokens that count (R)."""
        return (values * self.counted).sum(1) / self.counted.sum(1)

    def add(self, tokens: Tensor, log_probs: Tensor, theme: Tensor) -> Tensor:
        """Appends tokens (R) and returns their log-probabilities (R).

        log_probs (R, V) of every token; theme (R, V), or a single 0: by how much the theme makes it likelier.
        """
        chosen = log_probs.gather(1, tokens[:, None])  # (R, 1)
        new = {
            "ids": tokens[:, None],
            "log_probs": chosen,
            "entropy": -(log_probs.exp() * log_probs).sum(1, keepdim=True),
            "theme": theme.expand_as(log_probs).gather(1, tokens[:, None]),
            "counted": self.open[:, None],
        }
        for name, column in new.items():
            setattr(self, name, torch.cat([getattr(self, name), column], 1))
        return chosen[:, 0]

    def select(self, rows: Tensor) -> None:
        """Keeps the candidates `rows` (R), which may repeat."""
        for name in ("ids", "log_probs", "entropy", "theme", "counted", "weight", "open"):
            setattr(self, name, getattr(self, name)[rows])
        if self.progress:
            self.progress.select(rows)


@dataclass
class Decoder:
    """Writes poems to one plan (see infer/verse/plan.py).

    Args:
        masks: for each kind of place the tokens (V) that may not stand there.
        conditions: token ids before the poem, with and without the theme; one only if there is no theme.
        rules: those of regulated verse, or None.
    """

    model: Poet
    vocabulary: Vocabulary
    plan: list[str]
    masks: dict[str, Tensor]
    conditions: list[list[int]]
    rules: Rules | None
    settings: PoemSettings

    @torch.inference_mode()
    def write(self, chance: Tensor) -> Draft:
        """Writes the candidates of some poems; `chance` (poems, candidates + 1, T) are uniform random numbers, the last
        row of each poem for resampling.

        With a theme the network runs twice, with and without it, and what the theme makes likelier is made likelier
        still: classifier-free guidance (Ho & Salimans 2022; for text, Sanchez et al. 2023).
        """
        chance = chance.to(self.model.device)
        poems, candidates = chance.shape[0], chance.shape[1] - 1
        random = chance[:, :-1].flatten(0, 1)  # (R, T)
        draft = Draft.empty(len(random), self.rules, self.model.device)
        states, features = self._read_conditions(len(random))
        for place, slot in enumerate(self.plan):
            log_probs, *plain = (self.model.logits(f).float().log_softmax(1) for f in features)  # (R, V)
            theme = log_probs - plain[0] if plain else log_probs.new_zeros(())
            if self.rules and place in self.rules.copies:
                tokens = draft.ids[:, self.rules.copies[place]]
                draft.add(tokens, log_probs, theme)
            elif slot in self.masks:
                logits = log_probs + self.settings.guidance * theme - self._prior(place)
                logits = logits.masked_fill(self.masks[slot], -torch.inf)
                tokens = self._choose(draft, logits, place, random[:, place])
                draft.add(tokens, log_probs, theme)
            else:
                [given] = self.vocabulary.encode(self.vocabulary.fold(slot)[0])
                tokens = torch.full_like(draft.open, given, dtype=torch.long)
                draft.weight += draft.add(tokens, log_probs, theme)
            if draft.progress:
                draft.progress.take(tokens, place)
            draft.open = draft.open & (tokens != self.vocabulary.eos)
            if not draft.open.any() or place == len(self.plan) - 1:
                break
            if self.rules and candidates > 1 and self.rules.shape.columns[place] == MARK:
                rows = resample(RESAMPLE * draft.weight.view(poems, -1), chance[:, -1, place])
                draft.select(rows)
                draft.weight *= 1 - RESAMPLE  # the rest of it still counts
                states, tokens = [self.model.select(state, rows) for state in states], tokens[rows]
            outputs = [self.model(tokens[:, None], state) for state in states]
            states, features = [o["state"] for o in outputs], [o["features"][:, -1] for o in outputs]
        return draft

    def _prior(self, place: int) -> Tensor | float:
        """What is taken from the logits (V) where a word begins, so that the temperature sharpens what the poem says
        for a character, p / q, and not how common it is, q: they become those of q (p / q)^(1 / temperature).

        Without it a low temperature makes common words commoner still, and one poem like the other (docs/poet.md). Li
        et al. 2016 subtract such a prior from the likelihood of a dialogue's answers; the guidance by a theme has done
        it already.
        """
        temperature = self.settings.temperature
        if not self.rules or len(self.conditions) > 1 or self.plan[place] != CHARACTER or temperature < COLD:
            return 0.0
        begins = begins_word(self.rules.shape, place)
        return (1 - temperature) * self.rules.lexicon.pairs.log_frequency if begins else 0.0

    def _read_conditions(self, rows: int) -> tuple[list[State], list[Tensor]]:
        """(states, features (R, E)) after each of the conditions, which are read once for all candidates."""
        states, features = [], []
        first = torch.zeros(rows, dtype=torch.long, device=self.model.device)
        for condition in self.conditions:
            output = self.model(torch.tensor([condition], device=self.model.device))
            states.append(self.model.select(output["state"], first))
            features.append(output["features"][:, -1].expand(rows, -1))
        return states, features

    def _choose(self, draft: Draft, logits: Tensor, place: int, random: Tensor) -> Tensor:
        """The next tokens (R), drawn from logits (R, V) with uniform numbers `random` (R); the rules kept."""
        if not (draft.progress and self.plan[place] == CHARACTER):
            return self._sample(logits, random)
        ruled = draft.progress.apply_rules(logits, place)
        tokens = self._sample(ruled, random)
        if self.rules.shape.is_last(place):
            tokens = self._avoid_copies(draft.ids, ruled, tokens, random)
        scale = max(self.settings.temperature, COLD)
        draft.weight += (ruled / scale).logsumexp(1) - (logits / scale).logsumexp(1)
        return tokens

    def _sample(self, logits: Tensor, random: Tensor) -> Tensor:
        return sample(logits, self.settings.temperature, self.settings.top_k, self.settings.top_p, random)

    def _avoid_copies(self, ids: Tensor, logits: Tensor, tokens: Tensor, random: Tensor) -> Tensor:
        """`tokens` (R), the last of their verses, drawn again where the verse stands in the training corpus.

        `logits` (R, V) loses what was drawn in vain.
        """
        rows = torch.arange(len(tokens), device=tokens.device)
        for _ in range(REDRAWS):  # more would be a corpus that has everything
            texts = self.texts(torch.cat([ids[rows], tokens[rows, None]], 1), today=False)  # as the corpus has them
            seen = self.model.seen([re.split(f"[{PAUSES}{STOPS}\n]", text)[-1] for text in texts])
            rows = rows[torch.tensor(seen, dtype=torch.bool, device=rows.device)]
            if not len(rows):
                break
            logits[rows, tokens[rows]] = -torch.inf
            rows = rows[~logits[rows].isneginf().all(1)]
            tokens[rows] = self._sample(logits[rows], random[rows])
        return tokens

    def texts(self, ids: Tensor, today: bool = True) -> list[str]:
        """The texts of ids (R, T) up to the end token: given characters as they were given, the others as they are
        written `today`."""
        known = [None if slot in KINDS else slot for slot in self.plan[: ids.shape[1]]]
        texts = []
        for row in ids.tolist():
            row = row[: row.index(self.vocabulary.eos)] if self.vocabulary.eos in row else row
            characters = "".join(self.vocabulary.characters[i][:1] for i in row)
            characters = spell_today(characters) if today else characters
            texts.append("".join(given or c for c, given in zip(characters, known, strict=False)))
        return texts


def resample(weight: Tensor, point: Tensor) -> Tensor:
    """The candidates (poems x candidates) that survive: each as often, on average, as its share of exp(weight).

    weight (poems, candidates) log, point (poems) uniform numbers. Systematic resampling (Carpenter et al. 1999).
    """
    poems, candidates = weight.shape
    cumulative = weight.double().softmax(1).cumsum(1)  # (poems, candidates)
    points = (torch.arange(candidates, device=weight.device) + point[:, None].double()) / candidates
    chosen = torch.searchsorted(cumulative, points).clamp(max=candidates - 1)
    return (chosen + candidates * torch.arange(poems, device=weight.device)[:, None]).flatten()


def sample(logits: Tensor, temperature: float, top_k: int, top_p: float, random: Tensor) -> Tensor:
    """Tokens (R) drawn from logits (R, V), one uniform number a row, so that no row depends on the others."""
    if temperature < COLD:
        return logits.argmax(-1)
    probs = (logits / temperature).softmax(-1)
    # Only the values are sorted, and by numpy: torch.sort takes 25 times as long (25 ms for 64 x 7,000), topk 10 times.
    ranked = torch.from_numpy(np.sort(probs.cpu().numpy(), axis=-1)).to(probs.device)  # the smallest first
    # Nucleus sampling (Holtzman et al. 2020): the smallest set that holds top_p of the probability, at least one.
    outside = (ranked.cumsum(-1) <= 1 - top_p).sum(-1, keepdim=True)  # (R, 1)
    if top_k:
        outside = outside.clamp(min=probs.shape[-1] - top_k)
    smallest = ranked.gather(-1, outside.clamp(max=probs.shape[-1] - 1))
    cumulative = probs.masked_fill(probs < smallest, 0).cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not put the point behind the last token that is kept.
    point = torch.minimum(random[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, point, right=True)[:, 0]
