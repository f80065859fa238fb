"""What stands on a postcard: the verses of a poem, its title, a signature, a seal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from data.verse import Poem, parse_poem, split_verses
from utils.errors import UserError

LONGEST, MOST_WORDS = 600, 60  # characters of a poem; of a title or signature


@dataclass(frozen=True)
class Inscription:
    """The text of a postcard. `lines` are verses without punctuation; each gets a column where that fits.

    `starts`: the verses, by number, with which a new section begins, after an empty column.

    Raises UserError for a seal of more than four characters, and for a title or signature over MOST_WORDS.
    """

    lines: Sequence[str]
    title: str = ""
    signature: str = ""
    seal: str = ""
    starts: Sequence[int] = ()

    def __post_init__(self):
        if len(self.seal) > 4 or any(c.isspace() for c in self.seal):
            raise UserError("a seal has one to four characters, without spaces", seal=self.seal)
        for name, words in (("title", self.title), ("signature", self.signature)):
            if len(words) > MOST_WORDS:
                raise UserError(f"{len(words)} characters, a postcard has room for {MOST_WORDS}", **{name: None})

    @property
    def sections(self) -> list[list[str]]:
        """The verses, by section."""
        ends = [*self.starts, len(self.lines)]
        return [list(self.lines[start:end]) for start, end in zip([0, *ends], ends, strict=False)]

    @property
    def characters(self) -> str:
        """All that a font has to have."""
        return "".join(self.lines) + self.title + self.signature + self.seal


def read_poem(text: str) -> Poem:
    """A poem's title, author and verses, without marks. Raises UserError if it has none, or is longer than LONGEST."""
    poem = parse_poem(text)
    lines = split_verses(poem.lines)
    count = sum(map(len, lines))
    if not count:
        raise UserError("no poem found: give verses such as 白日依山尽，黄河入海流。", poem=None)
    if count > LONGEST:
        raise UserError(f"{count} characters, a postcard has room for {LONGEST}", poem=None)
    return replace(poem, lines=lines)


def section_starts(text: str) -> list[int]:
    """The verses, by number, before which a poem has an empty line; none if that is not a matter of sections."""
    counts = [len(split_verses(parse_poem(part).lines)) for part in re.split(r"\n\s*\n", text.strip())]
    *starts, total = accumulate(counts)
    return [n for n in starts if n] if total == len(split_verses(parse_poem(text).lines)) else []
