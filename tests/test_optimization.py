"""training/optimizers.py and the loop's options around it: against torch's own schedulers and plain formulas."""

import json
import math
from functools import partial

import pytest
import torch
from torch import nn

from config import OPTIMIZERS as NAMES
from tests.training import records
from trainer import Run
from training.optimizers import COSINE_FLOOR, Schedule, add_l1_gradient, make_optimizer
from training.parameters import checkpoint_layers
from training.state import Progress, read_state
from utils.errors import UserError

schedulers = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("given", "make"),
    [
        (("step", 0.1, "3", 0.5), lambda o: schedulers.StepLR(o, 3, 0.5)),
        (("multistep", 0.1, "2,5", 0.5), lambda o: schedulers.MultiStepLR(o, [2, 5], 0.5)),
        (("constant", 0.1), lambda o: schedulers.ConstantLR(o, 1.0)),
    ],
)
def test_schedules_of_epochs_are_torchs(given, make):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    scheduler = make(optimizer)
    for epoch in range(9):
        found = Schedule(*given).rate(Progress(epoch=epoch, step=10 * epoch + 3), 90)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_schedules_of_steps_are_torchs(name):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)
    steps = 100
    if name == "cosine":
        scheduler = schedulers.CosineAnnealingLR(optimizer, steps, 0.1 * COSINE_FLOOR)
    else:  # torch counts from the first step to the last, ours to the end of the last
        scheduler = schedulers.OneCycleLR(optimizer, 0.1, steps + 1, pct_start=31 / 101)
    for step in range(steps):
        found = Schedule(name, 0.1).rate(Progress(step=step), steps)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-4)
        optimizer.step()
        scheduler.step()


def test_warm_up_comes_before_any_schedule():
    for name in ("plateau", "step", "multistep", "cosine", "one_cycle", "constant"):
        rates = [Schedule(name, 0.1, "10", 0.5, w).rate(Progress(step=4), 100) for w in (0, 10)]
        assert rates[1] == pytest.approx(0.5 * rates[0]) and rates[0] > 0


@pytest.mark.parametrize(
    ("schedule", "epochs"), [("step", "2,3"), ("step", "0"), ("multistep", "x"), ("multistep", "")]
)
def test_epochs_that_make_no_sense_are_one_line(fit, schedule, epochs):
    with pytest.raises(UserError, match=f"^lr_epochs={epochs}: lr_schedule={schedule} needs epochs such as lr_"):
        fit(lr_schedule=schedule, lr_epochs=epochs)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns(fit, tmp_path, name):
    assert (
        make_optimizer(name, [{"params": [nn.Parameter(torch.zeros(2))]}], 0.1, 0.5).__class__.__name__.lower() == name
    )
    fit(optimizer=name, lr=0.5 if name in ("adagrad", "radam") else 0.05, momentum=0.5, batch_size=4, max_epoch=10)
    losses = [r["loss"] for r in records(tmp_path / "run", "epoch", split="val")]
    assert losses[-1] < 0.2 * losses[0]


def test_momentum_is_that_of_the_formula(fit, tmp_path):
    """v <- m v + g, w <- w - lr v (Sutskever et al. 2013, as torch writes it)."""
    seen = []

    def hook(number, batch, model):
        seen.append([p.detach().clone() for p in model.parameters()])

    plain = {"lr_schedule": "constant", "weight_decay": 0, "grad_clip": 0, "batch_size": 4}
    task = fit({"samples": 8, "hook": hook}, optimizer="sgd", momentum=0.7, lr=0.01, **plain)
    weights = [p.clone().requires_grad_() for p in seen[0]]
    velocity = [torch.zeros_like(p) for p in weights]
    for part in (slice(0, 4), slice(4, 8)):
        batch = task.collate(task.train_set[part])
        loss = ((batch["x"] @ weights[0][0] + weights[1]) - batch["y"]).square().mean()
        for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, weights), strict=True):
            v.mul_(0.7).add_(g)
            w.data -= 0.01 * v
    for found, expected in zip(task.model.parameters(), weights, strict=True):
        torch.testing.assert_close(found.data, expected.data)


