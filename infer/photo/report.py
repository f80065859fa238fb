"""The report on a classifier: metrics, tables, charts and a page about its probabilities for many pictures.

It knows no network. The page is report.html, filled in by Jinja, which escapes all text. Arrays: N pictures, K classes.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infer.photo.charts import draw_charts
from infer.photo.metrics import Suspect, class_scores, compute_metrics, find_suspects
from utils.errors import UserError
from utils.files import atomic_save, atomic_write, write_csv

SHOWN = 8  # pictures in each row of samples
CONFUSED = 5  # classes that a class is most often taken for
SIDE = 480  # pixels, longest side of a sample
FILES = (
    *("report.html", "figures.json", "predictions.csv", "confusion.csv", "per_class.csv", "suspects.csv"),
    *("confusion.png", "roc.png", "precision_recall.png", "distribution.png", "calibration.png"),
)
TILES = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "auc": "area under ROC",
    "average_precision": "average precision",
    "macro_f1": "F1, mean of classes",
    "calibration_error": "calibration error",
}
HEADINGS = {
    "best": ("Best", "Right, and the surest."),
    "worst": ("Worst", "The largest losses: the label was thought least likely."),
    "suspect": (
        "Labels that may be wrong",
        "{} of {} pictures look more like another class than is usual for that class itself (confident learning); the "
        "most striking first. Look before you change a label.",
    ),
}


@dataclass(frozen=True)
class Results:
    """What is known of N pictures: names, labels (N) as numbers of classes (-1: unknown), probs (N, K), classes (K)."""

    names: list[str]
    labels: np.ndarray
    probs: np.ndarray
    classes: list[str]


Read = Callable[[int], np.ndarray]  # a picture's number -> (H, W, 3) uint8
Explain = Callable[[int, int], np.ndarray]  # a picture's number and a class's -> what of the picture speaks for it


def write_report(
    folder: str | Path, title: str, results: Results, notes: dict[str, str], read: Read, explain: Explain | None = None
) -> dict[str, float]:
    """Writes report.html and all that it shows into `folder`, in the place of an earlier report.

    Pictures without a label are in predictions.csv only; where none has one, the distribution is theirs. `notes` are
    what the page says of data and model. Returns the metrics of the labelled pictures. Raises UserError if a file
    cannot be written, and for probabilities that are not finite.
    """
    folder, everything = Path(folder), _checked(results)
    _remove_old(folder)
    classes, known = everything.classes, np.flatnonzero(everything.labels >= 0)  # (N')
    labelled = Results([everything.names[i] for i in known], everything.labels[known], everything.probs[known], classes)
    of_class = dict(enumerate(classes)) | {-1: ""}
    rows = zip(everything.names, everything.labels.tolist(), everything.probs.argmax(1), everything.probs, strict=True)
    rows = ([name, of_class[label], of_class[best], *probs.tolist()] for name, label, best, probs in rows)
    write_csv(folder / "predictions.csv", ["name", "label", "prediction", *classes], rows)
    notes = {"evaluated": f"{len(known) or len(results.names):,}", **notes}
    page: dict[str, Any] = {"title": _plain(title), "notes": {_plain(k): _plain(v) for k, v in notes.items()}}
    page |= {"many_classes": len(classes) > 8, "sections": [], "charts": {}}
    found: dict[str, float] = {}
    labels, probs = None, everything.probs
    if len(known):
        labels, probs = labelled.labels, labelled.probs
        found = compute_metrics(labels, probs, classes)
        atomic_write(folder / "figures.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        page["table"] = _write_class_tables(folder, labelled)
        suspects = find_suspects(labels, probs)
        _write_suspects(folder / "suspects.csv", labelled, suspects)
        page["sections"] = _write_samples(folder, labelled, known.tolist(), suspects, read, explain)
    else:
        counts = np.bincount(probs.argmax(1), minlength=len(classes)).tolist()
        rows = [[name, f"{n:,}", _percent(n / len(probs))] for name, n in zip(classes, counts, strict=True)]
        page["table"] = [["class", "pictures", "share"], *rows]
    for name, text, figure in draw_charts(labels, probs, classes):
        atomic_save(folder / name, lambda temporary, figure=figure: figure.savefig(temporary, format="png"))
        page["charts"][name] = text
    page["tiles"] = [(text, _number(found[name], name)) for name, text in TILES.items() if name in found]
    page["files"] = [name for name in FILES if name.endswith(("csv", "json")) and (folder / name).exists()]
    from jinja2 import Template

    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    html = Template(template, autoescape=True, trim_blocks=True, keep_trailing_newline=True).render(page)
    atomic_write(folder / "report.html", html)
    return found


def _checked(results: Results) -> Results:
    probs = np.asarray(results.probs, np.float64)
    probs = probs / probs.sum(1, keepdims=True)  # float32 leaves them 1e-7 off, which scikit-learn minds
    if not (finite := np.isfinite(probs).all(1)).all():
        name = results.names[int(finite.argmin())]
        raise UserError(f"{name}: the probabilities are not finite numbers; give a network whose training did not fail")
    names, classes = ([_plain(name) for name in these] for these in (results.names, results.classes))
    return Results(names, np.asarray(results.labels).astype(int), probs, classes)


def _remove_old(folder: Path) -> None:
    """Removes the files of an earlier report, so that none is taken for one of this."""
    old = [folder / name for name in FILES]
    old += [path for kind in HEADINGS for path in (folder / "samples").glob(f"{kind}_*.png")]
    for path in old:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; give another folder") from error


def _plain(text: str) -> str:
    """Text that every file takes: names of files may hold bytes that are no characters, and line breaks."""
    return "".join(c if c.isprintable() or c == "\u3000" else repr(c)[1:-1] for c in str(text))


def _write_class_tables(folder: Path, results: Results) -> list[list[str]]:
    """Writes confusion.csv and per_class.csv; returns the page's table of the classes."""
    from sklearn.metrics import confusion_matrix

    labels, predictions, classes = results.labels, results.probs.argmax(1), results.classes
    numbers = range(len(classes))
    matrix = confusion_matrix(labels, predictions, labels=numbers).tolist()
    confusion = ([name, *row] for name, row in zip(classes, matrix, strict=True))
    write_csv(folder / "confusion.csv", ["label", *classes], confusion)
    ranks = [f"{word}_{rank}" for rank in range(1, CONFUSED + 1) for word in ("confused", "count")]
    rows, shown = [], [["class", "pictures", "precision", "recall", "F1", "most often taken for"]]
    for k, (*scores, support) in enumerate(zip(*class_scores(labels, predictions, numbers), strict=True)):
        by_count = sorted(numbers, key=lambda j, row=matrix[k]: -row[j])
        others = [j for j in by_count if j != k and matrix[k][j]][:CONFUSED]
        confused = [cell for j in others for cell in (classes[j], matrix[k][j])]
        blank = [""] * (len(ranks) - len(confused))
        rows.append([classes[k], int(support), *(map(float, scores) if support else [""] * 3), *confused, *blank])
        texts = [_percent(score) if support else "–" for score in scores]
        taken_for = ", ".join(f"{classes[j]} ({matrix[k][j]:,})" for j in others) or "–"
        shown.append([classes[k], f"{support:,}", *texts, taken_for])
    write_csv(folder / "per_class.csv", ["class", "support", "precision", "recall", "f1", *ranks], rows)
    return shown


