"""The tab that writes poems: cards to choose from, with their tones, and the chosen poem as a scroll.

What the browser keeps, and sends back, is a state {"asked": the request, "poems": see demo/poems.py, "chosen": a
number, "kept": numbers of verses that stayed}, and the last poems that were shown, each as such a state.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import gradio as gr

from config import GenerateConfig
from data.verse import CI, FORMS, PAIR
from demo.parts import CHOOSE, QUIET, Problems, report
from demo.poems import card, heading_of, in_traditional, past, poem_of, read_poem, scroll, verses_of
from demo.service import CANDIDATES, Service
from demo.words import both, empty, text
from shihua import tune_names
from utils.errors import UserError

WITH_SIZES = [(f"{name} {count} × {width}", name) for name, (count, width) in FORMS.items()]
CHOICES = [(text("auto"), "auto"), *WITH_SIZES, *((text(name), name) for name in (PAIR, CI, "free"))]
GONE = "the poems are not here any more; write them anew"
LEGEND = f'<p class="key tones">{both("key")}</p>'
ASKED = ("form", "tune", "title", "prompt", "keywords", "acrostic", "temperature", "seed")
PLAIN = {"form": "auto", "tune": None, "temperature": GenerateConfig.temperature, "seed": -1}  # the others are empty
EXAMPLES = (
    {"form": "七绝", "title": "春江夜泊"},
    {"form": "五律", "keywords": "梅 雪"},
    {"acrostic": "诗画人间"},
    {"form": PAIR, "prompt": "青山不墨千秋画"},
    {"form": CI, "tune": "浣溪沙", "title": "秋思"},
)
REMEMBERED = 20  # poems


class ComposeTab:
    def __init__(self, service: Service):
        self.service, self.problems = service, Problems()

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                fields = self._fields()
                write = gr.Button(text("compose"), variant="primary", elem_id="start-compose")
                self.problems.line()
                self._examples(fields)
            with gr.Column(scale=5, min_width=300):
                cards = gr.HTML(empty("poems_here"), elem_id="cards", js_on_load=CHOOSE)
                with gr.Row(visible=False) as chosen:
                    with gr.Column(min_width=280):
                        shown_poem = gr.HTML("", elem_id="scroll")
                    with gr.Column(min_width=280):
                        script = self._switches()
                        lock = gr.CheckboxGroup([], label=text("lock"))
                        self.problems.line("lock")
                        again = gr.Button(text("again"), elem_id="start-again")
                        self._uses()
                with gr.Accordion(text("history"), open=False):
                    before = gr.HTML("", js_on_load=CHOOSE)
        self.poems = gr.BrowserState(None, storage_key="shihua_poems", secret="shihua")
        self.past = gr.BrowserState([], storage_key="shihua_past", secret="shihua")
        kept = gr.BrowserState(list(fields_of({})), storage_key="shihua_fields", secret="shihua")
        shown = [self.poems, self.past, cards, shown_poem, lock, chosen, before]
        memory, asked = [self.poems, self.past, script], list(fields.values())
        triggers = [write.click, fields["title"].submit, fields["keywords"].submit, fields["acrostic"].submit]
        lines = gr.Textbox("", visible=False)  # of a link to a poem whose verses were kept, with / between them
        start, sent = self.problems.start_job, [*memory, lines, *asked]
        progress = {"show_progress_on": cards}
        written = start(triggers, "start-compose", "cards", self.write, sent, shown, **progress)
        written.then(None, None, lines, js="() => ''", **QUIET)
        start([again.click], "start-again", "cards", self.rewrite, [*memory, lock], shown, **progress)
        cards.click(report(self.choose), memory, shown, **QUIET)
        before.click(report(self.recall), memory, shown, **QUIET)
        script.change(report(self.restore), memory, shown, **QUIET)
        gr.on([field.change for field in asked], None, asked, kept, js="(...values) => [values]", **QUIET)
        self._open(kept, [*asked, lines], memory, shown)

    def _fields(self) -> dict[str, Any]:
        """The fields by the names of what they ask for, in the order of ASKED."""
        form = gr.Radio(CHOICES, value="auto", label=text("form"), info=text("form_info"))
        tune = gr.Dropdown(tune_names(), value=None, label=text("tune"), visible=False)
        self.problems.line("tune")
        title = self.problems.textbox("title", "春江夜泊")
        prompt = self.problems.textbox("prompt", "青山不墨千秋画", visible=False)
        keywords = self.problems.textbox("keywords", "梅 雪")
        acrostic = self.problems.textbox("acrostic", "诗画人间", info=text("acrostic_info"))
        with gr.Accordion(text("more"), open=False):
            temperature = gr.Slider(0, 1.5, GenerateConfig.temperature, step=0.05, label=text("temperature"))
            seed = gr.Number(-1, precision=0, label=text("seed"), info=text("seed_info"))
            self.problems.line("seed")

        def fit(form: str) -> list:
            return [gr.update(visible=wanted) for wanted in (form == CI, form == PAIR, form != PAIR)]

        form.change(fit, form, [tune, prompt, acrostic], **QUIET)
        return dict(zip(ASKED, (form, tune, title, prompt, keywords, acrostic, temperature, seed), strict=True))

    def _examples(self, fields: dict[str, Any]) -> None:
        gr.HTML(f'<p class="key">{both("examples")}</p>')
        with gr.Row(elem_classes="examples"):
            for example in EXAMPLES:
                button = gr.Button(" ".join(example.values()), size="sm", min_width=80)
                fill = f"() => {json.dumps(fields_of(example))}"
                button.click(None, None, list(fields.values()), js=fill, **QUIET)

    def _switches(self) -> gr.Checkbox:
        """What is shown of the poems; the one for traditional characters is answered by the server."""
        with gr.Row(elem_classes="switches"):
            for name, on in (("tones", True), ("pinyin", False)):
                switch = gr.Checkbox(on, label=text(name), container=False, min_width=80)
                switch.change(None, switch, None, js=f"on => showMarks('{name}', on)", **QUIET)
            return gr.Checkbox(False, label=text("traditional"), container=False, min_width=80)

    def _uses(self) -> None:
        """What can be done with the chosen poem."""
        with gr.Row(elem_classes="uses"):
            for name, script in (
                ("copy", "copyText(poem().text)"),
                ("save", "saveText(poem().name, poem().text)"),
                ("link", "copyText(location.href.split('#')[0] + '#' + poem().link)"),
                ("speak", "speak(poem().text)"),
            ):
                button = gr.Button(text(name), size="sm", min_width=80, elem_id=f"use-{name}")
                button.click(None, None, None, js=f"() => {{ {script}; mark('use-{name}'); }}", **QUIET)
        self.to_postcard = gr.Button(text("onto"))

    def _open(self, kept: gr.BrowserState, fields: list, memory: list, shown: list) -> None:
        """When the page is opened: fields and poems are as they were, or a link fills the fields and starts writing."""
        blocks = gr.context.Context.root_block
        names, plain = (*ASKED, "lines"), [*fields_of({}), ""]
        filled = f"kept => linked({json.dumps(names)}, {json.dumps(plain)}) ?? [...kept, '']"
        blocks.load(self.restore, memory, shown, **QUIET)
        blocks.load(None, kept, fields, js=filled, **QUIET).then(None, None, None, js="() => writeLinked()", **QUIET)

    def write(self, state: Any, past_poems: Any, script: bool, lines: str, *answers: Any) -> tuple:
        """Writes what the fields ask for; of a given seed its own poem is shown first. `lines`: verses of a link."""
        asked = dict(zip(ASKED, answers, strict=True))
        asked["seed"] = -1 if asked["seed"] is None else asked["seed"]
        if asked["form"] == CI and not asked["tune"]:
            raise UserError("choose a tune", tune=None)
        return self._write(asked, lines.split("/") if lines else (), past_poems, script)

    def rewrite(self, state: Any, past_poems: Any, script: bool, kept: list[str]) -> tuple:
        """Writes anew what is not among the `kept` numbers of verses."""
        state = read_state(state)
        poem = state["poems"][state["chosen"]]
        tuned = poem["form"] in tune_names()
        if kept and not (poem["form"] in FORMS or tuned):
            raise UserError("verses can be kept in 绝句, 律诗 and 词 only", lock=None)
        lines = kept_of(poem, kept)
        if all(lines):
            raise UserError("every verse is kept: there is none to be written anew", lock=None)
        asked = {**state["asked"], "seed": -1}
        if kept and not tuned:
            asked["form"] = poem["form"]
        return self._write(asked, lines if kept else (), past_poems, script)

    def _write(self, asked: dict, verses: Sequence[str], past_poems: Any, script: bool) -> tuple:
        """Shows new poems, to the chosen tune if they are 词; `verses` stay, but for those that are ""."""
        unseen = ("tune", "acrostic" if asked["form"] == PAIR else "prompt")
        settings = {name: value for name, value in asked.items() if name not in unseen}
        settings["form"] = asked["tune"] if asked["form"] == CI else asked["form"]
        poems = list(map(poem_of, self.service.write(kept=verses, **settings)))
        chosen = next((i for i, poem in enumerate(poems) if poem["seed"] == asked["seed"]), 0)
        kept = [str(i) for i, verse in enumerate(verses) if verse]
        return self.show({"asked": asked, "poems": poems, "chosen": chosen, "kept": kept}, past_poems, script)

    def choose(self, state: Any, past_poems: Any, script: bool, event: gr.EventData) -> tuple:
        with sent():
            state = {**state, "chosen": event.index}
        return self.show(read_state(state), past_poems, script)

    def recall(self, state: Any, past_poems: Any, script: bool, event: gr.EventData) -> tuple:
        """Shows a poem again that was written before."""
        with sent():
            state = read_past(past_poems)[event.index]
        return self.show(state, past_poems, script)

    def restore(self, state: Any, past_poems: Any, script: bool) -> tuple:
        """The poems on show, or of the last visit, as far as there are any."""
        with suppress(UserError):
            return self.show(read_state(state), past_poems, script)
        return (gr.skip(),) * 6 + (past([state["poems"][0] for state in read_past(past_poems)]),)

    def show(self, state: dict, past_poems: Any, script: bool) -> tuple:
        """What the outputs of the tab show: all poems as cards, the chosen one large, its verses to be locked."""
        chosen = state["poems"][state["chosen"]]
        graded = state["asked"]["form"] != "free"
        poems = [in_traditional(poem) if script else poem for poem in state["poems"]]
        large = poems[state["chosen"]]
        cards = [
            card(shown, poem is chosen, i, self.service.check(poem["lines"]) if graded else None)
            for i, (poem, shown) in enumerate(zip(state["poems"], poems, strict=True))
        ]
        kept = kept_of(chosen, state["kept"])
        again = {**state["asked"], "seed": chosen["seed"], "lines": "/".join(kept) if any(kept) else ""}
        remembered = [{**state, "poems": [chosen], "chosen": 0}]
        remembered += [old for old in read_past(past_poems) if old["poems"][0]["text"] != chosen["text"]]
        remembered = remembered[:REMEMBERED]
        return (
            state,
            remembered,
            f'<div class="cards">{"".join(cards)}</div>{LEGEND if graded else ""}',
            scroll(large, again),
            gr.update(choices=[(v, str(i)) for i, v in enumerate(verses_of(large))], value=state["kept"]),
            gr.update(visible=True),
            past([old["poems"][0] for old in remembered]),
        )

    def carry(self, state: Any) -> tuple:
        """The chosen poem, onto a postcard."""
        state = read_state(state)
        poem = state["poems"][state["chosen"]]
        return gr.update(selected="postcard"), "\n".join(poem["lines"]), heading_of(poem)


def fields_of(asked: dict) -> list[Any]:
    """What the fields hold for a request, in their order."""
    return [asked.get(name, PLAIN.get(name, "")) for name in ASKED]


def kept_of(poem: dict, kept: Sequence[str]) -> list[str]:
    """The verses of a poem whose numbers are kept, "" in place of the others."""
    return [verse if str(i) in kept else "" for i, verse in enumerate(verses_of(poem))]


@contextmanager
def sent() -> Iterator[None]:
    """Around what looks into something that a browser has sent: UserError if it is not what the page has made."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(GONE) from None


def read_state(state: Any) -> dict:
    """What `show` has given the browser, and gets back from there. Raises UserError if that is something else."""
    with sent():
        asked = {name: state["asked"][name] for name in ASKED}
        poems = list(map(read_poem, state["poems"][:CANDIDATES]))
        poems[state["chosen"]]  # which is there, or it raises
        return {"asked": asked, "poems": poems, "chosen": state["chosen"], "kept": list(map(str, state["kept"]))}


def read_past(states: Any) -> list[dict]:
    """The last poems that the browser has kept, without what is none."""
    found = []
    for state in states[:REMEMBERED] if isinstance(states, list) else []:
        with suppress(UserError):
            found.append(read_state(state))
    return found
