"""中华新韵 (2005): tones and rhymes of verse as it is read today. No torch here."""

from functools import lru_cache

from infer.verse.rhyme import LEVEL, OBLIQUE

# The fourteen groups, by finals as pypinyin spells them (ü is v; -i after z, c, s, zh, ch, sh, r is 支, else 齐).
FINALS = {
    "一麻": "a ia ua", "二波": "o e uo", "三皆": "ie ve", "四开": "ai uai", "五微": "ei uei", "六豪": "ao iao",
    "七尤": "ou iou", "八寒": "an ian uan van", "九文": "en in uen vn", "十唐": "ang iang uang",
    "十一庚": "eng ing ueng ong iong", "十二齐": "er v", "十四姑": "u",
}  # fmt: skip
GROUP_OF = {final: group for group, finals in FINALS.items() for final in finals.split()}


class NewRhymes:
    """What `infer.verse.check` needs of a rhyme table: the tones (1, 2 level; 3, 4 oblique) and groups of 中华新韵.

    A character has the one reading that its verse gives it.
    """

    level = [*list(FINALS)[:-1], "十三支", "十四姑"]

    def tones(self, verse: str, place: int = 0) -> str:
        """平 or 仄, or nothing for what is no Chinese character."""
        tone = _read(verse)[place][-1:]
        return {"1": LEVEL, "2": LEVEL, "3": OBLIQUE, "4": OBLIQUE, "5": LEVEL + OBLIQUE}.get(tone, "")

    def groups(self, verse: str, place: int = -1, tone: str = LEVEL) -> list[str]:
        """The group of the character at that place, if it has that tone."""
        own = _group(_read(verse)[place]) if tone in self.tones(verse, place) else ""
        return [own] if own else []

    divisions = groups  # 词 rhyme in the same groups


@lru_cache(10_000)
def _read(verse: str) -> list[str]:
    """The pinyin of each character, its tone behind it: chuang2; of other signs nothing."""
    from pypinyin import Style, pinyin

    options = {"neutral_tone_with_five": True, "v_to_u": False}
    read = pinyin(verse, style=Style.TONE3, errors=lambda run: [""] * len(run), **options)
    return [syllables[0] for syllables in read]


def _group(syllable: str) -> str:
    """zhi1 -> 十三支, chuang2 -> 十唐; nothing for 嗯 and the like."""
    from pypinyin.contrib.tone_convert import to_finals

    final = to_finals(syllable.rstrip("12345"), v_to_u=False) if syllable else ""
    if final == "i":
        return "十三支" if syllable[0] in "zcsr" else "十二齐"
    return GROUP_OF.get(final, "")
