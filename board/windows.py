"""The windows of the board, as visdom's server takes them; those that grow with a run are kept small."""

import base64
import html
import io
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from PIL import Image

Message = dict[str, Any]  # what visdom's server takes: "data", "layout", "opts"

POINTS = 1000  # most points of a curve; visdom redraws whole windows, more make the page crawl
TEXTS = 10  # newest texts kept in a window
NAME = 36  # most characters of a name in a title
NUMBERED = 12  # most classes of a confusion matrix whose cells have room for their numbers
LEGENDS = 12  # most curves over something else than the step that have room for their names
HISTOGRAMS = 40  # most small histograms in their window
TALL = 600  # pixels, most height of a picture; its width may fill a row
GRADIENT_ROWS, GRADIENT_COLUMNS = 40, 100  # most blocks and steps in the heat map of the gradients
SMALL, LARGE, FULL = 400, 810, 1220  # widths in pixels: three small windows with their gaps fill a row, as one full
COLORS = {"train": "#1f6fb4", "val": "#e0701a", "test": "#3a8f4d", "data": "#e0701a", "model": "#1f6fb4"}
OTHER_COLORS = ("#1f6fb4", "#e0701a", "#3a8f4d", "#8a5fb0", "#b0473f")
FONT = "'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"
BASE_LAYOUT: dict[str, Any] = {
    "margin": {"l": 60, "r": 20, "t": 36, "b": 44},
    "font": {"size": 11, "family": FONT},
    "plot_bgcolor": "#fafafa",
}
ABOVE = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}  # where a legend is


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
        self.title, self._size, self._y_label = title, size, y_label
        self.curves: dict[str, Curve] = {}

    def add(self, legend: str, x: float, y: float) -> None:
        self.curves.setdefault(legend, Curve()).add(x, y)

    def message(self) -> Message:
        data = []
        for number, (legend, curve) in enumerate(self.curves.items()):
            x, y = curve.points()
            color = COLORS.get(legend, OTHER_COLORS[number % len(OTHER_COLORS)])
            mode = "lines+markers" if len(x) <= 30 else "lines"  # single points are seen by their markers only
            data.append({**_trace(legend, x, y, color, mode), "showlegend": bool(legend)})
        layout = {
            "xaxis": {"title": "step", "rangemode": "tozero"},
            "yaxis": {"title": _plot_text(self._y_label), "automargin": True},
            "legend": ABOVE,
        }
        return _plot(self.title, self._size, data, layout)


class Texts:
    """A window of the newest texts, the last on top."""

    def __init__(self, title: str):
        self._title = title
        self._entries: deque[str] = deque(maxlen=TEXTS)

    def add(self, heading: str, text: str) -> None:
        text = f'<div style="white-space:pre-wrap;font-size:17px;line-height:1.6">{html.escape(text)}</div>'
        self._entries.appendleft(_small(heading) + text)

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
    if "best_epoch" in metrics:
        metrics = {**metrics, "best_epoch": metrics["best_epoch"] + 1}  # as the console counts
    for heading, values in (("result", metrics), ("options", config)):
        if values:
            rows.append(f'<tr><th colspan="2" style="padding-top:6px">{heading}</th></tr>')
        for name, value in values.items():
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            name = f'<td style="padding-right:12px;color:#666">{html.escape(str(name))}</td>'
            rows.append(f"<tr>{name}<td>{html.escape(text)}</td></tr>")
    return _html("run", f'<table style="font-size:13px">{"".join(rows)}</table>')


