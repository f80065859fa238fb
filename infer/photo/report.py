"""The report on a classifier: figures, tables, charts and a page about its probabilities for many pictures.

It knows no task and no network: pictures and their explanations come from functions that the caller gives.

Arrays: N pictures, K classes; a label is the number of a class.
"""

import csv
import html
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from utils.errors import UserError
from utils.files import atomic_save, atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 15  # of confidence, for the calibration
SHOWN = 8  # pictures in each row of samples
CONFUSED = 5  # classes that a class is most often taken for
CURVES = 8  # most curves of a chart that are told apart by colour
SIDE = 480  # pixels, longest side of a sample
LABEL = 18  # most characters of a class in a chart
COLORS = ("#1f6fb4", "#e0701a", "#3a8f4d", "#8a5fb0", "#b0473f", "#11889a", "#a08415", "#c0559b")
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei"),
    *(
        "SimHei",
        "WenQuanYi Micro Hei",
        "WenQuanYi Zen Hei",
        "Noto Serif CJK SC",
        "Noto Sans CJK JP",
        "Arial Unicode MS",
    ),
)
FILES = (
    *("report.html", "figures.json", "predictions.csv", "confusion.csv", "per_class.csv", "suspects.csv"),
    *("confusion.png", "roc.png", "precision_recall.png", "distribution.png", "calibration.png"),
)


@dataclass(frozen=True)
class Results:
    """What is known of N pictures; `labels` is None if their classes are not."""

    names: list[str]
    labels: np.ndarray | None  # (N) int
    probabilities: np.ndarray  # (N, K) float64, rows sum to 1
    classes: list[str]

    @property
    def predictions(self) -> np.ndarray:
        return self.probabilities.argmax(1)  # (N)

    @property
    def confidence(self) -> np.ndarray:
        return self.probabilities.max(1)  # (N)

    @property
    def self_confidence(self) -> np.ndarray:
        """The probability of each picture's own label."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]  # (N)


@dataclass(frozen=True)
class Suspect:
    """A picture whose label may be wrong; `margin`: how much likelier the suggested class is than the label."""

    index: int
    suggestion: int
    margin: float


# -------------------------------------------------------------------------------------------------------- figures


def figures(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Figures of a classifier on labelled pictures.

    Args:
        labels: (N) numbers of classes.
        probabilities: (N, K); rows are scaled to sum to 1.
        classes: K names.

    Returns accuracy, log_loss, auc, average_precision, calibration_error, macro_precision, macro_recall, macro_f1, and
    CLASS_precision, CLASS_recall, CLASS_f1 for each class. The macro figures are means over the classes; auc (area
    under the ROC curve) and average_precision are the last class's of two, else means of each class against the rest.

    What is not defined is left out: figures of a class without pictures, which the means leave out, too; auc and
    average_precision if there is one class only. The precision of a class that is never predicted is 0.
    """
    return _figures(_results([""] * len(labels), labels, probabilities, classes))


