"""Titles for poems that nobody gave one: a hundred of them are about a hundred different things. No torch here."""

import random

from data.tables import table_lines

WHEN, WHERE, WHAT, THINGS = map(str.split, table_lines("verse_titles.txt"))


def draw_title(seed: int) -> str:
    """A title such as 秋夜江楼闻笛 or 咏孤雁, of some 19,000."""
    chance = random.Random(seed)
    kind = chance.random()
    if kind < 0.25:
        return chance.choice(["咏", "", "咏" + chance.choice(["春", "秋", "寒", "野"])]) + chance.choice(THINGS)
    parts = [chance.choice(WHEN), chance.choice(WHERE), chance.choice(WHAT)]
    if kind < 0.75:
        del parts[chance.randrange(3)]
    return "".join(parts)
