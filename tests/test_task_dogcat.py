"""The classifier's task in real trainings of LeNet on small coloured pictures: figures, stopping, reports, mistakes."""

import csv
import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sklearn import metrics

import main
from config import DogCatConfig
from data.dogcat import CachedFeatures
from data.labels import choose_split, list_samples, write_submission
from infer.photo.classify import Pictures, calibrate, calibration, classify, open_model, predict
from models import BACKBONES, Classifier
from models.poet import Poet
from options import parse
from tasks import dogcat, make_task
from tests.servers import free_port
from tests.training import Process, arguments, assert_same_run, log_of, run, steps_done
from training.parameters import freeze, train_mode
from training.state import read_state
from utils.images import read_image

HUES = {"cat": (200, 70, 60), "dog": (60, 80, 200), "bird": (70, 190, 60)}
TWO = {name: HUES[name] for name in ("cat", "dog")}
BODY = "conv*,fc1.*,fc2.*"  # all of LeNet but its last layer
SHARED = Path(__file__).parents[2] / "shared" / "dogcat"


def write_picture(path: Path, hue: tuple[int, ...], seed: int, spread: int = 60) -> None:
    """30 x 24 pixels of about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, (6, 8, 3)) + np.array(hue)
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    image.resize((30, 24), Image.Resampling.BICUBIC).save(path)


def write_set(root: Path, classes: dict[str, tuple[int, ...]], train: int, val: int, spread: int = 60) -> Path:
    """Pictures of each class, named as Kaggle does, in the folders train and val."""
    for number, (name, hue) in enumerate(classes.items()):
        for i in range(train + val):
            folder = "train" if i < train else "val"
            write_picture(root / folder / f"{name}.{i}.png", hue, 1000 * number + i, spread)
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two classes that are easy to tell apart: 20 pictures each to train with, 10 to validate."""
    return write_set(tmp_path_factory.mktemp("easy"), TWO, 20, 10)


@pytest.fixture(scope="module")
def hard(tmp_path_factory) -> Path:
    """Two classes that nobody can tell apart in all cases."""
    near = {"cat": (120, 100, 110), "dog": (110, 100, 120)}
    return write_set(tmp_path_factory.mktemp("hard"), near, 12, 20, spread=110)


def options(folder: Path, data: Path, **more) -> dict:
    """Options of `train` for a run of 5 tiny steps an epoch."""
    small = {"backbone": "lenet", "image_size": 32, "batch_size": 8, "max_epoch": 2, "warmup": 2, "lr": 0.002, "ema": 0}
    place = {"data_root": data, "save_path": folder, "debug_file": folder / "debug"}
    other = {"use_visdom": False, "use_gpu": False, "precision": "fp32", "save_every": 0}
    return {"task": "dogcat", **small, **place, **other, **more}


def task_of(data: Path, **more) -> dogcat.DogCatTask:
    torch.manual_seed(0)
    return make_task(parse(DogCatConfig, options(Path("nowhere"), data, **more)))


def cli(capfd, command: str, code: int = 0, **given) -> tuple[str, str]:
    """What `main.py COMMAND` prints on stdout and stderr, in this process."""
    capfd.readouterr()
    assert main.main(arguments(command, **given)) == code, capfd.readouterr().err
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return out, err


def epochs_of(run_folder: Path, split: str) -> list[dict]:
    return [r for r in log_of(run_folder) if r["kind"] == "epoch" and r["split"] == split]


def raw_logits(model: Classifier, task: dogcat.DogCatTask) -> tuple[torch.Tensor, np.ndarray]:
    """(logits (N, K), labels (N)) of the validation pictures, one picture at a time."""
    samples = [task.val_pictures[i] for i in range(len(task.val_pictures))]
    with torch.no_grad():
        rows = [model(sample["image"][None] / 255)["logits"][0] for sample in samples]
    return torch.stack(rows), np.array([sample["label"] for sample in samples])


# ---------------------------------------------------------------------------------------------------------- a step


def by_hand(logits: torch.Tensor, target: np.ndarray) -> float:
    """The mean cross entropy to distributions, in numpy."""
    z = logits.detach().double().numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    return float(-(target * log_p).sum(1).mean())


