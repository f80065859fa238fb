"""The classifier against the plain way to train and use one, on this machine's CPU: speed and memory. Not a test.

The other side is benchmarks/reference_dogcat.py: a tutorial's dataset class, torchvision's MobileNetV2 in fp32,
channels first. How often the answers are right is not judged here: `python main.py test --task=dogcat` does. Run it on
a quiet machine:

    python benchmarks/dogcat.py

Prints tables on stdout as they are done. Shapes: N pictures, K classes.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from benchmarks.common import Worker, exit_code, machine, say, take_turns  # noqa: E402
from benchmarks.reference_dogcat import PlainDogCat, mobilenet_v2, plain_logits, plain_training  # noqa: E402
from config import ClassifyConfig, DogCatConfig, task_config  # noqa: E402
from data.dogcat import DogCatDataset  # noqa: E402
from data.labels import choose_split, list_samples  # noqa: E402
from data.views import Augmentation  # noqa: E402
from infer.photo.classify import Settings, classify, find_pictures, open_model  # noqa: E402
from models import MobileNetV2  # noqa: E402
from tasks import make_task  # noqa: E402
from training.parameters import MovingAverage, freeze, parameter_groups, train_mode  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.hardware import choose_precision, tune_malloc  # noqa: E402
from utils.images import read_image, save_image  # noqa: E402

PICTURES = ROOT.parent / "shared" / "dogcat" / "train.tar"
SAMPLE = ROOT / "dataset" / "sample" / "dogcat" / "train"
SIZE, BATCH = DogCatConfig.image_size, DogCatConfig.batch_size
EARLY = "features.?.*,features.10.*,features.11.*,features.12.*,features.13.*"  # 14 of the 19 blocks
JOBS = {"all layers": "", "early layers frozen": EARLY, "last layer": "features.*"}  # what does not learn
ANY = 0.0  # threshold of classify: no picture is "neither"


def make_pictures(folder: Path, place: str, count: int, side: int) -> None:
    """`count` JPEGs in Kaggle's naming, as many cats as dogs, whose longer side is `side`, out of those at `place`."""
    samples = list_samples(place)
    for label in ("cat", "dog"):
        sources = itertools.cycle([s.source for s in samples if s.label == label])
        for number, source in zip(range(count // 2), sources, strict=False):
            with source.open() as file:
                rgb = read_image(file, name=source.name).rgb
            scale = side / max(rgb.shape[:2])
            height, width = (max(32, round(length * scale)) for length in rgb.shape[:2])
            image = Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC)
            save_image(folder / f"{label}.{number}.jpg", np.array(image), quality=90)


def training_files(folder: Path) -> list[Path]:
    """What both sides train with: all but the validation pictures."""
    return [sample.source.path for sample in choose_split(list_samples(folder), "train")]


# ----------------------------------------------------------------------------------------------------------- 1. reading


def timed_reading(way: str, folder: Path, cache: Path) -> Callable[[int], tuple[float, None]]:
    """What reads all the pictures as training does, without a network; with a cache, that is full after round 0."""
    if way == "plain":
        dataset = PlainDogCat(training_files(folder), SIZE, train=True)
    else:
        samples = choose_split(list_samples(folder), "train")
        dataset = DogCatDataset(samples, ["cat", "dog"], SIZE, Augmentation(), cache if way == "cached" else "")

    def answer(number: int) -> tuple[float, None]:
        start = time.perf_counter()
        for i in range(len(dataset)):
            dataset[i]
        return (time.perf_counter() - start) / len(dataset), None

    return answer


def measure_reading(folder: Path, cache: Path, title: str, rounds: int) -> None:
    say(f"reading, {title}")
    workers = [Worker(f"{way} | ", timed_reading, way, folder, cache) for way in ("plain", "ours", "cached")]
    turns(workers, rounds, lambda number: number, f"reading, {title}")


# ---------------------------------------------------------------------------------------------------------- 2. training


def our_training(folder: Path, epochs: int, options: dict[str, Any], cache: str) -> None:
    """Trains as trainer.py does, without validation and saving."""
    cfg = task_config({"task": "dogcat", "data_root": folder, "pretrained": "none", "cache": cache, **options})
    task = make_task(cfg)
    freeze(task.model, cfg.freeze)
    optimizer = torch.optim.AdamW(
        parameter_groups(task.model, cfg.weight_decay), lr=cfg.lr, betas=(0.9, 0.99), fused=True
    )
    average = MovingAverage(task.model, cfg.ema)
    tune_malloc(keep_all=True)
    step = 0
    for epoch in range(epochs):
        batches = task.train_batches(epoch)
        train_mode(task.model)
        loader = DataLoader(task.train_set, batch_sampler=batches, collate_fn=task.collate, num_workers=cfg.num_workers)
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=cfg.precision == "bf16"):
                output = task.step(task.model, batch)
            output["objective"].backward()
            nn.utils.clip_grad_norm_(task.model.parameters(), cfg.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            average.update(step)


def timed_training(options: dict[str, Any] | None, frozen: str, folder: Path, workers: int) -> Callable:
    """What trains for so many epochs, from a new network and an empty cache; options None: the plain way."""
    files = training_files(folder)

    def answer(epochs: int) -> tuple[float, None]:
        start = time.perf_counter()
        if options is None:
            plain_training(files, SIZE, BATCH, epochs, [part for part in frozen.split(",") if part], workers)
        else:
            with tempfile.TemporaryDirectory() as cache:
                our_training(folder, epochs, {**options, "freeze": frozen, "num_workers": workers}, cache)
        return (time.perf_counter() - start) / (epochs * len(files)), None

    return answer


def measure_training(
    job: str, precisions: Sequence[str], folder: Path, title: str, rounds: int, epochs: int, processes: int
) -> None:
    """A table of one job: each round a whole training of so many epochs."""
    say(f"{job}, {title}")
    cases: dict[str, dict[str, Any] | None] = {"plain | fp32": None}
    for precision in precisions:
        cases[f"ours | {precision}"] = {"precision": precision}
        if job == "last layer":
            cases[f"ours, --views={epochs} | {precision}"] = {"precision": precision, "views": epochs}
    workers = [Worker(name, timed_training, case, JOBS[job], folder, processes) for name, case in cases.items()]
    turns(workers, rounds, lambda number: epochs if number else 1, f"{job}, {title}")


# ------------------------------------------------------------------------------------------------------- 3. classifying


def timed_classifying(way: str, views: int, file: Path, folder: Path) -> Callable[[int], tuple[float, Tensor]]:
    """What says of every picture what it shows: (seconds for one, probabilities (N, K)). way: plain, or a precision."""
    model = open_model(file)
    paths = sorted(folder.iterdir())
    size, temperature = int(model.metadata["image_size"]), model.metadata.get("temperature", 1.0)
    if way == "plain":
        network = mobilenet_v2(weights=None, num_classes=len(model.classes))
        network.load_state_dict(MobileNetV2.load(file).state_dict())
        network.eval()

    def answer(number: int) -> tuple[float, Tensor]:
        start = time.perf_counter()
        if way == "plain":
            probs = (plain_logits(network, paths, size) / temperature).softmax(1)
        else:
            found = classify(model, find_pictures([str(p) for p in paths]), Settings(views, way, threshold=ANY))
            probs = torch.tensor([list(answer.probabilities.values()) for answer in found])
        return (time.perf_counter() - start) / len(paths), probs

    return answer


def measure_classifying(precisions: Sequence[str], file: Path, folder: Path, title: str, rounds: int) -> None:
    say(f"classifying, {title}")
    cases = {"plain | fp32": ("plain", 1)}
    for views, precision in itertools.product((1, ClassifyConfig.tta), precisions):
        cases[f"ours, --tta={views} | {precision}"] = (precision, views)
    workers = [Worker(name, timed_classifying, *case, file, folder) for name, case in cases.items()]
    turns(workers, rounds, lambda number: number, f"classifying, {title}")


# --------------------------------------------------------------------------------------------------------------- tables


def turns(workers: Sequence[Worker], rounds: int, question: Callable[[int], int], title: str) -> None:
    """Lets the workers take turns, and prints a table of what they found; differences are of probabilities."""
    target, largest, mean = None, {}, {}
    for worker, probs in take_turns(workers, rounds, question):
        if probs is None:
            continue
        target = probs if target is None else target
        difference = (probs - target).abs()
        largest[worker.name], mean[worker.name] = difference.max().item(), difference.mean().item()
    more = (" largest | mean difference |", " --- | --- |") if largest else ("", "")
    print(f"\n| {title} | precision | images/s (min to max) | speed | MB added | memory |{more[0]}")
    print(f"| --- | --- | --- | --- | --- | --- |{more[1]}")
    for worker in workers:
        differences = f" {largest[worker.name]:.3f} | {mean[worker.name]:.4f} |" if largest else ""
        print(worker.row(workers[0], lambda seconds: 1 / seconds) + differences, flush=True)


def measure(args: argparse.Namespace, folder: Path) -> None:
    """All three parts, for each size of pictures; `folder` is for what the processes share."""
    if not isinstance(open_model(args.load), MobileNetV2):
        raise UserError(f"--load={args.load} is no MobileNetV2: torchvision's is the other side")
    precision, why = choose_precision("auto", gpu=False)
    precisions = ("fp32", precision) if precision != "fp32" else ("fp32",)
    count, epochs, rounds, sides = args.pictures, args.epochs, args.rounds, args.sides
    if args.quick:
        count, epochs, rounds, sides, precisions = 40, 1, 1, sides[:1], (precision,)
    print(f"{machine(precision, why)}; {count} pictures of {args.data_root}, ", end="")
    print(f"{SIZE} x {SIZE} pixels of each, batches of {BATCH}, {epochs} epochs", flush=True)
    for side in sides:
        pictures = folder / str(side)
        make_pictures(pictures, args.data_root, count, side)
        sizes = [path.stat().st_size for path in pictures.iterdir()]
        title = f"{side} px, {sum(sizes) / len(sizes) / 1000:.0f} KB"
        measure_reading(pictures, folder / f"cache_{side}", title, rounds)
        for job in JOBS:
            measure_training(job, precisions, pictures, title, rounds, epochs, args.num_workers)
        measure_classifying(precisions, args.load, pictures, title, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data_root", default=str(PICTURES if PICTURES.exists() else SAMPLE), help="pictures of cats and dogs"
    )
    parser.add_argument("--load", default=str(ROOT / ClassifyConfig.load), help="the classifier to classify with")
    parser.add_argument("--sides", type=numbers, default=[500, 192], help="longer sides of the pictures, in pixels")
    parser.add_argument("--pictures", type=number, default=240, help="how many, a tenth of them not trained with")
    parser.add_argument("--epochs", type=number, default=DogCatConfig.max_epoch, help="of a training")
    parser.add_argument("--rounds", type=number, default=3, help="turns that each way takes")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read pictures, on both sides")
    parser.add_argument("--quick", action="store_true", help="a moment of each, to see that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return exit_code(lambda: measure(args, Path(folder)))


def number(text: str) -> int:
    """The type of --epochs and the like."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def numbers(text: str) -> list[int]:
    """The type of --sides."""
    return [number(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
