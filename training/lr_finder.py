"""The learning rate range test (Smith 2017): a short training whose learning rate rises until the loss explodes."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer
from tqdm import tqdm

from training.parameters import train_mode
from utils.errors import UserError

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9  # fraction of the running mean that a step keeps
EXPLODED = 1.5, 4.0  # times the loss of the beginning, and times the lowest: what is above either has exploded


def find_lr(
    fabric: Fabric, task: Any, optimizer: Optimizer, batches: Iterator[dict[str, Any]], steps: int, grad_clip: float
) -> dict[str, Any]:
    """Trains a task for `steps` steps, the learning rate rising evenly on a log scale. Nothing of the training is kept.

    Returns {"lr": [...], "loss": [...] (smoothed), "suggestion": see `steepest`}. Raises UserError if the loss never
    falls.
    """
    model, wrapped = fabric.setup(task.model, optimizer)
    rates, losses, mean = [], [], 0.0
    for number in tqdm(range(steps), desc="find_lr", unit="step", leave=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / max(1, steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        batch = next(batches)
        train_mode(model)  # here, since a task may compute with the model to make its batches
        with fabric.autocast():
            output = task.step(model, batch)
        if not torch.isfinite(output["objective"]):
            break
        fabric.backward(output["objective"])
        fabric.strategy.precision.unscale_gradients(optimizer)  # fp16 only
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip or math.inf)
        wrapped.step()
        wrapped.zero_grad()
        # The loss, not the objective: that of the poet also varies with how full the sequences of a batch are.
        mean = SMOOTHING * mean + (1 - SMOOTHING) * output["loss"].item()
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (number + 1)))  # the running mean starts at 0
        if _exploded(losses, steps):
            break
    return {"lr": rates, "loss": losses, "suggestion": steepest(rates, losses)}


def _exploded(losses: list[float], steps: int) -> bool:
    """Whether the last of the losses is out of all proportion: then nothing that follows tells anything."""
    beginning = losses[: max(1, steps // 10)]
    return losses[-1] > min(EXPLODED[0] * sum(beginning) / len(beginning), EXPLODED[1] * min(losses))


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest, before its minimum. Raises UserError if it never falls.

    The first tenth of the losses is left out: they are means of a few batches, which differ by luck.
    """
    ends = [i for i in range(1, len(losses)) if _exploded(losses[: i + 1], len(losses))]
    start, end = len(losses) // 10, ends[0] if ends else len(losses)
    lowest = min(range(start, end), key=losses.__getitem__, default=start)
    reach = max(1, min(len(rates) // 10, (lowest - start) // 2))
    slopes = {
        rates[i]: (losses[i + reach] - losses[i - reach]) / math.log(rates[i + reach] / rates[i - reach])
        for i in range(start + reach, lowest - reach + 1)
    }
    if not slopes or min(slopes.values()) >= 0:
        raise UserError("the loss falls at no learning rate: look at the data, and at what is frozen")
    return min(slopes, key=slopes.get)


def chart(rates: list[float], losses: list[float], lines: int = 24, width: int = 50) -> str:
    """The losses as bars, one line for every few rates."""
    top, low = max(losses), min(losses)
    rows = []
    for i in range(0, len(rates), max(1, len(rates) // lines)):
        bar = "#" * round(width * (losses[i] - low) / (top - low or 1))
        rows.append(f"{rates[i]:9.1e} {losses[i]:8.4f} {bar}")
    return "\n".join(rows)
