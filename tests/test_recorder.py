"""The log of a run: what is written is what is read, under kills, full disks and failing watchers."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.servers import ROOT
from training.recorder import LOG_NAME, Recorder, histogram, read_log


def strict(folder: Path) -> list[dict]:
    """The log by a reader that takes no NaN and no broken line."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    text = (folder / LOG_NAME).read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


class Watcher:
    """A sink that remembers, or fails."""

    def __init__(self, fails: bool = False):
        self.seen: list[dict] = []
        self.fails, self.closed = fails, False

    def handle(self, record: dict) -> None:
        self.seen.append(record)
        if self.fails:
            raise RuntimeError("no screen")

    def close(self) -> None:
        self.closed = True


def test_every_kind_is_written_and_handed_over(tmp_path):
    watcher = Watcher()
    recorder = Recorder(tmp_path, [watcher])
    recorder.config({"lr": 0.1, "path": Path("a/b"), "sizes": (1, 2)}, monitor="loss")
    recorder.batch(1, 0, loss=2.5, lr=0.1)
    recorder.epoch(1, 0, "val", loss=3.0)
    recorder.text(1, 0, "poems", "春眠不觉晓，\n处处闻啼鸟。")
    recorder.image(1, 0, "styled", tmp_path / "images" / "1.png", "ink")
    recorder.histogram(1, 0, "w", np.arange(10))
    recorder.gradients(1, 0, {"lstm": (-1.0, 0.5, 2.0)})
    recorder.curve(1, 0, "roc", {"dog": (np.array([0, 1 / 3, 1]), [0.0, 0.99996, 1.0])}, ("false", "true"))
    recorder.final(1, 0, {"loss": 3.0})
    recorder.close()

    records = strict(tmp_path)
    assert records == watcher.seen == read_log(tmp_path)
    assert watcher.closed
    config, batch, epoch, text, image, hist, gradients, curve, final = records
    assert config["config"] == {"lr": 0.1, "path": "a/b", "sizes": [1, 2]}
    assert abs(batch.pop("time") - time.time()) < 60
    assert batch == {"kind": "batch", "step": 1, "epoch": 0, "loss": 2.5, "lr": 0.1}
    assert (epoch["kind"], epoch["split"], epoch["loss"]) == ("epoch", "val", 3.0)
    assert text == {"kind": "text", "step": 1, "epoch": 0, "name": "poems", "text": "春眠不觉晓，\n处处闻啼鸟。"}
    assert config["monitor"] == "loss"
    assert (image["path"], image["caption"]) == (os.path.join("images", "1.png"), "ink")
    assert sum(hist["counts"]) == 10 and len(hist["counts"]) == 64 and len(hist["edges"]) == 65
    assert gradients["layers"] == {"lstm": [-1.0, 0.5, 2.0]}
    assert (curve["name"], curve["axes"]) == ("roc", ["false", "true"])
    assert curve["lines"] == {"dog": [[0, 0.3333, 1], [0, 1, 1]]}
    assert final["figures"] == {"loss": 3.0} and final["config"] == config["config"]


