"""What is learnt. A task joins data and model; `make_task` finds it by the name that --task gives."""

import importlib
from typing import Any

from config import DefaultConfig
from tasks.base import Task

# Imported when asked for: a task brings its libraries along.
MODULES = {"poet": "tasks.poet.PoetTask", "style": "tasks.style.StyleTask", "dogcat": "tasks.dogcat.DogCatTask"}


def make_task(cfg: DefaultConfig, arguments: dict[str, Any] | None = None) -> Task:
    """The task of this config, with its data read and its model built: anew, from cfg.load, or from `arguments`."""
    module, name = MODULES[cfg.task].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(cfg, arguments)
