"""The poet against the book's recipe on this machine's CPU: speed, memory, time to 8.0 bits, generation. Not a test.

The book's recipe, written here from its description: embedding 128, LSTM 2 x 256, linear to the vocabulary; fp32; poems
padded on the left, or cut, to 125 tokens; padding in the loss; Adam 1e-3; batch 128. Run it on a quiet machine:

    python benchmarks/poet.py --data_root=tang.jsonl.xz

Prints tables on stdout as they are done. Shapes: B sequences, T positions, V characters, H hidden width.
"""

import argparse
import bisect
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the path first
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.common import Worker, exit_code, machine, say, take_turns  # noqa: E402
from config import PoetConfig, task_config  # noqa: E402
from data.poem_files import EMBEDDED, read_poems  # noqa: E402
from data.poetry import PoetryDataset, collate  # noqa: E402
from data.splits import choose_split  # noqa: E402
from data.verse import Poem  # noqa: E402
from data.vocabulary import Vocabulary  # noqa: E402
from infer.verse.compose import compose  # noqa: E402
from infer.verse.settings import PoemSettings  # noqa: E402
from models.poet import LinearCrossEntropy, Poet  # noqa: E402
from tasks import make_task  # noqa: E402
from tasks.poet import CHINESE_CHARACTERS, bits_of  # noqa: E402
from training.state import read_state  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.hardware import choose_precision, tune_malloc  # noqa: E402

TARGET = 8.0  # bits per character on the validation split
BOOK_LENGTH, BOOK_BATCH = 125, 128
EMBED, HIDDEN, LAYERS = 128, 256, 2  # of the book's network


@dataclass
class Setting:
    """What is measured and for how long. `quick` shows that everything runs; its figures mean little."""

    data_root: str
    minutes: float  # of training with our defaults
    book_minutes: float  # of training with the book's recipe
    rounds: int = 5
    round_seconds: float = 10.0
    judge_every: float = 30.0  # seconds of the book's training


# ------------------------------------------------------------------------------------------------------ the book's side


class BookNetwork(nn.Module):
    """The book's network; its loss is book_training's business."""

    def __init__(self, characters: int):
        super().__init__()
        self.embed = nn.Embedding(characters, EMBED)
        self.lstm = nn.LSTM(EMBED, HIDDEN, LAYERS, batch_first=True)
        self.output = nn.Linear(HIDDEN, characters)

    def logits(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V)."""
        return self.output(self.lstm(self.embed(ids))[0])

    def forward(self, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The same network trained our way: no padding, loss in pieces. Answers as Poet.forward does."""
        h, _ = self.lstm(self.embed(ids))  # (B, T) -> (B, T, H)
        counted = targets >= 0
        nll = LinearCrossEntropy.apply(h[counted], self.output.weight, self.output.bias, targets[counted])
        return {"nll": nll, "count": counted.sum()}


def body_vocabulary(poems: list[Poem]) -> Vocabulary:
    """Every character of the bodies: the book's network knows neither titles nor authors."""
    return Vocabulary.build(replace(p, title="", author="") for p in poems)


def left_padded(poems: list[list[int]], length: int, pad: int) -> Tensor:
    """Lists of ids, each no longer than `length` -> (B, length), padded on the left."""
    return torch.tensor([[pad] * (length - len(ids)) + ids for ids in poems])


def encoded(poems: list[Poem], vocabulary: Vocabulary) -> list[list[int]]:
    return [[vocabulary.bos, *vocabulary.encode(p.text), vocabulary.eos] for p in poems]


