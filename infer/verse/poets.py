"""The poets of Tang and Song of whom the corpus has twenty poems and more (data/verse_poets.txt). No torch here."""

from difflib import get_close_matches
from functools import cache

from data.tables import table_lines


@cache
def read_poets() -> frozenset[str]:
    return frozenset(table_lines("verse_poets.txt"))


def remarks_on(author: str) -> list[str]:
    """A line for a poet whom nobody knows, as the vocabulary spells him; none without an author."""
    if not author or author in read_poets():
        return []
    near = get_close_matches(author, sorted(read_poets()), 3, 0.5)
    return [f"{author} is no poet of the corpus" + (f"; there are {'、'.join(near)}" if near else "")]
