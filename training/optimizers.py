"""Optimizers by name, the learning rate of each step, and the L1 penalty."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

from training.parameters import decaying
from training.state import Progress
from utils.errors import UserError

COSINE_FLOOR = 0.02  # fraction of the learning rate that is left at the end of the cosine
ONE_CYCLE_RISE = 0.3  # fraction of the steps in which the one-cycle schedule rises
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
    """The optimizer of that name; `momentum` is for sgd and rmsprop, `fused` (one kernel) not with fp16."""
    more: dict[str, Any] = {"momentum": momentum} if name in ("sgd", "rmsprop") else {}
    if name in ("adamw", "adam"):
        more["fused"] = fused
    return OPTIMIZERS[name](groups, lr=lr, **more)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a training: a function of where the run stands, so nothing else has to be saved.

    cosine: Loshchilov & Hutter 2017 (down to COSINE_FLOOR); one_cycle: Smith 2018, with two cosines. `epochs`: "10" for
    step, "10,15" for multistep; `decay`: of plateau, step and multistep; `warmup`: steps in which the rate rises from
    zero. Raises UserError for epochs that the schedule cannot use.
    """

    name: str
    lr: float
    epochs: str = ""
    decay: float = 1.0
    warmup: int = 0
    max_epoch: int = 1

    def __post_init__(self) -> None:
        if self.name in ("step", "multistep"):
            self._epochs()

    def rate(self, progress: Progress, epoch_steps: int) -> float:
        """The learning rate of the next step, if an epoch has so many."""
        warm = min(1.0, (progress.step + 1) / max(1, self.warmup))
        share = min(1.0, progress.step / max(1, self.max_epoch * epoch_steps))
        match self.name:
            case "cosine":
                factor = _cosine(1, COSINE_FLOOR, share)
            case "one_cycle" if share < ONE_CYCLE_RISE:
                factor = _cosine(ONE_CYCLE_START, 1, share / ONE_CYCLE_RISE)
            case "one_cycle":
                factor = _cosine(1, ONE_CYCLE_END, (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
            case "step":
                factor = self.decay ** (progress.epoch // self._epochs()[0])
            case "multistep":
                factor = self.decay ** sum(progress.epoch >= epoch for epoch in self._epochs())
            case "plateau":
                factor = progress.lr_factor
            case _:
                factor = 1.0
        return self.lr * warm * factor

    def _epochs(self) -> list[int]:
        try:
            epochs = [int(number) for number in self.epochs.split(",")]
        except ValueError:
            epochs = []
        if not epochs or min(epochs) < 1 or (self.name == "step" and len(epochs) > 1):
            example = "lr_epochs=10 (every 10 epochs)" if self.name == "step" else "lr_epochs=10,15"
            raise UserError(f"lr_schedule={self.name} needs epochs such as {example}", lr_epochs=self.epochs)
        return epochs


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def drop_unused_gradients(model: nn.Module) -> None:
    """Takes the gradient from parameters that no process has used, as if one process alone had computed the step."""
    for parameter in model.parameters():
        if parameter.grad is not None and not parameter.grad.any():
            parameter.grad = None


def clip_gradients(parameters: list[nn.Parameter], value: float, norm: float, found: Tensor) -> None:
    """Clips the entries of the gradient to `value`, and its norm, which was `found`, to `norm`; 0: no limit."""
    if value:
        torch.nn.utils.clip_grad_value_(parameters, value)
        torch.nn.utils.clip_grad_norm_(parameters, norm or math.inf)
    elif norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, norm, found)


@torch.no_grad()
def add_l1_gradient(model: nn.Module, weight: float) -> None:
    """Adds to the gradients of a step that of weight * sum |p|, over the weights of all layers but normalisations."""
    for parameter in decaying(model):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=weight)
