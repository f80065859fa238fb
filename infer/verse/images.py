"""Modern words: what verse has for a word that the poet never read. No torch here.

data/verse_images.txt gives words (咖啡, coffee) the images that Tang and Song verse has for them (香 苦 夜 醒). These
stand for the word in the condition of the poem; what neither the table nor the poet knows is left out. Remarks say so.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from data.tables import table_lines
from data.vocabulary import Vocabulary

MOST = 4  # images of all words together, but two of each at least: of more, poems hold fewer (docs/poet.md)
# No part of a theme. 给事 is an office, 十一首 a number.
FILLERS = re.compile(
    r"[写献送]给|关于|有关|(?<![十百廿卅])一[首篇]|的|给(?!事)"
    r"|(?<![a-z])(?:an?|the|of|for|to|from|in|on|at|by|my|your|our|and|with|about|i|is|you|me|we|it|this|s)(?![a-z])",
    re.IGNORECASE,
)
PARTICLES = re.compile(
    "[上下里中内外在与和之了着是我你他她它们这那个有去来到小大老新]"
)  # no theme beside a modern word


@cache
def read_table() -> dict[str, tuple[str, ...]]:
    """The images of each word; English is in lower case."""
    table = {}
    for line in table_lines("verse_images.txt"):
        words, images = line.split(":")
        table |= dict.fromkeys(words.split(","), tuple(images.split()))
    return table


def images_of(word: str) -> tuple[str, ...]:
    """The images that stand for a word, the best first; none for a word that the table lacks. Plurals are English."""
    table, word = read_table(), unicodedata.normalize("NFKC", word).lower()
    endings = ("", "s", "es") if word.isascii() else ("",)
    return next((table[w] for end in endings if word.endswith(end) and (w := word.removesuffix(end)) in table), ())


def split_modern(text: str) -> list[str]:
    """Cuts `text` into words of the table, the longest first, and what is between them: 高铁票 -> 高铁, 票.

    A single character counts only beside a longer word: 爱 in 爱上咖啡, but not in 爱莲说. English words stay whole.
    """
    longest = max(map(len, read_table()))
    pieces, start = [""], 0
    whole = [not re.fullmatch("[A-Za-z]{2}", text[max(0, i - 1) : i + 1]) for i in range(len(text) + 1)]  # may cut at i
    while start < len(text):
        ends = range(min(len(text), start + longest), start, -1)
        end = next((e for e in ends if whole[start] and whole[e] and images_of(text[start:e])), 0)
        if end:
            pieces += [text[start:end], ""]
        else:
            pieces[-1] += text[start]
        start = end or start + 1
    pieces = [piece for piece in pieces if piece]
    return pieces if len(pieces) == 1 or any(len(p) > 1 and images_of(p) for p in pieces) else [text]


@dataclass(frozen=True)
class Theme:
    """What a poem is about in words that the poet knows: `words` were given, `images` stand for words that were."""

    title: str
    words: list[str]
    images: list[str]
    remarks: list[str]


def find_theme(title: str, keywords: Sequence[str], vocabulary: Vocabulary) -> Theme:
    """The theme of a poem with this title and these keywords, for a poet with this vocabulary."""
    unknown: list[str] = []
    head = _read(title, vocabulary, unknown, is_title=True)
    asked = [_read(keyword, vocabulary, unknown) for keyword in keywords]
    each = max(2, MOST // max(1, sum(bool(images) for pieces in (head, *asked) for _, images in pieces)))
    words, found, remarks = [], [], vocabulary.changes(title + "".join(keywords))
    for keyword, pieces in zip(keywords, asked, strict=True):
        literal = [piece for piece, images in pieces if piece and (not images or piece in images)]
        shown = [image for _, images in pieces for image in images[:each]]
        words, found = words + literal, found + shown
        if (written := [*dict.fromkeys(literal + shown)]) and written != [vocabulary.fold(keyword)[0]]:
            remarks.append(f"{keyword} is written as {', '.join(written)}")
        unknown += [] if written or any(part in keyword for part in unknown) else [keyword]
    for piece, images in head:
        found += images[:each]
        remarks += [f"{piece} is written as {', '.join(images[:each])}"] if images else []
    text = "".join(images[0] if images else piece for piece, images in head)
    if text != vocabulary.fold(title)[0]:
        text = re.sub(r"(?<![A-Za-z])\s+|\s+(?![A-Za-z])", "", text)  # spaces part English words only
        remarks.append(f"the title is read as {text}" if text else "nothing of the title is read")
    remarks += [f"{word} is not known and was left out" for word in dict.fromkeys(unknown)]
    return Theme(text, words, [image for image in dict.fromkeys(found) if image not in words], remarks)


def _read(text: str, vocabulary: Vocabulary, unknown: list[str], is_title: bool = False) -> list[tuple[str, list[str]]]:
    """(piece, images) of `text`: modern words with the images that the poet knows; the rest without what it does not
    know, which is added to `unknown`. What verse calls by the same name (its own image) is not modern in a title."""
    pieces = []
    for piece in split_modern(vocabulary.fold(text)[0]) if text else ():
        images = [image for image in images_of(piece) if set(image) <= vocabulary.ids.keys()]
        pieces.append((piece, [] if is_title and piece in images else images))
    modern = any(images for _, images in pieces)
    for i, (piece, images) in enumerate(pieces):
        if not images:
            piece = FILLERS.sub("", piece) if modern or (is_title and not text.isascii()) else piece
            piece = PARTICLES.sub("", piece) if modern and not is_title else piece
            tokens = re.findall(r"[A-Za-z0-9]+|.", piece)
            lacking = [token for token in tokens if not set(token) <= vocabulary.ids.keys()]
            unknown += [token for token in lacking if token.isalnum() or unicodedata.category(token) == "So"]
            pieces[i] = "".join(token for token in tokens if token not in lacking), images
    return pieces
