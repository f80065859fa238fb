"""training/lr_finder.py: the rate that it suggests trains a network, one 1000 times as large does not; faults."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import main
from config import DogCatConfig, PoetConfig
from data.poem_files import EMBEDDED
from options import parse
from prepare import find_lr
from tasks.dogcat import DogCatTask
from tests.dogcat import BODY, TWO, write_set
from tests.training import arguments, options, records, run_here
from training.lr_finder import chart, steepest
from utils.errors import UserError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("data"), TWO, 24, 0)


def dogcat(folder: Path, data: Path, **more) -> dict:
    small = {"task": "dogcat", "backbone": "lenet", "image_size": 32, "batch_size": 8, "precision": "fp32"}
    place = {"data_root": data, "save_path": folder, "debug_file": folder / "debug"}
    return {**small, **place, "use_visdom": False, "use_gpu": False, **more}


def test_steepest_by_hand():
    rates = [10.0**i for i in range(-6, 1)]  # 7 rates: slopes over one step to each side
    assert steepest(rates, [1, 1, 1, 0.9, 0.4, 0.3, 9]) == 1e-3  # from 1 at 1e-4 to 0.4 at 1e-2
    assert steepest(rates, [3, 2.9, 2.8, 2.7, 2.6, 2.0, 9]) == 1e-2
    with pytest.raises(UserError, match="falls at no learning rate"):
        steepest(rates, [1, 1, 1.1, 1.2, 1.3, 2, 4])
    with pytest.raises(UserError, match="falls at no learning rate"):
        steepest(rates[:2], [2, 1])  # too few to tell
    with pytest.raises(UserError, match="falls at no learning rate"):
        steepest([], [])
    # 40 rates: slopes over 4 steps to each side; one noisy step does not decide
    rates = np.geomspace(1e-6, 1, 40).tolist()
    losses = [1 - 0.9 / (1 + math.exp(-(i - 25))) for i in range(40)]  # steepest between 21 and 29
    losses[8] -= 0.6
    assert steepest(rates, losses) == pytest.approx(rates[25], rel=1e-6)


# Loss over the logarithm of the rate, smoothed: (the curve, where its suggestion may lie).
CURVES = {
    # It explodes, and then falls back: steeply, but from a network that has lost what it knew.
    "falls back": ([6.2] * 50 + [6.2 - 0.02 * i for i in range(15)] + [6, 9, 12, 11, 10, 9, 8, 7, 6.5, 6.1], (50, 64)),
    "falls back below": ([6.2] * 30 + [6.1, 6, 5.9, 5.8, 5.8] + [10, 16, 14, 11, 8, 5, 3, 2, 1, 0.5], (28, 33)),
    # Near zero, what is four times the lowest loss has exploded, however far below the beginning.
    "near zero": ([0.7] * 20 + [0.6, 0.4, 0.2, 0.1, 0.05, 0.05, 0.1, 0.3, 0.3, 0.2, 0.15, 0.04, 0.01], (20, 24)),
    "noisy": ([1 + 0.05 * (-1) ** i for i in range(40)] + [0.95, 0.8, 0.6, 0.5, 0.48] + [0.6, 1, 2, 4], (38, 44)),
    "falls from the beginning": ([3, 2, 1.5, 1.2, 1.1, 1.05, 1.2, 1.5, 2, 3, 6], (1, 4)),
    "luck of the first batches": ([5.5, 5.8, 6, 6.1] + [6.2] * 30 + [6.2, 6.1, 6, 5.9, 5.9, 7, 9], (32, 38)),
    "never explodes": ([1] * 10 + [1 - 0.05 * i for i in range(15)] + [0.35] * 10, (10, 24)),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_suggestion_lies_before_the_minimum(name):
    losses, (first, last) = CURVES[name]
    rates = np.geomspace(1e-6, 1, len(losses)).tolist()
    assert first <= rates.index(steepest(rates, losses)) <= last


def test_chart_has_a_line_for_every_few_rates():
    lines = chart([1e-3 * (i + 1) for i in range(100)], [2 - i / 99 for i in range(100)]).splitlines()
    assert len(lines) == 25 and lines[0].split() == ["1.0e-03", "2.0000", "#" * 50]
    assert [line.count("#") for line in lines] == sorted((line.count("#") for line in lines), reverse=True)
    assert chart([1e-3], [1.0]).split() == ["1.0e-03", "1.0000"]


@pytest.mark.parametrize("freeze", ["", BODY], ids=["all", "frozen"])
def test_the_suggested_rate_trains_and_a_much_larger_one_does_not(pictures, tmp_path, monkeypatch, freeze):
    """The network is in training mode, but for what is frozen, though features are computed with it in between."""
    modes, step = set(), DogCatTask.step

    def noting(self, model, batch):
        modes.add((self.model.training, self.model.dropout.training, self.model.conv1.training))
        return step(self, model, batch)

    given = dogcat(tmp_path, pictures, freeze=freeze)
    with monkeypatch.context() as patch:
        patch.setattr(DogCatTask, "step", noting)
        found = find_lr(parse(DogCatConfig, given), 60)
    assert modes == {(True, True, not freeze)}
    assert len(found["lr"]) == len(found["loss"]) <= 60 and found["lr"][0] == pytest.approx(1e-6)
    ratios = np.diff(np.log(found["lr"]))
    assert ratios == pytest.approx(np.full(len(ratios), math.log(1e6) / 59))
    assert found["suggestion"] in found["lr"]
    good, bad = (
        val_losses(**given, lr=found["suggestion"] * factor, run=str(factor), max_epoch=5) for factor in (1, 1000)
    )
    assert good[-1] < 0.35, (found["suggestion"], good)
    assert freeze or max(bad) > 2 * max(good), (good, bad)  # the last layer alone bears any rate here


def val_losses(**given) -> list[float]:
    """The losses of a training's validations."""
    run_here(**given, lr_schedule="constant", ema=0)
    return [r["loss"] for r in records(given["save_path"] / given["run"], "epoch", split="val")]


