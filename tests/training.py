"""Real trainings for the tests: a tiny corpus, and `main.py` in processes of their own that start at once.

The processes are forked from a server that has torch imported; that saves the seconds that `python main.py` needs.
"""

import io
import json
import lzma
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from models.basemodule import BaseModule
from options import is_for
from tasks.base import Task, chunks
from training.recorder import parse_lines, read_log
from training.state import read_state

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["main", "trainer", "tasks.poet", "tasks.style", "tasks.dogcat", "torchvision", "fire"])
TANG = Path(__file__).parents[2] / "shared" / "poetry" / "tang.jsonl.xz"
CHARACTERS = "春江花月夜山水风云雨雪天地人心情思君不见来去归故乡明日长相忆"


class Line(BaseModule):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(1)


class Samples(list):
    """Samples of which some cannot be read."""

    def __init__(self, samples: list, broken: set[int]):
        super().__init__(samples)
        self.broken = broken

    def __getitem__(self, index):
        if isinstance(index, slice):
            return super().__getitem__(index)
        return None if index in self.broken else {**super().__getitem__(index), "index": torch.tensor(index)}

    def fault(self, index: int) -> str:
        return f"sample {index} is broken"


class LineTask(Task):
    """y = x @ [1, 2, 3]; `samples` x of it, in order. `hook(number, batch, model)` is called at each training pass."""

    network = Line

    def __init__(self, cfg, samples: int = 32, val_losses: list[float] | None = None, hook=None, broken=frozenset()):
        super().__init__(cfg)
        x = torch.randn(samples, 3, generator=torch.Generator().manual_seed(1))
        self.samples = Samples([{"x": v, "y": v @ torch.tensor([1.0, 2.0, 3.0])} for v in x], broken)
        self.hook, self.val_losses, self.calls = hook, val_losses, 0

    def make_model(self) -> Line:
        return Line()

    def make_dataset(self, split: str) -> Samples:
        return self.samples

    @staticmethod
    def collate(samples: list) -> dict[str, Tensor] | None:
        good = [sample for sample in samples if sample is not None]
        return default_collate(good) if good else None

    def train_batches(self, epoch: int) -> list[list[int]]:
        return chunks(list(range(len(self.samples))), self.cfg.batch_size)

    def val_batches(self):
        return self.samples, [list(range(len(self.samples)))]

    def trial_batch(self, size: int) -> None:
        """The hooks count steps."""

    def step(self, model, batch):
        if model.training:
            self.calls += 1
            if self.hook:
                self.hook(self.calls, batch, model)
        squares = (model(batch["x"]) - batch["y"]).square()
        loss = squares.mean()
        if not model.training and self.val_losses:
            loss = torch.tensor(self.val_losses.pop(0))
        return {"objective": loss, "count": torch.tensor(len(squares)), "loss": loss.detach()}


def write_corpus(path: Path, poems: int = 64) -> Path:
    """Random quatrains, an eighth of them each for val and test; the poems of val have a character of their own."""
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(poems):
            width = draw.choice((5, 7))
            a, b, c, d = ("".join(draw.choices(CHARACTERS, k=width)) for _ in range(4))
            split = {0: "val", 1: "test"}.get(number % 8, "train")
            b = "鹤" + b[1:] if split == "val" else b
            lines = [f"{a}，{b}。", f"{c}，{d}。"]
            poem = {"title": a[:2], "author": "甲乙"[number % 2], "lines": lines, "split": split}
            file.write(json.dumps(poem, ensure_ascii=False) + "\n")
    return path