def picture(title: str, heading: str, caption: str, image: Image.Image) -> Message:
    """A window with a picture, and what it shows below it."""
    image = image.convert("RGB")
    image.thumbnail((FULL - 40, TALL))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    width = next(width for width in (SMALL, LARGE, FULL) if width >= image.width + 30)
    lines = sum(1 + len(line) * 7 // width for line in caption.split("\n"))
    content = f'{_small(heading)}<img src="{source}" alt="" style="display:block;margin:4px 0">{_small(caption)}'
    return _html(title, content, (width, image.height + 90 + 17 * lines))


class Gradients:
    """A heat map of the largest gradients, over the steps: of each layer, or block of layers if there are many."""

    def __init__(self) -> None:
        self._columns: list[tuple[int, dict[str, float]]] = []
        self._heading = ""

    def add(self, heading: str, step: int, layers: dict[str, Sequence[Any]]) -> None:
        """`layers`: smallest, mean and largest entry of each one's gradient."""
        self._columns.append((step, {name: max(-float(v[0]), float(v[2])) for name, v in layers.items()}))
        self._heading = heading
        if len(self._columns) > GRADIENT_COLUMNS:
            self._columns = self._columns[::-2][::-1]

    def message(self) -> Message:
        blocks = _blocks(list(dict.fromkeys(name for _, layers in reversed(self._columns) for name in layers)))
        columns = [layers for _, layers in self._columns]
        rows = [[_log10(max(layers.get(name, 0) for name in block)) for layers in columns] for block in blocks.values()]
        known = [value for row in rows for value in row if value is not None] or [0.0]
        steps = [f"{step}" for step, _ in self._columns]
        data = {"type": "heatmap", "x": steps, "y": [_plot_text(_short(name)) for name in blocks], "z": rows}
        data |= {"zmin": math.floor(min(known)), "zmax": math.floor(max(known)) + 1, "colorscale": "Viridis"}
        data |= {"xgap": 1, "ygap": 1, "colorbar": {"tickprefix": "1e", "dtick": 1, "thickness": 12}}
        data |= {"hovertemplate": "%{y}, step %{x}: 1e%{z:.1f}<extra></extra>"}
        layout = {"xaxis": {"title": "step", "type": "category", "nticks": 12}}
        layout["yaxis"] = {"type": "category", "autorange": "reversed", "automargin": True, "dtick": 1}
        layout["yaxis"]["tickfont"] = {"size": 10}
        return _plot(f"largest gradient, {self._heading}", (LARGE, 100 + 16 * len(rows)), [data], layout)


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
            color = "white" if fractions[i][j] >= 0.4 else "#333"
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


def _blocks(names: list[str]) -> dict[str, list[str]]:
    """Names of layers by block: as many parts of each name as leave at most GRADIENT_ROWS blocks."""
    blocks: dict[str, list[str]] = {}
    for parts in range(max(name.count(".") for name in names) + 1, 0, -1):
        blocks = {}
        for name in names:
            blocks.setdefault(".".join(name.split(".")[:parts]), []).append(name)
        if len(blocks) <= GRADIENT_ROWS:
            break
    return blocks


def _log10(value: float) -> float | None:
    return math.log10(value) if 0 < value < math.inf else None


def _trace(name: str, x: list[Any], y: list[Any], color: str, mode: str = "lines") -> Message:
    marker = {"color": color, "size": 5, "symbol": "circle", "line": {}}  # visdom's smoothing wants a marker's line
    content = {"type": "scatter", "name": _plot_text(_short(name)), "x": x, "y": y, "mode": mode}
    return {**content, "line": {"color": color, "width": 1.5}, "marker": marker}


def _plot(title: str, size: tuple[int, int], data: list[Message], layout: dict[str, Any]) -> Message:
    layout = {**BASE_LAYOUT, **layout, "title": {"text": _plot_text(title), "x": 0.02, "font": {"size": 14}}}
    return {"data": data, "layout": layout, "opts": {"width": size[0], "height": size[1]}}


def _small(text: str) -> str:
    """A line above or below what a window shows."""
    return f'<div style="color:#888;font-size:12px;margin-top:8px;white-space:pre-wrap">{html.escape(text)}</div>'


def _html(title: str, content: str, size: tuple[int, int] = (SMALL, 380)) -> Message:
    # visdom shows HTML as it is, so whoever calls this has escaped it; MathJax leaves the class alone ($ is a $)
    style = f"font-family:{html.escape(FONT)};color:#222;padding:2px 10px"
    content = f'<div class="tex2jax_ignore" style="{style}"><b>{html.escape(title)}</b>{content}</div>'
    opts = {"title": title, "width": size[0], "height": size[1]}
    return {"data": [{"type": "text", "content": content}], "opts": opts}


def _plot_text(text: str) -> str:
    """For titles and legends: plotly takes some HTML tags, and formulas between $ signs."""
    return html.escape(text, quote=False).replace("$", "＄")


def spaced(name: str) -> str:
    return _short(name.replace("_", " "))


def _short(name: str) -> str:
    """The end of a name tells layers apart."""
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
