"""The shape of a poem: how many characters each verse has, and which mark follows. No torch here."""

from dataclasses import dataclass
from functools import cached_property

from data.verse import PAUSES, STOPS

MARK = -1  # the column of a punctuation mark


@dataclass(frozen=True)
class Shape:
    """For each verse its number of characters, and the mark behind it: ，(or 、) a pause, 。 a stop.

    A poem that is written has a place for each character and each mark.
    """

    widths: tuple[int, ...]
    marks: tuple[str, ...]

    @classmethod
    def even(cls, count: int, width: int) -> "Shape":
        """`count` verses of `width` characters, in couplets."""
        marks = [PAUSES[0] if v % 2 == 0 and v < count - 1 else STOPS[0] for v in range(count)]
        return cls((width,) * count, tuple(marks))

    @cached_property
    def columns(self) -> list[int]:
        """For each place its place in the verse, from 0; MARK for marks."""
        return [column for width in self.widths for column in (*range(width), MARK)]

    @cached_property
    def verses(self) -> list[int]:
        """For each place its verse, from 0."""
        return [v for v, width in enumerate(self.widths) for _ in range(width + 1)]

    @cached_property
    def starts(self) -> list[int]:
        """The first place of each verse."""
        return [place for place, column in enumerate(self.columns) if column == 0]

    @cached_property
    def characters(self) -> list[int]:
        """The places of characters."""
        return [place for place, column in enumerate(self.columns) if column != MARK]

    def is_last(self, place: int) -> bool:
        """Whether a verse's last character stands there."""
        return self.columns[place] == self.widths[self.verses[place]] - 1
