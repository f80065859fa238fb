"""What the benchmarks share: ways that take turns in fresh processes, tables of them, our training, this machine."""

import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch.utils.data import DataLoader

from prepare import task_optimizer
from tasks.base import Task
from training.parameters import MovingAverage, freeze, train_mode
from utils.errors import UserError
from utils.hardware import choose_precision, cpu_features, tune_malloc

PROCESS = Path("/proc/self")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def exit_code(work: Callable[[], None]) -> int:
    """Does the work; a mistake of the user is one line."""
    try:
        if not PROCESS.exists():
            raise UserError(f"there is no {PROCESS} on this machine: use Linux, memory cannot be measured elsewhere")
        work()
    except UserError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def precisions(end: str = "\n") -> list[str]:
    """fp32, and bf16 where it is faster; prints what the results are measured on."""
    precision, why = choose_precision("auto", gpu=False)
    features, threads = ", ".join(cpu_features()) or "unknown", torch.get_num_threads()
    print(f"CPU features: {features}; {threads} threads; torch {torch.__version__}; ", end="")
    print(f"auto picks {precision} ({why})", end=end, flush=True)
    return list(dict.fromkeys(("fp32", precision)))


def start(make: Callable[..., Callable[[Any], Any]], *args: Any) -> float:
    """Makes what will answer in this process; returns the memory until then."""
    global answer
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process too, silently
    answer = make(*args)
    (PROCESS / "clear_refs").write_text("5")  # the peak starts from what is in use now
    return peak_memory()


def reply(question: Any) -> tuple[Any, float]:
    """(the answer, peak memory)."""
    return answer(question), peak_memory()


def peak_memory(process: Path = PROCESS) -> float:
    """The most memory a process (of /proc) has had, in MB. Unlike ru_maxrss it leaves out what its parent had."""
    return int((process / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024


class Worker:
    """Answers by `make(*args)` in a fresh process.

    Attributes:
        name: cells of a table.
        found: seconds for one piece of work in each round.
        before, peak: memory in MB, before the first question and at most.
    """

    def __init__(self, name: str, make: Callable[..., Callable[[Any], Any]], *args: Any):
        self.name, self.found, self.before, self.peak = name, [], 0.0, 0.0
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.started = self.process.submit(start, make, *args)

    def ask(self, question: Any) -> Any:
        try:
            self.before = self.started.result()
            answer, self.peak = self.process.submit(reply, question).result()
        except BrokenProcessPool:
            raise UserError(f"the process of {self.name} has ended; its message is above") from None
        return answer

    def row(self, first: "Worker", unit: Callable[[float], float]) -> str:
        """What was found, in a unit made of seconds, and its ratio to that of the first one; memory likewise."""
        values = sorted(map(unit, self.found))
        low, middle, high = (f"{v:,.0f}" if v >= 10 else f"{v:.2f}" for v in (values[0], median(values), values[-1]))
        speed, added = median(first.found) / median(self.found), self.peak - self.before
        memory = added / max(first.peak - first.before, 1)
        return f"| {self.name} | {middle} ({low} to {high}) | {speed:.2f} | {added:,.0f} | {memory:.2f} |"


def compare(title: str, unit: str, ways: dict[str, tuple], rounds: int, question: Callable[[int], Any]) -> None:
    """Lets the ways {cells of the table: (make, *args), see Worker} take turns, and prints their speed.

    Each answers question(round) by (seconds for one piece of work, the result). The unit is "ms", of a piece, or of
    pieces a second. Results, arrays or tensors, are compared with the first way's in the same round; None is not.
    """
    say(title)
    workers = [Worker(name, *way) for name, way in ways.items()]
    target, differences = None, {worker.name: [] for worker in workers}
    for number in range(rounds + 1):
        for worker in workers:
            say(f"  round {number}/{rounds}: {worker.name}")
            seconds, result = worker.ask(question(number))
            worker.found += [seconds] if number else []  # round 0 sets the libraries up
            if result is not None:
                result = torch.as_tensor(result, dtype=torch.float32)
                target = result if worker is workers[0] else target
                difference = (result - target).abs()
                differences[worker.name].append((difference.max().item(), difference.mean().item()))
    for worker in workers:
        worker.process.shutdown()
    more = (" largest | mean difference |", " --- | --- |") if target is not None else ("", "")
    print(f"\n| {title} | precision | {unit} (min to max) | speed | MB added | memory |{more[0]}")
    print(f"| --- | --- | --- | --- | --- | --- |{more[1]}")
    for worker in workers:
        cells = worker.row(workers[0], lambda seconds: 1000 * seconds if unit == "ms" else 1 / seconds)
        if found := differences[worker.name]:
            largest, means = zip(*found, strict=True)
            cells += f" {max(largest):.3g} | {mean(means):.4f} |"
        print(cells if found or not more[0] else f"{cells} | |", flush=True)


def timed(work: Callable[[Any], tuple[int, Any]]) -> Callable[[Any], tuple[float, Any]]:
    """An answer for Worker out of work: question -> (pieces, result)."""

    def answer(question: Any) -> tuple[float, Any]:
        start = time.perf_counter()
        pieces, result = work(question)
        return (time.perf_counter() - start) / pieces, result

    return answer


def our_training(task: Task) -> Iterator[dict[str, Any]]:
    """Trains as trainer.py does, without validation, log and saving; yields what each step has put out."""
    cfg = task.cfg
    freeze(task.model, cfg.freeze)
    optimizer, average = task_optimizer(cfg, task), MovingAverage(task.model, cfg.ema) if cfg.ema else None
    tune_malloc(keep_all=True)
    step = 0
    for epoch in itertools.count():
        batches = task.train_batches(epoch)
        train_mode(task.model)
        loader = DataLoader(task.train_set, batch_sampler=batches, collate_fn=task.collate, num_workers=cfg.num_workers)
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=cfg.precision == "bf16"):
                output = task.step(task.model, batch)
            output["objective"].backward()
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), cfg.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if average:
                average.update(step)
            yield output


def for_seconds(training: Iterator[int], seconds: float) -> tuple[int, None]:
    """Takes steps for so long, one at least -> (what they yield, added up, no result)."""
    start, pieces = time.perf_counter(), next(training)
    while time.perf_counter() - start < seconds:
        pieces += next(training)
    return pieces, None
