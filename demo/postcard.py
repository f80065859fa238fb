"""The tab that makes postcards: a painted photograph with a poem on it, to download."""

import html

import gradio as gr
import numpy as np

from demo.parts import LABELS, Jobs, Photos, as_url, encode, style_choice, textbox, wanted
from demo.service import LENGTHS
from utils.photo import Photo


class PostcardTab:
    def __init__(self, photos: Photos, jobs: Jobs):
        self.photos, self.jobs, self.service = photos, jobs, photos.service

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field()
                style = style_choice(self.service)
                info = "0：照片 the photo itself"
                strength = gr.Slider(0, 1.5, 0.8, step=0.05, label=LABELS["strength"], info=info)
                self.title = textbox("title", "春江夜泊")
                example = "空：看照片写一首 empty: one about the photo, or to the title"
                self.poem = gr.Textbox(label=LABELS["poem"], placeholder=example, lines=4, max_length=LENGTHS["poem"])
                seal = gr.Textbox("诗画", label=LABELS["seal"], max_lines=1, max_length=LENGTHS["seal"])
                buttons = gr.Column()
            with gr.Column(scale=5, min_width=300, elem_id="postcard-result"):
                picture = self.photos.result(show_label=False)
                links = gr.HTML("")
        with buttons:
            asked, made = [photo, style, strength, self.title, self.poem, seal], [picture, links, self.poem]
            self.jobs.buttons("题画 Make it", "postcard", self.postcard, asked, made, show_progress_on=picture)

    def postcard(
        self,
        photo: Photo | None,
        style: str,
        strength: float,
        title: str,
        poem: str,
        seal: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
    ) -> tuple:
        asked = {"style": style or "", "strength": strength, "title": title, "seal": seal}
        with self.jobs.job(request, "postcard", progress, "题画 painting and writing") as show:
            rgb, poem = self.service.postcard(wanted(photo), poem, show, **asked)
        return rgb, downloads(rgb, title or "shihua"), poem


def downloads(rgb: np.ndarray, name: str) -> str:
    """Links to save a picture, with the picture in them."""
    links = []
    for suffix, kind, mime in (
        ("jpg", "JPEG", "image/jpeg"),
        ("png", "PNG", "image/png"),
        ("pdf", "PDF", "application/pdf"),
    ):
        url = as_url(encode(rgb, kind), mime)
        links.append(f'<a download="{html.escape(name)}.{suffix}" href="{url}">{suffix.upper()}</a>')
    return f'<p class="downloads">下载 Download {" ".join(links)}</p>'
