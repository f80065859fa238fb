"""What the tabs share: names of fields, jobs that can be stopped, errors as sentences, photographs in and out.

Pictures travel in the messages as data: what is uploaded is read and deleted at once, and what is made is never
written, but for the clients of the API.
"""

import base64
import functools
import io
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from PIL import Image

from demo.guard import Uploads
from demo.service import LENGTHS, Cancelled, Service, sample_photos
from shihua import Progress, chinese_name
from utils.errors import UserError
from utils.photo import Photo

QUALITY = 92  # of the JPEGs that are shown
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# Answered at once. In the queue an answer is lost, and its button dead, where Gradio ends the stream of a visitor's
# answers (after the last one that is awaited) while the next question is on its way.
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, **PRIVATE}
AT_ONCE = 2  # jobs; others wait
JOB: dict[str, Any] = {"concurrency_id": "job", "concurrency_limit": AT_ONCE, **PRIVATE}
LABELS = {  # of the fields, by the names of what they ask for
    "form": "体裁 Form",
    "tune": "词牌 Tune",
    "title": "题目 Title",
    "keywords": "关键词 Keywords",
    "acrostic": "藏头 Acrostic",
    "temperature": "大胆 Temperature",
    "seed": "种子 Seed",
    "style": "风格 Style",
    "strength": "浓淡 Strength",
    "stroke": "笔触 Stroke",
    "poem": "诗 Poem",
    "seal": "印 Seal",
    "photo": "照片 Photo",
}
ANIMALS = {"cat": "猫", "dog": "狗"}


def bilingual(name: str) -> str:
    """Both names of a style or a class, as far as it has them."""
    chinese = ANIMALS.get(name) or chinese_name(name)
    return f"{chinese} {name.replace('_', ' ')}".strip()


def show_result(name: str) -> str:
    """JavaScript of a button: brings the element with that id into view, and hands on what the button sends."""
    return f"(...sent) => {{ showResult('{name}'); return sent; }}"


def textbox(name: str, example: str) -> gr.Textbox:
    return gr.Textbox(label=LABELS[name], placeholder=example, max_lines=1, max_length=LENGTHS[name])


def style_choice(service: Service) -> gr.Radio:
    choices = [(bilingual(name), name) for name in service.styles]
    value = choices[0][1] if choices else None
    return gr.Radio(choices, value=value, label=LABELS["style"], elem_classes="styles")


def message_of(error: UserError) -> str:
    """A mistake in one sentence, under the label of its field."""
    return f"{LABELS[error.argument]}：{error.message}" if error.argument in LABELS else str(error)


def report(call: Callable, sentence: Callable[[UserError], str] = message_of) -> Callable:
    """`call` with its mistakes shown as one sentence instead of a traceback."""

    @functools.wraps(call)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        except Cancelled:
            raise gr.Error("已停止 Stopped", duration=2, print_exception=False, title="") from None

    return reporting


class Jobs:
    """The jobs that run, by visitor and tab, so that they can be stopped."""

    def __init__(self) -> None:
        self.running: dict[threading.Event, tuple[str, str]] = {}

    @contextmanager
    def job(self, request: gr.Request, tab: str, progress: gr.Progress, text: str) -> Iterator[Progress]:
        """For a job of a tab: the callback that shows the page its progress, and ends it once it is not wanted."""
        stop = threading.Event()

        def show(share: float) -> None:
            if stop.is_set():
                raise Cancelled
            progress(share, desc=text)

        self.running[stop] = request.session_hash, tab
        try:
            show(0.0)
            yield show
        finally:
            del self.running[stop]

    def leave(self, request: gr.Request) -> None:
        """Stops all jobs of this visitor."""
        self._stop(lambda visitor, tab: visitor == request.session_hash)

    def stopper(self, tab: str) -> Callable:
        """What stops the visitor's jobs of a tab."""

        def stop_jobs(request: gr.Request) -> None:
            self._stop(lambda *job: job == (request.session_hash, tab))

        return stop_jobs

    def _stop(self, wanted: Callable[[str, str], bool]) -> None:
        for stop, job in self.running.copy().items():
            if wanted(*job):
                stop.set()

    def buttons(self, label: str, tab: str, call: Callable, inputs: list, outputs: Any, **options: Any) -> None:
        """A button that starts `call` and shows the element with the id TAB-result, and one that stops it."""
        with gr.Row():
            start = gr.Button(label, variant="primary", min_width=140)
            stop = gr.Button("停 Stop", min_width=110, scale=0)
        event = start.click(report(call), inputs, outputs, js=show_result(f"{tab}-result"), **options, **JOB)
        stop.click(self.stopper(tab), None, None, cancels=[event], queue=False, **PRIVATE)


