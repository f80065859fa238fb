"""Regulated verse (近体诗): tones, 平水韵 rhyme groups, the patterns of a form, and what a poem breaks of them.

Rules only: no network, nothing is written here. A tone is 平 (level) or 仄 (oblique); 中 is either.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from data.poetry import simplify
from data.verse import HAN, form_of, split_verses
from utils.errors import UserError

LEVEL, OBLIQUE, EITHER, UNKNOWN = "平", "仄", "中", "？"
OPPOSITE = {LEVEL: OBLIQUE, OBLIQUE: LEVEL}


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
            raise UserError(f"--rhyme={name}: {'、'.join(found)} is no level-tone group; regulated verse takes {level}")
        raise UserError(f"--rhyme={name}: no such rhyme group; choose one of {level}")


def _bare(group: str) -> str:
    """先 of 一先."""
    return re.sub("^[一二三四五六七八九十]+(?=.)", "", group)


# ---------------------------------------------------------------------------------------------------- the patterns


@dataclass(frozen=True)
class Pattern:
    """A tone pattern: for each verse what each of its places wants (平 仄 中), and whether it rhymes."""

    name: str
    verses: tuple[str, ...]
    rhymes: tuple[bool, ...]


def patterns(count: int, width: int) -> list[Pattern]:
    """The four patterns of poems of `count` verses (even) of `width` characters (5, 7).

    平起, 仄起: the tone of the second character. The second verse of a couplet is the opposite of the first (对); the
    first of the next is as the second before it (粘). Even verses rhyme, and end in level tone; the others in oblique
    tone, except a first verse that rhymes (首句入韵). Wang Li 1979, 诗词格律.
    """
    found = []
    for second in (LEVEL, OBLIQUE):
        for first_rhymes in (False, True):
            rhymes = tuple(v % 2 == 1 or (v == 0 and first_rhymes) for v in range(count))
            seconds = [second if v % 4 in (0, 3) else OPPOSITE[second] for v in range(count)]
            places = [template(width, s, LEVEL if r else OBLIQUE) for s, r in zip(seconds, rhymes, strict=True)]
            found.append(Pattern(pattern_name(second, first_rhymes), tuple(places), rhymes))
    return found


def pattern_name(second: str, first_rhymes: bool) -> str:
    """Such as 平起首句入韵."""
    return f"{second}起首句{'' if first_rhymes else '不'}入韵"


def template(width: int, second: str, end: str, loose: bool = False) -> str:
    """What the places of a verse want, given the tones of its second and its last character.

    The second, fourth and sixth alternate; the last but two is the opposite of the last; the others are free, except
    where an oblique one would leave a single level tone besides the rhyme (孤平). With `loose` the last but two is free
    as well (一三五不论), except where it would make three level tones at the end (三平尾).
    """
    places = [EITHER] * width
    for i in range(1, width - 1, 2):
        places[i] = second if i % 4 == 1 else OPPOSITE[second]
    places[-1] = end
    if not loose or places[-2] == end == LEVEL:
        places[-3] = OPPOSITE[end]
    if end == LEVEL and places[-4] == LEVEL:
        places[-5] = LEVEL
    return "".join(places)


# --------------------------------------------------------------------------------------------------------- checking


@dataclass(frozen=True)
class Fault:
    """What is wrong where; verse and place count from 1, place 0 is the whole verse."""

    kind: str
    verse: int
    place: int
    text: str


@dataclass
class Check:
    """A poem's prosody. `tones` and `wants` have a sign for each character: 平, 仄, 中 (either), ？ (not in the table).

    `pattern` is the nearest regular one, `rhyme` the group of most rhymes; both and `wants` are empty for verse that
    is not regulated by its very shape. Remarks are no faults.
    """

    form: str
    verses: list[str]
    tones: list[str]
    wants: list[str] = field(default_factory=list)
    rhymes: list[bool] = field(default_factory=list)
    pattern: str = ""
    rhyme: str = ""
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def regular(self) -> bool:
        return bool(self.pattern) and not self.faults

    def as_dict(self) -> dict:
        return {**asdict(self), "regular": self.regular}

    def __str__(self) -> str:
        """The characters, their tones below, and below these ＾ under each fault; then the faults in words.

        All signs are as wide as a Chinese character, so that the rows are aligned in a terminal.
        """
        head = f"{self.form} {self.pattern}, rhyme {self.rhyme or 'none'}" if self.pattern else self.form
        faults = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        rows = [f"{head}: {'regular' if self.regular else faults if self.faults else 'not regulated verse'}"]
        for couplet in range(0, len(self.verses), 2):
            numbers = range(couplet, min(couplet + 2, len(self.verses)))
            rows.append("，".join(self.verses[v] for v in numbers) + "。")
            rows.append("　".join(self.tones[v] for v in numbers))
            below = "　".join(self._marks(v + 1) for v in numbers).rstrip("　")
            rows += [below] if below else []
        rows += [f"verse {f.verse}: {f.kind} {f.text}" for f in self.faults]
        return "\n".join(rows + self.remarks)

    def _marks(self, verse: int) -> str:
        places = {f.place for f in self.faults if f.verse == verse}
        return "".join("＾" if place in places else "　" for place in range(1, len(self.verses[verse - 1]) + 1))


def check(poem: str | Sequence[str], table: RhymeTable) -> Check:
    """Checks a poem, given as text or lines, against the rules of regulated verse, see `judge`.

    Raises UserError for a text without verse.
    """
    return judge(chinese_verses(poem), table)


def judge(parts: list[str], table: RhymeTable) -> Check:
    """Checks verses (without punctuation) against the rules of regulated verse.

    Any even number of verses of five or seven characters is judged by them (more than eight: 排律), other verse only
    gets its tones. A character of both tones satisfies either, so does one that the table lacks. 平平仄平仄 instead of
    平平平仄仄 is regular, and so is the free last but two (一三五不论).
    """
    lookup = {c: c if table.tones(c) else simplify(c) for c in set("".join(parts))}
    readings = [[table.tones(lookup[c]) for c in verse] for verse in parts]
    signs = {LEVEL + OBLIQUE: EITHER, "": UNKNOWN}
    tones = ["".join(signs.get(r, r) for r in verse) for verse in readings]
    widths = {len(verse) for verse in parts}
    form = form_of([f"{verse}。" for verse in parts])
    if len(parts) % 2 or len(parts) < 4 or widths not in ({5}, {7}):
        return Check(form, parts, tones, remarks=["regulated verse has 4, 8 or more even verses of 5 or 7 characters"])
    allowed = [[r or LEVEL + OBLIQUE for r in verse] for verse in readings]
    groups = [table.groups(lookup[verse[-1]]) for verse in parts]
    known = [bool(table.tones(lookup[verse[-1]])) for verse in parts]
    nearest = []
    for first_rhymes in (False, True):
        rhymes = [v % 2 == 1 or (v == 0 and first_rhymes) for v in range(len(parts))]
        seconds, faults = _nearest(allowed, rhymes)
        rhyme, rhyme_faults = _judge_rhyme(parts, groups, known, rhymes)
        nearest.append((sorted(faults + rhyme_faults, key=lambda f: (f.verse, f.place)), first_rhymes, seconds, rhyme))
    # of equal ones the rhyming if the first verse does rhyme: its last character may have both tones
    faults, first_rhymes, seconds, rhyme = min(nearest, key=lambda way: (len(way[0]), way[1] != (way[3] in groups[0])))
    rhymes = [v % 2 == 1 or (v == 0 and first_rhymes) for v in range(len(parts))]
    ends = [LEVEL if r else OBLIQUE for r in rhymes]
    wants = [template(len(parts[0]), s, e, loose=True) for s, e in zip(seconds, ends, strict=True)]
    remarks = [
        f"verse {v}: 三仄尾 three oblique tones at the end (no fault, but better avoided)"
        for v, tone in enumerate(tones, 1)
        if tone.endswith(OBLIQUE * 3)
    ]
    unknown = "".join(dict.fromkeys(c for v, t in zip(parts, tones, strict=True) for c, s in zip(v, t, strict=True)
                                    if s == UNKNOWN))  # fmt: skip
    remarks += [f"not in the table: {unknown}"] if unknown else []
    return Check(form, parts, tones, wants, rhymes, pattern_name(seconds[0], first_rhymes), rhyme, faults, remarks)


def chinese_verses(poem: str | Sequence[str]) -> list[str]:
    """The verses of a poem, given as text or lines. Raises UserError if there are none in Chinese."""
    parts = split_verses(poem)
    if not re.search(f"[{HAN}]", "".join(parts)):
        given = poem if isinstance(poem, str) else "".join(poem)
        raise UserError(f"no Chinese verse in {given[:20]!r}: expected such as 白日依山尽，黄河入海流。")
    return parts


def _nearest(allowed: list[list[str]], rhymes: list[bool]) -> tuple[list[str], list[Fault]]:
    """(tone of the second character of each verse, faults) of the reading of a poem that has the fewest faults.

    The verses before one matter only by its second tone, so it is enough to keep the best way to each of the two.
    """
    best: dict[str, tuple[list[str], list[Fault]]] = {}
    for v, (verse, rhyme) in enumerate(zip(allowed, rhymes, strict=True)):
        ways = {}
        for second in (LEVEL, OBLIQUE):
            here = judge_verse(verse, second, LEVEL if rhyme else OBLIQUE, v + 1)
            found = []
            for before, (seconds, faults) in best.items():
                broken = []
                if v % 2 and second == before:
                    broken = [Fault("失对", v + 1, 2, f"the second character has the tone of verse {v}'s, {before}")]
                elif v % 2 == 0 and second != before:
                    broken = [
                        Fault("失粘", v + 1, 2, f"the second character has not the tone of verse {v}'s, {before}")
                    ]
                found.append(([*seconds, second], faults + broken + here))
            ways[second] = min(found, key=lambda way: len(way[1])) if found else ([second], here)
        best = ways
    return min(best.values(), key=lambda way: len(way[1]))


def judge_verse(verse: list[str], second: str, end: str, number: int) -> list[Fault]:
    """The faults of a verse, `verse` the tones that each of its characters may have."""
    wants = template(len(verse), second, end, loose=True)
    core = wants[-5:]  # a verse of seven characters is one of five with two in front
    variant = core.endswith(LEVEL + EITHER + OBLIQUE + OBLIQUE) and _fits(verse[-5:], "平平仄平仄")
    faults = []
    for i, (tones, want) in enumerate(zip(verse, wants, strict=True), 1):
        last = len(verse) - i
        if want == EITHER or want in tones or (variant and last == 1):
            continue
        if last == 2:
            faults.append(Fault("三平尾", number, i, "three level tones at the end"))
        elif last == 4 and core == "平平中仄平":
            if LEVEL not in verse[-3]:  # else the level tone there makes up for it
                faults.append(Fault("孤平", number, i, "a single level tone besides the rhyme"))
        else:
            faults.append(Fault("平仄", number, i, f"character {i} is {tones}, the pattern wants {want}"))
    return faults


def _fits(tones: Sequence[str], wants: str) -> bool:
    return all(want == EITHER or want in tone for tone, want in zip(tones, wants, strict=True))


def _judge_rhyme(
    parts: list[str], groups: list[list[str]], known: list[bool], rhymes: list[bool]
) -> tuple[str, list[Fault]]:
    """(the group of most rhymes, the faults), `groups` the level groups of each verse's last character."""
    numbers = [v for v, rhyme in enumerate(rhymes) if rhyme]
    counts = Counter(g for v in numbers for g in groups[v])
    rhyme = counts.most_common(1)[0][0] if counts else ""
    faults, seen = [], set()
    for v in numbers:
        character, place = parts[v][-1], len(parts[v])
        if rhyme and groups[v] and rhyme not in groups[v]:  # one of oblique tone only breaks the pattern already
            faults.append(Fault("出韵", v + 1, place, f"{character} rhymes in {'、'.join(groups[v])}, not in {rhyme}"))
        if character in seen:
            faults.append(Fault("重韵", v + 1, place, f"{character} is a rhyme for the second time"))
        seen.add(character)
    return rhyme, faults
