"""What the page does, for whoever sends something: the facade (shihua.py) within limits, on shared cores. No Gradio."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from config import DemoConfig
from shihua import Classifier, Painter, Poet, Progress, postcard, read
from utils.errors import UserError
from utils.photo import Photo

SAMPLES = Path(__file__).resolve().parents[1] / "dataset" / "sample" / "photos"
THUMBNAIL = 144  # pixels
LAYERS = 250  # MB for the layers of a painting; more go to a temporary file
CANDIDATES = 4  # poems to choose from
LENGTHS = {  # characters at most
    "title": 30,
    "keywords": 40,
    "prompt": 30,
    "acrostic": 16,
    "poem": 300,
    "seal": 4,
    "style": 200,
    "stroke": 20,
}
LARGEST = {"temperature": 2, "n": 8}


class Cancelled(Exception):
    """Raised by a progress callback: nobody wants the result any more."""


class Cores:
    """Shares the processor's cores among the jobs that run at once."""

    def __init__(self) -> None:
        self._lock, self._busy, self._all = threading.Lock(), 0, 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Entered by the thread of a job: PyTorch takes its part of the cores for what this thread does."""
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


class Service:
    """Poems, paintings, postcards and answers, from texts and Photos, in memory."""

    def __init__(self, cfg: DemoConfig):
        self.cfg = cfg
        self._cores, self._lock = Cores(), threading.Lock()
        self._models: dict[str, Any] = {}
        self._thumbnails: list[np.ndarray] | None = None
        for name, make in (
            ("poet", lambda: Poet(cfg.poet)),
            ("painter", lambda: Painter(cfg.style, memory_limit=LAYERS)),
            ("classifier", lambda: Classifier(cfg.classifier)),
        ):
            with suppress(UserError):  # without one of the files there is the rest of the page
                self._models[name] = make()

    def _model(self, name: str) -> Any:
        if name not in self._models:
            raise UserError(f"this page was started without a {name}")
        return self._models[name]

    @property
    def styles(self) -> list[str]:
        """The names of the painter's styles; empty without a painter."""
        return self._models["painter"].styles if "painter" in self._models else []

    def decode(self, photo: Photo) -> Any:
        """The picture (utils.images.Picture), upright, the longer side at most `max_side`."""
        return read(photo, self.cfg.max_megapixels, self.cfg.max_side)

    def write(self, n: int = CANDIDATES, kept: Sequence[str] = (), **asked: Any) -> list[Any]:
        """`n` poems, the best first. `kept` are verses that stay; "" is to be written."""
        _check(n=n, poem="".join(kept), **asked)
        with self._cores.shared():
            return self._model("poet").write(lines=kept, n=n, **asked)

    def check(self, lines: Sequence[str]) -> Any:
        """The prosody of a poem (a Check), or None: no rhyme table, no verse, longer than any here."""
        if sum(map(len, lines)) > 2 * LENGTHS["poem"]:  # the time grows with the square of the length
            return None
        with suppress(UserError):
            return self._model("poet").check(lines)
        return None

    def paint(self, photo: Photo, progress: Progress | None = None, **asked: Any) -> tuple[np.ndarray, np.ndarray]:
        """(the photograph, the painting), each (H, W, 3) uint8, on white where the photograph is transparent."""
        _check(**asked)
        picture = self.decode(photo)
        with self._cores.shared():
            painting = self._model("painter").paint(picture, progress=progress, **asked)
        return picture.on("white"), read(painting).on("white")

    def postcard(
        self, photo: Photo, poem: str = "", progress: Progress | None = None, **asked: Any
    ) -> tuple[np.ndarray, str]:
        """(the card (H, W, 3) uint8, the poem): a painted photograph with a poem on it; without one, one is written."""
        _check(poem=poem, **asked)
        limits = {"max_side": self.cfg.max_side, "max_megapixels": self.cfg.max_megapixels}
        models = {name: self._models.get(name) for name in ("painter", "poet", "classifier")}
        with self._cores.shared():
            card = postcard(photo, poem, progress=progress, **models, **limits, **asked)
        return np.asarray(card.image), card.poem

    def classify(self, photo: Photo, explain: bool = True) -> Any:
        """What the photograph shows (an Answer)."""
        with self._cores.shared():
            return self._model("classifier")(photo, explain=explain, max_megapixels=self.cfg.max_megapixels)

    def describe(self, photo: Photo) -> list[Any]:
        """What is to be seen (Sights), the surest first; nothing of a classifier that knows its own classes only."""
        classifier = self._model("classifier")
        with self._cores.shared():
            if not classifier.recognises:
                return []
            return [sight for sight, _ in classifier.describe(photo, self.cfg.max_megapixels).seen]

    def thumbnails(self) -> list[np.ndarray]:
        """A sample photograph in each of the styles, (h, w, 3) uint8; painted once."""
        with self._cores.shared(), self._lock:
            if self._thumbnails is None and self.styles:
                from PIL import Image

                with Image.open(sample_photos()[0]) as file:
                    photo = file.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
                paint = self._model("painter").paint
                self._thumbnails = [np.asarray(paint(photo, style=name, stroke="2")) for name in self.styles]
        return self._thumbnails or []


def sample_photos() -> list[Path]:
    """Photographs that come with the project."""
    return sorted(SAMPLES.glob("*.jpg"))


def _check(**given: Any) -> None:
    """Raises UserError for what is longer or larger than the page allows; the facade looks at the rest."""
    for name, value in given.items():
        if name in LENGTHS and not (isinstance(value, str) and len(value) <= LENGTHS[name]):
            raise UserError(f"must be a text of at most {LENGTHS[name]} characters", **{name: None})
        if name in LARGEST and isinstance(value, int | float) and value > LARGEST[name]:
            raise UserError(f"must be at most {LARGEST[name]}", **{name: value})
