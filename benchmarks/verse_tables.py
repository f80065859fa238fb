"""Builds the tables of infer/verse from a corpus: readings, attested pairs and poets. Not a test.

    python benchmarks/verse_tables.py --poetry=FOLDER

FOLDER holds rhyme.json and .jsonl.xz files of poems, of which the train splits are counted. Written, in data/:

- verse_readings.txt: which of its readings a character has, alone and in compounds (infer/verse/readings.py);
- verse_pairs.txt.xz: which characters follow each other inside verses (infer/verse/pairs.py);
- verse_poets.txt: who wrote them.
"""

import argparse
import json
import lzma
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first

from benchmarks.common import exit_code, say  # noqa: E402
from data.poem_files import read_poems  # noqa: E402
from data.splits import choose_split  # noqa: E402
from data.tables import FOLDER  # noqa: E402
from data.verse import FORMS, HAN, Poem, verses  # noqa: E402
from infer.verse.pairs import PAIRS, format_pairs  # noqa: E402
from infer.verse.prosody import patterns, template  # noqa: E402
from infer.verse.rhyme import EITHER, LEVEL, OBLIQUE  # noqa: E402
from utils.errors import UserError  # noqa: E402

BITS = {LEVEL: 1, OBLIQUE: 2, EITHER: 3}
RARE = 0.08  # share below which a reading is dropped: 97 % of the regular poems of the test splits stay regular
RARE_RHYME = 0.03  # the same for the rhyme groups of a character alone
SMOOTHING = 3.0  # a compound that is met so often is believed as much as the character alone
TWICE = 2
ENOUGH, FEWEST = 3, 20  # times that a compound, or a rhyme word with several groups, must be met
POEMS = 20  # of a poet who is listed
# 鬓毛衰 is read cuī, which the tables of rhymes leave out; the others are of famous poems
BY_HAND = ["衰 四支 | 四支/十灰 毛衰", "比 仄 | 平/仄 比邻", "空 平 | 平/仄 空人"]
Counts = dict[str, Counter]


def tones_of(readings: Iterable[Sequence[str]]) -> int:
    """Bits of the tones of a character; both if nothing is known."""
    return sum(BITS[tone] for tone in {tone for tone, _ in readings}) or BITS[EITHER]


def count_tones(poems: list[Poem], chars: dict[str, list]) -> tuple[Counts, Counts]:
    """(of each character of both tones, of each of its compounds as "word/place") how often it has which tone.

    Counted where a pattern fixes the tone, in poems that fit one, with some reading, at the even places and the last.
    """
    table = np.full(0x40000, BITS[EITHER], np.uint8)
    for character, readings in chars.items():
        table[ord(character)] = tones_of(readings)
    alone, compounds = defaultdict(Counter), defaultdict(Counter)
    for form, (count, width) in FORMS.items():
        texts = ["".join(verses(p.text)) for p in poems if p.form == form]
        codes = np.array([[ord(c) for c in text] for text in texts if len(text) == count * width], np.int32)
        tones = table[codes]  # (N, count * width)
        fixed = np.tile([i % 2 == 1 or i == width - 1 for i in range(width)], count)
        allowed = np.zeros_like(tones)
        for pattern in patterns(count, width):
            loose = "".join(template(width, verse[1], verse[-1], loose=True) for verse in pattern.verses)
            wants = np.array([BITS[c] for c in loose], np.uint8)
            fits = ((tones & wants) > 0)[:, fixed].all(1)
            allowed |= np.where(fits[:, None], wants, 0)
        told = (tones == 3) & ~_may_differ(tones, width) & ((allowed == 1) | (allowed == 2))
        for poem, place in zip(*np.nonzero(told), strict=True):
            tone = LEVEL if allowed[poem, place] == 1 else OBLIQUE
            _count(alone, compounds, codes[poem], int(place), width, tone)
    return alone, compounds


def _may_differ(tones: np.ndarray, width: int) -> np.ndarray:
    """Where poets leave the pattern by rule, (N, places) as `tones`: there a tone tells nothing.

    The last but one of a verse whose last but two may be oblique: 平平仄平仄 for 平平平仄仄, and 对句相救. The last but
    four of one whose last but two may be level: it makes up for 孤平.
    """
    verse = tones.reshape(len(tones), -1, width)
    found = np.zeros(verse.shape, bool)
    found[:, ::2, -2] = (verse[:, ::2, -3] & BITS[OBLIQUE] > 0) | (verse[:, 1::2, -3] & BITS[LEVEL] > 0)
    found[:, :, -5] = verse[:, :, -3] & BITS[LEVEL] > 0
    return found.reshape(tones.shape)


