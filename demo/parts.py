"""What the tabs share: jobs that can be stopped, errors as sentences, photographs in and out.

Pictures travel in the messages as data: what is uploaded is read and deleted at once, and what is made is never
written, but for the clients of the API.
"""

import base64
import functools
import html
import io
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from PIL import Image

from demo.guard import Uploads
from demo.service import LENGTHS, Cancelled, Service, sample_photos
from demo.words import both, text, translate
from shihua import Progress, chinese_name
from utils.errors import UserError
from utils.photo import Photo

QUALITY = 95  # of JPEGs
KINDS = ("jpg", "png", "pdf")  # of files to save
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# Answered at once. In the queue an answer is lost, and its button dead, where Gradio ends the stream of a visitor's
# answers (after the last one that is awaited) while the next question is on its way.
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, **PRIVATE}
# JavaScript of HTML in which things with a number can be chosen.
CHOOSE = (
    "element.addEventListener('click', e => { const card = e.target.closest('[data-index]');"
    " if (card) trigger('click', {index: Number(card.dataset.index)}); });"
)
AT_ONCE = 2  # jobs; others wait
JOB: dict[str, Any] = {"concurrency_id": "job", "concurrency_limit": AT_ONCE, **PRIVATE}


def problem(sentence: str) -> str:
    """HTML that screen readers tell at once."""
    return f'<span class="problem" role="alert">{sentence}</span>'


def report(call: Callable, sentence: Callable[[UserError], str] = lambda error: translate(error.message)) -> Callable:
    """`call` with its mistakes shown as one sentence instead of a traceback."""

    @functools.wraps(call)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False, title="") from None

    return reporting


class Problems:
    """Where a tab tells of mistakes: in lines under the fields, and one for whatever has no field."""

    def __init__(self) -> None:
        self.lines: dict[str, gr.HTML] = {}

    def line(self, about: str = "") -> None:
        """A line for the mistakes about an argument; empty: for all others."""
        self.lines[about] = gr.HTML("", visible=False)

    def textbox(self, name: str, example: str = "", max_lines: int = 1, **options: Any) -> gr.Textbox:
        """A field for a text, with its line; `example` stands in it while it is empty."""
        same = {"label": text(name), "max_lines": max_lines, "max_length": LENGTHS[name]}
        field = gr.Textbox(placeholder=example, **same, **options)
        self.line(name)
        return field

    def start_job(
        self, triggers: list, button: str, result: str, call: Callable, inputs: list, outputs: list, **options: Any
    ) -> gr.events.Dependency:
        """Binds `call` to its triggers; a mistake leaves the outputs as they are.

        Until it is done its button is busy and starts no other.
        """

        @functools.wraps(call)
        def reporting(*args: Any, **kwargs: Any) -> list:
            try:
                return [*call(*args, **kwargs), *self.show()]
            except UserError as error:
                return [*(gr.skip() for _ in outputs), *self.show(translate(error.message), error.argument)]
            except Cancelled:
                return [*(gr.skip() for _ in outputs), *self.show(both("stopped"))]

        begin = f"(...sent) => {{ begin('{button}', '{result}'); return sent; }}"  # what the button sends goes on
        event = gr.on(triggers, reporting, inputs, [*outputs, *self.lines.values()], js=begin, **options, **JOB)
        event.then(None, None, None, js=end(button, result), **QUIET)
        return event

    def show(self, sentence: str = "", about: str = "") -> list:
        """What the lines show: the sentence in the one it is about, and nothing else."""
        about = about if about in self.lines else ""
        shown = [problem(sentence) if sentence and name == about else "" for name in self.lines]
        return [gr.update(value=text, visible=bool(text)) for text in shown]


class Jobs:
    """The jobs that run, by visitor and tab, so that they can be stopped."""

    def __init__(self) -> None:
        self.running: dict[threading.Event, tuple[str, str]] = {}

    @contextmanager
    def job(self, request: gr.Request, tab: str, progress: gr.Progress) -> Iterator[Progress]:
        """For a job of a tab: the callback that shows the page its progress, and ends it once it is not wanted."""
        stop = threading.Event()

        def show(share: float) -> None:
            if stop.is_set():
                raise Cancelled
            progress(share)

        self.running[stop] = request.session_hash, tab
        try:
            show(0.0)
            yield show
        finally:
            del self.running[stop]

    def leave(self, request: gr.Request) -> None:
        """Stops all jobs of this visitor."""
        self._stop(lambda visitor, tab: visitor == request.session_hash)

    def stopper(self, tab: str, problems: Problems) -> Callable:
        """What stops the visitor's jobs of a tab, and says so."""

        def stop_jobs(request: gr.Request) -> list:
            self._stop(lambda *job: job == (request.session_hash, tab))
            return problems.show(both("stopped"))

        return stop_jobs

    def _stop(self, wanted: Callable[[str, str], bool]) -> None:
        for stop, job in self.running.copy().items():
            if wanted(*job):
                stop.set()

    def buttons(
        self, tab: str, call: Callable, inputs: list, outputs: list, problems: Problems, **options: Any
    ) -> None:
        """A button that starts `call` and shows the element with the id TAB-result, and one that stops it."""
        with gr.Row(elem_classes="job"):
            start = gr.Button(text(f"start_{tab}"), variant="primary", min_width=140, elem_id=f"start-{tab}")
            stop = gr.Button(text("stop"), min_width=110, scale=0, elem_classes="stop")
        problems.line()
        button, result = f"start-{tab}", f"{tab}-result"
        event = problems.start_job([start.click], button, result, call, inputs, outputs, **options)
        lines = list(problems.lines.values())
        stopped = stop.click(self.stopper(tab, problems), None, lines, cancels=[event], queue=False, **PRIVATE)
        stopped.then(None, None, None, js=end(button, result), **QUIET)


