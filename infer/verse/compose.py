"""Writing poems: decoding one character at a time, many in one batch, each the best of several candidates.

Candidates are written side by side; at the end of a verse those that the rules (or verses that are given) have led into
something unlikely give way to copies of the others, and at last they are ranked. Which characters the rules allow is
infer/verse/constraints.py's business.

Shapes: R rows (poems x candidates), T signs of a poem, V characters in the vocabulary.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.poetry import AUTHOR, EOS, KEYWORD, SPECIALS, TITLE, Vocabulary
from data.verse import FORMS, PAUSES, STOPS, form_of, to_lines, verses
from infer.verse.constraints import Progress, Rules
from infer.verse.prosody import Check, RhymeTable, chinese_verses, judge
from models.poet import Poet
from utils.errors import UserError

BATCH = 256  # rows; more at once are no faster, but need more memory
THEME, PARALLEL, NAMED = 3.0, 3.0, 0.5  # weights in the rating of poems, see _rate
RESAMPLE = 0.5  # how much of the likelihood decides which candidates go on: 0 none, 1 all of it


@dataclass
class Composition:
    """A written poem.

    `score` is its mean log-probability per character in nats under the network, conditions given; `rating` is what the
    candidates are ranked by; `seed` writes it again, alone. `pattern` and `rhyme` are empty where the rules were off;
    `remarks` name the given characters that break them.
    """

    form: str
    title: str
    lines: list[str]
    score: float
    rating: float
    seed: int
    pattern: str = ""
    rhyme: str = ""
    remarks: list[str] = field(default_factory=list)
    check: Check | None = field(default=None, repr=False)  # its prosody; None: written without rules

    @property
    def verses(self) -> list[str]:
        return verses("".join(self.lines))

    @property
    def tones(self) -> list[str]:
        """平仄 of each verse; empty if it was written without rules."""
        return self.check.tones if self.check else []

    @property
    def rhymes(self) -> list[bool]:
        """Whether each verse rhymes; empty if it was written without rules."""
        return self.check.rhymes if self.check else []

    def as_dict(self) -> dict:
        facts = {"form": self.form, "title": self.title, "lines": self.lines}
        numbers = {"score": round(self.score, 4), "rating": round(self.rating, 4), "seed": self.seed}
        return {**facts, **numbers, "pattern": self.pattern, "rhyme": self.rhyme, "remarks": self.remarks}

    def __str__(self) -> str:
        head = f"《{self.title}》\n" if self.title else ""
        return head + "\n".join(self.lines)


def compose(
    model: Poet,
    n: int = 1,
    form: str = "auto",
    prompt: str = "",
    title: str = "",
    author: str = "",
    acrostic: str = "",
    keywords: Sequence[str] = (),
    lines: Sequence[str] = (),
    regular: bool = True,
    pattern: str = "auto",
    rhyme: str = "",
    candidates: int = 16,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.93,
    guidance: float = 1.5,
    max_chars: int = 200,
    seed: int = 0,
    forms: list[str] | None = None,
) -> list[Composition]:
    """Writes `n` poems, each the best of `candidates`. Poem i depends on seed + i alone, whatever n is.

    With a form every poem has its number of verses and characters by construction. What is given is kept as it is, also
    characters that the network does not know (it then reads the unknown sign).

    Args:
        prompt, acrostic: how the poem begins; how its verses begin.
        keywords: words that the poem should be about.
        lines: the verses, without punctuation; an empty one is to be written.
        regular: keep the rules of regulated verse, repeat little, copy no verse of the training corpus; where the form
            is one of FORMS and the network has a rhyme table.
        pattern: name of a tone pattern; auto: what fits the given characters, and what the network likes.
        guidance: how much more the poem is about title and keywords than the network would make it; 0: not at all.
        rhyme: a rhyme group, such as 先; empty: what the network likes.
        forms: the forms that the network has learnt (None: as its file says).

    Raises UserError where these do not fit each other or the form.
    """
    vocabulary = Vocabulary(model.vocab)
    forms = model.metadata.get("forms", []) if forms is None else forms
    shape, form = _shape(form, acrostic, lines, forms)
    masks = _masks(vocabulary, model.device)
    # a line break where the corpus has no punctuation
    plan = [
        "\n" if slot in (PAUSE, STOP) and slot not in masks else slot
        for slot in _plan(shape, prompt, acrostic, lines, max_chars)
    ]
    table = RhymeTable.of(model.metadata)
    rules = None
    if regular and table and form in FORMS:
        given = ["" if slot in (*KINDS, "\n") else vocabulary.fold(slot)[0] for slot in plan]
        rules = Rules(vocabulary, table, shape, given, pattern, rhyme, model.device)
    elif pattern != "auto" or rhyme:
        option = f"--rhyme={rhyme}" if rhyme else f"--pattern={pattern}"
        raise UserError(f"{option} needs a poet with a rhyme table, one of the forms {' '.join(FORMS)}, and --regular")
    words = [vocabulary.fold(word)[0] for word in keywords]
    conditions = _conditions(vocabulary, form if form in forms else "", author, title, words)
    if shape is None or temperature < COLD:
        candidates = 1  # free poems differ in length, and without chance there is no choice
    poems = []
    at_once = max(1, BATCH // candidates)
    for first in range(0, n, at_once):
        seeds = range(seed + first, seed + min(first + at_once, n))
        chance = [torch.rand(candidates + 1, len(plan), generator=torch.Generator().manual_seed(s)) for s in seeds]
        sampling = Sampling(temperature, top_k, top_p, guidance)
        draft = _write(model, vocabulary, plan, masks, conditions, rules, torch.stack(chance), sampling)
        texts = _texts(vocabulary, plan, draft.ids)
        ratings = _rate(model, draft, shape).cpu()
        if words:
            named = [sum(word in text for word in words) / len(words) for text in texts]
            ratings = ratings + NAMED * torch.tensor(named)
        ratings = ratings.view(-1, candidates)
        for poem, best in enumerate(ratings.argmax(1).tolist()):
            row = poem * candidates + best
            lines_of = to_lines(texts[row].split("\n"))
            facts = {}
            if regular and form in FORMS and not table:
                facts = {"remarks": ["the poet has no rhyme table: the form is kept, tones and rhyme are not"]}
            if rules:
                found = judge(verses(texts[row]), table)
                facts = {"pattern": found.pattern, "rhyme": found.rhyme, "remarks": draft.progress.remarks(row)}
                facts["check"] = found
            score, rating = draft.scores[row].item(), ratings[poem, best].item()
            form_written = form or form_of(lines_of)
            poems.append(Composition(form_written, title, lines_of, score, rating, seeds[poem], **facts))
    return poems


def split_words(text: str) -> list[str]:
    """The words of a list with commas or white space between them: 梅花,雪."""
    return [word for word in re.split(r"[,，、\s]+", text) if word]


def locked(poem: str, lock: str) -> list[str]:
    """The verses of `poem` that `lock` ("1,3", from 1) names, and "" for each other one.

    Raises UserError for verses that are not there, or a poem without `lock` or the other way round.
    """
    if bool(poem) != bool(lock):
        raise UserError(
            "--poem and --lock belong together: --poem=床前明月光，… --lock=1,3 writes all but 1 and 3 anew"
        )
    parts = chinese_verses(poem) if poem else []
    numbers = {str(i) for i in range(1, len(parts) + 1)}
    kept = set(split_words(lock))
    if not kept <= numbers:
        raise UserError(f"--lock={lock}: expected numbers of verses from 1 to {len(parts)}, such as 1,3")
    return [verse if str(i) in kept else "" for i, verse in enumerate(parts, 1)]


def _conditions(
    vocabulary: Vocabulary, form: str, author: str, title: str, keywords: Sequence[str]
) -> tuple[list[int], list[int]]:
    """What stands before the poem, as ids: everything; and without the theme, which is title and keywords."""
    for option, given, sign in (("title", title, TITLE), ("author", author, AUTHOR), ("keywords", keywords, KEYWORD)):
        if given and sign not in vocabulary.ids:
            raise UserError(f"--{option} needs a poet that has learnt such: train one, or leave it out")
    author, title = (vocabulary.fold(text)[0] for text in (author, title))
    parts = vocabulary.condition(form, author, title, keywords)
    whole, plain = ([i for part in chosen for i in part] for chosen in (parts, parts[:2]))
    return [*whole, vocabulary.bos], [*plain, vocabulary.bos]


@torch.inference_mode()
def _rate(model: Poet, draft: "_Draft", shape: tuple[int, int] | None) -> Tensor:
    """What the candidates are ranked by (R): fluency + THEME x theme + PARALLEL x parallelism, in nats per character.

    (And NAMED x the share of the keywords that are in the poem.)

    Fluency is 0 or, where the poem is more surprising than the network expects of its own, the difference. More
    likelihood is not better: the likeliest poems are the dullest (Zhang et al. 2021, Meister et al. 2023).
    Theme is log p(poem | title, keywords) - log p(poem): of two poems equally likely under a title, the one that is
    less likely without it is more about it (Li et al. 2016).
    """
    surprise = draft.mean(-draft.log_p - draft.entropy).clamp(min=0)
    rating = THEME * draft.mean(draft.theme) - surprise
    if shape and shape[0] == 8:
        rating = rating + PARALLEL * parallelism(model, draft.ids, shape[1])
    return rating


def parallelism(model: Poet, ids: Tensor, width: int) -> Tensor:
    """How parallel the second and the third couplet of poems of eight verses are (R), ids (R, T) with punctuation.

    Mean cosine of the embeddings at the same place of the two verses, -1 for the same character: about 0.11 in real
    poems, 0.01 if the second verse is another poem's.
    """
    middle = ids.view(len(ids), 8, width + 1)[:, 2:6, :-1]  # (R, 4, width)
    first, second = middle[:, 0::2], middle[:, 1::2]  # (R, 2, width)
    cosine = torch.cosine_similarity(model.embed(first), model.embed(second), -1)
    return torch.where(first == second, -1.0, cosine).mean((1, 2))


# ------------------------------------------------------------------------------------------------------- decoding

CHARACTER, PAUSE, STOP, ANY = KINDS = "<character>", "<pause>", "<stop>", "<any>"  # what a slot of the plan may take
COLD = 1e-3  # temperatures below would overflow: the likeliest is taken


@dataclass(frozen=True)
class Sampling:
    """How characters are drawn: see `_sample`."""

    temperature: float
    top_k: int
    top_p: float
    guidance: float

    def draw(self, logits: Tensor, random: Tensor) -> Tensor:
        return _sample(logits, self.temperature, self.top_k, self.top_p, random)


@dataclass
class _Draft:
    """R poems as far as they are written; of each sign its id, its log-probability, the network's entropy before it in
    nats, by how much the theme has made it likelier in nats, and whether it counts (R, T).

    `weight` (R) is how likely the rules leave a poem: log of the share of the probability that they allowed, so far.
    """

    ids: Tensor
    log_p: Tensor
    entropy: Tensor
    theme: Tensor
    counted: Tensor
    weight: Tensor
    progress: Progress | None

    @classmethod
    def empty(cls, rows: int, rules: Rules | None, device: torch.device) -> "_Draft":
        ids = torch.zeros(rows, 0, dtype=torch.long, device=device)
        progress = Progress(rules, rows) if rules else None
        empty = torch.zeros(rows, 0, device=device)
        return cls(ids, empty, empty, empty, ids > 0, torch.zeros(rows, device=device), progress)

    @property
    def scores(self) -> Tensor:
        """Mean log-probability per sign (R)."""
        return self.mean(self.log_p)

    def mean(self, values: Tensor) -> Tensor:
        """Of values (R, T), over the signs that count (R)."""
        return (values * self.counted).sum(1) / self.counted.sum(1)

    def add(self, chosen: Tensor, log_p: Tensor, theme: Tensor, counts: Tensor) -> Tensor:
        """Goes on with the signs `chosen` (R); returns their log-probabilities (R).

        log_p (R, V) of every sign; theme (R, V), or a single 0: by how much the theme makes it likelier.
        """
        new = {
            "ids": chosen[:, None],
            "log_p": log_p.gather(1, chosen[:, None]),
            "entropy": -(log_p.exp() * log_p).sum(1, keepdim=True),
            "theme": theme.expand_as(log_p).gather(1, chosen[:, None]),
            "counted": counts[:, None],
        }
        for name, column in new.items():  # each (R, 1)
            setattr(self, name, torch.cat([getattr(self, name), column], 1))
        return new["log_p"][:, 0]

    def select(self, rows: Tensor) -> None:
        """Leaves the poems `rows` (R), which may repeat."""
        for name in ("ids", "log_p", "entropy", "theme", "counted", "weight"):
            setattr(self, name, getattr(self, name)[rows])
        if self.progress:
            self.progress.select(rows)


@torch.inference_mode()
def _write(
    model: Poet,
    vocabulary: Vocabulary,
    plan: list[str],
    masks: dict[str, Tensor],
    conditions: tuple[list[int], list[int]],
    rules: Rules | None,
    chance: Tensor,
    sampling: Sampling,
) -> _Draft:
    """Writes R = poems x candidates, sign by sign: `plan` says what may stand where.

    Where there is a theme, the network runs twice, with and without it, and what the theme makes likelier is made
    likelier still: classifier-free guidance (Ho & Salimans 2022; for text, Sanchez et al. 2023).

    chance (poems, candidates + 1, T): uniform numbers; the last of each poem's rows decides which candidates go on.
    """
    device = model.device
    chance = chance.to(device)
    poems, candidates = chance.shape[0], chance.shape[1] - 1
    random = chance[:, :-1].flatten(0, 1)  # (R, T)
    draft = _Draft.empty(len(random), rules, device)
    counts = torch.ones(len(random), dtype=torch.bool, device=device)  # (R) the poem has not ended
    first = torch.zeros(len(random), dtype=torch.long, device=device)
    states, features = [], []  # with the theme, and if there is one without it
    for condition in dict.fromkeys(map(tuple, conditions)):
        output = model(torch.tensor([condition], device=device))  # the condition is read once, for all poems
        states.append(model.select(output["state"], first))
        features.append(output["features"][:, -1].expand(len(random), -1))  # (R, E)
    for place, slot in enumerate(plan):
        log_p, *plain = (model.logits(f).float().log_softmax(1) for f in features)  # (R, V)
        theme = log_p - plain[0] if plain else log_p.new_zeros(())
        if slot in masks:
            allowed = (log_p + sampling.guidance * theme).masked_fill(masks[slot], -torch.inf)

            def draw(logits: Tensor, rows: Tensor | slice, place: int = place) -> Tensor:
                return sampling.draw(logits, random[rows, place])

            if rules and slot == CHARACTER:
                weighed = draft.progress.weigh(allowed, place)
                chosen = draw(weighed, slice(None))
                if place % (rules.width + 1) == rules.width - 1:
                    chosen = _not_copied(model, vocabulary, plan, draft.ids, weighed, chosen, draw)
                scale = max(sampling.temperature, COLD)
                draft.weight += (weighed / scale).logsumexp(1) - (allowed / scale).logsumexp(1)
            else:
                chosen = draw(allowed, slice(None))
        else:
            chosen = torch.full_like(draft.counted.sum(1), vocabulary.encode(vocabulary.fold(slot)[0])[0])
        likelihood = draft.add(chosen, log_p, theme, counts)
        if slot not in masks:
            draft.weight += likelihood
        if rules:
            draft.progress.take(chosen, place)
        counts = counts & (chosen != vocabulary.eos)
        if not counts.any() or place == len(plan) - 1:
            break
        if rules and candidates > 1 and place % (rules.width + 1) == rules.width:
            rows = _survivors(RESAMPLE * draft.weight.view(poems, -1), chance[:, -1, place])
            draft.select(rows)
            draft.weight *= 1 - RESAMPLE  # the rest of it still counts
            states, chosen = [model.select(state, rows) for state in states], chosen[rows]
        outputs = [model(chosen[:, None], state) for state in states]
        states, features = [o["state"] for o in outputs], [o["features"][:, -1] for o in outputs]
    return draft


def _survivors(weight: Tensor, point: Tensor) -> Tensor:
    """Rows (poems x candidates) of the candidates that go on: each as often as its share of exp(weight), on average.

    weight (poems, candidates) log, point (poems) uniform numbers. Systematic resampling (Carpenter et al. 1999).
    """
    poems, candidates = weight.shape
    shares = weight.double().softmax(1).cumsum(1)  # (poems, candidates)
    points = (torch.arange(candidates, device=weight.device) + point[:, None].double()) / candidates
    chosen = torch.searchsorted(shares, points).clamp(max=candidates - 1)
    return (chosen + candidates * torch.arange(poems, device=weight.device)[:, None]).flatten()


def _not_copied(
    model: Poet,
    vocabulary: Vocabulary,
    plan: list[str],
    ids: Tensor,
    weighed: Tensor,
    chosen: Tensor,
    draw: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """`chosen` (R), the last characters of verses, drawn again where the verse stands in the training corpus."""
    rows = torch.arange(len(chosen), device=chosen.device)
    for _ in range(4):  # more would be a corpus that has everything
        texts = _texts(vocabulary, plan, torch.cat([ids[rows], chosen[rows, None]], 1))
        seen = model.seen([re.split(f"[{PAUSES}{STOPS}\n]", text)[-1] for text in texts])
        rows = rows[torch.tensor(seen, dtype=torch.bool, device=rows.device)]
        if not len(rows):
            break
        weighed[rows, chosen[rows]] = -torch.inf
        rows = rows[~weighed[rows].isneginf().all(1)]
        chosen[rows] = draw(weighed[rows], rows)
    return chosen


def _texts(vocabulary: Vocabulary, plan: list[str], ids: Tensor) -> list[str]:
    """The texts of ids (R, T) to the end mark, with given characters as they were given."""
    known = [None if slot in KINDS else slot for slot in plan[: ids.shape[1]]]
    texts = []
    for row in ids.tolist():
        row = row[: row.index(vocabulary.eos)] if vocabulary.eos in row else row
        texts.append("".join(c or vocabulary.characters[i] for i, c in zip(row, known, strict=False)))
    return texts


# ------------------------------------------------------------------------------------------------ what may stand where


def _shape(form: str, acrostic: str, lines: Sequence[str], forms: list[str]) -> tuple[tuple[int, int] | None, str]:
    """((verses, characters in each) or None for a free poem, the form's name)."""
    count = len(_characters(acrostic))
    widths = {len(_characters(verse)) for verse in lines} - {0}
    if len(widths) > 1 or (widths and form == "free"):
        raise UserError(f"the verses that are given need one length and a form, not {' and '.join(map(str, widths))}")
    if widths and form == "auto":
        form = next((f for f, shape in FORMS.items() if shape == (len(lines), *widths)), "")
        if not form:
            raise UserError(f"{len(lines)} verses of {widths.pop()} characters are none of {' '.join(FORMS)}")
    if count and form in ("auto", "free"):
        width = 7 if any(FORMS[f][1] == 7 for f in forms) or not forms else 5
        named = [name for name, shape in FORMS.items() if shape == (count, width)]
        return (count, width), named[0] if named else {5: "五言", 7: "七言"}[width]
    if form == "auto":
        form = next((f for f in ("七绝", *forms) if f in forms), "free")
    if form == "free":
        return None, ""
    verses, width = FORMS[form]
    if widths and (len(lines) > verses or widths != {width}):
        raise UserError(f"the verses that are given do not fit {form}: {verses} verses of {width} characters")
    if count > verses:
        raise UserError(f"--acrostic={acrostic}: {form} has {verses} verses, not {count}; leave out --form for {count}")
    return (verses, width), form


def _plan(shape: tuple[int, int] | None, prompt: str, acrostic: str, lines: Sequence[str], max_chars: int) -> list[str]:
    """One slot a sign: a given character, or the kind of sign that may stand there."""
    if shape is None:
        given = list(prompt) or [CHARACTER]  # an empty poem is none
        return [*given, *[ANY] * (max_chars - len(given))]
    verses, width = shape
    plan = [
        sign for v in range(verses) for sign in [CHARACTER] * width + [PAUSE if v % 2 == 0 and v < verses - 1 else STOP]
    ]
    given = _characters(prompt)
    if len(given) > verses * width:
        raise UserError(
            f"--prompt has {len(given)} characters, the form only {verses * width}: shorten it, or --form=free"
        )
    begins = [(v * (width + 1), c) for v, c in enumerate(_characters(acrostic))]
    slots = [i for i, slot in enumerate(plan) if slot not in (PAUSE, STOP)]
    fixed = [(v * (width + 1) + i, c) for v, verse in enumerate(lines) for i, c in enumerate(_characters(verse))]
    for place, character in (*begins, *zip(slots, given, strict=False), *fixed):
        if plan[place] not in (CHARACTER, character):
            names = [f"--prompt={prompt}" if prompt else "", f"--acrostic={acrostic}" if acrostic else ""]
            names = [*filter(None, names), *(["the verses that are given"] if fixed else [])]
            raise UserError(f"{' and '.join(names)} want different characters at the same place")
        plan[place] = character
    return plan


def _characters(text: str) -> list[str]:
    """`text` without punctuation and spaces: the form puts its own. Emoji are characters too."""
    return [c for c in text if c.isalnum() or unicodedata.category(c) == "So"]


def _masks(vocabulary: Vocabulary, device: torch.device) -> dict[str, Tensor]:
    """For each kind of slot that some sign may take, a (V,) mask of what may NOT stand there."""
    letters = [c not in SPECIALS and c.isalnum() for c in vocabulary.characters]
    kinds = {
        CHARACTER: letters if any(letters) else [c not in SPECIALS for c in vocabulary.characters],
        PAUSE: [c in PAUSES for c in vocabulary.characters],
        STOP: [c in STOPS for c in vocabulary.characters],
        ANY: [c not in SPECIALS or c == EOS for c in vocabulary.characters],
    }
    return {kind: ~torch.tensor(allowed, device=device) for kind, allowed in kinds.items() if any(allowed)}


def _sample(logits: Tensor, temperature: float, top_k: int, top_p: float, random: Tensor) -> Tensor:
    """Draws from logits (B, V) with one uniform number a row, so that a row does not depend on the others -> (B)."""
    if temperature < COLD:
        return logits.argmax(-1)
    p = (logits / temperature).softmax(-1)
    # Only the values are sorted, and by numpy: torch.sort takes 25 times as long (25 ms for 64 x 7,000), topk 10 times.
    ranked = torch.from_numpy(np.sort(p.cpu().numpy(), axis=-1)).to(p.device)  # the smallest first
    # Nucleus sampling (Holtzman et al. 2020): the smallest set that holds top_p of the probability, one at the least.
    outside = (ranked.cumsum(-1) <= 1 - top_p).sum(-1, keepdim=True)  # (B, 1)
    if top_k:
        outside = outside.clamp(min=p.shape[-1] - top_k)
    smallest = ranked.gather(-1, outside.clamp(max=p.shape[-1] - 1))
    total = p.masked_fill(p < smallest, 0).cumsum(-1)
    whole = total[:, -1:]
    # Rounding must not put the point behind the last sign that is kept.
    point = torch.minimum(random[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(total, point, right=True)[:, 0]
