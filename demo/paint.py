"""The tab that paints a photograph: a style, its strength, a second style mixed in."""

from typing import Any

import gradio as gr

from demo.brush import Brush, settings_of
from demo.parts import Jobs, Photos, Problems, file_names, made, to_url, wanted
from demo.words import WORDS, both, empty, text
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
                self.brush = Brush(self.service, strength=1.0, folded=False)
                buttons = gr.Column()
            with gr.Column(scale=5, min_width=300, elem_id="paint-result"):
                painting = gr.HTML(EMPTY)
                self.to_postcard = gr.Button(text("to_postcard"), visible=False)
        with buttons:
            asked, outputs = [photo, *self.brush.fields], [painting, self.to_postcard]
            self.jobs.buttons("paint", self.paint, asked, outputs, self.problems, show_progress_on=painting)

    def paint(
        self,
        photo: Photo | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
        *answers: Any,
    ) -> tuple[str, Any]:
        """The photograph and its painting; `answers` are those of the brush's fields."""
        asked = settings_of(answers)
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
