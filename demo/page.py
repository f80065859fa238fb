"""The page in the browser: five tabs, and the same four works for programs (gradio_client). It computes nothing itself.

Pictures travel in the messages as data, not as files: what is uploaded is read and deleted at once, and what is made is
never written, but for the clients of the API, who fetch it once.
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
from gradio.components.label import LabelConfidence, LabelData
from gradio.data_classes import FileData, ImageData
from PIL import Image

from config import GenerateConfig
from demo.charts import list_runs, run_html
from demo.guard import OUTPUTS, Uploads
from demo.poems import GONE, LEGEND, card, chosen_of, scroll, verses_of
from demo.work import CANDIDATES, FORMS, LENGTHS, Photo, Progress, Stopped, Workshop, sample_photos
from utils.errors import UserError

QUALITY = 92  # of the JPEGs that are shown
AT_ONCE = 2  # works; others wait
WAITING = 100  # most works that wait
REFRESH = 3  # seconds between two looks at a run
NEITHER = "两者都不是 neither"
CHINESE = {
    "composition_vii": "构成第七号",
    "fuchun_shanju": "富春山居",
    "great_wave": "神奈川浪",
    "qianli_jiangshan": "千里江山",
    "san_giorgio": "圣乔治岛",
    "sesshu_autumn": "雪舟秋景",
    "starry_night": "星月夜",
    "the_scream": "呐喊",
    "cat": "猫",
    "dog": "狗",
}
FORM_NAMES = {"auto": "自动 auto", "free": "自由 free"}
TITLE = "<h1>诗画</h1><p>Shihua · 写诗、作画、题画 poems, paintings, postcards</p>"


# ------------------------------------------------------------------------------------------------ pictures as data


def to_url(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8, or (H, W, 4) with alpha, as a data URL."""
    if pixels.shape[2] == 3:
        return _as_url(_jpeg(pixels), "image/jpeg")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return _as_url(buffer.getvalue(), "image/png")


def _jpeg(rgb: np.ndarray, quality: int = QUALITY) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _as_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _shown(rgb: np.ndarray | None) -> ImageData | None:
    return None if rgb is None else ImageData(url=to_url(rgb), orig_name="shihua.jpg")


