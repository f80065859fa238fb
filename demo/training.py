"""The tab that shows training runs, also while they go on: a list, curves, samples, and the command to type next."""

import html
import shlex
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from board.charts import Board, recorded_image
from board.runs import file_stamp, list_runs
from board.windows import spaced
from demo.parts import CHOOSE, QUIET, to_url
from demo.words import WORDS, both, empty, in_both, text
from training.recorder import LOG_NAME, read_log
from utils.errors import UserError
from utils.text import short

REFRESH = 3  # seconds between two looks at the runs
EPOCHS = 20  # newest epochs whose samples are shown
SIDE = 640  # pixels, most width of a sample
HEADERS = ("run", "state", "epoch", "best", "task")
EMPTY = empty("no_runs", f"<small>{both('type')}<br><code>python main.py train</code></small>")
# The last size of a plot that is removed comes when it is gone, and Gradio's script would fail on that.
IGNORE_REMOVED = """() => {
  window.SizeObserver ??= ResizeObserver;
  window.ResizeObserver = class extends SizeObserver {
    constructor(call) { super((sizes, observer) => sizes[0].target.isConnected && call(sizes, observer)); }
  };
}"""
# A plot has no colour for a curve that comes later: all but these have room for that of the validation.
ONLY_TRAINING = ("lr", "grad norm")
SAMPLES = ("text", "image", "matrix")  # kinds of records


class TrainingTab:
    """Args: folder: where the folders of runs are."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def build(self, tab: gr.Tab) -> None:
        chosen, shown, timer = gr.State(""), gr.JSON(visible="hidden"), gr.Timer(REFRESH, active=False)
        nothing = gr.HTML(EMPTY)
        with gr.Column(visible=False) as content:
            runs = gr.HTML(js_on_load=CHOOSE)
            about = gr.HTML()
            with gr.Row():
                resume, use = (
                    gr.Textbox(label=text(name), interactive=False, buttons=["copy"]) for name in ("resume", "use")
                )
            gr.render(chosen, triggers=[shown.change], show_progress="hidden")(self.draw)
            samples = gr.HTML()
        outputs = [chosen, shown, nothing, content, runs, about, resume, use, samples]
        gr.on([tab.select, timer.tick], self.look, [chosen, shown], outputs, **QUIET)
        runs.click(self.choose, shown, outputs, **QUIET)
        tab.select(lambda: gr.update(active=True), None, timer, js=IGNORE_REMOVED, **QUIET)

    def choose(self, shown: dict | None, event: gr.EventData) -> list:
        """The run that was clicked."""
        try:
            name = shown["rows"][event.index][0]
        except (AttributeError, LookupError, TypeError):  # a request that the page has not sent
            name = ""
        return self.look(name, shown)

    def look(self, name: str, shown: dict | None) -> list:
        """What has changed since `shown`, for the outputs of `build`; without such a run, the newest one."""
        found = list_runs(self.folder)
        run = next((run for run in found if run["run"] == name), found[0] if found else None)
        if run is None:
            return ["", None, gr.update(visible=True), gr.update(visible=False), *[gr.skip()] * 5]
        folder, rows = self.folder / run["run"], [row(run) for run in found]
        broken, version = run["state"] == "broken", stamp(folder)
        records = [] if broken else read_samples(folder, version)
        now = {"run": run["run"], "rows": rows, "log": version, "samples": len(records)}
        shown = shown if isinstance(shown, dict) else {}
        if now == shown:
            return [gr.skip()] * 9
        same = shown.get("run") == now["run"]
        return [
            run["run"],
            now,
            gr.update(visible=False),
            gr.update(visible=True),
            gr.skip() if same and shown.get("rows") == rows else runs_html(rows, run["run"]),
            about_html(run),
            *(gr.update(value=command, visible=bool(command)) for command in commands(run, folder)),
            gr.skip() if same and shown.get("samples") == len(records) else samples_html(folder, records, run),
        ]

    def draw(self, name: str) -> None:
        """The curves of a run, in Gradio's plots; those that are there already get the new points."""
        folder = self.folder / name
        if name not in {run["run"] for run in list_runs(self.folder) if run["state"] != "broken"}:
            return
        axes = {"x": "x", "y": "y", "color": "curve", "color_title": "", "tooltip": "all"}
        with gr.Row(elem_classes="panels"):
            for title, (x_title, y_title), points in read_plots(folder, stamp(folder)):
                named = {"label": title, "x_title": x_title, "y_title": y_title, "key": title}
                gr.LinePlot(points, **axes, **named, elem_classes="panel", preserved_by_key=None)


def stamp(folder: Path) -> str:
    """Another one where the log of a run has changed."""
    return str(file_stamp(folder / LOG_NAME))


def row(run: dict[str, Any]) -> list[str]:
    """A run in the list; the state as HTML, epochs as the console counts them."""
    epochs = f"{run['epoch']}/{run['config'].get('max_epoch', '?')}" if run["epoch"] else ""
    best = run["best"].get(run["monitor"])  # the metric that decides which weights are kept
    metric = "" if best is None else f"{spaced(run['monitor'])} {short(float(best), 4)}"
    return [run["run"], both(run["state"]), epochs, metric, str(run["task"])]


