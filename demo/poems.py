"""Poems as the page holds them, {form, title, lines, remarks, sections, seed, text, pinyin}, and as HTML."""

import html
import itertools
import re
from typing import Any
from urllib.parse import urlencode

from data.verse import MARKS, PAIR, traditional, verses
from demo.words import both, translate

TONES = {"平": "○", "仄": "●", "中": "◐"}
RHYME = "△"
SECTION = ' class="section"'  # begins here
MOST_COLUMNS = 8  # of a scroll with a column for each verse; of a longer poem each line has one
VERSE = re.compile(f"[^{MARKS}]*[{MARKS}]+|[^{MARKS}]+$")  # with its marks: a line is broken between them only
LATIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def poem_of(composition: Any) -> dict:
    """A poem for the page. `text` is how it is copied, saved and read aloud."""
    return read_poem({**composition.as_dict(), "text": str(composition), "pinyin": composition.pinyin})


def read_poem(poem: Any) -> dict:
    """The poem in `poem`, which comes from the browser. Raises KeyError, TypeError or ValueError if it is none."""
    texts = {name: str(poem[name]) for name in ("form", "title", "text")}
    lists = {name: [str(line) for line in poem[name]] for name in ("lines", "remarks", "pinyin")}
    return texts | lists | {"sections": [int(count) for count in poem["sections"]], "seed": int(poem["seed"])}


def in_traditional(poem: dict) -> dict:
    """The poem in traditional characters."""
    texts = {name: traditional(poem[name]) for name in ("title", "text")}
    return {**poem, **texts, "lines": list(map(traditional, poem["lines"]))}


def verses_of(poem: dict) -> list[str]:
    return verses("".join(poem["lines"]))


def heading_of(poem: dict) -> str:
    """What stands above a poem: its title, and of a 词 the tune; from its text, which has it as 《…》."""
    first = poem["text"].partition("\n")[0]
    return first[1:-1] if first.startswith("《") else ""


def card(poem: dict, chosen: bool, index: int, check: Any) -> str:
    """A poem to choose: its lines, with tones and rhymes (infer.verse.check.Check) under the characters."""
    heading = heading_of(poem)
    title = f'<b class="title">{html.escape(heading)}</b>' if heading else ""
    notes = [html.escape(poem["form"])] if poem["form"] else [both("free")]
    if check and (check.wants or check.style == PAIR):
        facts = [check.pattern, f"押{check.rhyme}" if check.rhyme else "", *(fault.kind for fault in check.faults)]
        notes += map(html.escape, filter(None, facts))
        shown = verses_of(poem)
        marked = iter([_marked(check, number, shown[number]) for number in range(len(check.verses))])
        counts = check.lines or [2] * (len(check.verses) // 2)
        lines = ["".join(itertools.islice(marked, count)) for count in counts]
    else:
        lines = ["".join(f"<p>{html.escape(verse)}</p>" for verse in VERSE.findall(line)) for line in poem["lines"]]
    starts = set(itertools.accumulate(poem["sections"]))
    read = itertools.chain(poem["pinyin"], itertools.repeat(""))
    body = "".join(
        f"<div{SECTION if i in starts else ''}>{line}"
        f'<span class="pinyin" lang="zh-Latn">{html.escape(pinyin)}</span></div>'
        for i, (line, pinyin) in enumerate(zip(lines, read, strict=False))
    )
    remarks = "".join(f"<em>{translate(remark)}</em>" for remark in poem["remarks"])
    return (
        f'<button class="card" lang="zh-CN" data-index="{index}" aria-pressed="{"true" if chosen else "false"}">{title}'
        f"<div>{body}</div><small>{' · '.join(notes)}</small>{remarks}</button>"
    )


def _marked(check: Any, number: int, verse: str) -> str:
    """A verse, and under each character its tone; a rhyme is red, what breaks the rules is underlined."""
    tones = check.tones[number]
    faults = {fault.place for fault in check.faults if fault.verse == number + 1}
    parts = []
    for place, (character, tone) in enumerate(zip(verse, tones, strict=True), 1):
        rhymes = bool(check.rhymes) and check.rhymes[number] and place == len(verse)
        kind = " ".join(["rhyme"] * rhymes + ["fault"] * (place in faults))
        sign = RHYME if rhymes else TONES.get(tone, "")
        parts.append(f'<span class="{kind}">{html.escape(character)}<i aria-hidden="true">{sign}</i></span>')
    return f"<p>{''.join(parts)}</p>"


def scroll(poem: dict, asked: dict) -> str:
    """The chosen poem, upright, from right to left; `asked` is the request that writes it again, for a link."""
    heading = heading_of(poem)
    title = f"<h2>{_upright(heading)}</h2>" if heading else ""
    columns = verses_of(poem)
    starts = {len(verses_of({"lines": poem["lines"][:n]})) for n in itertools.accumulate(poem["sections"])}
    if len(columns) > MOST_COLUMNS:
        columns, starts = poem["lines"], set(itertools.accumulate(poem["sections"]))
    body = "".join(f"<p{SECTION if i in starts else ''}>{_upright(v)}</p>" for i, v in enumerate(columns))
    link = urlencode({name: value for name, value in asked.items() if value not in ("", None)})
    return (
        f'<div class="scroll{" long" * (len(columns) > 4)}" lang="zh-CN" tabindex="0" data-link="{html.escape(link)}" '
        f'data-text="{html.escape(poem["text"])}" data-name="{html.escape(heading or verses_of(poem)[0])}">'
        f'{title}{body}<span class="seal" aria-hidden="true">诗画</span></div>'
    )


def _upright(text: str) -> str:
    """Chinese text for a column; Latin words in it lie horizontally (and so do escaped signs: they are ASCII, too)."""
    return LATIN.sub(r'<span class="latin">\g<0></span>', html.escape(text))


def past(poems: list[dict]) -> str:
    """The poems that were written before, to be shown again."""
    rows = (
        f'<li><button data-index="{i}"><b>{html.escape(heading_of(p) or p["form"])}</b> {html.escape(p["lines"][0])}'
        "</button></li>"
        for i, p in enumerate(poems)
    )
    return f'<ol class="past" lang="zh-CN">{"".join(rows)}</ol>'
