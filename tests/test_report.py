"""infer/photo/report.py against scikit-learn on its files, numbers by hand, hostile names."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from infer.photo.metrics import compute_metrics, find_suspects
from infer.photo.report import FILES, SHOWN, Results, write_report
from utils.errors import UserError

CHINESE = ["鸟", "猫 $x^$", "_<b>dog</b>"]
HOSTILE = ["<script>alert(1)</script>.jpg", 'a" onerror="alert(2)', "猫, '狗'.jpg", "line\nbreak\r.jpg"]
HOSTILE += ["not \udcff utf-8.jpg", "=1+1", "&amp;.jpg"]


def guesses(labels: np.ndarray, classes: int, seed: int = 0, strength: float = 2) -> np.ndarray:
    """(N, K) float32 probabilities that know something of the labels."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += strength
    chances = np.exp(logits)
    return (chances / chances.sum(1, keepdims=True)).astype(np.float32)


def picture(number: int) -> np.ndarray:
    """(H, W, 3): each has a size and a colour of its own."""
    return np.full((20 + number % 7, 600 if number % 2 else 30, 3), number % 256, np.uint8)


def explain(number: int, target: int) -> np.ndarray:
    return np.full_like(picture(number), 255 - target)


@pytest.fixture
def unrendered(monkeypatch):
    """Charts are drawn, but their files are of one pixel: rendering takes most of the time of a report."""
    one = Image.new("L", (1, 1))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **given: one.save(path, "PNG"))


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """The tags, addresses and text of a page as a browser finds them."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.addresses, self.attributes, self.text = [], [], set(), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray, dict[str, float]]:
    """A report on 60 pictures of 3 classes, some labels wrong: (folder, labels, probabilities, metrics)."""
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    labels = np.random.default_rng(1).integers(0, 3, 60)
    chances = guesses(labels, 3, strength=3)
    labels[[5, 14, 21, 29, 35]] = (labels[[5, 14, 21, 29, 35]] + 1) % 3
    names = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(60)]
    notes = {"model": "<i>x</i>", "<u>": "&"}
    found = write_report(folder, "<img src=x> & 猫", Results(names, labels, chances, CHINESE), notes, picture, explain)
    return folder, labels, chances, found


# -------------------------------------------------------------------------------------------------------- figures


def check_against_scikit_learn(folder: Path, classes: list[str], found: dict[str, float]) -> None:
    """Every figure equals scikit-learn's on predictions.csv, where each class has pictures."""
    rows = table(folder / "predictions.csv")
    labels = np.array([classes.index(row["label"]) for row in rows])
    predictions = np.array([classes.index(row["prediction"]) for row in rows])
    chances = np.array([[float(row[name]) for name in classes] for row in rows])
    assert np.array_equal(predictions, chances.argmax(1))
    score = chances[:, 1] if len(classes) == 2 else chances
    one_hot = labels if len(classes) == 2 else np.eye(len(classes))[labels]
    expected = {
        "accuracy": metrics.accuracy_score(labels, predictions),
        "log_loss": metrics.log_loss(labels, chances),
        "auc": metrics.roc_auc_score(labels, score, multi_class="ovr"),
        "average_precision": metrics.average_precision_score(one_hot, score),
        "macro_precision": metrics.precision_score(labels, predictions, average="macro"),
        "macro_recall": metrics.recall_score(labels, predictions, average="macro"),
        "macro_f1": metrics.f1_score(labels, predictions, average="macro"),
        "calibration_error": binned_error(labels == predictions, chances.max(1)),
    }
    scores = metrics.classification_report(labels, predictions, target_names=classes, output_dict=True)
    for name in classes:
        for k in ("precision", "recall", "f1"):
            expected[f"{name}_{k}"] = scores[name]["f1-score" if k == "f1" else k]
    assert found == pytest.approx(expected, rel=1e-12)
    assert json.loads((folder / "figures.json").read_text(encoding="utf-8")) == found


