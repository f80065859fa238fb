"""The poet's task: next-character prediction on poems, measured in bits per character."""

import math
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from config import PoetConfig
from data.poem_files import EMBEDDED, read_poems
from data.poetry import PoetryDataset, character_counts, collate
from data.rhyme import Rhymes, read_rhymes, restrict
from data.splits import choose_split
from data.verse import FORMS, Poem, verses
from data.vocabulary import Vocabulary
from infer.verse.compose import compose
from infer.verse.model_file import SHIPPED
from models.basemodule import BaseModule, read_metadata
from models.poet import Poet
from models.seen_verses import filter_size
from tasks.base import Task
from training.recorder import Recorder
from utils.errors import UserError

SIZES = ("embed", "hidden", "layers", "dropout", "backbone", "attention")  # options that are arguments of the network


class PoetTask(Task):
    """Trains a Poet on the poems under cfg.data_root."""

    network = Poet
    paths = (*Task.paths, "init", "rhymes")
    command = "generate"
    monitors = {"bits_per_char": "min", "loss": "min"}
    size_option = "row_length"
    collate = staticmethod(collate)

    def __init__(self, cfg: PoetConfig, arguments: dict[str, Any] | None = None):
        super().__init__(cfg, arguments)
        for name in cfg.changed() if cfg.load and not arguments else ():
            if name in SIZES and getattr(cfg, name) != self.model.arguments[name]:
                own = f"{cfg.load} has {name}={self.model.arguments[name]}"
                raise UserError(f"{own}; leave it out", **{name: getattr(cfg, name)})
        self.vocabulary = Vocabulary(self.model.vocab)
        self.forms = [form for form in FORMS if any(p.form == form for p in self.poems)]
        self.rhymes = self._rhymes()

    @cached_property
    def poems(self) -> list[Poem]:
        return read_poems(self.cfg.data_root or EMBEDDED)

    def make_model(self) -> Poet:
        cfg, training = self.cfg, choose_split(self.poems, "train")
        # In a small corpus most characters are rare; all of them are needed.
        large = sum(len(p.text) for p in training) >= 100_000
        vocabulary = Vocabulary.build(training, cfg.min_count if large else 1)
        regular = {v for p in self.poems for v in verses(p.text) if len(v) in (5, 7)}
        sizes = {name: getattr(cfg, name) for name in SIZES}
        model = Poet(vocabulary.characters, **sizes, seen_bytes=filter_size(len(regular)))
        model.init_output_bias(character_counts(training, vocabulary))
        model.remember(regular)
        if cfg.init:
            left = model.start_from(Poet.load(cfg.init))
            print(f"from {cfg.init}: all weights but {', '.join(left) or 'none'}", file=sys.stderr)
        return model

    def _rhymes(self) -> Rhymes:
        """The rhyme table of cfg.rhymes, else that of the poet to start from, else the shipped poet's."""
        if self.cfg.rhymes:
            return read_rhymes(self.cfg.rhymes, self.model.vocab)
        for path in filter(None, (self.cfg.load, self.cfg.init, SHIPPED)):
            if Path(path).exists() and "rhymes" in (metadata := read_metadata(path)):
                return restrict(metadata, self.model.vocab)
        return {}

    @cached_property
    def train_set(self) -> PoetryDataset:
        poems = choose_split(self.poems, "train")
        return PoetryDataset(poems, self.vocabulary, "random", self.cfg.row_length, self.cfg.seed)

    @cached_property
    def val_set(self) -> PoetryDataset:
        return PoetryDataset(choose_split(self.poems, "val"), self.vocabulary, "none", sequence_length=0)

    def __str__(self) -> str:
        return (
            f"{len(self.poems):,} poems from {self.cfg.data_root or 'the embedded sample'}, "
            f"{self.train_set.characters:,} characters to learn from, "
            f"{len(self.vocabulary):,} different ones; {type(self.model).__name__} of "
            f"{self.model.parameter_count():,} parameters"
        )

    def train_batches(self, epoch: int) -> list[list[int]]:
        self.train_set.set_epoch(epoch)
        return self.train_set.batches(self.cfg.batch_size, epoch)

    def val_batches(self) -> tuple[PoetryDataset, list[list[int]]]:
        return self.val_set, self.val_set.batches(64, 0, shuffle=False)

    def step(self, model: BaseModule, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Nats per character, bits per character, and the objective.

        The objective divides by the number of sequences times their MEAN length, not by the characters of this batch:
        processes that share a batch can then average their gradients.
        """
        output = model(batch["ids"], targets=batch["targets"], poem=batch["poem"])
        bits, _ = bits_of_batch(output["nll"].detach(), batch["targets"], self.vocabulary)
        length = self.train_set.characters / len(self.train_set)
        count = output["count"].clamp(min=1)
        return {
            "objective": output["nll"] / (len(batch["ids"]) * length),
            "count": output["count"],
            "loss": output["nll"].detach() / count,
            "bits_per_char": bits / count,
        }

    def summarise(self, metrics: dict[str, float]) -> dict[str, float]:
        return {**metrics, "perplexity": 2 ** min(metrics["bits_per_char"], 1000)}

    def show(self, recorder: Recorder, step: int, epoch: int) -> None:
        """Poems by the network as it is now: quatrains where the corpus has them."""
        if not self.cfg.samples:
            return
        poems = compose(self.model.eval(), n=self.cfg.samples, seed=0, forms=self.forms)
        self.model.train()
        text = "\n".join(" / ".join(poem.lines) for poem in poems)
        recorder.text(step, epoch, "poems", text)
        print(text, flush=True)

    def show_batch(
        self, recorder: Recorder, step: int, epoch: int, name: str, batch: dict[str, Tensor], loss: float
    ) -> None:
        rows = [self.vocabulary.decode(targets[targets >= 0].tolist()) for targets in batch["targets"]]
        recorder.text(step, epoch, name, f"loss {loss:.4f}\n" + "\n".join(rows))

    def evaluate(self, split: str) -> dict[str, Any]:
        """Bits per character (body, punctuation, end token): the text alone, and with title, author and form given."""
        poems = self.subset(choose_split(self.poems, split))
        source = self.cfg.data_root or "the embedded sample"
        result: dict[str, Any] = {"data": source, "split": split, "poems": len(poems)}
        for condition, name in (("none", "bits_per_char"), ("all", "bits_per_char_given")):
            bits, count, unknown = bits_of(
                self.model, PoetryDataset(poems, self.vocabulary, condition, sequence_length=0)
            )
            result[name] = bits / count
            result |= {"characters": count, "unknown_characters": unknown}
        return result

    @property
    def sample_size(self) -> int:
        return min(self.cfg.row_length, self.train_set.characters)

    def trial_batch(self, size: int) -> dict[str, Tensor]:
        ids = torch.arange(size)[None] % len(self.vocabulary)  # (1, T)
        return {"ids": ids, "targets": ids, "poem": torch.zeros_like(ids)}

    def example(self) -> dict[str, Tensor]:
        return {"ids": torch.zeros(1, self.cfg.row_length or 128, dtype=torch.long)}

    def model_metadata(self) -> dict[str, Any]:
        return {"forms": self.forms, **self.rhymes}


CHINESE_CHARACTERS = 20_992  # the CJK Unified Ideographs of Unicode 4E00-9FFF


def bits_of_batch(nll: Tensor, targets: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """(bits, unknown characters among the targets); each of them costs log2 of the number that the vocabulary lacks."""
    unknown = (targets == vocabulary.unknown).sum()
    return nll / math.log(2) + unknown * math.log2(max(2, CHINESE_CHARACTERS - len(vocabulary))), unknown


@torch.inference_mode()
def bits_of(model: Poet, dataset: PoetryDataset) -> tuple[float, int, int]:
    """(bits, characters, unknown characters) of all poems, whole, whatever their length."""
    total_bits, total_count, total_unknown = 0.0, 0, 0
    for indices in tqdm(dataset.batches(32, 0, shuffle=False), desc="evaluating", unit="batch", leave=False):
        batch = {k: v.to(model.device) for k, v in collate([dataset[i] for i in indices]).items()}
        output = model(batch["ids"], targets=batch["targets"])
        bits, unknown = bits_of_batch(output["nll"], batch["targets"], dataset.vocabulary)
        total_bits += bits.item()
        total_count += int(output["count"])
        total_unknown += int(unknown)
    return total_bits, total_count, total_unknown
