"""The rhyme table: tones and 平水韵 groups of characters. A tone is 平 (level) or 仄 (oblique); 中 is either."""

import re
from collections.abc import Mapping
from functools import cache

from data.tables import table_lines
from infer.verse.readings import NONE, Readings, read_readings
from utils.errors import UserError

LEVEL, OBLIQUE, EITHER, UNKNOWN = "平", "仄", "中", "？"


@cache
def read_divisions() -> dict[str, dict[str, str]]:
    """The 部 of 词林正韵: of each its 平水韵 groups, and of a group that is divided its characters there, else ""."""
    lines = [line.split(" ") for line in table_lines("ci_rhymes.txt")]
    return {name: dict(part.partition(":")[::2] for part in groups) for name, *groups in lines}


class RhymeTable:
    """Tones and rhyme groups of characters.

    Args:
        rhymes: the characters of each group, such as {"一东": "东同铜…", "一董": "董动…"}.
        tones: 平, 上, 去 or 入 of each group.
        readings: which tones, and which groups, of its readings a character has where; by default all of them.
    """

    def __init__(
        self, rhymes: Mapping[str, str], tones: Mapping[str, str], readings: tuple[Readings, Readings] = (NONE, NONE)
    ):
        self.rhymes = dict(rhymes)
        self.level = [group for group in rhymes if tones[group] == LEVEL]
        self.readings = readings
        self._groups: dict[str, list[str]] = {}
        self._tones: dict[str, set[str]] = {}
        for group, characters in rhymes.items():
            for c in characters:
                self._tones.setdefault(c, set()).add(LEVEL if tones[group] == LEVEL else OBLIQUE)
                self._groups.setdefault(c, []).append(group)

    @classmethod
    def of(cls, metadata: Mapping) -> "RhymeTable | None":
        """The table that a model file holds (rhymes, rhyme_tones), or None."""
        return cls(metadata["rhymes"], metadata["rhyme_tones"], read_readings()) if metadata.get("rhymes") else None

    def tones(self, verse: str, place: int = 0) -> str:
        """平, 仄, 平仄 (either), or nothing (not in the table): the character at that place of a verse."""
        every = self._tones.get(verse[place], set())
        kept = every & (self.readings[0].of(verse, place) or every) or every
        return "".join(tone for tone in (LEVEL, OBLIQUE) if tone in kept)

    def groups(self, verse: str, place: int = -1, tone: str = LEVEL) -> list[str]:
        """The groups of a tone that the character at that place of a verse rhymes in."""
        place %= len(verse)
        if tone not in self.tones(verse, place):
            return []
        every = [group for group in self._groups[verse[place]] if (group in self.level) == (tone == LEVEL)]
        kept = self.readings[1].of(verse, place) if tone == LEVEL else None
        return [group for group in self.level if group in kept] if kept else every

    def divisions(self, verse: str, place: int = -1, tone: str = LEVEL) -> list[str]:
        """The 部 of 词林正韵 that the character at that place of a verse rhymes in, in a tone."""
        own, character = self.groups(verse, place, tone), verse[place]
        return [name for name, groups in read_divisions().items() if any(_holds(groups, g, character) for g in own)]

    def find(self, name: str) -> str:
        """The level group of that name: 一先, 先 or 下平一先. Raises UserError if it is none."""
        short = re.sub("^[上下]平(声)?", "", name)
        found = [g for g in self.rhymes if short in (g, _bare(g))]
        if len(found) == 1 and found[0] in self.level:
            return found[0]
        level = "".join(_bare(g) for g in self.level)
        if found:
            raise UserError(f"{'、'.join(found)} is no level-tone group; regulated verse takes {level}", rhyme=name)
        raise UserError(f"no such rhyme group; choose one of {level}", rhyme=name)


def find_division(name: str) -> str:
    """The 部 of 词林正韵 of that name, 第七部, or with a 平水韵 group so called, 先. Raises UserError if none is."""
    for division, groups in read_divisions().items():
        if name == division or any(name in (group, _bare(group)) for group in groups):
            return division
    first, *_, last = read_divisions()
    raise UserError(f"no such rhyme group; choose one from {first} to {last}, or a 平水韵 group", rhyme=name)


def _holds(groups: Mapping[str, str], group: str, character: str) -> bool:
    return group in groups and (not groups[group] or character in groups[group])


def _bare(group: str) -> str:
    """先 of 一先."""
    return re.sub("^[一二三四五六七八九十]+(?=.)", "", group)
