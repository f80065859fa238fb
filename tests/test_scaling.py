"""Two machines, each with a torchrun of its own (both are this one): the curve of one process, one set of files.

Two processes on one machine are in the tests of the trainer and of the tasks.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.training import arguments, log_of, options, run, write_corpus

ROOT = Path(__file__).resolve().parent.parent


def test_two_machines_are_one_process(tmp_path):
    write_corpus(tmp_path / "corpus.jsonl")
    more = {"dropout": 0, "batch_size": 3, "max_epoch": 2}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    train = ["--", "main.py", *arguments(**options(tmp_path, run="two", num_nodes=2, devices=1, **more))]
    machines = [
        subprocess.Popen(
            [*torchrun, f"--node_rank={rank}", *train],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [machine.communicate(timeout=600)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert "epoch 2/2  loss " in told[0] and "epoch" not in told[1]
    run(tmp_path, **options(tmp_path, run="one", **more))
    names = ("step", "lr", "loss", "bits_per_char", "grad_norm")
    curves = [
        [[r[k] for k in names if k in r] for r in log_of(tmp_path / name) if r["kind"] in ("batch", "epoch")]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == len(curves[1]) > 20
    for one, two in zip(*curves, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"last.pt", "best.safetensors", "log.jsonl", ".lock"}
