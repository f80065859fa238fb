"""Verse as text: marks, lines, verses and forms; what is not verse in it; the poems that somebody gives. No torch."""

import itertools
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from utils.errors import UserError

FORMS = {"五绝": (4, 5), "七绝": (4, 7), "五律": (8, 5), "七律": (8, 7)}  # verses, characters in each
NAMES = {shape: name for name, shape in FORMS.items()}
CI, PAIR = "词", "对联"
OTHER_FORMS = ("五言", "七言", "杂言", CI)
PAUSES, STOPS = "，、", "。？！；"  # a pause ends a verse, a stop may end a couplet
MARKS = PAUSES + STOPS
HAN = "\u3400-\u9fff\U00020000-\U0003ffff"  # Chinese characters, for regular expressions
STDIN = "<stdin>"  # in the place of a text: read it from there


@dataclass
class Poem:
    """One poem. `lines` as printed, Chinese verse a couplet a line; `form` is one of FORMS, OTHER_FORMS or empty.

    `tune` is the 词牌 of a 词, such as 浣溪沙.
    """

    lines: list[str]
    title: str = ""
    author: str = ""
    form: str = ""
    split: str = ""
    tune: str = ""
    id: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The body as it is modelled: Chinese lines need nothing between them, others a line break."""
        return "".join(self.lines) if is_verse(self.lines) else "\n".join(self.lines)


def is_verse(lines: Sequence[str]) -> bool:
    """Whether each line ends with a Chinese mark."""
    return all(line and line[-1] in MARKS for line in lines)


def to_lines(lines: list[str]) -> list[str]:
    """Chinese verse is cut after each stop; other text keeps its lines."""
    lines = [line.strip() for line in lines if line.strip()]
    if not is_verse(lines):
        return lines
    return re.findall(f"[^{STOPS}]*[{STOPS}]+|[^{STOPS}]+$", "".join(lines))


def verses(text: str) -> list[str]:
    """The verses of Chinese lines, without punctuation."""
    return [v for v in re.split(f"[{MARKS}\n]", text) if v]


def form_of(lines: list[str]) -> str:
    """The form by shape alone: 五绝 七绝 五律 七律, 五言 七言 (other lengths), 杂言 (mixed), "" if it is no verse.

    A 词 is known by its tune, not by its shape.
    """
    if not lines or not is_verse(lines):
        return ""
    parts = verses("".join(lines))
    widths = {len(v) for v in parts}
    if len(widths) != 1 or (width := widths.pop()) not in (5, 7):
        return "杂言"
    return NAMES.get((len(parts), width)) or {5: "五言", 7: "七言"}[width]


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


NOTE = re.compile(r"（[^（）]*）|\([^()]*\)|〖[^〖〗]*〗|【[^【】]*】")
BRACKET = re.compile(r"\[([^\[\]]*)\]")
RESTORED = re.compile(f"(?![一二三四五六七八九十]+$)[{HAN}]{{1,2}}")
QUOTES = re.compile(r"[《》〈〉“”‘’「」『』\"]|[^\S\n]")
MISSING = re.compile("[□○●■◯◎{}\u2ff0-\u2fff\ue000-\uf8ff\ufffd]")  # {艹/冖} and ⿰木 stand for a character, too
NO_TEXT, NO_CHARACTER, OTHER_SIGNS = "without text", "with missing characters", "with notes or other signs"


def is_chinese(text: str) -> bool:
    """Whether at least nine of ten letters are Chinese characters."""
    han = len(re.findall(f"[{HAN}]", text))
    return han > 0 and 10 * han >= 9 * sum(map(str.isalpha, text))


def without_notes(text: str) -> str:
    """Chinese `text` without what is in brackets, such as （一作…）. Other text comes back as it is.

    One or two characters in square brackets are restored ones (景[龍]年) and stay, as do more, or a number, where the
    verse has the usual length with them.
    """
    if not re.search(r"[（(〖【\[［]", text) or not is_chinese(text):
        return text
    before = ""
    while before != text:  # from the inside out
        before, text = text, NOTE.sub("", text)
    text = text.replace("［", "[").replace("］", "]")
    if "[" in text:
        pieces = re.split(f"([{MARKS}：,.?!;\n]+)", text)  # verses, and what stands between them
        lengths = Counter(len(_unbracketed(verse)[0]) for verse in pieces[::2])
        usual = max(lengths, key=lambda length: (lengths[length], length))
        for i in range(0, len(pieces), 2):
            variants = _unbracketed(pieces[i])
            pieces[i] = next((v for v in variants if len(v) == usual), variants[0])
        text = "".join(pieces)
    return text


def _unbracketed(verse: str) -> list[str]:
    """A verse without square brackets, with and without what may be a note in them; first without."""
    parts = BRACKET.split(verse)  # text, inside, text, inside, … text
    for i in range(1, len(parts), 2):
        sure = RESTORED.fullmatch(parts[i]) or re.search("[□●]", parts[i])
        parts[i] = (parts[i],) if sure or len(parts) > 9 else ("", parts[i])
    ways = [part if isinstance(part, tuple) else (part,) for part in parts]
    return ["".join(way) for way in itertools.product(*ways)]


def plain(text: str) -> str:
    """Chinese verse without notes, quotation marks and spaces, its punctuation one of MARKS; other text as it is."""
    if re.fullmatch(f"[{HAN}]+([{MARKS}]\n?[{HAN}]+)*[{MARKS}]", text) or not is_chinese(text):
        return text
    text = without_notes(text)
    tidied = QUOTES.sub("", text).translate(str.maketrans("：,.?!;", "，，。？！；"))
    # where a note stood: of several marks the first that ends a verse, and none at the start
    tidied = re.sub(f"[{MARKS}]{{2,}}", lambda run: next((m for m in run[0] if m in STOPS), run[0][0]), tidied)
    lines = [kept for line in tidied.split("\n") if (kept := line.lstrip(MARKS))]
    return "\n".join(lines) if is_verse(lines) else text


def why_not(lines: Sequence[str]) -> str:
    """Why cleaned lines are no poem to learn from, in words that follow a number; empty if they are one."""
    text = "".join(lines)
    if not text.strip() or (len(text) == 2 and is_verse(lines)):  # 空。 is what stands for a lost poem
        return NO_TEXT
    if not is_chinese(text):
        return ""
    if MISSING.search(text):
        return NO_CHARACTER
    return OTHER_SIGNS if is_verse(lines) and re.search(f"[^{HAN}{MARKS}]", text) else ""


CORPUS = r"\.(jsonl?|npz|gz|xz)$"
# around the name: 唐·王之涣, [唐] 王之涣, 唐代：王之涣, 王之涣〔唐代〕, 作者：王之涣
AUTHOR_HEAD = re.compile(r"^(作者|[唐宋元明清]代?)[:：\s]+|^.{1,2}[·・]|〔.*?〕")


DYNASTIES = ("先秦", "汉", "魏", "晋", "唐", "五代", "宋", "北宋", "南宋", "金", "元", "明", "清", "近代", "现代")
# what people copy together with a poem
APPARATUS = re.compile(
    r"\n[【\[（(]?(?:横批|注释|注解|译文|白话译文|赏析|简析|鉴赏|创作背景|作者简介)[】\]）)]?\s*(?:[:：\n]|$)"
)
FOOTNOTES = re.compile("[①-⑳⑴-⒇¹²³⁴-⁹]")
NUMBER = re.compile(
    r"^(?:[（(]\d{1,3}[）)]|\d{1,3}\s*[.、．:：)）]|[一二三四五六七八九十]{1,3}[、.．]|其[一二三四五六七八九十]{1,2}(?=[\s:：]|$)"
    r"|[上下]联\s*[:：])\s*",
    re.MULTILINE,
)
BRACKETED_AUTHOR = re.compile(
    rf"^([{HAN}]{{1,20}})[（(【]((?:[{HAN}]{{1,2}}[·・:：\s]+)?(?![一又或]作)[{HAN}]{{2,4}})[）)】](?![{MARKS},.])\s*"
)


def blocks(text: str) -> list[str]:
    """The parts of a text between blank lines; lines that can only be a title stay with the verse that follows."""
    parts = re.split("\n{2,}", "\n".join(line.strip() for line in text.splitlines()).strip("\n"))
    found: list[str] = []
    heads = [0 < len(p.split("\n")) <= 2 and is_chinese(p) and not _marked(p) for p in parts]
    for i, part in enumerate(parts):
        head_before = i and heads[i - 1] and _marked(part.split("\n")[0]) and is_chinese(part)
        found[-1:] = [f"{found[-1]}\n{part}"] if head_before else [*found[-1:], part]
    return found


def parse_poem(text: str) -> Poem:
    """Title, author and lines of one poem, notes in brackets left out.

    The title is 《…》 in front, or before a colon in the first line, or a line before the verse; a second line is the
    author; or both stand before the first verse. Numbers of lines go, and what follows a line such as 注释.
    """
    text = "\n".join(line.strip() for line in text.splitlines()).strip()
    text = without_notes(_without_apparatus(text)) if is_chinese(text) else text
    if head := _inline_head(text):
        title, author = [*head[1], "", ""][:2]
        return Poem(head[0].split("\n"), title, AUTHOR_HEAD.sub("", author).strip())
    if titled := re.fullmatch(r"([^:：，。\n《]{1,40})[:：]([^\n]+[，。].*)", text, re.DOTALL):
        return Poem(titled[2].split("\n"), titled[1])
    named = re.match(r"《([^》\n]*)》", text)
    lines = (text[named.end() :] if named else text).strip().split("\n")
    heads = _heads(lines, 1 if named else 2)
    title, author = [*([named[1]] if named else []), *lines[:heads], "", ""][:2]
    return Poem(lines[heads:], title.strip(), AUTHOR_HEAD.sub("", author).strip())


def _without_apparatus(text: str) -> str:
    """A pasted poem without numbers of lines, footnotes and what follows it; a bracketed author gets a line."""
    text = NUMBER.sub("", FOOTNOTES.sub("", APPARATUS.split(text, maxsplit=1)[0]))
    return re.sub("\n+", "\n", BRACKETED_AUTHOR.sub(r"\1\n\2\n", text)).strip()


def _inline_head(text: str) -> tuple[str, list[str]] | None:
    """(the verses, title and author) of a text with these in the line of the first verse: 春晓 孟浩然 春眠不觉晓，…"""
    first, *others = [p for p in re.split(rf"[{MARKS},.?!;\s]*[{MARKS},.?!;\n]+\s*", text) if p] or [""]
    widths = {len(piece) for piece in others}
    if len(widths) != 1 or len(others) < 3 or len(others) % 2 == 0 or (width := widths.pop()) not in range(4, 8):
        return None
    found = re.fullmatch(rf"(.*[\s:：》·])([{HAN}]{{{width}}})", first)
    if not found:
        return None
    heads = [part for part in re.split(r"[\s:：《》·]+", found[1]) if part and part not in DYNASTIES]
    return text[found.start(2) + text.index(first) :], heads


def _heads(lines: list[str], most: int) -> int:
    """How many lines, at most so many, stand before the verse."""
    marked = next((i for i, line in enumerate(lines) if _marked(line)), None)
    if marked is not None:
        return marked if marked <= most and all(map(_marked, lines[marked:])) else 0
    return _heads_of_form(lines, most)


def _heads_of_form(parts: list[str], most: int) -> int:
    """How many parts, at most so many, stand before verses without marks that make one of FORMS."""
    for heads in range(1, most + 1):
        widths = {len(part) for part in parts[heads:]}
        if (len(parts) - heads, *widths) in NAMES and len(parts[0]) not in widths:
            return heads
    return 0


def _marked(text: str) -> bool:
    return bool(re.search(f"[{HAN}][”’」』]?[{MARKS},.?!;]", text))


def split_verses(poem: str | Sequence[str]) -> list[str]:
    """The verses of a poem as somebody writes it, without marks and title; of one without marks, by its length."""
    text = "\n".join(parse_poem(poem).lines if isinstance(poem, str) else poem)
    parts = re.split(rf"[{MARKS}\s/\\|,.;:!?：—–…·]+", text)
    parts = [kept for part in parts if (kept := "".join(c for c in part if unicodedata.category(c)[0] in "LMNS"))]
    if not re.search(f"[{MARKS}]", text):
        parts = parts[_heads_of_form(parts, 2) :]  # title and author go
    if len(parts) == 1:
        shapes = [shape for shape in FORMS.values() if shape[0] * shape[1] == len(parts[0])]
        parts = [parts[0][i : i + w] for _, w in shapes for i in range(0, len(parts[0]), w)] or parts
    return parts


def given_poems(given: str, argument: str = "") -> list[str]:
    """The poems (with their titles) of what a command was given: text, the name of a UTF-8 file or corpus, or STDIN.

    Poems stand between blank lines; `argument` is what errors are about. Raises UserError for a file that is not there,
    or no text, and if there is no poem.
    """
    about = {argument: None} if argument else {}
    if given == STDIN:
        given = sys.stdin.read()
    elif os.path.isfile(path := os.path.expanduser(given)):  # False also where a name is too long for the system
        if re.search(CORPUS, path, re.IGNORECASE):
            from data.poem_files import read_poems  # not before it is needed: numpy is slow to load

            return [f"《{poem.title}》\n" * bool(poem.title) + "\n".join(poem.lines) for poem in read_poems(path)]
        try:
            given = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{given} is not UTF-8, convert it first", **about) from None
    elif re.fullmatch(rf"[^\n]*(\.txt|\.md|{CORPUS})", given):
        raise UserError(f"{given} does not exist: give a poem, or a text file with one", **about)
    poems = [part for part in blocks(given) if split_verses(part)]
    if not poems:
        raise UserError("no poem found: give verses such as 白日依山尽，黄河入海流。", **about)
    return poems


def left_out(reasons: Iterable[str], total: int) -> str:
    """Such as "3 of 10 poems left out: 2 with missing characters, 1 without text"."""
    counts = Counter(reasons)
    reported = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    return f"{counts.total():,} of {total:,} poems left out: {reported}"
