"""Poems as HTML: cards to choose from, with their prosody, and the chosen one as a scroll. Poems are what
`Composition.as_dict` gives."""

import html
from typing import Any

from utils.errors import UserError

GONE = "the poems are not here any more; write them anew"
TONES = {"平": "○", "仄": "●", "中": "◐"}
RHYME = "△"
LEGEND = '<p class="key">○ 平 level　● 仄 oblique　◐ 平仄 either　<b>△</b> 韵 rhyme</p>'


def chosen_of(state: dict) -> dict:
    """The poem that has been chosen of {"poems": […], "chosen": its number}. Raises UserError if there is none."""
    try:
        return state["poems"][state["chosen"]]
    except (IndexError, TypeError):
        raise UserError(GONE) from None


def verses_of(poem: dict) -> list[str]:
    from data.verse import verses

    return verses("".join(poem["lines"]))


def card(poem: dict, chosen: bool, index: int, check: Any) -> str:
    """A poem to choose: its lines, with tones and rhymes (infer.verse.prosody.Check) under the characters."""
    title = f"<h4>{html.escape(poem['title'])}</h4>" if poem["title"] else ""
    notes = [poem["form"] or "自由 free"]
    if check and check.wants:
        notes += [check.pattern, f"押{check.rhyme}" if check.rhyme else "", *(fault.kind for fault in check.faults)]
        marked = [_marked(check, number) for number in range(len(check.verses))]
        verses = "".join(f"<div>{''.join(couplet)}</div>" for couplet in zip(marked[::2], marked[1::2], strict=True))
    else:
        verses = "".join(f"<p>{html.escape(line)}</p>" for line in poem["lines"])
    remarks = "".join(f"<em>{html.escape(remark)}</em>" for remark in poem.get("remarks", []))
    return (
        f'<button class="card" data-index="{index}" aria-pressed="{"true" if chosen else "false"}">{title}'
        f"<div>{verses}</div><small>{html.escape(' · '.join(filter(None, notes)))}</small>{remarks}</button>"
    )


def _marked(check: Any, number: int) -> str:
    """A verse, and under each character its tone; a rhyme is red, what breaks the rules is underlined."""
    verse, tones = check.verses[number], check.tones[number]
    faults = {fault.place for fault in check.faults if fault.verse == number + 1}
    parts = []
    for place, (character, tone) in enumerate(zip(verse, tones, strict=True), 1):
        rhymes = check.rhymes[number] and place == len(verse)
        kind = " ".join(["rhyme"] * rhymes + ["fault"] * (place in faults))
        sign = RHYME if rhymes else TONES.get(tone, "")
        parts.append(f'<span class="{kind}">{html.escape(character)}<i>{sign}</i></span>')
    return f"<p>{''.join(parts)}</p>"


def scroll(poem: dict) -> str:
    """The chosen poem, upright, from right to left."""
    title = f"<h3>{html.escape(poem['title'])}</h3>" if poem["title"] else ""
    verses = verses_of(poem)
    columns = "".join(f"<p>{html.escape(verse)}</p>" for verse in verses)
    return f'<div class="scroll{" long" * (len(verses) > 4)}">{title}{columns}<span class="seal">诗画</span></div>'
