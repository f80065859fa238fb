"""What is found wrong in a poem: faults, and the whole verdict with its text in signs and words."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from data.verse import PAIR, simplify
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE, UNKNOWN, RhymeTable


@dataclass(frozen=True)
class Fault:
    """What is wrong where; verse and place count from 1, place 0 is the whole verse."""

    kind: str
    verse: int
    place: int
    text: str


@dataclass
class Check:
    """A poem's prosody. `tones` and `wants` have for each character 平, 仄, 中 (either) or ？ (not in the table).

    `pattern` is the nearest regular one, `rhyme` the group of most rhymes; both and `wants` are empty for verse whose
    shape is not that of regulated verse. Of a 词 `pattern` is the tune, `rhyme` its 部. `style`: 古绝 or 古体 for verse
    of a regulated shape to which the rules do not apply (it has no faults), 对联 for a pair. `lines`: number of verses
    on each line, if they are no couplets. Remarks are no faults.
    """

    form: str
    verses: list[str]
    tones: list[str]
    wants: list[str] = field(default_factory=list)
    rhymes: list[bool] = field(default_factory=list)
    pattern: str = ""
    rhyme: str = ""
    style: str = ""
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    @property
    def regular(self) -> bool:
        return (bool(self.pattern) or self.style == PAIR) and not self.faults

    def as_dict(self) -> dict:
        return {**{k: v for k, v in asdict(self).items() if k != "lines"}, "regular": self.regular}

    def __str__(self) -> str:
        """The characters, their tones below, ＾ under each fault; then the faults in words.

        Everything is as wide as a Chinese character, so that it is aligned in a terminal.
        """
        head = " ".join(filter(None, (self.form, self.pattern, self.style)))
        head += f", rhyme {self.rhyme or 'none'}" if self.pattern or self.rhyme else ""
        faults = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        text = [f"{head}: {'regular' if self.regular else faults if self.faults else 'not regulated verse'}"]
        numbers = iter(range(len(self.verses)))
        for count in self.lines or [2] * ((len(self.verses) + 1) // 2):
            line = list(itertools.islice(numbers, count))
            text.append("，".join(self.verses[v] for v in line) + "。")
            text.append("　".join(self.tones[v] for v in line))
            below = "　".join(self._marks(v + 1) for v in line).rstrip("　")
            text += [below] if below else []
        text += [f"verse {f.verse}: {f.kind} {f.text}" for f in self.faults]
        return "\n".join(text + self.remarks)

    def _marks(self, verse: int) -> str:
        places = {f.place for f in self.faults if f.verse == verse}
        return "".join("＾" if place in places else "　" for place in range(1, len(self.verses[verse - 1]) + 1))


def tones_of(verses: Sequence[str], table: RhymeTable) -> tuple[list[list[str]], list[str]]:
    """(the tones that each character may have, both if it is not in the table; a sign for each, one text a verse)."""
    readings = [[table.tones(verse, i) for i in range(len(verse))] for verse in verses]
    names = {LEVEL + OBLIQUE: EITHER, "": UNKNOWN}
    signs = ["".join(names.get(r, r) for r in row) for row in readings]
    return [[r or LEVEL + OBLIQUE for r in row] for row in readings], signs


def as_in_table(verses: Sequence[str], table: RhymeTable) -> list[str]:
    """Verses with characters that the table lacks in their simplified form."""
    return ["".join(c if table.tones(c) else simplify(c) for c in verse) for verse in verses]


def unknown_characters(found: Check) -> list[str]:
    """A remark with the characters that are not in the table, if there are any."""
    signs = zip("".join(found.verses), "".join(found.tones), strict=True)
    unknown = "".join(dict.fromkeys(c for c, tone in signs if tone == UNKNOWN))
    return [f"not in the table: {unknown}"] if unknown else []
