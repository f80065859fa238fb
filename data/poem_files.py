"""Reading poems from files: text, our JSON lines, chinese-poetry's JSON, the book's tang.npz."""

import gzip
import json
import lzma
import pickletools
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from tqdm import tqdm

from data.splits import SPLITS, assign_splits
from data.verse import (
    CI,
    FORMS,
    OTHER_FORMS,
    Poem,
    blocks,
    form_of,
    left_out,
    parse_poem,
    plain,
    simplify,
    to_lines,
    why_not,
    without_notes,
)
from data.vocabulary import UNKNOWN
from utils.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".json", ".npz")
NO_POEMS = (".", "README", "LICENSE")  # how the names of files start that lie in folders of poems and hold none
EMBEDDED = Path(__file__).parent.parent / "dataset" / "sample" / "poetry"


def read_poems(path: str | Path) -> list[Poem]:
    """Reads every poem of a file or folder: .txt, .jsonl, chinese-poetry's .json (also .gz, .xz), and tang.npz.

    UTF-8, any language. Chinese verse is cleaned, and left out where characters are missing; stderr says how many poems
    were, and which files of a folder hold none. A poem without a split gets one, one without a known form that of its
    shape. Raises UserError naming file and line, also when no poem is found.
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
        by_shape = CI if poem.tune else form_of(poem.lines)
        poem.form = poem.form if poem.form in (*FORMS, *OTHER_FORMS) else by_shape
    return poems


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if _kind(p) in SUFFIXES and p.is_file())
        files = [p for p in files if not any(part.startswith(NO_POEMS) for part in p.relative_to(path).parts)]
        if not files:
            raise UserError(f"{path} holds no {', '.join(SUFFIXES)} file (also .gz, .xz)")
        return files
    if not path.exists():
        raise UserError("does not exist: give a file or folder of poems; without it: the embedded ones", data_root=path)
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
    facts = {key: str(record.get(key) or "") for key in ("title", "author", "form", "split", "tune", "id")}
    return Poem(lines, **facts)


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
        title, author, tune = (str(facts.get(key) or "") for key in ("title", "author", "rhythmic"))
        texts += [plain("\n".join(_paragraphs(record))), without_notes(title), author, without_notes(tune)]
    # All at once: the converter takes longer to start than to convert. Its tables know no control characters.
    texts = simplify("\0".join(text.replace("\0", "") for text in texts)).split("\0")
    for body, title, author, tune in zip(texts[::4], texts[1::4], texts[2::4], texts[3::4], strict=True):
        yield Poem(to_lines(body.split("\n")), title, author, tune=" ".join(tune.split()[:1]))  # 虞美人 其一


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
    """`ix2word` of the book's tang.npz: a pickled dict, whose opcodes are read, never run. Or a UserError."""
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
