"""What the page does, without the page: photographs in, poems, paintings, postcards and answers out, all in memory.

Networks are loaded when they are first needed, once, whoever asks. It knows no Gradio and writes no files.
"""

import io
import json
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from config import ClassifyConfig, DemoConfig, GenerateConfig
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "dataset" / "sample" / "photos"
THUMBNAIL = 144  # pixels
LAYERS = 250  # MB for the layers of a painting; more go to a temporary file
VIEWS = ClassifyConfig.tta  # of a photograph that is classified
CANDIDATES = 4  # poems to choose from
LENGTHS = {"title": 30, "keywords": 40, "acrostic": 16, "poem": 300, "seal": 4, "style": 200}  # characters at most

FORMS = GenerateConfig.__dataclass_fields__["form"].metadata["choices"]

Progress = Callable[[float], object]  # is told the share of the work that is done; may raise Stopped


class Stopped(Exception):
    """Raised by a progress callback: whoever wanted the work does not want it any more."""


@dataclass(frozen=True)
class Photo:
    """A picture as it was sent, not decoded."""

    name: str
    data: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


class Cores:
    """Shares the processor's cores among the works that run at once."""

    def __init__(self) -> None:
        self._lock, self._busy, self._all = threading.Lock(), 0, 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Entered by the thread that works: PyTorch takes its part of the cores for what this thread does."""
        import torch

        with self._lock:
            self._all = self._all or torch.get_num_threads()
            self._busy += 1
            torch.set_num_threads(max(1, self._all // self._busy))
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1


class Workshop:
    """The networks of the page, and what can be done with them.

    The functions take what strangers send: they raise UserError for what cannot be.
    """

    def __init__(self, cfg: DemoConfig):
        self.cfg = cfg
        self._cores, self._loading, self._decoding = Cores(), threading.RLock(), threading.Lock()

    # ------------------------------------------------------------------------------------------------- the networks

    @cached_property
    def styles(self) -> list[str]:
        """The names of the painter's styles, read without loading it; empty if there is no painter."""
        try:
            path = _file("style", self.cfg.style)
            with safe_open(path, framework="numpy") as file:
                header = file.metadata() or {}
        except (UserError, SafetensorError, OSError):
            return []
        return json.loads(header["arguments"])["styles"] if "arguments" in header else [path.stem]

    def _network(self, name: str) -> Any:
        with self._loading:  # the second who asks waits for the first one's
            return getattr(self, f"_{name}")

    @cached_property
    def _poet(self) -> Any:
        from infer.verse.model_file import load_poet

        return load_poet(_file("poet", self.cfg.poet))

    @cached_property
    def _table(self) -> Any:
        from infer.verse.rhyme import RhymeTable

        return RhymeTable.of(self._poet.metadata)

    @cached_property
    def _painter(self) -> Any:
        from infer.painting.files import load_network

        return load_network(_file("style", self.cfg.style))

    @cached_property
    def _classifier(self) -> Any:
        from infer.photo.classify import open_model

        return open_model(_file("classifier", self.cfg.classifier))

    # ------------------------------------------------------------------------------------------------ what they do

    def decode(self, photo: Photo) -> Any:
        """The picture (utils.images.Picture), upright, the longer side at most --max_side."""
        from utils.images import read_image

        with self._decoding:  # one at a time: a large one takes a lot of memory
            return read_image(photo.open(), self.cfg.max_megapixels, self.cfg.max_side, photo.name)

    def compose(
        self,
        form: str = "auto",
        title: str = "",
        keywords: str = "",
        acrostic: str = "",
        temperature: float = GenerateConfig.temperature,
        seed: int = -1,
        n: int = CANDIDATES,
        kept: Sequence[str] = (),
    ) -> list[Any]:
        """`n` poems, the best first (Compositions). `kept` are verses that stay; "" is to be written."""
        _check_texts(title=title, keywords=keywords, acrostic=acrostic)
        if form not in FORMS:
            raise UserError(f"form is one of {', '.join(FORMS)}")
        _check_number("temperature", temperature, 0, 2)
        _check_number("n", n, 1, 8)
        _check_number("seed", seed, -1, 2**31 - 1)
        from infer.verse.compose import compose
        from infer.verse.settings import PoemSettings, split_words

        poet = self._network("poet")
        seed = secrets.randbelow(2**31 - 8) if seed < 0 else int(seed)
        with self._cores.shared():
            settings = PoemSettings(
                form=form,
                title=title,
                keywords=split_words(keywords),
                acrostic=acrostic,
                lines=kept,
                temperature=float(temperature),
            )
            poems = compose(poet, settings, int(n), seed)
        return sorted(poems, key=lambda poem: -poem.rating)

    def check(self, lines: Sequence[str]) -> Any:
        """The prosody of a poem (a Check), or None: no table of rhymes, no verse, longer than any here."""
        if sum(map(len, lines)) > 2 * LENGTHS["poem"]:  # the time grows with the square of the length
            return None
        from infer.verse.check import check

        table = self._network("table")
        try:
            return table and check(lines, table)
        except UserError:
            return None

    def paint(
        self,
        photo: Photo,
        style: str = "",
        strength: float = 1.0,
        keep_color: bool = False,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(the photograph, the painting), each (H, W, 3) uint8, on white where the photograph is transparent.

        `style` is a name or a mixture, as in stylize.
        """
        from utils.images import on_white

        picture, painting = self._painted(photo, style, strength, keep_color, progress)
        if picture.alpha is None:
            return picture.rgb, painting
        return on_white(picture.rgb, picture.alpha), on_white(painting, picture.alpha)

    def _painted(
        self, photo: Photo, style: str, strength: float, keep_color: bool = False, progress: Progress | None = None
    ) -> tuple[Any, np.ndarray]:
        """(the photograph as it was decoded, its colours painted)."""
        _check_texts(style=style)
        _check_number("strength", strength, 0, 1.5)
        picture = self.decode(photo)
        from infer.painting.files import choose_styles, stylized
        from infer.painting.tiles import Painter, painting_precision

        model = self._network("painter")
        shares = choose_styles(style, model.styles)
        with self._cores.shared():
            row = model.mixture(shares, float(strength))
            painter = Painter(model, row, painting_precision("auto", model, row)[0], LAYERS)
            return picture, stylized(picture.rgb[None], painter.paint, keep_color, progress=progress)[0]

    def postcard(
        self,
        photo: Photo,
        title: str = "",
        poem: str = "",
        style: str = "",
        strength: float = 0.8,
        seal: str = "诗画",
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, str]:
        """(the card (H, W, 3) uint8, the poem): a painted photograph with a poem on it; without one, one is written."""
        _check_texts(title=title, poem=poem, seal=seal)
        from data.verse import Poem
        from infer.postcard.fonts import choose_face
        from infer.postcard.layout import check_words, on_paper, postcard, read_poem

        given = read_poem(poem) if poem.strip() else Poem([])
        verses, title, author = given.lines, title.strip() or given.title, given.author
        check_words(title, author, seal)  # before the work, as is the font
        face, _ = choose_face("".join(verses) + title + author + seal)
        if strength:
            picture, painting = self._painted(photo, style, strength, progress=progress)
            picture = replace(picture, rgb=painting)
        else:
            picture = self.decode(photo)
        if not verses:
            poem = "\n".join(self.compose(title=title, n=1)[0].lines)
            verses = read_poem(poem).lines
            face, _ = choose_face("".join(verses) + title + seal)
        return postcard(on_paper(picture), verses, face, title, author, seal).rgb, poem

    def classify(self, photo: Photo, explain: bool = True) -> tuple[str, dict[str, float], np.ndarray | None]:
        """(the class, or neither; the probability of each class; the picture with what speaks for its likeliest)."""
        from infer.photo.classify import Settings, classify

        model = self._network("classifier")
        settings = Settings(VIEWS, max_megapixels=self.cfg.max_megapixels, explain=explain)
        with self._cores.shared(), self._decoding:
            (answer,) = classify(model, [photo], settings)
        if answer.error:
            raise UserError(answer.error)
        return answer.label, answer.probabilities, answer.overlay

    @cached_property
    def _thumbnails(self) -> list[np.ndarray]:
        from infer.painting.tiles import Painter

        with Image.open(sample_photos()[0]) as file:
            photo = np.asarray(file.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))
        model = self._painter
        styles = [model.mixture({name: 1.0}) for name in model.styles]
        return [Painter(model, style).paint(photo[None])[0] for style in styles]

    def thumbnails(self) -> list[np.ndarray]:
        """A sample photograph in each of the styles, (h, w, 3) uint8; empty if there is no painter."""
        if not self.styles:
            return []
        with self._cores.shared():
            return self._network("thumbnails")


def sample_photos() -> list[Path]:
    """Photographs that come with the project."""
    return sorted(SAMPLES.glob("*.jpg"))


def _file(option: str, path: str) -> Path:
    """The model file `path`, which may be relative to the project. Raises UserError if there is none."""
    for place in (Path(path), ROOT / path):
        if place.is_file():
            return place
    raise UserError(f"--{option}={path} does not exist: start the page with a model file")


def _check_texts(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > LENGTHS[name]:
            raise UserError(f"{name} is a text of {LENGTHS[name]} characters at most")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    number = isinstance(value, int | float) and math.isfinite(value)
    if not (number and low <= value <= high):
        raise UserError(f"{name} is a number from {low:g} to {high:g}, not {str(value)[:20]}")
