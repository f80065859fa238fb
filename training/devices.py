"""Where a run computes: its devices and processes, the precision they can do, and whether a batch fits their memory.

Precision and memory are found out by one tiny step of the task's own network (a tasks.base.Task).
"""

import math
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from training.parameters import train_mode
from utils.errors import UserError
from utils.hardware import check_memory, check_workers, choose_precision, cores, free_memory, pick_device, tune_malloc

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SIZES = SMALL, *_ = 48, 96, 192  # pixels or characters: three sizes whose memory tells that of any other
STATES = 4  # numbers for each parameter: itself, its gradient, and two that Adam has


@dataclass(frozen=True)
class Devices:
    """What a run computes on: "cuda" or "cpu", the numbers of the devices, if the user named them, and machines."""

    kind: str
    numbers: list[int]
    by_number: bool
    nodes: int

    @property
    def own(self) -> str:
        """The device of this process."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.numbers[int(os.environ.get('LOCAL_RANK', 0))]}"


def find_devices(use_gpu: bool, devices: str, nodes: int = 1, workers: int = 0, sync_bn: bool = False) -> Devices:
    """The devices that are asked for: so many ("2"), or GPUs by number ("0,2"). Raises UserError if they are absent."""
    kind = pick_device(use_gpu)
    if kind == "cpu":
        tune_malloc(keep_all=True)
    check_workers(workers)
    if sync_bn and kind != "cuda":
        raise UserError("is for several GPUs; leave it out on a CPU", sync_bn=None)
    by_number = "," in devices
    try:
        numbers = [int(number) for number in devices.split(",")]
    except ValueError:
        raise UserError("expected a number of devices, or the numbers of GPUs as in 0,2", devices=devices) from None
    here = torch.cuda.device_count() if kind == "cuda" else 0
    if by_number:
        if not set(numbers) <= set(range(here)) or len(set(numbers)) < len(numbers):
            known = ", ".join(map(str, range(here))) or "none"
            raise UserError(f"these are numbers of GPUs, and those here are {known}", devices=devices)
        return Devices(kind, numbers, True, nodes)
    most = here if kind == "cuda" else max(2, cores())  # two, to try it, on every machine
    if not 1 <= numbers[0] <= most:
        there = f"there are {here} GPUs here" if kind == "cuda" else f"this machine has {cores()} cores"
        raise UserError(f"{there}, give 1 to {most}", devices=devices)
    return Devices(kind, list(range(numbers[0])), False, nodes)


def make_fabric(devices: Devices, precision: str) -> tuple["Fabric", str]:
    """Lightning's Fabric for these devices, and a few words about them."""
    from lightning_fabric import Fabric  # slow to import, and not needed to evaluate
    from lightning_fabric.plugins import MixedPrecision

    # Fabric itself would make bf16 of fp16 on a CPU. fp16 needs its losses scaled, which the plugin does.
    plugins = {"bf16": [MixedPrecision("bf16-mixed", devices.kind)], "fp16": [MixedPrecision("16-mixed", devices.kind)]}
    count = devices.nodes * len(devices.numbers)
    fabric = Fabric(
        accelerator=devices.kind,
        devices=devices.numbers if devices.by_number else len(devices.numbers),
        num_nodes=devices.nodes,
        strategy="ddp" if count > 1 else "auto",
        plugins=plugins.get(precision),
    )
    gpu = devices.kind == "cuda"
    name = torch.cuda.get_device_name(fabric.device) if gpu else f"CPU, {torch.get_num_threads()} threads"
    return fabric, f"{count} x {name}"


def largest(fabric: "Fabric", number: float) -> float:
    """The largest of the numbers that the processes give."""
    if fabric.world_size == 1:
        return number
    return fabric.all_reduce(torch.tensor(float(number), device=fabric.device), reduce_op="max").item()


def gather(fabric: "Fabric", value: Any) -> list[Any]:
    """What each of the processes gives as `value`."""
    if fabric.world_size == 1:
        return [value]
    values = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def to_device(batch: dict[str, Any], device: str | torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


@dataclass(frozen=True)
class Trial:
    """What one step has shown: the bytes kept between its forward and its backward pass, the names of its metrics."""

    memory: int = 0
    metrics: tuple[str, ...] = ()


def try_step(task: Any, wanted: str, devices: Devices) -> tuple[str, str, Trial]:
    """(precision, why this one, what a step of `task` in it has shown); moves the task to its device.

    Raises UserError if the precision `wanted` is not "auto" and the network cannot be computed in it here.
    """
    task.to(devices.own)
    attempt = cache(lambda precision: trial_step(task, precision, devices.own))
    precision, why = choose_precision(wanted, devices.kind == "cuda", attempt)
    return precision, why, attempt(precision)


def trial_step(task: Any, precision: str, device: str, size: int = SMALL) -> Trial:
    """One forward and backward pass of a sample of this size, or torch's RuntimeError; the network stays as it was."""
    kind = torch.device(device).type
    with torch.random.fork_rng(devices=[device] if kind == "cuda" else []):
        batch = task.trial_batch(size)
        if batch is None:
            return Trial()
        model, kept = task.model, {}
        own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        batch = to_device(batch, device)

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage  # and not its size alone: memory that is freed may be used again
            return tensor

        train_mode(model)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast(kind, dtype, enabled=dtype is not None):
                output = task.step(model, batch)
        output["objective"].backward()
    model.zero_grad(set_to_none=True)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return Trial(sum(storage.nbytes() for storage in kept.values()), tuple(output))


def sample_memory(task: Any, size: int, precision: str, small: int) -> float:
    """Bytes that a sample of a size keeps until the backward pass: a quadratic; one of size SMALL keeps `small`."""
    if not size:  # all samples are alike
        return small
    kept = [small, *(trial_step(task, precision, "cpu", side).memory for side in SIZES[1:])]
    square, *_ = fitted = np.polyfit(SIZES, kept, 2)
    return float(np.polyval(fitted if square > 0 else np.polyfit(SIZES, kept, 1), size))


def check_batch(task: Any, batch_size: int, devices: Devices, precision: str, trial: Trial) -> None:
    """Raises UserError if the least that a batch needs cannot fit the memory of a CPU."""
    if devices.kind != "cpu":
        return
    size = task.sample_size
    samples = math.ceil(min(batch_size, task.train_size) / devices.nodes)
    model = 4 * STATES * sum(p.numel() for p in task.model.parameters()) * len(devices.numbers)
    if model + samples * trial.memory * max(1, size / SMALL) ** 2 < free_memory():  # more than that it cannot be
        return
    sample = sample_memory(task, size, precision, trial.memory)
    what = f"a step with {task.size_option}={size}" if size else "a step"
    advice = f"a sample takes {sample / 1e6:,.1f} MB, give fewer or smaller ones"
    check_memory(model + samples * sample, what, advice, batch_size=batch_size)