def _count(alone: Counts, compounds: Counts, codes: np.ndarray, place: int, width: int, tone: str) -> None:
    character = chr(codes[place])
    alone[character][tone] += 1
    if place % width:
        compounds[f"{chr(codes[place - 1])}{character}/{character}"][tone] += 1
    if place % width < width - 1:
        compounds[f"{character}{chr(codes[place + 1])}/{character}"][tone] += 1


def count_rhymes(poems: list[Poem], chars: dict[str, list]) -> tuple[Counts, Counts]:
    """The same for the level groups of characters that have several, where the other rhymes of a poem tell which."""
    groups = {c: {group for tone, group in readings if tone == LEVEL} for c, readings in chars.items()}
    alone, compounds = defaultdict(Counter), defaultdict(Counter)
    for poem in poems:
        ends = [verse[-2:] for verse in verses(poem.text)[1::2]] if poem.form in FORMS else []
        for i, word in enumerate(ends):
            own = groups.get(word[-1], set())
            others = [groups.get(end[-1], set()) for j, end in enumerate(ends) if j != i]
            if len(own) > 1 and len(left := own.intersection(*others)) == 1:
                [group] = left
                alone[word[-1]][group] += 1
                compounds[f"{word}/{word[-1]}"][group] += 1
    return alone, compounds


def entries(alone: Counts, compounds: Counts, rare: float, fewest: int) -> list[str]:
    """Lines of verse_readings.txt: a character, its readings alone, then other readings with their compounds."""
    kept = {c: _common(n, rare) for c, n in alone.items() if n.total() >= fewest}
    words: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, counts in sorted(compounds.items()):
        word, character = key.split("/")
        if character not in kept or counts.total() < ENOUGH:
            continue
        whole = alone[character]
        mixed = Counter({r: counts[r] + SMOOTHING * n / whole.total() for r, n in whole.items()})
        common = _common(mixed, RARE)
        # that one slip of a poet does not give a compound a second reading
        sure = len(common) == 1 or all(counts[r] >= TWICE for r in common if r not in kept[character])
        if sure and common != kept[character]:
            words[character]["/".join(common)].append(word)
    lines = []
    for character in sorted(kept):
        sections = [f"{readings} {' '.join(found)}" for readings, found in sorted(words[character].items())]
        lines.append(" | ".join([f"{character} {'/'.join(kept[character])}", *sections]))
    return lines


def _common(counts: Counter, rare: float) -> list[str]:
    return sorted((r for r, n in counts.items() if n >= rare * counts.total()), reverse=True)


def count_pairs(poems: list[Poem]) -> Iterator[tuple[str, int]]:
    """Each pair of neighbours inside a verse, and how often it occurs."""
    text = "\n".join("\n".join(verses(p.text)) for p in poems)
    codes = np.frombuffer(re.sub(f"[^{HAN}]", "\n", text).encode("utf-32-le"), np.uint32)
    inside = (codes[:-1] != ord("\n")) & (codes[1:] != ord("\n"))
    keys, counts = np.unique(codes[:-1][inside].astype(np.uint64) << 32 | codes[1:][inside], return_counts=True)
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        yield chr(key >> 32) + chr(key & 0xFFFFFFFF), count


def build(folder: Path) -> None:
    """Writes the tables. Raises UserError for a folder without poems or readings."""
    files = sorted(folder.glob("*.jsonl.xz"))
    if not files or not (folder / "rhyme.json").exists():
        raise UserError("expected rhyme.json and .jsonl.xz files of poems", poetry=folder)
    poems = [poem for file in files for poem in choose_split(read_poems(file), "train")]
    chars = json.loads((folder / "rhyme.json").read_text(encoding="utf-8"))["chars"]
    chars = {c: readings for c, readings in chars.items() if len(c) == 1}
    tones = entries(*count_tones(poems, chars), RARE, 1)
    groups = entries(*count_rhymes(poems, chars), RARE_RHYME, FEWEST)
    head = "# See infer/verse/readings.py; written by benchmarks/verse_tables.py."
    write(FOLDER / "verse_readings.txt", "\n".join([head, *tones, *groups, *BY_HAND, ""]).encode())
    write(PAIRS, lzma.compress(format_pairs(count_pairs(poems)).encode(), preset=9 | lzma.PRESET_EXTREME))
    poets = Counter(p.author for p in poems)
    listed = sorted(p for p, n in poets.items() if n >= POEMS and 1 < len(p) < 5)
    write(FOLDER / "verse_poets.txt", "\n".join([*listed, ""]).encode())


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    say(f"{path.relative_to(ROOT)}: {len(content):,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poetry", type=Path, required=True, help="folder of the corpus")
    build(parser.parse_args().poetry)


if __name__ == "__main__":
    sys.exit(exit_code(main))