def batch_of(labels: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    image = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    return {"image": torch.from_numpy(image), "label": torch.tensor(labels), "index": torch.arange(len(labels))}


def test_label_smoothing_and_pictures_of_neither_by_hand(pictures):
    task = task_of(pictures, label_smoothing=0.2, dropout=0)
    batch = batch_of([0, 1, -1, 1])
    for training, share in ((True, 0.2), (False, 0.0)):
        task.model.train(training)
        output = task.step(task.model, batch)
        logits = task.model(batch["image"] / 255)["logits"]
        one_hot = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 1]])
        target = one_hot * (1 - share) + share / 2
        assert output["objective"].item() == pytest.approx(by_hand(logits, target), rel=1e-5)
        known = [0, 1, 3]
        assert float(output["loss"]) == pytest.approx(by_hand(logits[known], one_hot[known]), rel=1e-5)
        right = (logits[known].argmax(1) == torch.tensor([0, 1, 1])).float().mean()
        assert float(output["accuracy"]) == pytest.approx(float(right)) and int(output["count"]) == 3
        assert output["objective"].requires_grad and not output["loss"].requires_grad
        assert output["samples"]["logits"].equal(logits) and output["samples"]["label"].equal(batch["label"])
    alone = task.step(task.model, batch_of([-1, -1]))
    assert int(alone["count"]) == 0 and alone["objective"].item() > 0


def test_mixup_by_hand(pictures):
    task = task_of(pictures, mixup=0.4, label_smoothing=0.1, dropout=0)
    batch = batch_of([0, 1, 1, 0, -1])
    one_hot = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [0.5, 0.5]]) * 0.9 + 0.05
    image, shares = batch["image"].double().numpy() / 255, []
    task.model.train()
    for seed in range(5):
        torch.manual_seed(seed)
        output = task.step(task.model, batch)
        torch.manual_seed(seed)
        share = torch.distributions.Beta(0.4, 0.4).sample().item()
        share, order = max(share, 1 - share), torch.randperm(5).numpy()
        shares.append(share)
        mixed = torch.from_numpy(share * image + (1 - share) * image[order]).float()
        logits = task.model(mixed)["logits"]
        target = share * one_hot + (1 - share) * one_hot[order]
        assert output["objective"].item() == pytest.approx(by_hand(logits, target), rel=1e-4)
    assert len(set(shares)) == 5 and min(shares) >= 0.5
    task.model.eval()
    plain = task.step(task.model, batch)["objective"]
    same = task_of(pictures)
    same.model.eval()
    assert plain.item() == pytest.approx(same.step(same.model, batch)["objective"].item())


# ------------------------------------------------------------------------------------------------------------ a run


def test_a_run_learns_two_classes_and_leaves_a_model_to_give_away(pictures, tmp_path):
    told = run(tmp_path, **options(tmp_path, pictures, run="a", max_epoch=4, samples=1, ema=0.5, monitor="accuracy"))
    assert f"pictures from {pictures}: 30 cat, 30 dog; LeNet of" in told
    val = epochs_of(tmp_path / "a", "val")
    assert val[-1]["accuracy"] == 1 and val[-1]["auc"] == 1 and val[-1]["loss"] < 0.5 * val[0]["loss"]
    matrices = [r for r in log_of(tmp_path / "a") if r["kind"] == "matrix"]
    assert matrices[-1]["rows"] == [[10, 0], [0, 10]] and len(matrices) == 4
    sheet = read_image(tmp_path / "a" / "pictures" / "epoch_0004.png").rgb  # 4 of the worst, 4 of the best
    assert sheet.shape[0] == 2 * 32 + 4 and sheet.shape[1] > 4 * 32
    model = Classifier.load(tmp_path / "a" / "best.safetensors")
    assert model.classes == ["cat", "dog"] and model.metadata["image_size"] == 32
    assert model.metadata["temperature"] > 0 and 0.5 <= model.metadata["threshold"] <= 1
    with safe_open(tmp_path / "a" / "best.safetensors", "pt") as file:
        header = json.dumps(file.metadata())
    assert str(tmp_path) not in header and str(pictures) not in header


