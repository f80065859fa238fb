"""The rhyme table: tones and 平水韵 groups of characters. A tone is 平 (level) or 仄 (oblique); 中 is either."""

import re
from collections.abc import Mapping

from utils.errors import UserError

LEVEL, OBLIQUE, EITHER, UNKNOWN = "平", "仄", "中", "？"


class RhymeTable:
    """Tones and rhyme groups of characters; a character of several readings has those of all of them.

    Args:
        rhymes: the characters of each group, such as {"一东": "东同铜…", "一董": "董动…"}.
        tones: 平, 上, 去 or 入 of each group.
    """

    def __init__(self, rhymes: Mapping[str, str], tones: Mapping[str, str]):
        self.rhymes = dict(rhymes)
        self.level = [group for group in rhymes if tones[group] == LEVEL]
        self._groups: dict[str, list[str]] = {}
        self._tones: dict[str, set[str]] = {}
        for group, characters in rhymes.items():
            for c in characters:
                self._groups.setdefault(c, []).append(group)
                self._tones.setdefault(c, set()).add(LEVEL if tones[group] == LEVEL else OBLIQUE)

    @classmethod
    def of(cls, metadata: Mapping) -> "RhymeTable | None":
        """The table that a model file holds (rhymes, rhyme_tones), or None."""
        return cls(metadata["rhymes"], metadata["rhyme_tones"]) if metadata.get("rhymes") else None

    def tones(self, character: str) -> str:
        """平, 仄, 平仄 (either), or nothing if the character is not in the table."""
        return "".join(t for t in (LEVEL, OBLIQUE) if t in self._tones.get(character, ()))

    def groups(self, character: str) -> list[str]:
        """The level groups it rhymes in."""
        return [g for g in self._groups.get(character, ()) if g in self.level]

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


def _bare(group: str) -> str:
    """先 of 一先."""
    return re.sub("^[一二三四五六七八九十]+(?=.)", "", group)
