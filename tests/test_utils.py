"""The small helpers of the trainer: debug.py, seed.py, hardware.py, files.py."""

import json
import math
import os
import platform
import random
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.servers import ROOT
from training.diagnostics import describe, dump, first_bad_tensor, gradient_range
from utils import hardware
from utils.errors import UserError
from utils.files import atomic_save, atomic_write
from utils.seed import rng_state, seed_everything, set_rng_state
from utils.text import short, times_as_fast

# -------------------------------------------------------------------------------------------------------- files


def test_atomic_write(tmp_path):
    path = tmp_path / "new" / "a.txt"
    atomic_write(path, "诗")
    atomic_write(str(path), "画".encode())
    assert path.read_text() == "画" and os.listdir(path.parent) == ["a.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # others may read it, as any file


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 576 vs 534")])
def test_what_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def write(temporary: str) -> None:
        Path(temporary).write_text("half")
        raise error

    with pytest.raises(UserError, match="cannot write .*/a: .*; the file before is unchanged"):
        atomic_save(path, write)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]
    with pytest.raises(UserError, match=f"cannot write {path}/b"):
        atomic_write(path / "b", "x")
    with pytest.raises(ZeroDivisionError):  # a fault of the program stays one
        atomic_save(path, lambda temporary: 1 / 0)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


# --------------------------------------------------------------------------------------------------------- seed


def _draw() -> list[float]:
    return [random.gauss(0, 1), np.random.normal(), torch.randn(1).item(), torch.rand(3).sum().item()]


def test_the_seed_decides_everything():
    seed_everything(5)
    one = _draw()
    seed_everything(5)
    assert _draw() == one
    seed_everything(6)
    assert not set(_draw()) & set(one)


def test_rng_state_survives_a_file(tmp_path):
    seed_everything(1)
    _draw()  # both gauss functions keep a second number back
    torch.save(rng_state(), tmp_path / "rng")
    one = [_draw() for _ in range(700)]  # past the 624 words of a Mersenne twister
    seed_everything(2)
    set_rng_state(torch.load(tmp_path / "rng", weights_only=True))
    assert [_draw() for _ in range(700)] == one


# ----------------------------------------------------------------------------------------------------- hardware


def test_cpu_features(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "Path", lambda path: info)
    assert hardware.cpu_features() == []
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f_x amx_bf16 avx512f\n")
    assert hardware.cpu_features() == ["avx2", "avx512f", "amx_bf16"]
    info.write_text("Features\t: fp asimd bf16\n")
    assert hardware.cpu_features() == ["asimd", "bf16"]


def test_precision(monkeypatch):
    assert hardware.choose_precision("bf16", gpu=False) == ("bf16", "asked for")
    assert hardware.choose_precision("fp32", gpu=True) == ("fp32", "asked for")
    speedups = {1.6: "1.6 times as fast as", 1.4: "1.4 times as fast as", 0.25: "4.0 times slower than"}
    for speedup, expected in ((1.6, "bf16"), (1.4, "fp32"), (0.25, "fp32")):
        monkeypatch.setattr(hardware, "bf16_speedup", lambda speedup=speedup: speedup)
        precision, why = hardware.choose_precision("auto", gpu=False)
        assert precision == expected and f"a matrix product in bf16 is {speedups[speedup]} in fp32 here" in why
    monkeypatch.setattr(hardware, "bf16_speedup", lambda: 3.0)

    def cannot(precision):
        raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")

    lacking = "this CPU cannot compute the network in bf16"
    assert hardware.choose_precision("auto", False, cannot) == ("fp32", lacking)
    with pytest.raises(UserError, match=f"^precision=bf16: {lacking}; use precision=fp32$"):
        hardware.choose_precision("bf16", False, cannot)
    assert hardware.choose_precision("fp32", False, cannot) == ("fp32", "asked for")
    for fast, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, fast=fast: fast)
        assert hardware.choose_precision("auto", gpu=True)[0] == expected


