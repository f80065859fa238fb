"""The tab that writes poems: cards to choose from, with their tones, and the chosen poem as a scroll.

What the browser keeps, and sends back, is {"asked": the request, "poems": what `Composition.as_dict` gives, "chosen"}.
"""

import html
import itertools
from collections.abc import Sequence
from typing import Any

import gradio as gr

from config import GenerateConfig
from data.verse import CI, FORMS, PAIR, verses
from demo.parts import JOB, LABELS, QUIET, report, show_result, textbox
from demo.service import CANDIDATES, Service
from shihua import tune_names
from utils.errors import UserError

CHOICES = ("auto", *FORMS, PAIR, CI, "free")
FORM_NAMES = {"auto": "自动 auto", "free": "自由 free", CI: "词 to a tune", PAIR: "对联 couplet"}
FORM_NAMES |= {name: f"{name} {count} × {width}" for name, (count, width) in FORMS.items()}
GONE = "the poems are not here any more; write them anew"
TONES = {"平": "○", "仄": "●", "中": "◐"}
RHYME = "△"
SECTION = ' class="section"'  # begins here
LEGEND = '<p class="key">○ 平 level　● 仄 oblique　◐ 平仄 either　<b>△</b> 韵 rhyme</p>'
WELCOME = '<div class="empty"><p>诗成于此</p><small>The poems will stand here.</small></div>'
CHOOSE = (
    "element.addEventListener('click', e => { const card = e.target.closest('[data-index]');"
    " if (card) trigger('click', {index: Number(card.dataset.index)}); });"
)
COPY = """state => {
  const poem = state?.poems?.[state.chosen];
  if (!poem) return;
  const starts = new Set(poem.sections.map((_, i) => poem.sections.slice(0, i + 1).reduce((a, b) => a + b)));
  const lines = poem.lines.map((line, i) => (starts.has(i) ? "\\n" : "") + line);
  const heads = [poem.sections.length ? poem.form : "", poem.title].filter(Boolean);
  copyText([...(heads.length ? ["《" + heads.join("·") + "》"] : []), ...lines].join("\\n"));
}"""
ASKED = ("form", "tune", "title", "keywords", "acrostic", "temperature", "seed")


class ComposeTab:
    def __init__(self, service: Service):
        self.service = service

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                form = gr.Radio([(FORM_NAMES.get(c, c), c) for c in CHOICES], value="auto", label=LABELS["form"])
                tune = gr.Dropdown(tune_names(), label=LABELS["tune"], visible=False)
                title, keywords = textbox("title", "春江夜泊"), textbox("keywords", "梅 雪")
                acrostic = textbox("acrostic", "诗画人间")
                with gr.Accordion("更多 More", open=False):
                    temperature = gr.Slider(0, 1.5, GenerateConfig.temperature, step=0.05, label=LABELS["temperature"])
                    seed = gr.Number(-1, precision=0, minimum=-1, label=LABELS["seed"], info="-1：每次不同 always new")
                write = gr.Button("写诗 Compose", variant="primary")
            with gr.Column(scale=5, min_width=300):
                cards = gr.HTML(WELCOME, elem_id="cards", js_on_load=CHOOSE)
                with gr.Row(visible=False) as chosen:
                    with gr.Column(min_width=280):
                        scroll = gr.HTML("", elem_id="scroll")
                    with gr.Column(min_width=280):
                        lock = gr.CheckboxGroup([], label="留住的句子 Verses to keep")
                        again = gr.Button("重写其余 Write the others anew")
                        copy = gr.Button("复制 Copy")
                        self.to_postcard = gr.Button("题到画上 Onto a postcard")
        self.poems = gr.JSON(visible=False)
        shown = [self.poems, cards, scroll, lock, chosen]
        asked = [form, tune, title, keywords, acrostic, temperature, seed]
        form.change(lambda chosen: gr.update(visible=chosen == CI), form, tune, **QUIET)
        for trigger in (write.click, title.submit, keywords.submit, acrostic.submit):
            trigger(report(self.write), asked, shown, js=show_result("cards"), **JOB)
        again.click(report(self.rewrite), [self.poems, lock], shown, show_progress_on=cards, **JOB)
        copy.click(None, self.poems, None, js=COPY, **QUIET)
        cards.click(report(self.choose), self.poems, shown, **QUIET)

    def write(self, *answers: Any) -> tuple:
        asked = dict(zip(ASKED, answers, strict=True))
        asked["seed"] = -1 if asked["seed"] is None else asked["seed"]
        if asked["form"] == CI and not asked["tune"]:
            raise UserError("请选词牌 choose a tune", tune=None)
        return self.show_poems(asked, self._written(asked))

    def _written(self, asked: dict, kept: Sequence[str] = ()) -> list[Any]:
        """The poems that are asked for, to the chosen tune if they are 词."""
        settings = {name: value for name, value in asked.items() if name != "tune"}
        settings["form"] = asked["tune"] if asked["form"] == CI else asked["form"]
        return self.service.write(kept=kept, **settings)

    def rewrite(self, state: Any, kept: list[str]) -> tuple:
        """Writes anew what is not among the `kept` numbers of verses."""
        state = read_state(state)
        poem = chosen_of(state)
        tuned = poem["form"] in tune_names()
        if kept and not (poem["form"] in FORMS or tuned):
            raise UserError("只有绝句、律诗和词能留句 Verses can be kept in 绝句, 律诗 and 词 only")
        verses = [verse if str(i) in kept else "" for i, verse in enumerate(verses_of(poem))]
        asked = {**state["asked"], "seed": -1}
        if kept and not tuned:
            asked["form"] = poem["form"]
        return self.show_poems(asked, self._written(asked, verses if kept else ()), kept)

    def show_poems(self, asked: dict, poems: list[Any], kept: Sequence[str] = ()) -> tuple:
        return self.show_state({"asked": asked, "poems": [poem.as_dict() for poem in poems], "chosen": 0}, kept)

    def choose(self, state: Any, event: gr.EventData) -> tuple:
        try:
            chosen = event.index
        except (AttributeError, TypeError):  # a request that the page has not sent
            raise UserError(GONE) from None
        return self.show_state({**read_state(state), "chosen": chosen})

    def show_state(self, state: dict, kept: Sequence[str] = ()) -> tuple:
        """What the outputs of the tab show: all poems as cards, the chosen one large, its verses to be locked."""
        poems, chosen = state["poems"], chosen_of(state)
        cards = [card(p, p is chosen, i, self.service.check(p["lines"])) for i, p in enumerate(poems)]
        verses = [(verse, str(i)) for i, verse in enumerate(verses_of(chosen))]
        return (
            state,
            f'<div class="cards">{"".join(cards)}</div>{LEGEND}',
            scroll(chosen),
            gr.update(choices=verses, value=list(kept)),
            gr.update(visible=True),
        )

    def carry(self, state: Any) -> tuple:
        """The chosen poem, onto a postcard."""
        poem = chosen_of(read_state(state))
        return gr.update(selected="postcard"), "\n".join(poem["lines"]), title_of(poem)


