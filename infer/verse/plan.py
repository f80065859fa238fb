"""The plan of a poem: which kind of token, or which given character, stands at each place."""

import unicodedata

import torch
from torch import Tensor

from data.verse import FORMS, PAUSES, STOPS
from data.vocabulary import EOS, SPECIALS, Vocabulary
from infer.verse.settings import PoemSettings
from utils.errors import UserError

CHARACTER, PAUSE, STOP, ANY = KINDS = "<character>", "<pause>", "<stop>", "<any>"  # what a place may take
Shape = tuple[int, int]  # verses, characters in each


def choose_form(settings: PoemSettings, forms: list[str]) -> tuple[Shape | None, str]:
    """(shape, or None for a free poem; name of the form) for the settings, `forms` being those the network knows."""
    form = settings.form
    count = len(characters_of(settings.acrostic))
    widths = {len(characters_of(verse)) for verse in settings.lines} - {0}
    if len(widths) > 1 or (widths and form == "free"):
        raise UserError(f"the given verses need one length and a form, not {' and '.join(map(str, widths))}")
    if widths and form == "auto":
        form = _named((len(settings.lines), *widths))
        if not form:
            raise UserError(f"{len(settings.lines)} verses of {widths.pop()} characters are none of {' '.join(FORMS)}")
    if count and form in ("auto", "free"):
        width = 7 if any(FORMS[f][1] == 7 for f in forms) or not forms else 5
        return (count, width), _named((count, width)) or {5: "五言", 7: "七言"}[width]
    if form == "auto":
        form = next((f for f in ("七绝", *forms) if f in forms), "free")
    if form == "free":
        return None, ""
    verses, width = FORMS[form]
    if widths and (len(settings.lines) > verses or widths != {width}):
        raise UserError(f"the given verses do not fit {form}: {verses} verses of {width} characters")
    if count > verses:
        message = f"{form} has {verses} verses, not {count}; choose no form for {count}"
        raise UserError(message, acrostic=settings.acrostic)
    return (verses, width), form


def _named(shape: tuple[int, ...]) -> str:
    """The form of that shape; empty if it has no name."""
    return next((form for form, known in FORMS.items() if known == shape), "")


def make_plan(shape: Shape | None, settings: PoemSettings, masks: dict[str, Tensor]) -> list[str]:
    """For each place the given character, or one of KINDS; a line break where the corpus has no punctuation."""
    if shape is None:
        given = list(settings.prompt) or [CHARACTER]  # a poem is not empty
        return [*given, *[ANY] * (settings.max_chars - len(given))]
    count, width = shape
    marks = [PAUSE if v % 2 == 0 and v < count - 1 else STOP for v in range(count)]
    plan = [kind for mark in marks for kind in [CHARACTER] * width + [mark if mark in masks else "\n"]]
    prompt = characters_of(settings.prompt)
    if len(prompt) > count * width:
        raise UserError(
            f"has {len(prompt)} characters, the form only {count * width}: shorten it, or choose form=free", prompt=None
        )
    places = [v * (width + 1) + i for v in range(count) for i in range(width)]
    starts = zip(range(0, len(plan), width + 1), characters_of(settings.acrostic), strict=False)
    kept = [(v * (width + 1) + i, c) for v, verse in enumerate(settings.lines)
            for i, c in enumerate(characters_of(verse))]  # fmt: skip
    for place, character in (*starts, *zip(places, prompt, strict=False), *kept):
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
    plain = [c not in SPECIALS for c in vocabulary.characters]
    letters = [ok and c.isalnum() for ok, c in zip(plain, vocabulary.characters, strict=True)]
    kinds = {
        CHARACTER: letters if any(letters) else plain,
        PAUSE: [c in PAUSES for c in vocabulary.characters],
        STOP: [c in STOPS for c in vocabulary.characters],
        ANY: [ok or c == EOS for ok, c in zip(plain, vocabulary.characters, strict=True)],
    }
    return {kind: ~torch.tensor(allowed, device=device) for kind, allowed in kinds.items() if any(allowed)}
