"""The commands info and runs: what they say is so, in the terminal and as JSON."""

import json
import platform

import torch

import main
from tests.training import options, run, write_corpus


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


def test_an_unfinished_run_and_mistakes(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.jsonl")
    run(tmp_path, **options(tmp_path, run="a", max_epoch=2))
    log = tmp_path / "a" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-5]) + b'{"kind": "ba')  # killed
    assert main.main(["runs", f"--save_path={tmp_path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "unfinished" and found["best"]["perplexity"] > 1
    assert main.main(["runs", f"--save_path={tmp_path}", "b"]) == 2
    assert capsys.readouterr().err == f"error: no run b in {tmp_path}; there are a\n"
    (tmp_path / "empty").mkdir()
    assert main.main(["runs", f"--save_path={tmp_path / 'empty'}"]) == 2
    assert "no run under" in capsys.readouterr().err
