"""A run that was stopped, killed or prolonged equals one that was not, bit for bit; no file is ever broken."""

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import trainer
from config import PoetConfig
from models.poet import Poet
from options import parse
from tests.servers import ROOT
from tests.training import (
    Process,
    arguments,
    assert_same_run,
    kill_at_random,
    log_of,
    options,
    run_here,
    steps_done,
    write_corpus,
)
from training.state import read_state, resumed_options
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    write_corpus(folder / "corpus.jsonl")
    run_here(**options(folder, run="a", max_epoch=1))
    return folder / "a"


@pytest.fixture
def a(folder, finished) -> Path:
    """A copy of it, beside the same corpus."""
    return shutil.copytree(finished, folder / "a")


def edit_state(run: Path, **changes: dict) -> None:
    """Changes entries of the config and the progress in a run's last.pt."""
    state = read_state(run / "last.pt")
    for part, values in changes.items():
        state[part] |= values
    torch.save(state, run / "last.pt")


@pytest.mark.processor
def test_stopped_by_a_signal(folder):
    """The first part has two threads, which the resumed one takes over: with the one it would have bits differ."""
    more = {"backbone": "transformer", "lr_schedule": "cosine", "save_every": 1000, "max_epoch": 6}
    whole = Process(arguments(**options(folder, run="whole", **more)), folder / "out", OMP_NUM_THREADS="2")
    assert whole.wait() == 0, whole.out.read_text()
    command = [sys.executable, "main.py", *arguments(**options(folder, run="two parts", **more))]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    while process.poll() is None and steps_done(folder / "two parts") < 9:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 130, told
    assert "Traceback" not in told and "stopped by SIGINT, nothing is lost" in told
    line = next(line for line in told.splitlines() if line.startswith("  python main.py train --resume="))
    assert read_state(folder / "two parts" / "last.pt")["progress"]["step"] >= 9
    resumed = Process(shlex.split(line)[2:], folder / "resumed")
    assert resumed.wait() == 0 and "CPU, 2 threads" in resumed.out.read_text(), resumed.out.read_text()
    assert_same_run(folder / "whole", folder / "two parts")


@pytest.mark.parametrize(
    "more",
    [
        {"num_workers": 2, "lr_schedule": "cosine"},
        {"accumulate": 2, "precision": "bf16", "backbone": "transformer", "batch_size": 1},
    ],
    ids=["workers", "accumulate bf16"],
)
@pytest.mark.processor
def test_killed_at_random_times(folder, more):
    kill_at_random(folder, 4, **options(folder, **more))
    files = {path.name for path in (folder / "killed").iterdir()}
    assert files == {"last.pt", "best.safetensors", "log.jsonl", ".lock"}  # nothing that the killed ones left


def test_stopped_while_validating(folder, monkeypatch):
    """At once, not after the epoch; and what was recorded after the save is not recorded twice."""
    trainer.train(parse(PoetConfig, options(folder, run="whole")))
    original = trainer.Run.validate

    def interrupted(self):
        if self.progress.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    monkeypatch.setattr(trainer.Run, "validate", interrupted)
    before = signal.getsignal(signal.SIGINT)  # a shell's background job ignores it
    with pytest.raises(SystemExit) as stop:
        trainer.train(parse(PoetConfig, options(folder, run="parts", save_every=1000)))
    assert stop.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    state = read_state(folder / "parts" / "last.pt")
    assert state["progress"]["epoch"] == 1 and state["progress"]["batch"] > 10
    monkeypatch.setattr(trainer.Run, "validate", original)
    # killed between the epoch's records and the save after them
    monkeypatch.setattr(trainer.Run, "save", lambda self: (_ for _ in ()).throw(OSError("killed")))
    resumed = parse(PoetConfig, resumed_options({"resume": str(folder / "parts")}, ""))
    with pytest.raises(OSError, match="killed"):
        trainer.train(resumed)
    poems = [r["epoch"] for r in log_of(folder / "parts") if r["kind"] == "text" and r["name"] == "poems"]
    assert poems == [0, 1]
    monkeypatch.undo()
    trainer.train(resumed)
    assert_same_run(folder / "whole", folder / "parts")


# ---------------------------------------------------------------------------------------------- which run goes on


def test_without_a_value_the_latest_unfinished_run_goes_on(folder, a):
    for number, name in enumerate(("older", "stopped", "patient", "latest")):
        run = shutil.copytree(a, folder / name)
        if name in ("older", "stopped"):
            edit_state(run, config={"max_epoch": 2})  # as if it had been stopped after the first
        if name == "patient":  # it gave up: no better in the second epoch
            edit_state(run, config={"max_epoch": 9, "patience": 1}, progress={"epoch": 2, "best_epoch": 0})
        os.utime(run / "last.pt", (number, number))
    shutil.rmtree(a)
    assert resumed_options({"resume": "True"}, str(folder))["resume"] == str(folder / "stopped")


def test_without_a_value_a_finished_run_says_so_and_may_go_on(folder, a):
    shutil.copytree(a, folder / "b")
    os.utime(a / "last.pt")  # the latest now
    log = log_of(a)
    told = run_here(resume=True, save_path=folder)
    assert f"{a} has done its 1 epochs" in told and "max_epoch" in told
    assert log_of(a) == log
    told = run_here(resume=True, save_path=folder, max_epoch=2)
    assert "changed since the run was saved: max_epoch 1 -> 2" in told and "epoch 2/2" in told
    assert read_state(a / "last.pt")["progress"]["epoch"] == 2
    assert read_state(folder / "b" / "last.pt")["progress"]["epoch"] == 1
    # The same as if two epochs had been asked for in the beginning.
    run_here(**options(folder, run="c"))
    assert_same_run(a, folder / "c")


