"""Before a training: a tiny step of the task's own network tells what this machine can do of what was asked for."""

import math

import torch
from torch import Tensor

from tasks.base import Task
from training.parameters import train_mode
from utils.hardware import check_memory, free_memory

SMALL, LARGE = 48, 96  # pixels or characters: two sizes whose memory tells that of any other
STATES = 4  # numbers for each parameter: itself, its gradient, and two that Adam has


def trial_step(task: Task, precision: str, device: str | torch.device, size: int = SMALL) -> int:
    """One forward and backward pass of a made-up sample in a precision; the bytes that are kept between the two.

    Network and random numbers are afterwards as before. torch raises a RuntimeError where it cannot do it here.
    """
    kind = torch.device(device).type
    with torch.random.fork_rng(devices=[device] if kind == "cuda" else []):
        batch = task.trial_batch(size)
        if batch is None:
            return 0
        model, kept = task.model, {}
        own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        train_mode(model)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast(kind, dtype, enabled=dtype is not None):
                objective = task.step(model, {name: tensor.to(device) for name, tensor in batch.items()})["objective"]
        objective.backward()
    model.zero_grad(set_to_none=True)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return sum(kept.values())


def sample_memory(task: Task, size: int, small: int) -> float:
    """Bytes that a sample of this size keeps until the backward pass, if one of size SMALL keeps `small`.

    They grow with its side, or its length, as a s + b s^2; another small step tells a and b.
    """
    large = trial_step(task, task.cfg.precision, "cpu", LARGE) / LARGE
    b = max(0.0, (large - small / SMALL) / (LARGE - SMALL))
    return size * (large - b * LARGE + b * size)


def check_batch(task: Task, processes: int) -> None:
    """Raises UserError if a batch, shared by so many processes of this machine, cannot be in its memory.

    Counted is the least that a step needs: what is refused could not be; what is let through may still be too much.
    """
    cfg, size = task.cfg, task.sample_size
    samples = math.ceil(min(cfg.batch_size, task.train_size) / cfg.num_nodes)
    model = 4 * STATES * task.model.parameter_count() * processes
    small = trial_step(task, cfg.precision, "cpu")
    if model + samples * small * max(1, size / SMALL) ** 2 < free_memory():  # more than that it cannot be
        return
    sample = sample_memory(task, size, small)
    what = f"--batch_size={cfg.batch_size} --{task.size_option}={size}: a step"
    check_memory(model + samples * sample, what, f"a sample takes {sample / 1e6:,.1f} MB, give fewer or smaller ones")
