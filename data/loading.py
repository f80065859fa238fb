"""Batches of indices, and batches from processes that read data."""

import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


def chunks(indices: list[int], size: int) -> list[list[int]]:
    """The indices in batches of this size; the last one may be smaller."""
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def batches_of(loader: DataLoader) -> Iterator[Any]:
    """iter(loader), which alone tells of a worker that was killed: by a RuntimeError or ConnectionResetError.

    PyTorch's handler of SIGCHLD would raise wherever this process is by then, be it in the middle of a save.
    """
    if not loader.num_workers or not hasattr(signal, "SIGCHLD"):  # no such handler; without workers in any thread
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)  # sets it, once in a process
    signal.signal(signal.SIGCHLD, handler)
    return batches
