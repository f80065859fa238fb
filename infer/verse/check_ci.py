"""What a 词 breaks of the rules of its tune: characters, tones, rhyme and repetition; and which tune a text has."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from data.verse import CI, FORMS, form_of, given_poems, parse_poem, split_verses
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE, RhymeTable
from infer.verse.tunes import Tune, read_tunes
from infer.verse.verdict import Check, Fault, as_in_table, tones_of, unknown_characters
from utils.errors import UserError

# 部 that Song poets rhymed with each other
NEAR = [
    "第六部 第十一部 第十三部".split(),
    "第七部 第十四部".split(),
    "第十五部 第十六部 第十七部 第十八部 第十九部".split(),
    "第三部 第五部".split(),
]
MOST_FAULTS = 0.1  # of the characters; a text with more has another tune, or none
OTHER_CUTS = 4  # ends of verses that may stand elsewhere: 六字四字 or 四字六字


def check_tune(verses: Sequence[str], table: RhymeTable, tune: Tune) -> Check:
    """Checks the characters of `verses`, as many as the tune has, against it; they are cut as its verses are."""
    text = "".join(verses)
    ends = list(accumulate(tune.shape.widths))
    parts = [text[end - width : end] for end, width in zip(ends, tune.shape.widths, strict=True)]
    known = as_in_table(parts, table)
    readings, tones = tones_of(known, table)
    found = Check(CI, parts, tones, pattern=tune.name, lines=tune.lines)
    found.wants = list(tune.pattern.verses)
    for v, (verse, wants) in enumerate(zip(readings, found.wants, strict=True), 1):
        for i, (have, want) in enumerate(zip(verse, wants, strict=True), 1):
            if want != EITHER and want not in have:
                found.faults.append(Fault("平仄", v, i, f"character {i} is {have}, {tune.name} wants {want}"))
    _check_rhymes(found, known, table, tune)
    for place, first in tune.copies.items():
        if text[place] != text[first]:
            v = next(i for i, end in enumerate(ends) if place < end)
            i = place - ends[v] + tune.shape.widths[v] + 1
            wanted = f"character {i} is {text[place]}, {tune.name} repeats {text[first]}"
            found.faults.append(Fault("叠句", v + 1, i, wanted))
    found.faults.sort(key=lambda fault: (fault.verse, fault.place))
    found.remarks += unknown_characters(found)
    return found


def _check_rhymes(found: Check, known: list[str], table: RhymeTable, tune: Tune) -> None:
    """Fills in the rhymes of `found` and their faults: verses of one letter rhyme in one 部."""
    letters = tune.pattern.rhymes
    found.rhymes = [bool(letter) for letter in letters]
    names = {}
    for letter in dict.fromkeys(filter(None, (letter.upper() for letter in letters))):
        numbers = [v for v, own in enumerate(letters) if own.upper() == letter]
        tones = [LEVEL if found.wants[v][-1] == LEVEL else OBLIQUE for v in numbers]
        groups = [table.divisions(known[v], -1, tone) for v, tone in zip(numbers, tones, strict=True)]
        counts = Counter(group for own in groups for group in own)
        if not counts:
            continue
        rhyme = names[letter] = counts.most_common(1)[0][0]
        for v, own in zip(numbers, groups, strict=True):
            if not own or rhyme in own:  # one of the wrong tone is a fault already
                continue
            character, group = known[v][-1], "、".join(own)
            if any(rhyme in near and other in near for near in NEAR for other in own):
                near = f"{character} rhymes in {group}, as Song poets do with {rhyme} (no fault)"
                found.remarks.append(f"verse {v + 1}: {near}")
            else:
                text = f"{character} rhymes in {group}, not in {rhyme}"
                found.faults.append(Fault("出韵", v + 1, len(known[v]), text))
    found.rhyme = "、".join(dict.fromkeys(names.values()))


def named_tunes(title: str) -> list[Tune]:
    """The forms of the tune that a title names, by the longest name in it: 浣溪沙·春情."""
    names = [name for tune in read_tunes() for name in tune.names if name in title]
    longest = max(names, key=len, default=None)
    return [tune for tune in read_tunes() if longest in (tune.name, *tune.names)]


def is_named(title: str) -> bool:
    """Whether a title begins with the name of a tune."""
    return any(title.startswith(name) for tune in named_tunes(title) for name in tune.names)


def find_tune_of(verses: Sequence[str], table: RhymeTable, title: str = "") -> Check | None:
    """The check of verses by the tune that the title names, else by the one that they fit best; None: they fit none."""
    length, named = sum(map(len, verses)), named_tunes(title)
    right = [tune for tune in named or read_tunes() if tune.length == length]
    checks = [check_tune(verses, table, tune) for tune in right if named or is_cut_alike(verses, tune)]
    if named and not checks:
        lengths = " or ".join(dict.fromkeys(str(tune.length) for tune in named))
        wanted = f"{named[0].name} has {lengths} characters, these verses {length}"
        check = Check(CI, list(verses), tones_of(list(verses), table)[1], pattern=named[0].name)
        check.faults = [Fault("字数", len(verses), 0, wanted)]
        return check
    good = [check for check in checks if named or len(check.faults) <= max(2, MOST_FAULTS * length)]
    return min(good, key=lambda check: len(check.faults), default=None)


def is_cut_alike(verses: Sequence[str], tune: Tune) -> bool:
    """Whether verses end where those of the tune do, at its rhymes at least, and hardly anywhere else."""
    cuts, ends = set(accumulate(map(len, verses))), list(accumulate(tune.shape.widths))
    inside = {end for end, mark in zip(ends, tune.shape.marks, strict=True) if mark == "、"}
    rhymed = {end for end, letter in zip(ends, tune.pattern.rhymes, strict=True) if letter}
    others = (cuts - {*ends}) | ({*ends} - cuts - inside)
    return rhymed <= cuts and len(others) <= OTHER_CUTS


def join_sections(poems: Sequence[str]) -> list[str]:
    """Poems, of which those that are the two sections of a 词 are joined again."""
    joined: list[str] = []
    for poem in poems:
        before = split_verses(joined[-1]) if joined else []
        both, first = [*before, *split_verses(poem)], sum(map(len, before))
        whole = form_of([f"{verse}。" for verse in before]) in FORMS and not named_tunes(parse_poem(joined[-1]).title)
        sections = not whole and any(
            tune.length == sum(map(len, both))
            and sum(tune.shape.widths[: tune.sections[0]]) == first
            and is_cut_alike(both, tune)
            for tune in read_tunes()
        )
        joined[-1:] = [f"{joined[-1]}\n\n{poem}"] if sections else [*joined[-1:], poem]
    return joined


def one_poem(given: str) -> str:
    """The poem that a setting `poem` is or names; empty: none. Raises UserError if there are several, or none there."""
    first, *others = join_sections(given_poems(given, "poem")) if given else [""]
    if others:
        raise UserError(f"{len(others) + 1} poems with blank lines between; give one", poem=None)
    return first
