"""The tab that makes postcards: a painted photograph with a poem on it, to download."""

import html
from typing import Any

import gradio as gr

from data.verse import verses
from demo.paint import brush, settings_of
from demo.parts import Jobs, Photos, Problems, made, to_url, wanted
from demo.words import empty, text
from utils.photo import Photo


class PostcardTab:
    def __init__(self, photos: Photos, jobs: Jobs):
        self.photos, self.jobs, self.service, self.problems = photos, jobs, photos.service, Problems()

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field(self.problems)
                self.brush = brush(self.service, strength=0.8, folded=True)
                self.title = self.problems.textbox("title", "春江夜泊")
                self.poem = self.problems.textbox("poem", info=text("poem_info"), lines=4, max_lines=20)
                seal = self.problems.textbox("seal", value="诗画")
                buttons = gr.Column()
            with gr.Column(scale=5, min_width=300, elem_id="postcard-result"):
                card = gr.HTML(empty("picture_here"))
        with buttons:
            asked = [photo, self.title, self.poem, seal, *self.brush]
            self.jobs.buttons("postcard", self.postcard, asked, [card, self.poem], self.problems, show_progress_on=card)

    def postcard(
        self,
        photo: Photo | None,
        title: str,
        poem: str,
        seal: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
        *answers: Any,
    ) -> tuple[str, str]:
        """The card, and its poem; `answers` are those of the brush's fields."""
        asked = {"title": title, "seal": seal, **settings_of(*answers)}
        with self.jobs.job(request, "postcard", progress) as show:
            rgb, poem = self.service.postcard(wanted(photo), poem, show, **asked)
        name = title or next(iter(verses(poem)), "shihua")
        return made(f'<img src="{to_url(rgb)}" alt="{html.escape(poem)}">', rgb, name), poem