def end(button: str, result: str) -> str:
    """JavaScript at the end of a job: its button can be pressed again, and its result or a mistake is in view."""
    return f"() => end('{button}', '{result}')"


def to_url(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8, or (H, W, 4) with alpha, as a data URL."""
    kind = "JPEG" if pixels.shape[2] == 3 else "PNG"
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encode(pixels, kind)).decode()}"


def encode(pixels: np.ndarray, kind: str) -> bytes:
    """The bytes of a file of some kind: JPEG, PNG, PDF."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=QUALITY, resolution=150)
    return buffer.getvalue()


def made(picture: str, rgb: np.ndarray, *names: str) -> str:
    """The HTML `picture`, whose last image is `rgb` as `to_url` gives it, also in full size, and buttons to save it.

    The browser makes the files of that image; of a PDF it gets what stands before and after the JPEG. `names` are those
    of the file, in Chinese and English.
    """
    chinese, english = (html.escape(names[i]) for i in (0, -1))
    head, _, tail = (base64.b64encode(part).decode() for part in encode(rgb, "PDF").partition(encode(rgb, "JPEG")))
    name = f'data-zh="{chinese}" data-en="{english}" data-head="{head}" data-tail="{tail}"'
    save = "".join(f'<button data-kind="{kind}" onclick="savePicture(this)">{kind.upper()}</button>' for kind in KINDS)
    full = f'<button aria-pressed="false" onclick="fullSize(this)">{both("full_size")}</button>'
    row = f'<p class="downloads">{both("save")} {save} {full} {rgb.shape[1]} × {rgb.shape[0]}</p>'
    return f'<div class="made" {name}><div class="frame">{picture}</div>{row}</div>'


def file_names(styles: Sequence[str], photo: str) -> list[str]:
    """What a painting is called, in Chinese and English: 神奈川浪-photo."""
    stem = Path(photo).stem
    return ["+".join(names) + f"-{stem}" for names in ([chinese_name(style) or style for style in styles], styles)]


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
        raise UserError("choose a photo first", photo=None)
    return photo


class Photos:
    """Photographs on their way between the browser and the service."""

    def __init__(self, service: Service, uploads: Uploads):
        self.service, self.uploads = service, uploads
        self.fields: list[gr.Image] = []
        self.taken: list[tuple[gr.events.Dependency, gr.Image]] = []  # events that give a field a photograph

    def field(self, problems: Problems) -> gr.Image:
        """Takes a photograph: an upload, the camera, or a sample. `share` gives it to the fields of all tabs."""
        sources = ["upload", "webcam", "clipboard"]
        photo = gr.Image(label=text("photo"), sources=sources, type="filepath", height=300, buttons=[])
        photo.preprocess = report(lambda payload: received(payload, self.uploads))  # a Photo, without files
        photo.postprocess = lambda data: data  # what `receive` gives
        problems.line("photo")
        taken = [photo, problems.lines["photo"]]
        given = photo.input(report(self.receive), photo, taken, **{**QUIET, "queue": True})  # messages need the queue
        sample = gr.Button(text("sample"), size="sm")
        self.fields.append(photo)
        self.taken += [(given, photo), (sample.click(report(self.sample), None, taken, **QUIET), photo)]
        return photo

    def share(self) -> None:
        """A photograph that one tab has taken stands in the others, too; the browser sees to it."""
        for event, photo in self.taken:
            others = [field for field in self.fields if field is not photo]
            event.then(None, photo, others, js=f"photo => Array({len(others)}).fill(photo)", **QUIET)

    def receive(self, photo: Photo | None) -> tuple[ImageData | None, Any]:
        """The uploaded photograph, upright and reduced; from now on the browser has it, and nobody else."""
        try:
            picture = photo and self.service.decode(photo)
        except UserError as error:
            return None, gr.update(value=problem(translate(error.message)), visible=True)
        if picture is None:
            return None, gr.update(visible=False)
        note = gr.update(value=f"<span>{translate(picture.note)}</span>", visible=bool(picture.note))
        pixels = picture.rgb if picture.alpha is None else np.dstack((picture.rgb, picture.alpha))
        return ImageData(url=to_url(pixels), orig_name=photo.name), note  # the name comes back with the picture

    def sample(self) -> tuple[ImageData | None, Any]:
        path = random.choice(sample_photos())
        return self.receive(Photo(path.name, path.read_bytes()))