def is_real(targets: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Where the target is a body character or the end mark: neither padding nor the mark of the start."""
    return (targets != vocabulary.pad) & (targets != vocabulary.bos)


def book_training(model: BookNetwork, poems: list[Poem], vocabulary: Vocabulary) -> Iterator[int]:
    """Takes one training step of the book's recipe for each number it yields: the real characters of the batch."""
    cut = [ids[:BOOK_LENGTH] for ids in encoded(poems, vocabulary)]
    data = left_padded(cut, BOOK_LENGTH, vocabulary.pad)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    while True:
        for rows in torch.randperm(len(data)).split(BOOK_BATCH):
            ids, targets = data[rows, :-1], data[rows, 1:]
            optimizer.zero_grad()
            F.cross_entropy(model.logits(ids).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
            yield int(is_real(targets, vocabulary).sum())


@torch.inference_mode()
def book_bits(model: BookNetwork, poems: list[Poem], vocabulary: Vocabulary) -> float:
    """Bits per character, counted as tasks.poet.bits_of does; padded as the network was trained, nothing cut off."""
    rows = sorted(encoded(poems, vocabulary), key=len)
    bits, count = 0.0, 0
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        ids = left_padded(part, max(BOOK_LENGTH, len(part[-1])), vocabulary.pad)
        targets = ids[:, 1:]
        real = is_real(targets, vocabulary)
        nll = F.cross_entropy(model.logits(ids[:, :-1])[real], targets[real], reduction="sum").item()
        unknown = int((targets == vocabulary.unknown).sum())
        bits += nll / math.log(2) + unknown * math.log2(max(2, CHINESE_CHARACTERS - len(vocabulary)))
        count += int(real.sum())
    return bits / count


# ------------------------------------------------------------------------------------------------------------- our side


def our_training(model: nn.Module, poems: list[Poem], vocabulary: Vocabulary, precision: str) -> Iterator[int]:
    """Takes one training step as trainer.py and tasks/poet.py do, default batch; yields its counted characters."""
    dataset = PoetryDataset(poems, vocabulary, "random", PoetConfig.row_length)
    row = dataset.characters / len(dataset)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PoetConfig.lr, betas=(0.9, 0.99), weight_decay=PoetConfig.weight_decay, fused=True
    )
    model.train()
    tune_malloc(keep_all=True)
    epoch = 0
    while True:
        dataset.set_epoch(epoch)
        for indices in dataset.batches(PoetConfig.batch_size, epoch):
            batch = collate([dataset[i] for i in indices])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                output = model(batch["ids"], targets=batch["targets"])
            (output["nll"] / (len(indices) * row)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), PoetConfig.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            yield int(output["count"])
        epoch += 1


# ------------------------------------------------------------------------------------------------- 1. speed and memory


def start_training(recipe: str, precision: str, poems: list[Poem]) -> tuple[Iterator[int], int]:
    """(training, number of parameters) of "book", "ours" (the book's network) or "ours, tied" (ours of that size)."""
    torch.manual_seed(0)
    vocabulary = body_vocabulary(poems)
    if recipe == "ours, tied":
        model = Poet(vocabulary.characters, EMBED, HIDDEN, LAYERS)
    else:
        model = BookNetwork(len(vocabulary))
    parameters = sum(p.numel() for p in model.parameters())
    if recipe == "book":
        return book_training(model, poems, vocabulary), parameters
    return our_training(model, poems, vocabulary, precision), parameters


def trainer_of(recipe: str, precision: str, data_root: str) -> Callable[[float], tuple[float, int]]:
    """A function that trains for so many seconds, at least a step: (seconds a character, number of parameters)."""
    training, parameters = start_training(recipe, precision, choose_split(read_poems(data_root), "train"))

    def train(seconds: float) -> tuple[float, int]:
        characters, start = 0, time.perf_counter()
        while not characters or time.perf_counter() - start < seconds:
            characters += next(training)
        return (time.perf_counter() - start) / characters, parameters

    return train


def measure_speed(setting: Setting, precision: str) -> None:
    """Real characters per second and peak memory of each recipe, taking turns, and the table of both."""
    cases = [("book", "fp32"), ("ours", "fp32"), ("ours, tied", "fp32")]
    if precision != "fp32":
        cases += [("ours", precision), ("ours, tied", precision)]
    workers = [Worker(" | ".join(case), trainer_of, *case, setting.data_root) for case in cases]
    turns = take_turns(workers, setting.rounds, lambda number: setting.round_seconds if number else 0.0)
    parameters = {worker.name: count for worker, count in turns}
    print("\n| training | precision | parameters | characters/s (min to max) | ratio |", end="")
    print(" peak MB | ratio | added by training | ratio |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    book = workers[0]
    added = {worker.name: max(worker.peak - worker.before, 1) for worker in workers}  # to libraries and corpus
    for worker in workers:
        low, middle, high = (f"{1 / f(worker.found):,.0f}" for f in (max, median, min))
        print(
            f"| {worker.name} | {parameters[worker.name]:,} | {middle} ({low} to {high}) "
            f"| {median(book.found) / median(worker.found):.1f} | {worker.peak:,.0f} | {book.peak / worker.peak:.1f} "
            f"| {added[worker.name]:,.0f} | {added[book.name] / added[worker.name]:.1f} |",
            flush=True,
        )


# --------------------------------------------------------------------------------------------------- 2. time to TARGET


@dataclass
class Snapshot:
    """A training run of ours at some moment."""

    seconds: float  # trained so far
    step: int
    weights: dict[str, Tensor]


def our_snapshots(setting: Setting) -> tuple[list[Snapshot], str]:
    """(a snapshot of every 5 seconds, the precision it chose) of `python main.py train` with its default settings."""
    snapshots: list[Snapshot] = []
    with tempfile.TemporaryDirectory() as folder:
        log, state_file, seen = Path(folder) / "log", Path(folder) / "run" / "last.pt", 0
        command = [
            sys.executable, "main.py", "train", f"--data_root={Path(setting.data_root).resolve()}", "--run=run",
            f"--save_path={folder}", "--save_every=5", "--use_visdom=false", "--use_gpu=false",
        ]  # fmt: skip
        with open(log, "w") as out:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        try:
            while process.poll() is None and not (snapshots and snapshots[-1].seconds > setting.minutes * 60):
                time.sleep(0.5)
                if state_file.exists() and (now := state_file.stat().st_mtime_ns) != seen:
                    seen, state = now, read_state(state_file)
                    progress = state["progress"]
                    snapshots.append(Snapshot(progress["seconds"], progress["step"], state["model"]))
        finally:
            ended = process.poll()
            process.kill()
            process.wait()
        lines = log.read_text().splitlines()
    if ended or not snapshots:
        raise UserError(f"main.py train failed: {lines[-1] if lines else 'it said nothing'}")
    return snapshots, re.search(r"precision (\w+) \(", "\n".join(lines))[1]


def our_time(setting: Setting) -> tuple[float | None, str, Poet]:
    """(seconds of training to TARGET, None if it was not reached; the row of the table; the network as it was then)."""
    say(f"our default settings, {setting.minutes:g} minutes of training")
    snapshots, precision = our_snapshots(setting)
    task = make_task(task_config({"data_root": setting.data_root}))

    @cache
    def judge(number: int) -> float:
        task.model.load_state_dict(snapshots[number].weights)
        bits, count, _ = bits_of(task.model.eval(), task.val_set)
        say(f"  after {snapshots[number].seconds:.0f} s: {bits / count:.3f} bits")
        return bits / count

    # The first snapshot that is good enough, taking it that later ones are better; the last if none is.
    last = len(snapshots) - 1
    number = bisect.bisect_left(range(last), True, key=lambda i: judge(i) <= TARGET)
    bits, seconds, step = judge(number), snapshots[number].seconds, snapshots[number].step
    task.model.load_state_dict(snapshots[number].weights)
    reached = bits <= TARGET
    characters = task.train_set.characters / len(task.train_set) * PoetConfig.batch_size * step
    row = (
        f"| ours, default settings ({precision}; {task.model.parameter_count():,} parameters, "
        f"{characters / max(seconds, 1e-9):,.0f} characters/s) "
        f"| {f'{seconds:.0f} s' if reached else f'not reached in {seconds / 60:.1f} minutes'} | {bits:.2f} |"
    )
    return seconds if reached else None, row, task.model


def book_time(setting: Setting, poems: list[Poem]) -> tuple[float, str]:
    """(seconds of training after which the book's recipe was last seen above TARGET, and the row of the table)."""
    say(f"the book's recipe, at most {setting.book_minutes:g} minutes of training")
    torch.manual_seed(0)
    training_poems, val_poems = choose_split(poems, "train"), choose_split(poems, "val")
    vocabulary = body_vocabulary(training_poems)
    model = BookNetwork(len(vocabulary))
    training = book_training(model, training_poems, vocabulary)
    spent, above, characters = 0.0, 0.0, 0
    while True:
        stop = spent + setting.judge_every
        while spent < stop:
            start = time.perf_counter()
            characters += next(training)
            spent += time.perf_counter() - start
        bits = book_bits(model, val_poems, vocabulary)
        say(f"  after {spent:.0f} s: {bits:.3f} bits")
        if bits <= TARGET:
            break
        above = spent
        if spent >= setting.book_minutes * 60:
            break
    result = f"{spent:.0f} s" if bits <= TARGET else f"not reached in {spent / 60:.1f} minutes"
    parameters = sum(p.numel() for p in model.parameters())
    row = f"| book (fp32; {parameters:,} parameters, {characters / spent:,.0f} characters/s) | {result} | {bits:.2f} |"
    return above, row


def measure_time(setting: Setting, poems: list[Poem]) -> Poet:
    """Seconds of training, without judging and saving, to TARGET, the table, a lower bound of the ratio -> our poet."""
    ours, our_row, model = our_time(setting)
    book, book_row = book_time(setting, poems)
    print(f"\n| time to {TARGET} validation bits per character | training | bits then |\n| --- | --- | --- |")
    print(f"{book_row}\n{our_row}")
    ratio = "unknown: ours was not reached, give more --minutes" if ours is None else f"more than {book / ours:.1f}"
    print(f"\nRatio of the times: {ratio}.", flush=True)
    return model


# -------------------------------------------------------------------------------------------------------- 3. generation


def measure_generation(setting: Setting, model: Poet) -> None:
    """64 quatrains in one batch against one at a time by the same network, and the table of both."""

    def write(first: int, n: int) -> None:
        compose(model, PoemSettings(form="七绝"), n, first, forms=["七绝"])

    ways: dict[str, Callable[[], object]] = {
        "one at a time": lambda: [write(i, 1) for i in range(64)],
        "one batch": lambda: write(0, 64),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    write(0, 1)
    for number in range(setting.rounds):
        say(f"generation, round {number + 1}/{setting.rounds}")
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    print("\n| 64 quatrains | seconds (min to max) | ratio |\n| --- | --- | --- |")
    for name, found in seconds.items():
        ratio = median(seconds["one at a time"]) / median(found)
        print(f"| {name} | {median(found):.3f} ({min(found):.3f} to {max(found):.3f}) | {ratio:.1f} |", flush=True)


def measure(setting: Setting) -> None:
    """All three parts."""
    poems = read_poems(setting.data_root)
    precision, why = choose_precision("auto", gpu=False)
    print(f"{machine(precision, why)}; {len(poems):,} poems", flush=True)
    measure_speed(setting, precision)
    measure_generation(setting, measure_time(setting, poems))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default=str(EMBEDDED), help="the corpus, such as tang.jsonl.xz")
    parser.add_argument("--minutes", type=float, default=4, help="of training with our default settings")
    parser.add_argument(
        "--book_minutes", type=float, default=5, help="of the book's recipe, at most; it needs about 20"
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds of each, to see that it runs")
    args = parser.parse_args()
    setting = Setting(args.data_root, args.minutes, args.book_minutes)
    if args.quick:
        setting = Setting(args.data_root, 0.2, 0.2, rounds=2, round_seconds=2.0, judge_every=6.0)
    return exit_code(lambda: measure(setting))


if __name__ == "__main__":
    sys.exit(main())
