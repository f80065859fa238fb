"""The rhyme table, which travels in the poet's file: which 平水韵 groups a character belongs to.

{"rhyme_tones": {"一东": "平", …}, "rhymes": {"一东": "东同铜…", …}}: each group's tone (平 上 去 入) and characters.
"""

import json
from pathlib import Path

from utils.errors import UserError

TONES = ("平", "上", "去", "入")
Rhymes = dict[str, dict[str, str]]


def read_rhymes(path: str | Path, characters: list[str]) -> Rhymes:
    """Reads a JSON file {"groups": {group: tone}, "chars": {character: [[平 or 仄, group], …]}}; of it, `characters`.

    Raises UserError if the file is something else.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        tones = {str(group): tone for group, tone in table["groups"].items()}
        readings = {c: [group for _, group in table["chars"].get(c, ())] for c in characters}
        groups = {group: "".join(c for c in characters if group in readings[c]) for group in tones}
        if not set(tones.values()) <= set(TONES) or not any(groups.values()):
            raise ValueError("no group has a character of the corpus")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f'expected a JSON file with "groups" and "chars" ({error})', rhymes=path) from error
    return {"rhyme_tones": tones, "rhymes": groups}


def restrict(rhymes: Rhymes, characters: list[str]) -> Rhymes:
    """The table of another poet, for the characters of this one."""
    known = set(characters)
    groups = {group: "".join(c for c in members if c in known) for group, members in rhymes["rhymes"].items()}
    return {"rhyme_tones": rhymes["rhyme_tones"], "rhymes": groups}
