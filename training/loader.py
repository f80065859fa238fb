"""The batches of an epoch for this process: its share of each, weighted, without the samples that cannot be read."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from data.loading import batches_of
from training.devices import gather
from utils.errors import UserError


class Loader:
    """Yields batches on the device, with weights; several processes divide each batch.

    `task.collate` makes them; `report` is called, once, with a line of `task.skipped` for each sample that is in none.
    """

    def __init__(self, fabric: Fabric, task: Any, workers: int, report: Callable[[str], None]):
        self.fabric, self.task, self.workers, self.report = fabric, task, workers, report
        self._skipped: set[str] = set()  # what this process could not read
        self._reported: set[str] = set()  # of all processes

    def batches(
        self, dataset: Dataset, batches: list[list[int]], skip: int = 0, accumulate: int = 1
    ) -> Iterator[tuple[dict[str, Any], float]]:
        """(batch, weight) for this process's share of the batches of indices after the first `skip`.

        The weights make the objectives of a step add up to the mean over all its samples, however these were divided
        among processes and the `accumulate` batches of the step. Where no sample can be read, another one takes their
        place with weight 0: the other processes wait for this one.
        """
        rank, world = self.fabric.global_rank, self.fabric.world_size
        shares, weights = [], []
        for i in range(skip, len(batches)):
            start = i - i % accumulate
            samples = sum(len(b) for b in batches[start : start + accumulate])  # of the whole step
            share = batches[i][rank::world]
            shares.append(share or batches[i][:1])  # a process without a sample computes along with weight 0
            weights.append(len(share) * world / samples)
        loader = DataLoader(
            dataset,
            batch_sampler=shares,
            collate_fn=self.task.collate,
            num_workers=self.workers,
            pin_memory=self.fabric.device.type == "cuda",
            generator=torch.Generator(),  # its own: the global one must not depend on how often a run was resumed
        )
        for share, batch, weight in zip(shares, batches_of(loader), weights, strict=True):
            self._skipped.update(self.task.skipped(dataset, share, batch))
            if world == 1:  # else at the end of the epoch, those of all processes
                self.report_skipped()
            if batch is None:
                batch, weight = self._placeholder_batch(dataset), 0.0
            yield self.fabric.to_device(batch), weight

    def report_skipped(self) -> None:
        """Reports what any of the processes could not read since the last time."""
        for line in sorted(set().union(*gather(self.fabric, self._skipped)) - self._reported):
            self._reported.add(line)
            self.report(line)

    def _placeholder_batch(self, dataset: Dataset) -> dict[str, Any]:
        """A batch of the first sample that can be read."""
        for i in range(len(dataset)):
            if (batch := self.task.collate([dataset[i]])) is not None:
                return batch
        raise UserError(f"none of the {len(dataset)} samples can be read; the first: {dataset.fault(0)}")


def progress_bar(fabric: Fabric, name: str, total: int, done: int = 0) -> tqdm:
    """A bar in the first process."""
    every = 0.1 if sys.stderr.isatty() else 5  # seconds; a log file needs no picture of each moment
    quiet = not fabric.is_global_zero
    return tqdm(desc=name, total=total, initial=done, unit="batch", leave=False, mininterval=every, disable=quiet)