def test_three_classes_with_strange_names_need_no_change(tmp_path, capfd):
    """And a report of them: the figures are scikit-learn's on the predictions that it writes."""
    classes = {"a, b": HUES["cat"], "<b>dog": HUES["dog"], "鸟": HUES["bird"]}
    for number, (name, hue) in enumerate(classes.items()):
        for i in range(16):
            folder = "train" if i < 12 else "val"
            write_picture(tmp_path / "data" / folder / name / f"{i}.png", hue, 100 * number + i)
    run(tmp_path, **options(tmp_path, tmp_path / "data", run="a", max_epoch=5))
    val = epochs_of(tmp_path / "a", "val")[-1]
    assert val["accuracy"] > 0.9 and val["auc"] > 0.95
    load = tmp_path / "a" / "best.safetensors"
    assert Classifier.load(load).classes == ["<b>dog", "a, b", "鸟"]
    given = {"data_root": tmp_path / "data", "load": load, "out": tmp_path / "report", "use_gpu": False}
    out, _ = cli(capfd, "val", task="dogcat", json=True, tta=1, precision="fp32", **given)
    figures = json.loads(out)
    assert figures["accuracy"] == pytest.approx(val["accuracy"], abs=1 / 12) and figures["pictures"] == 12
    judge(tmp_path / "report", figures)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "&lt;b&gt;dog" in page and "<b>dog" not in page and "鸟" in page


