"""The learning rate range test (Smith 2017): a short training whose learning rate rises until the loss explodes.

It trains a network of its own and keeps nothing of it.
"""

import itertools
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from tqdm import tqdm

from config import DefaultConfig
from tasks import make_task
from tasks.base import Task
from trainer import check_machine, make_fabric
from training.optimizers import make_optimizer
from training.parameters import freeze, parameter_groups, train_mode
from utils.errors import UserError
from utils.seed import seed_everything

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9  # share of the running mean that a step keeps
EXPLODED = 1.5, 4.0  # times the loss of the beginning, and times the lowest: what is above either has exploded


def find_lr(cfg: DefaultConfig, steps: int = 100) -> dict[str, Any]:
    """Trains the task of `cfg` for `steps` steps, the learning rate rising evenly on a log scale.

    Returns {"lr": [...], "loss": [...] (smoothed), "suggestion": see `steepest`}. Raises UserError if the loss never
    falls, and where this machine cannot do what cfg asks for.
    """
    check_machine(cfg)
    seed_everything(cfg.seed)
    task = make_task(cfg)
    freeze(task.model, cfg.freeze)
    groups = parameter_groups(task.model, cfg.weight_decay, cfg.lr_scale)
    fabric, machine = make_fabric(cfg, task)
    print(f"{task}\n{machine}", file=sys.stderr)
    fused = task.cfg.precision != "fp16"
    raw_optimizer = make_optimizer(cfg.optimizer, groups, LOWEST, cfg.momentum, fused)
    model, optimizer = fabric.setup(task.model, raw_optimizer)
    rates, losses, mean = [], [], 0.0
    batches = _batches(task)
    for step in tqdm(range(steps), desc="find_lr", unit="step", leave=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        batch = fabric.to_device(next(batches))
        train_mode(model)  # here, since a task may compute with the model to make its batches
        with fabric.autocast():
            output = task.step(model, batch)
        objective = output["objective"]
        if not torch.isfinite(objective):
            break
        fabric.backward(objective)
        fabric.strategy.precision.unscale_gradients(raw_optimizer)  # fp16 only
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), cfg.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        # The loss, not the objective: that of the poet also varies with how full the rows of a batch are.
        mean = SMOOTHING * mean + (1 - SMOOTHING) * output["loss"].item()
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))  # the running mean starts at 0
        if _exploded(losses, steps):
            break
    return {"lr": rates, "loss": losses, "suggestion": steepest(rates, losses)}


def _exploded(losses: list[float], steps: int) -> bool:
    """Whether the last of the losses is out of all proportion: then nothing that follows tells anything."""
    beginning = losses[: max(1, steps // 10)]
    return losses[-1] > min(EXPLODED[0] * sum(beginning) / len(beginning), EXPLODED[1] * min(losses))


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over the logarithm of the rate, before its minimum.

    Seen over a fifth of all rates, or over all up to the minimum if these are less; the minimum is that before the loss
    explodes. Raises UserError if the loss never falls.
    """
    ends = [i for i in range(1, len(losses)) if _exploded(losses[: i + 1], len(losses))]
    before = losses[: ends[0]] if ends else losses
    lowest = before.index(min(before)) if before else 0
    reach = max(1, min(len(rates) // 10, lowest // 2))
    slopes = {
        rates[i]: (losses[i + reach] - losses[i - reach]) / math.log(rates[i + reach] / rates[i - reach])
        for i in range(reach, lowest - reach + 1)
    }
    if not slopes or min(slopes.values()) >= 0:
        raise UserError("the loss falls at no learning rate: look at the data and at --freeze")
    return min(slopes, key=slopes.get)


def chart(rates: list[float], losses: list[float], lines: int = 24, width: int = 50) -> str:
    """The losses as bars, one line for every few rates."""
    top, low = max(losses), min(losses)
    rows = []
    for i in range(0, len(rates), max(1, len(rates) // lines)):
        bar = "#" * round(width * (losses[i] - low) / (top - low or 1))
        rows.append(f"{rates[i]:9.1e} {losses[i]:8.4f} {bar}")
    return "\n".join(rows)


def _batches(task: Task) -> Iterator[dict[str, Any]]:
    """The batches of as many epochs as are asked for, without what cannot be read, which it names.

    Raises UserError if nothing can be read.
    """
    told: set[str] = set()
    for epoch in itertools.count():
        some = False
        for indices in task.train_batches(epoch):
            batch = task.collate([task.train_set[i] for i in indices])
            for fault in sorted(set(task.left_out(task.train_set, indices, batch)) - told):
                tqdm.write(f"left out: {fault}", file=sys.stderr)
                told.add(fault)
            if batch is not None:
                some = True
                yield batch
        if not some:
            raise UserError(
                f"none of the {len(task.train_set)} samples can be read; the first: {task.train_set.fault(0)}"
            )
