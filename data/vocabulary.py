"""The vocabulary: characters and special tokens to ids and back. No torch here."""

from collections import Counter
from collections.abc import Iterable

from data.verse import FORMS, OTHER_FORMS, Poem, simplify, traditional

PAD, UNKNOWN, BOS, EOS, MORE = "<pad>", "<unk>", "<bos>", "<eos>", "<more>"
AUTHOR, TITLE, KEYWORD = "<author>", "<title>", "<keyword>"
SPECIALS = [PAD, UNKNOWN, BOS, EOS, MORE, AUTHOR, TITLE, KEYWORD, *(f"<{form}>" for form in (*FORMS, *OTHER_FORMS))]
TITLE_LENGTH = 30  # characters; the longest titles are longer than their poems


class Vocabulary:
    """Characters by frequency behind the special tokens; `unknown` stands for all the others."""

    def __init__(self, characters: list[str]):
        self.characters = characters
        self.ids = {c: i for i, c in enumerate(characters)}
        self.pad, self.unknown, self.bos, self.eos = (self.ids[c] for c in (PAD, UNKNOWN, BOS, EOS))

    @classmethod
    def build(cls, poems: Iterable[Poem], min_count: int = 1) -> "Vocabulary":
        """All characters of body, title and author that occur `min_count` times, the commonest first."""
        counts = Counter()
        for poem in poems:
            counts.update(poem.text + poem.title + poem.author + poem.tune)
        ranked = sorted((c for c in counts if counts[c] >= min_count), key=lambda c: (-counts[c], c))
        return cls(SPECIALS + ranked)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        ids, unknown = self.ids, self.unknown
        return [ids.get(c, unknown) for c in text]

    def condition(
        self, form: str, author: str, title: str, keywords: Iterable[str] = (), tune: str = ""
    ) -> list[list[int]]:
        """What a poem is conditioned on, as ids: form with the tune of a 词, author, title, keywords.

        What is empty has none.
        """
        return [
            [self.ids[token], *self.encode(tune)] if (token := f"<{form}>") in self.ids else [],
            [self.ids[AUTHOR], *self.encode(author)] if author else [],
            [self.ids[TITLE], *self.encode(title[:TITLE_LENGTH])] if title else [],
            [i for word in keywords for i in (self.ids[KEYWORD], *self.encode(word))],
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; special tokens are left out."""
        return "".join(c for i in ids if (c := self.characters[i]) not in SPECIALS)

    def fold(self, text: str) -> tuple[str, str]:
        """`text` with characters it lacks replaced by their simplified or traditional form, and those still lacking."""
        folded = []
        for c in text:
            forms = (c, simplify(c), traditional(c)) if c not in self.ids else (c,)
            folded.append(next((f for f in forms if f in self.ids), c))
        return "".join(folded), "".join(dict.fromkeys(c for c in folded if c not in self.ids))

    def changes(self, text: str) -> list[str]:
        """A line for each character of `text` that is read as another."""
        changed = sorted({(old, new) for old, new in zip(text, self.fold(text)[0], strict=True) if old != new})
        return [f"{old} is read as {new}" for old, new in changed]

    def remarks(self, text: str) -> list[str]:
        """A line for each character of `text` that is read as another, and one for those that are not known."""
        unknown = self.fold(text)[1]
        return self.changes(text) + ([f"the poet does not know {unknown} and reads over it"] if unknown else [])
