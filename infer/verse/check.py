"""What a poem breaks of the rules of regulated verse (近体诗): tones, 对 and 粘, rhyme; and a pair (对联) of its."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from data.verse import HAN, PAIR, form_of, parse_poem, split_verses
from infer.verse.check_ci import find_tune_of, is_named
from infer.verse.prosody import OPPOSITE, are_neighbours, pattern_name, template
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE, RhymeTable
from infer.verse.verdict import Check, Fault, as_in_table, tones_of, unknown_characters
from utils.errors import UserError

OLD_STYLE = 0.4  # faults a verse above which verse is not meant to be regulated
PARTICLES = "之而其于以"  # a pair may share these


def check(poem: str | Sequence[str], table: RhymeTable) -> Check:
    """Checks a poem, given as text or lines, see `check_verses`. Raises UserError for a text without verse."""
    title = parse_poem(poem).title if isinstance(poem, str) else ""
    return check_verses(chinese_verses(poem), table, title)


def chinese_verses(poem: str | Sequence[str]) -> list[str]:
    """The verses of a poem, given as text or lines. Raises UserError if there are none in Chinese."""
    parts = split_verses(poem)
    if not re.search(f"[{HAN}]", "".join(parts)):
        given = poem if isinstance(poem, str) else "".join(poem)
        raise UserError(f"no Chinese verse in {given[:20]!r}: expected such as 白日依山尽，黄河入海流。")
    return parts


def check_verses(verses: list[str], table: RhymeTable, title: str = "") -> Check:
    """Checks verses (without punctuation) against the rules of regulated verse, of a pair, or of a tune of 词.

    The rules apply to any even number of verses of five or seven characters (more than eight: 排律); a pair is checked
    as such; other verse only gets its tones. A character of both tones satisfies either, so does one that the table
    lacks. 平平仄平仄 instead of 平平平仄仄 is regular, and so are the free last but two (一三五不论), 对句相救 and a
    first rhyme of a neighbouring group.
    """
    known = as_in_table(verses, table)
    readings, tones = tones_of(known, table)
    found = Check(form_of([f"{verse}。" for verse in verses]), verses, tones)
    tuned = find_tune_of(verses, table, title) if len(verses) > 2 else None
    even = len(verses) % 2 == 0 and len(verses) >= 4 and {len(verse) for verse in verses} in ({5}, {7})
    if tuned and not even:
        return tuned
    if _is_pair(verses):
        return check_pair(verses, table)
    if not even:
        found.remarks = ["regulated verse has 4, 8 or more even verses of 5 or 7 characters"]
        return found
    found = _check_regulated(found, known, readings, table)
    # 浣溪沙, 生查子 and 玉楼春 have such a shape, too
    if tuned and (is_named(title) or len(tuned.faults) < len(found.faults) or (found.style and not tuned.faults)):
        return tuned
    found.remarks += unknown_characters(found)
    return found


# ------------------------------------------------------------------------------------------------ regulated verse


def _check_regulated(found: Check, known: list[str], readings: list[list[str]], table: RhymeTable) -> Check:
    """Completes `found`; `known` are its verses as the table has them, `readings` the tones of their characters."""
    name = "古绝" if len(known) == 4 else "古体"
    oblique = [table.groups(verse, tone=OBLIQUE) for verse in known]
    ends = [verse[-1] for verse in readings[1::2]]
    if 2 * sum(LEVEL not in end for end in ends) > len(ends):
        rhyme = _most(oblique[1::2])
        remarks = [f"{name}: rhymes in oblique tone; the rules of regulated verse do not apply"]
        rhymes = _rhyming(len(known), rhyme in oblique[0])
        return replace(found, style=name, rhyme=rhyme, rhymes=rhymes, remarks=remarks)
    groups = [table.groups(verse) for verse in known]
    # Of two equally good ways the rhyming one if the first verse does rhyme: its last character may have both tones.
    ways = [_check_way(found, known, readings, groups, first_rhymes) for first_rhymes in (False, True)]
    best = min(ways, key=lambda way: (len(way.faults), way.rhymes[0] != (way.rhyme in groups[0])))
    if len(best.faults) > (3 if len(known) == 4 else OLD_STYLE * len(known)):
        remarks = [f"{name}: {len(best.faults)} places break the rules of regulated verse, which do not apply"]
        return replace(found, style=name, rhyme=best.rhyme, rhymes=best.rhymes, remarks=remarks)
    best.remarks += [
        f"verse {v}: 三仄尾 three oblique tones at the end (no fault, but better avoided)"
        for v, tones in enumerate(found.tones, 1)
        if tones.endswith(OBLIQUE * 3)
    ]
    return best


def _rhyming(count: int, first: bool) -> list[bool]:
    """Whether each verse rhymes: the even ones do, the first may."""
    return [v % 2 == 1 or (v == 0 and first) for v in range(count)]


def _most(groups: list[list[str]]) -> str:
    """The rhyme group of most verses, if of more than half."""
    counts = Counter(g for own in groups for g in own)
    best, most = counts.most_common(1)[0] if counts else ("", 0)
    return best if 2 * most > len(groups) else ""


def _check_way(
    found: Check, verses: list[str], readings: list[list[str]], groups: list[list[str]], first_rhymes: bool
) -> Check:
    """`found`, read as a poem whose first verse rhymes, or does not."""
    rhymes = _rhyming(len(verses), first_rhymes)
    seconds, faults, remarks = _nearest(readings, rhymes)
    rhyme, rhyme_faults = _check_rhyme(verses, groups, rhymes)
    if first_rhymes and rhyme not in groups[0] and any(are_neighbours(rhyme, g) for g in groups[0]):
        rhyme_faults = [fault for fault in rhyme_faults if fault.verse > 1 or fault.kind != "出韵"]
        borrowed = f"verse 1: 首句用邻韵 {verses[0][-1]} rhymes in {'、'.join(groups[0])}, next to {rhyme} (no fault)"
        remarks = [borrowed, *remarks]
    wants = [
        template(len(verses[0]), second, LEVEL if r else OBLIQUE, loose=True)
        for second, r in zip(seconds, rhymes, strict=True)
    ]
    faults = sorted(faults + rhyme_faults, key=lambda f: (f.verse, f.place))
    pattern = pattern_name(seconds[0], first_rhymes)
    return replace(found, pattern=pattern, rhyme=rhyme, rhymes=rhymes, wants=wants, faults=faults, remarks=remarks)


def _nearest(readings: list[list[str]], rhymes: list[bool]) -> tuple[list[str], list[Fault], list[str]]:
    """(tone of the second character of each verse, faults, remarks) of the reading that has the fewest faults.

    Of the verses before one only its second tone matters, so it is enough to keep the best way to each of the two.
    """
    best: dict[str, tuple[list[str], list[Fault], list[str]]] = {}
    for v, (verse, rhyme) in enumerate(zip(readings, rhymes, strict=True)):
        ways = {}
        for second in (LEVEL, OBLIQUE):
            here = tone_faults(verse, second, LEVEL if rhyme else OBLIQUE, v + 1)
            saved = v % 2 == 0 and is_saved(here, verse, second, readings[v + 1])
            here, remark = ([], [f"verse {v + 1}: 对句相救 verse {v + 2} makes up for it"]) if saved else (here, [])
            found = [
                ([*seconds, second], faults + _joint_faults(v, before, second) + here, remarks + remark)
                for before, (seconds, faults, remarks) in best.items()
            ]
            ways[second] = min(found, key=lambda way: len(way[1])) if found else ([second], here, remark)
        best = ways
    return min(best.values(), key=lambda way: len(way[1]))


def is_saved(faults: list[Fault], verse: list[str], second: str, answer: list[str]) -> bool:
    """对句相救: whether the next verse makes up for the only fault of this one.

    In 中仄平平仄 the fourth tone may be oblique (the third, too) if the third of the answer, 平平仄仄平, is level.
    """
    core = template(len(verse), second, OBLIQUE, loose=True)[-5:]
    wrong = [(fault.kind, fault.place) for fault in faults]
    return core == "中仄中平仄" and wrong == [("平仄", len(verse) - 1)] and LEVEL in answer[-3] and LEVEL in answer[-1]


def _joint_faults(v: int, before: str, second: str) -> list[Fault]:
    """失对 or 失粘 between verse v (from 0) and the one before, by the tones of their second characters."""
    if v % 2 and second == before:
        return [Fault("失对", v + 1, 2, f"the second character has the tone of verse {v}'s, {before}")]
    if v % 2 == 0 and second != before:
        return [Fault("失粘", v + 1, 2, f"the second character has not the tone of verse {v}'s, {before}")]
    return []


def tone_faults(verse: list[str], second: str, end: str, number: int) -> list[Fault]:
    """The faults of a verse, given the tones that each of its characters may have."""
    wants = template(len(verse), second, end, loose=True)
    core = wants[-5:]  # a verse of seven characters is one of five with two in front
    variant = core.endswith(LEVEL + EITHER + OBLIQUE + OBLIQUE) and _fits(verse[-5:], "平平仄平仄")
    faults = []
    for i, (tones, want) in enumerate(zip(verse, wants, strict=True), 1):
        last = len(verse) - i
        if want == EITHER or want in tones or (variant and last == 1):
            continue
        if last == 2:
            if LEVEL in verse[-1] and LEVEL in verse[-2]:  # else it has another fault, and this is none
                faults.append(Fault("三平尾", number, i, "three level tones at the end"))
        elif last == 4 and core == "平平中仄平":
            if LEVEL not in verse[-3]:  # else the level tone there makes up for it
                faults.append(Fault("孤平", number, i, "a single level tone besides the rhyme"))
        else:
            faults.append(Fault("平仄", number, i, f"character {i} is {tones}, the pattern wants {want}"))
    return faults


def _fits(tones: Sequence[str], wants: str) -> bool:
    return all(want == EITHER or want in tone for tone, want in zip(tones, wants, strict=True))


def _check_rhyme(verses: list[str], groups: list[list[str]], rhymes: list[bool]) -> tuple[str, list[Fault]]:
    """(the group of most rhymes, the faults), `groups` the level groups of each verse's last character."""
    numbers = [v for v, rhyme in enumerate(rhymes) if rhyme]
    # of equally many groups not the first verse's
    counts = Counter(g for v in sorted(numbers, key=lambda v: v == 0) for g in groups[v])
    rhyme = counts.most_common(1)[0][0] if counts else ""
    faults, seen = [], set()
    for v in numbers:
        character, place = verses[v][-1], len(verses[v])
        if rhyme and groups[v] and rhyme not in groups[v]:  # one of oblique tone only breaks the pattern already
            faults.append(Fault("出韵", v + 1, place, f"{character} rhymes in {'、'.join(groups[v])}, not in {rhyme}"))
        if character in seen:
            faults.append(Fault("重韵", v + 1, place, f"{character} is a rhyme for the second time"))
        seen.add(character)
    return rhyme, faults