def _write_suspects(path: Path, results: Results, suspects: list[Suspect]) -> None:
    rows, classes = [], results.classes
    for index, suggestion, margin in suspects:
        label, row = results.labels[index], results.probs[index].tolist()
        rows.append([results.names[index], classes[label], classes[suggestion], row[label], row[suggestion], margin])
    header = ["name", "label", "suggestion", "label_probability", "suggestion_probability", "margin"]
    write_csv(path, header, rows)


def _write_samples(
    folder: Path, results: Results, numbers: list[int], suspects: list[Suspect], read: Read, explain: Explain | None
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Writes samples/ of labelled pictures with these numbers; returns (heading, text, what the page shows of each)."""
    labels, probs = results.labels, results.probs
    predicted = probs.argmax(1)
    right = np.flatnonzero(predicted == labels)
    best = right[np.argsort(-probs.max(1)[right], kind="stable")]
    worst = np.argsort(probs[np.arange(len(labels)), labels], kind="stable")  # the least probable label
    chosen = {
        "best": [(i, predicted[i]) for i in best[:SHOWN]],
        "worst": [(i, predicted[i]) for i in worst[:SHOWN]],
        "suspect": [(suspect.index, suspect.suggestion) for suspect in suspects[:SHOWN]],
    }
    sections = []
    for kind, samples in chosen.items():
        cells = []
        for rank, (i, k) in enumerate(samples, 1):
            files = {f"samples/{kind}_{rank}.png": read(numbers[i])}
            if explain:
                files[f"samples/{kind}_{rank}_explained.png"] = explain(numbers[i], int(k))
            for name, rgb in files.items():
                image = Image.fromarray(rgb)
                image.thumbnail((SIDE, SIDE))
                atomic_save(folder / name, lambda temporary, image=image: image.save(temporary, format="PNG"))
            label, row = labels[i], probs[i]
            loss = f"{0.0 - math.log(row[label]):.3f}" if row[label] > 0 else "∞"
            cell = {"files": list(files), "name": results.names[i], "loss": loss}
            cell["label"] = f"{results.classes[label]} {_percent(row[label])}"
            cell["shown"] = f"{results.classes[k]} {_percent(row[k])}" if k != label else ""
            cells.append(cell)
        heading, text = HEADINGS[kind]
        sections.append((heading, text.format(len(suspects), len(labels)), cells))
    return sections


def _number(value: float, name: str) -> str:
    return f"{value:.4f}" if name in ("log_loss", "auc", "average_precision") else _percent(value)


def _percent(value: float) -> str:
    """Never 100 % for what is not quite, nor 0 %."""
    text = f"{100 * value:.2f}"
    if (text == "100.00" and value < 1) or (text == "0.00" and value > 0):
        text = "> 99.99" if value > 0.5 else "< 0.01"
    return f"{text} %"