def test_nothing_is_recorded_after_close_or_without_a_folder(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.batch(1, 0, loss=1.0)
    recorder.close()
    recorder.batch(2, 0, loss=1.0)
    recorder.close()
    assert [record["step"] for record in strict(tmp_path)] == [1]

    nobody = Recorder(None, [watcher := Watcher()])
    nobody.config({})
    nobody.image(1, 0, "a", tmp_path / "a.png")
    nobody.histogram(1, 0, "a", [1.0])
    nobody.close()
    assert watcher.seen == []


def test_values_of_numpy_and_torch_and_not_finite_ones(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.batch(
        np.int64(1), 0, a=np.float32(0.5), b=torch.tensor(2.0), c=math.nan, d=-math.inf, e=np.float64("inf"), f=True
    )
    recorder.text(1, 0, "odd", "half a character: \ud800")
    record = strict(tmp_path)[0]
    assert [record[key] for key in "abcdef"] == [0.5, 2.0, "nan", "-inf", "inf", True]
    assert record["step"] == 1
    assert math.isnan(float(record["c"])) and float(record["d"]) == -math.inf


def test_resuming_cuts_later_steps_and_a_torn_line(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.config({"lr": 1})
    size = 0
    for step in range(1, 8):
        recorder.batch(step, 0, loss=float(step))
        size = recorder.size if step == 4 else size
    recorder.close()
    with open(tmp_path / LOG_NAME, "ab") as file:
        file.write('{"kind": "text", "text": "春'.encode()[:-1])  # torn within a character
    assert [r.get("step") for r in read_log(tmp_path)] == [None, 1, 2, 3, 4, 5, 6, 7]

    recorder = Recorder(tmp_path, resume_size=size)
    assert [r.get("step") for r in strict(tmp_path)] == [None, 1, 2, 3, 4]
    recorder.batch(5, 0, loss=50.0)
    recorder.close()
    assert [r.get("loss") for r in strict(tmp_path)] == [None, 1, 2, 3, 4, 50]
    assert os.listdir(tmp_path) == [LOG_NAME]


def test_resuming_without_a_log_begins_one_and_a_new_run_replaces_it(tmp_path):
    Recorder(tmp_path / "run", resume_size=900).batch(10, 0, loss=1.0)
    assert [r["step"] for r in strict(tmp_path / "run")] == [10]
    Recorder(tmp_path / "run").batch(1, 0, loss=1.0)
    assert [r["step"] for r in strict(tmp_path / "run")] == [1]


def test_a_killed_run_leaves_a_log_that_can_be_read(tmp_path):
    code = (
        "import sys; from training.recorder import Recorder; r = Recorder(sys.argv[1])\n"
        "print('go', flush=True); i = 0\n"
        "while True: i += 1; r.batch(i, 0, loss=1.0 / i, lr=0.1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"go\n"
    log = tmp_path / LOG_NAME
    while not log.exists() or log.read_bytes().count(b"\n") <= 100:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(120)
    process.stdout.close()
    steps = [record["step"] for record in read_log(tmp_path)]
    assert len(steps) > 100 and steps == list(range(1, len(steps) + 1))


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path):
    """The limit on a file's size stands for the disk; Linux cuts the write that crosses it, as a full disk does."""
    code = (
        "import resource, sys; from training.recorder import Recorder; r = Recorder(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "for i in range(100): r.batch(i, 0, loss=1.0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "r.batch(100, 0, loss=1.0); r.close(); print('trained')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    warnings = done.stderr.strip().splitlines()
    assert 1 <= len(warnings) <= 2 and all(line.startswith("warning: cannot write") for line in warnings), done.stderr
    steps = [record["step"] for record in strict(tmp_path)]
    assert steps[:5] == [0, 1, 2, 3, 4] and steps[-1] == 100 and len(steps) < 20


def test_a_failing_sink_is_dropped_with_one_line(tmp_path, capsys):
    bad, good = Watcher(fails=True), Watcher()
    recorder = Recorder(tmp_path, [bad, good])
    for step in range(3):
        recorder.batch(step, 0, loss=1.0)
    recorder.close()
    assert (len(bad.seen), len(good.seen), len(strict(tmp_path))) == (1, 3, 3)
    assert capsys.readouterr().err == "warning: Watcher failed and is not used any more: RuntimeError: no screen\n"


@pytest.mark.parametrize("shape", [(1000,), (10, 7, 3)])
def test_histogram_equals_numpys(shape):
    values = np.random.default_rng(0).normal(size=shape)
    counts, edges, nonfinite = histogram(torch.tensor(values))
    expected, expected_edges = np.histogram(values, 64)
    assert counts == expected.tolist() and nonfinite == 0
    np.testing.assert_allclose(edges, expected_edges)


@pytest.mark.parametrize(
    ("values", "finite", "nonfinite"),
    [
        ([], 0, 0),
        ([3.0, 3.0], 2, 0),
        ([0.0], 1, 0),
        ([1.0, np.nextafter(1.0, 2)], 2, 0),
        ([1e300, -1e300], 2, 0),
        ([np.nan, np.inf, 1.0, 2.0], 2, 2),
        ([np.nan], 0, 1),
    ],
)
def test_histogram_of_odd_values(values, finite, nonfinite):
    counts, edges, others = histogram(values)
    assert (sum(counts), others) == (finite, nonfinite)
    assert np.isfinite(edges).all() and (np.diff(edges) > 0).all()
