"""Metrics of a classifier from its probabilities, by scikit-learn: scores, curves, calibration, suspicious labels.

Arrays: N pictures, K classes, P points of a curve; labels (N) are numbers of classes, probs (N, K) probabilities.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

BINS = 15  # of confidence, for the calibration


def compute_metrics(labels: np.ndarray, probs: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Metrics on labelled pictures, for K names of classes.

    accuracy, log_loss, calibration_error; auc and average_precision (the last class's of two, else means of each
    against the rest; left out if there is one class only); precision, recall and f1 of each class with pictures
    (CLASS_f1), and their means (macro_f1).
    """
    from sklearn import metrics

    predictions = probs.argmax(1)
    found = {
        "accuracy": metrics.accuracy_score(labels, predictions),
        "log_loss": metrics.log_loss(labels, probs, labels=range(len(classes))),
    }
    if one_vs_rest(labels, len(classes)):
        found["auc"] = area_under_roc(labels, probs)
        found["average_precision"] = mean_one_vs_rest(metrics.average_precision_score, labels, probs)
    found["calibration_error"] = calibration_error(predictions == labels, probs.max(1))
    present = np.unique(labels)
    names = ("precision", "recall", "f1")
    per_class = np.array(class_scores(labels, predictions, present)[:3])  # (3, classes with pictures)
    found |= {f"macro_{name}": value for name, value in zip(names, per_class.mean(1), strict=True)}
    for k, values in zip(present, per_class.T, strict=True):
        for name, value in zip(names, values, strict=True):
            found.setdefault(f"{classes[k]}_{name}", value)  # a class may be called "macro"
    return {name: float(value) for name, value in found.items()}


def class_scores(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Precision, recall, F1 and number of pictures of each of `classes`."""
    from sklearn.metrics import precision_recall_fscore_support

    return precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0)


def one_vs_rest(labels: np.ndarray, classes: int) -> list[int]:
    """The classes that have curves: the last of two, else each one with pictures; none if all are of one class."""
    present = np.unique(labels).tolist()
    if len(present) < 2:
        return []
    return [1] if classes == 2 else present


def mean_one_vs_rest(score: Callable[..., float], labels: np.ndarray, probs: np.ndarray) -> float:
    """The mean of a score of scikit-learn's over the classes of `one_vs_rest`."""
    return float(np.mean([score(labels == k, probs[:, k]) for k in one_vs_rest(labels, probs.shape[1])]))


def area_under_roc(labels: np.ndarray, probs: np.ndarray) -> float:
    """The last class's of two, else the mean of each class against the rest."""
    from sklearn.metrics import roc_auc_score

    return mean_one_vs_rest(roc_auc_score, labels, probs)


def roc(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(2, P) false and true positive rate at each threshold of the scores (N), the highest first."""
    from sklearn.metrics import roc_curve

    return np.stack(roc_curve(positive, scores, drop_intermediate=False)[:2])


def precision_recall(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(2, P) recall and precision at each threshold of the scores (N), the highest first; it begins at (0, 1)."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    return np.stack([recall, precision])[:, ::-1]


def thin(curve: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the points of a curve (2, P), evenly along its length, with the first and the last."""
    if curve.shape[1] <= most:
        return curve
    length = np.append(0, np.abs(np.diff(curve)).sum(0).cumsum())  # (P)
    return curve[:, np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)))]


def class_curves(
    curve: Callable[..., np.ndarray], labels: np.ndarray, probs: np.ndarray, classes: Sequence[str], most: int
) -> dict[str, list[list[float]]]:
    """{class: [x, y]} of `roc` or `precision_recall` of the classes of `one_vs_rest`, of at most so many points."""
    chosen = one_vs_rest(labels, len(classes))
    return {classes[k]: thin(curve(labels == k, probs[:, k]), most).tolist() for k in chosen}


def calibration_bins(right: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of BINS equal bins of confidence, upper edge included: pictures, mean confidence and accuracy, (BINS)."""
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # (N)
    count, said, true = (np.bincount(number, w, BINS) for w in (None, confidence, right))
    divisor = np.maximum(count, 1)
    return count, said / divisor, true / divisor


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3), of N answers: whether right, and their confidence."""
    count, said, true = calibration_bins(right, confidence)
    return float((count * np.abs(true - said)).sum() / len(right))


class Suspect(NamedTuple):
    """A picture whose label may be wrong; `margin`: how much likelier the suggested class is than the label."""

    index: int
    suggestion: int
    margin: float


def find_suspects(labels: np.ndarray, probs: np.ndarray) -> list[Suspect]:
    """Pictures whose labels may be wrong, the likeliest first, by confident learning.

    A class counts as confident if its probability is not below its mean over the pictures with that label. Pictures
    whose likeliest confident class is not their label are off the diagonal of the confident joint (Northcutt et al.
    2021, equation 1), ranked by margin (section 3.2). A class without labelled pictures is never suggested.
    """
    count = np.bincount(labels, minlength=probs.shape[1])  # (K)
    own = probs[np.arange(len(labels)), labels]  # (N)
    total = np.bincount(labels, weights=own, minlength=len(count))
    threshold = np.where(count > 0, total / np.maximum(count, 1), np.inf)  # (K)
    confident = np.where(probs >= threshold, probs, -1.0)  # (N, K)
    suggestion = confident.argmax(1)
    margin = probs[np.arange(len(labels)), suggestion] - own
    off = np.flatnonzero((confident.max(1) >= 0) & (suggestion != labels))
    order = off[np.argsort(-margin[off], kind="stable")]
    return [Suspect(int(i), int(suggestion[i]), float(margin[i])) for i in order]
