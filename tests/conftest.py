"""The environment of the tests' processes, set before torch is imported: those that they start inherit it."""

import os
import sys
from pathlib import Path

import pytest

# One thread each, unless the environment says otherwise: about as many processes as cores run at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Where Python is told to keep no bytecode, each of some hundred processes would compile torch anew, for ten seconds.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "pycache")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

LONGEST = ("test_tutorial", "test_notebook", "test_shipped", "test_task_dogcat", "test_demo")


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_auto_num_workers() -> int:
    """How many processes share the tests: one more than cores, as many tests wait for a browser, a server, a signal.

    At most four, each with 3 GB for itself and what it starts.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(4, cores + 1, memory // 3_000_000_000))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, they would keep one process busy when the others have nothing left."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """fit(task options, **config) trains a tests.training.LineTask in tmp_path/run and returns it."""
    import torch

    import prepare
    from config import DefaultConfig
    from options import parse
    from tests.training import LineTask
    from trainer import train

    def fit(task: dict | None = None, run: str = "run", **given) -> LineTask:
        given = {"use_visdom": False, "use_gpu": False, "precision": "fp32", "warmup": 0, "max_epoch": 1, **given}
        given = {"debug_file": tmp_path / "debug", "save_path": tmp_path, "run": run, **given}
        made = []
        monkeypatch.setattr(
            prepare, "make_task", lambda cfg, arguments=None: made.append(LineTask(cfg, **(task or {}))) or made[0]
        )
        train(parse(DefaultConfig, given))
        return made[0]

    yield fit
    torch.autograd.set_detect_anomaly(False)


@pytest.fixture(scope="module")
def browser():
    """Chromium, see tests.test_board.chromium."""
    from tests.test_board import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`main.py demo` with its default options, which must end without a traceback."""
    from tests.test_demo_api import Demo

    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo
    demo.stop()
    assert "Traceback" not in "".join(demo.said)
