"""The poet against the book's recipe on this machine's CPU: speed, memory, time to 8.0 bits, generation. Not a test.

The book's recipe, written here from its description: embedding 128, LSTM 2 x 256, linear to the vocabulary; fp32; poems
padded on the left, or cut, to 125 tokens; padding in the loss; Adam 1e-3; batch 128. Run it on a quiet machine:

    python benchmarks/poet.py --data_root=tang.jsonl.xz

Prints tables on stdout as they are done. Shapes: B sequences, T positions, V characters, H hidden width.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the path first
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.common import compare, exit_code, for_seconds, our_training, precisions, say, timed  # noqa: E402
from config import GenerateConfig, task_config  # noqa: E402
from data.poem_files import EMBEDDED, read_poems  # noqa: E402
from data.splits import choose_split  # noqa: E402
from data.verse import Poem  # noqa: E402
from data.vocabulary import Vocabulary  # noqa: E402
from infer.verse.compose import compose  # noqa: E402
from infer.verse.settings import PoemSettings  # noqa: E402
from models.poet import LinearCrossEntropy, Poet  # noqa: E402
from tasks.poet import CHINESE_CHARACTERS, PoetTask, bits_of  # noqa: E402

TARGET = 8.0  # bits per character on the validation split
LENGTH, BATCH = 125, 128
EMBED, HIDDEN, LAYERS = 128, 256, 2  # of the book's network
QUATRAINS = 64


class BookNetwork(nn.Module):
    """The book's network, with what our training asks of one."""

    def __init__(self, characters: list[str]):
        super().__init__()
        self.vocab = characters
        self.embed = nn.Embedding(len(characters), EMBED)
        self.lstm = nn.LSTM(EMBED, HIDDEN, LAYERS, batch_first=True)
        self.output = nn.Linear(HIDDEN, len(characters))

    def logits(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V)."""
        return self.output(self.lstm(self.embed(ids))[0])

    def forward(self, ids: Tensor, targets: Tensor, poem: Tensor) -> dict[str, Tensor]:
        """Without padding, the loss in pieces, as models/poet.py has it."""
        h, _ = self.lstm(self.embed(ids))  # (B, T) -> (B, T, H)
        counted = targets >= 0
        nll = LinearCrossEntropy.apply(h[counted], self.output.weight, self.output.bias, targets[counted])
        return {"nll": nll, "count": counted.sum()}


class BookNetworkTask(PoetTask):
    """Our training of the book's network."""

    def make_model(self) -> BookNetwork:
        return BookNetwork(body_vocabulary(choose_split(self.poems, "train")).characters)


def body_vocabulary(poems: list[Poem]) -> Vocabulary:
    """Every character of the bodies: the book's network knows neither titles nor authors."""
    return Vocabulary.build(replace(poem, title="", author="") for poem in poems)


def left_padded(sequences: list[list[int]], length: int, pad: int) -> Tensor:
    """Lists of ids, each no longer than `length` -> (B, length), padded on the left."""
    return torch.tensor([[pad] * (length - len(ids)) + ids for ids in sequences])


def encode(poems: list[Poem], vocabulary: Vocabulary) -> list[list[int]]:
    return [[vocabulary.bos, *vocabulary.encode(poem.text), vocabulary.eos] for poem in poems]


