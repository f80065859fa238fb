"""What the benchmarks share: ways that take turns in fresh processes, tables of them, our training, this machine."""

import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
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


def machine(precision: str, why: str) -> str:
    """What the results were measured on."""
    features = ", ".join(cpu_features()) or "unknown"
    threads = torch.get_num_threads()
    return f"CPU features: {features}; {threads} threads; torch {torch.__version__}; auto picks {precision} ({why})"


def precisions() -> list[str]:
    """fp32, and bf16 where it is faster; prints the machine."""
    precision, why = choose_precision("auto", gpu=False)
    print(machine(precision, why), flush=True)
    return list(dict.fromkeys(("fp32", precision)))


def serve(parent: Connection, make: Callable[..., Callable[[Any], Any]], *args: Any) -> None:
    """Sends its memory, then (answer, peak memory) to each question by `make(*args)`, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process too, silently
    try:
        answer = make(*args)
        (PROCESS / "clear_refs").write_text("5")  # the peak starts from what is in use now
        parent.send(peak_memory())
        while True:
            parent.send((answer(parent.recv()), peak_memory()))
    except UserError as error:
        parent.send(error)
    except EOFError:
        pass


def peak_memory(process: Path = PROCESS) -> float:
    """The most memory a process (of /proc) has had, in MB. Unlike ru_maxrss it leaves out what its parent had."""
    return int((process / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024


class Worker:
    """Runs `serve` in a fresh process.

    Attributes:
        name: cells of a table.
        found: seconds for one piece of work in each round.
        before, peak: memory in MB, before the first question and at most.
    """

    def __init__(self, name: str, make: Callable[..., Callable[[Any], Any]], *args: Any):
        context = multiprocessing.get_context("spawn")
        self.name, self.found, self.before, self.peak = name, [], 0.0, 0.0
        self.connection, child = context.Pipe()
        self.process = context.Process(target=serve, args=(child, make, *args), daemon=True)
        self.process.start()
        child.close()

    def receive(self) -> Any:
        try:
            answer = self.connection.recv()
        except EOFError:
            raise UserError(f"the process of {self.name} has ended; its message is above") from None
        if isinstance(answer, UserError):
            raise answer
        return answer

    def ask(self, question: Any) -> Any:
        self.connection.send(question)
        answer, self.peak = self.receive()
        return answer

    def end(self) -> None:
        self.connection.close()
        self.process.join()

    def row(self, first: "Worker", unit: Callable[[float], float]) -> str:
        """What was found, in a unit made of seconds, and its ratio to that of the first one; memory likewise."""
        values = sorted(map(unit, self.found))
        low, middle, high = (f"{v:,.0f}" if v >= 10 else f"{v:.2f}" for v in (values[0], median(values), values[-1]))
        speed, added = median(first.found) / median(self.found), self.peak - self.before
        memory = added / max(first.peak - first.before, 1)
        return f"| {self.name} | {middle} ({low} to {high}) | {speed:.2f} | {added:,.0f} | {memory:.2f} |"


def take_turns(workers: Sequence[Worker], rounds: int, question: Callable[[int], Any]) -> Iterator[tuple[Worker, Any]]:
    """Asks each worker question(round) once a round and yields (worker, its result).

    Their answers are (seconds for one piece, the result). Round 0 sets the libraries up: its times do not count.
    """
    for worker in workers:
        worker.before = worker.receive()
    for number in range(rounds + 1):
        for worker in workers:
            say(f"  round {number}/{rounds}: {worker.name}")
            seconds, result = worker.ask(question(number))
            worker.found += [seconds] if number else []
            yield worker, result
    for worker in workers:
        worker.end()


def compare(title: str, unit: str, ways: dict[str, tuple], rounds: int, question: Callable[[int], Any]) -> None:
    """Lets the ways {cells of the table: (make, *args), see `serve`} take turns, and prints what they do in a second.

    Results that are tensors are compared with those of the first way.
    """
    say(title)
    workers = [Worker(name, *way) for name, way in ways.items()]
    target, differences = None, {}
    for worker, result in take_turns(workers, rounds, question):
        if result is not None:
            target = result if worker is workers[0] else target
            differences[worker.name] = (result - target).abs()
    more = (" largest | mean difference |", " --- | --- |") if differences else ("", "")
    print(f"\n| {title} | precision | {unit} (min to max) | speed | MB added | memory |{more[0]}")
    print(f"| --- | --- | --- | --- | --- | --- |{more[1]}")
    for worker in workers:
        cells = worker.row(workers[0], lambda seconds: 1 / seconds)
        if differences:
            difference = differences[worker.name]
            cells += f" {difference.max():.3f} | {difference.mean():.4f} |"
        print(cells, flush=True)


def timed(work: Callable[[Any], tuple[int, Any]]) -> Callable[[Any], tuple[float, Any]]:
    """An answer for `serve` out of work: question -> (pieces, result)."""

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
