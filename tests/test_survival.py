"""What may happen to a training: a kill while a file is written, a full disk, a reader that vanishes.

Kills at any time are in test_resume.py and in the tests of the tasks.
"""

import contextlib
import multiprocessing
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from tests.training import Process, arguments, assert_same_run, options, run_here, steps_done, write_corpus
from training.state import read_state
from utils.files import atomic_save, remove_temporaries

FORK = multiprocessing.get_context("fork")  # nothing to import: a process that saves is there at once


@pytest.fixture
def folder(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    return tmp_path


# ----------------------------------------------------------------------------------------------- while a file is made


def _killed_within(path: Path, moment: str) -> None:
    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            file.write(b"new" if moment == "written" else b"ne")
        if moment != "replaced":
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    atomic_save(path, write)


@pytest.mark.parametrize("moment", ["half", "written", "replaced"])
def test_killed_within_a_save(tmp_path, moment):
    path = tmp_path / "run" / "state.pt"
    path.parent.mkdir()
    path.write_bytes(b"old")
    process = FORK.Process(target=_killed_within, args=(path, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and path.read_bytes() == b"old"
    assert len(list(path.parent.glob(".*.part"))) == 1
    (tmp_path / "mine.part").touch()
    (tmp_path / ".lock").touch()
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".lock", "mine.part", "run", "state.pt"]


def test_a_disk_that_is_full_after_any_number_of_bytes(folder):
    """The limit is set on a process that trains: its next save goes beyond it."""
    more = {"max_epoch": 3, "samples": 0}
    run_here(**options(folder, run="whole", **more))
    size = (folder / "whole" / "last.pt").stat().st_size
    draw = random.Random(0)
    for number, limit in enumerate((16_384, draw.randrange(16_384, size), size - 1)):
        again = {"resume": folder / "run"} if number else {"run": "run"}
        process = Process(arguments(**options(folder, **again, **more)), folder / f"full{number}")
        before = steps_done(folder / "run")
        process.wait_for(lambda before=before: steps_done(folder / "run") > before + 2)
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        assert process.wait() == 2, process.out.read_text()
        lines = [line for line in process.out.read_text().splitlines() if line.startswith(("error", "Traceback"))]
        assert len(lines) == 1 and lines[0].startswith(f"error: cannot write {folder / 'run'}/"), lines
        assert lines[0].endswith("the file before is unchanged")
        assert read_state(folder / "run" / "last.pt")["progress"]["step"] >= before
        assert not list((folder / "run").glob(".*.part"))
    run_here(**options(folder, resume=folder / "run", **more))
    assert_same_run(folder / "whole", folder / "run")


# -------------------------------------------------------------------------------------- others that come and go


def test_a_reading_process_is_killed(folder):
    """One line and an exit code; what was saved goes on as if nothing had happened."""
    more = {"num_workers": 2, "max_epoch": 30, "samples": 0}
    process = Process(arguments(**options(folder, run="run", **more)), folder / "out")
    process.wait_for(lambda: steps_done(folder / "run") > 3)
    own = process.process.pid

    def kill_all() -> None:  # again and again: those that were done with their epoch are not missed
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # a child, or the process, has just ended
            for child in Path(f"/proc/{own}/task/{own}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)

    process.wait_for(kill_all)
    assert process.wait() == 2, process.out.read_text()
    told = process.out.read_text()
    assert "Traceback" not in told, told
    assert [line for line in told.splitlines() if line.startswith("error")] == [
        "error: a process that reads data was killed; is there too little memory? try a smaller --num_workers"
        " (a training goes on from its last save by --resume)"
    ]
    epochs = read_state(folder / "run" / "last.pt")["progress"]["epoch"] + 1
    run_here(**options(folder, resume=folder / "run", **{**more, "max_epoch": epochs}))
    run_here(**options(folder, run="whole", **{**more, "max_epoch": epochs, "num_workers": 0}))
    assert_same_run(folder / "whole", folder / "run")
