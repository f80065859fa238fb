"""Checks for a machine with GPUs: python tests/gpu.py. Without one it tries on the CPU what can be tried there.

Each check is a line, `ok`, `left out` or `FAILED`; the exit code is the number of those that failed. torchnet, fire and
visdom need not be installed, and torch may be older than requirements.txt says.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STAND_INS = Path(tempfile.mkdtemp(prefix="shihua_gpu_"))
METER = """
class AverageValueMeter:
    def __init__(self):
        self.sum = self.n = 0.0
    def add(self, value, n=1):
        self.sum += value
        self.n += n
    def value(self):
        return self.sum / self.n if self.n else float("nan"), 0.0
"""
FIRE = """
class decorators:
    def SetParseFn(convert):
        return lambda function: function
def Fire(commands, command, name):
    words = [word.removeprefix("--").partition("=") for word in command[1:]]
    commands[command[0]](**{name: value for name, _, value in words})
"""


def stand_in() -> None:
    """Modules in place of those that are not installed, for this process and those that it starts."""
    for name, files in {"torchnet": {"__init__": "", "meter": METER}, "fire": {"__init__": FIRE}}.items():
        if importlib.util.find_spec(name) is None:
            (STAND_INS / name).mkdir()
            for file, text in files.items():
                (STAND_INS / name / f"{file}.py").write_text(text)
    sys.path.insert(0, str(STAND_INS))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(STAND_INS), os.environ.get("PYTHONPATH", "")])


stand_in()
import torch  # noqa: E402

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


class LeftOut(Exception):
    """A check that this machine cannot do."""


def need(what: bool, text: str) -> None:
    if not what:
        raise LeftOut(text)


def train(folder: Path, run: str, **more: object) -> list[dict]:
    """The log of a short training in a process of its own: the poet if no task is named."""
    given = {"save_path": folder, "run": run, "use_visdom": False, "max_epoch": 1, "seed": 1, "samples": 0}
    given |= {"task": "poet", "hidden": 32, "embed": 24, "attention": 24, "dropout": 0} if "task" not in more else {}
    words = [f"--{name}={value}" for name, value in {**given, "use_gpu": GPU, **more}.items()]
    done = subprocess.run([sys.executable, ROOT / "main.py", "train", *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise AssertionError(done.stderr[-2000:])
    return [json.loads(line) for line in (folder / run / "log.jsonl").read_text().splitlines()]


def losses(log: list[dict]) -> list[float]:
    return [record["loss"] for record in log if record["kind"] == "batch"]


def near(one: list[float], other: list[float], share: float) -> None:
    assert len(one) == len(other) > 3, (len(one), len(other))
    assert all(abs(a - b) <= share * abs(a) for a, b in zip(one, other)), (one[:5], other[:5])  # noqa: B905


def precisions(folder: Path) -> str:
    """fp32, bf16, fp16: the curves of a network of matrix products alone are near each other."""
    found = {}
    for precision in ("fp32", "bf16", "fp16"):
        found[precision] = losses(train(folder, precision, backbone="transformer", precision=precision))
        near(found["fp32"], found[precision], 0.03)
    return ", ".join(f"{name} {values[-1]:.4f}" for name, values in found.items())


def lstm(folder: Path) -> str:
    """The LSTM in bf16 and fp16 with the losses scaled."""
    need(GPU, "a CPU may have none in 16 bits")
    exact = losses(train(folder, "lstm_fp32", precision="fp32"))
    for precision in ("bf16", "fp16"):
        near(exact, losses(train(folder, f"lstm_{precision}", precision=precision)), 0.03)
    return f"{exact[-1]:.4f}"


def scaler(folder: Path) -> str:
    """The scale of fp16's losses is saved with the run, and goes on."""
    train(folder, "scaled", backbone="transformer", precision="fp16")
    state = torch.load(folder / "scaled" / "last.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1, state["scaler"]
    train(folder, "scaled", resume=folder / "scaled", backbone="transformer", precision="fp16", max_epoch=2)
    return f"scale {state['scaler']['scale']:g}"


def deterministic(folder: Path) -> str:
    """--deterministic gives the same bits twice."""
    pair = [losses(train(folder, f"same{i}", deterministic=True, precision="fp32")) for i in (1, 2)]
    assert pair[0] == pair[1]
    return f"{len(pair[0])} steps"


def by_number(folder: Path) -> str:
    """The last GPU by its number."""
    need(torch.cuda.device_count() > 1, "needs two GPUs")
    last = torch.cuda.device_count() - 1
    return f"{losses(train(folder, 'last', devices=f'{last},0'))[-1]:.4f}"


def processes(folder: Path) -> str:
    """Two processes have the curve of one."""
    need(not GPU or torch.cuda.device_count() > 1, "needs two GPUs, or none")
    one, two = (losses(train(folder, f"x{n}", devices=n, batch_size=4, precision="fp32")) for n in (1, 2))
    near(one, two, 1e-3)
    return f"{one[-1]:.4f}"


def sync_bn(folder: Path) -> str:
    """BatchNorm over the devices: a step of the classifier with and without the conversion."""
    need(GPU, "for GPUs alone")
    more = {"task": "dogcat", "pretrained": "none", "precision": "fp32", "warmup": 0}
    devices = min(2, torch.cuda.device_count())
    log = train(folder, "sync", sync_bn=True, devices=devices, **more)
    if devices == 1:
        near(losses(log), losses(train(folder, "plain", **more)), 0.05)
    return f"{devices} GPUs, {losses(log)[-1]:.4f}"


def painting(folder: Path) -> str:
    """The painter's engine on this device gives what the network gives on the CPU."""
    import numpy as np

    from infer.painting.tiles import Painter
    from models.transformer_net import TransformerNet

    torch.manual_seed(0)
    model, rgb = TransformerNet((8, 16, 16)).eval(), np.random.default_rng(0).integers(0, 256, (1, 96, 80, 3))
    rgb = rgb.astype(np.uint8)
    with torch.no_grad():
        image = torch.from_numpy(rgb).permute(0, 3, 1, 2) / 255
        exact = model(image)["image"].mul(255).add(0.5).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    off = {}
    for precision in ("fp32", "bf16"):
        painted = Painter(model.to(DEVICE), precision).paint(rgb)
        off[precision] = int(np.abs(painted.astype(int) - exact).max())
    assert off["fp32"] <= 1 and off["bf16"] <= 8, off
    return f"off by {off['fp32']} and {off['bf16']} of 255"


def classifying(folder: Path) -> str:
    """The shipped classifier answers on this device what it answers on the CPU."""
    from infer.photo.classify import open_model, outputs_of

    image = torch.randint(256, (4, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = ROOT / "checkpoints" / "dogcat.safetensors"
    exact = outputs_of(open_model(path, "cpu"), image)["logits"]
    off = (outputs_of(open_model(path, DEVICE), image.to(DEVICE))["logits"].cpu() - exact).abs().max().item()
    assert off < 0.05, off
    return f"off by {off:.1e}"


CHECKS = (precisions, lstm, scaler, deterministic, by_number, processes, sync_bn, painting, classifying)


def main() -> int:
    device = torch.cuda.get_device_name() if GPU else "no GPU"
    print(f"torch {torch.__version__}, {torch.cuda.device_count()} GPUs ({device})", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for check in CHECKS:
            start = time.perf_counter()
            try:
                result = f"ok        {check(Path(folder))}"
            except LeftOut as reason:
                result = f"left out  {reason}"
            except Exception:
                result, failed = f"FAILED\n{traceback.format_exc()}", failed + 1
            print(f"{check.__name__:14} {time.perf_counter() - start:6.1f} s  {result}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
