"""infer/photo/metrics.py: curves of a class against the rest, and what is kept of their points."""

import numpy as np
import pytest
from sklearn import metrics

from infer.photo.metrics import area_under_roc, class_curves, precision_recall, roc, thin


def made_up(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(labels (N), probabilities (N, K)) that know something of the labels; many are equal."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    logits = random.normal(size=(count, classes)).round(1)
    logits[np.arange(count), labels] += 1
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_is_scikit_learns(classes):
    labels, probs = made_up(200, classes)
    expected = metrics.roc_auc_score(labels, probs[:, 1] if classes == 2 else probs, multi_class="ovr")
    assert area_under_roc(labels, probs) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_a_thinned_curve_keeps_its_ends_and_its_shape(curve):
    labels, probs = made_up(5000, 2, seed=2)
    points = curve(labels == 1, probs[:, 1] + 1e-9 * np.arange(5000))
    thinned = thin(points, 100)
    assert 60 < thinned.shape[1] <= 100
    assert (thinned[:, 0] == points[:, 0]).all() and (thinned[:, -1] == points[:, -1]).all()
    places = [np.flatnonzero((points.T == point).all(1))[0] for point in thinned.T]  # they are points of the curve
    assert places == sorted(places)
    assert np.abs(np.diff(thinned)).max() < 0.05  # no long way without a point
    assert thin(points[:, ::100], 100).shape == points[:, ::100].shape


def test_each_class_has_a_curve_that_it_can_have():
    labels = np.array([0, 1, 1, 0, 3])
    probs = np.array([[4, 3, 2, 1], [2, 5, 1, 2], [3, 4, 2, 1], [1, 6, 1, 2], [1, 1, 1, 7]]) / 10
    lines = class_curves(precision_recall, labels, probs, ["ant", "bee", "cow", "dog"], 100)
    assert list(lines) == ["ant", "bee", "dog"]  # there is no cow
    recall, precision = lines["bee"]  # by falling probability: the fourth, the second, the third, the others
    assert recall == pytest.approx([0, 0, 0.5, 1, 1, 1])
    assert precision == pytest.approx([1, 0, 1 / 2, 2 / 3, 2 / 4, 2 / 5])
    two = class_curves(roc, labels[:4], probs[:4, :2], ["cat", "dog"], 100)
    assert list(two) == ["dog"]
    np.testing.assert_allclose(two["dog"], [[0, 0.5, 0.5, 0.5, 1], [0, 0, 0.5, 1, 1]])
    assert class_curves(roc, labels[1:3], probs[1:3, :2], ["cat", "dog"], 100) == {}
