"""What the loop costs: trainer.Run against a bare loop, on the poet: the same batches, model and optimizer. Not a test.

    python benchmarks/loop.py [--rounds=8] [--batches=12]

The two take turns. The bare loop is what a tutorial writes: forward, backward, clipping, step, the loss added up. Run
also checks for infinities, counts every metric, writes the log, shows a bar, watches for signals and the debug file,
and saves every minute. Seconds are of the process (CPU), which other programs on the machine change less than those of
the clock; one thread. Prints the median over the rounds, and the quarters around it.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the path first

from benchmarks.common import our_training  # noqa: E402
from config import task_config  # noqa: E402
from prepare import prepare  # noqa: E402
from tasks import make_task  # noqa: E402
from trainer import Run  # noqa: E402


def measure(rounds: int, batches: int, folder: str) -> tuple[list[float], list[float]]:
    """CPU seconds per step of (the bare loop, the full one), a pair for each round."""
    given = {"use_gpu": False, "precision": "fp32", "overfit_batches": batches, "use_visdom": False}
    cfg = task_config({**given, "lr_schedule": "constant", "warmup": 0, "save_path": folder})
    training = our_training(make_task(cfg))
    run = Run(prepare(cfg, None, ExitStack()))

    def bare() -> None:
        sum(next(training)["loss"].item() for _ in range(batches))

    def full() -> None:
        run.train_epoch()
        run.progress.batch = 0
        run.metrics.clear()
        run.progress.extremes.clear()

    def seconds(epoch: Callable[[], None]) -> float:
        start = time.process_time()
        epoch()
        return (time.process_time() - start) / batches

    found = [(seconds(bare), seconds(full)) for _ in range(rounds + 1)][1:]  # the first one warms up
    run.recorder.close()
    return tuple(map(list, zip(*found, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12, help="in a round")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bare, full = measure(chosen.rounds, chosen.batches, folder)
    ratios = [100 * (b / a - 1) for a, b in zip(bare, full, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"bare {1000 * statistics.median(bare):.1f} ms, trainer.Run {1000 * statistics.median(full):.1f} ms a step")
    print(f"overhead {middle:+.1f} % (quarters {low:+.1f} to {high:+.1f}); {chosen.rounds} x {chosen.batches} steps")


if __name__ == "__main__":
    main()
