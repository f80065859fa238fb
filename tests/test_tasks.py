"""docs/tasks.md: its example is a task that every command can use."""

import json
import re
import sys
from pathlib import Path

import pytest

import config
import main
import tasks

CODE = re.search(r"```python\n(.*?)```", (Path(main.__file__).parent / "docs" / "tasks.md").read_text(), re.S)[1]


@pytest.fixture
def line(tmp_path, monkeypatch):
    (tmp_path / "line.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import line

    monkeypatch.setitem(tasks.MODULES, "line", "line.LineTask")
    monkeypatch.setitem(config.TASKS, "line", line.LineConfig)
    yield line
    del sys.modules["line"]


def test_every_command_takes_the_example(line, tmp_path, capsys):
    words = ["--task=line", "--use_gpu=false", "--precision=fp32"]
    more = [f"--save_path={tmp_path}", "--run=a", "--use_visdom=false", "--lr=0.1", "--max_epoch=10", "--batch_size=8"]
    assert main.main(["train", *words, *more]) == 0, capsys.readouterr().err
    load = f"--load={tmp_path / 'a' / 'best.safetensors'}"
    capsys.readouterr()
    for command in ("val", "test"):
        assert main.main([command, load, "--json"]) == 0, capsys.readouterr().err
        found = json.loads(capsys.readouterr().out)
        assert found["samples"] == 64 and found["loss"] < 5
    assert main.main(["summary", load]) == 0 and "Linear" in capsys.readouterr().out
    assert main.main(["find_lr", *words, "--batch_size=8"]) == 0 and "lr=" in capsys.readouterr().out


def test_a_metric_that_is_not_there_is_refused_before_the_first_epoch(line, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(line.LineTask, "monitors", {"los": "min"})
    words = [f"--save_path={tmp_path}", "--run=b", "--use_visdom=false", "--use_gpu=false"]
    assert main.main(["train", "--task=line", *words]) == 2
    assert "the task is to monitor los, but gives loss" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
