"""The charts of a classifier's report, by matplotlib: confusion, curves, distribution, calibration."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from infer.photo.metrics import BINS, calibration_bins, one_vs_rest, precision_recall, roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = 8  # most curves of a chart that are told apart by colour
LABEL = 18  # most characters of a class in a chart
COLORS = ("#1f6fb4", "#e0701a", "#3a8f4d", "#8a5fb0", "#b0473f", "#11889a", "#a08415", "#c0559b")
GRID = {"color": "#e4e4e4", "linewidth": 0.6}
DIAGONAL = {"color": "#aaaaaa", "linewidth": 0.8, "linestyle": "--"}


def draw_charts(
    labels: np.ndarray | None, probs: np.ndarray, classes: Sequence[str]
) -> Iterator[tuple[str, str, "Figure"]]:
    """(name of the file, what is to be seen, figure) of what can be drawn, of labels (N) and probabilities (N, K)."""
    from matplotlib.figure import Figure

    two, last = len(classes) == 2, f"probability of {classes[-1]}"
    charts: dict[str, tuple[Callable[..., None], str]] = {}
    if labels is not None:
        charts["confusion.png"] = (draw_confusion, "Confusion: what the pictures of each class were taken for")
        if one_vs_rest(labels, len(classes)):
            which = f"{classes[1]} against {classes[0]}" if two else "each class against the rest"
            charts["roc.png"] = (partial(draw_curves, "roc"), f"ROC: {which}")
            charts["precision_recall.png"] = (
                partial(draw_curves, "precision_recall"),
                f"Precision and recall: {which}",
            )
    how = last if two else "confidence" if labels is None else "confidence of right and wrong answers"
    charts["distribution.png"] = (draw_distribution, f"Distribution: {how}")
    if labels is not None:
        charts["calibration.png"] = (draw_calibration, "Calibration: is 90 % sure right in 90 % of cases?")
    short = [name if len(name) <= LABEL else name[: LABEL - 1] + "…" for name in classes]
    for name, (draw, text) in charts.items():
        with chart_style():
            figure = Figure(figsize=(4.8, 3.8), dpi=200, layout="constrained")
            draw(figure, labels, probs, short)
            yield name, text, figure


@contextmanager
def chart_style() -> Iterator[None]:
    """Plain charts in fonts that have Chinese characters."""
    import matplotlib
    from matplotlib import font_manager
    from pylopdf_fonts_zh_cn import sans_path

    if "Noto Sans SC" not in font_manager.get_font_names():
        font_manager.fontManager.addfont(sans_path())
    style = {
        "font.family": ["DejaVu Sans", "Noto Sans SC"],
        "font.size": 9,
        "text.parse_math": False,  # a $ in the name of a class is a $
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.prop_cycle": matplotlib.cycler(color=COLORS),
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a character that no font has is a box
        yield


def draw_confusion(figure: "Figure", labels: np.ndarray, probs: np.ndarray, classes: Sequence[str]) -> None:
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, probs.argmax(1), labels=range(len(classes)))  # (K, K)
    side = min(4 + 0.42 * max(0, len(classes) - 4), 20)
    figure.set_size_inches(side + 0.6, side)
    fraction = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes = figure.add_subplot(xlabel="prediction", ylabel="label")
    image = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    steep = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(classes) > 3 else {}
    axes.set_xticks(range(len(classes)), classes, **steep)
    axes.set_yticks(range(len(classes)), classes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (i, j), count in np.ndenumerate(matrix):
        if count and len(classes) <= 40:
            color = "white" if fraction[i, j] > 0.5 else "#222222"
            axes.text(j, i, f"{count:,}", ha="center", va="center", color=color)
    figure.colorbar(image, shrink=0.8, label="share of the label's pictures").outline.set_visible(False)


def draw_curves(kind: str, figure: "Figure", labels: np.ndarray, probs: np.ndarray, classes: Sequence[str]) -> None:
    """A curve for each class, with its area: the worst in colours, the best first; the others thin and grey."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if kind == "roc":
        curve, area, place = roc, roc_auc_score, "lower right"
        axes = figure.add_subplot(xlabel="false positive rate", ylabel="true positive rate")
        axes.plot([0, 1], [0, 1], **DIAGONAL)  # chance
    else:
        curve, area, place = precision_recall, average_precision_score, "lower left"
        axes = figure.add_subplot(xlabel="recall", ylabel="precision")
    chosen = [(labels == k, probs[:, k], classes[k]) for k in one_vs_rest(labels, len(classes))]
    curves = [(area(positive, scores), name, curve(positive, scores)) for positive, scores, name in chosen]
    curves.sort(key=lambda entry: entry[0])
    for _, _, points in curves[CURVES:]:
        axes.plot(*points, color="#bbbbbb", linewidth=0.6)
    for value, name, points in curves[:CURVES]:
        axes.plot(*points, label=f"{value:.4f} {name}", linewidth=1.6)
    title = f"area ({CURVES} worst of {len(curves)})" if len(curves) > CURVES else "area"
    axes.legend(loc=place, title=title, title_fontsize=8)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(**GRID)


def draw_distribution(figure: "Figure", labels: np.ndarray | None, probs: np.ndarray, classes: Sequence[str]) -> None:
    two = len(classes) == 2
    values = probs[:, 1] if two else probs.max(1)  # (N)
    if labels is None:
        groups = {"all pictures": values}
    elif two:
        groups = {f"label {name}": values[labels == k] for k, name in enumerate(classes)}
    else:
        right = labels == probs.argmax(1)
        groups = {"right": values[right], "wrong": values[~right]}
    text = f"probability of {classes[1]}" if two else "confidence: probability of the predicted class"
    axes = figure.add_subplot(xlabel=text, xlim=(0, 1))
    for name, part in groups.items():
        axes.hist(part, bins=np.linspace(0, 1, 26), alpha=0.55, label=f"{name} ({len(part):,})")
    _count_axis(axes)
    axes.legend(loc="upper center")
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)


def draw_calibration(figure: "Figure", labels: np.ndarray, probs: np.ndarray, classes: Sequence[str]) -> None:
    count, said, true = calibration_bins(labels == probs.argmax(1), probs.max(1))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled, middle = count > 0, (np.arange(BINS) + 0.5) / BINS
    upper.plot([0, 1], [0, 1], **DIAGONAL)
    upper.bar(middle[filled], true[filled], 0.9 / BINS, color=COLORS[0], alpha=0.35, label="accuracy in the bin")
    upper.plot(said[filled], true[filled], "o-", color=COLORS[0], markersize=3.5, linewidth=1.2)
    upper.set(ylim=(0, 1.02), ylabel="accuracy")
    upper.legend(loc="upper left")
    lower.bar(middle, count, 0.9 / BINS, color=COLORS[1], alpha=0.7)
    lower.set(xlim=(0, 1), xlabel="confidence")
    _count_axis(lower)


def _count_axis(axes: "Axes") -> None:
    """Numbers of pictures upwards, on a logarithmic scale."""
    axes.set(yscale="log", ylabel="pictures")
    axes.set_ylim(bottom=0.7)  # one picture must be seen
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
