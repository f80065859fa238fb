"""Which characters follow each other inside verses of Tang and Song: data/verse_pairs.txt.xz. No torch here.

A line has a character, those that follow it COMMON times and more, a tab, and those that do SEEN times and more. The
file was counted in the train splits (benchmarks/verse_tables.py).
"""

import lzma
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

PAIRS = Path(__file__).parents[2] / "data" / "verse_pairs.txt.xz"
SEEN, COMMON = 2, 5


def format_pairs(counts: Iterable[tuple[str, int]]) -> str:
    """The file for pairs and how often each occurs."""
    lines: dict[str, tuple[list[str], list[str]]] = {}
    for (first, second), count in sorted(counts):
        if count >= SEEN:
            lines.setdefault(first, ([], []))[count < COMMON].append(second)
    return "".join(f"{first}{''.join(common)}\t{''.join(seen)}\n" for first, (common, seen) in lines.items())


@cache
def read_pairs() -> tuple[np.ndarray, np.ndarray]:
    """(pairs, whether each occurs COMMON times), the pairs as code points first << 32 | second, sorted; (P), (P)."""
    codes = np.frombuffer(lzma.decompress(PAIRS.read_bytes()).decode().encode("utf-32-le"), np.uint32)
    ends = np.flatnonzero(codes == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    line = np.searchsorted(ends, np.arange(len(codes)))
    tabs = np.flatnonzero(codes == ord("\t"))
    followers = np.ones(len(codes), bool)
    followers[starts] = followers[ends] = followers[tabs] = False
    common = np.arange(len(codes)) < tabs[line]
    keys = codes[starts][line].astype(np.int64) << 32 | codes
    keys, common = keys[followers], common[followers]
    order = np.argsort(keys)
    return keys[order], common[order]
