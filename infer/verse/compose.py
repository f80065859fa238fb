"""Writing poems: several candidates each, of which the best is kept.

Candidates are written side by side (decoding.py), to a plan of what may stand where (plan.py) and within the rules
(constraints.py); at the end of a verse unlikely ones give way to copies of the others, and at last they are ranked
(rank.py).
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from data.verse import CI, FORMS, MARKS, PAIR, PAUSES, STOPS, form_of, to_lines, traditional, verses
from data.vocabulary import AUTHOR, KEYWORD, TITLE, Vocabulary
from infer.verse.check import check_pair, check_verses
from infer.verse.check_ci import check_tune
from infer.verse.constraints import Rules
from infer.verse.decoding import COLD, Decoder
from infer.verse.drawn import draw_title
from infer.verse.images import Theme, find_theme
from infer.verse.lexicon import Lexicon
from infer.verse.plan import KINDS, Form, characters_of, choose_form, make_plan, split_acrostic
from infer.verse.poets import remarks_on
from infer.verse.prosody import Pattern, pair_patterns, patterns
from infer.verse.rank import rate
from infer.verse.rhyme import LEVEL, OBLIQUE, RhymeTable, find_division
from infer.verse.settings import PoemSettings
from infer.verse.verdict import Check
from models.poet import Poet
from utils.errors import UserError

BATCH = 256  # candidates; more at once are no faster, but need more memory


@dataclass
class Composition:
    """A written poem.

    `sections`: of a 词, how many of its lines belong to each section.
    `score` is its mean log-probability per character in nats, conditions given; `rating` is what candidates are ranked
    by; `seed` writes it again, alone. `pattern` and `rhyme` are empty where the rules were off; `remarks` name given
    characters that break them.
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
    sections: list[int] = field(default_factory=list)
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

    @property
    def pinyin(self) -> list[str]:
        """How each line is read today, by pypinyin: chuáng qián míng yuè guāng, yí shì dì shàng shuāng."""
        from pypinyin import pinyin  # its dictionaries take a moment to load

        read = (" ".join(syllable for [syllable] in pinyin(line)) for line in self.lines)
        return [re.sub(rf" ?([{STOPS}])", ".", re.sub(f" ?([{PAUSES}])", ",", line)) for line in read]

    def in_traditional(self) -> "Composition":
        """The poem in traditional characters."""
        return dataclasses.replace(self, title=traditional(self.title), lines=list(map(traditional, self.lines)))

    def as_dict(self) -> dict:
        facts = {name: value for name, value in vars(self).items() if name != "check"}
        return {**facts, "score": round(self.score, 4), "rating": round(self.rating, 4)}

    def __str__(self) -> str:
        """As it is printed: the title, of a 词 with its tune, and the body."""
        head = "·".join(filter(None, (self.form if self.sections else "", self.title)))
        return f"《{head}》\n" * bool(head) + self.body

    @property
    def body(self) -> str:
        """A line for each couplet or sentence, an empty one between sections."""
        lines = iter(self.lines)
        sections = [itertools.islice(lines, count) for count in self.sections or [len(self.lines)]]
        return "\n\n".join(map("\n".join, sections))


def compose(
    model: Poet, settings: PoemSettings | None = None, n: int = 1, seed: int = 0, forms: list[str] | None = None
) -> list[Composition]:
    """Writes `n` poems: all that `compose_each` gives."""
    return list(compose_each(model, settings, n, seed, forms))


