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
from tests.servers import ROOT, free_port
from tests.training import (
    CONTEXT,
    Line,
    LineTask,
    Process,
    arguments,
    log_of,
    options,
    records,
    run_here,
    steps_done,
    write_corpus,
)
from trainer import train
from training.recorder import read_log
from training.state import read_state, resumed_options
from utils.errors import UserError

# ----------------------------------------------------------------------------------------------------- the steps


def test_plateau_decays_after_an_epoch_without_improvement(fit, tmp_path):
    losses = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 3.2]
    fit({"val_losses": list(losses)}, max_epoch=7, batch_size=32, lr=0.1, lr_decay=0.5)
    rates = [r["lr"] for r in records(tmp_path / "run")]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.025, 0.025, 0.0125])
    assert Line.load(tmp_path / "run" / "best.safetensors").metadata["epoch"] == 5
    assert read_log(tmp_path / "run")[-1]["figures"] == {"loss": 3.0, "best_epoch": 4}


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
    epochs = [[r["loss"] for r in records(tmp_path / name, "epoch", split="train")] for name in ("one", "two")]
    assert epochs[0] == pytest.approx(epochs[1], rel=1e-4)


BROKEN = {1, 5, *range(8, 16), 31}


@pytest.mark.parametrize("broken", [set(), BROKEN], ids=["all", "broken"])
def test_adam_by_hand(fit, tmp_path, capfd, broken):
    """The whole loop in plain PyTorch; each gradient is clipped, and recorded as it was.

    Broken samples are left out and named; a batch of nothing but broken ones is no step.
    """
    task = fit(
        {"broken": broken}, batch_size=8, max_epoch=2, lr=0.05, grad_clip=0.5, seed=3, lr_schedule="constant",
        weight_decay=0.1,
    )  # fmt: skip
    torch.manual_seed(3)
    model, norms = Line(), []
    groups = [{"params": [model.linear.weight]}, {"params": [model.linear.bias], "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)
    for numbers in 2 * chunks(list(range(32)), 8):
        if (batch := task.collate([task.train_set[i] for i in numbers])) is None:
            continue
        optimizer.zero_grad()
        (model(batch["x"]) - batch["y"]).square().mean().backward()
        norms.append(sum(p.grad.square().sum() for p in model.parameters()).sqrt().item())
        for p in model.parameters():
            p.grad *= 0.5 / max(norms[-1], 0.5)
        optimizer.step()
    torch.testing.assert_close(task.model.state_dict(), model.state_dict(), rtol=0, atol=1e-5)
    found = [r["grad_norm"] for r in records(tmp_path / "run") if "grad_norm" in r]
    assert min(norms) > 0.5 and found == pytest.approx(norms, rel=1e-3)
    assert read_state(tmp_path / "run" / "last.pt")["progress"]["step"] == len(norms)
    told = [line for line in capfd.readouterr().err.replace("\r", "\n").split("\n") if line.startswith("left out: ")]
    texts = [r["text"] for r in records(tmp_path / "run", "text", name="left out")]
    assert sorted(texts) == sorted(f"sample {i} is broken" for i in broken)
    assert sorted(told) == sorted(f"left out: {text}" for text in texts)


def test_nothing_can_be_read(fit):
    with pytest.raises(UserError, match="^none of the 32 samples can be read; the first: sample 0 is broken$"):
        fit({"broken": set(range(32))})


def test_validation_weighs_by_count(fit, tmp_path):
    """The epoch's figure is the mean over samples, though the last batch is smaller."""
    task = fit({"samples": 35}, batch_size=32, lr=0)
    batch = task.collate(task.train_set)
    expected = (task.model(batch["x"]) - batch["y"]).square().mean().item()
    assert [r["loss"] for r in records(tmp_path / "run", "epoch")] == pytest.approx([expected, expected], rel=1e-5)


# ------------------------------------------------------------------- freezing, averages, the best epoch, precision


def test_frozen_until_an_epoch(fit, tmp_path):
    """The bias does not move while it is frozen, and does afterwards; a resumed run knows which it is."""
    seen = []
    task = {"hook": lambda call, batch, model: seen.append(model.linear.bias.item())}
    given = {"batch_size": 8, "lr": 0.1, "freeze": "linear.bias", "unfreeze_epoch": 2}  # 4 steps an epoch
    fit(task, max_epoch=4, **given)
    assert len(set(seen[:9])) == 1 and len(set(seen[8:])) == 8
    fit(run="b", max_epoch=1, **given)
    fit(resume=tmp_path / "b", max_epoch=4, **given)
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
    made = fit(task, batch_size=8, lr=0.1, ema=0.5)
    weights.append(made.model.linear.weight.detach().clone())  # after the last step
    average = weights[0]
    for step, weight in enumerate(weights[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    best = Line.load(tmp_path / "run" / "best.safetensors")
    torch.testing.assert_close(best.linear.weight, average)
    batch = made.collate(made.train_set)
    [judged] = records(tmp_path / "run", "epoch", split="val")
    assert judged["loss"] == pytest.approx((best(batch["x"]) - batch["y"]).square().mean().item(), rel=1e-5)
    plain = fit(run="plain", batch_size=8, lr=0.1)
    assert torch.equal(plain.model.linear.weight, made.model.linear.weight)


def test_patience(fit, tmp_path, capfd):
    fit({"val_losses": [3.0, 2.0, 2.5, 2.0, 1.0]}, max_epoch=5, patience=2)
    assert len(records(tmp_path / "run", "epoch", split="val")) == 4
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


@pytest.mark.parametrize("speedup, precision", [(3.0, "bf16"), (0.4, "fp32")])
def test_precision_auto_is_measured_said_and_kept(fit, tmp_path, monkeypatch, capfd, speedup, precision):
    monkeypatch.setattr("utils.hardware.bf16_speedup", lambda: speedup)
    fit(precision="auto")
    assert f"precision {precision} (a matrix product in bf16 is " in capfd.readouterr().err
    # A resumed run must not measure again: the other precision gives other numbers.
    assert resumed_options({"resume": str(tmp_path / "run")}, "")["precision"] == precision


# ------------------------------------------------------------------------------------------------ NaN, debug mode

POISONS = {
    'batch["x"]': lambda model, batch: batch["x"][1].fill_(math.inf),
    "parameter linear.bias": lambda model, batch: model.linear.bias.data.fill_(math.nan),
    "output of layer linear (Linear)": lambda model, batch: model.linear.weight.data.fill_(3e38),
    "gradient of linear.weight": lambda model, batch: model.linear.weight.register_hook(lambda grad: grad * math.nan),
}


@pytest.mark.parametrize("name", POISONS)
def test_nan_stops_with_the_step_and_the_first_bad_tensor(fit, tmp_path, name):
    states = []

    def hook(call, batch, model):
        if call == 4:  # the second batch of the second step
            states.append((tmp_path / "run" / "last.pt").read_bytes())
            POISONS[name](model, batch)

    with pytest.raises(UserError) as error:
        fit({"hook": hook}, batch_size=4, accumulate=2, save_every=0)
    assert f"step 2: the loss is not finite; the first bad tensor is {name}." in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "run" / "last.pt").read_bytes() == states[0]
    state = read_state(tmp_path / "run" / "last.pt")
    assert state["progress"]["step"] == 1 and all(bool(t.isfinite().all()) for t in state["model"].values())


def test_debug_file_switches_the_dump_on_and_off(fit, tmp_path, capfd):
    anomaly = {}

    def hook(call, batch, model):
        anomaly[call] = torch.is_anomaly_enabled()
        if call == 3:
            (tmp_path / "debug").touch()
        if call == 6:
            (tmp_path / "debug").unlink()

    fit({"hook": hook}, batch_size=4)
    dumps = [json.loads(line) for line in (tmp_path / "run" / "debug.jsonl").read_text().splitlines()]
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

    def answer(typed: bytes, wanted: str) -> str:
        """What is shown from these keys on until `wanted`."""
        os.write(ours, typed)
        shown, end = "", time.monotonic() + 240
        while wanted not in shown:
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536).decode(errors="replace")
        return shown

    answer(b"", "(Pdb) ")
    shown = answer(b"p batch['ids'].shape, model.embed.weight.grad is not None, output.keys()\n", "(Pdb) ")
    assert "torch.Size([2, " in shown and "True, dict_keys(['objective'" in shown
    answer(b"c\n", "(Pdb) ")  # the next step
    shown = answer(b"q\n", "goes on from the last save")
    assert process.wait() == 2 and "Traceback" not in shown
    assert read_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 1


# ------------------------------------------------------------------------------------------- files and processes


def test_a_second_training_is_kept_out(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    first = Process(arguments(**options(tmp_path, run="run", max_epoch=100_000)), tmp_path / "first")
    first.wait_for(lambda: steps_done(tmp_path / "run") > 1)
    told = run_here(code=2, resume=tmp_path / "run").splitlines()[-1]
    assert told.startswith(f"error: {tmp_path / 'run'} is being trained by another process")
    told = run_here(code=2, **options(tmp_path, run="run")).splitlines()[-1]
    assert told.startswith(f"error: --run=run: {tmp_path / 'run'} holds a run: go on with it by resume=")
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.wait() == 143
    steps = [r["step"] for r in records(tmp_path / "run")]
    assert steps == list(range(1, len(steps) + 1))
    run_here(resume=tmp_path / "run", max_epoch=1)  # the lock is free


def test_mistakes_are_one_line_and_leave_nothing(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"lines": ["春江花月夜，春江花月夜。"], "split": "train"}\n')
    told = run_here(code=2, **options(tmp_path, run="r"))
    assert "in the val split" in told.splitlines()[-1] and not (tmp_path / "r").exists()
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "file").touch()
    told = run_here(code=2, **options(tmp_path, save_path=tmp_path / "file" / "runs"))
    assert re.search(r"error: cannot write in .*/file/runs/poet_\S+: Not a directory; choose .*\n$", told)


MORE = {"dropout": 0, "batch_size": 3, "max_epoch": 3, "accumulate": 2}


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> tuple[Path, str]:
    """A corpus and the run "one" of one process in a folder, and what that said."""
    folder = tmp_path_factory.mktemp("one")
    write_corpus(folder / "corpus.jsonl")
    return folder, run_here(**options(folder, run="one", **MORE))


def assert_same_curve(folder: Path, other: str) -> None:
    """That of the run "one", and the same files."""
    names = ("step", "lr", "loss", "bits_per_char", "grad_norm")
    curves = [
        [[r[k] for k in names if k in r] for r in log_of(folder / run) if r["kind"] in ("batch", "epoch")]
        for run in ("one", other)
    ]
    assert len(curves[0]) == len(curves[1]) > 36
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert {path.name for path in (folder / other).iterdir()} == {"last.pt", "best.safetensors", "log.jsonl", ".lock"}


def test_first_run_of_the_poet(one):
    """What a new user sees: the config, the data, figures and poems of each epoch, where the model is."""
    folder, told = one
    assert told.index("poet: ") < told.index("data_root=") < told.index("64 poems from ")
    assert "epoch 3/3  loss " in told and "| val loss " in told and "perplexity" in told
    assert "best bits_per_char " in told
    assert told.endswith(f"python main.py generate --load={folder / 'one' / 'best.safetensors'}\n")
    assert [r["name"] for r in records(folder / "one", "text")] == 3 * ["poems", "best batch", "worst batch"]
    assert parse(PoetConfig, read_state(folder / "one" / "last.pt")["config"]).lr == 0.01


def test_two_processes_are_one(one):
    """`--devices=2` gives the curve of one process; stopped by SIGTERM to the first, one process goes on."""
    folder, _ = one
    command = [sys.executable, "main.py", *arguments(**options(folder, run="two", devices=2, **MORE))]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and steps_done(folder / "two") < 13:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 143 and told.count("to go on:") == 1 and "Traceback" not in told, told
    assert told.count("run: ") == told.count("epoch 1/3  loss") == 1  # only the first process talks
    run_here(resume=folder / "two", devices=1)
    assert_same_curve(folder, "two")


def world() -> dict[str, str]:
    """The variables of two processes of one training."""
    return {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


def test_two_machines_are_one_process(one, tmp_path):
    """Each with the variables that a torchrun of its own sets; both are this machine."""
    folder, _ = one
    words = arguments(**options(folder, run="machines", num_nodes=2, **MORE))
    torchrun = {**world(), "TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0"}
    machines = [Process(words, tmp_path / r, **torchrun, RANK=r, GROUP_RANK=r) for r in "01"]
    codes, told = [machine.wait() for machine in machines], [machine.out.read_text() for machine in machines]
    assert codes == [0, 0], told
    assert "epoch 3/3  loss " in told[0] and "epoch" not in told[1]
    assert_same_curve(folder, "machines")


def _one_of_two(folder: Path, environment: dict[str, str], rank: int, bad_disk: bool) -> None:
    """A process of two that train a line; in step 3 the second one meets an infinity, or the first one a bad disk."""
    os.environ.update(environment, NODE_RANK="0", LOCAL_RANK=str(rank))
    out = os.open(folder / f"rank{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)

    def hook(call, batch, model):
        if call == 3 and rank == 1 and not bad_disk:
            batch["x"].fill_(math.inf)
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
    environment = world()
    ranks = [CONTEXT.Process(target=_one_of_two, args=(tmp_path, environment, r, bad_disk)) for r in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    told = [(tmp_path / f"rank{r}").read_text() for r in (0, 1)]
    assert [process.exitcode for process in ranks] == [2, 1 if bad_disk else 0], told
    nan = 'error: step 3: the loss is not finite; the first bad tensor is batch["x"].'
    assert (f"error: cannot write {tmp_path / 'run' / 'last.pt'}" if bad_disk else nan) in told[0]
    assert "Traceback" not in told[0] + told[1] and "error" not in told[1]
