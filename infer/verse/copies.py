"""A Bloom filter: which of very many texts have been seen, in a byte each; 2 of 100 others seem seen, too."""

import hashlib
from collections.abc import Iterable

import numpy as np

BITS, HASHES = 8, 5  # for each text: (1 - exp(-5/8))**5 = 2.2 % wrong (Bloom 1970)


def bloom_size(count: int) -> int:
    """Bytes for `count` texts."""
    return count * BITS // 8


def bloom_add(filter: np.ndarray, texts: Iterable[str]) -> None:
    """Adds the texts to a filter (bytes,) uint8, in place."""
    for text in texts:
        places = _places(text, len(filter))
        np.bitwise_or.at(filter, places >> 3, np.uint8(1) << (places & 7).astype(np.uint8))


def bloom_has(filter: np.ndarray, text: str) -> bool:
    """Whether the text was added, as far as the filter can tell; an empty filter has seen nothing."""
    if not len(filter):
        return False
    places = _places(text, len(filter))
    return bool((filter[places >> 3] >> (places & 7).astype(np.uint8) & 1).all())


def _places(text: str, size: int) -> np.ndarray:
    """(HASHES,) numbers of bits, from two hashes (Kirsch & Mitzenmacher 2006)."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    first, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
    return np.array([(first + i * step) % (8 * size) for i in range(HASHES)])
