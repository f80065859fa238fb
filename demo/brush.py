"""The fields that say how a photograph is painted: the same where it is painted and where it becomes a postcard."""

from contextlib import nullcontext
from typing import Any

import gradio as gr

from demo.parts import QUIET
from demo.service import Service
from demo.words import style_title, text

STROKES = ("fine", "medium", "large")
ASKED = ("style", "other", "share", "strength", "stroke", "keep_color")


class Brush:
    """Style and strength; a second style mixed in, strokes and colours, folded up or not. `fields` are as ASKED."""

    def __init__(self, service: Service, strength: float, folded: bool):
        names = [(style_title(name), name) for name in service.styles]
        first = names[0][1] if names else None
        style = gr.Radio(names, value=first, label=text("style"), elem_classes="styles")
        strong = gr.Slider(0, 1.5, strength, step=0.05, label=text("strength"), info=text("strength_info"))
        with gr.Accordion(text("more"), open=False) if folded else nullcontext():
            strokes = [(text(name), name) for name in STROKES]
            stroke = gr.Radio(strokes, value="medium", label=text("stroke"))
            other = gr.Dropdown([(text("none"), ""), *names], value="", label=text("other"))
            share = gr.Slider(0, 100, 50, step=5, label=text("share"), visible=False)
            keep_color = gr.Checkbox(label=text("keep_color"))
        other.change(lambda name: gr.update(visible=bool(name)), other, share, **QUIET)
        self.fields = [style, other, share, strong, stroke, keep_color]


def settings_of(answers: tuple) -> dict[str, Any]:
    """What the answers of the fields ask of the painter."""
    asked = dict(zip(ASKED, answers, strict=True))
    style = mixture(asked.pop("style"), asked.pop("other"), asked.pop("share"))
    return {"style": style, **asked}


def mixture(style: str | None, other: str, share: float) -> str:
    """Two styles as the painter wants them, `share` in % of the second."""
    if not other or not style or not share:
        return style or ""
    return f"{style}:{100 - share:g},{other}:{share:g}" if share < 100 else other
