"""Which characters follow each other inside verses of Tang and Song: data/verse_pairs.txt.xz. No torch here.

A line has a character, those that follow it COMMON times and more, a tab, and those that do SEEN times and more. The
file was counted in the train splits (benchmarks/verse_tables.py).
"""

import lzma
from collections.abc import Iterable
from functools import cache

import numpy as np

from data.tables import FOLDER

PAIRS = FOLDER / "verse_pairs.txt.xz"
SEEN, COMMON = 2, 5


def format_pairs(counts: Iterable[tuple[str, int]]) -> str:
    """The file for pairs and how often each occurs."""
    lines: dict[str, tuple[list[str], list[str]]] = {}
    for (first, second), count in sorted(counts):
        if count >= SEEN:
            lines.setdefault(first, ([], []))[count < COMMON].append(second)
    return "".join(f"{first}{''.join(common)}\t{''.join(seen)}\n" for first, (common, seen) in lines.items())


@cache
def read_pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, whether the pair occurs COMMON times) of each pair, characters as code points; (P) each."""
    text = lzma.decompress(PAIRS.read_bytes()).decode()
    lines = [(line[0], *line[1:].split("\t")) for line in text.splitlines()]
    counts = np.array([(len(common), len(seen)) for _, common, seen in lines])  # (lines, 2)
    first = _codes("".join(first for first, _, _ in lines)).repeat(counts.sum(1))
    second = _codes("".join(common + seen for _, common, seen in lines))
    return first, second, np.tile([True, False], len(lines)).repeat(counts.flat)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
