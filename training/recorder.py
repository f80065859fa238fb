"""The log of a run: <folder>/log.jsonl, one JSON object a line, always written; watchers (visdom) get each record.

A watcher that fails is dropped, a log that cannot be written is reported once; training goes on. NaN and infinities
stand in the log as the strings "nan", "inf" and "-inf", which `float()` reads.
"""

import errno
import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utils.errors import UserError, did_you_mean
from utils.files import atomic_write

LOG_NAME = "log.jsonl"
BINS = 64  # of a histogram


class Sink(Protocol):
    """Whoever watches a run. Neither method may take long: they run in the training thread."""

    def handle(self, record: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Writes <folder>/log.jsonl and hands every record to the sinks; without a folder it records nothing.

    `resume_size`: the run is resumed where its log had this `size`; what was written later is cut off and will come
    again. Raises UserError if the log cannot be made. Every record has a "kind", all but the config a "step" and an
    "epoch".
    """

    def __init__(self, folder: str | Path | None, sinks: Sequence[Sink] = (), resume_size: int = 0):
        self.folder = Path(folder) if folder is not None else None
        self._sinks = list(sinks)
        self._config: dict[str, Any] = {}
        self._file: io.FileIO | None = None
        self._warned: set[str] = set()
        if self.folder is None:
            return
        path = self.folder / LOG_NAME
        atomic_write(path, path.read_bytes()[:resume_size] if resume_size and path.exists() else b"")
        self._open()

    @property
    def size(self) -> int:
        """Bytes of the log so far; 0 where nothing is recorded."""
        return os.fstat(self._file.fileno()).st_size if self.folder is not None else 0

    def config(self, config: Mapping[str, Any], **facts: str) -> None:
        """The hyper-parameters, which the final record repeats, and facts about the task (`monitor`, `command`)."""
        self._config = dict(config)
        self._record("config", time=time.time(), config=self._config, **facts)

    def batch(self, step: int, epoch: int, **metrics: float) -> None:
        """The metrics of one batch: loss, lr, data_time and model_time in seconds, grad_norm, whatever the task has."""
        self._record("batch", step=step, epoch=epoch, time=time.time(), **metrics)

    def epoch(self, step: int, epoch: int, split: str, **metrics: float) -> None:
        """The metrics of an epoch on a split: train, val or test."""
        self._record("epoch", step=step, epoch=epoch, time=time.time(), split=split, **metrics)

    def text(self, step: int, epoch: int, name: str, text: str) -> None:
        """A text the model wrote."""
        self._record("text", step=step, epoch=epoch, name=name, text=text)

    def image(self, step: int, epoch: int, name: str, path: str | Path, caption: str = "") -> None:
        """A picture that the caller has saved at `path`, which the log has relative to the run's folder."""
        path = os.path.relpath(path, self.folder)
        self._record("image", step=step, epoch=epoch, name=name, path=path, caption=caption)

    def histogram(self, step: int, epoch: int, name: str, values: Any) -> None:
        """The distribution of an array of any shape in 64 equal bins (65 edges), and how many values are not finite."""
        counts, edges, nonfinite = histogram(values)
        self._record("histogram", step=step, epoch=epoch, name=name, counts=counts, edges=edges, nonfinite=nonfinite)

    def matrix(self, step: int, epoch: int, name: str, rows: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
        """A square table with the same labels for rows and columns, such as a confusion matrix (rows: the truth)."""
        self._record("matrix", step=step, epoch=epoch, name=name, rows=rows, labels=labels)

    def curve(self, step: int, epoch: int, name: str, lines: Mapping[str, Any], axes: tuple[str, str]) -> None:
        """Lines over something else than the step: legend -> (x, y), 0 to 1, in four digits; `axes` names the two."""
        rounded = {legend: [[float(f"{v:.4g}") for v in values] for values in line] for legend, line in lines.items()}
        self._record("curve", step=step, epoch=epoch, name=name, lines=rounded, axes=axes)

    def gradients(self, step: int, epoch: int, layers: Mapping[str, tuple[float, float, float]]) -> None:
        """Smallest, mean and largest entry of the gradient of each layer."""
        self._record("gradients", step=step, epoch=epoch, layers=layers)

    def final(self, step: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """What came out at the end, with the hyper-parameters that led to it."""
        self._record("final", step=step, epoch=epoch, time=time.time(), figures=metrics, config=self._config)

    def close(self) -> None:
        """Closes the log and the sinks. Nothing is recorded afterwards."""
        if self.folder is not None:
            self._file.close()
        self.folder = None
        for sink in self._sinks:
            self._guarded(sink, sink.close)
        self._sinks = []

    def _record(self, kind: str, **content: Any) -> None:
        if self.folder is None:
            return
        record = {"kind": kind, **_plain(content)}
        try:
            self._write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n")
        except OSError as error:
            where = self.folder / LOG_NAME
            self._warn(f"cannot write {where}: {error.strerror}; training goes on without these records")
        for sink in list(self._sinks):
            self._guarded(sink, lambda sink=sink: sink.handle(record))

    def _open(self) -> None:
        # Unbuffered: a record is one write, so a killed process tears one line at most.
        old, self._file = self._file, open(self.folder / LOG_NAME, "ab", buffering=0)
        if old is not None:
            old.close()

    def _write(self, line: bytes) -> None:
        if os.fstat(self._file.fileno()).st_nlink == 0:  # a removed file swallows what is written
            self._warn(f"{self.folder / LOG_NAME} was removed while the run writes to it; a new one is begun")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open()
        size = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._file.truncate(size)  # only whole lines, also if the disk has room again later
            raise

    def _guarded(self, sink: Sink, call: Any) -> None:
        """A sink must never end a training run."""
        try:
            call()
        except Exception as error:
            self._warn(f"{type(sink).__name__} failed and is not used any more: {type(error).__name__}: {error}")
            self._sinks = [other for other in self._sinks if other is not sink]

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print(f"warning: {message}", file=sys.stderr, flush=True)


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first, without a torn line. Raises UserError if the folder has no log."""
    path = Path(folder) / LOG_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = did_you_mean(path.parent.name, [log.parent.name for log in path.parent.parent.glob(f"*/{LOG_NAME}")])
        raise UserError(f"no log of a run at {path} ({error.strerror}); name the folder of a run{hint}") from error
    return parse_lines(content)


def parse_lines(content: bytes) -> list[dict[str, Any]]:
    """The records in a piece of a log; lines that are not a JSON object are left out."""
    records = []
    for line in content.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:  # also UnicodeDecodeError
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def histogram(values: Any) -> tuple[list[int], list[float], int]:
    """Counts in 64 equal bins over the range of the finite values, the 65 edges, and how many are not finite."""
    array = np.asarray(values, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    # equal values need a bin of some width too, wide enough for its edges to differ in float64
    high = max(high, low + 1e-6 * max(abs(low), abs(high)), low + 1e-30)
    counts, edges = np.histogram(finite, bins=BINS, range=(low, high))
    return counts.tolist(), edges.tolist(), array.size - finite.size


def _plain(value: Any) -> Any:
    """Strict JSON: NumPy and torch scalars become numbers, NaN and infinity strings, anything unknown its text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain(value.item()) if hasattr(value, "item") else str(value)
