"""The tunes of 词 (词牌): which verses they have, in which tones, what rhymes and what is repeated. No torch here.

data/ci_tunes.txt has them; its first lines say how.
"""

import difflib
import itertools
import re
from dataclasses import dataclass
from functools import cache, cached_property

from data.tables import table_lines
from data.verse import simplify
from infer.verse.prosody import Pattern
from infer.verse.rhyme import EITHER
from infer.verse.shape import Shape
from utils.errors import UserError

SAME, TURNED = "@~"  # what the verse before ends with, and that turned round
VERSE = re.compile(rf"([平仄中{SAME}{TURNED}]+)(\([A-Da-d]\)|[A-Da-d]?)([，。、])")


@dataclass(frozen=True)
class Tune:
    """A form of a tune.

    For each verse `tones` has what its characters want (平 仄 中; @ and ~ where they are repeated), `rhymes` the letter
    of those that it rhymes with, in brackets where it only may, else "". `sections`: number of verses of each.
    """

    name: str
    names: tuple[str, ...]
    tones: tuple[str, ...]
    rhymes: tuple[str, ...]
    shape: Shape
    sections: tuple[int, ...]

    @cached_property
    def copies(self) -> dict[int, int]:
        """The characters, by number, that repeat others: those."""
        found, start = {}, 0
        for verse in self.tones:
            repeated = len(verse) - len(verse.rstrip(SAME + TURNED))
            for i in range(repeated):
                from_end = i + 1 if verse[-1] == TURNED else repeated - i
                found[start + len(verse) - repeated + i] = start - from_end
            start += len(verse)
        return found

    @cached_property
    def pattern(self) -> Pattern:
        """What its verses want, of repeated characters what the first wants; rhymes that are free are left out."""
        wants = [EITHER if c in SAME + TURNED else c for c in "".join(self.tones)]
        for place, first in self.copies.items():
            wants[place] = wants[first]
        characters = iter(wants)
        verses = tuple("".join(itertools.islice(characters, width)) for width in self.shape.widths)
        return Pattern(self.name, verses, tuple("" if "(" in letter else letter for letter in self.rhymes))

    @property
    def lines(self) -> list[int]:
        """How many verses each line has: a line ends where a sentence does."""
        ends = [v for v, mark in enumerate(self.shape.marks, 1) if mark == "。"]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    @property
    def length(self) -> int:
        """Number of characters."""
        return sum(self.shape.widths)


@cache
def read_tunes() -> tuple[Tune, ...]:
    """All forms of all tunes, the commonest tune first, and of a tune its commonest form."""
    found: dict[str, list[Tune]] = {}
    for line in table_lines("ci_tunes.txt"):
        names, text = line.split("\t")
        sections = [VERSE.findall(section) for section in text.split("/")]
        tones, rhymes, marks = zip(*(verse for section in sections for verse in section), strict=True)
        shape = Shape(tuple(map(len, tones)), marks)
        name = names.split(" ")[0]
        tune = Tune(name, tuple(names.split(" ")), tones, rhymes, shape, tuple(map(len, sections)))
        found.setdefault(name, []).append(tune)
    return tuple(tune for forms in found.values() for tune in forms)


def tune_names() -> list[str]:
    """The names of all tunes, the commonest first."""
    return list(dict.fromkeys(tune.name for tune in read_tunes()))


def find_tune(name: str) -> Tune | None:
    """The commonest form of the tune of that name, or other name, in whatever characters; None: it is none."""
    own = [tune for tune in read_tunes() if tune.name == name]
    named = own or [tune for tune in read_tunes() if name in tune.names]
    if named:
        return named[0]
    return find_tune(plain) if name and (plain := simplify(name)) != name else None


def no_such_form(name: str, forms: tuple[str, ...]) -> UserError:
    """The error for a form that is none: it names the nearest."""
    names = dict.fromkeys([*forms, *(n for tune in read_tunes() for n in tune.names)])
    shared = sorted(names, key=lambda n: -len(set(n) & set(name)) / len(set(n) | set(name)))
    near = [n for n in shared if set(n) & set(name) and not n.isascii()][:3] or difflib.get_close_matches(name, forms)
    hint = f"did you mean {' or '.join(near)}?" if near else "python main.py help generate names the tunes of 词"
    return UserError(f"choose {', '.join(forms)}, or a tune of 词; {hint}", form=name)
