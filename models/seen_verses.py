"""Which verses stand in the training corpus: a Bloom filter, a byte a verse; 2 of 100 new verses seem known, too."""

import hashlib
from collections.abc import Iterable

import numpy as np

BITS, HASHES = 8, 5  # for each verse: (1 - exp(-5/8))**5 = 2.2 % wrong (Bloom 1970)


def filter_size(count: int) -> int:
    """Bytes for `count` verses."""
    return count * BITS // 8


def add_verses(filter: np.ndarray, verses: Iterable[str]) -> None:
    """Adds verses to a filter (bytes,) uint8, in place."""
    for verse in verses:
        bits = _bits(verse, len(filter))
        np.bitwise_or.at(filter, bits >> 3, np.uint8(1) << (bits & 7).astype(np.uint8))


def has_verse(filter: np.ndarray, verse: str) -> bool:
    """Whether the verse was added, as far as the filter can tell; an empty filter has seen nothing."""
    if not len(filter):
        return False
    bits = _bits(verse, len(filter))
    return bool((filter[bits >> 3] >> (bits & 7).astype(np.uint8) & 1).all())


def _bits(verse: str, size: int) -> np.ndarray:
    """(HASHES,) numbers of bits, from two hashes (Kirsch & Mitzenmacher 2006)."""
    digest = hashlib.blake2b(verse.encode(), digest_size=16).digest()
    first, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
    return np.array([(first + i * step) % (8 * size) for i in range(HASHES)])