def binned_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, bin by bin as it is written."""
    error = 0.0
    for m in range(1, 16):
        inside = [i for i, p in enumerate(confidence) if (m - 1) / 15 < p <= m / 15]
        if inside:
            error += len(inside) / len(right) * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return error


@pytest.mark.parametrize("count", [2, 20])
def test_figures_of_two_and_of_twenty_classes(tmp_path, unrendered, count):
    classes = [f"class {i}" for i in range(count)]
    labels = np.arange(200) % count
    results = Results(["x"] * 200, labels, guesses(labels, count, strength=6), classes)
    found = write_report(tmp_path, "t", results, {}, picture)
    check_against_scikit_learn(tmp_path, classes, found)
    assert not list((tmp_path / "samples").glob("*_explained.png"))
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_figures_of_a_class_that_is_absent_are_left_out():
    labels = np.array([0, 0, 1, 1])
    chances = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])  # predicted: 0 2 1 0
    found = compute_metrics(labels, chances, ["a", "b", "c"])
    assert found["a_precision"] == found["a_recall"] == found["a_f1"] == 0.5
    assert found["b_precision"] == 1 and found["b_recall"] == 0.5 and found["b_f1"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((0.5 + 2 / 3) / 2) and not [name for name in found if name[:2] == "c_"]
    # Pairs in order: a .7 .1 against .2 .6; b .5 .3 against .2.
    assert found["auc"] == pytest.approx((2 / 4 + 4 / 4) / 2)
    alone = compute_metrics(labels[:2], chances[:2], ["a", "b", "c"])
    assert "auc" not in alone and "average_precision" not in alone and alone["accuracy"] == 0.5


def test_a_class_that_is_never_predicted_has_precision_0_and_a_class_may_be_called_macro():
    found = compute_metrics(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), ["macro", "b"])
    assert found["b_precision"] == found["b_recall"] == found["b_f1"] == 0
    assert found["macro_recall"] == 0.5  # the mean, not the class's 1


# --------------------------------------------------------------------------------------------------------- tables


def test_tables_by_hand(tmp_path, unrendered):
    labels, predictions = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2]), [0, 0, 1, 2, 2, 2, 1, 0, 2]
    chances = np.full((9, 3), 0.2)
    chances[np.arange(9), predictions] = 0.6
    results = Results([str(i) for i in range(9)], labels, chances, ["cat", "dog", "bird"])
    write_report(tmp_path, "t", results, {}, picture)
    confusion = [list(row.values()) for row in table(tmp_path / "confusion.csv")]
    assert confusion == [["cat", "2", "1", "3"], ["dog", "0", "1", "0"], ["bird", "1", "0", "1"]]
    cat, dog, bird = table(tmp_path / "per_class.csv")
    assert (cat["class"], cat["support"]) == ("cat", "6")
    scores = [[float(row[name]) for name in ("precision", "recall", "f1")] for row in (cat, dog, bird)]
    assert scores == [pytest.approx(row) for row in ([2 / 3, 1 / 3, 4 / 9], [1 / 2, 1, 2 / 3], [1 / 4, 1 / 2, 1 / 3])]
    assert [cat[name] for name in ("confused_1", "count_1", "confused_2", "count_2")] == ["bird", "3", "dog", "1"]
    assert cat["confused_3"] == cat["count_5"] == dog["confused_1"] == "" and bird["confused_1"] == "cat"
    text = Page(tmp_path / "report.html").text
    assert "bird (3), dog (1)" in text and "66.67 %33.33 %44.44 %" in text


def test_predictions_keep_every_digit_and_every_name(three):
    folder, labels, chances, found = three
    check_against_scikit_learn(folder, CHINESE, found)
    rows = table(folder / "predictions.csv")
    assert list(rows[0]) == ["name", "label", "prediction", *CHINESE]
    exact = chances / chances.sum(1, keepdims=True, dtype=np.float64)
    assert np.array_equal([[float(row[name]) for name in CHINESE] for row in rows], exact)
    assert [row["label"] for row in rows] == [CHINESE[k] for k in labels]
    kept = [row["name"] for row in rows[: len(HOSTILE)]]
    assert kept[:3] == [f"{HOSTILE[i]}{i}" for i in range(3)] and kept[5:] == ["=1+15", "&amp;.jpg6"]
    assert kept[3:5] == [r"line\nbreak\r.jpg3", r"not \udcff utf-8.jpg4"]


# ------------------------------------------------------------------------------------------------------- suspects


def test_suspects_equal_the_definition_picture_by_picture():
    rng = np.random.default_rng(3)
    for count in (2, 3, 5):
        labels = rng.integers(0, count, 80)
        chances = guesses(labels, count, seed=count, strength=1).astype(float)
        thresholds = {j: np.mean([p[j] for p, k in zip(chances, labels, strict=True) if k == j]) for j in set(labels)}
        expected = []
        for i, (p, label) in enumerate(zip(chances, labels, strict=True)):
            above = [j for j in thresholds if p[j] >= thresholds[j]]
            if above and (best := max(above, key=lambda j, p=p: p[j])) != label:
                expected.append((p[label] - p[best], i, best))
        found = [(-s.margin, s.index, s.suggestion) for s in find_suspects(labels, chances)]
        assert len(found) > 3 and found == sorted(expected)
    # A class without labels has no threshold and is never suggested; those of the others are 0.35 and 0.3.
    assert find_suspects(np.array([0, 0, 1]), np.array([[0.2, 0.1, 0.7], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])) == []


# ----------------------------------------------------------------------------------------------- page and pictures


def test_names_are_text_and_nothing_else(three):
    page = Page(three[0] / "report.html")
    assert not {"script", "i", "u"} & set(page.tags) and "onerror" not in page.attributes
    assert page.tags.count("img") == 5 + 2 * (2 * SHOWN + min(SHOWN, len(table(three[0] / "suspects.csv"))))
    for text in ("<img src=x> & 猫", "<i>x</i>", "<u>", *CHINESE):
        assert text in page.text
    _, labels, chances, _ = three
    worst = np.argsort(chances[np.arange(60), labels], kind="stable")[:SHOWN]
    names = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in worst if i % len(HOSTILE) not in (3, 4)]
    assert all(f"{name}, loss" in page.text for name in names)
    assert {0, 1, 6} <= {i % len(HOSTILE) for i in worst}


def test_the_page_needs_nothing_but_its_folder(three):
    folder = three[0]
    page = Page(folder / "report.html")
    assert all((folder / address).is_file() for address in page.addresses)
    linked = {str(Path(address)) for address in page.addresses} | {"report.html"}
    assert linked == {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(FILES) <= linked
    for path in folder.rglob("*.png"):
        Image.open(path).verify()
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in text and "url(" not in text and 'name="viewport"' in text


def test_samples_and_suspects_are_the_right_ones(three):
    folder, labels, chances, _ = three
    predictions, own = chances.argmax(1), chances[np.arange(60), labels]
    right = [i for i in np.argsort(-own, kind="stable") if predictions[i] == labels[i]]
    for kind, order in (("best", right), ("worst", np.argsort(own, kind="stable"))):
        assert len(list((folder / "samples").glob(f"{kind}_?.png"))) == SHOWN
        for rank, index in enumerate(order[:SHOWN], 1):
            sample = np.asarray(Image.open(folder / f"samples/{kind}_{rank}.png"))
            assert (sample == index).all()
            heat = np.asarray(Image.open(folder / f"samples/{kind}_{rank}_explained.png"))
            assert (heat == 255 - predictions[index]).all() and heat.shape == sample.shape
    found, rows = find_suspects(labels, chances.astype(float)), table(folder / "suspects.csv")
    assert len(rows) == len(found) > 2
    for rank, (row, suspect) in enumerate(zip(rows, found, strict=True), 1):
        if rank <= SHOWN:
            assert (np.asarray(Image.open(folder / f"samples/suspect_{rank}.png")) == suspect.index).all()
        assert row["label"] == CHINESE[labels[suspect.index]] and row["suggestion"] == CHINESE[suspect.suggestion]
        margin = float(row["suggestion_probability"]) - float(row["label_probability"])
        assert float(row["margin"]) == pytest.approx(margin) and row["name"].endswith(str(suspect.index))


def test_pictures_without_a_label_change_no_figure(tmp_path, unrendered):
    """The report of some labelled pictures among others is that of the labelled ones, but for the predictions."""
    labels = np.array([-1, 0, 1, -1, 1, 0, 1, -1])
    chances = guesses(np.abs(labels), 2, strength=2)
    known, names, shown = labels >= 0, np.array([f"picture {i}" for i in range(8)]), []
    every = Results(names.tolist(), labels, chances, ["cat", "dog"])
    found = write_report(tmp_path / "all", "t", every, {}, lambda number: shown.append(number) or picture(number))
    some = Results(names[known].tolist(), labels[known], chances[known], ["cat", "dog"])
    assert found == write_report(tmp_path / "some", "t", some, {}, picture)
    assert set(shown) <= set(np.flatnonzero(known).tolist())
    for name in ("confusion.csv", "per_class.csv", "suspects.csv", "figures.json"):
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "some" / name).read_bytes()
    rows = table(tmp_path / "all" / "predictions.csv")
    assert [row["label"] for row in rows] == ["", "cat", "dog", "", "dog", "cat", "dog", ""]


def test_one_picture_and_then_unlabelled_ones_in_the_same_folder(tmp_path, unrendered):
    keep = tmp_path / "samples" / "mine.png"
    keep.parent.mkdir()
    keep.write_bytes(b"mine")
    chances = np.array([[1.0, 0.0]])
    found = write_report(tmp_path, "t", Results(["a"], np.array([1]), chances, ["cat", "dog"]), {}, picture)
    assert found["accuracy"] == 0 and found["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))
    assert "∞" in Page(tmp_path / "report.html").text and (tmp_path / "samples" / "worst_1.png").exists()
    json.loads((tmp_path / "figures.json").read_text(), parse_constant=pytest.fail)

    unknown = np.array([-1, -1])
    found = write_report(tmp_path, "t", Results(["a", "b"], unknown, np.eye(2), ["cat", "dog"]), {}, picture)
    assert found == {}
    there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert there == ["distribution.png", "predictions.csv", "report.html", "samples/mine.png"]
    rows = table(tmp_path / "predictions.csv")
    assert [(row["label"], row["prediction"]) for row in rows] == [("", "cat"), ("", "dog")]


def test_what_cannot_be_reported(tmp_path):
    chances, labels, classes = np.array([[0.5, 0.5], [np.nan, 0.5]]), np.array([0, 1]), ["x", "y"]
    with pytest.raises(UserError, match="^b.jpg: the probabilities are not finite"):
        write_report(tmp_path, "t", Results(["a.jpg", "b.jpg"], labels, chances, classes), {}, picture)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file"):
        write_report(tmp_path / "file", "t", Results(["a"], labels[:1], np.eye(2)[:1], classes), {}, picture)
