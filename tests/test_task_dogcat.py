"""The classifier's task in real trainings of LeNet on small coloured pictures: figures, stopping, reports, mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn import metrics

from data.dogcat import CachedFeatures
from infer.photo.classify import Pictures, find_pictures
from models import Classifier, EfficientNetLite0
from tasks import dogcat
from tests.dogcat import BODY, HUES, TWO, cli, epochs_of, options, task_of, write_hard_set, write_picture, write_set
from tests.servers import free_port
from tests.test_loss_networks import randomise
from tests.training import Process, arguments, kill_at_random, log_of, run, steps_done
from training.parameters import freeze, train_mode
from training.state import read_state
from utils.images import read_image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Easy to tell apart."""
    return write_set(tmp_path_factory.mktemp("easy"), TWO, 20, 10)


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
    image, shares = batch["image"] / 255, []
    task.model.train()
    for seed in range(5):
        torch.manual_seed(seed)
        output = task.step(task.model, batch)
        torch.manual_seed(seed)
        share = torch.distributions.Beta(0.4, 0.4).sample().item()
        share, order = max(share, 1 - share), torch.randperm(5).numpy()
        shares.append(share)
        logits = task.model(share * image + (1 - share) * image[order])["logits"]
        target = share * one_hot + (1 - share) * one_hot[order]
        assert output["objective"].item() == pytest.approx(by_hand(logits, target), rel=1e-4)
    assert len(set(shares)) == 5 and min(shares) >= 0.5
    plain, same = (t.step(t.model.eval(), batch)["objective"].item() for t in (task, task_of(pictures)))
    assert plain == pytest.approx(same)


# ------------------------------------------------------------------------------------------------------------ a run


def test_a_run_learns_two_classes_and_neither_and_leaves_a_model_to_give_away(pictures, tmp_path):
    for i in range(20):
        write_picture(tmp_path / "others" / f"{i}.png", HUES["bird"], 500 + i)
    more = {"max_epoch": 8, "samples": 1, "monitor": "accuracy", "others": tmp_path / "others"}
    told = run(tmp_path, **options(tmp_path, pictures, run="a", **more))
    assert f"pictures from {pictures}: 30 cat, 30 dog; LeNet of" in told
    val = epochs_of(tmp_path / "a", "val")
    assert val[-1]["accuracy"] == val[-1]["auc"] == val[-1]["others_rejected"] == 1
    assert val[-1]["loss"] < 0.5 * val[0]["loss"]
    matrices = [r for r in log_of(tmp_path / "a") if r["kind"] == "matrix"]
    assert matrices[-1]["rows"] == [[10, 0], [0, 10]] and len(matrices) == 8
    curves = [r["lines"]["dog"] for r in log_of(tmp_path / "a") if r["kind"] == "curve"]
    assert len(curves) == 2 * 8  # with the 20 that are labelled, of which each adds a point at most
    assert all(2 < len(x) == len(y) <= 21 for x, y in curves) and curves[-2][1][-1] == 0.5
    sheet = read_image(tmp_path / "a" / "pictures" / "epoch_0008.png").rgb  # 4 of the worst, 4 of the best
    assert sheet.shape[0] == 2 * 32 + 4 and sheet.shape[1] > 4 * 32
    model = Classifier.load(tmp_path / "a" / "best.safetensors")
    assert model.classes == ["cat", "dog"] and model.metadata["image_size"] == 32
    assert model.metadata["temperature"] > 0 and 0.5 <= model.metadata["threshold"] <= 1
    with safe_open(tmp_path / "a" / "best.safetensors", "pt") as file:
        header = json.dumps(file.metadata())
    assert str(tmp_path) not in header and str(pictures) not in header


def test_validation_figures_are_scikit_learns_on_raw_predictions(tmp_path):
    data = write_hard_set(tmp_path / "data")
    run(tmp_path, **options(tmp_path, data, run="a", max_epoch=1))
    val = epochs_of(tmp_path / "a", "val")[0]
    model = Classifier.load(tmp_path / "a" / "best.safetensors")
    samples = list(task_of(data).val_pictures)
    with torch.no_grad():
        logits = torch.cat([model(sample["image"][None] / 255)["logits"] for sample in samples])
    label, chances = np.array([sample["label"] for sample in samples]), logits.double().softmax(1).numpy()
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


@pytest.mark.parametrize(
    "more",
    [
        {"ema": 0.9, "mixup": 0.3, "num_workers": 2, "samples": 1, "label_smoothing": 0.1},
        {"freeze": BODY, "views": 2, "dropout": 0.5},
    ],
    ids=["all", "frozen"],
)
def test_killed_and_resumed_it_is_the_same_run(pictures, tmp_path, more):
    more = {"max_epoch": 3, **more}
    kill_at_random(tmp_path, 2, **options(tmp_path, pictures, **more))
    assert steps_done(tmp_path / "whole") == 15
    whole, again = (read_state(tmp_path / name / "last.pt") for name in ("whole", "killed"))
    if "ema" in more:
        assert all(torch.equal(whole["average"][name], again["average"][name]) for name in whole["average"])
    if "freeze" in more:
        first = task_of(pictures).model.state_dict()
        changed = {name for name in first if not first[name].equal(whole["model"][name])}
        assert changed == {"fc3.weight", "fc3.bias"}


def test_two_processes_are_one(pictures, tmp_path):
    more = {"max_epoch": 2, "dropout": 0, "batch_size": 6}  # the last batches are smaller, one has an odd number
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


def test_what_is_to_be_unfrozen_is_not_kept(pictures):
    task = frozen_task(pictures, unfreeze_epoch=1)
    task.train_batches(0)
    assert task.train_set is task.pictures and task.val_batches()[0] is task.val_pictures


# ------------------------------------------------------------------- a network that knows more than its own classes


def test_what_a_network_knows_besides_stays_as_far_as_its_body_does(pictures, tmp_path, capfd, monkeypatch):
    """Of the body nothing learns by default; where all of it does, distillation keeps ImageNet's answers nearer."""
    stages = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 1), (6, 5, 2, 40, 2))
    monkeypatch.setattr("models.efficientnet.STAGES", stages)  # a smaller network learns the same faster
    torch.manual_seed(0)
    start = randomise(EfficientNetLite0(["cat", "dog"])).eval()
    torch.nn.init.normal_(start.imagenet_classifier.weight, std=0.1)
    start.save(tmp_path / "eye.safetensors", recognises=True)
    samples = map(Pictures(find_pictures([str(pictures / "val")]), 40, 1).__getitem__, range(20))
    image = torch.cat([sample["views"] for sample in samples]) / 255  # (20, 3, 40, 40)
    same = {"backbone": "efficientnet_lite0", "pretrained": tmp_path / "eye.safetensors", "image_size": 40}
    same |= {"optimizer": "sgd", "lr": 0.02}
    drift = {}
    for name, more in (("default", {}), ("all", {"freeze": ""}), ("kept", {"freeze": "", "distill": 10})):
        cli(capfd, "train", **options(tmp_path, pictures, run=name, **same, **more))
        model = Classifier.load(tmp_path / name / "best.safetensors")
        assert model.metadata["recognises"] == (name != "all")
        with torch.no_grad():
            now, before = (m.recognise(m.feature_maps(image))["imagenet"].softmax(1) for m in (model, start))
        drift[name] = (now - before).abs().sum(1).mean().item()
    assert drift["default"] < 1e-4 < drift["kept"] < 0.8 * drift["all"], drift