def _results(names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Results:
    chances = np.asarray(probabilities, np.float64)
    chances = chances / chances.sum(1, keepdims=True)  # float32 leaves them 1e-7 off, which scikit-learn minds
    if not np.isfinite(chances).all():
        name = names[int(np.isfinite(chances).all(1).argmin())]
        raise UserError(f"{name}: the probabilities are not finite numbers; give a network whose training did not fail")
    return Results(
        [_plain(name) for name in names], np.asarray(labels).astype(int), chances, [_plain(name) for name in classes]
    )


def _part(results: Results, known: np.ndarray) -> Results:
    """The pictures of these numbers; all of them, as unlabelled ones, if there are none."""
    if not len(known):
        return replace(results, labels=None)
    names = [results.names[i] for i in known]
    return replace(results, names=names, labels=results.labels[known], probabilities=results.probabilities[known])


def _figures(results: Results) -> dict[str, float]:
    from sklearn import metrics  # takes a second: only if it is needed

    labels, chances = results.labels, results.probabilities
    found = {
        "accuracy": metrics.accuracy_score(labels, results.predictions),
        "log_loss": metrics.log_loss(labels, chances, labels=range(len(results.classes))),
    }
    curves = _rest(results)
    if curves:
        found["auc"] = np.mean([metrics.roc_auc_score(labels == k, chances[:, k]) for k in curves])
        areas = [metrics.average_precision_score(labels == k, chances[:, k]) for k in curves]
        found["average_precision"] = np.mean(areas)
    found["calibration_error"] = calibration_error(labels == results.predictions, results.confidence)
    present = np.unique(labels)
    names = ("precision", "recall", "f1")
    per_class = np.array(_scores(results, present)[:3])  # (3, classes with pictures)
    found |= {f"macro_{name}": value for name, value in zip(names, per_class.mean(1), strict=True)}
    for k, values in zip(present, per_class.T, strict=True):
        for name, value in zip(names, values, strict=True):
            found.setdefault(f"{results.classes[k]}_{name}", value)  # a class may be called "macro"
    return {name: float(value) for name, value in found.items()}


def _rest(results: Results) -> list[int]:
    """The classes that are told from the rest in curves: the last of two, else each one with pictures."""
    present = np.unique(results.labels).tolist()
    if len(present) < 2:
        return []
    return [1] if len(results.classes) == 2 else present


def _scores(results: Results, classes: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and number of pictures of each of `classes`."""
    from sklearn.metrics import precision_recall_fscore_support

    return precision_recall_fscore_support(results.labels, results.predictions, labels=classes, zero_division=0)


def _calibration(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of BINS equal bins of confidence, upper edge included: pictures, mean confidence and accuracy, (BINS)."""
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # (N)
    count = np.bincount(number, minlength=BINS)
    divisor = np.maximum(count, 1)
    sums = (np.bincount(number, weights=values, minlength=BINS) for values in (confidence, right))
    return count, *(total / divisor for total in sums)


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3): how far confidence and accuracy are apart.

    Args:
        right: (N) whether the predicted class is the right one.
        confidence: (N) the probability of the predicted class.
    """
    count, said, true = _calibration(right, confidence)
    return float((count * np.abs(true - said)).sum() / len(right))


def confusion(results: Results) -> np.ndarray:
    """(K, K) numbers of pictures: a row for each class, a column for what its pictures were taken for."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(results.labels, results.predictions, labels=range(len(results.classes)))


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> list[Suspect]:
    """Pictures whose labels may be wrong, the likeliest first, by confident learning.

    A class counts as confident for a picture if its probability there is not below its mean over the pictures with that
    label; the picture belongs to the likeliest of them. Pictures that belong to another class than their label are the
    ones off the diagonal of the confident joint (Northcutt et al. 2021, equation 1), ranked by margin (section 3.2).

    Args:
        labels: (N); probabilities: (N, K). A class without labelled pictures has no threshold and is never suggested.
    """
    count = np.bincount(labels, minlength=probabilities.shape[1])  # (K)
    own = probabilities[np.arange(len(labels)), labels]  # (N)
    total = np.bincount(labels, weights=own, minlength=len(count))
    threshold = np.where(count > 0, total / np.maximum(count, 1), np.inf)  # (K)
    confident = np.where(probabilities >= threshold, probabilities, -1.0)  # (N, K)
    suggestion = confident.argmax(1)
    margin = probabilities[np.arange(len(labels)), suggestion] - own
    off = np.flatnonzero((confident.max(1) >= 0) & (suggestion != labels))
    order = off[np.argsort(-margin[off], kind="stable")]
    return [Suspect(int(i), int(suggestion[i]), float(margin[i])) for i in order]


# --------------------------------------------------------------------------------------------------------- report


def write_report(
    folder: str | Path,
    title: str,
    names: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    picture: Callable[[int], np.ndarray],
    explain: Callable[[list[int], list[int]], list[np.ndarray]] | None,
    notes: dict[str, str],
) -> dict[str, float]:
    """Writes report.html and all that it shows, in files of its own, into `folder`.

    What an earlier report left there is removed. Pictures without a label are in predictions.csv only; where none has
    one, the distribution is theirs.

    Args:
        folder: made if missing.
        title: of the page.
        names: N names of pictures, for people; anybody's, so they are escaped.
        labels: (N) numbers of classes; -1: unknown.
        probabilities: (N, K); rows are scaled to sum to 1.
        classes: K names.
        picture: number of a picture -> (H, W, 3) uint8.
        explain: (numbers of pictures, as many of classes) -> what speaks for the class, (H, W, 3) uint8 each; or None.
        notes: what the page says of data and model.

    Returns the figures, see `figures`; none of unlabelled pictures. Raises UserError if a file cannot be written, and
    for probabilities that are not finite.
    """
    results = _results(names, labels, probabilities, classes)
    everything, known = results, np.flatnonzero(results.labels >= 0)  # (N')
    results = _part(results, known)
    folder = Path(folder)
    _remove_old(folder)
    found: dict[str, float] = {}
    rows: list[tuple[str, str, list[str]]] = []
    if results.labels is not None:
        found = _figures(results)
        doubtful = suspects(results.labels, results.probabilities)
        atomic_write(folder / "figures.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        _write_csv(folder / "confusion.csv", ["label", *results.classes], _confusion_rows(results))
        _write_csv(folder / "per_class.csv", _per_class_header(), _per_class_rows(results))
        header = ["name", "label", "suggestion", "label_probability", "suggestion_probability", "margin"]
        _write_csv(folder / "suspects.csv", header, _suspect_rows(results, doubtful))
        numbers = known.tolist()  # of the labelled among all

        def explain_known(indices: list[int], targets: list[int]) -> list[np.ndarray]:
            return explain([numbers[i] for i in indices], targets)

        rows = _sample_rows(
            folder, results, doubtful, lambda i: picture(numbers[i]), explain_known if explain else None
        )
    header = ["name", "label", "prediction", *results.classes]
    _write_csv(folder / "predictions.csv", header, _prediction_rows(everything))
    charts = _write_charts(folder, results)
    atomic_write(folder / "report.html", _page(title, notes, results, found, charts, rows, folder))
    return found


def _remove_old(folder: Path) -> None:
    """Removes the files of an earlier report, so that none is taken for one of this."""
    kinds = ("best", "worst", "suspect")
    old = [folder / name for name in FILES]
    old += [path for kind in kinds for path in (folder / "samples").glob(f"{kind}_*.png")]
    for path in old:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; give another folder") from error


def _plain(text: str) -> str:
    """Text that every file takes: names of files may hold bytes that are no characters, and line breaks."""
    return "".join(c if c.isprintable() or c == "\u3000" else repr(c)[1:-1] for c in str(text))


# --------------------------------------------------------------------------------------------------------- tables


def _write_csv(path: Path, header: list[str], rows: Iterator[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def _prediction_rows(results: Results) -> Iterator[list[Any]]:
    predictions = results.predictions
    for i, name in enumerate(results.names):
        label = results.classes[results.labels[i]] if results.labels[i] >= 0 else ""
        yield [name, label, results.classes[predictions[i]], *results.probabilities[i].tolist()]


def _confusion_rows(results: Results) -> Iterator[list[Any]]:
    for name, row in zip(results.classes, confusion(results), strict=True):
        yield [name, *row.tolist()]


def _confused(row: np.ndarray, own: int) -> list[tuple[int, int]]:
    """(class, pictures) of the classes that class `own` is most often taken for, by its row of the confusion matrix."""
    order = np.argsort(-row, kind="stable").tolist()
    return [(k, int(row[k])) for k in order if k != own and row[k]][:CONFUSED]


def _per_class_header() -> list[str]:
    ranks = [f"{word}_{rank}" for rank in range(1, CONFUSED + 1) for word in ("confused", "count")]
    return ["class", "support", "precision", "recall", "f1", *ranks]


def _per_class_rows(results: Results) -> Iterator[list[Any]]:
    """Precision, recall and F1 of a class without pictures are empty."""
    matrix = confusion(results)
    scores = zip(*_scores(results, range(len(results.classes))), strict=True)
    for k, (precision, recall, f1, support) in enumerate(scores):
        values = [float(v) for v in (precision, recall, f1)] if support else ["", "", ""]
        confused = [x for other, count in _confused(matrix[k], k) for x in (results.classes[other], count)]
        yield [results.classes[k], int(support), *values, *confused, *[""] * (2 * CONFUSED - len(confused))]


def _suspect_rows(results: Results, doubtful: list[Suspect]) -> Iterator[list[Any]]:
    for suspect in doubtful:
        label, chances = results.labels[suspect.index], results.probabilities[suspect.index]
        names = results.names[suspect.index], results.classes[label], results.classes[suspect.suggestion]
        yield [*names, float(chances[label]), float(chances[suspect.suggestion]), suspect.margin]


# -------------------------------------------------------------------------------------------------------- samples


def _sample_rows(
    folder: Path,
    results: Results,
    doubtful: list[Suspect],
    picture: Callable[[int], np.ndarray],
    explain: Callable[[list[int], list[int]], list[np.ndarray]] | None,
) -> list[tuple[str, str, list[str]]]:
    """(heading, explanation, HTML of each sample); the pictures are written into samples/."""
    right = np.flatnonzero(results.predictions == results.labels)
    best = right[np.argsort(-results.confidence[right], kind="stable")][:SHOWN]
    worst = np.argsort(results.self_confidence, kind="stable")[:SHOWN]  # the least probable label: the largest loss
    predicted = results.predictions
    chosen = {
        "best": [(int(i), int(predicted[i])) for i in best],
        "worst": [(int(i), int(predicted[i])) for i in worst],
        "suspect": [(suspect.index, suspect.suggestion) for suspect in doubtful[:SHOWN]],
    }
    headings = {
        "best": ("Best", "Right, and the surest."),
        "worst": ("Worst", "The largest losses: the label was thought least likely."),
        "suspect": (
            "Labels that may be wrong",
            f"{len(doubtful)} of {len(results.names)} pictures look more like another class than is usual for that "
            "class itself (confident learning); the most striking first. Look before you change a label.",
        ),
    }
    rows = []
    for kind, samples in chosen.items():
        heats = explain(*map(list, zip(*samples, strict=True))) if explain and samples else [None] * len(samples)
        cells = []
        for rank, ((index, k), heat) in enumerate(zip(samples, heats, strict=True), 1):
            files = {f"samples/{kind}_{rank}.png": picture(index)}
            if heat is not None:
                files[f"samples/{kind}_{rank}_explained.png"] = heat
            for name, rgb in files.items():
                _write_picture(folder / name, rgb)
            cells.append(_sample(results, index, k, list(files)))
        rows.append((*headings[kind], cells))
    return rows


def _write_picture(path: Path, rgb: np.ndarray) -> None:
    image = Image.fromarray(rgb)
    image.thumbnail((SIDE, SIDE))
    atomic_save(path, lambda temporary: image.save(temporary, format="PNG"))


# --------------------------------------------------------------------------------------------------------- charts


def _write_charts(folder: Path, results: Results) -> dict[str, str]:
    """Draws what can be drawn; returns name of the file -> what is to be seen in it."""
    classes = results.classes
    last = f"probability of {classes[-1]}"
    two = len(classes) == 2
    charts: dict[str, tuple[Callable[..., None], str]] = {}
    if results.labels is not None:
        charts["confusion.png"] = (_draw_confusion, "Confusion: what the pictures of each class were taken for")
        if _rest(results):
            which = f"{classes[1]} against {classes[0]}" if two else "each class against the rest"
            charts["roc.png"] = (_draw_roc, f"ROC: {which}")
            charts["precision_recall.png"] = (_draw_precision_recall, f"Precision and recall: {which}")
        how = last if two else "confidence of right and wrong answers"
        charts["distribution.png"] = (_draw_distribution, f"Distribution: {how}")
        charts["calibration.png"] = (_draw_calibration, "Calibration: is 90 % sure right in 90 % of cases?")
    else:
        charts["distribution.png"] = (_draw_distribution, f"Distribution: {last if two else 'confidence'}")
    for name, (draw, _) in charts.items():
        with _chart_style():
            from matplotlib.figure import Figure

            figure = Figure(figsize=(4.8, 3.8), dpi=200, layout="constrained")
            draw(figure, results)
            atomic_save(folder / name, lambda temporary, figure=figure: figure.savefig(temporary, format="png"))
    return {name: text for name, (_, text) in charts.items()}


@contextmanager
def _chart_style() -> Iterator[None]:
    """Plain charts in fonts that have Chinese characters, if there are any; without them there are boxes instead."""
    import matplotlib
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    style = {
        "font.family": ["DejaVu Sans", *[name for name in CHINESE_FONTS if name in there][:1]],
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
        warnings.filterwarnings("ignore", "Glyph")
        yield


def _draw_confusion(figure: "Figure", results: Results) -> None:
    matrix = confusion(results)
    classes = len(matrix)
    side = min(4 + 0.42 * max(0, classes - 4), 20)
    figure.set_size_inches(side + 0.6, side)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # (K, K)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in results.classes]
    steep = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if classes > 3 else {}
    axes.set_xticks(range(classes), names, **steep)
    axes.set_yticks(range(classes), names)
    axes.set(xlabel="prediction", ylabel="label")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if classes <= 40:
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                axes.text(
                    j, i, f"{count:,}", ha="center", va="center", color="white" if share[i, j] > 0.5 else "#222222"
                )
    bar = figure.colorbar(image, shrink=0.8, label="share of the label's pictures")
    bar.outline.set_visible(False)


def _draw_curves(axes: "Axes", curves: list[tuple[float, str, np.ndarray, np.ndarray]]) -> None:
    """Curves of (area, class, x, y): the worst in colours, the best first; the others thin and grey."""
    curves = sorted(curves, key=lambda curve: curve[0])
    for _, _, x, y in curves[CURVES:]:
        axes.plot(x, y, color="#bbbbbb", linewidth=0.6)
    for area, name, x, y in curves[:CURVES]:
        axes.plot(x, y, label=f"{area:.4f} {_short(name)}", linewidth=1.6)
    title = f"area ({CURVES} worst of {len(curves)})" if len(curves) > CURVES else "area"
    axes.legend(loc="lower left" if axes.get_xlabel() == "recall" else "lower right", title=title, title_fontsize=8)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(color="#e4e4e4", linewidth=0.6)


def _draw_roc(figure: "Figure", results: Results) -> None:
    from sklearn.metrics import auc, roc_curve

    axes = figure.add_subplot(xlabel="false positive rate", ylabel="true positive rate")
    axes.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=0.8, linestyle="--")  # chance
    curves = []
    for k in _rest(results):
        x, y, _ = roc_curve(results.labels == k, results.probabilities[:, k])
        curves.append((auc(x, y), results.classes[k], x, y))
    _draw_curves(axes, curves)


def _draw_precision_recall(figure: "Figure", results: Results) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    axes = figure.add_subplot(xlabel="recall", ylabel="precision")
    curves = []
    for k in _rest(results):
        mine, chance = results.labels == k, results.probabilities[:, k]
        precision, recall, _ = precision_recall_curve(mine, chance)
        curves.append((average_precision_score(mine, chance), results.classes[k], recall, precision))
    _draw_curves(axes, curves)


def _draw_distribution(figure: "Figure", results: Results) -> None:
    two, labels = len(results.classes) == 2, results.labels
    values = results.probabilities[:, 1] if two else results.confidence  # (N)
    if labels is None:
        groups = {"all pictures": values}
    elif two:
        groups = {f"label {_short(name)}": values[labels == k] for k, name in enumerate(results.classes)}
    else:
        right = labels == results.predictions
        groups = {"right": values[right], "wrong": values[~right]}
    text = f"probability of {_short(results.classes[1])}" if two else "confidence: probability of the predicted class"
    axes = figure.add_subplot(xlabel=text, ylabel="pictures", yscale="log")
    for name, part in groups.items():
        axes.hist(part, bins=np.linspace(0, 1, 26), alpha=0.55, label=f"{name} ({len(part):,})")
    axes.set(xlim=(0, 1))
    axes.set_ylim(bottom=0.7)  # one picture must be seen
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="upper center")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_calibration(figure: "Figure", results: Results) -> None:
    count, said, true = _calibration(results.labels == results.predictions, results.confidence)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled, middle = count > 0, (np.arange(BINS) + 0.5) / BINS
    upper.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=0.8, linestyle="--")
    upper.bar(middle[filled], true[filled], 0.9 / BINS, color=COLORS[0], alpha=0.35, label="accuracy in the bin")
    upper.plot(said[filled], true[filled], "o-", color=COLORS[0], markersize=3.5, linewidth=1.2)
    upper.set(ylim=(0, 1.02), ylabel="accuracy")
    upper.legend(loc="upper left")
    lower.bar(middle, count, 0.9 / BINS, color=COLORS[1], alpha=0.7)
    lower.set(xlim=(0, 1), yscale="log", ylabel="pictures", xlabel="confidence")
    lower.set_ylim(bottom=0.7)
    lower.minorticks_off()
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _short(name: str) -> str:
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"


# ----------------------------------------------------------------------------------------------------------- page

STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5c6670; --page: #f4f5f7; --card: #fff; --line: #dfe3e8;
  --accent: #1f6fb4; --bad: #b3391f }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --soft: #9aa4af; --page: #14171a; --card: #1e2226;
  --line: #343a41; --accent: #6db3f2; --bad: #ff8f73 } .chart img { filter: invert(.88) hue-rotate(180deg) } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 48px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 8px; overflow-wrap: anywhere }
h2 { font-size: 18px; margin: 36px 0 10px }
p { margin: 0 0 12px; color: var(--soft) }
a { color: var(--accent) }
dl { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 0 0 20px; color: var(--soft) }
dl div { display: flex; gap: 6px } dt::after { content: ":" }
dd { margin: 0; color: var(--text); overflow-wrap: anywhere }
.tiles, .samples { display: grid; gap: 12px } .charts { display: flex; flex-wrap: wrap; gap: 12px }
.tiles { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)) }
.samples { grid-template-columns: repeat(auto-fill, minmax(min(100%, 262px), 1fr)) }
.tile, .card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0 }
.tile { padding: 10px 14px } .tile b { display: block; font-size: 23px; font-weight: 600; line-height: 1.3 }
.tile span { color: var(--soft); font-size: 13px }
.card { overflow-x: auto } figure { overflow: hidden; min-width: 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 7px 12px; text-align: right; vertical-align: top; white-space: nowrap;
  border-top: 1px solid var(--line) }
