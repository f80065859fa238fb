"""The tab that tells cats from dogs and everything else, in words, and shows what the answer is based on."""

import html

import gradio as gr
import numpy as np
from gradio.components.label import LabelConfidence, LabelData

from demo.parts import JOB, Photos, bilingual, report, show_result, wanted
from utils.photo import Photo

NEITHER = "两者都不是 neither"
SHOWN = 3  # classes, the likeliest


class ClassifyTab:
    def __init__(self, photos: Photos):
        self.photos, self.service = photos, photos.service

    def build(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photos.field()
                start = gr.Button("辨认 Tell", variant="primary")
            with gr.Column(scale=5, min_width=300, elem_id="classify-result"):
                answer = gr.Label(label="是 It is")
                answer.postprocess = lambda verdict: verdict or {}  # Gradio would take the likeliest class for it
                words = gr.HTML("")
                heat = self.photos.result(label="依据 What it is based on (Grad-CAM)")
        shown = [answer, words, heat]
        start.click(report(self.classify), photo, shown, js=show_result("classify-result"), **JOB)

    def classify(self, photo: Photo | None) -> tuple[LabelData, str, np.ndarray]:
        answer = self.service.classify(wanted(photo))
        seen = "".join(f"<li>{html.escape(what)}</li>" for what in self.service.describe(photo))
        ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:SHOWN]
        bars = [LabelConfidence(label=bilingual(name), confidence=probability) for name, probability in ranked]
        label = NEITHER if answer.label == "neither" else bilingual(answer.label)
        label += f"：{answer.seen}" if answer.seen else ""
        return LabelData(label=label, confidences=bars), f'<ul class="seen">{seen}</ul>', answer.overlay
