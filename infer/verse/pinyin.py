"""How verse is read today, by pypinyin. No torch here."""

import re

from data.verse import PAUSES, STOPS


def read_aloud(line: str) -> str:
    """The pinyin of a line: 床前明月光，疑是地上霜。-> chuáng qián míng yuè guāng, yí shì dì shàng shuāng."""
    from pypinyin import pinyin  # its dictionaries take a moment to load

    read = " ".join(syllable for [syllable] in pinyin(line))
    return re.sub(rf" ?([{STOPS}])", ".", re.sub(f" ?([{PAUSES}])", ",", read))
