"""What the trainer asks of a task. docs/tasks.md has an example of forty lines.

A task must have `network`, `make_model`, `make_dataset` and `step`; the other methods have defaults that work.
"""

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from config import DefaultConfig
from data.loading import chunks
from models.basemodule import BaseModule
from training.devices import to_device
from training.metrics import Metrics
from training.recorder import Recorder
from utils.errors import UserError


class Task:
    """Data, model and loss of one thing to learn."""

    model: BaseModule  # the network that is trained
    network: type[BaseModule]  # its class
    # Validation metrics that may decide which checkpoint is best, and whether "min" or "max" is good; the first one
    # does unless cfg.monitor names another.
    monitors: dict[str, str] = {"loss": "min"}
    size_option: str = ""  # the option that says how large a sample is
    in_parts: bool = False  # whether a batch may need a part of the network only
    command: str = "test"  # what uses a trained model, with its file in `load`
    paths: tuple[str, ...] = ("data_root", "load")  # options that name files of this machine: not for the model file

    def __init__(self, cfg: DefaultConfig, arguments: dict[str, Any] | None = None):
        """`arguments`: of a network whose weights come later (a resumed run); None: as cfg says."""
        self.cfg = cfg
        if arguments:
            self.model = self.network(**arguments)
        else:
            self.model = self.network.load(cfg.load) if cfg.load else self.make_model()

    def make_model(self) -> BaseModule:
        """A new network, as cfg says."""
        raise NotImplementedError

    def make_dataset(self, split: str) -> Dataset:
        """The samples of train, val or test: functions of (seed, epoch, index); it may have `set_epoch(epoch)`.

        A sample that cannot be read may be None, see `collate`; then the dataset has `fault(index)`, which says why.
        """
        raise NotImplementedError

    def step(self, model: BaseModule, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One forward pass: {"objective": scalar to minimise, "count": weight of the metrics, and metrics: scalars}.

        The objective must be a mean over the samples of the batch, the metrics means over `count`. "samples", a dict of
        tensors (B, …) about each sample, is collected in validation, for `compute_metrics`.
        """
        raise NotImplementedError

    @cached_property
    def train_set(self) -> Dataset:
        return self.make_dataset("train")

    @cached_property
    def val_set(self) -> Dataset:
        return self.make_dataset("val")

    def train_batches(self, epoch: int) -> list[list[int]]:
        """The epoch's batches of indices into `train_set`: a function of (seed, epoch), or resuming is not exact."""
        if hasattr(self.train_set, "set_epoch"):
            self.train_set.set_epoch(epoch)
        generator = torch.Generator().manual_seed(1_000_003 * self.cfg.seed + epoch)
        order = torch.randperm(len(self.train_set), generator=generator).tolist()
        return chunks(order, self.cfg.batch_size)

    def val_batches(self) -> tuple[Dataset, list[list[int]]]:
        """The validation set and its batches."""
        return self.val_set, chunks(list(range(len(self.val_set))), self.cfg.batch_size)

    @staticmethod
    def collate(samples: list[Any]) -> dict[str, Any] | None:
        """Turns samples into a batch, a dict with named keys.

        Without the samples that are None, and then with the "index" (B) of the others; None if nothing is left. Or
        "broken" lists messages about samples that the dataset has replaced.
        """
        return default_collate(samples)

    @staticmethod
    def skipped(dataset: Dataset, indices: list[int], batch: dict[str, Any] | None) -> list[str]:
        """A line for each sample that could not be read, of the `indices` that `collate` has made into `batch`."""
        if batch is None:
            return [dataset.fault(i) for i in indices]
        there = set(batch["index"].tolist()) if "index" in batch else set(indices)
        return [dataset.fault(i) for i in indices if i not in there] + batch.get("broken", [])

    def subset(self, samples: list) -> list:
        """The samples to evaluate: all, or with cfg.fast_dev_run as many as a batch has, evenly spaced."""
        every = -(-len(samples) // self.cfg.batch_size) if self.cfg.fast_dev_run else 1
        return samples[::every]

    def compute_metrics(self, samples: dict[str, Tensor]) -> dict[str, float]:
        """Metrics that are no means over batches, from the "samples" of a whole validation (of all processes)."""
        return {}

    def summarise(self, metrics: dict[str, float]) -> dict[str, float]:
        """The means of the metrics, and what follows from them, such as the perplexity."""
        return metrics

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, Any]:
        """All metrics on a split, for the commands val and test. Raises UserError if no sample can be read."""
        dataset = self.val_set if split == "val" else self.make_dataset(split)
        metrics, skipped = Metrics(), []
        indices = self.subset(list(range(len(dataset))))
        self.model.eval()
        for part in chunks(indices, self.cfg.batch_size):
            batch = self.collate([dataset[i] for i in part])
            skipped += self.skipped(dataset, part, batch)
            if batch is not None:
                metrics.update(self.step(self.model, to_device(batch, self.model.device)), keep_samples=True)
        if not metrics.means():
            raise UserError(f"none of the {len(indices)} samples can be read")
        facts = {"split": split, "samples": len(indices) - len(skipped), "skipped": len(skipped)}
        return facts | self.summarise(metrics.means()) | self.compute_metrics(metrics.samples())

    def show(self, recorder: Recorder, step: int, epoch: int) -> None:
        """Gives the recorder examples of what the model can do now, cfg.samples of them."""

    def show_batch(
        self, recorder: Recorder, step: int, epoch: int, name: str, batch: dict[str, Any], loss: float
    ) -> None:
        """Gives the recorder the "best batch" or the "worst batch" of the epoch (`name`), which had this loss."""

    def finish(self, path: Path, batches: int | None = None) -> None:
        """Completes the file of the best model once a training is over; looks at so many batches at most."""

    def __str__(self) -> str:
        """A line about data and model, for the start of a run."""
        return f"{type(self.model).__name__} of {self.model.parameter_count():,} parameters"

    def to(self, device: str | torch.device) -> None:
        """Moves the model, and whatever else the task computes with, to a device."""
        self.model.to(device)

    @property
    def train_size(self) -> int:
        """Samples to train with."""
        return len(self.train_set)

    @property
    def sample_size(self) -> int:
        """The side, or length, of the largest sample; 0: all are alike."""
        return getattr(self.cfg, self.size_option, 0)

    def trial_batch(self, size: int) -> dict[str, Any] | None:
        """A batch of one sample, to find out what a step needs: made up, of this size, or the first one as it is."""
        return self.collate([self.train_set[0]])

    def example(self) -> dict[str, Tensor]:
        """Arguments of the network's forward, a batch of one, for the command summary: from the first sample."""
        batch = self.collate([self.train_set[0]])
        return {name: batch[name] for name in inspect.signature(self.model.forward).parameters if name in batch}

    def model_metadata(self) -> dict[str, Any]:
        """What the model file should carry besides the network, as JSON values."""
        return {}
