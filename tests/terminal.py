"""`python main.py …` of a copy of the project, at a terminal, in a process that has torch imported already."""

import os
import runpy
import shlex
import signal
import sys
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.training import CONTEXT

ROOT = Path(__file__).resolve().parent.parent


def start_forked(command: str, folder: Path, terminal: int, environment: dict[str, str]) -> Callable[[], int]:
    """Starts the command in `folder`; what is returned waits for its end and gives its exit code."""
    opened = CONTEXT.Event()
    process = CONTEXT.Process(target=_main, args=(command, folder, os.ttyname(terminal), environment, opened))
    process.start()
    assert opened.wait(240)  # before the terminal is closed here

    def wait() -> int:
        process.join()
        return process.exitcode

    return wait


def _main(command: str, folder: Path, terminal: str, environment: dict[str, str], opened: Event) -> None:
    os.setsid()
    target = os.open(terminal, os.O_RDWR)  # the terminal of this process and its children
    for number in range(3):
        os.dup2(target, number)
    opened.set()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
    os.environ.update(environment)
    os.chdir(folder)
    for name, module in sys.modules.copy().items():  # the copy has its own; tqdm has read the environment
        if name.startswith("tqdm") or Path(getattr(module, "__file__", None) or "/").is_relative_to(ROOT):
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    sys.argv = shlex.split(command)[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runpy.run_path(sys.argv[0], run_name="__main__")