def test_figures_are_short_and_say_something():
    assert [short(v) for v in (3.14159, -2e-9, 999_999.5)] == ["3.142", "-0.000", "999999.500"]
    assert [short(v, 4) for v in (2.0**1000, 1e6, math.inf, -math.inf, math.nan)] == [
        "1.07e+301", "1e+06", "inf", "-inf", "nan",
    ]  # fmt: skip
    ratios = {0.0499: "20 times slower than", 0.9: "1.1 times slower than", 0.003: "333 times slower than"}
    assert all(times_as_fast(ratio) == text for ratio, text in ratios.items())


FAULTS = """
import os, resource, torch
from utils.hardware import tune_malloc
torch.set_num_threads(1)  # the others would be lost with the fork
def step():
    pieces = [torch.ones(16 << 20, dtype=torch.uint8) for _ in range(6)] + [torch.ones(96 << 20, dtype=torch.uint8)]
for keep_all in None, False, True:
    if os.fork():
        os.wait()
        continue
    if keep_all is not None:
        tune_malloc(keep_all)
    for _ in range(8):  # until the heap has come to rest
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_used_again():
    """Pages that the system has to find for a step's 192 MB, in a process that has taken such steps before."""
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, check=True, capture_output=True, text=True)
    by_itself, default, most = map(int, done.stdout.split())
    assert by_itself > 1000  # what glibc does: else there is nothing to mend
    assert default < 100 and most < 100


# -------------------------------------------------------------------------------------------------------- debug


class Root(nn.Module):
    """Of 0 the root is 0 and its derivative infinite."""

    def forward(self, x):
        return (0 * x).sqrt()


def test_the_layer_where_a_bad_gradient_begins():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), Root(), nn.Linear(2, 1))

    def forward():
        return {"objective": net(torch.ones(1, 2)).sum()}

    forward()["objective"].backward()
    assert all(p.grad.isnan().all() for p in net[:2].parameters())  # it has spread from there to the first layer
    begins = "the gradient that layer 2 (Root) gives layer 1 (Linear)"
    assert first_bad_tensor(net, {}, forward, backward=True) == begins
    net.zero_grad()

    def of_the_loss():
        return {"objective": (net[0](torch.ones(1, 2)) * 0).square().sum().sqrt()}

    assert first_bad_tensor(net, {}, of_the_loss, backward=True) == "the gradient that the loss gives layer 0 (Linear)"
    assert not any(m._forward_hooks for m in net.modules())
    assert not any(p._backward_hooks for p in net.parameters())


def test_dump_and_ranges(tmp_path):
    net = nn.Linear(2, 1)
    x = torch.tensor([[1.0, -3.0]])
    net(x).sum().backward()
    batch = {"x": x, "none": [torch.zeros(0), {"z": (torch.ones(3), "no tensor")}], "n": 3}
    for step in (7, 8):
        dump(tmp_path / "d.jsonl", step, net, batch, {"loss": torch.tensor(float("nan"))})
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 8]
    tensors = lines[0]["tensors"]
    assert tensors['batch["x"]'] == {
        **{"shape": [1, 2], "dtype": "torch.float32", "device": "cpu"},
        **{"min": -3.0, "mean": -1.0, "max": 1.0, "finite": True},
    }
    assert tensors['output["loss"]']["finite"] is False and tensors['output["loss"]']["max"] == "nan"  # JSON has no NaN
    assert tensors['batch["none"][0]']["shape"] == [0] and tensors['batch["none"][1]["z"][0]']["shape"] == [3]
    assert set(tensors) >= {"parameter weight", "gradient weight", "parameter bias", "gradient bias"}
    assert gradient_range(net) == {"weight": (-3.0, -1.0, 1.0), "bias": (1.0, 1.0, 1.0)}
    assert describe(torch.tensor([True, False]))["mean"] == 0.5