def test_the_suggested_rate_trains_the_poet(tmp_path):
    """On real verse: of random characters nothing can be learned, so that any rate might be suggested."""
    small = {"batch_size": 8, "hidden": 64, "embed": 64, "samples": 0}
    given = options(tmp_path, data_root=EMBEDDED / "quatrains.jsonl", **small)
    found = find_lr(parse(PoetConfig, given), 80)
    assert not list(tmp_path.glob("*/last.pt"))
    assert found["suggestion"] < found["lr"][int(np.argmin(found["loss"]))]
    losses = val_losses(**{**given, "lr": found["suggestion"], "run": "a", "max_epoch": 3})
    assert losses[-1] < losses[0] and max(losses) == losses[0]


@pytest.mark.parametrize("optimizer, steps", [("sgd", 40), ("adamw", 25)])  # before its loss explodes
def test_fp16_clips_what_the_gradient_is_not_what_it_is_scaled_to(pictures, tmp_path, optimizer, steps):
    """The clip decides about each step of sgd here: of a gradient scaled by 65536 nothing would be left."""
    losses = []
    for precision in ("fp32", "fp16"):
        given = dogcat(tmp_path, pictures, precision=precision, optimizer=optimizer, grad_clip=0.5)
        losses.append(find_lr(parse(DogCatConfig, given), 40)["loss"][:steps])
    assert len(losses[0]) == len(losses[1]) == steps and min(losses[0]) < 0.8 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_pictures_that_cannot_be_read_are_named_once(pictures, tmp_path, capfd):
    broken = shutil.copytree(pictures, tmp_path / "broken")
    files = sorted(broken.rglob("*.png"), key=lambda path: path.name)
    for path in files[::10]:
        path.write_bytes(path.read_bytes()[:200])
    find_lr(parse(DogCatConfig, dogcat(tmp_path, broken)), 40)
    err = capfd.readouterr().err
    told = [line for line in err.replace("\r", "\n").split("\n") if line.startswith("left out: ")]
    assert told and len(set(told)) == len(told)
    assert all(any(path.name in line for path in files[::10]) for line in told)
    for path in files:
        path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="^none of the 44 samples can be read; the first: train/"):
        find_lr(parse(DogCatConfig, dogcat(tmp_path, broken)), 40)


def test_the_command(pictures, tmp_path, capfd):
    given = {**dogcat(tmp_path, pictures), "steps": 40}
    assert main.main(arguments("find_lr", **given)) == 0
    out, err = capfd.readouterr()
    suggestion = float(out.splitlines()[-1].split("--lr=")[1])
    assert 1e-6 < suggestion < 1 and out.splitlines()[0].split() == ["lr", "loss"] and "LeNet of" in err
    assert main.main(arguments("find_lr", **given, json=True)) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found) == {"lr", "loss", "suggestion"} and f"{found['suggestion']:.1e}" == f"{suggestion:.1e}"
    assert not (tmp_path / "checkpoints").exists() and not list(tmp_path.iterdir())
