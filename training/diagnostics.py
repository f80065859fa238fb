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


def first_bad_tensor(
    model: nn.Module, batch: dict[str, Any], forward: Callable[[], dict[str, Tensor]], backward: bool = False
) -> str:
    """Names the first tensor with NaN or infinity: in batch, parameters, a layer's output, the loss, a gradient.

    `forward` repeats the step's forward pass and gives its "objective"; each layer's output is looked at in the order
    of computation. With `backward`, where the loss was good, so is each gradient, in the order of the backward pass.
    What is not bad this time (an earlier batch of the step was) is named by the parameter whose gradient is.
    """
    for name, tensor in named_tensors(batch, "batch"):
        if _is_bad(tensor):
            return name
    for name, tensor in model.named_parameters():
        if _is_bad(tensor.detach()):
            return f"parameter {name}"
    bad: list[str] = []
    before = [name for name, p in model.named_parameters() if p.grad is not None and _is_bad(p.grad)]

    def look(name: str) -> Callable[[Tensor], None]:
        def hook(tensor: Tensor) -> None:
            if not bad and _is_bad(tensor.detach()):
                bad.append(name)

        return hook

    giver = "the loss"  # the layer whose output's gradient was looked at last, and was good

    def look_at_gradient(layer: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            nonlocal giver
            look(f"the gradient that {giver} gives {layer}")(gradient)
            giver = layer

        return hook

    def look_at_layer(name: str) -> Callable:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            layer = f"layer {name} ({type(module).__name__})"
            for where, tensor in named_tensors(output, "output"):
                look(f"{where} of {layer}")(tensor)
                if tensor.requires_grad:
                    tensor.register_hook(look_at_gradient(layer))

        return hook

    hooks = [module.register_forward_hook(look_at_layer(name)) for name, module in model.named_modules() if name]
    hooks += [p.register_hook(look(f"gradient of {name}")) for name, p in model.named_parameters() if p.requires_grad]
    try:
        result = forward()
        for name, tensor in named_tensors(result, "output"):
            look(name)(tensor)
        if backward and not bad:
            result["objective"].backward()
    finally:
        for hook in hooks:
            hook.remove()
    bad += [f"gradient of {name}" for name in before]
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
