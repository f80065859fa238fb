"""The commands info and runs: what they say is so, in the terminal and as JSON."""

import json
import math
import platform
from pathlib import Path

import pytest
import torch

import main
from board.runs import read_runs
from tasks.poet import PoetTask
from tests.training import arguments, options, run, write_corpus
from trainer import Run
from training.recorder import read_log


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


def test_runs_are_compared(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.jsonl")
    for name, lr in (("slow", 1e-4), ("fast", 1e-2)):
        told = run(tmp_path, **options(tmp_path, run=name, lr=lr, max_epoch=1))
        best = float(told.split("best bits_per_char ")[1].split()[0])
        assert main.main(["runs", f"--save_path={tmp_path}", "--json", name]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["task"], found["state"], found["epochs"]) == (name, "poet", "finished", 1)
        assert round(found["best"]["bits_per_char"], 4) == best and found["config"]["lr"] == lr
        assert found["seconds"] > 0
    assert main.main(["runs", f"--save_path={tmp_path}"]) == 0
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == "poet:" and [row.split()[0] for row in rows] == ["slow", "fast"]
    settings = head.split()[head.split().index("perplexity") + 1 :]
    assert settings == ["lr"]  # the only one in which they differ
    assert rows[0].endswith("0.0001") and rows[1].endswith("0.01")


def unfinish(folder: Path) -> list[dict]:
    """Takes the final record from a log, as if the run had been killed before it; returns the validations."""
    log = folder / "log.jsonl"
    log.write_text("".join(x for x in log.read_text().splitlines(True) if '"kind": "final"' not in x) + '{"kind": "ba')
    return [r for r in read_log(folder) if r["kind"] == "epoch" and r["split"] == "val"]


@pytest.mark.parametrize(
    "more, best",
    [({}, 1), ({"monitor": "loss"}, 2), ({"monitor": "score"}, 0), ({"bits_per_char": [math.nan] * 4}, None)],
)
def test_the_best_of_an_unfinished_run_is_that_of_its_figure(tmp_path, monkeypatch, more, best):
    """The task's first one, or --monitor's, the larger the better of some; NaN is never the best."""
    figures = {"loss": [math.nan, 3, 1, 2], "bits_per_char": [math.nan, 1, 2, 3], "score": [0.9, 0.1, 0.2, 0.3]}
    figures |= {k: v for k, v in more.items() if k in figures}
    epochs = iter(range(4))

    def validate(self):
        epoch = next(epochs)
        return {name: values[epoch] for name, values in figures.items()}

    monkeypatch.setattr(Run, "validate", validate)
    monkeypatch.setattr(PoetTask, "compute_metrics", lambda self, samples: {})
    monkeypatch.setattr(PoetTask, "monitors", {"bits_per_char": "min", "loss": "min", "score": "max"})
    write_corpus(tmp_path / "corpus.jsonl")
    given = options(tmp_path, run="a", max_epoch=4, samples=0, **{k: v for k, v in more.items() if k == "monitor"})
    assert main.main(arguments(**given)) == 0
    assert len(unfinish(tmp_path / "a")) == 4
    (found,) = read_runs(tmp_path)
    assert found["state"] == "interrupted" and found["epochs"] == found["epoch"] == 4
    expected = {} if best is None else {name: values[best] for name, values in figures.items()}
    assert {name: float(value) for name, value in found["best"].items()} == pytest.approx(expected, nan_ok=True)
    (tmp_path / "a" / "best.safetensors").write_bytes(b"")
    assert read_runs(tmp_path)[0]["best"] == {}


def test_mistakes(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.jsonl")
    run(tmp_path, **options(tmp_path, run="a", max_epoch=1))
    assert main.main(["runs", f"--save_path={tmp_path}", "b"]) == 2
    assert capsys.readouterr().err == f"error: no run b in {tmp_path}; there are a\n"
    run(tmp_path, **options(tmp_path, run="poet_1", max_epoch=1))
    for words in (["runs", "poet_2", f"--save_path={tmp_path}"], ["visdom", str(tmp_path / "poet_2")]):
        assert main.main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("; did you mean poet_1?")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "log.jsonl").write_text('{"kind": "epoch"}\n')
    assert main.main(["runs", "broken", "a", f"--save_path={tmp_path}"]) == 0
    assert "broken" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main.main(["runs", f"--save_path={tmp_path / 'empty'}"]) == 2
    assert "no run in it" in capsys.readouterr().err
