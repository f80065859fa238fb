"""What the classifier may see in a photograph, ImageNet's 1,000 classes and scenes, in English, Chinese and verse."""

from dataclasses import dataclass
from functools import cache

from data.tables import table_lines


@dataclass(frozen=True)
class Sight:
    """A class of the picture, or of something in it.

    Args:
        kind: of ImageNet's classes dog, cat, bird, food …; of scenes place, subject, weather, hour, season, view.
        words: what classical verse calls it, the most apt first; may be empty.
        avoid: characters that a poem about it should not have: no moon by day.
    """

    name: str
    kind: str
    chinese: str
    words: tuple[str, ...] = ()
    avoid: str = ""

    def __str__(self) -> str:
        return f"{self.chinese} {self.name}"


@cache
def imagenet_classes() -> tuple[Sight, ...]:
    """ImageNet's classes in the order of its 1,000 logits."""
    return _read("imagenet_classes.txt")


@cache
def scenes() -> tuple[Sight, ...]:
    """The scenes in the order of their logits."""
    return _read("scenes.txt")


@cache
def classes_of(kind: str) -> tuple[int, ...]:
    """The numbers of ImageNet's classes of a kind such as "dog"; none if there is no such kind."""
    return tuple(i for i, sight in enumerate(imagenet_classes()) if sight.kind == kind.casefold())


def _read(file: str) -> tuple[Sight, ...]:
    sights = []
    for line in table_lines(file):
        name, kind, chinese, words, avoid = (*line.split("\t"), "", "")[:5]
        sights.append(Sight(name, kind, chinese, tuple(words.split()), avoid))
    return tuple(sights)
