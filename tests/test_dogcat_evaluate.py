"""The commands val and test of the classifier: reports and Kaggle's file; mistakes are one line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.labels import choose_split, list_samples, write_submission
from infer.photo import classify
from models import Classifier
from models.poet import Poet
from tasks import dogcat
from tests.dogcat import HUES, TWO, cli, epochs_of, options, write_hard_set, write_picture, write_set
from tests.pictures import save_lenet


def judge(report: Path, told: dict) -> None:
    """The figures that are told are those of the report, which test_report.py compares with scikit-learn's."""
    figures = json.loads((report / "figures.json").read_text())
    assert {"accuracy", "log_loss", "auc", "macro_f1"} <= figures.keys()
    assert {name: told[name] for name in figures} == pytest.approx(figures, abs=1e-4)


@pytest.fixture(autouse=True)
def no_charts(monkeypatch):
    """They are slow, and tested with the report."""
    monkeypatch.setattr(dogcat.report, "draw_charts", lambda *given: ())


def test_three_classes_with_strange_names_need_no_change(tmp_path, capfd):
    """And a report of them: the figures are scikit-learn's on the predictions that it writes."""
    classes = {"a, b": HUES["cat"], "<b>dog": HUES["dog"], "鸟": HUES["bird"]}
    for number, (name, hue) in enumerate(classes.items()):
        for i in range(16):
            folder = "train" if i < 12 else "val"
            write_picture(tmp_path / "data" / folder / name / f"{i}.png", hue, 100 * number + i)
    cli(capfd, "train", **options(tmp_path, tmp_path / "data", run="a", max_epoch=5))
    val = epochs_of(tmp_path / "a", "val")[-1]
    assert val["accuracy"] > 0.9 and val["auc"] > 0.95
    load = tmp_path / "a" / "best.safetensors"
    assert Classifier.load(load).classes == ["<b>dog", "a, b", "鸟"]
    given = {"task": "dogcat", "data_root": tmp_path / "data", "load": load, "out": tmp_path / "report"}
    figures = json.loads(cli(capfd, "val", json=True, tta=1, precision="fp32", use_gpu=False, **given)[0])
    assert figures["accuracy"] == pytest.approx(val["accuracy"], abs=1 / 12) and figures["pictures"] == 12
    judge(tmp_path / "report", figures)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "&lt;b&gt;dog" in page and "<b>dog" not in page and "鸟" in page


@pytest.fixture
def given(tmp_path) -> dict:
    """Options of `test` on pictures 1 to 12 without labels, of which 10 is broken."""
    for i in range(1, 13):
        write_picture(tmp_path / "test1" / f"{i}.png", HUES["cat" if i % 3 else "dog"], i, 100)
    (tmp_path / "test1" / "10.png").write_bytes(b"<html>")
    load = save_lenet(tmp_path / "lenet.safetensors")
    files = {"data_root": tmp_path / "test1", "load": load, "out": tmp_path / "report"}
    return {"task": "dogcat", "use_gpu": False, "precision": "fp32", "tta": 1, "json": True, **files}


