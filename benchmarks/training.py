"""What each option of the loop does to a short training.

    python benchmarks/training.py [--task=poet] [--epochs=8] [--seeds=3]

Every row is the trainings on the embedded sample with one option changed, one for each seed: mean and deviation
of the best validation metric, and as ratios to the first row the median time of a batch and the peak of memory. Small
trainings: the direction of an effect is what they show, not what it would be on other data.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training.recorder import read_log  # noqa: E402

CHANGES = {
    "poet": (
        "", "--precision=bf16", "--accumulate=4", "--grad_clip=0", "--clip_value=0.01", "--weight_decay=0",
        "--weight_decay=0.1", "--l1=0.0001", "--ema=0.98", "--warmup=0", "--lr_schedule=constant",
        "--lr_schedule=cosine", "--lr_schedule=one_cycle", "--lr_schedule=step --lr_epochs=4",
        "--lr_schedule=multistep --lr_epochs=6,9", "--optimizer=sgd --lr=0.5", "--optimizer=adam", "--optimizer=nadam",
        "--optimizer=radam", "--optimizer=rmsprop --lr=0.001", "--freeze=embed.*", "--lr_scale=embed.*:0.1",
        "--num_workers=1", "--backbone=transformer --hidden=768", "--attention=0",
    ),
    "dogcat": (
        "", "--label_smoothing=0.1", "--mixup=0.4", "--ema=0", "--freeze=features.*", "--lr_scale=features.*:0.1",
        "--checkpoint_layers=features.?,features.1?", "--compile",
    ),
}  # fmt: skip
COMMON = {  # the poet's: what the table in docs/training.md was measured with
    "poet": "--data_root=dataset/sample/poetry/quatrains.jsonl --batch_size=8 --hidden=384 --layers=2 --attention=192",
    "dogcat": "",
}
METRIC = {"poet": "bits_per_char", "dogcat": "loss"}


def measure(task: str, epochs: int, seed: int, change: str) -> tuple[float, float, float]:
    """(best validation metric, median seconds of a batch, MB at most) of one training, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"task": task, "max_epoch": epochs, "seed": seed, "save_path": folder, "run": "run", "samples": 0}
        given |= {"precision": "fp32", "use_visdom": False}
        words = [f"--{name}={value}" for name, value in given.items()] + COMMON[task].split() + change.split()
        command = [sys.executable, "main.py", "train", *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{change}: the training has failed; its message is above")
        records = read_log(Path(folder) / "run")
        values = [float(r[METRIC[task]]) for r in records if r["kind"] == "epoch" and r["split"] == "val"]
        seconds = [r["data_time"] + r["model_time"] for r in records if r["kind"] == "batch"]
        return min(values), statistics.median(seconds), usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", choices=tuple(CHANGES), default="poet")
    chosen = parser.parse_args()
    print(f"{chosen.task}, {chosen.epochs} epochs of the embedded sample; {time.strftime('%Y-%m-%d')}")
    print(f"| change | {METRIC[chosen.task]} | time | memory |\n|---|---|---|---|")
    first = None
    for change in CHANGES[chosen.task]:
        measured = [measure(chosen.task, chosen.epochs, seed, change) for seed in range(chosen.seeds)]
        values, seconds, memory = zip(*measured, strict=True)
        spread = f" ± {statistics.stdev(values):.3f}" if chosen.seeds > 1 else ""
        seconds, memory = statistics.mean(seconds), statistics.mean(memory)
        first = first or (seconds, memory)
        ratios = f"{seconds / first[0]:.2f} | {memory / first[1]:.2f}"
        print(f"| `{change or '--precision=fp32'}` | {statistics.mean(values):.3f}{spread} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