def to_url(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8, or (H, W, 4) with alpha, as a data URL."""
    return (
        as_url(encode(pixels, "JPEG", QUALITY), "image/jpeg")
        if pixels.shape[2] == 3
        else as_url(encode(pixels, "PNG"), "image/png")
    )


def encode(pixels: np.ndarray, kind: str, quality: int = 95) -> bytes:
    """The bytes of a file of some kind: JPEG, PNG, PDF."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=quality, resolution=150)
    return buffer.getvalue()


def as_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def shown(rgb: np.ndarray | None) -> ImageData | None:
    return None if rgb is None else ImageData(url=to_url(rgb), orig_name="shihua.jpg")


def received(payload: ImageData | None, uploads: Uploads) -> Photo | None:
    """What the browser has sent: a file that it has just uploaded, or the data of a picture it already shows."""
    if payload is None:
        return None
    name = Path(payload.orig_name or "the picture").name
    if payload.url and payload.url.startswith("data:"):
        try:
            return Photo(name, base64.b64decode(payload.url.partition(",")[2], validate=True))
        except ValueError:
            raise UserError(f"{name} is broken: choose it again") from None
    return Photo(name, uploads.take(payload.path or ""))


def wanted(photo: Photo | None) -> Photo:
    if photo is None:
        raise UserError("先选一张照片 Choose a photo first")
    return photo


class Photos:
    """Photographs on their way between the browser and the service."""

    def __init__(self, service: Service, uploads: Uploads):
        self.service, self.uploads = service, uploads
        self.fields: list[gr.Image] = []
        self.taken: list[tuple[gr.events.Dependency, gr.Image]] = []  # events that give a field a photograph

    def field(self) -> gr.Image:
        """Takes a photograph: an upload, the camera, or a sample. `share` gives it to the fields of all tabs."""
        sources = ["upload", "webcam", "clipboard"]
        photo = gr.Image(label=LABELS["photo"], sources=sources, type="filepath", height=300, buttons=[])
        self.in_memory(photo)
        given = photo.input(report(self.receive), photo, photo, **{**QUIET, "queue": True})  # messages need the queue
        sample = gr.Button("用一张样片 Use a sample photo", size="sm")
        self.fields.append(photo)
        self.taken += [(given, photo), (sample.click(report(self.sample), None, photo, **QUIET), photo)]
        return photo

    def share(self) -> None:
        """A photograph that one tab has taken stands in the others, too; the browser sees to it."""
        for event, photo in self.taken:
            others = [field for field in self.fields if field is not photo]
            event.then(None, photo, others, js=f"photo => Array({len(others)}).fill(photo)", **QUIET)

    def in_memory(self, image: gr.Image) -> gr.Image:
        """Makes `image` take a Photo and show an array, without files."""
        image.preprocess = report(lambda payload: received(payload, self.uploads))
        image.postprocess = shown
        return image

    def result(self, **options: Any) -> gr.Image:
        """Shows a picture."""
        image = gr.Image(interactive=False, buttons=["fullscreen"], elem_classes="picture", **options)
        return self.in_memory(image)

    def receive(self, photo: Photo | None) -> np.ndarray | None:
        """The uploaded photograph, upright and reduced; from now on the browser has it, and nobody else."""
        if photo is None:
            return None
        try:
            picture = self.service.decode(photo)
        except UserError as error:
            gr.Warning(message_of(error), title="")
            return None
        if picture.note:
            gr.Info(picture.note, title="")
        return picture.rgb if picture.alpha is None else np.dstack((picture.rgb, picture.alpha))

    def sample(self) -> np.ndarray:
        return self.service.decode(Photo("sample", random.choice(sample_photos()).read_bytes())).rgb
