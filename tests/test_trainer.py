"""The one training loop, on a line to fit: schedules, accumulation, clipping, NaN, debug mode, processes.

Resuming is in test_resume.py.
"""

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import prepare
from config import DefaultConfig, PoetConfig
from options import parse
from tasks.base import chunks
from tests.servers import free_port
from tests.training import (
    CONTEXT,
    Line,
    LineTask,
    Process,
    arguments,
    log_of,
    options,
    records,
    run,
    steps_done,
    write_corpus,
)
from trainer import train
from training.recorder import read_log
from training.state import read_state, resumed_options
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------------------- learning rate


def test_plateau_decays_after_an_epoch_without_improvement(fit, tmp_path):
    losses = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 3.2]
    fit({"val_losses": list(losses)}, max_epoch=7, batch_size=32, lr=0.1, lr_decay=0.5)
    rates = [r["lr"] for r in records(tmp_path / "run")]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.025, 0.025, 0.0125])
    assert Line.load(tmp_path / "run" / "best.safetensors").metadata["epoch"] == 5
    final = read_log(tmp_path / "run")[-1]
    assert final["figures"] == {"loss": 3.0, "best_epoch": 4}


# ----------------------------------------------------------------------------------------------------- the steps


@pytest.mark.parametrize("samples", [32, 43])
def test_two_batches_of_8_accumulated_are_one_of_16(fit, tmp_path, samples):
    """Also where the last batch and the last step are not full: 43 = 2 * 16 + 8 + 3."""
    one = fit({"samples": samples}, run="one", batch_size=16, max_epoch=3)
    two = fit({"samples": samples}, run="two", batch_size=8, max_epoch=3, accumulate=2)
    torch.testing.assert_close(two.model.state_dict(), one.model.state_dict(), rtol=0, atol=1e-6)
    norms = [[r["grad_norm"] for r in records(tmp_path / name) if "grad_norm" in r] for name in ("one", "two")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and len(norms[0]) == 3 * math.ceil(samples / 16)
    steps = [r["step"] for r in records(tmp_path / "two")]
    assert steps[:4] == [1, 1, 2, 2] and read_state(tmp_path / "two" / "last.pt")["progress"]["step"] == steps[-1]
    epochs = [
        [r["loss"] for r in read_log(tmp_path / n) if r["kind"] == "epoch" and r["split"] == "train"]
        for n in ("one", "two")
    ]
    assert epochs[0] == pytest.approx(epochs[1], rel=1e-4)


def by_hand(task: LineTask, batches: list[list[int]], weight_decay: float = 0.0) -> tuple[Line, list[float]]:
    """(the model, the norms of its gradients) after two epochs of AdamW at a rate of 0.05, in plain PyTorch."""
    torch.manual_seed(3)
    model, norms = Line(), []
    groups = [{"params": [model.linear.weight]}, {"params": [model.linear.bias], "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.99), weight_decay=weight_decay)
    for numbers in 2 * batches:
        batch = task.collate([task.train_set[i] for i in numbers])
        optimizer.zero_grad()
        (model(batch["x"]) - batch["y"]).square().mean().backward()
        norms.append(sum(p.grad.square().sum() for p in model.parameters()).sqrt().item())
        for p in model.parameters():
            p.grad *= 0.5 / max(norms[-1], 0.5)
        optimizer.step()
    return model, norms


BY_HAND = {"batch_size": 8, "max_epoch": 2, "lr": 0.05, "grad_clip": 0.5, "seed": 3, "lr_schedule": "constant"}


def test_adam_by_hand(fit, tmp_path):
    """The whole loop; each gradient is clipped, and recorded as it was."""
    task = fit(**BY_HAND, weight_decay=0.1)
    model, norms = by_hand(task, chunks(list(range(32)), 8), weight_decay=0.1)
    torch.testing.assert_close(task.model.state_dict(), model.state_dict(), rtol=0, atol=1e-5)
    assert min(norms) > 0.5 and [r["grad_norm"] for r in records(tmp_path / "run")] == pytest.approx(norms, rel=1e-3)


def test_validation_weighs_by_count(fit, tmp_path):
    """The epoch's figure is the mean over samples, though the last batch is smaller."""
    task = fit({"samples": 35}, batch_size=32, lr=0)
    batch = task.collate(task.train_set)
    expected = (task.model(batch["x"]) - batch["y"]).square().mean().item()
    figures = {r["split"]: r["loss"] for r in read_log(tmp_path / "run") if r["kind"] == "epoch"}
    assert figures["train"] == pytest.approx(expected, rel=1e-5)
    assert figures["val"] == pytest.approx(expected, rel=1e-5)


# ----------------------------------------------------------------- freezing, averages, the best epoch, broken samples


def test_frozen_until_an_epoch(fit, tmp_path):
    """The bias does not move while it is frozen, and does afterwards; a resumed run knows which it is."""
    seen = []
    task = {"hook": lambda call, batch, model: seen.append(model.linear.bias.item())}
    fit(task, batch_size=8, max_epoch=4, lr=0.1, freeze="linear.bias", unfreeze_epoch=2)  # 4 steps an epoch
    assert len(set(seen[:9])) == 1 and len(set(seen[8:])) == 8
    fit(run="b", batch_size=8, max_epoch=1, lr=0.1, freeze="linear.bias", unfreeze_epoch=2)
    fit(resume=tmp_path / "b", batch_size=8, max_epoch=4, lr=0.1, freeze="linear.bias", unfreeze_epoch=2)
    a, b = (read_state(tmp_path / name / "last.pt")["model"] for name in ("run", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_learning_rate_of_its_own(fit, tmp_path):
    """With a constant gradient AdamW's first step is the learning rate: a tenth of it where --lr_scale says so."""
    begin = fit(run="none", lr=0).model.state_dict()
    after = fit(lr=0.01, lr_scale="linear.bias:0.1", batch_size=32, grad_clip=0, weight_decay=0).model.state_dict()
    steps = {name: (after[name] - begin[name]).abs().flatten().tolist() for name in after}
    assert steps["linear.weight"] == pytest.approx([0.01] * 3, rel=1e-3)
    assert steps["linear.bias"] == pytest.approx([0.001], rel=1e-3)


def test_the_average_is_judged_and_kept(fit, tmp_path):
    """Validation and best.safetensors have the averaged weights, by hand; training goes on with its own ones."""
    weights = []
    task = {"hook": lambda call, batch, model: weights.append(model.linear.weight.detach().clone())}
    made = fit(task, batch_size=8, max_epoch=1, lr=0.1, ema=0.5)
    weights.append(made.model.linear.weight.detach().clone())  # after the last step
    average = weights[0]
    for step, weight in enumerate(weights[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    best = Line.load(tmp_path / "run" / "best.safetensors")
    torch.testing.assert_close(best.linear.weight, average)
    x, y = made.collate(made.train_set)["x"], made.collate(made.train_set)["y"]
    judged = next(r["loss"] for r in read_log(tmp_path / "run") if r["kind"] == "epoch" and r["split"] == "val")
    assert judged == pytest.approx((best(x) - y).square().mean().item(), rel=1e-5)
    plain = fit(run="plain", batch_size=8, max_epoch=1, lr=0.1)
    assert torch.equal(plain.model.linear.weight, made.model.linear.weight)


def test_patience(fit, tmp_path, capfd):
    fit({"val_losses": [3.0, 2.0, 2.5, 2.0, 1.0]}, max_epoch=5, patience=2)
    assert len([r for r in read_log(tmp_path / "run") if r["kind"] == "epoch" and r["split"] == "val"]) == 4
    assert "no better loss for 2 epochs (patience=2)" in capfd.readouterr().err
    assert read_log(tmp_path / "run")[-1]["figures"] == {"loss": 2.0, "best_epoch": 1}


def test_the_best_epoch_by_a_figure_that_should_be_large(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(LineTask, "monitors", {"loss": "min", "score": "max"})
    scores = iter([0.1, 0.9, float("nan"), 0.5])
    monkeypatch.setattr(LineTask, "compute_metrics", lambda self, samples: {"score": next(scores)})
    fit(max_epoch=4, monitor="score")
    assert read_log(tmp_path / "run")[-1]["figures"]["best_epoch"] == 1
    with pytest.raises(UserError, match="^monitor=scor: choose one of loss, score; did you mean score?"):
        fit(run="b", monitor="scor")


def test_broken_samples_are_left_out_and_named(fit, tmp_path, capfd):
    """The same as a training without them; a batch of nothing but broken ones is no step."""
    broken = {1, 5, *range(8, 16), 31}
    task = fit({"broken": broken}, **BY_HAND, weight_decay=0)
    told = capfd.readouterr().err
    for index in broken:
        assert told.count(f"left out: sample {index} is broken\n") == 1
    texts = [r["text"] for r in read_log(tmp_path / "run") if r["kind"] == "text" and r["name"] == "left out"]
    assert sorted(texts) == sorted(f"sample {i} is broken" for i in broken)
    model, _ = by_hand(task, [list(range(start, start + 8)) for start in (0, 16, 24)])
    torch.testing.assert_close(task.model.state_dict(), model.state_dict(), rtol=0, atol=1e-5)
    assert read_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 6


def test_nothing_can_be_read(fit):
    with pytest.raises(UserError, match="^none of the 32 samples can be read; the first: sample 0 is broken$"):
        fit({"broken": set(range(32))})


def test_precision_auto_is_measured_said_and_kept(fit, tmp_path, monkeypatch, capfd):
    told_of = {3.0: "3.0 times as fast as", 0.4: "2.5 times slower than"}
    for speedup, precision in ((3.0, "bf16"), (0.4, "fp32")):
        monkeypatch.setattr("utils.hardware.bf16_speedup", lambda speedup=speedup: speedup)
        fit(run=precision, precision="auto")
        told = capfd.readouterr().err
        assert f"precision {precision} (a matrix product in bf16 is {told_of[speedup]} in fp32 here)" in told
        # A resumed run must not measure again: the other precision gives other numbers.
        assert resumed_options({"resume": str(tmp_path / precision)}, "")["precision"] == precision


# ---------------------------------------------------------------------------------------------------------- NaN


def _poison_batch(model, batch):
    batch["x"][1, 2] = math.inf


def _poison_parameter(model, batch):
    model.linear.bias.data[0] = math.nan


def _poison_layer(model, batch):
    model.linear.weight.data.fill_(3e38)


def _poison_gradient(model, batch):
    model.linear.weight.register_hook(lambda grad: grad * math.nan)


@pytest.mark.parametrize(
    "poison, name",
    [
        (_poison_batch, 'batch["x"]'),
        (_poison_parameter, "parameter linear.bias"),
        (_poison_layer, "output of layer linear (Linear)"),
        (_poison_gradient, "gradient of linear.weight"),
    ],
)
def test_nan_stops_with_the_step_and_the_first_bad_tensor(fit, tmp_path, poison, name):
    states = []

    def hook(call, batch, model):
        if call == 4:  # the second batch of the second step
            states.append((tmp_path / "run" / "last.pt").read_bytes())
            poison(model, batch)

    with pytest.raises(UserError) as error:
        fit({"hook": hook}, batch_size=4, accumulate=2, save_every=0)
    assert f"step 2: the loss is not finite; the first bad tensor is {name}." in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "run" / "last.pt").read_bytes() == states[0]
    state = read_state(tmp_path / "run" / "last.pt")
    assert state["progress"]["step"] == 1 and all(bool(t.isfinite().all()) for t in state["model"].values())


# ---------------------------------------------------------------------------------------------------- debug mode


def test_debug_file_switches_the_dump_on_and_off(fit, tmp_path, capfd):
    anomaly = {}

    def hook(call, batch, model):
        anomaly[call] = torch.is_anomaly_enabled()
        if call == 3:
            (tmp_path / "debug").touch()
        if call == 6:
            (tmp_path / "debug").unlink()

    fit({"hook": hook}, batch_size=4)
    lines = (tmp_path / "run" / "debug.jsonl").read_text().splitlines()
    dumps = [json.loads(line) for line in lines]
    assert [d["step"] for d in dumps] == [4, 5, 6]
    assert anomaly == {call: call in (4, 5, 6) for call in range(1, 9)}
    tensors = dumps[0]["tensors"]
    assert tensors['batch["x"]']["shape"] == [4, 3] and tensors['output["loss"]']["finite"] is True
    assert tensors["parameter linear.weight"]["shape"] == tensors["gradient linear.weight"]["shape"] == [1, 3]
    assert tensors["gradient linear.weight"]["max"] != 0
    told = capfd.readouterr().err
    assert told.count("debug mode on") == told.count("debug mode off") == 1


def test_a_debugger_on_a_terminal(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "debug").touch()
    ours, theirs = pty.openpty()
    process = Process(arguments(**options(tmp_path, run="run")), os.ttyname(theirs))
    shown = ""

    def until(text: str) -> None:
        nonlocal shown
        end = time.monotonic() + 240
        while text not in shown:
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536).decode(errors="replace")

    until("(Pdb) ")
    shown = ""
    os.write(ours, b"p batch['ids'].shape, model.embed.weight.grad is not None, output.keys()\n")
    until("(Pdb) ")
    assert "torch.Size([2, " in shown and "True, dict_keys(['objective'" in shown
    shown = ""
    os.write(ours, b"c\n")
    until("(Pdb) ")  # the next step
    shown = ""
    os.write(ours, b"q\n")
    until("goes on from the last save")
    assert process.wait() == 2 and "Traceback" not in shown
    assert read_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 1


# ------------------------------------------------------------------------------------------- files and processes


def test_a_second_training_is_kept_out(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    first = Process(arguments(**options(tmp_path, run="run", max_epoch=100_000)), tmp_path / "first")
    first.wait_for(lambda: steps_done(tmp_path / "run") > 1)
    told = run(tmp_path, code=2, resume=tmp_path / "run")
    assert told.splitlines()[-1].startswith(f"error: {tmp_path / 'run'} is being trained by another process")
    told = run(tmp_path, code=2, **options(tmp_path, run="run"))
    assert told.splitlines()[-1].startswith(
        f"error: --run=run: {tmp_path / 'run'} holds a run: go on with it by resume="
    )
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.wait() == 143
    steps = [r["step"] for r in log_of(tmp_path / "run") if r["kind"] == "batch"]
    assert steps == list(range(1, len(steps) + 1))
    run(tmp_path, resume=tmp_path / "run", max_epoch=1)  # the lock is free


def test_mistakes_are_one_line_and_leave_nothing(tmp_path):
    poem = '{"lines": ["春江花月夜，春江花月夜。"], "split": "train"}\n'
    (tmp_path / "corpus.jsonl").write_text(poem)
    told = run(tmp_path, code=2, **options(tmp_path, run="r"))
    assert "in the val split" in told.split("\n")[-2] and not (tmp_path / "r").exists()
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "file").touch()
    told = run(tmp_path, code=2, **options(tmp_path, save_path=tmp_path / "file" / "runs"))
    assert re.search(r"error: cannot write in .*/file/runs/poet_\S+: Not a directory; choose .*\n$", told)


def test_two_processes_are_one(tmp_path):
    """`--devices=2` gives the curve of one process; stopped by SIGTERM to the first, one process goes on."""
    write_corpus(tmp_path / "corpus.jsonl")
    more = {"dropout": 0, "batch_size": 3, "max_epoch": 3, "accumulate": 2}
    run(tmp_path, **options(tmp_path, run="one", **more))
    command = [sys.executable, "main.py", *arguments(**options(tmp_path, run="two", devices=2, **more))]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and steps_done(tmp_path / "two") < 13:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 143 and told.count("to go on:") == 1 and "Traceback" not in told, told
    assert told.count("run: ") == told.count("epoch 1/3  loss") == 1  # only the first process talks
    run(tmp_path, resume=tmp_path / "two", devices=1)
    curves = []
    for name in ("one", "two"):
        numbers = [[r[k] for k in ("step", "lr", "loss", "bits_per_char")] for r in records(tmp_path / name)]
        norms = [[r["grad_norm"]] for r in records(tmp_path / name) if "grad_norm" in r]
        val = [[r["loss"]] for r in read_log(tmp_path / name) if r["kind"] == "epoch"]
        curves.append(numbers + norms + val)
    assert len(curves[0]) == len(curves[1]) > 39
    for one, two in zip(*curves, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"last.pt", "best.safetensors", "log.jsonl", ".lock"}


def _one_of_two(folder: Path, rank: int, port: int, bad_disk: bool) -> None:
    """A process of two that train a line; in step 3 the second one meets an infinity, or the first one a bad disk."""
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ.update(world, LOCAL_RANK=str(rank))
    out = os.open(folder / f"rank{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)

    def hook(call, batch, model):
        if call == 3 and rank == 1 and not bad_disk:
            _poison_batch(model, batch)
        if call == 3 and rank == 0 and bad_disk:
            (folder / "run").rename(folder / "away")
            (folder / "run").touch()

    prepare.make_task = lambda cfg, arguments: LineTask(cfg, hook=hook)
    given = {"devices": 2, "use_gpu": False, "precision": "fp32", "use_visdom": False, "batch_size": 4, "save_every": 0}
    try:
        train(parse(DefaultConfig, {**given, "save_path": folder, "run": "run"}))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@pytest.mark.parametrize("bad_disk", [False, True], ids=["NaN", "disk"])
def test_an_error_in_one_process_ends_both(tmp_path, bad_disk):
    """The first process tells, the second one ends quietly; nobody waits for a dead one."""
    port = free_port()
    ranks = [CONTEXT.Process(target=_one_of_two, args=(tmp_path, r, port, bad_disk)) for r in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    told = [(tmp_path / f"rank{r}").read_text() for r in (0, 1)]
    assert [process.exitcode for process in ranks] == [2, 1 if bad_disk else 0], told
    nan = 'error: step 3: the loss is not finite; the first bad tensor is batch["x"].'
    assert (f"error: cannot write {tmp_path / 'run' / 'last.pt'}" if bad_disk else nan) in told[0]
    assert "Traceback" not in told[0] + told[1] and "error" not in told[1]


def test_first_run_of_the_poet(tmp_path):
    """What a new user sees: the config, the data, figures and poems of each epoch, where the model is."""
    write_corpus(tmp_path / "corpus.jsonl")
    told = run(tmp_path, **options(tmp_path, run="run", lr=1e-2))
    assert told.index("poet: ") < told.index("data_root=") < told.index("64 poems from ")
    assert "epoch 2/2  loss " in told and "| val loss " in told and "perplexity" in told
    assert "best bits_per_char " in told
    assert told.endswith(f"python main.py generate --load={tmp_path / 'run' / 'best.safetensors'}\n")
    texts = [r["name"] for r in read_log(tmp_path / "run") if r["kind"] == "text"]
    assert texts == 2 * ["poems", "best batch", "worst batch"]
    assert parse(PoetConfig, read_state(tmp_path / "run" / "last.pt")["config"]).lr == 1e-2
