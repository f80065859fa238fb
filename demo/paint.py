"""The tab that paints a photograph, and the fields that say how: the same where it becomes a postcard."""

from contextlib import nullcontext
from typing import Any

import gradio as gr

from demo.parts import QUIET, Jobs, Photos, Problems, file_names, made, to_url, wanted
from demo.service import Service
from demo.words import WORDS, both, empty, style_title, text
from utils.photo import Photo

OWN_STYLE = "python main.py train --task=style --style_image=painting.jpg"
EMPTY = empty("picture_here", f"<small>{both('own_style')}<br><code>{OWN_STYLE}</code></small>")


class PaintTab:
    def __init__(self, photos: Photos, jobs: Jobs):
        self.photos, self.jobs, self.service, self.problems = photos, jobs, photos.service, Problems()

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field(self.problems)
                self.brush = brush(self.service, strength=1.0, folded=False)
                buttons = gr.Column()
            with gr.Column(scale=5, min_width=300, elem_id="paint-result"):
                painting = gr.HTML(EMPTY)
                self.to_postcard = gr.Button(text("to_postcard"), visible=False)
        with buttons:
            asked, outputs = [photo, *self.brush], [painting, self.to_postcard]
            self.jobs.buttons("paint", self.paint, asked, outputs, self.problems, show_progress_on=painting)

    def paint(
        self,
        photo: Photo | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
        *answers: Any,
    ) -> tuple[str, Any]:
        """The photograph and its painting; `answers` are those of the brush's fields."""
        asked = settings_of(*answers)
        with self.jobs.job(request, "paint", progress) as show:
            before, after = self.service.paint(wanted(photo), show, **asked)
        names = file_names([style.partition(":")[0] for style in asked["style"].split(",")], photo.name)
        return made(compare(before, after), after, *names), gr.update(visible=True)


def compare(before: Any, after: Any) -> str:
    """Two pictures (H, W, 3) uint8 of one size, one on the other, and a slider that uncovers the second."""
    pictures = "".join(f'<img src="{to_url(rgb)}" alt="{" ".join(WORDS[name])}">' for rgb, name in
                       ((before, "photo"), (after, "paint")))  # fmt: skip
    label = " ".join(WORDS["before_after"])
    slider = f'<input type="range" value="50" aria-label="{label}" oninput="uncover(this)">'
    return f'<div id="before-after">{pictures}{slider}</div><p class="key">{both("before_after")}</p>'


def brush(service: Service, strength: float, folded: bool) -> list[Any]:
    """The arguments of `settings_of`: style and strength; a second style, strokes and colours, folded up or not."""
    names = [(style_title(name), name) for name in service.styles]
    style = gr.Radio(names, value=next(iter(service.styles), None), label=text("style"), elem_classes="styles")
    strong = gr.Slider(0, 1.5, strength, step=0.05, label=text("strength"), info=text("strength_info"))
    with gr.Accordion(text("more"), open=False) if folded else nullcontext():
        strokes = [(text(name), name) for name in ("fine", "medium", "large")]
        stroke = gr.Radio(strokes, value="medium", label=text("stroke"))
        other = gr.Dropdown([(text("none"), ""), *names], value="", label=text("other"))
        share = gr.Slider(0, 100, 50, step=5, label=text("share"), visible=False)
        keep_color = gr.Checkbox(label=text("keep_color"))
    other.change(lambda name: gr.update(visible=bool(name)), other, share, **QUIET)
    return [style, other, share, strong, stroke, keep_color]


def settings_of(
    style: str | None, other: str, share: float, strength: float, stroke: str, keep_color: bool
) -> dict[str, Any]:
    """What the fields of `brush` ask of the painter; `share` is in % of the other style."""
    if style and other and share:
        style = f"{style}:{100 - share:g},{other}:{share:g}" if share < 100 else other
    return {"style": style or "", "strength": strength, "stroke": stroke, "keep_color": keep_color}
