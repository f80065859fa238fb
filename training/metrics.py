"""The running means of what a task's step returns, over batches and processes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchnet.meter import AverageValueMeter

from training.devices import gather
from utils.text import short

if TYPE_CHECKING:
    from lightning_fabric import Fabric

NOT_METRICS = ("objective", "count", "samples")


class Metrics:
    """Means of metrics, weighted by each batch's count, over all processes of `fabric`, from `values` on."""

    def __init__(self, fabric: "Fabric | None" = None, values: dict[str, dict[str, float]] | None = None):
        self.fabric = fabric
        self.meters: dict[str, AverageValueMeter] = {}
        self._samples: list[dict[str, Tensor]] = []
        for name, numbers in (values or {}).items():
            self.meters[name] = AverageValueMeter()
            vars(self.meters[name]).update(numbers)

    def update(self, output: dict[str, Tensor], weight: float = 1.0, keep_samples: bool = False) -> dict[str, float]:
        """Adds the metrics of a step, unless its weight is 0, and returns them as numbers, over all processes."""
        if keep_samples and weight and "samples" in output:
            self._samples.append({name: tensor.cpu() for name, tensor in output["samples"].items()})
        names = [name for name in output if name not in NOT_METRICS]
        count = float(output["count"]) if weight else 0.0
        sums = [float(output[name]) * count for name in names]
        if self.fabric and self.fabric.world_size > 1:
            together = torch.tensor([*sums, count], dtype=torch.float64, device=self.fabric.device)
            *sums, count = self.fabric.all_reduce(together, reduce_op="sum").tolist()
        if not count:  # nothing in this batch could be read
            return {}
        for name, value in zip(names, sums, strict=True):
            self.meters.setdefault(name, AverageValueMeter()).add(value, count)
        return {name: value / count for name, value in zip(names, sums, strict=True)}

    def means(self) -> dict[str, float]:
        return {name: float(meter.value()[0]) for name, meter in self.meters.items()}

    def samples(self) -> dict[str, Tensor]:
        """The "samples" of all batches and processes: {name: (N, …)}."""
        parts = gather(self.fabric, self._samples) if self.fabric else [self._samples]
        parts = [part for process in parts for part in process]
        return {name: torch.cat([part[name] for part in parts]) for name in (parts or [{}])[0]}

    def clear(self) -> None:
        self.meters.clear()

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Plain numbers, for a file."""
        return {name: {key: float(value) for key, value in vars(m).items()} for name, m in self.meters.items()}


def as_line(metrics: dict[str, float]) -> str:
    """Such as "loss 0.693 accuracy 0.500"."""
    return " ".join(f"{name} {short(value)}" for name, value in metrics.items())
