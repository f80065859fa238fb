"""The runs under a folder, side by side: where each stands, what it reached, and with which settings."""

import json
from pathlib import Path
from typing import Any

from training.recorder import LOG_NAME, read_log
from utils.errors import UserError
from utils.files import metadata_of

LOCATION = ("run", "env", "save_path", "resume", "load", "vis_port", "use_visdom", "debug_file", "save_every")


def read_runs(folder: str | Path) -> list[dict[str, Any]]:
    """Every run under `folder`, oldest first, with the metrics of its best epoch. Raises UserError if there is none."""
    logs = sorted(Path(folder).glob(f"*/{LOG_NAME}"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise UserError("no run in it: start one with python main.py train, or give another folder", save_path=folder)
    return [_summary(path.parent) for path in logs]


def _summary(folder: Path) -> dict[str, Any]:
    records = read_log(folder)
    config = next((r["config"] for r in reversed(records) if r["kind"] == "config"), {})
    final = next((r for r in reversed(records) if r["kind"] == "final"), None)
    validations = [r for r in records if r["kind"] == "epoch" and r["split"] == "val"]
    seconds = sum(r.get("data_time", 0) + r.get("model_time", 0) for r in records if r["kind"] == "batch")
    if final:
        best = {k: v for k, v in final["figures"].items() if k != "best_epoch"}
    else:
        kept = json.loads(metadata_of(folder / "best.safetensors").get("metadata", "{}"))
        best = next((r for r in validations if r["epoch"] == kept.get("epoch", 0) - 1), {})
        best = {k: v for k, v in best.items() if k not in ("kind", "split", "step", "epoch", "time", "lr_factor")}
    return {
        "run": folder.name,
        "task": config.get("task", ""),
        "state": "finished" if final else "unfinished",
        "epochs": len({r["epoch"] for r in validations}),
        "seconds": round(seconds, 1),
        "best": best,
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