def _received(payload: ImageData | None, uploads: Uploads) -> Photo | None:
    """What the browser has sent: a file that it has just uploaded, or the data of a picture it already shows."""
    if payload is None:
        return None
    name = Path(payload.orig_name or "the picture").name
    if payload.url and payload.url.startswith("data:"):
        try:
            return Photo(name, base64.b64decode(payload.url.partition(",")[2], validate=True))
        except ValueError:
            raise gr.Error(f"{name} is broken: choose it again", print_exception=False) from None
    try:
        return Photo(name, uploads.take(payload.path or ""))
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _told(work: Callable) -> Callable:
    """`work` with its faults told as one sentence on the page, instead of a traceback."""

    @functools.wraps(work)
    def telling(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except UserError as error:
            raise gr.Error(str(error).replace("--", ""), print_exception=False) from None
        except Stopped:
            raise gr.Error("已停止 Stopped", duration=2, print_exception=False, title="") from None

    return telling


# ------------------------------------------------------------------------------------------------------- the page


class Page:
    """The tabs, and what their buttons do.

    Args:
        workshop: what does the work.
        uploads: where files are on their way.
    """

    def __init__(self, workshop: Workshop, uploads: Uploads):
        self.workshop, self.uploads = workshop, uploads
        self.stops: dict[threading.Event, tuple[str, str]] = {}  # of each work that goes on: its visitor and its tab

    def blocks(self) -> gr.Blocks:
        """The page, ready to be served."""
        with gr.Blocks(title="诗画 Shihua", analytics_enabled=False) as blocks:
            self.api()  # first, to have the names that it wants
            gr.HTML(f'<header id="head">{TITLE}</header>')
            self.styles_css = gr.HTML("", elem_id="thumbnails")
            with gr.Tabs(elem_id="tabs") as self.tabs:
                with gr.Tab("写诗\nCompose", id="compose"):
                    self.compose_tab()
                with gr.Tab("绘画\nPaint", id="paint") as paint:
                    self.paint_tab()
                with gr.Tab("诗画\nPostcard", id="postcard") as postcard:
                    self.postcard_tab()
                with gr.Tab("猫狗\nDog or cat", id="classify"):
                    self.classify_tab()
                with gr.Tab("训练\nTraining", id="training") as training:
                    self.training_tab(training)
            for tab in (paint, postcard):
                tab.select(_told(self.thumbnails), None, self.styles_css, show_progress="hidden", **PRIVATE)
            self.to_postcard.click(
                _told(self.carry),
                self.poems,
                [self.tabs, self.card_poem, self.card_title],
                show_progress="hidden",
                **PRIVATE,
            )
            blocks.unload(self.leave)
        blocks.queue(max_size=WAITING, default_concurrency_limit=4)
        return blocks

    # ---------------------------------------------------------------------------------------------------- stopping

    @contextmanager
    def watched(self, request: gr.Request, tab: str, progress: gr.Progress, text: str) -> Iterator[Progress]:
        """For a work of a tab: what tells the page how far it is, and ends it when its visitor wants no more of it."""
        stop = threading.Event()

        def tell(share: float) -> None:
            if stop.is_set():
                raise Stopped
            progress(share, desc=text)

        self.stops[stop] = request.session_hash, tab
        try:
            tell(0.0)
            yield tell
        finally:
            del self.stops[stop]

    def leave(self, request: gr.Request) -> None:
        """Stops all that this visitor has begun."""
        self._stop(lambda visitor, tab: visitor == request.session_hash)

    def stopper(self, tab: str) -> Callable:
        """What stops the visitor's works of a tab."""

        def stop_works(request: gr.Request) -> None:
            self._stop(lambda *work: work == (request.session_hash, tab))

        return stop_works

    def _stop(self, wanted: Callable[[str, str], bool]) -> None:
        for stop, work in self.stops.copy().items():
            if wanted(*work):
                stop.set()

    def start_and_stop(self, label: str) -> tuple[gr.Button, gr.Button]:
        with gr.Row():
            return gr.Button(label, variant="primary", min_width=140), gr.Button("停 Stop", min_width=110, scale=0)

    # ------------------------------------------------------------------------------------------------- photographs

    def photo_input(self) -> gr.Image:
        """Takes a photograph: an upload, the camera, or a sample."""
        photo = gr.Image(
            label="照片 Photo", sources=["upload", "webcam", "clipboard"], type="filepath", height=300, buttons=[]
        )
        self.in_memory(photo)
        photo.input(_told(self.receive), photo, photo, show_progress="hidden", **PRIVATE)
        sample = gr.Button("用一张样片 Use a sample photo", size="sm", variant="secondary")
        sample.click(_told(self.sample), None, photo, show_progress="hidden", **PRIVATE)
        return photo

    def in_memory(self, image: gr.Image) -> gr.Image:
        """Makes `image` take a Photo and show an array, without files."""
        image.preprocess = lambda payload: _received(payload, self.uploads)
        image.postprocess = _shown
        return image

    def receive(self, photo: Photo | None) -> np.ndarray | None:
        """The uploaded photograph, upright and reduced; from now on the browser has it, and nobody else."""
        if photo is None:
            return None
        try:
            picture = self.workshop.decode(photo)
        except UserError as error:
            gr.Warning(str(error).replace("--", ""), title="")
            return None
        if picture.note:
            gr.Info(picture.note, title="")
        return picture.rgb if picture.alpha is None else np.dstack((picture.rgb, picture.alpha))

    def sample(self) -> np.ndarray:
        return self.workshop.decode(Photo("sample", random.choice(sample_photos()).read_bytes())).rgb

    def thumbnails(self) -> str:
        """A style sheet with a painted sample for each style."""
        rules = (
            f'.styles label:nth-child({i}) {{ background-image: url("{to_url(rgb)}"); }}'
            for i, rgb in enumerate(self.workshop.thumbnails(), 1)
        )
        return f"<style>{' '.join(rules)}</style>"

    def style_choice(self) -> gr.Radio:
        names = self.workshop.styles
        choices = [(_label(name), name) for name in names]
        return gr.Radio(choices, value=names[0] if names else None, label="风格 Style", elem_classes="styles")

    # ------------------------------------------------------------------------------------------------ the five tabs

    def compose_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                form = gr.Radio([(FORM_NAMES.get(c, c), c) for c in FORMS], value="auto", label="体裁 Form")
                title = _textbox("题目 Title", "title", "春江夜泊")
                keywords = _textbox("关键词 Keywords", "keywords", "梅 雪")
                acrostic = _textbox("藏头 Acrostic", "acrostic", "诗画人间")
                temperature = gr.Slider(0, 1.5, GenerateConfig.temperature, step=0.05, label="大胆 Temperature")
                seed = gr.Number(-1, precision=0, minimum=-1, label="种子 Seed", info="-1：每次不同 always new")
                write = gr.Button("写诗 Compose", variant="primary")
            with gr.Column(scale=5, min_width=300):
                cards = gr.HTML(WELCOME, elem_id="cards", js_on_load=CHOOSE)
                with gr.Row(visible=False) as chosen:
                    with gr.Column(min_width=280):
                        scroll = gr.HTML("", elem_id="scroll")
                    with gr.Column(min_width=280):
                        lock = gr.CheckboxGroup([], label="留住的句子 Verses to keep")
                        again = gr.Button("重写其余 Write the others anew")
                        self.to_postcard = gr.Button("题到画上 Onto a postcard")
        self.poems = gr.JSON(visible=False)
        shown = [self.poems, cards, scroll, lock, chosen]
        asked = [form, title, keywords, acrostic, temperature, seed]
        for trigger in (write.click, title.submit, keywords.submit, acrostic.submit):
            trigger(_told(self.write), asked, shown, **WORK, **PRIVATE)
        again.click(
            _told(self.rewrite),
            [self.poems, lock],
            shown,
            show_progress_on=cards,
            **WORK,
            **PRIVATE,
        )
        cards.click(_told(self.choose), self.poems, shown, show_progress="hidden", **PRIVATE)

    def write(self, *answers: Any) -> tuple:
        asked = dict(zip(ASKED, answers, strict=True))
        asked["seed"] = -1 if asked["seed"] is None else asked["seed"]
        return self.show_poems(asked, self.workshop.compose(**asked))

    def rewrite(self, state: Any, kept: list[str]) -> tuple:
        state = _read_state(state)
        poem = chosen_of(state)
        if kept and poem["form"] not in FORMS:
            raise UserError("只有绝句和律诗能留句 Verses can be kept in 绝句 and 律诗 only")
        verses = [verse if str(i) in kept else "" for i, verse in enumerate(verses_of(poem))]
        asked = {**state["asked"], "form": poem["form"] if poem["form"] in FORMS else "free", "seed": -1}
        return self.show_poems(asked, self.workshop.compose(**asked, kept=verses if kept else ()), kept)

    def show_poems(self, asked: dict, poems: list[Any], kept: Sequence[str] = ()) -> tuple:
        return self.state_shown({"asked": asked, "poems": [poem.as_dict() for poem in poems], "chosen": 0}, kept)

    def choose(self, state: Any, event: gr.EventData) -> tuple:
        try:
            chosen = event.index
        except (AttributeError, TypeError):  # a request that the page has not sent
            raise UserError(GONE) from None
        return self.state_shown({**_read_state(state), "chosen": chosen})

    def state_shown(self, state: dict, kept: Sequence[str] = ()) -> tuple:
        """What the outputs of the tab show: all poems as cards, the chosen one large, its verses to be locked."""
        poems, chosen = state["poems"], chosen_of(state)
        cards = [card(p, p is chosen, i, self.workshop.check(p["lines"])) for i, p in enumerate(poems)]
        verses = [(verse, str(i)) for i, verse in enumerate(verses_of(chosen))]
        return (
            state,
            f'<div class="cards">{"".join(cards)}</div>{LEGEND}',
            scroll(chosen),
            gr.update(choices=verses, value=list(kept)),
            gr.update(visible=True),
        )

    def carry(self, state: Any) -> tuple:
        poem = chosen_of(_read_state(state))
        return gr.update(selected="postcard"), "\n".join(poem["lines"]), poem["title"]

    def paint_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photo_input()
                style = self.style_choice()
                strength = gr.Slider(0, 1.5, 1.0, step=0.05, label="浓淡 Strength")
                choices = [("不掺 none", ""), *((_label(name), name) for name in self.workshop.styles)]
                other = gr.Dropdown(choices, value="", label="掺入 Mixed with")
                share = gr.Slider(0, 100, 50, step=5, label="掺入多少 How much of it, %", visible=False)
                other.change(
                    lambda name: gr.update(visible=bool(name)), other, share, show_progress="hidden", **PRIVATE
                )
                keep_color = gr.Checkbox(label="保留照片的颜色 Keep the photo's colours")
                start, stop = self.start_and_stop("绘画 Paint")
            with gr.Column(scale=5, min_width=300):
                slider = gr.ImageSlider(show_label=False, max_height=760, interactive=False, elem_id="before-after")
                slider.postprocess = lambda pair: pair and tuple(_shown(rgb).model_dump() for rgb in pair)
        event = start.click(
            _told(self.paint), [photo, style, other, share, strength, keep_color], slider, **WORK, **PRIVATE
        )
        stop.click(self.stopper("paint"), None, None, cancels=[event], queue=False, **PRIVATE)

    def paint(
        self,
        photo: Photo | None,
        style: str,
        other: str,
        share: float,
        strength: float,
        keep_color: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio wants it
    ) -> tuple[np.ndarray, np.ndarray]:
        with self.watched(request, "paint", progress, "绘画 painting") as tell:
            return self.workshop.paint(_wanted(photo), _mixture(style, other, share), strength, keep_color, tell)

    def postcard_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photo_input()
                style = self.style_choice()
                strength = gr.Slider(0, 1.5, 0.8, step=0.05, label="浓淡 Strength", info="0：照片 the photo itself")
                self.card_title = _textbox("题目 Title", "title", "春江夜泊")
                self.card_poem = gr.Textbox(
                    label="诗 Poem", placeholder="空：写一首 empty: one is written", lines=4, max_length=LENGTHS["poem"]
                )
                seal = gr.Textbox("诗画", label="印 Seal", max_lines=1, max_length=LENGTHS["seal"])
                start, stop = self.start_and_stop("题画 Make it")
            with gr.Column(scale=5, min_width=300):
                picture = self.in_memory(
                    gr.Image(show_label=False, interactive=False, buttons=["fullscreen"], elem_classes="picture")
                )
                links = gr.HTML("")
        event = start.click(
            _told(self.postcard),
            [photo, style, strength, self.card_title, self.card_poem, seal],
            [picture, links, self.card_poem],
            show_progress_on=picture,
            **WORK,
            **PRIVATE,
        )
        stop.click(self.stopper("postcard"), None, None, cancels=[event], queue=False, **PRIVATE)

    def postcard(
        self,
        photo: Photo | None,
        style: str,
        strength: float,
        title: str,
        poem: str,
        seal: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple:
        with self.watched(request, "postcard", progress, "题画 painting and writing") as tell:
            rgb, poem = self.workshop.postcard(_wanted(photo), title, poem, style or "", strength, seal, tell)
        return rgb, _downloads(rgb, title or "shihua"), poem

    def classify_tab(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = self.photo_input()
                start = gr.Button("辨认 Tell", variant="primary")
            with gr.Column(scale=5, min_width=300):
                answer = gr.Label(label="是 It is")
                answer.postprocess = lambda verdict: verdict or {}  # Gradio would take the likeliest class for it
                heat = gr.Image(
                    label="依据 What it rests on (Grad-CAM)",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_classes="picture",
                )
                self.in_memory(heat)
        start.click(_told(self.classify), photo, [answer, heat], **WORK, **PRIVATE)

    def classify(self, photo: Photo | None) -> tuple[LabelData, np.ndarray]:
        label, chances, heat = self.workshop.classify(_wanted(photo))
        ranked = sorted(chances.items(), key=lambda item: -item[1])[:3]
        bars = [LabelConfidence(label=_label(name), confidence=chance) for name, chance in ranked]
        return LabelData(label=NEITHER if label == "neither" else _label(label), confidences=bars), heat

    def training_tab(self, tab: gr.Tab) -> None:
        with gr.Row():
            run = gr.Dropdown([], label="训练 Run", scale=4, allow_custom_value=True)
            follow = gr.Checkbox(True, label="跟踪 Follow", scale=1, min_width=120)
        board = gr.HTML(EMPTY, elem_id="board")
        timer = gr.Timer(REFRESH, active=False)
        tab.select(self.runs, [run, follow], [run, timer], show_progress="hidden", **PRIVATE)
        run.change(_told(self.board), run, board, show_progress="minimal", **PRIVATE)
        timer.tick(_told(self.board), run, board, show_progress="hidden", **PRIVATE)
        follow.change(lambda on: gr.update(active=on), follow, timer, show_progress="hidden", **PRIVATE)

    def runs(self, run: str | None, follow: bool) -> tuple:
        names = list_runs(self.workshop.cfg.save_path)
        run = run if run in names else next(iter(names), None)
        return gr.update(choices=names, value=run), gr.update(active=follow)

    def board(self, run: str | None) -> str:
        if not run:
            return EMPTY
        if run not in list_runs(self.workshop.cfg.save_path):
            raise UserError(f"there is no run {str(run)[:100]}")
        return run_html(Path(self.workshop.cfg.save_path) / run)

    # ---------------------------------------------------------------------------------------------- for programs

    def api(self) -> None:
        """The four works for gradio_client."""

        def compose(
            title: str = "",
            form: str = "auto",
            keywords: str = "",
            acrostic: str = "",
            temperature: float = GenerateConfig.temperature,
            seed: int = -1,
            n: int = 1,
        ) -> list[dict]:
            """Writes n poems, the best first: form, title, lines, score, and what else `generate --json` tells."""
            poems = self.workshop.compose(form, title, keywords, acrostic, temperature, seed, n)
            return [poem.as_dict() for poem in poems]

        def paint(photo: FileData, style: str = "", strength: float = 1.0, keep_color: bool = False) -> FileData:
            """Paints a photograph; style: a name or a mixture, as in wave:0.6,starry:0.4."""
            return self.sent(self.workshop.paint(self.taken(photo), style, strength, keep_color)[1], "painting")

        def postcard(
            photo: FileData, title: str = "", poem: str = "", style: str = "", strength: float = 0.8, seal: str = "诗画"
        ) -> tuple[FileData, str]:
            """A painted photograph with a poem on it, and the poem; without one, one is written."""
            rgb, poem = self.workshop.postcard(self.taken(photo), title, poem, style, strength, seal)
            return self.sent(rgb, "postcard"), poem

        def classify(photo: FileData) -> dict:
            """What the photograph shows: label (cat, dog or neither), and the probability of each."""
            label, chances, _ = self.workshop.classify(self.taken(photo), explain=False)
            return {"label": label, **chances}

        for work in (compose, paint, postcard, classify):
            gr.api(_told(work), api_name=work.__name__, concurrency_id="work", concurrency_limit=AT_ONCE)

    def taken(self, photo: Any) -> Photo:
        """The file that a client has uploaded."""
        if not isinstance(photo, dict) or not isinstance(photo.get("path"), str):
            raise UserError("give the picture with gradio_client's handle_file")
        path = photo["path"]
        return Photo(Path(str(photo.get("orig_name") or path)).name, self.uploads.take(path))

    def sent(self, rgb: np.ndarray, name: str) -> dict:
        """A picture as a file that the client fetches at once."""
        path = self.uploads.new_folder(OUTPUTS) / f"{name}.jpg"
        path.write_bytes(_jpeg(rgb, 95))
        url = f"/gradio_api/file={path}"
        return {"path": str(path), "url": url, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


PRIVATE: dict[str, Any] = {"api_visibility": "private"}
WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": AT_ONCE}
CHOOSE = (
    "element.addEventListener('click', e => { const card = e.target.closest('[data-index]');"
    " if (card) trigger('click', {index: Number(card.dataset.index)}); });"
)
ASKED = ("form", "title", "keywords", "acrostic", "temperature", "seed")
WELCOME = '<div class="empty"><p>诗成于此</p><small>The poems will stand here.</small></div>'
EMPTY = '<div class="empty"><p>还没有训练</p><small>No runs yet: python main.py train</small></div>'


def _label(name: str) -> str:
    """Both names of a style or a class, as far as it has them."""
    english = name.replace("_", " ")
    return f"{CHINESE[name]} {english}" if name in CHINESE else english


def _textbox(label: str, name: str, example: str) -> gr.Textbox:
    return gr.Textbox(label=label, placeholder=example, max_lines=1, max_length=LENGTHS[name])


def _wanted(photo: Photo | None) -> Photo:
    if photo is None:
        raise UserError("先选一张照片 Choose a photo first")
    return photo


def _read_state(state: Any) -> dict:
    """What `state_shown` has given the browser, and gets back from there, with nothing else in it.

    Raises UserError if that is something else.
    """
    try:
        asked = {name: state["asked"][name] for name in ASKED}
        poems = [
            {
                "form": str(poem["form"]),
                "title": str(poem["title"]),
                "lines": [str(line) for line in poem["lines"]],
                "remarks": [str(remark) for remark in poem["remarks"]],
            }
            for poem in state["poems"][:CANDIDATES]
        ]
        return {"asked": asked, "poems": poems, "chosen": state["chosen"]}
    except (KeyError, IndexError, TypeError):
        raise UserError(GONE) from None


def _mixture(style: str | None, other: str, share: float) -> str:
    """As `choose_styles` wants it."""
    if not other or not style or not share:
        return style or ""
    return f"{style}:{100 - share:g},{other}:{share:g}" if share < 100 else other


def _downloads(rgb: np.ndarray, name: str) -> str:
    """Links to save a picture, with the picture in them."""
    links = []
    for suffix, kind in (("jpg", "image/jpeg"), ("png", "image/png"), ("pdf", "application/pdf")):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix), quality=95, resolution=150)
        url = _as_url(buffer.getvalue(), kind)
        links.append(f'<a download="{html.escape(name)}.{suffix}" href="{url}">{suffix.upper()}</a>')
    return f'<p class="downloads">下载 Download {" ".join(links)}</p>'
