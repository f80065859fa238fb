"""What the board of a run looks like: records of the log become visdom windows, kept small however long the run is.

Nothing is sent here, see utils/visualize.py. A window is always sent whole, so sending it twice does no harm.
"""

import base64
import html
import io
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from utils.errors import UserError
from utils.images import open_image

Message = dict[str, Any]  # what visdom's server takes: "data", "layout", "opts"

POINTS = 1000  # most points of a curve; visdom redraws whole windows, more make the page crawl
TEXTS = 10  # newest texts kept in a window
NAME = 36  # most characters of a name in a title
NUMBERED = 12  # most rows of a table whose cells have room for their numbers
LEGENDS = 12  # most curves over something else than the step that have room for their names
HISTOGRAMS = 40  # most small histograms in their window
TALL = 600  # pixels, most height of a picture; its width may fill a row
SMALL, LARGE, FULL = 400, 810, 1220  # widths in pixels: three small windows with their gaps fill a row, as one full
COLORS = {"train": "#1f6fb4", "val": "#e0701a", "test": "#3a8f4d", "data": "#e0701a", "model": "#1f6fb4"}
OTHER_COLORS = ("#1f6fb4", "#e0701a", "#3a8f4d", "#8a5fb0", "#b0473f")
TIMES = {"data_time": "data", "model_time": "model"}  # figures that share a window
FONT = "'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"
BASE_LAYOUT: dict[str, Any] = {
    "margin": {"l": 60, "r": 20, "t": 36, "b": 44},
    "font": {"size": 11, "family": FONT},
    "plot_bgcolor": "#fafafa",
}


class Curve:
    """A line of at most POINTS points: when there are more, neighbours are replaced by their mean."""

    def __init__(self) -> None:
        self._x: list[float] = []
        self._y: list[float] = []
        self._bucket: list[float] = []  # the newest values, not yet a point of their own
        self._bucket_size = 1
        self._last_x = 0.0

    def add(self, x: float, y: float) -> None:
        self._bucket.append(y)
        self._last_x = x
        if len(self._bucket) < self._bucket_size:
            return
        self._x.append(x)
        self._y.append(_mean(self._bucket))
        self._bucket = []
        if len(self._x) == POINTS:
            self._x = self._x[1::2]
            self._y = [_mean(self._y[i : i + 2]) for i in range(0, POINTS, 2)]
            self._bucket_size *= 2

    def points(self) -> tuple[list[float], list[float | None]]:
        """x and y; a y that is not finite is None, which is drawn as a gap."""
        x, y = list(self._x), list(self._y)
        if self._bucket:
            x.append(self._last_x)
            y.append(_mean(self._bucket))
        return x, [value if math.isfinite(value) else None for value in y]


class Lines:
    """A window of curves over the step."""

    def __init__(self, title: str, size: tuple[int, int], y_label: str):
        self._title, self._size, self._y_label = title, size, y_label
        self._curves: dict[str, Curve] = {}

    def add(self, legend: str, x: float, y: float) -> None:
        self._curves.setdefault(legend, Curve()).add(x, y)

    def message(self) -> Message:
        data = []
        for number, (legend, curve) in enumerate(self._curves.items()):
            x, y = curve.points()
            color = COLORS.get(legend, OTHER_COLORS[number % len(OTHER_COLORS)])
            few = len(x) <= 30  # single points are seen by their markers only
            data.append(
                {
                    "type": "scatter",
                    "name": _plot_text(_short(legend)),
                    "x": x,
                    "y": y,
                    "mode": "lines+markers" if few else "lines",
                    "line": {"color": color, "width": 1.5},
                    "marker": {"color": color, "size": 5, "line": {}},  # visdom's smoothing wants a marker's line
                    "showlegend": bool(legend),
                }
            )
        layout = {
            "xaxis": {"title": "step", "rangemode": "tozero"},
            "yaxis": {"title": _plot_text(self._y_label), "automargin": True},
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        }
        return _plot(self._title, self._size, data, layout)


class Texts:
    """A window of the newest texts, the last on top."""

    def __init__(self, title: str):
        self._title = title
        self._entries: deque[str] = deque(maxlen=TEXTS)

    def add(self, heading: str, text: str) -> None:
        self._entries.appendleft(
            f'<div style="color:#888;font-size:12px;margin-top:8px">{html.escape(heading)}</div>'
            f'<div style="white-space:pre-wrap;font-size:17px;line-height:1.6">{html.escape(text)}</div>'
        )

    def message(self) -> Message:
        return _html(self._title, (SMALL, 380), "".join(self._entries))


