"""The tab that tells cats from dogs and everything else, in words, and shows what the answer is based on."""

import html
from typing import Any

import gradio as gr

from demo.parts import Photos, Problems, to_url, wanted
from demo.words import WORDS, both, empty, in_both, text
from utils.photo import Photo

SHOWN = 3  # classes, the likeliest


class ClassifyTab:
    def __init__(self, photos: Photos):
        self.photos, self.service, self.problems = photos, photos.service, Problems()

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field(self.problems)
                start = gr.Button(text("start_classify"), variant="primary", elem_id="start-classify")
                self.problems.line()
            with gr.Column(scale=5, min_width=300, elem_id="classify-result"):
                answer = gr.HTML(empty("answer_here"))
        ids = "start-classify", "classify-result"
        self.problems.start_job([start.click], *ids, self.classify, [photo], [answer], show_progress_on=answer)

    def classify(self, photo: Photo | None) -> tuple[str]:
        answer = self.service.classify(wanted(photo))
        seen = "".join(f"<li>{name_of(sight)}</li>" for sight in self.service.describe(photo))
        ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:SHOWN]
        bars = "".join(bar(name, share) for name, share in ranked if answer.label != "neither")
        headline = class_name(answer.label) + (f" · {name_of(answer.seen)}" if answer.seen else "")
        seen = f'<p>{both("seen")}</p><ul class="seen">{seen}</ul>' if seen else ""
        alt, url = " ".join(WORDS["based_on"]), to_url(answer.overlay)
        basis = f'<figure><img src="{url}" alt="{alt}"><figcaption>{both("based_on")}</figcaption></figure>'
        return (f'<div class="answer"><h2>{headline}</h2><dl>{bars}</dl>{seen}{basis}</div>',)


def bar(name: str, share: float) -> str:
    """A class and its probability, as HTML."""
    return f'<dt>{class_name(name)}</dt><dd><span class="bar" style="width: {share:.1%}"></span>{share:.0%}</dd>'


def class_name(name: str) -> str:
    """A class of the classifier, as HTML."""
    return both(name) if name in ("cat", "dog", "neither") else html.escape(name.replace("_", " "))


def name_of(sight: Any) -> str:
    """What is to be seen (data.sights.Sight), as HTML."""
    return in_both(html.escape(sight.chinese or sight.name), html.escape(sight.name))