def judge(report: Path, told: dict) -> None:
    """The figures of a report, in its file and as told, are scikit-learn's on its predictions.csv."""
    with open(report / "predictions.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    classes = header[3:]
    label = np.array([classes.index(row[1]) for row in rows])
    chances = np.array([[float(value) for value in row[3:]] for row in rows])
    chances /= chances.sum(1, keepdims=True)
    predicted = chances.argmax(1)
    assert [row[2] for row in rows] == [classes[k] for k in predicted]
    numbers = range(len(classes))
    scores = metrics.precision_recall_fscore_support(label, predicted, labels=numbers, zero_division=0)
    expected = {
        "accuracy": metrics.accuracy_score(label, predicted),
        "log_loss": metrics.log_loss(label, chances, labels=numbers),
        "auc": metrics.roc_auc_score(label, chances[:, 1] if len(classes) == 2 else chances, multi_class="ovr"),
        "macro_f1": scores[2].mean(),
        **{f"{name}_recall": scores[1][k] for k, name in enumerate(classes)},
    }
    for found in (told, json.loads((report / "figures.json").read_text())):
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    with open(report / "confusion.csv", encoding="utf-8", newline="") as file:
        matrix = [list(map(int, row[1 : 1 + len(classes)])) for row in list(csv.reader(file))[1 : 1 + len(classes)]]
    assert matrix == metrics.confusion_matrix(label, predicted, labels=numbers).tolist()


def test_validation_figures_are_scikit_learns_on_raw_predictions(hard, tmp_path):
    run(tmp_path, **options(tmp_path, hard, run="a", max_epoch=1))
    val = epochs_of(tmp_path / "a", "val")[0]
    model = Classifier.load(tmp_path / "a" / "best.safetensors")
    logits, label = raw_logits(model, task_of(hard))
    chances = logits.double().softmax(1).numpy()
    assert 0.2 < val["loss"] < 2 and 0.3 < val["accuracy"] < 1  # not so easy that any figures would do
    assert val["loss"] == pytest.approx(metrics.log_loss(label, chances), rel=1e-4)
    assert val["accuracy"] == pytest.approx(metrics.accuracy_score(label, chances.argmax(1)))
    assert val["auc"] == pytest.approx(metrics.roc_auc_score(label, chances[:, 1]), abs=1e-4)
    curves = {r["name"]: r for r in log_of(tmp_path / "a") if r["kind"] == "curve"}
    assert set(curves) == {"precision_recall", "roc"} and all(list(r["lines"]) == ["dog"] for r in curves.values())
    precision, recall, _ = metrics.precision_recall_curve(label, chances[:, 1])
    expected = np.stack([recall, precision])[:, ::-1]
    assert curves["precision_recall"]["axes"] == ["recall", "precision"]
    np.testing.assert_allclose(curves["precision_recall"]["lines"]["dog"], expected, atol=1e-4)
    expected = metrics.roc_curve(label, chances[:, 1], drop_intermediate=False)[:2]
    np.testing.assert_allclose(curves["roc"]["lines"]["dog"], expected, atol=1e-4)


@pytest.mark.parametrize("monitor, best", [("accuracy", max), ("loss", min)])
def test_the_best_checkpoint_is_the_monitors(hard, tmp_path, monitor, best):
    run(tmp_path, **options(tmp_path, hard, run="a", max_epoch=6, lr=0.03, monitor=monitor, lr_schedule="constant"))
    curve = [r[monitor] for r in epochs_of(tmp_path / "a", "val")]
    metadata = Classifier.load(tmp_path / "a" / "best.safetensors").metadata
    assert metadata["epoch"] == 1 + curve.index(best(curve)) and metadata[monitor] == pytest.approx(best(curve))
    assert len(set(curve)) > 1


@pytest.mark.parametrize("more", [{}, {"freeze": BODY}], ids=["all", "frozen"])
def test_broken_pictures_are_all_named_and_training_goes_on(tmp_path, more):
    data = tmp_path / "data"
    write_set(data, TWO, 20, 10)
    ends = {"train/cat.3.png": b"", "train/dog.7.png": b"<html>", "val/dog.25.png": None}
    for name, content in ends.items():
        (data / name).write_bytes((data / name).read_bytes()[:200] if content is None else content)
    told = run(tmp_path, **options(tmp_path, data, run="a", **more))
    log = log_of(tmp_path / "a")
    named = [r["text"] for r in log if r["kind"] == "text" and r["name"] == "left out"]
    for name in ends:
        assert told.count(f"left out: {name}") == 1 and sum(text.startswith(name) for text in named) == 1
    assert len(named) == 3 and len(epochs_of(tmp_path / "a", "val")) == 2
    assert [r["kind"] for r in log].count("batch") == 10


def test_killed_and_resumed_it_is_the_same_run(pictures, tmp_path):
    more = {"max_epoch": 3, "ema": 0.9, "mixup": 0.3, "num_workers": 2, "samples": 1, "label_smoothing": 0.1}
    run(tmp_path, **options(tmp_path, pictures, run="whole", **more))
    whole, draw = steps_done(tmp_path / "whole"), random.Random(0)
    assert whole == 15
    for part in (0.3, 0.8):
        again = {"resume": tmp_path / "killed"} if (tmp_path / "killed" / "last.pt").exists() else {"run": "killed"}
        process = Process(arguments(**options(tmp_path, pictures, **again, **more)), tmp_path / f"killed{part}")
        process.wait_for(lambda part=part: steps_done(tmp_path / "killed") >= part * whole)
        time.sleep(draw.uniform(0, 0.01))
        process.kill()
    run(tmp_path, **options(tmp_path, pictures, resume=tmp_path / "killed", **more))
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    averages = [read_state(tmp_path / name / "last.pt")["average"] for name in ("whole", "killed")]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_two_processes_are_one(pictures, tmp_path):
    more = {
        "max_epoch": 2,
        "dropout": 0,
        "batch_size": 6,
    }  # the last batch has 4, the validation's last one an odd number
    run(tmp_path, **options(tmp_path, pictures, run="one", **more))
    argv = arguments(**options(tmp_path, pictures, run="two", devices=2, **more))
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
    ranks = [Process(argv, tmp_path / f"rank{rank}", LOCAL_RANK=str(rank), **world) for rank in (0, 1)]
    assert [process.wait() for process in ranks] == [0, 0], [process.out.read_text() for process in ranks]
    names = ("step", "lr", "loss", "accuracy", "auc")
    curves = [
        [[r[k] for k in names if k in r] for r in log_of(tmp_path / name) if r["kind"] in ("batch", "epoch")]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == len(curves[1]) == 2 * (7 + 2)
    for one, two in zip(*curves, strict=True):
        assert one == pytest.approx(two, abs=1e-4)
    models = [Classifier.load(tmp_path / name / "best.safetensors") for name in ("one", "two")]
    assert models[0].metadata["temperature"] == pytest.approx(models[1].metadata["temperature"], rel=1e-2)


def test_a_run_that_began_with_a_file_of_another_network_goes_on(pictures, tmp_path):
    BACKBONES["lenet"](["cat", "dog"]).save(tmp_path / "lenet.safetensors", image_size=32)
    given = options(tmp_path, pictures, run="a", load=tmp_path / "lenet.safetensors", max_epoch=1)
    del given["backbone"]
    run(tmp_path, **given)
    told = run(tmp_path, resume=tmp_path / "a", max_epoch=2)
    assert len(epochs_of(tmp_path / "a", "val")) == 2 and "LeNet of" in told


def test_a_run_needs_its_first_weights_no_more_and_keeps_its_network(pictures, tmp_path):
    BACKBONES["lenet"](["cat", "dog"]).save(tmp_path / "first.safetensors")
    run(tmp_path, **options(tmp_path, pictures, run="a", pretrained=tmp_path / "first.safetensors", max_epoch=1))
    (tmp_path / "first.safetensors").unlink()
    run(tmp_path, resume=tmp_path / "a", max_epoch=2)
    assert len(epochs_of(tmp_path / "a", "val")) == 2
    told = run(tmp_path, code=2, resume=tmp_path / "a", max_epoch=3, backbone="squeezenet1_1", image_size=64)
    assert told.splitlines()[-1].startswith(f"error: {tmp_path / 'a'} was trained with another network: ")


# ----------------------------------------------------------------------------------------------------- a frozen body


def frozen_task(data: Path, **more) -> dogcat.DogCatTask:
    task = task_of(data, freeze=BODY, **more)
    freeze(task.model, task.cfg.freeze)
    return task


def test_kept_features_give_the_objective_of_computing_them_anew(pictures):
    kept, anew = frozen_task(pictures, dropout=0), frozen_task(pictures, dropout=0)
    for task in (kept, anew):
        task.train_batches(0)
    assert isinstance(kept.train_set, CachedFeatures) and isinstance(kept.val_batches()[0], CachedFeatures)
    train_mode(kept.model)
    train_mode(anew.model)
    for indices in kept.train_batches(0):
        batch = kept.collate([kept.train_set[i] for i in indices])
        same = anew.collate([anew.pictures[i] for i in indices])
        assert "image" not in batch and batch["index"].equal(same["index"]) and batch["label"].equal(same["label"])
        outputs = [kept.step(kept.model, batch), anew.step(anew.model, same)]
        for name in ("objective", "loss", "accuracy"):
            assert outputs[0][name].item() == pytest.approx(outputs[1][name].item(), rel=1e-5)
        outputs[0]["objective"].backward()
        outputs[1]["objective"].backward()
    for one, other in zip(kept.model.parameters(), anew.model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.allclose(one.grad, other.grad, atol=1e-6)


def test_views_are_computed_once_each_and_come_again(pictures, monkeypatch):
    task = frozen_task(pictures, views=2)
    maps, calls, features = [], [], task.model.feature_maps
    monkeypatch.setattr(task.model, "feature_maps", lambda image: calls.append(len(image)) or features(image))
    for epoch in range(4):
        batches = task.train_batches(epoch)
        assert sorted(sum(batches, [])) == list(range(40))
        maps.append(torch.stack([task.train_set[i]["maps"] for i in range(40)]))
    assert sum(calls) == 2 * 40
    assert maps[0].equal(maps[2]) and maps[1].equal(maps[3]) and not maps[0].equal(maps[1])


def test_a_frozen_run_killed_and_resumed_is_the_same_run(pictures, tmp_path):
    more = {"freeze": BODY, "max_epoch": 3, "views": 2, "dropout": 0.5}
    run(tmp_path, **options(tmp_path, pictures, run="whole", **more))
    process = Process(arguments(**options(tmp_path, pictures, run="killed", **more)), tmp_path / "process")
    process.wait_for(lambda: steps_done(tmp_path / "killed") >= 7)
    process.kill()
    run(tmp_path, **options(tmp_path, pictures, resume=tmp_path / "killed", **more))
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    first, last = task_of(pictures).model.state_dict(), read_state(tmp_path / "whole" / "last.pt")["model"]
    assert {name for name in first if not first[name].equal(last[name])} == {"fc3.weight", "fc3.bias"}


def test_what_is_to_be_unfrozen_is_not_kept(pictures):
    task = frozen_task(pictures, unfreeze_epoch=1)
    task.train_batches(0)
    assert task.train_set is task.pictures and task.val_batches()[0] is task.val_pictures


# ------------------------------------------------------------------------------------------------ pictures of neither


def test_pictures_of_neither_are_learnt_and_judged(pictures, tmp_path):
    for i in range(20):
        write_picture(tmp_path / "others" / f"{i}.png", HUES["bird"], 500 + i)
    run(tmp_path, **options(tmp_path, pictures, run="a", max_epoch=8, others=tmp_path / "others"))
    val = epochs_of(tmp_path / "a", "val")
    assert val[-1]["accuracy"] == 1 and val[-1]["others_rejected"] == 1
    curves = [r["lines"]["dog"] for r in log_of(tmp_path / "a") if r["kind"] == "curve"]
    assert len(curves) == 2 * 8  # with the 20 that are labelled, of which each adds a point at most
    assert all(2 < len(x) == len(y) <= 21 for x, y in curves) and curves[-2][1][-1] == 0.5
    with safe_open(tmp_path / "a" / "best.safetensors", "pt") as file:
        assert str(tmp_path) not in json.dumps(file.metadata())


# ---------------------------------------------------------------------------------------------------------- val, test


def save_model(path: Path, temperature: float = 1.5, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A LeNet of random weights; what it says is as good as any to compute with."""
    torch.manual_seed(3)
    model = BACKBONES["lenet"](list(classes))
    with torch.no_grad():
        model.fc3.weight.normal_(std=0.3)
    model.save(path, image_size=32, temperature=temperature, threshold=0.6)
    return path


@pytest.fixture
def kaggle(tmp_path) -> Path:
    """Pictures 1 to 12 without labels; 10 is broken."""
    for i in range(1, 13):
        write_picture(tmp_path / "test1" / f"{i}.png", HUES["cat" if i % 3 else "dog"], i, 100)
    (tmp_path / "test1" / "10.png").write_bytes(b"<html>")
    return tmp_path / "test1"


def submission(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return header, [row[0] for row in rows], np.array([float(row[1]) for row in rows])


def test_kaggles_file_without_labels(kaggle, tmp_path, capfd):
    given = {"task": "dogcat", "data_root": kaggle, "use_gpu": False, "precision": "fp32", "tta": 1}
    load = save_model(tmp_path / "lenet.safetensors")
    out, err = cli(capfd, "test", **given, load=load, out=tmp_path / "report", json=True)
    figures = json.loads(out)
    assert figures["pictures"] == 11 and figures["broken"] == 1 and "accuracy" not in figures
    assert "left out: 10.png" in err and not (tmp_path / "report" / "figures.json").exists()
    assert Path(figures["submission"]) == tmp_path / "report" / "submission.csv"
    header, ids, dog = submission(tmp_path / "report" / "submission.csv")
    assert header == ["id", "label"] and ids == [str(i) for i in range(1, 13)] and dog[9] == 0.5
    model = Classifier.load(load)
    for i in (1, 2, 11):  # the middle 7/8 of the shorter side, as large as the crop
        image = Image.open(kaggle / f"{i}.png").resize((32, 32), Image.Resampling.BICUBIC, box=(4.5, 1.5, 25.5, 22.5))
        with torch.no_grad():
            logits = model(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)["logits"][0]
        assert dog[i - 1] == pytest.approx((logits / 1.5).softmax(0)[1].clamp(0.005, 0.995).item(), abs=1e-4)
    save_model(load, temperature=0.001)  # certain of everything
    cli(capfd, "test", **given, load=load, out=tmp_path / "report")
    dog = submission(tmp_path / "report" / "submission.csv")[2]
    assert {0.5} < set(dog) <= {0.005, 0.5, 0.995}


def test_test_with_labels(kaggle, tmp_path, capfd):
    """Figures, samples and Kaggle's file; all of it again with labels missing, and then the figures of the others."""
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"{i},{int(i % 2)}\n" for i in range(1, 13)))
    given = {"task": "dogcat", "data_root": kaggle, "load": save_model(tmp_path / "lenet.safetensors"), "json": True}
    given |= {"use_gpu": False, "precision": "fp32", "labels": tmp_path / "labels.csv", "out": tmp_path / "report"}
    figures = json.loads(cli(capfd, "test", **given)[0])
    judge(tmp_path / "report", figures)
    assert figures["pictures"] == 11 and list((tmp_path / "report" / "samples").glob("worst_*.png"))
    first = submission(tmp_path / "report" / "submission.csv")
    (tmp_path / "labels.csv").write_text("id,label\n1,1\n2,0\n")
    labels = {row[0]: row[2] for row in predictions(tmp_path / "report")}
    out, err = cli(capfd, "test", **given)
    assert "9 of 11 pictures have no label: the metrics are those of the others" in err
    told = json.loads(out)
    assert told["pictures"] == 11 and told["unlabelled"] == 9
    assert told["accuracy"] == ((labels["1.png"] == "dog") + (labels["2.png"] == "cat")) / 2
    again = submission(tmp_path / "report" / "submission.csv")
    assert again[1] == first[1] and (again[2] == first[2]).all()


def predictions(report: Path) -> list[list[str]]:
    with open(report / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def test_a_finished_run_is_calibrated_for_the_views_that_answers_are_made_of(hard, tmp_path):
    """Each number of views by what `classify` sees of the validation pictures; what cannot be read is left out."""
    data = shutil.copytree(hard, tmp_path / "data")
    next((data / "val").iterdir()).write_bytes(b"")
    run(tmp_path, **options(tmp_path, data, run="a", max_epoch=1))
    model = open_model(tmp_path / "a" / "best.safetensors")
    samples = [s for s in choose_split(list_samples(data), "val") if s.source.path.stat().st_size]
    label = torch.tensor([["cat", "dog"].index(sample.label) for sample in samples])
    found = {}
    for views in (1, 2, 4, 6):
        pictures = Pictures([sample.source for sample in samples], 32, views)
        logits = torch.stack([views.mean(0) for _, views, _ in predict(model, pictures)])
        found[views] = calibrate(logits, label)
        assert calibration(model, views) == pytest.approx(found[views], rel=1e-3)
    assert len({temperature for temperature, _ in found.values()}) == 4
    (answer,) = classify(model, [samples[0].source])
    chances = (next(predict(model, Pictures([samples[0].source], 32, 2)))[1].mean(0) / found[2][0]).softmax(0)
    assert list(answer.probabilities.values()) == pytest.approx(chances.tolist(), abs=1e-4)


def test_labelled_by_name_there_is_nothing_to_submit(tmp_path, capfd, monkeypatch):
    """Class folders have pictures of one name, and their case may differ from the model's classes."""
    monkeypatch.setattr(dogcat.report, "write_report", lambda *arguments: {})
    for i in range(3):
        write_picture(tmp_path / "data" / "Cat" / f"{i}.png", HUES["cat"], i)
        write_picture(tmp_path / "data" / "DOG" / f"{i}.png", HUES["dog"], i)
    load = save_model(tmp_path / "lenet.safetensors")
    given = {"task": "dogcat", "data_root": tmp_path / "data", "load": load, "out": tmp_path / "report"}
    out, err = cli(capfd, "test", **given, json=True, use_gpu=False)
    figures = json.loads(out)
    assert figures["pictures"] == 6 and "submission" not in figures and not (tmp_path / "report").exists()
    assert "nothing here is for the test alone: all pictures are judged" in err


def test_three_classes_have_a_column_each(tmp_path):
    table = {"10": np.array([0.2, 0.3, 0.5]), "9": np.array([1.0, 0, 0]), "b": np.full(3, 1 / 3)}
    write_submission(tmp_path / "s.csv", table, ["a,b", "猫", "c"])
    with open(tmp_path / "s.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["id", "9", "10", "b"] and rows[0] == ["id", "a,b", "猫", "c"]
    assert rows[1][1:] == ["0.995000", "0.005000", "0.005000"]


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.fixture(scope="module")
def place(tmp_path_factory, pictures) -> Path:
    """A folder with things that are not what an option wants."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "EMPTY").mkdir()
    (folder / "pictures").symlink_to(pictures)
    for i in range(4):
        write_picture(folder / "one" / f"cat.{i}.png", HUES["cat"], i)
        write_picture(folder / "birds" / f"bird.{i}.png", HUES["bird"], i)
        write_picture(folder / "birds" / f"cat.{i}.png", HUES["cat"], i)
        write_picture(folder / "cats" / "val" / f"cat.{i}.png", HUES["cat"], i)
        write_picture(folder / "cats" / "train" / f"cat.1{i}.png", HUES["cat"], i)
        write_picture(folder / "cats" / "train" / f"dog.1{i}.png", HUES["dog"], i)
    save_model(folder / "lenet.safetensors")
    vocab = list("春江花月夜")
    Poet(vocab=vocab, embed=4, hidden=4, layers=1).save(folder / "poet.safetensors")
    (folder / "text").write_text("no file of this kind")
    return folder


PLACES = ("data_root", "load", "pretrained", "labels", "others", "cache", "out")


@pytest.mark.parametrize(
    "command, more, line",
    [
        ("train", {"data_root": "nowhere"}, "--data_root=nowhere does not exist"),
        ("train", {"data_root": "EMPTY"}, "--data_root=EMPTY: no pictures in it"),
        ("train", {"data_root": "one"}, "a classifier needs two classes, here is only cat"),
        ("train", {"load": "nowhere"}, "--load=nowhere does not exist"),
        ("train", {"load": "EMPTY"}, "cannot read EMPTY: Is a directory"),
        ("train", {"load": "text"}, "text is not a model file"),
        ("train", {"load": "poet.safetensors"}, "poet.safetensors holds a Poet, not a Classifier"),
        (
            "train",
            {"load": "lenet.safetensors", "data_root": "birds"},
            "is labelled bird, but the classes are cat, dog",
        ),
        ("train", {"pretrained": "poet.safetensors"}, "does not fit LeNet"),
        ("train", {"pretrained": "nowhere"}, "--pretrained=nowhere does not exist"),
        ("train", {"backbone": "lent"}, "--backbone=lent: choose one of mobilenet_v2"),
        ("train", {"image_size": 16}, "--image_size=16: must be at least 32"),
        ("train", {"backbone": "mobilenet_v2", "pretrained": "none"}, "--image_size=32: MobileNetV2 needs 33 or more"),
        ("train", {"labels": "nowhere"}, "--labels=nowhere does not exist"),
        ("train", {"others": "nowhere"}, "--others=nowhere does not exist"),
        ("train", {"cache": "text"}, "--cache=text: cannot make this folder"),
        ("train", {"monitor": "acuracy"}, "--monitor=acuracy: choose one of loss, accuracy, auc"),
        ("train", {"monitor": "auc", "data_root": "cats"}, "there is none of dog"),
        ("train", {"freeze": "features.*"}, "--freeze=features.* fits no parameter; they begin with conv1"),
        ("train", {"lr_scale": "conv1.*"}, "--lr_scale=conv1.*: expected PATTERN:FACTOR"),
        ("train", {"shuffle_blocks": 99}, "--shuffle_blocks=99"),
        ("val", {}, "val needs a model file: --load="),
        ("val", {"load": "poet.safetensors"}, "poet.safetensors holds a Poet, not a Classifier"),
        ("val", {"load": "lenet.safetensors", "tta": 3}, "--tta=3: choose one of 1, 2, 4, 6"),
        ("val", {"load": "lenet.safetensors", "data_root": "birds"}, "is labelled bird, but the classes are cat, dog"),
        ("test", {"load": "lenet.safetensors", "labels": "text"}, "--labels=text"),
        ("test", {"load": "lenet.safetensors", "data_root": "EMPTY"}, "--data_root=EMPTY: no pictures in it"),
        ("val", {"load": "lenet.safetensors", "out": "text"}, "cannot write text/"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_learnt(place, capfd, command, more, line):
    given = {**options(place, place / "pictures", run="a"), **more}
    given |= {k: place / v for k, v in more.items() if k in PLACES and v != "none"}
    err = cli(capfd, command, 2, **given)[1].replace(f"{place}/", "")
    told = err.splitlines()[-1]
    assert told.startswith("error: ") and line in told and err.count("error: ") == 1
    assert not (place / "a" / "best.safetensors").exists()


def test_nothing_to_validate_with_can_be_read(tmp_path):
    write_set(tmp_path / "data", TWO, 4, 2)
    for path in (tmp_path / "data" / "val").iterdir():
        path.write_bytes(b"")
    told = run(tmp_path, code=2, **options(tmp_path, tmp_path / "data", run="a"))
    assert "error: none of the 4 samples can be read; the first: val/cat.4.png is empty" in told.splitlines()[-1]
    assert told.count("left out: val/") == 4


@pytest.mark.parametrize("backbone", ["lenet", "mobilenet_v2", "squeezenet1_1"])
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