def read_csv(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def submission(given: dict) -> tuple[list[str], list[str], np.ndarray]:
    header, *rows = read_csv(given["out"] / "submission.csv")
    return header, [row[0] for row in rows], np.array([float(row[1]) for row in rows])


def test_kaggles_file_without_labels(given, capfd):
    out, err = cli(capfd, "test", **given)
    figures = json.loads(out)
    assert figures["pictures"] == 11 and figures["broken"] == 1 and "accuracy" not in figures
    assert "left out: 10.png" in err and not (given["out"] / "figures.json").exists()
    assert Path(figures["submission"]) == given["out"] / "submission.csv"
    header, ids, dog = submission(given)
    assert header == ["id", "label"] and ids == [str(i) for i in range(1, 13)] and dog[9] == 0.5
    model = Classifier.load(given["load"])
    for i in (1, 2, 11):  # the middle 7/8 of the shorter side, as large as the crop
        image = Image.open(given["data_root"] / f"{i}.png")
        image = image.resize((32, 32), Image.Resampling.BICUBIC, box=(4.5, 1.5, 25.5, 22.5))
        with torch.no_grad():
            logits = model(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)["logits"][0]
        assert dog[i - 1] == pytest.approx((logits / 2).softmax(0)[1].clamp(0.005, 0.995).item(), abs=1e-4)
    save_lenet(given["load"], temperature=0.001)  # certain of everything
    cli(capfd, "test", **given)
    assert {0.5} < set(submission(given)[2]) <= {0.005, 0.5, 0.995}


def test_test_with_labels(given, tmp_path, capfd):
    """Figures, samples and Kaggle's file; all of it again with labels missing, and then the figures of the others."""
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"{i},{int(i % 2)}\n" for i in range(1, 13)))
    given |= {"labels": tmp_path / "labels.csv", "tta": 2}
    figures = json.loads(cli(capfd, "test", **given)[0])
    judge(given["out"], figures)
    assert figures["pictures"] == 11 and list((given["out"] / "samples").glob("worst_*.png"))
    first = submission(given)
    (tmp_path / "labels.csv").write_text("id,label\n1,1\n2,0\n")
    labels = {row[0]: row[2] for row in read_csv(given["out"] / "predictions.csv")}
    out, err = cli(capfd, "test", **given)
    assert "9 of 11 pictures have no label: the metrics are those of the others" in err
    told = json.loads(out)
    assert told["pictures"] == 11 and told["unlabelled"] == 9
    assert told["accuracy"] == ((labels["1.png"] == "dog") + (labels["2.png"] == "cat")) / 2
    again = submission(given)
    assert again[1] == first[1] and (again[2] == first[2]).all()


def test_labelled_by_name_there_is_nothing_to_submit(given, tmp_path, capfd):
    """Class folders have pictures of one name, and their case may differ from the model's classes."""
    for i in range(3):
        write_picture(tmp_path / "data" / "Cat" / f"{i}.png", HUES["cat"], i)
        write_picture(tmp_path / "data" / "DOG" / f"{i}.png", HUES["dog"], i)
    out, err = cli(capfd, "test", **given | {"data_root": tmp_path / "data"})
    figures = json.loads(out)
    assert figures["pictures"] == 6 and "accuracy" in figures and "submission" not in figures
    assert "nothing here is for the test alone: all pictures are evaluated" in err


def test_a_finished_run_is_calibrated_for_the_views_that_answers_are_made_of(tmp_path, capfd):
    """Each number of views by what `classify` sees of the validation pictures; what cannot be read is left out."""
    data = write_hard_set(tmp_path / "data")
    next((data / "val").iterdir()).write_bytes(b"")
    cli(capfd, "train", **options(tmp_path, data, run="a", max_epoch=1))
    model = classify.open_model(tmp_path / "a" / "best.safetensors")
    samples = [s for s in choose_split(list_samples(data), "val") if s.source.path.stat().st_size]
    label = torch.tensor([["cat", "dog"].index(sample.label) for sample in samples])
    temperatures, means = {}, {}
    for views in (1, 2, 6):
        pictures = classify.Pictures([sample.source for sample in samples], 32, views)
        means[views] = torch.stack([found["logits"].mean(0) for _, found, _ in classify.predict(model, pictures)])
        temperatures[views], threshold = classify.calibrate(means[views], label)
        expected = (temperatures[views], threshold, classify.SOMETHING_ELSE)
        assert classify.calibration(model, views) == pytest.approx(expected, rel=1e-3)
    assert len(set(temperatures.values())) == 3
    (answer,) = classify.classify(model, [samples[0].source], classify.Settings(2, "fp32", -1))
    chances = (means[2][0] / temperatures[2]).softmax(0).tolist()
    assert list(answer.probabilities.values()) == pytest.approx(chances, abs=1e-4)