# ---------------------------------------------------------------------------------------------------------- pairs


def _is_pair(verses: list[str]) -> bool:
    """Whether verses that nothing else is known of are a pair: two, or two equal sides of several lengths."""
    half, odd = divmod(len(verses), 2)
    widths = [len(verse) for verse in verses]
    return not odd and (half == 1 or (len(set(widths[:half])) > 1 and widths[:half] == widths[half:]))


def check_pair(verses: list[str], table: RhymeTable) -> Check:
    """Checks a pair: verses (without punctuation), as many on either side."""
    readings, tones = tones_of(as_in_table(verses, table), table)
    half = len(verses) // 2
    lines = [half, half] if half > 1 else []
    found = Check("", verses, tones, style=PAIR, faults=_pair_faults(verses, readings, half), lines=lines)
    found.remarks = unknown_characters(found)
    return found


def _pair_faults(verses: list[str], readings: list[list[str]], half: int) -> list[Fault]:
    """The faults of a pair: length, opposite tones at even places and ends, 仄 before 平, characters in both sides."""
    faults = []
    for v in range(half):
        first, second, number = readings[v], readings[half + v], half + v + 1
        if len(first) != len(second):
            faults.append(Fault("字数", number, 0, f"{len(second)} characters, not {len(first)} as verse {v + 1}"))
            continue
        variant = len(first) in (5, 7) and _fits(first[-5:], "平平仄平仄")  # for 平平平仄仄
        for i, (one, other) in enumerate(zip(first, second, strict=True), 1):
            end = i == len(first)
            if (
                (i % 2 == 0 or end)
                and not (variant and i == len(first) - 1)
                and not (end and v == half - 1)
                and one == other
                and one in OPPOSITE
            ):
                faults.append(Fault("平仄", number, i, f"character {i} is {other}, as in verse {v + 1}"))
    for v, side, want in ((half - 1, "上联", OBLIQUE), (2 * half - 1, "下联", LEVEL)):
        if want not in readings[v][-1]:
            faults.append(Fault("平仄", v + 1, len(verses[v]), f"{side} ends in {OPPOSITE[want]}, not {want}"))
    for v in range(half, 2 * half):
        for i, c in enumerate(verses[v], 1):
            if any(c in side for side in verses[:half]) and c not in PARTICLES:
                faults.append(Fault("重字", v + 1, i, f"{c} is in both sides"))
    return faults