def is_real(targets: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Where the target is a body character or the end token: neither padding nor the token of the start."""
    return (targets != vocabulary.pad) & (targets != vocabulary.bos)


def book_training(model: BookNetwork, poems: list[Poem], vocabulary: Vocabulary) -> Iterator[int]:
    """Takes one training step of the book's recipe for each number it yields: the real characters of the batch."""
    data = left_padded([ids[:LENGTH] for ids in encode(poems, vocabulary)], LENGTH, vocabulary.pad)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while True:
        for indices in torch.randperm(len(data)).split(BATCH):
            ids, targets = data[indices, :-1], data[indices, 1:]
            optimizer.zero_grad()
            F.cross_entropy(model.train().logits(ids).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
            yield int(is_real(targets, vocabulary).sum())


@torch.inference_mode()
def book_bits(model: BookNetwork, poems: list[Poem], vocabulary: Vocabulary) -> float:
    """Bits per character, counted as tasks.poet.bits_of does; padded as the network was trained, nothing cut off."""
    sequences = sorted(encode(poems, vocabulary), key=len)
    bits, count = 0.0, 0
    for start in range(0, len(sequences), 16):
        part = sequences[start : start + 16]
        ids = left_padded(part, max(LENGTH, len(part[-1])), vocabulary.pad)
        targets = ids[:, 1:]
        real = is_real(targets, vocabulary)
        nll = F.cross_entropy(model.logits(ids[:, :-1])[real], targets[real], reduction="sum").item()
        unknown = int((targets == vocabulary.unknown).sum())
        bits += nll / math.log(2) + unknown * math.log2(max(2, CHINESE_CHARACTERS - len(vocabulary)))
        count += int(real.sum())
    return bits / count


def start_training(recipe: str, precision: str, data_root: str) -> tuple[Iterator[int], Callable[[], float]]:
    """(training that yields the characters of each step, what tells the validation's bits per character).

    recipe: "book"; "ours" of its network, "ours, tied" (a Poet of that size), "ours, 2 x 384".
    """
    torch.manual_seed(0)
    if recipe == "book":
        poems = read_poems(data_root)
        train, val = choose_split(poems, "train"), choose_split(poems, "val")
        vocabulary = body_vocabulary(train)
        model = BookNetwork(vocabulary.characters)
        return book_training(model, train, vocabulary), partial(book_bits, model, val, vocabulary)
    sizes = {"hidden": 384, "layers": 2, "attention": 192}
    if recipe == "ours, tied":
        sizes = {"embed": EMBED, "hidden": HIDDEN, "layers": LAYERS, "attention": 0}
    cfg = task_config({"data_root": data_root, "precision": precision, "batch_size": 8, **sizes})
    task = BookNetworkTask(cfg) if recipe == "ours" else PoetTask(cfg)

    def bits() -> float:
        total, count, _ = bits_of(task.model.eval(), task.val_set)
        task.model.train()
        return total / count

    return (int(output["count"]) for output in our_training(task)), bits


def speed(recipe: str, precision: str, data_root: str) -> Callable[[Any], Any]:
    """Trains for so many seconds."""
    training, _ = start_training(recipe, precision, data_root)
    return timed(lambda seconds: for_seconds(training, seconds))


def generation(at_once: int) -> Callable[[Any], Any]:
    """Writes quatrains, so many in a batch, by the shipped poet."""
    poet = Poet.load(ROOT / GenerateConfig.load)

    def work(seed: int) -> tuple[int, None]:
        for first in range(0, QUATRAINS, at_once):
            compose(poet, PoemSettings(form="七绝"), at_once, seed + first)
        return QUATRAINS, None

    return timed(work)


def time_to_target(recipe: str, precision: str, args: argparse.Namespace) -> tuple[float, float]:
    """Trains until the validation is at TARGET, or `minutes` are over, and prints the row of the table.

    Returns the seconds of training (reading and validation do not count) at the last look that found it above, and at
    the first one that did not, infinity if none.
    """
    training, bits_now = start_training(recipe, precision, args.data_root)
    spent, above, characters, bits = 0.0, 0.0, 0, math.inf
    while spent < 60 * args.minutes:
        start = time.perf_counter()
        characters += for_seconds(training, args.every)[0]
        spent += time.perf_counter() - start
        bits = bits_now()
        say(f"  {recipe}, {spent:.0f} s: {bits:.3f} bits")
        if bits <= TARGET:
            break
        above = spent
    reached = f"{spent:.0f} s" if bits <= TARGET else f"not reached in {spent / 60:.1f} minutes"
    print(f"| {recipe} | {precision} | {characters / spent:,.0f} | {reached} | {bits:.2f} |", flush=True)
    return above, spent if bits <= TARGET else math.inf


def measure(args: argparse.Namespace) -> None:
    """All three parts."""
    kinds = precisions()
    recipes = [("book", "fp32"), *((recipe, kind) for kind in kinds for recipe in ("ours", "ours, tied"))]
    ways = {" | ".join(recipe): (speed, *recipe, args.data_root) for recipe in recipes}
    compare("training", "characters/s", ways, args.rounds, lambda number: args.seconds if number else 0.0)
    ways = {"one at a time | fp32": (generation, 1), "one batch | fp32": (generation, QUATRAINS)}
    compare(f"{QUATRAINS} quatrains", "poems/s", ways, args.rounds, lambda number: number * QUATRAINS)
    print(f"\n| time to {TARGET} validation bits per character | precision | characters/s | training | bits then |")
    print("| --- | --- | --- | --- | --- |")
    _, ours = time_to_target("ours, 2 x 384", kinds[-1], args)
    book, _ = time_to_target("book", "fp32", args)
    print(f"\nRatio of the times: {f'more than {book / ours:.1f}' if ours < math.inf else 'unknown'}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default=str(EMBEDDED), help="the corpus, such as tang.jsonl.xz")
    parser.add_argument("--minutes", type=float, default=5, help="of training of each side; the book's needs about 30")
    parser.add_argument("--quick", action="store_true", help="a few seconds of each, to see that it runs")
    args = parser.parse_args()
    args.rounds, args.seconds, args.every = 5, 10.0, 5.0
    if args.quick:
        args.minutes, args.rounds, args.seconds = 0.1, 1, 1.0
    return exit_code(lambda: measure(args))


if __name__ == "__main__":
    sys.exit(main())