def tang_test_split(folder: Path) -> Path:
    """The poems of the Tang corpus that are for testing, as a file in `folder`; the whole takes a minute to read."""
    if not TANG.exists():
        pytest.skip(f"needs the Tang corpus beside the project ({TANG})")
    with lzma.open(TANG, "rt", encoding="utf-8") as file:
        lines = [line for line in file if '"split":"test"' in line]
    (folder / "tang.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "tang.jsonl"


def options(folder: Path, **more: Any) -> dict[str, Any]:
    """Options of `train` for a run of some 13 tiny steps an epoch in `folder`, which holds corpus.jsonl."""
    small = {"hidden": 16, "embed": 12, "batch_size": 2, "row_length": 64, "max_epoch": 2, "warmup": 5, "lr": 0.01}
    files = {"data_root": folder / "corpus.jsonl", "save_path": folder, "debug_file": folder / "debug"}
    return {**small, **files, "precision": "fp32", "use_visdom": False, "use_gpu": False, "save_every": 0, **more}


def arguments(command: str = "train", **given: Any) -> list[str]:
    """The words of a command line, with those of the options that the command has a use for."""
    return [command, *(f"--{name}={value}" for name, value in given.items() if not command or is_for(name, command))]


def main_here(argv: list[str], out: str, environment: dict[str, str]) -> None:
    """`python main.py ARGV`, in a process that was forked for it."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as in a process started from a shell
    os.environ.update(environment)
    target = os.open(out, os.O_RDWR | os.O_CREAT | os.O_APPEND)  # a file, or the terminal it becomes
    if os.isatty(target):
        os.dup2(target, 0)
        sys.stdin = open(0)  # multiprocessing has closed it
    os.dup2(target, 1)
    os.dup2(target, 2)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    import main

    sys.exit(main.main(argv))


class Process:
    """`python main.py ARGV` that is running; what it prints goes to the file (or terminal) `out`."""

    def __init__(self, argv: list[str], out: Path | str, target: Callable[..., None] = main_here, **environment: str):
        self.out = Path(out)
        self.process = CONTEXT.Process(target=target, args=(argv, str(out), environment))
        self.process.start()

    def kill(self) -> None:
        """kill -9 of this process alone, which must be alive; its own children may live a little longer."""
        assert self.process.is_alive(), self.out.read_text()
        os.kill(self.process.pid, signal.SIGKILL)
        while Path(f"/proc/{self.process.pid}").exists():
            time.sleep(0.001)

    def wait(self) -> int:
        """The exit code; fails after 240 s."""
        self.process.join(240)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"{self.out} goes on and on: {self.out.read_text()[-2000:]}")
        return self.process.exitcode

    def wait_for(self, condition: Any) -> None:
        """Until condition() is true or the process has ended."""
        end = time.monotonic() + 240
        while self.process.is_alive() and not condition():
            assert time.monotonic() < end
            time.sleep(0.005)


def run_here(command: str = "train", code: int = 0, **given: Any) -> str:
    """Runs `main.py COMMAND` in this process, checks the exit code, returns what it printed."""
    import main

    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        found = main.main(arguments(command, **given))
    assert found == code, told.getvalue()
    return told.getvalue()


def run(folder: Path, command: str = "train", code: int = 0, **given: Any) -> str:
    """The same in a process of its own."""
    out = folder / f"out{len(list(folder.glob('out*')))}"
    process = Process(arguments(command, **given), out)
    assert process.wait() == code, out.read_text()
    assert "Traceback" not in out.read_text()
    return out.read_text()


def kill_at_random(folder: Path, kills: int, **given: Any) -> None:
    """Trains in folder/whole, and in folder/killed, which saves at each step and is killed so many times.

    Each fourth kill comes while it starts. After each of them all files can be read, and in the end the two runs are
    the same: weights, optimizer, random numbers, log, pictures, bit for bit.
    """
    one, other, draw = folder / "whole", folder / "killed", random.Random(kills)
    run_here(**given, run="whole")
    whole = steps_done(one)
    for kill in range(kills):
        again = {"resume": other} if (other / "last.pt").exists() else {"run": "killed"}
        process = Process(arguments(**given, **again), folder / f"killed{kill}")
        if kill % 4:
            goal = (kill + 1) * whole // (kills + 2)
            process.wait_for(lambda goal=goal: steps_done(other) >= goal)
        time.sleep(draw.uniform(0, 0.03 if kill % 4 else 0.3))
        process.kill()
        for name, read in (("last.pt", read_state), ("best.safetensors", BaseModule.load)):
            _ = read(other / name) if (other / name).exists() else None
        if (other / "log.jsonl").exists():
            lines = (other / "log.jsonl").read_bytes().split(b"\n")[:-1]  # what follows the last line's end is torn
            assert len(parse_lines(b"\n".join(lines))) == len(lines)
    run_here(**given, resume=other)
    assert_same_run(one, other)
    best = [BaseModule.load(run / "best.safetensors") for run in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in best), strict=True))
    pictures = [{path.name: path.read_bytes() for path in run.glob("pictures/*")} for run in (one, other)]
    assert pictures[0] == pictures[1]


def steps_done(run_folder: Path) -> int:
    """Lines of the log so far, as a quick measure of where a running process stands."""
    log = run_folder / "log.jsonl"
    return log.read_bytes().count(b'"kind": "batch"') if log.exists() else 0


def records(run_folder: Path, kind: str = "batch", **wanted: Any) -> list[dict[str, Any]]:
    """The records of a kind in a run's log, those with the wanted values."""
    return [r for r in read_log(run_folder) if r["kind"] == kind and all(r[k] == v for k, v in wanted.items())]


def log_of(run_folder: Path) -> list[dict[str, Any]]:
    """The log without times and without the records of the config, which every start repeats."""
    times = ("time", "data_time", "model_time", "config")
    return [{k: v for k, v in r.items() if k not in times} for r in read_log(run_folder) if r["kind"] != "config"]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, random numbers, progress and every figure of the log, bit for bit."""
    states = [read_state(folder / "last.pt") for folder in (one, other)]
    for state in states:
        assert state["progress"].pop("seconds") > 0
        for name in ("config", "log_size"):
            del state[name]
    assert _plain(states[0]) == _plain(states[1])
    assert log_of(one) == log_of(other)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
