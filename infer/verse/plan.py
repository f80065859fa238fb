"""The plan of a poem: which kind of token, or which given character, stands at each place."""

import itertools
import unicodedata
from dataclasses import dataclass

import torch
from torch import Tensor

from data.verse import FORMS, NAMES, PAIR, STOPS, split_verses
from data.vocabulary import EOS, SPECIALS, Vocabulary
from infer.verse.settings import NAMED, PoemSettings
from infer.verse.shape import Shape
from infer.verse.tunes import Tune, find_tune
from utils.errors import UserError

CHARACTER, PAUSE, STOP, ANY = KINDS = "<character>", "<pause>", "<stop>", "<any>"  # what a place may take
LONGEST = 16  # characters of an acrostic: two poems of eight verses


@dataclass(frozen=True)
class Form:
    """A form of verse: its name, empty if it has none; its shape, None for a poem without; the tune of a 词."""

    name: str = ""
    shape: Shape | None = None
    tune: Tune | None = None

    @property
    def regulated(self) -> bool:
        return self.name in FORMS

    @property
    def couplet(self) -> str:
        """The form of eight verses whose couplets a pair is like; empty if there is none."""
        same = self.name == PAIR and len(self.shape.widths) == 2
        return NAMES.get((8, self.shape.widths[0]), "") if same else ""

    @property
    def sections(self) -> list[int]:
        """How many lines each section of a 词 has; nothing for other forms."""
        if not self.tune:
            return []
        marks = iter(self.shape.marks)
        return [sum(mark == STOPS[0] for mark in itertools.islice(marks, count)) for count in self.tune.sections]

    @property
    def copies(self) -> dict[int, int]:
        """The places that repeat an earlier place: that."""
        found = self.tune.copies if self.tune else {}
        return {self.shape.characters[i]: self.shape.characters[first] for i, first in found.items()}


def choose_form(settings: PoemSettings, forms: list[str]) -> Form:
    """The form for the settings, `forms` being those the network knows."""
    name = settings.form
    if name == PAIR:
        return Form(PAIR, _pair_shape(settings))
    if name not in ("auto", *NAMED):
        return _form_of_tune(settings, find_tune(name))
    count = len(characters_of(settings.acrostic))
    widths = {len(characters_of(verse)) for verse in settings.lines} - {0}
    if len(widths) > 1 or (widths and name == "free"):
        raise UserError(f"the given verses need one length and a form, not {' and '.join(map(str, widths))}")
    if widths and name == "auto":
        name = NAMES.get((len(settings.lines), *widths))
        if not name:
            raise UserError(f"{len(settings.lines)} verses of {widths.pop()} characters are none of {' '.join(FORMS)}")
    if count and name in ("auto", "free"):  # the form is completed
        width = 7 if any(FORMS[f][1] == 7 for f in forms if f in FORMS) or not forms else 5
        name = NAMES[4 if count <= 4 else 8, width]
    if name == "auto":
        name = next((f for f in ("七绝", *forms) if f in forms), "free")
    if name == "free":
        return Form()
    verses, width = FORMS[name]
    if widths and (len(settings.lines) > verses or widths != {width}):
        raise UserError(f"the given verses do not fit {name}: {verses} verses of {width} characters")
    if count > verses:
        message = f"{name} has {verses} verses, not {count}; choose no form for {count}"
        raise UserError(message, acrostic=settings.acrostic)
    return Form(name, Shape.even(verses, width))


def split_acrostic(settings: PoemSettings) -> list[str]:
    """The acrostics of the poems that are needed: two for more than eight characters and no form."""
    characters = characters_of(settings.acrostic)
    count = len(characters)
    if count <= 8 or settings.form not in ("auto", "free"):
        return [settings.acrostic]
    if count > LONGEST:
        raise UserError(f"an acrostic has {LONGEST} characters at most, two poems of eight verses", acrostic=None)
    first = min(8, count - 4)
    return ["".join(characters[:first]), "".join(characters[first:])]


