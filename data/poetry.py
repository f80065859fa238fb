"""Poems: reading them from files, characters to ids, and rows without waste. No network and no GPU here.

A poem becomes [form] [author …] [title …] [keywords …] <bos> body <eos>. The part before <bos> is a condition and is
left out at random in training, so that one network writes with and without it.
"""

import gzip
import json
import lzma
import pickletools
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from data.splits import SPLITS, assign_splits
from data.verse import (
    FORMS,
    OTHER_FORMS,
    STOPS,
    Poem,
    blocks,
    form_of,
    left_out,
    parse_poem,
    plain,
    to_lines,
    why_not,
    without_notes,
)
from utils.errors import UserError

PAD, UNKNOWN, BOS, EOS, MORE = "<pad>", "<unk>", "<bos>", "<eos>", "<more>"
AUTHOR, TITLE, KEYWORD = "<author>", "<title>", "<keyword>"
SPECIALS = [PAD, UNKNOWN, BOS, EOS, MORE, AUTHOR, TITLE, KEYWORD, *(f"<{form}>" for form in (*FORMS, *OTHER_FORMS))]
TITLE_LENGTH = 30  # characters; the longest titles are longer than their poems
IGNORE = -1  # target of positions that are not counted: padding and condition

SUFFIXES = (".txt", ".jsonl", ".json", ".npz")
NO_POEMS = (".", "README", "LICENSE")  # how the names of files start that lie in folders of poems and hold none
EMBEDDED = Path(__file__).parent.parent / "dataset" / "sample" / "poetry.jsonl"


# ---------------------------------------------------------------------------------------------------- reading


def read_poems(path: str | Path) -> list[Poem]:
    """Reads every poem of a file or folder.

    .txt (one poem a line, or poems between blank lines; see parse_poem), .jsonl (id, author, title, lines, form,
    split), the chinese-poetry project's .json, each also as .gz or .xz, and tang.npz. UTF-8, any language. Chinese
    verse is cleaned (data/verse.py: plain) and left out where characters are missing; how many were, and files of a
    folder that hold something else, is told on stderr. A poem without a split gets one (data/splits.py), one without a
    form, or with one that is not known here, the form of its shape. Raises UserError naming file and line, also when
    no poem is found.
    """
    path = Path(path)
    files = _files(path)
    poems: list[Poem] = []
    reasons: list[str] = []
    empty: list[str] = []
    for file in tqdm(files, desc="reading", unit="file", leave=False, disable=len(files) < 5):
        found = [(poem, why_not(poem.lines)) for poem in _read_file(file, alone=file == path)]
        poems += [poem for poem, reason in found if not reason]
        reasons += [reason for _, reason in found if reason]
        empty += [] if found else [file.name]
    if not poems:
        raise UserError(
            f'{path} holds no poem: expected .txt, .jsonl of objects with "lines", chinese-poetry\'s .json lists of '
            'objects with "paragraphs", or tang.npz' + (f" ({left_out(reasons, len(reasons))})" if reasons else "")
        )
    if empty:
        print(f"{path}: no poem in {len(empty)} of the {len(files)} files: {', '.join(empty[:5])}", file=sys.stderr)
    if reasons:
        print(f"{path}: {left_out(reasons, len(poems) + len(reasons))}", file=sys.stderr)
    assign_splits(poems)
    for poem in poems:
        poem.form = poem.form if poem.form in (*FORMS, *OTHER_FORMS) else form_of(poem.lines)
    return poems


def choose_split(poems: list[Poem], split: str) -> list[Poem]:
    """The poems of "train", "val" or "test". Raises UserError if there is none."""
    chosen = [p for p in poems if p.split == split]
    if not chosen:
        raise UserError(f"none of the {len(poems)} poems is in the {split} split: give a larger --data_root")
    return chosen


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if _kind(p) in SUFFIXES and p.is_file())
        files = [p for p in files if not any(part.startswith(NO_POEMS) for part in p.relative_to(path).parts)]
        if not files:
            raise UserError(f"{path} holds no {', '.join(SUFFIXES)} file (also .gz, .xz)")
        return files
    if not path.exists():
        raise UserError(
            f"--data_root={path} does not exist: give a file or folder of poems, or leave it out for the embedded ones"
        )
    if _kind(path) not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file; poems are read from {', '.join(SUFFIXES)} (also .gz, .xz)")
    return [path]


