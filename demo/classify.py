"""The tab that tells cats from dogs, and shows which pixels the answer is based on."""

import gradio as gr
import numpy as np
from gradio.components.label import LabelConfidence, LabelData

from demo.parts import JOB, Photos, bilingual, report, wanted
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
            with gr.Column(scale=5, min_width=300):
                answer = gr.Label(label="是 It is")
                answer.postprocess = lambda verdict: verdict or {}  # Gradio would take the likeliest class for it
                heat = self.photos.result(label="依据 What it is based on (Grad-CAM)")
        start.click(report(self.classify), photo, [answer, heat], **JOB)

    def classify(self, photo: Photo | None) -> tuple[LabelData, np.ndarray]:
        answer = self.service.classify(wanted(photo))
        ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:SHOWN]
        bars = [LabelConfidence(label=bilingual(name), confidence=probability) for name, probability in ranked]
        label = NEITHER if answer.label == "neither" else bilingual(answer.label)
        return LabelData(label=label, confidences=bars), answer.overlay
