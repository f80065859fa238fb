"""The folders of runs: naming them, finding the one to go on with, reading its state, keeping a second training out."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config import DefaultConfig
from training.recorder import LOG_NAME
from utils.errors import UserError
from utils.files import refuse_overwriting, remove_temporaries

STATE_VERSION = 5  # of last.pt


def run_folder(cfg: DefaultConfig) -> Path:
    """The folder of this run: the resumed one's, or a new one that holds no run yet."""
    if cfg.resume:
        return Path(cfg.resume)
    name = cfg.run or f"{cfg.task}_{time.strftime('%m%d_%H%M%S')}"
    folder = Path(cfg.save_path) / name
    if (folder / "last.pt").exists():
        raise UserError(f"{folder} holds a run: go on with it by --resume={folder}, or choose another name with --run=")
    refuse_overwriting((folder / name for name in ("best.safetensors", LOG_NAME)), cfg.inputs(), "run")
    return folder


def resumed_options(overrides: dict[str, Any]) -> dict[str, Any]:
    """The options of the run that --resume names, changed by the others given.

    Without a value: of the latest run that is not finished, or, if all are, of the latest.
    """
    name, save_path = overrides["resume"], overrides.get("save_path", DefaultConfig.save_path)
    name, save_path = os.path.expanduser(str(name)), Path(save_path).expanduser()
    if name.lower() == "true":
        found = sorted(save_path.glob("*/last.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
        if not found:
            raise UserError("--resume: there is no run to go on with; start one with python main.py train")
        name = str(next(filter(_unfinished, found), found[0]).parent)
    folder = Path(name).parent if name.endswith("last.pt") else Path(name)
    if not folder.exists():  # the bare name of a run
        folder = save_path / folder
    stored = read_state(folder / "last.pt")["config"]
    return {**stored, **overrides, "resume": str(folder)}


def _unfinished(path: Path) -> bool:
    try:
        state = read_state(path)
    except UserError:  # of another version, or damaged: said if it is named
        return False
    progress, cfg = state["progress"], state["config"]
    waited = progress["epoch"] - 1 - progress["best_epoch"]
    return progress["epoch"] < cfg["max_epoch"] and not 0 < cfg["patience"] <= waited


def read_state(path: Path) -> dict[str, Any]:
    """Reads a last.pt without running any code from it. Raises UserError if it is none, or of another version."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give --resume the folder of a run")
    import torch  # only now: what is above is told at once

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here, all meaning the same
        raise UserError(
            f"{path} is not a training state, or is damaged: {str(error).split(chr(10))[0][:100]}"
        ) from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != STATE_VERSION:
        raise UserError(f"{path} is a training state of version {version}, this program reads {STATE_VERSION}")
    return state


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
        raise UserError(f"cannot write in {folder}: {error.strerror}; choose another --save_path") from error
    with file:
        try:
            # lockf, not flock: processes that read data would inherit that one, and outlive a killed training
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder} is being trained by another process: wait for it, or choose another --run"
            ) from None
        remove_temporaries(folder)
        yield
