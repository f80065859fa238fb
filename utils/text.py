"""Text for people: lines on stderr, numbers as they read and write them."""

import math
import sys
from typing import TextIO

from utils.errors import UserError


def write(text: str, file: TextIO | None = None) -> None:
    """A line above the progress bar, if there is one; in one piece, for several processes may share the output."""
    from tqdm import tqdm

    file = file or sys.stdout
    tqdm.write(f"{text}\n", file=file, end="")
    file.flush()


def say(text: str) -> None:
    """The same on stderr."""
    write(text, sys.stderr)


def short(value: float, digits: int = 3) -> str:
    """`value` with so many decimals; one of a million and more by its power of ten: 1.07e+301."""
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"


def times_as_fast(ratio: float) -> str:
    """Such as "3.1 times as fast as", "20 times slower than"; `ratio` is that of the two speeds."""
    if ratio >= 1:
        return f"{ratio:.1f} times as fast as"
    return f"{1 / ratio:.{0 if ratio < 0.1 else 1}f} times slower than"


def parse_named_numbers(text: str, argument: str, example: str, plain: bool = False) -> list[tuple[str, float]]:
    """[("a", 0.1), ("b", 2.0)] from "a:0.1,b:2"; with `plain` a number may stand alone, and its name is "".

    Raises UserError about `argument`, with the example, for what is no finite number of at least 0.
    """
    pairs = []
    for part in filter(None, text.split(",")):
        name, _, number = part.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < math.inf or not (name or plain):
            expected = "a number, or NAME:NUMBER" if plain else "NAME:NUMBER"
            raise UserError(f"expected {expected}, such as {argument}={example}", **{argument: part})
        pairs.append((name, value))
    return pairs