def test_three_classes_have_a_column_each(tmp_path):
    table = {"10": np.array([0.2, 0.3, 0.5]), "9": np.array([1.0, 0, 0]), "b": np.full(3, 1 / 3)}
    write_submission(tmp_path / "s.csv", table, ["a,b", "猫", "c"])
    rows = read_csv(tmp_path / "s.csv")
    assert [row[0] for row in rows] == ["id", "9", "10", "b"] and rows[0] == ["id", "a,b", "猫", "c"]
    assert rows[1][1:] == ["0.995000", "0.005000", "0.005000"]


@pytest.mark.parametrize(
    "command, more, line",
    [
        ("train", {"load": "poet.safetensors"}, "poet.safetensors holds a Poet, not a Classifier"),
        ("train", {"backbone": "mobilenet_v2", "pretrained": "none"}, "--image_size=32: MobileNetV2 needs 33 or more"),
        ("train", {"cache": "text"}, "--cache=text: cannot make this folder"),
        ("train", {"freeze": "features.*"}, "--freeze=features.*: fits no parameter; they begin with conv1"),
        ("train", {"load": "lenet.safetensors", "monitor": "auc"}, "--monitor=auc: needs validation pictures of every"),
        ("train", {"distill": 1}, "--distill: there is nothing else that this network knows"),
        ("test", {"load": "lenet.safetensors", "labels": "text"}, "--labels=text"),
        ("val", {"load": "lenet.safetensors", "out": "text"}, "cannot write text/"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_learnt(tmp_path, capfd, command, more, line):
    data = write_set(tmp_path / "data", TWO, 4, 2)
    (tmp_path / "text").write_text("no file of this kind")
    save_lenet(tmp_path / "lenet.safetensors", (*TWO, "bird"))
    Poet(vocab=list("春江花月夜"), embed=4, hidden=4, layers=1).save(tmp_path / "poet.safetensors")
    files = {name: tmp_path / value for name, value in more.items() if (tmp_path / str(value)).exists()}
    err = cli(capfd, command, 2, **{**options(tmp_path, data, run="a"), **more, **files})[1]
    told = err.replace(f"{tmp_path}/", "").splitlines()[-1]
    assert told.startswith("error: ") and line in told and err.count("error: ") == 1
    assert not (tmp_path / "a" / "best.safetensors").exists()


def test_nothing_to_validate_with_can_be_read(tmp_path, capfd):
    write_set(tmp_path / "data", TWO, 4, 2)
    for path in (tmp_path / "data" / "val").iterdir():
        path.write_bytes(b"")
    told = cli(capfd, "train", 2, **options(tmp_path, tmp_path / "data", run="a"))[1]
    assert "error: none of the 4 samples can be read; the first: val/cat.4.png is empty" in told.splitlines()[-1]
    assert told.count("left out: val/") == 4


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "squeezenet1_1"])
def test_a_batch_of_one_and_an_odd_size(tmp_path, capfd, backbone):
    write_set(tmp_path / "data", TWO, 1, 1)
    more = {"backbone": backbone, "pretrained": "none", "image_size": 33, "batch_size": 1, "max_epoch": 1}
    cli(capfd, "train", **options(tmp_path, tmp_path / "data", run="a", **more))
    assert Classifier.load(tmp_path / "a" / "best.safetensors").metadata["image_size"] == 33


def test_labels_from_a_file_train(tmp_path, capfd):
    """As the message on pictures without a label says."""
    write_set(tmp_path / "set", TWO, 6, 0)
    (tmp_path / "data").mkdir()
    lines = ["id,label"]
    for i, path in enumerate(sorted((tmp_path / "set" / "train").iterdir())):
        path.rename(tmp_path / "data" / f"{i}.png")
        lines.append(f"{i},{path.name[:3]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    given = options(tmp_path, tmp_path / "data", run="a", max_epoch=1)
    assert "labels=FILE" in cli(capfd, "train", 2, **given)[1]
    assert "6 cat, 6 dog" in cli(capfd, "train", **given, labels=tmp_path / "labels.csv")[1]
