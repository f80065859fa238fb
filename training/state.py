"""The state of a run: its folder and lock, finding the one to go on with, what is saved and restored."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.recorder import LOG_NAME
from utils.errors import UserError, reason_of
from utils.files import atomic_save, refuse_overwriting, remove_temporaries

if TYPE_CHECKING:  # torch is imported when it is needed: mistakes are reported at once
    from torch import nn
    from torch.optim import Optimizer

    from training.parameters import MovingAverage

STATE_VERSION = 5  # of last.pt
STATE, BEST = "last.pt", "best.safetensors"  # in a run's folder


@dataclass
class Progress:
    """Where a run stands. All of it is saved; a resumed run starts from it."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    batches: int = 0  # in this epoch
    step: int = 0  # optimizer steps so far
    best: dict[str, float] = field(default_factory=dict)  # validation metrics of the best epoch
    best_epoch: int = -1
    lr_factor: float = 1.0  # what the plateau schedule has come to
    seconds: float = 0.0  # trained so far
    meters: dict[str, dict[str, float]] = field(default_factory=dict)  # running metrics of this epoch
    extremes: dict[str, list[float]] = field(default_factory=dict)  # loss and number of its best and worst batch

    def epochs_without_improvement(self) -> int:
        return self.epoch - 1 - self.best_epoch


def run_folder(save_path: str, name: str, inputs: Iterable[str]) -> Path:
    """The folder of a new run. Raises UserError if it holds one, or if a file of the run would overwrite an input."""
    folder = Path(save_path) / name
    if (folder / STATE).exists():
        raise UserError(f"{folder} holds a run: go on with it by resume={folder}, or choose another name", run=name)
    refuse_overwriting((folder / name for name in (BEST, LOG_NAME)), inputs, "run")
    return folder


def resumed_options(overrides: Mapping[str, Any], save_path: str) -> dict[str, Any]:
    """The options of the run that `overrides["resume"]` names, changed by the others; True: the latest unfinished."""
    name, save_path = os.path.expanduser(str(overrides["resume"])), Path(save_path).expanduser()
    if name.lower() == "true":
        found = sorted(save_path.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime, reverse=True)
        if not found:
            raise UserError("there is no run to go on with; start one with python main.py train", resume=None)
        name = str(next(filter(_unfinished, found), found[0]).parent)
    folder = Path(name).parent if name.endswith(STATE) else Path(name)
    if not folder.exists():  # the bare name of a run
        folder = save_path / folder
    stored = read_state(folder / STATE)["config"]
    return {**stored, **overrides, "resume": str(folder)}


def _unfinished(path: Path) -> bool:
    try:
        state = read_state(path)
    except UserError:  # of another version, or damaged: reported if it is named
        return False
    progress, cfg = Progress(**state["progress"]), state["config"]
    return progress.epoch < cfg["max_epoch"] and not 0 < cfg["patience"] <= progress.epochs_without_improvement()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Makes the run's folder and keeps a second training out of it while this one is alive."""
    try:
        import fcntl
    except ImportError:
        raise UserError("training needs the file locks of Linux or macOS: on Windows, use WSL") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a")
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; choose another save_path") from error
    with file:
        try:
            # lockf, not flock: processes that read data would inherit that one, and outlive a killed training
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder} is being trained by another process: wait, or choose another name") from None
        remove_temporaries(folder)
        yield


def is_training(folder: Path) -> bool:
    """Whether a training has the lock of this run's folder."""
    try:
        import fcntl

        with open(folder / ".lock") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, FileNotFoundError):  # no training, or on Windows
        return False
    except OSError:
        return True
    return False


def read_state(path: Path) -> dict[str, Any]:
    """Reads a last.pt without running any code from it. Raises UserError if it is none, or of another version."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a run", resume=None)
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here, all meaning the same
        raise UserError(f"{path} is not a training state, or is damaged: {reason_of(error)[:100]}") from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != STATE_VERSION:
        raise UserError(f"{path} is a training state of version {version}, this program reads {STATE_VERSION}")
    return state


@dataclass
class RunState:
    """What of a run is saved in last.pt and restored from it; `precision` is Fabric's plugin (fp16's scale)."""

    model: "nn.Module"
    optimizer: "Optimizer"
    average: "MovingAverage | None"
    precision: Any
    progress: Progress

    def save(self, path: Path, config: dict[str, Any], log_size: int) -> None:
        """Writes plain numbers, strings and tensors, so that reading them runs no code."""
        import torch

        from utils.seed import rng_state

        state = {
            "version": STATE_VERSION,
            "threads": torch.get_num_threads(),
            "config": config,
            "progress": dataclasses.asdict(self.progress),
            "arguments": self.model.arguments,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "scaler": self.precision.state_dict(),
            "rng": rng_state(),
            "log_size": log_size,
        }
        atomic_save(path, lambda temporary: torch.save(state, temporary))

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Takes over what `save` wrote, but for the progress. Raises UserError if it is of another network."""
        from utils.seed import set_rng_state

        old, new = state["arguments"], self.model.arguments
        other = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if other or state["model"].keys() != self.model.state_dict().keys():
            advice = f"start a new run from its weights by load={folder / BEST}"
            raise UserError(f"{folder} was trained with another {' and '.join(other) or 'network'}: {advice}")
        self.model.load_state_dict(state["model"])
        groups = state["optimizer"]["param_groups"]
        if [len(group["params"]) for group in groups] != [len(g["params"]) for g in self.optimizer.param_groups]:
            raise UserError("a run goes on with the patterns it began with; their factors may change", lr_scale=None)
        # The settings are those of now, the numbers of the parameters those of the file.
        groups = [{**now, "params": g["params"]} for now, g in zip(self.optimizer.param_groups, groups, strict=True)]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self.average:
            self.average.load_state_dict(state["average"] or state["model"])
        if state["scaler"]:  # fp16 then; other precisions have none
            self.precision.load_state_dict(state["scaler"])
        set_rng_state(state["rng"])


def check_changes(old: dict[str, Any], new: dict[str, Any], within_epoch: bool) -> list[str]:
    """What differs between saved options and those of now: ["lr 0.002 -> 0.001"]. Raises UserError if it must not."""
    changes = {k: f"{k} {old.get(k)} -> {v}" for k, v in new.items() if k != "resume" and old.get(k) != v}
    if "optimizer" in changes:
        begun = old["optimizer"]
        raise UserError(f"a run goes on with {begun}, which it began with", optimizer=new["optimizer"])
    for name in ("batch_size", "accumulate", "seed") if within_epoch else ():
        if name in changes:
            raise UserError("can be changed between two epochs only: leave it out to the epoch's end", **{name: None})
    return list(changes.values())
