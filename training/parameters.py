"""Which parameters are trained, and how fast: freezing, learning rates by name, weight decay, the moving average.

Patterns are those of file names: `features.*,*.bias`. One that matches no parameter is a UserError.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils.errors import UserError
from utils.text import parse_named_numbers


def freeze(model: nn.Module, patterns: str) -> None:
    """Takes the gradient from the parameters that `patterns` name, and gives it to all others.

    Raises UserError for a pattern that fits no parameter, and if nothing is left to learn.
    """
    frozen = _fitting(dict(model.named_parameters()), patterns, "freeze")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if frozen and not any(p.requires_grad for p in model.parameters()):
        raise UserError("leaves nothing to train", freeze=patterns)


def train_mode(model: nn.Module) -> None:
    """Like model.train(), but what is frozen as a whole stays in eval mode: its BatchNorm must not move either."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def parameter_groups(model: nn.Module, weight_decay: float, lr_scale: str = "") -> list[dict[str, Any]]:
    """The groups for an optimizer: {"params", "weight_decay", "lr_scale"}.

    `lr_scale` is such as `features.*:0.1,classifier.*:1`, the first pattern that fits counts; the others have 1. Raises
    UserError if it cannot be read, or fits no parameter.
    """
    scales: dict[str, float] = {}
    for pattern, value in parse_named_numbers(lr_scale, "lr_scale", "features.*:0.1"):
        for name in _fitting(dict(model.named_parameters()), pattern, "lr_scale"):
            scales.setdefault(name, value)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    decayed = decaying(model)
    for name, parameter in model.named_parameters():
        scale, decays = scales.get(name, 1.0), parameter in decayed
        new = {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr_scale": scale}
        groups.setdefault((scale, decays), new)["params"].append(parameter)
    return list(groups.values())


def decaying(model: nn.Module) -> set[nn.Parameter]:
    """The parameters that should be small: matrices and kernels, neither biases nor scales of normalisations."""
    return {p for p in model.parameters() if p.ndim > 1}


def checkpoint_layers(model: nn.Module, patterns: str) -> None:
    """Lets the layers that `patterns` name forget what is inside them and compute it again in the backward pass.

    Activation checkpointing (Chen et al. 2016); a BatchNorm in such a layer counts each batch twice. Raises UserError
    for a pattern that fits no layer.
    """
    layers = {name: module for name, module in model.named_modules() if name}
    for name in _fitting(layers, patterns, "checkpoint_layers", "layer"):
        layers[name].forward = partial(checkpoint, layers[name].forward, use_reentrant=False)


def _fitting(named: dict[str, Any], patterns: str, option: str, kind: str = "parameter") -> set[str]:
    """The names that fit one of the patterns. Raises UserError for a pattern that none fits."""
    found: set[str] = set()
    for pattern in filter(None, patterns.split(",")):
        fitting = {name for name in named if fnmatchcase(name, pattern)}
        if not fitting:
            tops = dict.fromkeys(name.split(".")[0] for name in named)
            raise UserError(f"fits no {kind}; they begin with {', '.join(tops)}", **{option: pattern})
        found |= fitting
    return found


class MovingAverage:
    """An exponential moving average of a model's weights and buffers, often better than the last step's.

    After each step: average <- d * average + (1 - d) * weights, with d = min(decay, (1 + step) / (10 + step)), so that
    the first steps do not weigh for ever.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the model after optimizer step `step` (from 1)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, share)
            else:
                self.average[name].copy_(tensor)

    @contextmanager
    def sync_resets(self) -> Iterator[None]:
        """Whatever is assigned to the model's weights inside (not by a step) is assigned to the average, too."""
        before = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        yield
        for name, tensor in self.model.state_dict().items():
            self.average[name] = torch.where(tensor == before[name], self.average[name], tensor.detach())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside, its own ones again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return self.average

    def load_state_dict(self, average: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave."""
        for name, tensor in average.items():
            self.average[name].copy_(tensor)
