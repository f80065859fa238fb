"""What the board of a run shows: the records of its log become visdom's windows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from board import windows
from board.windows import LARGE, SMALL, Gradients, Histograms, Lines, Message, Texts, spaced
from utils.files import is_inside
from utils.images import read_image

ORDER = ("text", "image", "matrix", "curve", "lines", "gradients", "run", "histograms")  # of the windows on the page
TIMES = {"data_time": "data", "model_time": "model"}  # metrics that share a window


class Board:
    """All windows of the run in `folder`, by their id, and which of them have changed since they were sent."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._kept: dict[str, Any] = {}  # windows that grow with the run
        self._windows: dict[str, tuple[str, Callable[[], Message]]] = {}  # id -> kind, what makes the message
        self._max_epoch = 0
        self._per_batch: set[str] = set()  # metrics of the batches: their epoch means are not drawn as well
        self.changed: set[str] = set()

    @property
    def first(self) -> str | None:
        """The id of the oldest window."""
        return next(iter(self._windows), None)

    def touch_all(self) -> None:
        """Every window is to be sent (again)."""
        self.changed = set(self._windows)

    def message(self, window: str) -> Message:
        return self._windows[window][1]()

    def in_order(self) -> list[str]:
        """The changed windows; visdom lays them out from left to right and top to bottom as they come."""
        return sorted(self.changed, key=lambda key: (key != "loss", ORDER.index(self._windows[key][0]), key))

    def lines(self) -> list[Lines]:
        """The windows of curves over the step, the loss first."""
        kept = sorted(self._kept.items(), key=lambda item: (item[0] != "loss", item[0]))
        return [window for _, window in kept if isinstance(window, Lines)]

    def handle(self, record: dict[str, Any]) -> None:
        """Shows one record of the log; one that is not understood (of another version) is left out."""
        try:
            self._show(record)
        except (LookupError, TypeError, ValueError, AttributeError, OSError):
            return

    def _show(self, record: dict[str, Any]) -> None:
        kind = record["kind"]
        if kind == "batch":
            for name, value in metrics_of(record):
                self._per_batch.add(name)
                self._plot(name, record["step"], value, "train")
        elif kind == "epoch":
            for name, value in metrics_of(record):
                if record["split"] != "train" or name not in self._per_batch:
                    self._plot(name, record["step"], value, record["split"])
        elif kind in ("config", "final"):
            self._max_epoch = record["config"].get("max_epoch", 0)
            self._replace("run", "run", partial(windows.table, record.get("figures", {}), record["config"]))
        elif kind == "gradients":
            self._add("gradients", "gradients", Gradients(), self._heading(record), record["step"], record["layers"])
        elif kind == "histogram":
            content = record["name"], record["counts"], record["edges"], record.get("nonfinite", 0)
            self._add("histograms", "histograms", Histograms(), self._heading(record), *content)
        elif kind in ("text", "image", "matrix", "curve"):
            self._show_named(kind, record)

    def _show_named(self, kind: str, record: dict[str, Any]) -> None:
        key, name, heading = f"{kind} {record['name']}", spaced(record["name"]), self._heading(record)
        if kind == "text":
            self._add(key, kind, Texts(name), heading, record["text"])
        elif kind == "matrix":
            self._replace(key, kind, windows.matrix(f"{name}, {heading}", record["rows"], record["labels"]))
        elif kind == "curve":
            self._replace(key, kind, windows.curves(f"{name}, {heading}", record["lines"], record["axes"]))
        else:
            image = recorded_image(self._folder, record["path"])
            self._replace(key, kind, partial(windows.picture, name, heading, record.get("caption", ""), image))

    def _plot(self, name: str, x: float, y: float, legend: str) -> None:
        """One more point of a curve. data_time and model_time share a window, and so do train and val of a metric."""
        if name in TIMES:
            self._add("times", "lines", Lines("seconds per batch", (SMALL, 320), "seconds"), TIMES[name], x, y)
        else:
            size = (LARGE, 380) if name == "loss" else (SMALL, 320)
            self._add(name, "lines", Lines(spaced(name), size, spaced(name)), legend, x, y)

    def _add(self, key: str, kind: str, new: Any, *content: Any) -> None:
        """Adds to the window `key`, which is `new` if there is none yet."""
        window = self._kept.setdefault(key, new)
        window.add(*content)
        self._replace(key, kind, window.message)

    def _heading(self, record: dict[str, Any]) -> str:
        """The epoch as the console counts it, and the step."""
        of_all = f"/{self._max_epoch}" if self._max_epoch else ""
        return f"epoch {record['epoch'] + 1}{of_all}, step {record['step']}"

    def _replace(self, key: str, kind: str, message: Message | Callable[[], Message]) -> None:
        self._windows[key] = (kind, message if callable(message) else lambda: message)
        self.changed.add(key)


def metrics_of(record: dict[str, Any]) -> list[tuple[str, float]]:
    """What a record of a batch or an epoch has measured."""
    known = {"kind", "step", "epoch", "time", "split"}
    return [(name, float(value)) for name, value in record.items() if name not in known and value is not None]


def recorded_image(folder: Path, path: str) -> Image.Image:
    """A picture that the log of the run in `folder` names. Raises ValueError or OSError if it cannot be shown."""
    if not is_inside(folder / path, folder):  # a log of unknown origin must not show other files
        raise ValueError(f"{path} is outside the run's folder")
    return Image.fromarray(read_image(folder / path).rgb)
