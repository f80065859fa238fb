"""What the board of a run shows: the records of its log become visdom windows, kept small however long the run is."""

import base64
import html
import io
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from utils.images import open_image

Message = dict[str, Any]  # what visdom's server takes: "data", "layout", "opts"

POINTS = 1000  # most points of a curve; visdom redraws whole windows, more make the page crawl
TEXTS = 10  # newest texts kept in a window
NAME = 36  # most characters of a name in a title
NUMBERED = 12  # most classes of a confusion matrix whose cells have room for their numbers
LEGENDS = 12  # most curves over something else than the step that have room for their names
HISTOGRAMS = 40  # most small histograms in their window
TALL = 600  # pixels, most height of a picture; its width may fill a row
SMALL, LARGE, FULL = 400, 810, 1220  # widths in pixels: three small windows with their gaps fill a row, as one full
COLORS = {"train": "#1f6fb4", "val": "#e0701a", "test": "#3a8f4d", "data": "#e0701a", "model": "#1f6fb4"}
OTHER_COLORS = ("#1f6fb4", "#e0701a", "#3a8f4d", "#8a5fb0", "#b0473f")
TIMES = {"data_time": "data", "model_time": "model"}  # metrics that share a window
FONT = "'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"
BASE_LAYOUT: dict[str, Any] = {
    "margin": {"l": 60, "r": 20, "t": 36, "b": 44},
    "font": {"size": 11, "family": FONT},
    "plot_bgcolor": "#fafafa",
}
ABOVE = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}  # where a legend is
ORDER = ("text", "image", "matrix", "curve", "lines", "gradients", "run", "histograms")  # of the windows on the page


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
            mode = "lines+markers" if len(x) <= 30 else "lines"  # single points are seen by their markers only
            data.append({**_trace(legend, x, y, color, mode), "showlegend": bool(legend)})
        layout = {
            "xaxis": {"title": "step", "rangemode": "tozero"},
            "yaxis": {"title": _plot_text(self._y_label), "automargin": True},
            "legend": ABOVE,
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
        return _html(self._title, "".join(self._entries))


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
        gap_x, gap_y = 0.05, 0.4  # gap_y: fraction of a row's height, for the name above and the numbers below
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


def table(metrics: dict[str, Any], config: dict[str, Any]) -> Message:
    """The window of a run: its result, once it is known, and its options."""
    rows = []
    for heading, values in (("result", metrics), ("options", config)):
        if values:
            rows.append(f'<tr><th colspan="2" style="padding-top:6px">{heading}</th></tr>')
        for name, value in values.items():
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            name = f'<td style="padding-right:12px;color:#666">{html.escape(str(name))}</td>'
            rows.append(f"<tr>{name}<td>{html.escape(text)}</td></tr>")
    return _html("run", f'<table style="font-size:13px">{"".join(rows)}</table>')


def picture(title: str, image: Image.Image) -> Message:
    """A window with a picture."""
    image = image.convert("RGB")
    image.thumbnail((FULL, TALL))
    # A title needs a window of some width to be read; visdom would enlarge the picture to it, and cut its foot off.
    image = ImageOps.pad(image, (max(image.width, SMALL), image.height), color="white")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    opts = {"title": title, "width": image.width, "height": max(image.height, 100)}
    return {"data": [{"type": "image", "content": {"src": source}}], "opts": opts}


def gradients(heading: str, layers: dict[str, Sequence[Any]]) -> Message:
    """A window with the smallest, mean and largest entry of each layer's gradient."""
    names = [_plot_text(_short(name)) for name in layers]
    data = []
    for place, name, symbol in ((2, "max", "triangle-up"), (1, "mean", "circle"), (0, "min", "triangle-down")):
        values = [_finite(layer[place]) for layer in layers.values()]
        data.append(_trace(name, names, values, OTHER_COLORS[2 - place], "markers", symbol, size=8))
    layout = {
        "xaxis": {"tickangle": -35, "automargin": True, "type": "category"},
        "yaxis": {"title": "gradient", "automargin": True},
        "legend": ABOVE,
    }
    return _plot(f"gradients, {heading}", (LARGE, 380), data, layout)


def matrix(title: str, rows: list[list[float]], labels: list[str]) -> Message:
    """A window with a confusion matrix, as a heat map with its numbers; rows are the truth."""
    rows = [[float(value) for value in row] for row in rows]
    labels = [_plot_text(_short(str(label))) for label in labels]
    # Fractions of a row: with classes of unlike size the colours would else show the sizes.
    fractions = [[value / (sum(row) or 1) for value in row] for row in rows]
    data = {"type": "heatmap", "x": labels, "y": labels, "z": fractions, "zmin": 0, "zmax": 1}
    data |= {"colorscale": "Blues", "reversescale": True, "showscale": False}
    numbers = []
    for i, label in enumerate(labels if len(labels) <= NUMBERED else ()):
        for j, column in enumerate(labels):
            color = "white" if fractions[i][j] > 0.5 else "#333"
            number = {"x": column, "y": label, "text": f"{rows[i][j]:g}", "showarrow": False, "font": {"color": color}}
            numbers.append(number)
    layout = {
        "xaxis": {"title": "predicted", "type": "category"},
        "yaxis": {"title": "true", "type": "category", "autorange": "reversed", "automargin": True},
        "annotations": numbers,
    }
    return _plot(title, (SMALL, 380), [data], layout)


def curves(title: str, lines: dict[str, Sequence[Any]], axes: Sequence[str]) -> Message:
    """A window with curves over something else than the step; both axes are 0 to 1."""
    data = []
    for number, (name, line) in enumerate(lines.items()):
        points = [(_finite(x), _finite(y)) for x, y in zip(*line, strict=True)]
        color = OTHER_COLORS[number % len(OTHER_COLORS)]
        trace = _trace(name, [x for x, _ in points], [y for _, y in points], color)
        data.append({**trace, "showlegend": len(lines) <= LEGENDS})
    x_label, y_label = (_plot_text(_short(axis)) for axis in axes)
    whole = [-0.02, 1.02]  # a line along a border is seen
    layout = {
        "xaxis": {"title": x_label, "range": whole},
        "yaxis": {"title": y_label, "range": whole},
        "legend": {"x": 0.5, "xanchor": "center", "y": 0.04, "yanchor": "bottom"},
    }
    return _plot(title, (SMALL, 380), data, layout)


class Board:
    """All windows of the run in `folder`, by their id, and which of them have changed since they were sent."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._kept: dict[str, Any] = {}  # windows that grow with the run
        self._windows: dict[str, tuple[str, Callable[[], Message]]] = {}  # id -> kind, what makes the message
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

    def handle(self, record: dict[str, Any]) -> None:
        """Shows one record of the log; one that is not understood (of another version) is left out."""
        try:
            self._show(record)
        except (LookupError, TypeError, ValueError, OSError):
            return

    def _show(self, record: dict[str, Any]) -> None:
        kind = record["kind"]
        if kind == "batch":
            for name, value in _metrics(record):
                self._per_batch.add(name)
                self._plot(name, record["step"], value, "train")
        elif kind == "epoch":
            for name, value in _metrics(record):
                if record["split"] != "train" or name not in self._per_batch:
                    self._plot(name, record["step"], value, record["split"])
        elif kind in ("config", "final"):
            self._replace("run", "run", partial(table, record.get("figures", {}), record["config"]))
        elif kind == "gradients":
            self._replace("gradients", "gradients", gradients(_heading(record), record["layers"]))
        elif kind == "histogram":
            content = record["name"], record["counts"], record["edges"], record.get("nonfinite", 0)
            self._add("histograms", "histograms", Histograms(), _heading(record), *content)
        elif kind in ("text", "image", "matrix", "curve"):
            self._show_named(kind, record)

    def _show_named(self, kind: str, record: dict[str, Any]) -> None:
        key, name, heading = f"{kind} {record['name']}", _spaced(record["name"]), _heading(record)
        if kind == "text":
            self._add(key, kind, Texts(name), heading, record["text"])
        elif kind == "matrix":
            self._replace(key, kind, matrix(f"{name}, {heading}", record["rows"], record["labels"]))
        elif kind == "curve":
            self._replace(key, kind, curves(f"{name}, {heading}", record["lines"], record["axes"]))
        else:
            path = (self._folder / record["path"]).resolve()
            if path.is_relative_to(self._folder.resolve()):  # a log of unknown origin must not show other files
                with open(path, "rb") as file, open_image(file, path.name) as image:
                    self._replace(key, kind, partial(picture, f"{name}, {heading}", image.convert("RGB")))

    def _plot(self, name: str, x: float, y: float, legend: str) -> None:
        """One more point of a curve. data_time and model_time share a window, and so do train and val of a metric."""
        if name in TIMES:
            self._add("times", "lines", Lines("seconds per batch", (SMALL, 320), "seconds"), TIMES[name], x, y)
        else:
            size = (LARGE, 380) if name == "loss" else (SMALL, 320)
            self._add(name, "lines", Lines(_spaced(name), size, _spaced(name)), legend, x, y)

    def _add(self, key: str, kind: str, new: Any, *content: Any) -> None:
        """Adds to the window `key`, which is `new` if there is none yet."""
        window = self._kept.setdefault(key, new)
        window.add(*content)
        self._replace(key, kind, window.message)

    def _replace(self, key: str, kind: str, message: Message | Callable[[], Message]) -> None:
        self._windows[key] = (kind, message if callable(message) else lambda: message)
        self.changed.add(key)


def _metrics(record: dict[str, Any]) -> list[tuple[str, float]]:
    known = {"kind", "step", "epoch", "time", "split"}
    return [(name, float(value)) for name, value in record.items() if name not in known and value is not None]


def _heading(record: dict[str, Any]) -> str:
    return f"step {record['step']}, epoch {record['epoch'] + 1}"


def _trace(
    name: str, x: list[Any], y: list[Any], color: str, mode: str = "lines", symbol: str = "circle", size: int = 5
) -> Message:
    marker = {"color": color, "size": size, "symbol": symbol, "line": {}}  # visdom's smoothing wants a marker's line
    content = {"type": "scatter", "name": _plot_text(_short(name)), "x": x, "y": y, "mode": mode}
    return {**content, "line": {"color": color, "width": 1.5}, "marker": marker}


def _plot(title: str, size: tuple[int, int], data: list[Message], layout: dict[str, Any]) -> Message:
    layout = {**BASE_LAYOUT, **layout, "title": {"text": _plot_text(title), "x": 0.02, "font": {"size": 14}}}
    return {"data": data, "layout": layout, "opts": {"width": size[0], "height": size[1]}}


def _html(title: str, content: str) -> Message:
    # visdom shows HTML as it is, so whoever calls this has escaped it; MathJax leaves the class alone ($ is a $)
    style = f"font-family:{html.escape(FONT)};color:#222;padding:2px 10px"
    content = f'<div class="tex2jax_ignore" style="{style}">{content}</div>'
    return {"data": [{"type": "text", "content": content}], "opts": {"title": title, "width": SMALL, "height": 380}}


def _plot_text(text: str) -> str:
    """For titles and legends: plotly takes some HTML tags, and formulas between $ signs."""
    return html.escape(text, quote=False).replace("$", "＄")


def _spaced(name: str) -> str:
    return _short(name.replace("_", " "))


def _short(name: str) -> str:
    """The end of a name tells layers apart."""
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
