"""Which of its readings a character of several has: alone, and in compounds such as 相思. Nothing is judged here.

data/verse_readings.txt was counted in regular verse (benchmarks/verse_tables.py). A line: a character, its tone (平,
仄, 平/仄) or its 平水韵 groups alone, then after each | others, with the compounds in which it has them:

    相 平 | 仄 丞相 卿相        行 八庚 | 七阳 雁行
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from data.tables import table_lines


@dataclass(frozen=True)
class Readings:
    """Readings (tones, or groups) of characters alone, and by compound of two: alone["相"], compounds["丞相"]["相"]."""

    alone: Mapping[str, frozenset[str]]
    compounds: Mapping[str, Mapping[str, frozenset[str]]]

    def of(self, verse: str, place: int) -> frozenset[str] | None:
        """Those of the character at that place, by the compounds that it may be part of; None: any that it has."""
        character = verse[place]
        words = verse[max(0, place - 1) : place + 1], verse[place : place + 2]
        found = [own for word in words if (own := self.compounds.get(word, {}).get(character))]
        return frozenset.union(*found) if found else self.alone.get(character)


NONE = Readings({}, {})


@cache
def read_readings() -> tuple[Readings, Readings]:
    """(of tones, of rhyme groups) as data/verse_readings.txt has them."""
    tones, groups = Readings({}, {}), Readings({}, {})
    for line in table_lines("verse_readings.txt"):
        character, alone, *sections = line.replace(" | ", "\n").replace(" ", "\n", 1).split("\n")
        into = tones if set(alone) <= set("平仄/") else groups
        into.alone[character] = frozenset(alone.split("/"))
        for section in sections:
            readings, *words = section.split(" ")
            for word in words:
                into.compounds.setdefault(word, {})[character] = frozenset(readings.split("/"))
    return tones, groups
