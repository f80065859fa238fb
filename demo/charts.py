"""What a run's log looks like on the page: HTML with curves as SVG, samples, tables. No server, no scripts.

Which panels there are, and what is thinned out, is in board/charts.py; visdom's board shows the same.
"""

import html
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from board.charts import Board
from training.recorder import LOG_NAME, read_log

WIDTH, HEIGHT = 420, 220  # of a chart, in units of its own; it is scaled to the page
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 10, 26  # margins
COLORS = {"train": "#8a8175", "val": "#a8322a", "test": "#2f6b5e", "data": "#a8322a", "model": "#8a8175"}
OTHER_COLORS = ("#2b2622", "#a8322a", "#2f6b5e", "#b58a2e", "#4a6a9a", "#8a8175")


def list_runs(folder: str | Path) -> list[str]:
    """The names of the runs in a folder, the one that was written to last first."""
    logs = [(log.stat().st_mtime, log.parent.name) for log in Path(folder).glob(f"*/{LOG_NAME}")]
    return [name for _, name in sorted(logs, reverse=True)]


def run_html(folder: Path) -> str:
    """The panels of the run in `folder`. Raises UserError if it has no log."""
    log = folder / LOG_NAME
    changed = log.stat().st_mtime_ns if log.exists() else 0
    return _run_html(folder, changed)


@lru_cache(maxsize=8)
def _run_html(folder: Path, changed: int) -> str:
    board = Board(folder)
    for record in read_log(folder):
        board.handle(record)
    panels = [panel for name in board.in_order() if (panel := _panel(board.message(name)))]
    return f'<div class="panels">{"".join(panels)}</div>'


def _panel(message: dict[str, Any]) -> str:
    """One panel from what visdom would get; empty for kinds that are not shown here."""
    kind = message["data"][0].get("type")
    title = message["opts"].get("title") or message.get("layout", {}).get("title", {}).get("text", "")
    content = ""
    if kind == "scatter" and message["data"][0]["mode"] != "markers":
        content = _chart(message["data"], message["layout"])
    elif kind == "text":
        content = message["data"][0]["content"]
    elif kind == "image":
        content = f'<img src="{html.escape(message["data"][0]["content"]["src"])}" alt="">'
    elif kind == "heatmap":
        content = _table(message)
    title = html.escape(html.unescape(str(title)))  # plotly's titles are escaped already, the others not
    return f'<section class="panel {kind}"><h4>{title}</h4>{content}</section>' if content else ""


def _chart(curves: list[dict[str, Any]], layout: dict[str, Any]) -> str:
    """Curves {"name", "x", "y" (None: a gap)} as SVG, with axes and a legend.

    Where the layout fixes the axes' ranges, they are no figures over the step: the legend says what they are.
    """
    points = [(x, y) for curve in curves for x, y in zip(curve["x"], curve["y"], strict=True) if y is not None]
    if not points:
        return ""
    x_low, x_high = 0.0, max(x for x, _ in points) or 1.0
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    if y_high == y_low:
        y_low, y_high = y_low - 0.5, y_high + 0.5
    if fixed := "range" in layout["xaxis"]:
        (x_low, x_high), (y_low, y_high) = layout["xaxis"]["range"], layout["yaxis"]["range"]

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in _ticks(y_low, y_high):
        _, y = place(0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(x_low, x_high):
        x, _ = place(value, y_low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:g}</text>')
    legend = []
    for number, curve in enumerate(curves):
        name = html.unescape(curve["name"])
        color = COLORS.get(name, OTHER_COLORS[number % len(OTHER_COLORS)])
        for piece in _pieces(curve["x"], curve["y"]):
            places = [place(x, y) for x, y in piece]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{line}" stroke="{color}"/>')
            if len(curve["x"]) <= 30:  # the epochs: single points are seen by their markers only
                parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>' for x, y in places]
        if name and curve.get("showlegend", True):
            last = next((y for y in reversed(curve["y"]) if y is not None), math.nan)
            label = name if fixed else f"{name} {last:.4g}"
            legend.append(f'<span><i style="background:{color}"></i>{html.escape(label)}</span>')
    if fixed:
        what = f"{layout['yaxis']['title']} over {layout['xaxis']['title']}"
        legend.append(f"<span>{html.escape(html.unescape(what))}</span>")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f'{svg}<div class="legend">{"".join(legend)}</div>'


def _pieces(xs: list[float], ys: list[float | None]) -> list[list[tuple[float, float]]]:
    """The points of a curve, cut at the gaps."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    return [piece for piece in pieces if piece]


def _ticks(low: float, high: float) -> list[float]:
    """At least three round numbers between `low` and `high`, no more than needed."""
    power = 10 ** math.floor(math.log10(high - low))
    for step in (power, power / 2, power / 5, power / 10):
        ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
        if len(ticks) >= 3:
            break
    return [round(i * step, 12) for i in ticks]


def _table(message: dict[str, Any]) -> str:
    """A heat map as a table of shares; rows are the truth."""
    data = message["data"][0]
    head = "".join(f"<th>{html.escape(html.unescape(label))}</th>" for label in data["x"])
    rows = [
        f"<tr><th>{html.escape(html.unescape(label))}</th>"
        + "".join(f'<td style="--share:{share:.3f}">{share:.1%}</td>' for share in row)
        + "</tr>"
        for label, row in zip(data["y"], data["z"], strict=True)
    ]
    return f'<table class="matrix"><tr><th></th>{head}</tr>{"".join(rows)}</table>'
