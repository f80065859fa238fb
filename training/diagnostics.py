"""What is wrong with a step, and where its time goes: the first bad tensor, debug mode, extreme batches, profiler."""

import json
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

SKIPPED = 3  # steps at the start: memory is being claimed, kernels are being chosen


def named_tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    """Every tensor in nested dicts, lists and tuples, with a name like batch["ids"]."""
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in named_tensors(v, f'{name}["{k}"]')]
    if isinstance(value, (list, tuple)):
        return [found for i, v in enumerate(value) for found in named_tensors(v, f"{name}[{i}]")]
    return []


def _is_bad(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def first_bad_tensor(
    model: nn.Module, batch: dict[str, Any], forward: Callable[[], dict[str, Tensor]], backward: bool = False
) -> str:
    """Names the first tensor with NaN or infinity: in batch, parameters, a layer's output, the loss, a gradient.

    `forward` repeats the step's forward pass and gives its "objective". With `backward` the gradients are looked at,
    too. What is not bad this time (an earlier batch of the step was) is named by the parameter whose gradient is.
    """
    parameters = [(f"parameter {name}", p) for name, p in model.named_parameters()]
    for name, tensor in named_tensors(batch, "batch") + parameters:
        if _is_bad(tensor):
            return name
    before = [f"gradient of {name}" for name, p in model.named_parameters() if p.grad is not None and _is_bad(p.grad)]
    with ExitStack() as hooks:
        probe = _Probe(model, hooks)
        result = forward()
        for name, tensor in named_tensors(result, "output"):
            probe.look(name, tensor)
        if backward and not probe.bad:
            result["objective"].backward()
    return next(iter([*probe.bad, *before]), "the loss (not reproduced by a second forward pass)")


class _Probe:
    """Looks at each layer's output, and at each gradient, as it is computed; `bad`: the name of the first bad one."""

    def __init__(self, model: nn.Module, hooks: ExitStack):
        self.bad: list[str] = []
        self.giver = "the loss"  # the layer whose output's gradient was looked at last, and was good
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(self._look_at_layer, name)))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                hooks.enter_context(parameter.register_hook(partial(self.look, f"gradient of {name}")))

    def look(self, name: str, tensor: Tensor) -> None:
        if not self.bad and _is_bad(tensor):
            self.bad.append(name)

    def _look_at_layer(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        layer = f"layer {name} ({type(module).__name__})"
        for where, tensor in named_tensors(output, "output"):
            self.look(f"{where} of {layer}", tensor)
            if tensor.requires_grad:
                tensor.register_hook(partial(self._look_at_gradient, layer))

    def _look_at_gradient(self, layer: str, gradient: Tensor) -> None:
        self.look(f"the gradient that {self.giver} gives {layer}", gradient)
        self.giver = layer


def describe(tensor: Tensor) -> dict[str, Any]:
    """Shape, type, device and range of a tensor; JSON has no NaN and no infinity: they are given as strings."""
    facts: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype), "device": str(tensor.device)}
    if tensor.numel() and not tensor.is_complex():
        t = tensor.detach().float()
        numbers = {"min": t.min().item(), "mean": t.mean().item(), "max": t.max().item()}
        facts |= {k: v if math.isfinite(v) else str(v) for k, v in numbers.items()} | {"finite": not _is_bad(t)}
    return facts


def dump(path: Path, step: int, model: nn.Module, batch: dict[str, Any], output: dict[str, Any]) -> None:
    """Appends one JSON line with batch, outputs, parameters and gradients of a step to `path`."""
    tensors = named_tensors(batch, "batch") + named_tensors(output, "output")
    for name, p in model.named_parameters():
        tensors += [(f"parameter {name}", p)] + ([(f"gradient {name}", p.grad)] if p.grad is not None else [])
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "tensors": {n: describe(t) for n, t in tensors}}) + "\n")


def gradient_range(model: nn.Module) -> dict[str, tuple[float, float, float]]:
    """{parameter: (min, mean, max) of its gradient}."""
    return {
        name: (p.grad.min().item(), p.grad.mean().item(), p.grad.max().item())
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def track_best_worst_batch(extremes: dict[str, list[float]], loss: float | None, number: int) -> None:
    """Notes loss and number of this batch in `extremes` if it is the "best" or the "worst" so far."""
    for name, sign in (("best", 1), ("worst", -1)):
        if loss is not None and (name not in extremes or sign * loss < sign * extremes[name][0]):
            extremes[name] = [loss, number]


class DebugMode:
    """On while `file` exists: anomaly detection, and `look` after each backward pass."""

    def __init__(self, file: str, folder: Path, say: Callable[[str], None]):
        self.file, self.folder, self.say = Path(file), folder, say

    def is_on(self) -> bool:
        on = self.file.exists()
        if on != torch.is_anomaly_enabled():
            torch.autograd.set_detect_anomaly(on)
            self.say(f"debug mode {'on' if on else 'off'} ({self.file})")
        return on

    def look(self, step: int, model: nn.Module, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Drops into the debugger on a terminal; elsewhere adds a line of shapes and ranges to debug.jsonl."""
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            dump(self.folder / "debug.jsonl", step, model, batch, output)
            return
        breakpoint()  # look at `batch`, `output` and `model`; c goes on to the next step, q ends the training

    def close(self) -> None:
        torch.autograd.set_detect_anomaly(False)


class StepProfiler:
    """Measures `steps` steps after the first few: profile.txt (operators by their own time) and trace.json in `folder`.

    Call `step` at the end of each, `close` at the end of the training.
    """

    def __init__(self, folder: Path, steps: int, say: Callable[[str], None]):
        self.folder, self.steps, self.say = folder, steps, say
        self.done = 0
        self.profile: profile | None = None

    def step(self) -> None:
        """A step has ended."""
        self.done += 1
        if self.steps and self.done == SKIPPED:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.profile = profile(activities=[ProfilerActivity.CPU, *gpu], record_shapes=True)
            self.profile.start()
        elif self.done == SKIPPED + self.steps:
            self.close()

    def close(self) -> None:
        """Writes what has been measured so far, if there is anything."""
        if self.profile is None:
            return
        measured, self.profile = self.profile, None
        measured.stop()
        column = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = measured.key_averages().table(sort_by=column, row_limit=30, max_name_column_width=40)
        (self.folder / "profile.txt").write_text(table, encoding="utf-8")
        measured.export_chrome_trace(str(self.folder / "trace.json"))
        head = "\n".join(line[:100] for line in table.splitlines()[:12])
        steps = min(self.done - SKIPPED, self.steps)
        self.say(f"{steps} steps measured:\n{head}\n{self.folder}: profile.txt, trace.json")
