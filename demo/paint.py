"""The tab that paints a photograph: a style, its strength, a second style mixed in."""

from typing import Any

import gradio as gr
import numpy as np

from demo.parts import LABELS, QUIET, Jobs, Photos, bilingual, shown, style_choice, wanted
from utils.photo import Photo

ASKED = ("style", "other", "share", "strength", "stroke", "keep_color")


class PaintTab:
    def __init__(self, photos: Photos, jobs: Jobs):
        self.photos, self.jobs, self.service = photos, jobs, photos.service

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field()
                style = style_choice(self.service)
                strength = gr.Slider(0, 1.5, 1.0, step=0.05, label=LABELS["strength"])
                strokes = [("细 fine", "fine"), ("中 medium", "medium"), ("粗 large", "large")]
                stroke = gr.Radio(strokes, value="medium", label=LABELS["stroke"])
                choices = [("不掺 none", ""), *((bilingual(name), name) for name in self.service.styles)]
                other = gr.Dropdown(choices, value="", label="掺入 Mixed with")
                share = gr.Slider(0, 100, 50, step=5, label="掺入多少 How much of it, %", visible=False)
                other.change(lambda name: gr.update(visible=bool(name)), other, share, **QUIET)
                keep_color = gr.Checkbox(label="保留照片的颜色 Keep the photo's colours")
                buttons = gr.Column()
            with gr.Column(scale=5, min_width=300, elem_id="paint-result"):
                slider = gr.ImageSlider(show_label=False, max_height=760, interactive=False, elem_id="before-after")
                slider.postprocess = lambda pair: pair and tuple(shown(rgb).model_dump() for rgb in pair)
        with buttons:
            asked = [photo, style, other, share, strength, stroke, keep_color]
            self.jobs.buttons("绘画 Paint", "paint", self.paint, asked, slider)

    def paint(
        self,
        photo: Photo | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
        *answers: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The photograph and its painting; `answers` are those of the other fields, as ASKED names them."""
        asked = dict(zip(ASKED, answers, strict=True))
        asked["style"] = mixture(asked["style"], asked.pop("other"), asked.pop("share"))
        with self.jobs.job(request, "paint", progress, "绘画 painting") as show:
            return self.service.paint(wanted(photo), show, **asked)


def mixture(style: str | None, other: str, share: float) -> str:
    """Two styles as the painter wants them, `share` in % of the second."""
    if not other or not style or not share:
        return style or ""
    return f"{style}:{100 - share:g},{other}:{share:g}" if share < 100 else other