def _kind(path: Path) -> str:
    """ ".txt" for poems.txt, poems.txt.gz and POEMS.TXT.XZ."""
    return Path(path.stem if path.suffix.lower() in (".gz", ".xz") else path.name).suffix.lower()


def _read_file(path: Path, alone: bool) -> Iterator[Poem]:
    """The poems of a file, cleaned. One that lies with others in a folder may be of another shape: it has none then."""
    kind = _kind(path)
    if kind == ".npz":
        yield from _read_npz(path)
        return
    try:
        raw = path.read_bytes()
        raw = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix.lower(), bytes)(raw)
        text = raw.decode("utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        reason = "it is not UTF-8, convert it first" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(f"cannot read {path}: {reason}") from error
    if kind == ".txt":
        yield from _parse_txt(text)
    elif kind == ".jsonl":
        lines = text.split("\n")  # splitlines would also cut at U+2028 inside a string
        records = [(_json(line, path, number), number) for number, line in enumerate(lines, 1) if line.strip()]
        if alone or any(_has_lines(record, "lines") for record, _ in records):
            for record, number in records:
                yield _from_json(record, f"{path}:{number}")
    else:
        records = _json(text, path, 1)
        records = records if isinstance(records, list) else []
        if any(map(_paragraphs, records)):  # else such as the lists of authors that lie beside the poems
            yield from _from_chinese_poetry(records)


def _json(text: str, path: Path, line: int) -> object:
    """The value that `text` is, which starts at that line of the file."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be printed nor saved
        return value
    except (ValueError, RecursionError) as error:  # not JSON; a number of 5,000 digits; 100,000 nested lists
        reason, after = (error.msg, error.lineno - 1) if isinstance(error, json.JSONDecodeError) else (error, 0)
        raise UserError(f"{path}:{line + after}: not valid JSON ({reason})") from error


def _parse_txt(text: str) -> Iterator[Poem]:
    """Poems between blank lines if there is one, else one a line; see parse_poem."""
    text = "\n".join(line.strip() for line in text.splitlines()).strip()
    for block in blocks(text) if "\n\n" in text else text.split("\n"):
        poem = parse_poem(block)
        yield Poem(to_lines(plain("\n".join(poem.lines)).split("\n")), poem.title, poem.author)


def _from_json(record: object, where: str) -> Poem:
    if not _has_lines(record, "lines"):
        raise UserError(f'{where}: expected an object with "lines", a list of strings')
    if (split := record.get("split") or "") not in ("", *SPLITS):
        raise UserError(f'{where}: "split" is {split!r}: expected one of {", ".join(SPLITS)}, or leave it out')
    text = "\n".join(record["lines"])
    lines = record["lines"] if (cleaned := plain(text)) == text else cleaned.split("\n")
    return Poem(lines, *(str(record.get(key) or "") for key in ("title", "author", "form", "split", "id")))


def _has_lines(record: object, key: str) -> bool:
    lines = record.get(key) if isinstance(record, dict) else None
    return isinstance(lines, list) and all(isinstance(line, str) for line in lines)


def _paragraphs(record: object) -> list[str]:
    """The lines of one of chinese-poetry's records; nothing if it is none."""
    return next((record[key] for key in ("paragraphs", "content") if _has_lines(record, key)), [])


def _from_chinese_poetry(records: list[object]) -> Iterator[Poem]:
    """chinese-poetry's JSON: traditional characters, which are made simplified."""
    texts = []
    for record in records:
        facts = record if isinstance(record, dict) else {}
        title, author = facts.get("title") or facts.get("rhythmic") or "", facts.get("author") or ""
        texts += [plain("\n".join(_paragraphs(record))), without_notes(str(title)), str(author)]
    # All at once: the converter takes longer to start than to convert. Its tables know no control characters.
    texts = simplify("\0".join(text.replace("\0", "") for text in texts)).split("\0")
    for body, title, author in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        yield Poem(to_lines(body.split("\n")), title, author)


# RuntimeError: an encrypted archive; MemoryError: a header that claims a huge array
NOT_NPZ = (OSError, EOFError, LookupError, ValueError, RuntimeError, MemoryError, zlib.error, BadZipFile)


def _read_npz(path: Path) -> Iterator[Poem]:
    """The book's tang.npz: `data` (poems, 125) ids, left-padded, and `ix2word`."""
    words = read_words(path)
    try:
        with ZipFile(path) as archive, archive.open("data.npy") as file:
            data = np.lib.format.read_array(file, allow_pickle=False)
        if data.ndim != 2 or data.dtype.kind not in "iu":
            raise ValueError(f"data has shape {data.shape} and type {data.dtype}, expected rows of whole numbers")
    except NOT_NPZ as error:
        raise UserError(f"{path} is not the book's tang.npz (arrays data and ix2word): {error}") from error
    for row in data.tolist():
        characters = [words.get(i, UNKNOWN) for i in row]
        body = "".join(c for c in characters if not c.startswith("<"))
        yield Poem(to_lines([plain(body)]))


def read_words(path: Path) -> dict[int, str]:
    """`ix2word` of the book's tang.npz: a pickled dict of ids and characters.

    numpy would run the pickle to read it; here its opcodes are only listed, and the numbers and strings among them are
    the dict. Raises UserError for another file.
    """
    try:
        with ZipFile(path) as archive, archive.open("ix2word.npy") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return _literal_dict(file.read())
    except NOT_NPZ as error:
        raise UserError(f"{path} is not the book's tang.npz (arrays data and ix2word): {error}") from error


def _literal_dict(pickled: bytes) -> dict[int, str]:
    """{int: str} out of a pickle whose opcodes are read, not executed."""
    words: dict[int, str] = {}
    memo: dict[int, str | None] = {}  # a string that the file already has is fetched by number
    key: int | None = None
    text: str | None = None
    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "EMPTY_DICT":  # what came before describes the array around the dict
                words, key = {}, None
            case "BININT" | "BININT1" | "BININT2":
                key, text = argument, None
            case "BINUNICODE" | "SHORT_BINUNICODE":
                text = argument
            case "BINGET" | "LONG_BINGET":
                text = memo.get(argument)
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                memo[len(memo) if argument is None else argument] = text
        if key is not None and text is not None:
            words[key], key = text, None
    if len(words) < 2 or max(words) >= 2 * len(words):
        raise ValueError("ix2word is not a dict of ids and characters")
    return words


# ------------------------------------------------------------------------------------------------- vocabulary


class Vocabulary:
    """Characters by frequency behind the special signs; `unknown` stands for all the others."""

    def __init__(self, characters: list[str]):
        self.characters = characters
        self.ids = {c: i for i, c in enumerate(characters)}
        self.pad, self.unknown, self.bos, self.eos = (self.ids[c] for c in (PAD, UNKNOWN, BOS, EOS))

    @classmethod
    def build(cls, poems: Iterable[Poem], min_count: int = 1) -> "Vocabulary":
        """All characters of body, title and author that occur `min_count` times, the commonest first."""
        counts = Counter()
        for poem in poems:
            counts.update(poem.text + poem.title + poem.author)
        ranked = sorted((c for c in counts if counts[c] >= min_count), key=lambda c: (-counts[c], c))
        return cls(SPECIALS + ranked)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        ids, unknown = self.ids, self.unknown
        return [ids.get(c, unknown) for c in text]

    def condition(self, form: str, author: str, title: str, keywords: Iterable[str] = ()) -> list[list[int]]:
        """What a poem is conditioned on, as ids: form, author, title, keywords; what is empty has none."""
        return [
            [self.ids[f"<{form}>"]] if form else [],
            [self.ids[AUTHOR], *self.encode(author)] if author else [],
            [self.ids[TITLE], *self.encode(title[:TITLE_LENGTH])] if title else [],
            [i for word in keywords for i in (self.ids[KEYWORD], *self.encode(word))],
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text; special signs are left out."""
        return "".join(c for i in ids if (c := self.characters[i]) not in SPECIALS)

    def fold(self, text: str) -> tuple[str, str]:
        """`text` with characters it lacks replaced by their simplified or traditional form, and those still lacking."""
        folded = []
        for c in text:
            forms = (c, simplify(c), traditional(c)) if c not in self.ids else (c,)
            folded.append(next((f for f in forms if f in self.ids), c))
        return "".join(folded), "".join(dict.fromkeys(c for c in folded if c not in self.ids))


def character_counts(poems: Iterable[Poem], vocabulary: Vocabulary) -> Tensor:
    """(V,) how often each sign is a target in the bodies of the poems."""
    counts = np.zeros(len(vocabulary), np.int64)
    for poem in poems:
        np.add.at(counts, [*vocabulary.encode(poem.text), vocabulary.eos], 1)
    return torch.from_numpy(counts)


@cache
def _converter(table: str):
    from opencc import OpenCC  # only prompts with unseen characters and traditional corpora need it

    return OpenCC(table)


def simplify(text: str) -> str:
    """Traditional to simplified characters (OpenCC's t2s tables)."""
    return _converter("t2s").convert(text)


def traditional(text: str) -> str:
    """Simplified to traditional characters (OpenCC's s2t tables)."""
    return _converter("s2t").convert(text)


# --------------------------------------------------------------------------------------------------- samples


class PoetryDataset(Dataset):
    """Rows of ids to train or judge on; a row holds one poem after the other, as many as fit.

    Rows keep padding away: poems have 20 to 3,000 characters, rows are all nearly full, and a batch of rows is as mixed
    as the corpus, which a batch of poems of equal length is not.

    Args:
        row_length: signs in a row; longer poems are cut into stretches at the ends of lines, a later stretch starts
            with <more> instead of <bos>. 0: one whole poem a row, in the order given; for judging.
        condition: "none" (text alone), "all" (form, author and title given) or "random": in training half of the poems
            get none, in the others form, author and title are each there with probability 0.7, and one to four
            keywords, words of the poem itself, with probability 0.5.
        seed: which conditions are drawn and which poems share a row is a function of (seed, epoch), so that a resumed
            run sees what the uninterrupted one would have seen.
    """

    def __init__(
        self, poems: list[Poem], vocabulary: Vocabulary, condition: str = "random", row_length: int = 128, seed: int = 0
    ):
        self.vocabulary, self.condition, self.row_length, self.seed = vocabulary, condition, row_length, seed
        # ids of form, author and title of each poem
        self.conditions = [vocabulary.condition(p.form, p.author, p.title)[:3] for p in poems]
        self.stretches: list[tuple[int, np.ndarray]] = []  # (poem, ids with <bos> or <more> in front)
        for number, poem in enumerate(poems):
            body = np.array([vocabulary.bos, *vocabulary.encode(poem.text), vocabulary.eos], np.int32)
            for start, stop in _stretches(poem.text, row_length):
                ids = body[start:stop].copy()
                ids[0] = vocabulary.bos if start == 0 else vocabulary.ids[MORE]
                self.stretches.append((number, ids))
        self.characters = sum(len(ids) - 1 for _, ids in self.stretches)  # counted ones: bodies and end marks
        self.keyword = _KeywordChoice(vocabulary, [ids for _, ids in self.stretches])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draws the conditions and the rows of that epoch."""
        n = len(self.stretches)
        random = np.random.default_rng((self.seed, epoch, 0))
        self.given = [self.conditions[poem] if self.condition == "all" else [] for poem, _ in self.stretches]
        if self.condition == "random":
            chosen = random.random(n) < 0.5
            parts = random.random((n, 4)) < (0.7, 0.7, 0.7, 0.5)
            for i in chosen.nonzero()[0]:
                poem, body = self.stretches[i]
                keywords = self.keyword.draw(body, random) if parts[i, 3] else []
                whole = (*self.conditions[poem], keywords)
                self.given[i] = [part for part, there in zip(whole, parts[i], strict=True) if there]
        if self.row_length:
            lengths = [
                len(ids) + sum(map(len, given)) for (_, ids), given in zip(self.stretches, self.given, strict=True)
            ]
            self.rows = _pack(lengths, random.permutation(n), self.row_length)
        else:
            self.rows = [[i] for i in range(n)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """A row of n signs: {"ids": (n,), "counted": (n,) whether the loss counts the sign (bodies and end marks, not
        conditions), "poem": (n,) the number of its poem in the row}."""
        ids, counted, poem = [], [], []
        for number in self.rows[row]:
            body = self.stretches[number][1]
            condition = [i for part in self.given[number] for i in part]
            room = max(0, self.row_length - len(body)) if self.row_length else len(condition)
            poem += [self.rows[row].index(number)] * (min(len(condition), room) + len(body))
            ids += [*condition[:room], *body]
            counted += [False] * (min(len(condition), room) + 1) + [True] * (len(body) - 1)
        return {"ids": np.array(ids), "counted": np.array(counted), "poem": np.array(poem)}

    def batches(self, batch_size: int, epoch: int, shuffle: bool = True) -> list[list[int]]:
        """The epoch's batches of row numbers; without shuffle rows of equal length together, for judging."""
        if shuffle:
            order = np.random.default_rng((self.seed, epoch, 1)).permutation(len(self))
        else:
            order = np.argsort([sum(len(self.stretches[i][1]) for i in row) for row in self.rows], kind="stable")
        return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


class _KeywordChoice:
    """Draws words of a poem: single characters, and pairs that start at an even place of their verse.

    Common characters are drawn less often, by the square root of their frequency as in word2vec (Mikolov et al. 2013):
    nobody asks for a poem about 不.
    """

    COMMON = 1e-3  # frequency from which on a character is drawn less often

    def __init__(self, vocabulary: Vocabulary, bodies: list[np.ndarray]):
        counts = np.bincount(np.concatenate(bodies), minlength=len(vocabulary))
        self.word = np.array([c not in SPECIALS and c.isalnum() for c in vocabulary.characters])
        frequency = np.maximum(counts, 1) / max(1, counts[self.word].sum())
        self.share = np.minimum(1, (self.COMMON / frequency) ** 0.5)
        self.sign = vocabulary.ids[KEYWORD]

    def draw(self, body: np.ndarray, random: np.random.Generator) -> list[int]:
        """Up to four words of the body, as ids, each behind a <keyword>."""
        keywords: list[int] = []
        letters = self.word[body]
        tries = random.integers(0, len(body), 2 * random.integers(1, 5))
        for place, pair, luck in zip(tries, random.random(len(tries)) < 0.5, random.random(len(tries)), strict=True):
            if not letters[place] or luck > self.share[body[place]]:
                continue
            start = place
            if pair:
                verse = place - int(letters[place::-1].argmin())  # the sign before the verse
                start -= (place - verse - 1) % 2
                if start + 1 >= len(body) or not letters[start + 1]:
                    start -= 1  # the last of an odd number: with the one before
            word = body[start : start + 1 + pair]
            if letters[start : start + 1 + pair].all() and self.word[word].all():
                keywords += [self.sign, *word.tolist()]
        return keywords


def _pack(lengths: list[int], order: np.ndarray, row_length: int, open_rows: int = 32) -> list[list[int]]:
    """Fills rows of `row_length` with items in that order: each goes into the fullest open row that it fits in."""
    done: list[list[int]] = []
    rows: list[list[int]] = [[] for _ in range(open_rows)]
    room = [row_length] * open_rows
    for item in order.tolist():
        length = min(int(lengths[item]), row_length)
        fitting = [r for r in room if r >= length]
        best = room.index(min(fitting if fitting else room))
        if not fitting:  # close the fullest
            done.append(rows[best])
            rows[best], room[best] = [], row_length
        rows[best].append(item)
        room[best] -= length
    return done + [row for row in rows if row]


def _stretches(text: str, row_length: int) -> list[tuple[int, int]]:
    """Where to cut <bos> + text + <eos> into stretches of at most `row_length` signs: (start, stop) pairs.

    Each starts one sign early: that place is for <bos> or <more>.
    """
    if not row_length or len(text) + 2 <= row_length:
        return [(0, len(text) + 2)]
    cuts, last, longest = [], 0, row_length - 2
    while len(text) - last > longest:
        # the last end of a line that fits; a line longer than a row is cut where it is
        fitting = [i + 1 for i in range(last, last + longest) if text[i] in STOPS + "\n"]
        last = fitting[-1] if fitting else last + longest
        cuts.append(last)
    return [(a, b + 1) for a, b in zip([0, *cuts], [*cuts, len(text) + 1], strict=True) if b > a]


def collate(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Rows -> {"ids": (B, T), "targets": (B, T), the next sign at each position or IGNORE, "poem": (B, T)}, padded."""
    length = max(len(s["ids"]) for s in samples) - 1
    ids = torch.zeros(len(samples), length, dtype=torch.long)
    targets = torch.full((len(samples), length), IGNORE, dtype=torch.long)
    poem = torch.full((len(samples), length), -1)
    for row, sample in enumerate(samples):
        sequence, counted = torch.from_numpy(sample["ids"]).long(), torch.from_numpy(sample["counted"])
        n = len(sequence) - 1
        ids[row, :n] = sequence[:-1]
        targets[row, :n] = sequence[1:].where(counted[1:], IGNORE)
        poem[row, :n] = torch.from_numpy(sample["poem"][:-1])
    return {"ids": ids, "targets": targets, "poem": poem}
