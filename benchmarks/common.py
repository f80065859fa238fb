"""What the benchmarks share: fresh processes that take turns, their memory, this machine, how a command ends."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch

from utils.errors import UserError
from utils.hardware import cpu_features

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
    """What the figures were measured on."""
    features = ", ".join(cpu_features()) or "unknown"
    threads = torch.get_num_threads()
    return f"CPU features: {features}; {threads} threads; torch {torch.__version__}; auto picks {precision} ({why})"


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
        found: seconds for a painting in each round.
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
    """Asks each worker question(round) once a round and yields (worker, its painting).

    Their answers are (seconds for a painting, the painting). Round 0 sets the libraries up: its times do not count.
    """
    for worker in workers:
        worker.before = worker.receive()
    for number in range(rounds + 1):
        for worker in workers:
            say(f"  round {number}/{rounds}: {worker.name}")
            seconds, painting = worker.ask(question(number))
            worker.found += [seconds] if number else []
            yield worker, painting
    for worker in workers:
        worker.end()