def runs_html(rows: list[list[str]], chosen: str) -> str:
    """The list of runs, to choose from; `rows`: see `row`."""
    heads = "".join(f'<th scope="col">{both(name)}</th>' for name in HEADERS)
    lines = []
    for i, (name, state, *rest) in enumerate(rows):
        pressed = "true" if name == chosen else "false"
        button = f'<button data-index="{i}" aria-pressed="{pressed}">{html.escape(name)}</button>'
        cells = "".join(f"<td>{cell}</td>" for cell in (button, state, *map(html.escape, rest)))
        lines.append(f'<tr data-index="{i}">{cells}</tr>')
    return f'<div class="runs"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def about_html(run: dict[str, Any]) -> str:
    name, state, epochs, metric, task = row(run)
    facts = [html.escape(task), state, epochs and epoch_html(epochs), html.escape(metric)]
    about = f"<h3>{html.escape(name)}</h3><p>{' · '.join(filter(None, facts))}</p>"
    if run["state"] == "broken":
        about += f"<p>{both('broken_log')}<br><small>{html.escape(run['error'])}</small></p>"
    return f'<section class="about">{about}</section>'


def epoch_html(epoch: str) -> str:
    """ "2/3" as HTML in both languages."""
    epoch = html.escape(epoch)
    return in_both(f"第 {epoch} 轮", f"epoch {epoch}")


def commands(run: dict[str, Any], folder: Path) -> tuple[str, str]:
    """What continues an interrupted run, and what uses the best model so far; empty where there is no such."""
    best_file = folder / "best.safetensors"
    resume = f"python main.py train --resume={shlex.quote(str(folder))}" if run["state"] == "interrupted" else ""
    use = f"python main.py {run['command']} --load={shlex.quote(str(best_file))}" if run["command"] else ""
    return resume, use if best_file.exists() else ""


@lru_cache(maxsize=8)
def read_plots(folder: Path, version: str) -> list[tuple[str, tuple[str, str], pd.DataFrame]]:
    """(title, names of the axes, points x, y, curve) of each plot of a run; `version`: its `stamp`."""
    board, newest, found = Board(folder), {}, []
    for record in read_log(folder):
        board.handle(record)
        if record.get("kind") == "curve":
            newest[record.get("name")] = record
    for window in board.lines():
        lines = {name: curve.points() for name, curve in window.curves.items()}
        if "train" in lines and window.title not in ONLY_TRAINING:
            lines.setdefault("val", ([lines["train"][0][0]], [None]))
        found.append((window.title, ("step", window.title), lines))
    for name, record in newest.items():
        try:
            lines = {str(n): (list(map(float, x)), list(map(float, y))) for n, (x, y) in record["lines"].items()}
            x_name, y_name = record["axes"]
            found.append((f"{spaced(name)}, epoch {record['epoch'] + 1}", (str(x_name), str(y_name)), lines))
        except (LookupError, TypeError, ValueError, AttributeError):
            continue  # of another version
    return [(title, axes, frame(lines)) for title, axes, lines in found]


def frame(lines: dict[str, tuple[list, list]]) -> pd.DataFrame:
    """Points x, y of each curve; a curve of one point becomes a dash, for as a line it would not be seen."""
    dash = 0.02 * max(max(x) for x, _ in lines.values())
    lines = {name: (x, y) if len(x) > 1 else ([x[0] - dash, x[0]], y * 2) for name, (x, y) in lines.items()}
    columns = [pd.DataFrame({"x": x, "y": y, "curve": name}) for name, (x, y) in lines.items()]
    return pd.concat(columns).astype({"x": float, "y": float}).replace([np.inf, -np.inf], np.nan)


@lru_cache(maxsize=8)
def read_samples(folder: Path, version: str) -> list[dict[str, Any]]:
    """The records of a run's samples, the newest epoch first; `version`: its `stamp`."""
    records = [r for r in read_log(folder) if r.get("kind") in SAMPLES and isinstance(r.get("epoch"), int)]
    return sorted(records, key=lambda record: -record["epoch"])


def samples_html(folder: Path, records: list[dict[str, Any]], run: dict[str, Any]) -> str:
    """Poems, pictures and tables of the newest epochs."""
    total, sections = run["config"].get("max_epoch", "?"), []
    for epoch, group in islice(groupby(records, lambda record: record["epoch"]), EPOCHS):
        panels = "".join(sample_html(folder, record) for record in group)
        sections.append(f'<h4>{epoch_html(f"{epoch + 1}/{total}")}</h4><div class="panels">{panels}</div>')
    return "".join(sections) or ("" if run["state"] == "broken" else f'<p class="key">{both("no_samples")}</p>')


def sample_html(folder: Path, record: dict[str, Any]) -> str:
    """One text, picture or table; empty if it cannot be shown."""
    try:
        if record["kind"] == "text":
            content = f'<div style="white-space:pre-wrap">{html.escape(record["text"])}</div>'
        elif record["kind"] == "image":
            content = f'<img src="{picture_url(folder, record["path"])}" alt="">'
            content += f"<small>{html.escape(record.get('caption', ''))}</small>"
        else:
            content = pd.DataFrame(record["rows"], record["labels"], record["labels"]).to_html(border=0)
        name = record["name"]
        title = both(name) if name in WORDS else html.escape(spaced(name))
        return f'<figure class="panel text"><h5>{title}</h5>{content}</figure>'
    except (UserError, LookupError, TypeError, ValueError, AttributeError, OSError):  # of another version, or gone
        return ""


@lru_cache(maxsize=200)
def picture_url(folder: Path, path: str) -> str:
    image = recorded_image(folder, path)
    image.thumbnail((SIDE, SIDE))
    return to_url(np.asarray(image))
