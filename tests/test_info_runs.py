"""The commands info and runs: what they say is so, in the terminal and as JSON."""

import json
import math
import platform
from pathlib import Path

import pytest
import torch

import main
from board.runs import read_runs
from tests.training import LineTask, options, records, run_here, write_corpus
from trainer import Run


def test_info_names_what_a_bug_report_needs(capsys):
    assert main.main(["info"]) == 0
    told = capsys.readouterr().out
    assert main.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["Python"] == platform.python_version() and facts["torch"] == torch.__version__
    assert facts["threads of torch"] == str(torch.get_num_threads())
    assert (facts["GPUs"] == "none") == (not torch.cuda.is_available())
    assert facts["precision"].split()[2].rstrip(":") in ("fp32", "bf16")
    assert all(value in told for name, value in facts.items() if name not in ("memory", "precision"))
    assert {"visdom", "cuDNN", "CUDA of torch", "CPU", "memory", "system"} <= set(facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two runs with what they said in a file said."""
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.jsonl")
    for name, lr in (("slow", 1e-4), ("fast", 1e-2)):
        told = run_here(**options(folder, run=name, lr=lr, max_epoch=1))
        (folder / name / "said").write_text(told)
    return folder


def test_runs_are_compared(folder, capsys):
    for name, lr in (("slow", 1e-4), ("fast", 1e-2)):
        best = float((folder / name / "said").read_text().split("best bits_per_char ")[1].split()[0])
        assert main.main(["runs", f"--save_path={folder}", "--json", name]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["task"], found["state"], found["epochs"]) == (name, "poet", "finished", 1)
        assert round(found["best"]["bits_per_char"], 4) == best and found["config"]["lr"] == lr
        assert found["seconds"] > 0
    assert main.main(["runs", f"--save_path={folder}"]) == 0
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == "poet:" and [row.split()[0] for row in rows] == ["slow", "fast"]
    settings = head.split()[head.split().index("perplexity") + 1 :]
    assert settings == ["lr"]  # the only one in which they differ
    assert rows[0].endswith("0.0001") and rows[1].endswith("0.01")


@pytest.mark.parametrize(
    "more, best",
    [({}, 1), ({"monitor": "loss"}, 2), ({"monitor": "score"}, 0), ({"bits": [math.nan] * 4}, None)],
)
def test_the_best_of_an_unfinished_run_is_that_of_its_figure(fit, tmp_path, monkeypatch, more, best):
    """The task's first one, or --monitor's, the larger the better of some; NaN is never the best."""
    figures = {"loss": [math.nan, 3, 1, 2], "bits": [math.nan, 1, 2, 3], "score": [0.9, 0.1, 0.2, 0.3]}
    figures |= {k: v for k, v in more.items() if k in figures}
    epochs = iter(range(4))

    def validate(self):
        epoch = next(epochs)
        return {name: values[epoch] for name, values in figures.items()}

    monkeypatch.setattr(Run, "validate", validate)
    monkeypatch.setattr(LineTask, "compute_metrics", lambda self, samples: {})
    monkeypatch.setattr(LineTask, "monitors", {"bits": "min", "loss": "min", "score": "max"})
    fit(max_epoch=4, monitor=more.get("monitor", ""))
    log = tmp_path / "run" / "log.jsonl"  # as if it had been killed before the final record
    log.write_text("".join(x for x in log.read_text().splitlines(True) if '"kind": "final"' not in x) + '{"kind": "ba')
    assert len(records(tmp_path / "run", "epoch", split="val")) == 4
    (found,) = read_runs(tmp_path)
    assert found["state"] == "interrupted" and found["epochs"] == found["epoch"] == 4
    expected = {} if best is None else {name: values[best] for name, values in figures.items()}
    assert {name: float(value) for name, value in found["best"].items()} == pytest.approx(expected, nan_ok=True)
    (tmp_path / "run" / "best.safetensors").write_bytes(b"")
    assert read_runs(tmp_path)[0]["best"] == {}


def test_mistakes(folder, tmp_path, capsys):
    assert main.main(["runs", f"--save_path={folder}", "b"]) == 2
    assert capsys.readouterr().err == f"error: no run b in {folder}; there are slow, fast\n"
    for words in (["runs", "fast2", f"--save_path={folder}"], ["visdom", str(folder / "fast2")]):
        assert main.main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("; did you mean fast?")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "log.jsonl").write_text('{"kind": "epoch"}\n')
    assert main.main(["runs", "broken", f"--save_path={tmp_path}"]) == 0
    assert "broken" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main.main(["runs", f"--save_path={tmp_path / 'empty'}"]) == 2
    assert "no run in it" in capsys.readouterr().err
