"""The tab that paints a photograph: a style, its strength, a second style mixed in."""

from typing import Any

import gradio as gr

from demo.parts import QUIET, Jobs, Photos, Problems, file_names, made, style_choice, to_url, wanted
from demo.words import WORDS, both, empty, style_title, text
from utils.photo import Photo

ASKED = ("style", "other", "share", "strength", "stroke", "keep_color")


class PaintTab:
    def __init__(self, photos: Photos, jobs: Jobs):
        self.photos, self.jobs, self.service, self.problems = photos, jobs, photos.service, Problems()

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field(self.problems)
                self.style = style_choice(self.service)
                self.strength = gr.Slider(0, 1.5, 1.0, step=0.05, label=text("strength"))
                strokes = [(text(name), name) for name in ("fine", "medium", "large")]
                stroke = gr.Radio(strokes, value="medium", label=text("stroke"))
                choices = [(text("none"), ""), *((style_title(name), name) for name in self.service.styles)]
                other = gr.Dropdown(choices, value="", label=text("other"))
                share = gr.Slider(0, 100, 50, step=5, label=text("share"), visible=False)
                other.change(lambda name: gr.update(visible=bool(name)), other, share, **QUIET)
                keep_color = gr.Checkbox(label=text("keep_color"))
                buttons = gr.Column()
            with gr.Column(scale=5, min_width=300, elem_id="paint-result"):
                painting = gr.HTML(empty("picture_here"))
                self.to_postcard = gr.Button(text("to_postcard"), visible=False)
        with buttons:
            asked = [photo, self.style, other, share, self.strength, stroke, keep_color]
            outputs = [painting, self.to_postcard]
            self.jobs.buttons("paint", self.paint, asked, outputs, self.problems, show_progress_on=painting)

    def paint(
        self,
        photo: Photo | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
        *answers: Any,
    ) -> tuple[str, Any]:
        """The photograph and its painting; `answers` are those of the other fields, as ASKED names them."""
        asked = dict(zip(ASKED, answers, strict=True))
        styles = [asked["style"] or "", asked["other"]]
        asked["style"] = mixture(asked["style"], asked.pop("other"), asked.pop("share"))
        with self.jobs.job(request, "paint", progress) as show:
            before, after = self.service.paint(wanted(photo), show, **asked)
        names = file_names([name for name in styles if name and name in asked["style"]], photo.name)
        return made(compare(before, after), after, *names), gr.update(visible=True)


def compare(before: Any, after: Any) -> str:
    """Two pictures (H, W, 3) uint8 of one size, one on the other, and a slider that uncovers the second."""
    pictures = "".join(f'<img src="{to_url(rgb)}" alt="{" ".join(WORDS[name])}">' for rgb, name in
                       ((before, "photo"), (after, "paint")))  # fmt: skip
    label = " ".join(WORDS["before_after"])
    slider = f'<input type="range" value="50" aria-label="{label}" oninput="uncover(this)">'
    return f'<div id="before-after">{pictures}{slider}</div><p class="key">{both("before_after")}</p>'


def mixture(style: str | None, other: str, share: float) -> str:
    """Two styles as the painter wants them, `share` in % of the second."""
    if not other or not style or not share:
        return style or ""
    return f"{style}:{100 - share:g},{other}:{share:g}" if share < 100 else other
