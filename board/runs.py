"""The runs under a folder, side by side: where each stands, what it reached, and with which settings."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.recorder import LOG_NAME, read_log
from training.state import BEST, is_training
from utils.errors import UserError, reason_of
from utils.files import metadata_of

LOCATION = ("run", "env", "save_path", "resume", "load", "vis_port", "use_visdom", "debug_file", "save_every")


def read_runs(folder: str | Path) -> list[dict[str, Any]]:
    """Every run under `folder`, oldest first, see `read_run`. Raises UserError if there is none."""
    found = list_runs(Path(folder))
    if not found:
        raise UserError("no run in it: start one with python main.py train, or give another folder", save_path=folder)
    return found[::-1]


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs in a folder, see `read_run`, the one that was written to last first."""
    logs = sorted(folder.glob(f"*/{LOG_NAME}"), key=lambda log: log.stat().st_mtime, reverse=True)
    return [read_run(log.parent) for log in logs]


def read_run(folder: Path) -> dict[str, Any]:
    """Where a run stands: running, finished, interrupted or broken (then "error" says why), and its best metrics.

    "epoch" counts like the console: 3 while the third one is trained; "epochs" are those that were validated.
    """
    run = _summary(folder, file_stamp(folder / LOG_NAME), file_stamp(folder / BEST))
    return run if run["state"] else {**run, "state": "running" if is_training(folder) else "interrupted"}


def file_stamp(path: Path) -> tuple[int, int]:
    """(time of the last change, size) of a file; zeros if there is none."""
    try:
        return path.stat().st_mtime_ns, path.stat().st_size
    except OSError:
        return 0, 0


@lru_cache(maxsize=512)
def _summary(folder: Path, log: tuple[int, int], model: tuple[int, int]) -> dict[str, Any]:
    """What log and model of these stamps say; the state is empty if the log has no end."""
    run = {"run": folder.name, "task": "", "state": "", "epoch": 0, "epochs": 0, "seconds": 0.0, "best": {}}
    run |= {"monitor": "", "command": "", "config": {}}
    try:
        records = read_log(folder)
        if log[1] and not any(r.get("kind") == "config" for r in records):
            raise ValueError("it has no options")
        return run | (_facts(folder, records) if records else {})
    except (UserError, LookupError, TypeError, ValueError, AttributeError) as error:
        return run | {"state": "broken", "error": f"{folder / LOG_NAME} cannot be read ({reason_of(error)})"}


def _facts(folder: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    start = next(r for r in reversed(records) if r["kind"] == "config")
    config = start["config"]
    final = next((r for r in reversed(records) if r["kind"] == "final"), None)
    validations = [r for r in records if r["kind"] == "epoch" and r["split"] == "val"]
    batches = [r for r in records if r["kind"] == "batch"]
    if final:
        best = {k: v for k, v in final["figures"].items() if k != "best_epoch"}
    else:
        kept = json.loads(metadata_of(folder / BEST).get("metadata", "{}"))
        best = next((r for r in validations if r["epoch"] == kept.get("epoch", 0) - 1), {})
        best = {k: v for k, v in best.items() if k not in ("kind", "split", "step", "epoch", "time", "lr_factor")}
    return {
        "task": config.get("task", ""),
        "state": "finished" if final else "",
        "epoch": max((r["epoch"] + 1 for r in batches + validations), default=0),
        "epochs": len({r["epoch"] for r in validations}),
        "seconds": round(sum(r.get("data_time", 0) + r.get("model_time", 0) for r in batches), 1),
        "best": best,
        "monitor": start.get("monitor") or next(iter(best), ""),  # logs of older versions do not have it
        "command": start.get("command", ""),
        "config": config,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """The runs as lines of text, task by task: metrics, and those settings in which the runs of a task differ."""
    parts = []
    for task in dict.fromkeys(run["task"] for run in runs):
        same = [run for run in runs if run["task"] == task]
        keys = dict.fromkeys(k for run in same for k in run["config"] if k not in LOCATION)
        differing = [k for k in keys if len({str(run["config"].get(k)) for run in same}) > 1]
        metrics = list(dict.fromkeys(k for run in same for k in run["best"]))
        rows = [["run", "state", "epochs", "time", *metrics, *differing]]
        for run in same:
            best = [f"{float(run['best'][k]):.4g}" if k in run["best"] else "" for k in metrics]
            settings = [str(run["config"].get(k, "")) for k in differing]
            rows.append([run["run"], run["state"], str(run["epochs"]), f"{run['seconds']:.0f} s", *best, *settings])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        parts.append("\n".join([f"{task}:", *lines]))
    return "\n\n".join(parts)
