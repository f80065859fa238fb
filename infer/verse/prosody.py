"""The tone patterns of regulated verse (近体诗), made from 对 and 粘. Nothing is written here."""

from dataclasses import dataclass

from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE

OPPOSITE = {LEVEL: OBLIQUE, OBLIQUE: LEVEL}
# 邻韵: groups that a first verse may borrow from (首句用邻韵). Wang Li 1979.
NEIGHBOURS = [
    group.split()
    for group in (
        "一东 二冬", "三江 七阳", "四支 五微 八齐", "六鱼 七虞", "九佳 十灰", "十一真 十二文 十三元",
        "十三元 十四寒 十五删 一先", "二萧 三肴 四豪", "八庚 九青 十蒸", "十三覃 十四盐 十五咸",
    )
]  # fmt: skip


def are_neighbours(one: str, other: str) -> bool:
    """Whether two rhyme groups sound alike."""
    return any(one in group and other in group for group in NEIGHBOURS)


@dataclass(frozen=True)
class Pattern:
    """A tone pattern: for each verse what each of its places wants (平 仄 中), and the letter of its rhyme, or ""."""

    name: str
    verses: tuple[str, ...]
    rhymes: tuple[str, ...]


def patterns(count: int, width: int) -> list[Pattern]:
    """The four patterns of poems of `count` verses (even) of `width` characters (5, 7).

    平起, 仄起: the tone of the second character. The second verse of a couplet is the opposite of the first (对); the
    first of the next is as the second before it (粘). Even verses rhyme, and end in level tone; the others in oblique
    tone, except a first verse that rhymes (首句入韵). Wang Li 1979, 诗词格律.
    """
    found = []
    for second in (LEVEL, OBLIQUE):
        for first_rhymes in (False, True):
            rhymes = tuple("A" if v % 2 == 1 or (v == 0 and first_rhymes) else "" for v in range(count))
            seconds = [second if v % 4 in (0, 3) else OPPOSITE[second] for v in range(count)]
            places = [template(width, s, LEVEL if r else OBLIQUE) for s, r in zip(seconds, rhymes, strict=True)]
            found.append(Pattern(pattern_name(second, first_rhymes), tuple(places), rhymes))
    return found


def pair_patterns(first: list[list[str]]) -> list[Pattern]:
    """The patterns of a pair (对联), `first` being the tones that each character of its first line may have.

    Those of a couplet of regulated verse if the line has one of these, else: opposite tones at the even places and at
    the ends, and a last one in level tone. The line has several verses where it has marks inside.
    """
    [*before, last] = first
    if not before and len(last) in (5, 7):
        couplets = [p.verses[:2] for p in patterns(4, len(last)) if not p.rhymes[0]]
        fitting = [c for c in couplets if all(w == EITHER or w in t for w, t in zip(c[0], last, strict=True))]
        if fitting:
            return [Pattern("", verses, ("", "")) for verses in fitting]
    answers = []
    for verse in first:
        wants = [OPPOSITE.get(t, EITHER) if i % 2 or i == len(verse) - 1 else EITHER for i, t in enumerate(verse)]
        answers.append("".join(wants))
    answers[-1] = answers[-1][:-1] + LEVEL
    return [Pattern("", (*(EITHER * len(verse) for verse in first), *answers), ("",) * 2 * len(first))]


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