def compose_each(
    model: Poet, settings: PoemSettings | None = None, n: int = 1, seed: int = 0, forms: list[str] | None = None
) -> Iterator[Composition]:
    """Writes `n` poems, each when it is asked for. Poem i depends on seed + i alone, whatever n is.

    A poem about nothing in particular is written to a title that is drawn (infer/verse/drawn.py), and not shown. With a
    form every poem has its number of verses and characters by construction. An acrostic of more than eight makes two
    poems of each. `forms` are those that the network has learnt (None: as its file says). Raises UserError for settings
    that do not fit each other or the network.
    """
    settings = settings or PoemSettings()
    forms = model.metadata.get("forms", []) if forms is None else forms
    parts = split_acrostic(settings)
    if len(parts) > 1:
        for i, part in itertools.product(range(n), parts):
            [poem] = compose(model, dataclasses.replace(settings, acrostic=part), 1, seed + i, forms)
            poem.remarks.insert(0, f"{settings.acrostic}: two poems, {' and '.join(parts)}")
            yield poem
        return
    lexicon = Lexicon.of(model)
    vocabulary, masks = lexicon.vocabulary, lexicon.masks_without(settings.avoid)
    theme = find_theme(settings.title, settings.keywords, vocabulary)
    theme = dataclasses.replace(theme, remarks=[*theme.remarks, *_unread(settings, vocabulary)])
    form = choose_form(settings, forms)
    plan = make_plan(form, settings, masks)
    rules = _rules(settings, lexicon, plan, form)
    conditions = _conditions(vocabulary, settings, theme, form, forms)
    decoder = Decoder(model, vocabulary, plan, masks, conditions, rules, settings)
    candidates = 1 if settings.temperature < COLD else settings.candidates  # without randomness there is no choice
    about = (theme.title, theme.words, theme.images, settings.prompt, *settings.lines)
    draws = bool(rules) and TITLE in vocabulary.ids and not any(about)
    answers = form.name == PAIR and form.couplet in forms
    step = 1 if draws or answers else max(1, BATCH // candidates)
    for first in range(seed, seed + n, step):
        seeds = range(first, min(first + step, seed + n))
        if draws:
            drawn = dataclasses.replace(theme, title=vocabulary.fold(draw_title(first))[0])
            conditions = _conditions(vocabulary, settings, drawn, form, forms)[:1]  # no guidance: it is not asked for
        before = vocabulary.encode(_opening(model, settings, form, first, forms)) if answers else []
        decoder = dataclasses.replace(decoder, conditions=[[*c, *before] for c in conditions])
        yield from _compose_batch(decoder, seeds, candidates, form, theme)


def _opening(model: Poet, settings: PoemSettings, form: Form, seed: int, forms: list[str]) -> str:
    """A couplet that a pair is written behind: the network has learnt that the second couplet is parallel."""
    title = settings.title or settings.prompt or draw_title(seed)
    quatrain = form.couplet.replace("律", "绝")
    asked = PoemSettings(form=quatrain, title=title, keywords=settings.keywords, candidates=4)
    [poem] = compose(model, asked, 1, seed, forms)
    return poem.lines[0]


def _compose_batch(decoder: Decoder, seeds: range, candidates: int, form: Form, theme: Theme) -> Iterator[Composition]:
    """The poems of these seeds."""
    size = candidates + 1, len(decoder.plan)
    chance = [torch.rand(*size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    draft = decoder.write(torch.stack(chance))
    texts, scores = decoder.texts(draft.ids), draft.mean(draft.log_probs)
    settings = decoder.settings
    pairs = decoder.rules.lexicon.pairs if decoder.rules else None
    ratings = rate(decoder.model, draft, form, texts, theme, pairs).cpu().view(-1, candidates)
    for poem, best in enumerate(ratings.argmax(1).tolist()):
        row = poem * candidates + best
        lines = to_lines(texts[row].split("\n"))
        prosody, remarks = {}, [*theme.remarks, *_free_verses(settings.acrostic, form)]
        if decoder.rules:
            table, parts = decoder.rules.lexicon.table, verses(texts[row])
            found = check_form(parts, table, form)
            prosody = {"pattern": found.pattern, "rhyme": found.rhyme, "check": found}
            remarks += draft.progress.remarks(row)
        elif settings.regular and form.shape:
            remarks += ["the poet has no rhyme table: the form is kept, tones and rhyme are not"]
        score, rating = scores[row].item(), ratings[poem, best].item()
        facts = {"score": score, "rating": rating, "seed": seeds[poem], "remarks": remarks, **prosody}
        yield Composition(form.name or form_of(lines), settings.title, lines, sections=form.sections, **facts)


def _unread(settings: PoemSettings, vocabulary: Vocabulary) -> list[str]:
    """Remarks on what else is given and not read as it stands, and on a poet whom nobody knows."""
    given = {"prompt": settings.prompt, "author": settings.author, "acrostic": settings.acrostic}
    remarks = [f"{name}: {remark}" for name, text in given.items() for remark in vocabulary.remarks(text)]
    return remarks + [f"author: {remark}" for remark in remarks_on(vocabulary.fold(settings.author)[0])]


def _free_verses(acrostic: str, form: Form) -> list[str]:
    """A remark on a form that has more verses than the acrostic has characters."""
    count, verses = len(characters_of(acrostic)), len(form.shape.widths) if form.shape else 0
    if not 0 < count < verses:
        return []
    return [f"{acrostic} has {count} characters, {form.name} {verses} verses: the others are free"]


def check_form(verses: list[str], table: RhymeTable, form: Form) -> Check:
    """What verses of that form break of its rules."""
    if form.tune:
        return check_tune(verses, table, form.tune)
    return check_pair(verses, table) if form.name == PAIR else check_verses(verses, table)


def _rules(settings: PoemSettings, lexicon: Lexicon, plan: Sequence[str], form: Form) -> Rules | None:
    """The rules of the form, if they are wanted and there are any."""
    ruled = settings.regular and lexicon.table and form.shape
    if settings.pattern != "auto" and not (ruled and form.regulated):
        needed = f"needs a poet with a rhyme table, one of the forms {' '.join(FORMS)}, and regular=true"
        raise UserError(needed, pattern=settings.pattern)
    if settings.rhyme and not (ruled and form.name != PAIR):
        needed = f"needs a poet with a rhyme table, one of the forms {' '.join(FORMS)} or a tune, and regular=true"
        raise UserError(needed, rhyme=settings.rhyme)
    if not ruled:
        return None
    given = ["" if slot in (*KINDS, *MARKS, "\n") else lexicon.vocabulary.fold(slot)[0] for slot in plan]
    find = lexicon.table.find if form.regulated else find_division
    rhyme = find(settings.rhyme) if settings.rhyme else ""
    return Rules(lexicon, form, _patterns(settings, lexicon.table, given, form), given, rhyme)


def _patterns(settings: PoemSettings, table: RhymeTable, given: Sequence[str], form: Form) -> list[Pattern]:
    """The patterns that a poem of that form may have."""
    if form.tune:
        return [form.tune.pattern]
    if form.name == PAIR:
        if not settings.prompt:
            return pair_patterns([[LEVEL + OBLIQUE] * 7])
        shape = form.shape
        texts = ["".join(given[start : start + w]) for start, w in zip(shape.starts, shape.widths, strict=True)]
        return pair_patterns([[table.tones(t, i) for i in range(len(t))] for t in texts[: len(texts) // 2]])
    found = patterns(len(form.shape.widths), form.shape.widths[0])
    names = [p.name for p in found]
    if settings.pattern not in ("auto", *names):
        raise UserError(f"choose auto or one of {', '.join(names)}", pattern=settings.pattern)
    return [p for p in found if settings.pattern in ("auto", p.name)]


def _conditions(
    vocabulary: Vocabulary, settings: PoemSettings, theme: Theme, form: Form, forms: list[str]
) -> list[list[int]]:
    """The tokens before the poem: all of them; and, if there is a theme (title, keywords), those without it."""
    needed = {"title": TITLE, "author": AUTHOR, "keywords": KEYWORD}
    for name, token in needed.items():
        if getattr(settings, name) and token not in vocabulary.ids:
            raise UserError("needs a poet that has learnt such: train one, or leave it out", **{name: None})
    keywords = [*theme.words, *theme.images] if KEYWORD in vocabulary.ids else []
    known, tune = (CI, form.tune.name) if form.tune else (form.couplet or form.name, "")
    known = known if form.tune or known in forms else ""
    parts = vocabulary.condition(known, vocabulary.fold(settings.author)[0], theme.title, keywords, tune)
    whole, plain = ([*sum(chosen, []), vocabulary.bos] for chosen in (parts, parts[:2]))
    return [whole] if whole == plain else [whole, plain]
