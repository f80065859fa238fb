"""A watcher of runs that writes TensorBoard's event files; look at them with `tensorboard --logdir=checkpoints`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from board.charts import metrics_of, recorded_image
from board.windows import LEGENDS
from infer.photo.charts import chart_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoard:
    """A sink of the Recorder: writes every record into the run's folder, in the form TensorBoard has for it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer = SummaryWriter(str(folder))

    def handle(self, record: dict[str, Any]) -> None:
        """Writes one record."""
        step, name, write = record.get("step", 0), record.get("name", ""), self.writer
        match record["kind"]:
            case "batch" | "epoch":
                for metric, value in metrics_of(record):
                    write.add_scalar(f"{metric}/{record.get('split', 'batch')}", value, step)
            case "text":
                write.add_text(name, record["text"].replace("\n", "  \n"), step)
            case "image":
                picture = recorded_image(self.folder, record["path"])
                write.add_image(name, np.asarray(picture), step, dataformats="HWC")
                if caption := record.get("caption"):
                    write.add_text(name, caption.replace("\n", "  \n"), step)
            case "histogram":
                self._histogram(name, record["counts"], record["edges"], step)
            case "gradients":
                for layer, values in record["layers"].items():  # add_scalars would make a folder of each curve
                    for name, value in zip(("min", "mean", "max"), values, strict=True):
                        write.add_scalar(f"gradient {name}/{layer}", float(value), step)
            case "matrix":
                labels = record["labels"]
                rows = [["", *labels], *([a, *b] for a, b in zip(labels, record["rows"], strict=True))]
                lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
                write.add_text(name, "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]), step)
            case "curve":
                with chart_style():
                    write.add_figure(name, _draw_lines(record["lines"], *record["axes"]), step, close=False)
            case "final":
                options = {k: v for k, v in record["config"].items() if isinstance(v, (bool, int, float, str))}
                metrics = {f"final/{k}": float(v) for k, v in record["figures"].items()}
                write.add_hparams(options, metrics, run_name=".")

    def close(self) -> None:
        """Writes what is still in memory."""
        self.writer.close()

    def _histogram(self, name: str, counts: list[int], edges: list[float], step: int) -> None:
        middles = [(a + b) / 2 for a, b in zip(edges, edges[1:], strict=False)]
        sums = {"sum": float(np.dot(counts, middles)), "sum_squares": float(np.dot(counts, np.square(middles)))}
        sums |= {"min": edges[0], "max": edges[-1], "num": sum(counts)}
        buckets = {"bucket_limits": edges[1:], "bucket_counts": counts}
        self.writer.add_histogram_raw(name, **sums, **buckets, global_step=step)


def _draw_lines(lines: dict[str, Any], x_label: str, y_label: str) -> "Figure":
    """Lines {legend: (x, y)}, both 0~1, as a chart; many of them go without a legend."""
    from matplotlib.figure import Figure  # slow, and seldom needed

    figure = Figure(figsize=(4.8, 3.8), dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    drawn = [axes.plot(x, y)[0] for x, y in lines.values()]
    axes.grid(color="#e4e4e4", linewidth=0.6)
    if len(lines) <= LEGENDS:
        axes.legend(drawn, list(lines), loc="lower center")
    return figure