def test_the_l1_gradient_is_that_of_the_penalty():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    x = torch.randn(7, 5)
    penalty = sum(p.abs().sum() for p in model.parameters() if p.ndim > 1)
    expected = torch.autograd.grad(model(x).mean() + 0.3 * penalty, list(model.parameters()))
    model(x).mean().backward()
    add_l1_gradient(model, 0.3)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_clip_value(fit):
    """The gradients that the optimizer sees have no larger entry; plain descent then moves by lr times it at most."""
    seen = []
    hook = lambda n, batch, model: seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]))  # noqa: E731
    plain = {"lr": 1.0, "lr_schedule": "constant", "weight_decay": 0, "grad_clip": 0, "batch_size": 4}
    fit({"hook": hook}, optimizer="sgd", momentum=0, clip_value=0.01, **plain)
    moves = [(b - a).abs().max().item() for a, b in zip(seen[1:], seen[2:], strict=False)]
    assert max(moves) == pytest.approx(0.01, rel=1e-3)


def test_fp16_scales_its_losses_and_resumes_with_the_scale(fit, tmp_path):
    given = {"precision": "fp16", "lr": 0.05, "batch_size": 4}
    fit(run="whole", **given, max_epoch=3)
    fit(run="parts", **given, max_epoch=1)
    scaler = read_state(tmp_path / "parts" / "last.pt")["scaler"]
    assert 1 < scaler["scale"] <= 65536 and 0 < scaler["_growth_tracker"] <= 8
    fit(resume=str(tmp_path / "parts"), **given, max_epoch=3)
    states = [read_state(tmp_path / name / "last.pt") for name in ("whole", "parts")]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert states[0]["scaler"]["_growth_tracker"] == scaler["_growth_tracker"] + 16  # no overflow since
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name])
    losses = [r["loss"] for r in records(tmp_path / "whole", "epoch", split="val")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("first, then", [("fp32", "fp16"), ("fp16", "fp32")])
def test_another_precision_goes_on(fit, tmp_path, first, then):
    given = {"lr": 0.05, "batch_size": 4}
    fit(**given, precision=first)
    fit(resume=str(tmp_path / "run"), **given, precision=then, max_epoch=3)
    losses = [r["loss"] for r in records(tmp_path / "run", "epoch", split="val")]
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_fp16_leaves_out_a_step_that_overflows(fit, tmp_path):
    """Gradients beyond 65504 are no mistake there: the scale halves, the weights stay, training goes on."""
    seen = []

    def hook(number, batch, model):
        seen.append(model.linear.weight.detach().clone())
        if number == 30:
            batch["y"] += 3e4

    fit({"hook": hook}, precision="fp16", batch_size=4, lr=0.01, max_epoch=5)
    stayed = [n for n, (a, b) in enumerate(zip(seen, seen[1:], strict=False), 1) if torch.equal(a, b)]
    assert stayed[-1] == 30 and all(n < 10 for n in stayed[:-1])  # the scale starts at 65536, too high for this loss
    assert read_state(tmp_path / "run" / "last.pt")["scaler"]["scale"] == 65536 / 2 ** len(stayed)


def test_one_batch_of_everything_leaves_nothing(fit, tmp_path, capsys):
    task = fit(fast_dev_run=True, batch_size=4, max_epoch=7)
    assert task.calls == 1 and not list(tmp_path.iterdir())
    assert "epoch 1/1  loss" in capsys.readouterr().err


def test_a_few_batches_again_and_again(fit, tmp_path):
    seen = []
    fit({"hook": lambda n, batch, model: seen.append(batch["x"].clone())}, overfit_batches=2, batch_size=4, max_epoch=3)
    assert len(seen) == 6
    assert all(torch.equal(seen[i], seen[i % 2]) for i in range(6)) and not torch.equal(seen[0], seen[1])


def test_the_end_says_how_to_use_the_best_model(fit, tmp_path, capsys, monkeypatch):
    fit()
    *_, best, use = capsys.readouterr().err.splitlines()
    file = tmp_path / "run" / "best.safetensors"
    assert best.startswith("best loss ") and best.endswith(f": {file}") and file.exists()
    assert use == f"to use it: python main.py test --load={file}"
    fit(run="again", fast_dev_run=True)
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith("in epoch 1; fast_dev_run: all of it ran, nothing is kept")
    assert not any("http://" in line or "best.safetensors" in line for line in said)
    monkeypatch.setattr(Run, "validate", lambda self: {"loss": math.nan})
    fit(run="nan")
    assert capsys.readouterr().err.endswith("loss was not a number in any epoch: there is no model file\n")
    assert not (tmp_path / "nan" / "best.safetensors").exists()


def test_the_start_says_where_to_watch(fit, tmp_path, capsys):
    fit(max_epoch=1, use_visdom=True, vis_port=9, run="a run")
    assert (
        f"run: {tmp_path / 'a run'}\nboard: http://localhost:9/env/a_run, if python main.py visdom --port=9 runs\n"
        in (capsys.readouterr().err)
    )
    fit(max_epoch=1, run="b")  # with use_visdom=False
    assert "http://" not in capsys.readouterr().err


def test_the_profile_of_some_steps(fit, tmp_path, capsys):
    fit(profile=2, batch_size=4)
    table = (tmp_path / "run" / "profile.txt").read_text()
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert "Self CPU" in table and "2 steps measured" in capsys.readouterr().err
    forward = [e for e in trace["traceEvents"] if e.get("name") == "aten::linear"]
    assert len(forward) == 2


def test_the_best_and_the_worst_batch_are_shown(fit, tmp_path):
    task = fit(samples=1, batch_size=4, max_epoch=1, lr=1e-9)
    shown = []
    type(task).show_batch = lambda self, recorder, step, epoch, name, batch, loss: shown.append((name, batch, loss))
    try:
        fit(run="again", samples=1, batch_size=4, max_epoch=2, lr=1e-9)
    finally:
        del type(task).show_batch
    losses = [r["loss"] for r in records(tmp_path / "again")][:8]
    expected = [("best batch", losses.index(min(losses))), ("worst batch", losses.index(max(losses)))]
    for (name, batch, loss), (wanted, number) in zip(shown[:2], expected, strict=True):
        assert name == wanted and loss == losses[number]
        samples = task.train_set[4 * number : 4 * number + 4]
        torch.testing.assert_close(batch["x"], torch.stack([sample["x"] for sample in samples]))
    assert len(shown) == 4


def test_layers_that_compute_again():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 1))
    x = torch.randn(7, 5)
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    calls = []
    model[1][0].register_forward_hook(lambda *args: calls.append(1))
    checkpoint_layers(model, "1")
    found = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    assert len(calls) == 2  # forward, and again in backward
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(UserError, match="^checkpoint_layers=x.*: fits no layer; they begin with 0, 1, 2"):
        checkpoint_layers(model, "x*")


def test_compiling(fit, tmp_path, monkeypatch):
    """The same figures, and the plain names of parameters; with a backend that needs no C++ compiler."""
    graphs = []
    backend = lambda graph, inputs: graphs.append(graph) or graph.forward  # noqa: E731
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    for name, compiled in (("plain", False), ("compiled", True)):
        fit(run=name, compile=compiled, batch_size=8, lr=0.05)
    plain, compiled = ([r["loss"] for r in records(tmp_path / name)] for name in ("plain", "compiled"))
    assert graphs and plain == pytest.approx(compiled, rel=1e-4)
    assert set(read_state(tmp_path / "compiled" / "last.pt")["model"]) == {"linear.weight", "linear.bias"}