def _form_of_tune(settings: PoemSettings, tune: Tune) -> Form:
    count, verses = len(characters_of(settings.acrostic)), len(tune.shape.widths)
    if count > verses:
        raise UserError(f"{tune.name} has {verses} verses, not {count}", acrostic=settings.acrostic)
    for verse, width in zip(settings.lines, tune.shape.widths, strict=False):
        if verse and len(characters_of(verse)) != width:
            raise UserError(f"{verse} does not fit {tune.name}, which has {width} characters there")
    if len(settings.lines) > verses:
        raise UserError(f"the given verses do not fit {tune.name}: it has {verses}")
    return Form(tune.name, tune.shape, tune)


def _pair_shape(settings: PoemSettings) -> Shape:
    """Twice the verses of the first line that the prompt is, or twice seven characters."""
    if settings.acrostic or any(settings.lines):
        raise UserError(f"{PAIR}: give the first line as prompt, no acrostic and no verses")
    parts = [len(characters_of(part)) for part in split_verses(settings.prompt)] if settings.prompt else [7]
    if not parts or max(parts) > 30:
        raise UserError("a line of a pair has 1 to 30 characters between its marks", prompt=settings.prompt)
    inside = ["，"] * (len(parts) - 1)
    return Shape(tuple(parts * 2), (*inside, "；" if inside else "，", *inside, "。"))


def make_plan(form: Form, settings: PoemSettings, masks: dict[str, Tensor]) -> list[str]:
    """For each place the given character, or one of KINDS; a line break where the corpus has no punctuation."""
    shape = form.shape
    if shape is None:
        given = list(settings.prompt) or [CHARACTER]  # a poem is not empty
        return [*given, *[ANY] * (settings.max_chars - len(given))]
    plan = []
    for width, mark in zip(shape.widths, shape.marks, strict=True):
        kind = {"，": PAUSE, "。": STOP}.get(mark, mark)
        plan += [CHARACTER] * width + [kind if kind in masks or kind == mark else "\n"]
    prompt = characters_of(settings.prompt)
    if len(prompt) > len(shape.characters):
        raise UserError(
            f"has {len(prompt)} characters, the form only {len(shape.characters)}: shorten it, or choose form=free",
            prompt=None,
        )
    starts = zip(shape.starts, characters_of(settings.acrostic), strict=False)
    kept = [(start + i, c) for start, verse in zip(shape.starts, settings.lines, strict=False)
            for i, c in enumerate(characters_of(verse))]  # fmt: skip
    for place, character in (*starts, *zip(shape.characters, prompt, strict=False), *kept):
        if plan[place] not in (CHARACTER, character):
            given = {"the prompt": prompt, "the acrostic": settings.acrostic, "the given verses": kept}
            names = " and ".join(name for name, there in given.items() if there)
            raise UserError(f"{names} want different characters at the same place")
        plan[place] = character
    return plan


def characters_of(text: str) -> list[str]:
    """`text` without punctuation and spaces, which the form sets itself. Emoji are characters, too."""
    return [c for c in text if c.isalnum() or unicodedata.category(c) == "So"]


def token_masks(vocabulary: Vocabulary, device: torch.device) -> dict[str, Tensor]:
    """For each of KINDS that some token is, a (V,) mask of the tokens that are NOT."""
    characters = vocabulary.characters
    letters = [c.isalnum() for c in characters]  # <bos> is not
    kinds = {
        CHARACTER: letters if any(letters) else [c not in SPECIALS for c in characters],
        PAUSE: [c == "，" for c in characters],  # a 、 stands inside of verses
        STOP: [c in STOPS for c in characters],
        ANY: [c not in SPECIALS or c == EOS for c in characters],
    }
    return {kind: ~torch.tensor(allowed, device=device) for kind, allowed in kinds.items() if any(allowed)}
