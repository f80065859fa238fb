"""Finding what is wrong in a training step: the first bad tensor, and a dump of everything's shape and range."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


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


def first_bad_tensor(model: nn.Module, batch: dict[str, Any], forward: Callable[[], Any]) -> str:
    """Names the first tensor with NaN or infinity: in batch, parameters, a layer's output, the loss, a gradient.

    `forward` repeats the step's forward pass; each layer's output is looked at in the order of computation.
    """
    for name, tensor in named_tensors(batch, "batch"):
        if _is_bad(tensor):
            return name
    for name, tensor in model.named_parameters():
        if _is_bad(tensor.detach()):
            return f"parameter {name}"
    bad: list[str] = []

    def look(name: str) -> Callable:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for where, tensor in named_tensors(output, "output"):
                if not bad and _is_bad(tensor.detach()):
                    bad.append(f"{where} of layer {name} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            result = forward()
    finally:
        for hook in hooks:
            hook.remove()
    bad += [name for name, tensor in named_tensors(result, "output") if _is_bad(tensor)]
    bad += [
        f"gradient of {name}" for name, p in model.named_parameters() if p.grad is not None and _is_bad(p.grad.detach())
    ]
    return bad[0] if bad else "the loss (not reproduced by a second forward pass)"


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
