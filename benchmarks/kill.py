"""SIGKILL at random moments of tiny trainings of all three tasks: what is left, and whether they end the same.

    python benchmarks/kill.py [--kills=54] [--seed=0]

For each task, without and with two processes that read data: one training runs to its end; another one, which saves at
each step, is killed again and again (a fourth of the times while it starts) and goes on. After each kill all its files
are read; in the end weights, optimizer, random numbers and every figure of the log must be those of the first, bit for
bit. Prints a table; the exit code is 1 if anything was lost. Some tests run a few of these kills.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the path first
import torchvision  # noqa: E402

from models.basemodule import BaseModule  # noqa: E402
from tests import dogcat, test_task_style, training  # noqa: E402
from tests.pictures import write_picture  # noqa: E402
from training.recorder import parse_lines  # noqa: E402
from training.state import read_state  # noqa: E402
from utils.errors import UserError  # noqa: E402

TASKS = ("poet", "style", "dogcat")
PAUSE = 0.03  # seconds after a step, at most, that the kill comes


@dataclass
class Kills:
    """What became of a training that was killed."""

    kills: int = 0
    while_writing: int = 0  # kills that left a temporary file behind
    lost: list[str] = field(default_factory=list)  # files that could not be read
    same: bool = False  # as the training that nobody killed


def tiny(task: str, folder: Path) -> dict[str, Any]:
    """Options of a training of some 20 steps, on data that are made in `folder`."""
    match task:
        case "poet":
            training.write_corpus(folder / "corpus.jsonl")
            return training.options(folder)
        case "style":
            for number in range(14):
                write_picture(folder / "photos" / f"{number}.png", number)
            for number, name in enumerate(("ink", "oil")):
                write_picture(folder / "styles" / f"{name}.png", 100 + number)
            torch.manual_seed(0)
            network = torchvision.models.squeezenet1_1(weights=None)
            torch.save(network.state_dict(), folder / "squeezenet.pth")
            return test_task_style.options(folder, max_epoch=4)
        case _:
            data = dogcat.write_easy_set(folder / "pictures")
            return dogcat.options(folder, data, max_epoch=4, ema=0.9, mixup=0.3)


def killed(folder: Path, given: dict[str, Any], kills: int, seed: int = 0) -> Kills:
    """Trains with the options `given` in folder/whole, and, killed so many times, in folder/killed."""
    training.run(folder, **given, run="whole")
    whole, draw, found = training.steps_done(folder / "whole"), random.Random(seed), Kills()
    goals = sorted(draw.uniform(0, whole - 1) for _ in range(kills))
    for number, goal in enumerate(goals):
        again = {"resume": folder / "killed"} if (folder / "killed" / "last.pt").exists() else {"run": "killed"}
        process = training.Process(training.arguments(**given, **again), folder / f"killed{number}")
        if number % 4:
            process.wait_for(lambda goal=goal: training.steps_done(folder / "killed") > goal)
            time.sleep(draw.uniform(0, PAUSE))
        else:
            time.sleep(draw.uniform(0, 0.5))
        if not process.process.is_alive():  # it was quicker
            break
        process.kill()
        found.kills += 1
        found.while_writing += any((folder / "killed").rglob(".*.part"))
        found.lost += unreadable(folder / "killed")
    training.run(folder, **given, resume=folder / "killed")
    try:
        training.assert_same_run(folder / "whole", folder / "killed")
        found.same = not differing(folder / "whole", folder / "killed")
    except AssertionError as error:
        print(error, file=sys.stderr)
    return found


def unreadable(run: Path) -> list[str]:
    """The files of a run that are not whole. A killed process may tear the last line of the log, and no other one."""
    lost = []
    readers = {"last.pt": read_state, "best.safetensors": BaseModule.load, "log.jsonl": _read_log}
    for name, read in readers.items():
        try:
            if (run / name).exists():
                read(run / name)
        except (UserError, AssertionError) as error:
            lost.append(f"{run / name}: {error}")
    return lost


def _read_log(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line's end is torn
    assert len(parse_lines(b"\n".join(lines))) == len(lines), "a torn line"


def differing(one: Path, other: Path) -> list[str]:
    """The files that are not the same in two runs: model files by their tensors, pictures by their bytes."""
    models = [BaseModule.load(run / "best.safetensors").state_dict() for run in (one, other)]
    found = [name for name in models[0] if not torch.equal(models[0][name], models[1][name])]
    names = {path.relative_to(run) for run in (one, other) for path in run.glob("pictures/*")}
    files = [[run / name for run in (one, other)] for name in names]
    return found + [str(a) for a, b in files if not b.exists() or not a.exists() or a.read_bytes() != b.read_bytes()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=54, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    total = Kills(same=True)
    print("| task | reading processes | kills | while writing a file | unreadable files | the same in the end |")
    print("|---|---|---|---|---|---|")
    for number, (task, workers) in enumerate((task, workers) for task in TASKS for workers in (0, 2)):
        kills = chosen.kills // 6 + (number < chosen.kills % 6)
        with tempfile.TemporaryDirectory() as folder:
            given = tiny(task, Path(folder)) | {"num_workers": workers}
            found = killed(Path(folder), given, kills, chosen.seed + number)
        row = (found.kills, found.while_writing, len(found.lost), "yes" if found.same else "no")
        print(f"| {task} | {workers} |", " | ".join(map(str, row)), "|", flush=True)
        total.kills, total.while_writing = total.kills + found.kills, total.while_writing + found.while_writing
        total.lost, total.same = total.lost + found.lost, total.same and found.same
    print(f"| all | | {total.kills} | {total.while_writing} | {len(total.lost)} | {'yes' if total.same else 'no'} |")
    print("\n".join(total.lost), file=sys.stderr)
    return int(bool(total.lost) or not total.same)


if __name__ == "__main__":
    sys.exit(main())