class Table:
    """A window of names and values: what came out (once it is known) and the hyper-parameters."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.config: dict[str, Any] = {}

    def message(self) -> Message:
        rows = []
        for heading, values in (("result", self.figures), ("options", self.config)):
            if values:
                rows.append(f'<tr><th colspan="2" style="padding-top:6px">{heading}</th></tr>')
            rows += [
                f'<tr><td style="padding-right:12px;color:#666">{html.escape(str(name))}</td>'
                f"<td>{html.escape(_value(value))}</td></tr>"
                for name, value in values.items()
            ]
        return _html("run", (SMALL, 380), f'<table style="font-size:13px">{"".join(rows)}</table>')


class Picture:
    """A window with the newest picture of a name."""

    def __init__(self, title: str, image: Image.Image):
        self._title, self._image = title, image

    def message(self) -> Message:
        image = self._image.convert("RGB")
        image.thumbnail((FULL, TALL))
        # A title needs a window of some width to be read; visdom would enlarge the picture to it, and cut its foot off.
        image = ImageOps.pad(image, (max(image.width, SMALL), image.height), color="white")
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        opts = {"title": self._title, "width": image.width, "height": max(image.height, 100)}
        return {"data": [{"type": "image", "content": {"src": source}}], "opts": opts}


class Histograms:
    """A window of small histograms, one a name, in the order in which they came first."""

    columns = 4

    def __init__(self) -> None:
        self._heading = ""
        self._bins: dict[str, tuple[list[int], list[float], int]] = {}

    def add(self, heading: str, name: str, counts: list[int], edges: list[float], nonfinite: int) -> None:
        self._heading = heading and f", {heading}"
        self._bins[name] = ([int(count) for count in counts], [float(edge) for edge in edges], int(nonfinite))

    def message(self) -> Message:
        shown = list(self._bins.items())[:HISTOGRAMS]
        columns, rows = min(self.columns, len(shown)), math.ceil(len(shown) / self.columns)
        gap_x, gap_y = 0.05, 0.4  # gap_y: share of a row's height that is left to the name above and the numbers below
        data: list[Message] = []
        layout: dict[str, Any] = {"showlegend": False, "bargap": 0, "annotations": []}
        layout["margin"] = {"l": 20, "r": 20, "t": 36, "b": 24}
        for number, (name, (counts, edges, nonfinite)) in enumerate(shown):
            row, column = divmod(number, columns)
            axis = str(number + 1) if number else ""
            left = column / columns + gap_x / 2
            right = (column + 1) / columns - gap_x / 2
            top = 1 - (row + gap_y / 2) / rows
            bottom = 1 - (row + 1 - gap_y / 2) / rows
            centres = [(a + b) / 2 for a, b in zip(edges, edges[1:], strict=False)]
            data.append({"type": "bar", "x": centres, "y": counts, "xaxis": f"x{axis}", "yaxis": f"y{axis}"})
            data[-1] |= {"name": _plot_text(_short(name)), "marker": {"color": COLORS["train"]}}
            layout[f"xaxis{axis}"] = {"domain": [left, right], "anchor": f"y{axis}", "nticks": 4}
            layout[f"xaxis{axis}"]["tickfont"] = {"size": 9}
            layout[f"yaxis{axis}"] = {"domain": [bottom, top], "anchor": f"x{axis}", "showticklabels": False}
            label = _plot_text(_short(name)) + (f" ({nonfinite} not finite)" if nonfinite else "")
            place = {"xref": "paper", "yref": "paper", "x": (left + right) / 2, "y": top}
            anchor = {"xanchor": "center", "yanchor": "bottom", "showarrow": False, "font": {"size": 10}}
            layout["annotations"].append({"text": label, **place, **anchor})
        some = f", {len(shown)} of {len(self._bins)}" if len(shown) < len(self._bins) else ""
        return _plot(f"histograms{some}{self._heading}", (FULL, 60 + 130 * rows), data, layout)


class Gradients:
    """A window with the newest smallest, mean and largest entry of each layer's gradient."""

    def __init__(self, heading: str, layers: dict[str, Sequence[Any]]):
        self._heading = heading
        self._layers = {name: [float(value) for value in layer] for name, layer in layers.items()}

    def message(self) -> Message:
        names = [_plot_text(_short(name)) for name in self._layers]
        low, mean, high = ([_finite(layer[i]) for layer in self._layers.values()] for i in range(3))
        styles = (("max", high, "triangle-up"), ("mean", mean, "circle"), ("min", low, "triangle-down"))
        data: list[Message] = [
            {
                "type": "scatter",
                "name": name,
                "x": names,
                "y": values,
                "mode": "markers",
                "marker": {"symbol": symbol, "size": 8, "color": color, "line": {}},
            }
            for (name, values, symbol), color in zip(styles, OTHER_COLORS, strict=False)
        ]
        layout = {
            "xaxis": {"tickangle": -35, "automargin": True, "type": "category"},
            "yaxis": {"title": "gradient", "automargin": True},
            "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        }
        return _plot(f"gradients, {self._heading}", (LARGE, 380), data, layout)


class Matrix:
    """A window with the newest table of a name, as a heat map with its numbers; rows are the truth."""

    def __init__(self, title: str, rows: list[list[float]], labels: list[str]):
        self._title, self._rows = title, [[float(value) for value in row] for row in rows]
        self._labels = [_plot_text(_short(str(label))) for label in labels]

    def message(self) -> Message:
        # Shares of a row: with classes of unlike size the colours would else show the sizes.
        shares = [[value / (sum(row) or 1) for value in row] for row in self._rows]
        data = [{"type": "heatmap", "x": self._labels, "y": self._labels, "z": shares, "zmin": 0, "zmax": 1}]
        data[0] |= {"colorscale": "Blues", "reversescale": True, "showscale": False}
        numbers = [
            {
                "x": column,
                "y": label,
                "text": f"{self._rows[i][j]:g}",
                "showarrow": False,
                "font": {"color": "white" if shares[i][j] > 0.5 else "#333"},
            }
            for i, label in enumerate(self._labels)
            for j, column in enumerate(self._labels)
            if len(self._labels) <= NUMBERED
        ]
        layout = {
            "xaxis": {"title": "predicted", "type": "category"},
            "yaxis": {"title": "true", "type": "category", "autorange": "reversed", "automargin": True},
            "annotations": numbers,
        }
        return _plot(self._title, (SMALL, 380), data, layout)


class Curves:
    """A window with the newest curves of a name over something else than the step; both axes are 0 to 1."""

    def __init__(self, title: str, lines: dict[str, Sequence[Any]], axes: Sequence[str]):
        self._title = title
        self._lines = {
            name: [(_finite(float(x)), _finite(float(y))) for x, y in zip(*line, strict=True)]
            for name, line in lines.items()
        }
        self._x_label, self._y_label = (_plot_text(_short(axis)) for axis in axes)

    def message(self) -> Message:
        data = []
        for number, (name, points) in enumerate(self._lines.items()):
            color = OTHER_COLORS[number % len(OTHER_COLORS)]
            data.append(
                {
                    "type": "scatter",
                    "name": _plot_text(_short(name)),
                    "x": [x for x, _ in points],
                    "y": [y for _, y in points],
                    "mode": "lines",
                    "line": {"color": color, "width": 1.5},
                    "marker": {"line": {}},  # visdom's smoothing wants it
                    "showlegend": len(self._lines) <= LEGENDS,
                }
            )
        whole = [-0.02, 1.02]  # a line along a border is seen
        layout = {
            "xaxis": {"title": self._x_label, "range": whole},
            "yaxis": {"title": self._y_label, "range": whole},
            "legend": {"x": 0.5, "xanchor": "center", "y": 0.04, "yanchor": "bottom"},
        }
        return _plot(self._title, (SMALL, 380), data, layout)


class Board:
    """All windows of a run, by their id, and which of them have changed since they were sent."""

    def __init__(self, folder: Path | None = None):
        self._folder = folder
        self._windows: dict[str, Any] = {}
        self._per_batch: set[str] = set()  # figures that the batches give: their epoch means are not drawn as well
        self.changed: set[str] = set()

    @property
    def first(self) -> str | None:
        """The id of the oldest window."""
        return next(iter(self._windows), None)

    def touch_all(self) -> None:
        """Every window is to be sent (again)."""
        self.changed = set(self._windows)

    def message(self, window: str) -> Message:
        return self._windows[window].message()

    def in_order(self) -> list[str]:
        """The changed windows; visdom lays them out from left to right and top to bottom as they come."""
        kinds = [Texts, Picture, Matrix, Curves, Lines, Gradients, Table, Histograms]
        return sorted(self.changed, key=lambda key: (key != "loss", kinds.index(type(self._windows[key])), key))

    def handle(self, record: dict[str, Any]) -> None:
        """Shows one record of the log; one that is not understood (of another version) is left out."""
        show = {
            "config": self._config,
            "batch": self._batch,
            "epoch": self._epoch,
            "text": self._text,
            "image": self._image,
            "histogram": self._histogram,
            "gradients": self._gradients,
            "matrix": self._matrix,
            "curve": self._curve,
            "final": self._final,
        }
        try:
            show[record["kind"]](record)
        except (KeyError, TypeError, ValueError, OSError, UserError):
            return

    # ------------------------------------------------------------------------------- one function per thing to show

    def plot(self, name: str, y: float, x: float, legend: str) -> None:
        """One more point of a curve. data_time and model_time share a window, and so do train and val of a figure."""
        if name in TIMES:
            window = self._window("times", Lines("seconds per batch", (SMALL, 320), "seconds"))
            window.add(TIMES[name], x, y)
        else:
            size = (LARGE, 380) if name == "loss" else (SMALL, 320)
            self._window(name, Lines(_spaced(name), size, _spaced(name))).add(legend, x, y)

    def text(self, name: str, text: str, heading: str) -> None:
        self._window(f"text {name}", Texts(_spaced(name))).add(heading, text)

    def picture(self, name: str, image: Image.Image, heading: str) -> None:
        title = ", ".join(part for part in (_spaced(name), heading) if part)
        self._replace(f"image {name}", Picture(title, image))

    def hist(self, name: str, counts: list[int], edges: list[float], nonfinite: int, heading: str) -> None:
        self._window("histograms", Histograms()).add(heading, name, counts, edges, nonfinite)

    # ----------------------------------------------------------------------------------------- one per kind of record

    def _config(self, record: dict[str, Any]) -> None:
        self._window("run", Table()).config = record["config"]

    def _final(self, record: dict[str, Any]) -> None:
        table = self._window("run", Table())
        table.figures, table.config = record["figures"], record["config"]

    def _batch(self, record: dict[str, Any]) -> None:
        for name, value in _figures(record):
            self._per_batch.add(name)
            self.plot(name, value, record["step"], "train")

    def _epoch(self, record: dict[str, Any]) -> None:
        for name, value in _figures(record):
            if record["split"] != "train" or name not in self._per_batch:
                self.plot(name, value, record["step"], record["split"])

    def _text(self, record: dict[str, Any]) -> None:
        self.text(record["name"], record["text"], _heading(record))

    def _image(self, record: dict[str, Any]) -> None:
        path = (self._folder / record["path"]).resolve()
        if path.is_relative_to(self._folder.resolve()):  # a log of unknown origin must not show other files
            with open(path, "rb") as file, open_image(file, path.name) as image:
                self.picture(record["name"], image.convert("RGB"), _heading(record))

    def _histogram(self, record: dict[str, Any]) -> None:
        self.hist(record["name"], record["counts"], record["edges"], record.get("nonfinite", 0), _heading(record))

    def _gradients(self, record: dict[str, Any]) -> None:
        self._replace("gradients", Gradients(_heading(record), record["layers"]))

    def _matrix(self, record: dict[str, Any]) -> None:
        title = f"{_spaced(record['name'])}, {_heading(record)}"
        self._replace(f"matrix {record['name']}", Matrix(title, record["rows"], record["labels"]))

    def _curve(self, record: dict[str, Any]) -> None:
        title = f"{_spaced(record['name'])}, {_heading(record)}"
        self._replace(f"curve {record['name']}", Curves(title, record["lines"], record["axes"]))

    def _window(self, key: str, new: Any) -> Any:
        """The window `key`, made if there is none yet; it counts as changed."""
        self.changed.add(key)
        return self._windows.setdefault(key, new)

    def _replace(self, key: str, window: Any) -> None:
        self.changed.add(key)
        self._windows[key] = window


def to_picture(image: Any) -> Image.Image:
    """An array or tensor, (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, as a picture.

    uint8 is 0~255; anything else is 0~1 and clamped. Raises ValueError for another shape.
    """
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # (C, H, W) -> (H, W, C)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"an image has the shape (H, W), (H, W, C) or (C, H, W), not {array.shape}")
    if array.dtype != np.uint8:
        array = (np.nan_to_num(array.astype(np.float32)).clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array)


def _figures(record: dict[str, Any]) -> list[tuple[str, float]]:
    known = {"kind", "step", "epoch", "time", "split"}
    return [(name, float(value)) for name, value in record.items() if name not in known and value is not None]


def _heading(record: dict[str, Any]) -> str:
    return f"step {record['step']}, epoch {record['epoch'] + 1}"


def _plot(title: str, size: tuple[int, int], data: list[Message], layout: dict[str, Any]) -> Message:
    layout = {**BASE_LAYOUT, **layout, "title": {"text": _plot_text(title), "x": 0.02, "font": {"size": 14}}}
    return {"data": data, "layout": layout, "opts": {"width": size[0], "height": size[1]}}


def _html(title: str, size: tuple[int, int], content: str) -> Message:
    # visdom shows HTML as it is, so whoever calls this has escaped it; MathJax leaves the class alone ($ is a $)
    style = f"font-family:{html.escape(FONT)};color:#222;padding:2px 10px"
    content = f'<div class="tex2jax_ignore" style="{style}">{content}</div>'
    opts = {"title": title, "width": size[0], "height": size[1]}
    return {"data": [{"type": "text", "content": content}], "opts": opts}


def _plot_text(text: str) -> str:
    """For titles and legends: plotly takes some HTML tags, and formulas between $ signs."""
    return html.escape(text, quote=False).replace("$", "＄")


def _spaced(name: str) -> str:
    return _short(name.replace("_", " "))


def _short(name: str) -> str:
    """The end of a name tells layers apart."""
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