def read_state(state: Any) -> dict:
    """What `show_state` has given the browser, and gets back from there. Raises UserError if that is something else."""
    try:
        asked = {name: state["asked"][name] for name in ASKED}
        poems = [
            {name: str(poem[name]) for name in ("form", "title")}
            | {name: [str(line) for line in poem[name]] for name in ("lines", "remarks")}
            | {"sections": [int(count) for count in poem.get("sections", ())]}
            for poem in state["poems"][:CANDIDATES]
        ]
        return {"asked": asked, "poems": poems, "chosen": state["chosen"]}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise UserError(GONE) from None


def chosen_of(state: dict) -> dict:
    """The poem that has been chosen. Raises UserError if there is none."""
    try:
        return state["poems"][state["chosen"]]
    except (IndexError, TypeError):
        raise UserError(GONE) from None


def verses_of(poem: dict) -> list[str]:
    return verses("".join(poem["lines"]))


def title_of(poem: dict) -> str:
    """What stands above a poem: its title, and of a 词 the tune."""
    tune = poem["form"] if poem["form"] in tune_names() else ""
    return "·".join(filter(None, (tune, poem["title"])))


def card(poem: dict, chosen: bool, index: int, check: Any) -> str:
    """A poem to choose: its lines, with tones and rhymes (infer.verse.check.Check) under the characters."""
    title = f"<h4>{html.escape(title_of(poem))}</h4>" if title_of(poem) else ""
    notes = [poem["form"] or "自由 free"]
    if check and check.wants:
        notes += [check.pattern, f"押{check.rhyme}" if check.rhyme else "", *(fault.kind for fault in check.faults)]
        marked = iter([_marked(check, number) for number in range(len(check.verses))])
        counts = check.lines or [2] * (len(check.verses) // 2)
        lines = ["".join(itertools.islice(marked, count)) for count in counts]
    else:
        lines = [f"<p>{html.escape(line)}</p>" for line in poem["lines"]]
    starts = set(itertools.accumulate(poem.get("sections", [])))
    verses = "".join(f"<div{SECTION if i in starts else ''}>{line}</div>" for i, line in enumerate(lines))
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
    title = f"<h3>{html.escape(title_of(poem))}</h3>" if title_of(poem) else ""
    verses = verses_of(poem)
    starts = {len(verses_of({"lines": poem["lines"][:n]})) for n in itertools.accumulate(poem.get("sections", []))}
    columns = "".join(f"<p{SECTION if i in starts else ''}>{html.escape(v)}</p>" for i, v in enumerate(verses))
    return f'<div class="scroll{" long" * (len(verses) > 4)}">{title}{columns}<span class="seal">诗画</span></div>'