# ------------------------------------------------------------------------------------------------ changed options


def test_a_jump_of_the_learning_rate_is_said(folder):
    """Half a cosine, from the rate to 2 % of it, over one epoch is at its end here, over two in the middle."""
    run_here(**options(folder, run="a", max_epoch=1, lr_schedule="cosine"))
    told = run_here(resume=folder / "a", max_epoch=2)
    first, second = ([r["lr"] for r in log_of(folder / "a") if r.get("epoch") == e and "lr" in r] for e in (0, 1))
    rates = [
        0.01 * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1, len(first) / (epochs * len(second))))) / 2)
        for epochs in (1, 2)
    ]
    line = "the learning rate of the next step was to be {:.2e} and is {:.2e} by the changed options"
    assert line.format(*rates) in told and second[0] == pytest.approx(rates[1])


def test_changed_options_count_and_are_said(folder):
    run_here(**options(folder, run="a", max_epoch=1, optimizer="sgd"))
    told = run_here(resume=folder / "a", lr=0.003, weight_decay=0.5, momentum=0.25, max_epoch=2)
    changes = "max_epoch 1 -> 2, lr 0.01 -> 0.003, momentum 0.9 -> 0.25, weight_decay 0.01 -> 0.5"
    assert f"changed since the run was saved: {changes}" in told
    rates = {r["lr"] for r in log_of(folder / "a") if r["kind"] == "batch" and r["epoch"] == 1}
    assert rates <= {0.003, 0.0015}
    groups = read_state(folder / "a" / "last.pt")["optimizer"]["param_groups"]
    assert sorted(group["weight_decay"] for group in groups) == [0, 0.5]  # biases have none
    assert [group["momentum"] for group in groups] == [0.25, 0.25]


REFUSED = {  # option that a run cannot go on with: what is said
    "optimizer=adam": "--optimizer=adam: a run goes on with adamw, which it began with",
    "fast_dev_run=True": "--fast_dev_run: a run of its own: leave resume out",
    "hidden=20": "{} was trained with another hidden",
    "data_root={}/../other.jsonl": "{} was trained with another vocab",
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_a_run_cannot_go_on_with(folder, a, option):
    corpus = (folder / "corpus.jsonl").read_text()
    (folder / "other.jsonl").write_text(corpus.replace("忆", "憶"))  # as many characters, other ones
    before = (a / "last.pt").read_bytes()
    name, _, value = option.format(a).partition("=")
    told = run_here(code=2, resume=a, **{"max_epoch": 2, name: value})
    assert told.splitlines()[-1].startswith(f"error: {REFUSED[option].format(a)}")
    assert (a / "last.pt").read_bytes() == before


def test_an_epoch_ends_with_the_batches_it_began_with(folder):
    more = {"row_length": 32, "max_epoch": 3, "num_workers": 0}
    stopped = Process(arguments(**options(folder, run="a", **more)), folder / "out")
    stopped.wait_for(lambda: steps_done(folder / "a") >= 5)
    os.kill(stopped.process.pid, signal.SIGTERM)
    assert stopped.wait() == 143
    progress = read_state(folder / "a" / "last.pt")["progress"]
    assert 0 < progress["batch"] < progress["batches"]
    before = (folder / "a" / "last.pt").read_bytes()
    told = run_here(code=2, resume=folder / "a", row_length=256)
    expected = rf"error: this epoch had {progress['batches']} batches and has \d+ now: go on with .*=1\), and change .*"
    assert re.fullmatch(expected, told.splitlines()[-1]), told
    told = run_here(code=2, resume=folder / "a", seed=1)
    expected = "error: --seed: can be changed between two epochs only: leave it out to the epoch's end"
    assert told.splitlines()[-1] == expected
    assert (folder / "a" / "last.pt").read_bytes() == before
    run_here(resume=folder / "a", max_epoch=1)
    run_here(resume=folder / "a", max_epoch=2, row_length=256)


def test_a_run_needs_the_model_it_began_with_no_more(folder, a):
    """--init; for --load see test_task_poet.py."""
    model = a / "best.safetensors"
    run_here(**options(folder, run="second", max_epoch=1, init=model))
    model.unlink()
    run_here(resume=folder / "second", max_epoch=2)


def test_the_best_figures_survive(folder):
    """A resumed run that gets no better still knows the best epoch and its figures."""
    best = trainer.train(parse(PoetConfig, options(folder, run="a", max_epoch=1)))
    assert best["bits_per_char"] > 0 and set(best) == {"loss", "bits_per_char", "perplexity"}
    again = resumed_options({"resume": str(folder / "a"), "max_epoch": 2, "lr": 30}, "")  # ruins the network
    assert trainer.train(parse(PoetConfig, again)) == best
    final = log_of(folder / "a")[-1]
    assert final["kind"] == "final" and final["figures"] == {**best, "best_epoch": 0}
    assert Poet.load(folder / "a" / "best.safetensors").metadata["epoch"] == 1
    assert read_state(folder / "a" / "last.pt")["progress"]["lr_factor"] == 0.5


def test_a_damaged_state_is_one_line(folder, a):
    path = a / "last.pt"
    for content in (path.read_bytes()[:1000], b"", b"hello"):
        path.write_bytes(content)
        told = run_here(code=2, resume=a)
        assert told.startswith(f"error: {path} is not a training state, or is damaged") and told.count("\n") == 1
    torch.save({"version": 99}, path)
    with pytest.raises(UserError, match="of version 99"):
        read_state(path)
    with pytest.raises(UserError, match="give the folder of a run"):
        read_state(folder / "b" / "last.pt")
    with pytest.raises(UserError, match="there is no run to go on with"):
        resumed_options({"resume": "True"}, str(folder / "empty"))
