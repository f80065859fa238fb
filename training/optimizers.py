"""Optimizers by name, the learning rate of each step, and the L1 penalty."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from config import DefaultConfig
from training.parameters import decaying
from utils.errors import UserError

COSINE_FLOOR = 0.02  # share of the learning rate that is left at the end of the cosine
ONE_CYCLE_RISE = 0.3  # share of the steps in which the one-cycle schedule rises
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000  # of the learning rate: as in torch.optim.lr_scheduler.OneCycleLR

ADAM: dict[str, Any] = {"betas": (0.9, 0.99)}  # 0.99 forgets sooner than the usual 0.999: short trainings like it
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": partial(AdamW, **ADAM),
    "adam": partial(Adam, **ADAM),  # its weight decay is L2: in the gradient
    "nadam": partial(NAdam, **ADAM, decoupled_weight_decay=True),
    "radam": partial(RAdam, **ADAM, decoupled_weight_decay=True),
    "sgd": SGD,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}


def make_optimizer(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, fused: bool = True
) -> Optimizer:
    """The optimizer of that name; `momentum` is for sgd and rmsprop, where 0 is plain descent.

    `fused`: all parameters in one kernel where there is one; not with fp16, whose gradients are unscaled before.
    """
    more: dict[str, Any] = {"momentum": momentum} if name in ("sgd", "rmsprop") else {}
    if name in ("adamw", "adam"):
        more["fused"] = fused
    return OPTIMIZERS[name](groups, lr=lr, **more)


class Standing(Protocol):
    """Where a run stands, as far as its learning rate depends on it (trainer.Progress)."""

    step: int
    epoch: int
    lr_factor: float  # what the plateau schedule has come to


def learning_rate(cfg: DefaultConfig, progress: Standing, total_steps: int) -> float:
    """The learning rate of the next step: a function of where the run stands, so nothing else has to be saved.

    Formulas: cosine, Loshchilov & Hutter 2017 (down to COSINE_FLOOR); one_cycle, Smith 2018, with two cosines. The
    warm-up multiplies any of them.
    """
    warm = min(1.0, (progress.step + 1) / max(1, cfg.warmup))
    share = min(1.0, progress.step / max(1, total_steps))
    match cfg.lr_schedule:
        case "cosine":
            factor = _cosine(1, COSINE_FLOOR, share)
        case "one_cycle" if share < ONE_CYCLE_RISE:
            factor = _cosine(ONE_CYCLE_START, 1, share / ONE_CYCLE_RISE)
        case "one_cycle":
            factor = _cosine(1, ONE_CYCLE_END, (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
        case "step":
            factor = cfg.lr_decay ** (progress.epoch // lr_epochs(cfg)[0])
        case "multistep":
            factor = cfg.lr_decay ** sum(progress.epoch >= epoch for epoch in lr_epochs(cfg))
        case "plateau":
            factor = progress.lr_factor
        case _:
            factor = 1.0
    return cfg.lr * warm * factor


def lr_epochs(cfg: DefaultConfig) -> list[int]:
    """The numbers in cfg.lr_epochs, checked. Raises UserError if the schedule cannot do with them."""
    try:
        epochs = [int(number) for number in cfg.lr_epochs.split(",")]
    except ValueError:
        epochs = []
    if not epochs or min(epochs) < 1 or (cfg.lr_schedule == "step" and len(epochs) > 1):
        expected = "--lr_epochs=10 (every 10 epochs)" if cfg.lr_schedule == "step" else "--lr_epochs=10,15"
        raise UserError(f"--lr_epochs={cfg.lr_epochs}: --lr_schedule={cfg.lr_schedule} needs such as {expected}")
    return epochs


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def add_l1_gradient(model: nn.Module, weight: float) -> None:
    """Adds to the gradients that of weight * sum |p|, over the weights of all layers (not biases, not normalisations).

    Added once a step rather than to each loss: accumulation and several processes then need no thought.
    """
    for parameter in decaying(model):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=weight)