tr:first-child th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13px }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left }
td:first-child, td:last-child { white-space: normal; overflow-wrap: break-word }
td:first-child { min-width: 92px; max-width: 260px } td:nth-child(6) { min-width: 360px }
.chart { padding: 12px; flex: 1 1 340px } .chart.large { flex-basis: 100% } .large ~ .chart { flex-basis: 440px }
.chart figcaption { color: var(--soft); font-size: 14px; margin-bottom: 8px }
.chart img { display: block; width: 100%; max-width: 560px; margin: 0 auto; border-radius: 6px }
.chart.large img { max-width: 900px }
.sample .pair { display: flex; align-items: center; gap: 2px } .sample .pair img { flex: 1 1 0; min-width: 0; width: 0;
  height: 170px; object-fit: contain; background: #8882 }
.sample figcaption { padding: 8px 12px 10px; font-size: 13.5px; overflow-wrap: anywhere }
.sample .name { display: block; color: var(--soft); font-size: 12.5px }
.wrong { color: var(--bad) }
"""
TILES = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "auc": "area under ROC",
    "average_precision": "average precision",
    "macro_f1": "F1, mean of classes",
    "calibration_error": "calibration error",
}


def _page(
    title: str,
    notes: dict[str, str],
    results: Results,
    found: dict[str, float],
    charts: dict[str, str],
    rows: list[tuple[str, str, list[str]]],
    folder: Path,
) -> str:
    """The page. Whatever is not written in this file goes through `html.escape`."""
    title, notes = _text(title), {"judged": f"{len(results.names):,}", **notes}
    items = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in notes.items())
    parts = [f"<h1>{title}</h1>", f"<dl>{items}</dl>"]
    if found:
        tiles = [(text, found[name], name) for name, text in TILES.items() if name in found]
        cells = (
            f'<div class="tile"><b>{_number(value, name)}</b><span>{text}</span></div>' for text, value, name in tiles
        )
        parts += [f'<div class="tiles">{"".join(cells)}</div>', "<h2>Classes</h2>", _class_table(results)]
    else:
        parts.append("<p>The classes of these pictures are not known: there are predictions only.</p>")
        parts += ["<h2>Predictions</h2>", _prediction_table(results)]
    parts.append("<h2>Charts</h2>")
    large = " large" * (len(results.classes) > 8)
    drawn = (
        f'<figure class="chart{large * (name == "confusion.png")}"><figcaption>{_text(text)}</figcaption>'
        f'<a href="{name}"><img src="{name}" alt="{_text(text)}"></a></figure>'
        for name, text in charts.items()
    )
    parts.append(f'<div class="charts">{"".join(drawn)}</div>')
    for heading, text, cells in rows:
        parts.append(f"<h2>{heading}</h2><p>{text if cells else 'None.'}</p>")
        parts.append(f'<div class="samples">{"".join(cells)}</div>')
    links = (
        f'<a href="{name}">{name}</a>' for name in FILES if name.endswith(("csv", "json")) and (folder / name).exists()
    )
    parts.append(f"<h2>Files</h2><p>{' · '.join(links)}</p>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n'
        + "\n".join(["</head>", "<body>", *parts, "</body>", "</html>", ""])
    )


def _class_table(results: Results) -> str:
    matrix = confusion(results)
    lines = ["<tr><th>class<th>pictures<th>precision<th>recall<th>F1<th>most often taken for</tr>"]
    scores = zip(*_scores(results, range(len(results.classes))), strict=True)
    for k, (precision, recall, f1, support) in enumerate(scores):
        values = [_percent(v) if support else "–" for v in (precision, recall, f1)]
        others = ", ".join(f"{_text(results.classes[other])} ({count:,})" for other, count in _confused(matrix[k], k))
        cells = [_text(results.classes[k]), f"{support:,}", *values, others or "–"]
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<div class="card"><table>{"".join(lines)}</table></div>'


def _prediction_table(results: Results) -> str:
    lines = ["<tr><th>class<th>pictures<th>share</tr>"]
    counts = np.bincount(results.predictions, minlength=len(results.classes))
    for name, count in zip(results.classes, counts.tolist(), strict=True):
        lines.append(
            f"<tr><td>{_text(name)}</td><td>{count:,}</td><td>{_percent(count / len(results.names))}</td></tr>"
        )
    return f'<div class="card"><table>{"".join(lines)}</table></div>'


def _sample(results: Results, index: int, shown: int, files: list[str]) -> str:
    """A picture, what speaks for class number `shown`, and what is thought of it."""
    label, chances = results.labels[index], results.probabilities[index]
    images = "".join(f'<img src="{name}" alt="{_text(results.names[index])}">' for name in files)
    text = f"{_text(results.classes[label])} {_percent(chances[label])}"
    if shown != label:
        text = f'{text} · <b class="wrong">{_text(results.classes[shown])} {_percent(chances[shown])}</b>'
    caption = f'label {text}<span class="name">{_text(results.names[index])}, loss {_loss(chances[label])}</span>'
    return f'<figure class="sample"><div class="pair">{images}</div><figcaption>{caption}</figcaption></figure>'


def _text(text: str) -> str:
    return html.escape(_plain(text))


def _number(value: float, name: str) -> str:
    return f"{value:.4f}" if name in ("log_loss", "auc", "average_precision") else _percent(value)


def _percent(value: float) -> str:
    """Never 100 % for what is not quite, nor 0 %."""
    text = f"{100 * value:.2f}"
    if (text == "100.00" and value < 1) or (text == "0.00" and value > 0):
        text = "&gt; 99.99" if value > 0.5 else "&lt; 0.01"
    return f"{text} %"


def _loss(chance: float) -> str:
    return f"{0.0 - math.log(chance):.3f}" if chance > 0 else "∞"
