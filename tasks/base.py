"""What the trainer asks of a task. To add a task, fill this in and name it in tasks/__init__.py and config.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from config import DefaultConfig
from models.basemodule import BaseModule
from training.recorder import Recorder


class Task:
    """Data, model and loss of one thing to learn.

    Attributes:
        model: the network that is trained.
        monitors: validation figures that may decide which checkpoint is best, and what is good: "min" or "max"; the
            first one does unless cfg.monitor names another.
        size_option: what says how large a sample is.
        paths: options that name files of this machine; they stay out of the model file.
        train_set: a Dataset whose samples are functions of (seed, epoch, index); it may have `set_epoch(epoch)`.
        collate: turns a list of samples into a batch, a dict with named keys. A sample that cannot be read may be None:
            the batch then goes without it (and is None itself if nothing is left), has "index" (B) of those it holds,
            and the dataset's `fault(index)` says what is wrong. Or the dataset has put another sample in its place:
            "broken" says of what.
    """

    model: BaseModule
    monitors: dict[str, str] = {"loss": "min"}
    size_option: str = ""
    in_parts: bool = False  # whether a batch may need a part of the network only
    paths: tuple[str, ...] = ("data_root", "load")
    train_set: Dataset
    collate: Callable[[list], dict[str, Any]]

    def __init__(self, cfg: DefaultConfig, arguments: dict[str, Any] | None = None):
        """`arguments`: those of a model to build whose weights come later (a resumed run); None: as cfg says."""
        self.cfg = cfg

    def to(self, device: str | torch.device) -> None:
        """Moves the model, and whatever else the task computes with, to a device."""
        self.model.to(device)

    def __str__(self) -> str:
        """A line about data and model, for the start of a run."""
        return f"{type(self.model).__name__} of {self.model.parameter_count():,} parameters"

    def train_batches(self, epoch: int) -> list[list[int]]:
        """The epoch's batches of indices into `train_set`: a function of (seed, epoch), or resuming is not exact."""
        raise NotImplementedError

    def val_batches(self) -> tuple[Dataset, list[list[int]]]:
        """The validation set and its batches."""
        raise NotImplementedError

    def step(self, model: BaseModule, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One forward pass: {"objective": scalar to minimise, "count": weight of the figures, and figures: scalars}.

        The objective must be a mean over the samples of the batch, so that the trainer can make the mean over a step's
        samples from parts of them. The figures are means over `count`, whatever the task counts. "samples", a dict of
        tensors (B, …) on what came out for each sample, is collected in validation, for `compute_metrics`.
        """
        raise NotImplementedError

    @staticmethod
    def left_out(dataset: Dataset, indices: list[int], batch: dict[str, Any] | None) -> list[str]:
        """A line for each sample that could not be read, of the `indices` that `collate` has made into `batch`."""
        if batch is None:
            return [dataset.fault(i) for i in indices]
        there = set(batch["index"].tolist()) if "index" in batch else set(indices)
        return [dataset.fault(i) for i in indices if i not in there] + batch.get("broken", [])

    def compute_metrics(self, samples: dict[str, Tensor]) -> dict[str, float]:
        """Figures that are no means over batches, from the "samples" of a whole validation (of all processes)."""
        return {}

    def summarise(self, figures: dict[str, float]) -> dict[str, float]:
        """Figures that follow from the means of the others, such as the perplexity."""
        return figures

    def show(self, recorder: Recorder, step: int, epoch: int) -> None:
        """Gives the recorder examples of what the model can do now, cfg.samples of them."""

    def show_batch(
        self, recorder: Recorder, step: int, epoch: int, name: str, batch: dict[str, Any], loss: float
    ) -> None:
        """Gives the recorder what is in a training batch that had this loss: the "best batch" of the epoch, or the
        "worst batch", which `name` says."""

    def some(self, samples: list) -> list:
        """The samples to judge: all, or of --fast_dev_run as many as a batch has, from everywhere among them."""
        every = -(-len(samples) // self.cfg.batch_size) if self.cfg.fast_dev_run else 1
        return samples[::every]

    def finish(self, path: Path, batches: int | None = None) -> None:
        """What is left to do, once a training is over, to the file of its best model; with so many batches at most."""

    def evaluate(self, split: str) -> dict[str, Any]:
        """All figures of the model on a split; for the commands val and test."""
        raise NotImplementedError

    @property
    def train_size(self) -> int:
        """Samples to train with."""
        return len(self.train_set)

    @property
    def sample_size(self) -> int:
        """The side, or length, of the largest sample."""
        return getattr(self.cfg, self.size_option, 0)

    def trial_batch(self, size: int) -> dict[str, Any] | None:
        """A training batch of one made-up sample of this size, to find out what a step needs; None: it is not known."""

    def example(self) -> dict[str, Tensor]:
        """Arguments of the network's forward, a batch of one; for the command summary."""
        raise NotImplementedError

    def model_metadata(self) -> dict[str, Any]:
        """What the model file should carry besides the network, as JSON values."""
        return {}
