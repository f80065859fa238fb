"""The tab that shows training runs, also while they go on: the board's panels (board/charts.py) in Gradio's plots."""

import html
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from board.charts import Board
from demo.parts import QUIET, report
from training.recorder import LOG_NAME, read_log
from utils.errors import UserError

REFRESH = 3  # seconds between two looks at a run
EMPTY = '<div class="empty"><p>还没有训练</p><small>No runs yet: python main.py train</small></div>'
PAPER = {"paper_bgcolor": "#fbf8f1", "plot_bgcolor": "#fbf8f1"}


class TrainingTab:
    """Args: folder: where the folders of runs are."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def build(self, tab: gr.Tab) -> None:
        with gr.Row():
            run = gr.Dropdown([], label="训练 Run", scale=4, allow_custom_value=True)
            follow = gr.Checkbox(True, label="跟踪 Follow", scale=1, min_width=120)
        shown, timer = gr.JSON(visible="hidden"), gr.Timer(REFRESH, active=False)
        tab.select(self.runs, [run, follow], [run, timer], **QUIET)
        gr.on([tab.select, run.change, timer.tick], report(self.version), run, shown, **QUIET)
        follow.change(lambda on: gr.update(active=on), follow, timer, **QUIET)
        gr.render(shown, triggers=[shown.change], show_progress="hidden")(self.show)

    def runs(self, run: str | None, follow: bool) -> tuple:
        names = list_runs(self.folder)
        run = run if run in names else next(iter(names), None)
        return gr.update(choices=names, value=run), gr.update(active=follow)

    def version(self, run: str | None) -> tuple[str, int]:
        """(the run, when its log was written to): another one is shown anew."""
        if not run:
            return "", 0
        if run not in list_runs(self.folder):
            raise UserError(f"there is no run {str(run)[:100]}")
        return run, (self.folder / run / LOG_NAME).stat().st_mtime_ns

    def show(self, shown: list | None) -> None:
        """Puts the panels of a run on the page; `shown` is what `version` gave, back from the browser."""
        if not (isinstance(shown, list) and shown and shown[0] in list_runs(self.folder)):
            gr.HTML(EMPTY)
            return
        with gr.Row(elem_classes="panels"):
            for name, message in panels(self.folder / shown[0]):
                if content := html_of(message):
                    gr.HTML(content, key=name, preserved_by_key=None)
                else:
                    plot = PlotData(type="plotly", plot=json.dumps(figure_of(message)))
                    gr.Plot(plot, show_label=False, elem_classes="panel", key=name, preserved_by_key=None)


def list_runs(folder: str | Path) -> list[str]:
    """The names of the runs in a folder, the one that was written to last first."""
    logs = [(log.stat().st_mtime, log.parent.name) for log in Path(folder).glob(f"*/{LOG_NAME}")]
    return [name for _, name in sorted(logs, reverse=True)]


def panels(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(name, visdom's message) of each panel of the run in `folder`. Raises UserError if it has no log."""
    board = Board(folder)
    for record in read_log(folder):
        board.handle(record)
    return [(name, board.message(name)) for name in board.in_order()]


def html_of(message: dict[str, Any]) -> str:
    """A panel with texts, a table or a picture; empty if it is a plot."""
    content = message["data"][0].get("content")
    if content is None:
        return ""
    if isinstance(content, dict):
        content = f'<img src="{html.escape(content["src"])}" alt="">'
    return f'<section class="panel text"><h4>{html.escape(str(message["opts"]["title"]))}</h4>{content}</section>'


def figure_of(message: dict[str, Any]) -> dict[str, Any]:
    """A plot for Plotly; the names of its curves over the step have their last value."""
    data = [dict(trace) for trace in message["data"]]
    for trace in data:
        last = next((y for y in reversed(trace.get("y", [])) if isinstance(y, float)), None)
        if "range" not in message["layout"].get("xaxis", {}) and "lines" in trace.get("mode", "") and last is not None:
            trace["name"] = f"{trace['name']} {last:.4g}"
    margin = {**message["layout"]["margin"], "t": 60}  # the legend stands below the title
    layout = {**message["layout"], **PAPER, "margin": margin, "height": message["opts"]["height"]}
    return {"data": data, "layout": layout}
