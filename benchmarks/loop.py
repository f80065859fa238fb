"""What the loop costs: trainer.Run against a bare loop, on the poet: the same batches, model and optimizer. Not a test.

    python benchmarks/loop.py [--rounds=8] [--batches=12] [--visdom]

The two take turns. The bare loop is what a tutorial writes: a DataLoader, forward, backward, clipping, step, the loss
added up. Run also checks for infinities, counts every figure, writes the log, shows a bar, watches for signals and the
debug file, and saves every minute. Seconds are of the process (CPU), which other programs on the machine change less
than those of the clock; one thread. Prints the median over the rounds, and the quarters around it.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the path first
from torch.utils.data import DataLoader  # noqa: E402

from config import PoetConfig  # noqa: E402
from options import parse  # noqa: E402
from prepare import prepare  # noqa: E402
from tasks import make_task  # noqa: E402
from trainer import Run  # noqa: E402
from training.optimizers import make_optimizer  # noqa: E402
from training.parameters import parameter_groups  # noqa: E402
from utils.seed import seed_everything  # noqa: E402


class Bare:
    """A loop of nothing but the training."""

    def __init__(self, cfg: PoetConfig):
        seed_everything(cfg.seed)
        self.cfg, self.task = cfg, make_task(cfg)
        groups = parameter_groups(self.task.model, cfg.weight_decay, cfg.lr_scale)
        self.optimizer = make_optimizer(cfg.optimizer, groups, cfg.lr, cfg.momentum)

    def epoch(self) -> None:
        task, total = self.task, 0.0
        batches = task.train_batches(0)[: self.cfg.overfit_batches]
        task.model.train()
        for batch in DataLoader(task.train_set, batch_sampler=batches, collate_fn=task.collate):
            output = task.step(task.model, batch)
            output["objective"].backward()
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), self.cfg.grad_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            total += output["loss"].item()


class Full:
    """The project's own loop."""

    def __init__(self, cfg: PoetConfig, folder: Path):
        self.resources = ExitStack()
        self.run = Run(prepare(dataclasses.replace(cfg, save_path=str(folder)), None, self.resources))

    def epoch(self) -> None:
        self.run.train_epoch()
        self.run.progress.batch = 0
        self.run.metrics.clear()
        self.run.progress.extremes.clear()


def measure(rounds: int, batches: int, visdom: bool) -> tuple[list[float], list[float]]:
    """CPU seconds per step of (the bare loop, the full one), a pair for each round."""
    given = {"use_gpu": False, "precision": "fp32", "overfit_batches": batches, "use_visdom": visdom}
    cfg = parse(PoetConfig, {**given, "lr_schedule": "constant", "warmup": 0})
    with tempfile.TemporaryDirectory() as folder:
        loops = Bare(cfg), Full(cfg, Path(folder))
        seconds: tuple[list[float], list[float]] = [], []
        for number in range(rounds + 1):  # the first one warms up
            for which in (0, 1) if number % 2 else (1, 0):
                start = time.process_time()
                loops[which].epoch()
                if number:
                    seconds[which].append((time.process_time() - start) / batches)
        loops[1].run.recorder.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12, help="in a round")
    parser.add_argument("--visdom", action="store_true", help="with a thread that looks for a visdom server")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    bare, full = measure(chosen.rounds, chosen.batches, chosen.visdom)
    ratios = [100 * (b / a - 1) for a, b in zip(bare, full, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"bare {1000 * statistics.median(bare):.1f} ms, trainer.Run {1000 * statistics.median(full):.1f} ms a step")
    print(f"overhead {middle:+.1f} % (quarters {low:+.1f} to {high:+.1f}); {chosen.rounds} x {chosen.batches} steps")


if __name__ == "__main__":
    main()
