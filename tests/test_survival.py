"""What may happen to a training: kills in all tasks and while a file is written, a disk without room, a server or a
reading process that vanishes, a clock that jumps, states of other versions. test_resume.py has the poet's kills."""

import contextlib
import http.server
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

import trainer
from benchmarks.kill import killed, tiny
from config import PoetConfig
from options import parse
from tests.servers import OnlyAPage, free_port
from tests.training import Process, arguments, assert_same_run, log_of, options, run, steps_done, write_corpus
from training import recorder as recorder_module
from training.state import STATE_VERSION, read_state
from utils.files import atomic_save

FORK = multiprocessing.get_context("fork")  # nothing to import: a process that saves is there at once


@pytest.fixture
def folder(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    return tmp_path


def test_dogcat_killed_at_random_times(tmp_path):
    """The benchmark's own kills, a few of them; the other tasks' are in their files."""
    found = killed(tmp_path, tiny("dogcat", tmp_path), kills=4)
    assert found.kills == 4 and not found.lost and found.same


# ----------------------------------------------------------------------------------------------- while a file is made


def _saving(path: Path) -> None:
    """Saves {"n": n, "x": n n n n …} with n = 1, 2, 3 … as fast as it can."""
    torch.set_num_threads(1)
    n = 0
    while n := n + 1:
        atomic_save(path, lambda temporary, n=n: torch.save({"n": n, "x": torch.full((1 << 14,), n)}, temporary))


def test_killed_while_saving(tmp_path):
    """Whatever a kill interrupts, the file is that of one save, and never an older one than before."""
    draw = random.Random(0)
    path = tmp_path / "state.pt"
    for _ in range(12):
        path.unlink(missing_ok=True)
        process = FORK.Process(target=_saving, args=(path,))
        process.start()
        while not path.exists():
            time.sleep(0.001)
        last = torch.load(path, weights_only=True)["n"]
        time.sleep(draw.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        state = torch.load(path, weights_only=True)
        assert state["n"] >= last and (state["x"] == state["n"]).all()
        for rest in tmp_path.glob(".*.part"):
            rest.unlink()


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
    path = tmp_path / "state.pt"
    path.write_bytes(b"old")
    process = FORK.Process(target=_killed_within, args=(path, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and path.read_bytes() == b"old"
    assert len(list(tmp_path.glob(".*.part"))) == 1


def test_a_disk_that_is_full_after_any_number_of_bytes(folder):
    """The limit is set on a process that trains: its next save goes beyond it."""
    more = {"max_epoch": 3, "samples": 0}
    run(folder, **options(folder, run="whole", **more))
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
    run(folder, **options(folder, resume=folder / "run", **more))
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
    run(folder, **options(folder, resume=folder / "run", **{**more, "max_epoch": epochs}))
    run(folder, **options(folder, run="whole", **{**more, "max_epoch": epochs, "num_workers": 0}))
    assert_same_run(folder / "whole", folder / "run")


def test_a_visdom_server_that_vanishes_changes_nothing(folder, capfd):
    port, asked = free_port(), threading.Event()

    class Handler(OnlyAPage):
        def do_POST(self):
            asked.set()
            self.connection.close()  # in the middle of an answer, and then for good
            threading.Thread(target=server.shutdown).start()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    trainer.train(parse(PoetConfig, options(folder, run="watched", use_visdom=True, vis_port=port)))
    assert asked.wait(120)
    thread.join()
    server.server_close()
    trainer.train(parse(PoetConfig, options(folder, run="alone")))
    told = capfd.readouterr().err
    assert "warning" not in told and "Traceback" not in told
    assert_same_run(folder / "alone", folder / "watched")


def test_a_clock_that_jumps(folder, monkeypatch):
    """Back by hours and forth by years at each look: it stands in the log, and nowhere else."""
    trainer.train(parse(PoetConfig, options(folder, run="steady", save_every=60)))
    draw = random.Random(0)
    monkeypatch.setattr(recorder_module.time, "time", lambda: draw.choice((0.0, -3600.0, 1e12, 1e9)))
    assert time.time() in (0.0, -3600.0, 1e12, 1e9)  # for everybody: there is one module `time`
    trainer.train(parse(PoetConfig, options(folder, run="jumping", save_every=60)))
    monkeypatch.undo()
    assert_same_run(folder / "steady", folder / "jumping")
    records = recorder_module.read_log(folder / "jumping")
    assert {r["time"] for r in records if "time" in r} <= {0.0, -3600.0, 1e12, 1e9}
    assert all(r["data_time"] >= 0 and 0 < r["model_time"] < 60 for r in records if r["kind"] == "batch")


# ------------------------------------------------------------------------------------------------ other versions


@pytest.mark.parametrize("version", [STATE_VERSION - 1, STATE_VERSION + 1, None, "3.1"])
def test_a_state_of_another_version_is_refused_and_left_alone(folder, capfd, version):
    trainer.train(parse(PoetConfig, options(folder, run="run", max_epoch=0)))
    path = folder / "run" / "last.pt"
    state = torch.load(path, weights_only=True)
    state["version"] = version
    torch.save(state, path)
    before, log = path.read_bytes(), log_of(folder / "run")
    capfd.readouterr()
    import main

    assert main.main(arguments(resume=folder / "run", max_epoch=2)) == 2
    expected = f"error: {path} is a training state of version {version}, this program reads {STATE_VERSION}\n"
    assert capfd.readouterr().err == expected
    assert path.read_bytes() == before and log_of(folder / "run") == log
