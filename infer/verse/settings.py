"""What a poem should be like. No torch here: these settings are made and checked before anything slow is imported."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data.verse import FORMS, PAIR
from infer.verse.check import chinese_verses
from infer.verse.tunes import find_tune, no_such_form
from utils.errors import UserError

NAMED = (*FORMS, PAIR, "free")  # besides the tunes of 词
PATTERNS = ("auto", "平起首句入韵", "平起首句不入韵", "仄起首句入韵", "仄起首句不入韵")


@dataclass(frozen=True)
class PoemSettings:
    """Settings of `compose`.

    What is given is kept as it is, even characters that the network does not know (it reads the unknown token instead).

    Args:
        form: one of NAMED, a tune of 词, or "auto": what fits the rest, else 七绝 if the network has learnt it.
        prompt, acrostic: how the poem begins; how its verses begin.
        keywords: words that the poem should be about.
        avoid: characters that are not to be written; given ones stay.
        lines: verses to keep, without punctuation; an empty one is written.
        regular: keep the rules of regulated verse, avoid repetition, copy no verse of the training corpus. Applies to
            FORMS if the network has a rhyme table.
        pattern: name of a tone pattern; "auto": whichever fits and the network likes.
        rhyme: a rhyme group such as 先; empty: whichever the network likes.
        candidates: versions of each poem, of which the best is kept.
        temperature, top_k, top_p: how tokens are sampled; temperature 0: always the likeliest; top_k 0: all.
        guidance: scale of the classifier-free guidance by title and keywords; 0: off.
        max_chars: length at which a free poem is cut.
    """

    form: str = "auto"
    prompt: str = ""
    title: str = ""
    author: str = ""
    acrostic: str = ""
    keywords: Sequence[str] = ()
    avoid: str = ""
    lines: Sequence[str] = ()
    regular: bool = True
    pattern: str = "auto"
    rhyme: str = ""
    candidates: int = 32
    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 0.93
    guidance: float = 1.5
    max_chars: int = 200

    def __post_init__(self) -> None:
        """Raises UserError for a form that there is not."""
        if self.form not in ("auto", *NAMED) and not find_tune(self.form):
            raise no_such_form(self.form, ("auto", *NAMED))


def split_words(text: str) -> list[str]:
    """The words of a list separated by commas or white space, but not by spaces in English: 梅花 雪,ice cream."""
    return [word for word in re.split(r"\s*[,，、]\s*|(?<![A-Za-z])\s+|\s+(?![A-Za-z])", text) if word]


def keep_verses(poem: str, lock: str) -> list[str]:
    """The verses of `poem` that `lock` ("1,3", counted from 1) names, and "" for each of the others.

    Raises UserError for numbers that the poem does not have, or if only one of the two is given.
    """
    if bool(poem) != bool(lock):
        raise UserError("poem and lock belong together: poem=床前明月光，… lock=1,3 rewrites all verses but 1 and 3")
    parts = chinese_verses(poem) if poem else []
    numbers = {str(i) for i in range(1, len(parts) + 1)}
    kept = set(split_words(lock))
    if not kept <= numbers:
        raise UserError(f"expected numbers of verses from 1 to {len(parts)}, such as 1,3", lock=lock)
    return [verse if str(i) in kept else "" for i, verse in enumerate(parts, 1)]
