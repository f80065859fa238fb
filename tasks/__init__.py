"""What is learnt. A task joins data and model; `make_task` finds it by the name that --task gives."""

import importlib

from config import DefaultConfig
from tasks.base import Task

MODULES = {"poet": "tasks.poet.PoetTask"}  # imported when asked for: a task brings its libraries along


def make_task(cfg: DefaultConfig) -> Task:
    """The task of this config, with its data read and its model built."""
    module, name = MODULES[cfg.task].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(cfg)
