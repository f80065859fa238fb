"""Painting by optimisation: the pixels of one picture are changed until the loss is low (Gatys et al. 2016).

Slow, but any picture can be the style, and what it ends at is what a network, trained with the same losses, is measured
by. It reads and writes no pictures.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.perceptual import PerceptualLoss, total_variation
from models.vgg import SMALLEST

OUTSIDE = 300.0  # weight of the mean square by which pixels leave 0..1, until they are clamped in the end
HISTORY = 20  # steps back that L-BFGS looks; each takes the memory of two pictures


def optimize(
    photo: Tensor,
    loss: PerceptualLoss,
    style: int,
    steps: int = 300,
    content_weight: float = 1.0,
    style_weight: float = 4.0,
    tv_weight: float = 1.0,
    precision: str = "fp32",
    progress: Callable[[float], object] | None = None,
) -> Tensor:
    """The picture (1, 3, H, W) in 0..1 that looks like `photo` (1, 3, H, W) in content, like style picture `style`.

    Args:
        loss: on the device of the photograph; content, style and total variation are weighed as in training.
        steps: evaluations of the loss and its gradient; the last line search of L-BFGS may take a few more.
        precision: "fp32" or "bf16" of the loss network.
        progress: is told, after each evaluation, the share of the work that is done.

    L-BFGS as in the paper, from the photograph instead of from noise: it gets lower than Adam does in as many steps
    (docs/decisions.md).
    """
    height, width = photo.shape[2:]
    # The loss networks cannot see less than SMALLEST pixels: what is smaller is continued at its edges.
    pad = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
    photo = F.pad(photo.float(), pad, mode="replicate")
    number = torch.tensor([style], device=photo.device)

    def autocast() -> torch.autocast:
        return torch.autocast(photo.device.type, torch.bfloat16, enabled=precision == "bf16")

    with autocast():
        content = loss.content(photo)
    picture = photo.clone().contiguous().requires_grad_()
    done = 0

    def closure() -> Tensor:
        nonlocal done
        picture.grad = None
        with autocast():
            parts = loss(picture, content, number)
        value = content_weight * parts["content"] + style_weight * parts["style"]
        value = value + tv_weight * total_variation(picture)
        value = value.sum() + OUTSIDE * (picture - picture.clamp(0, 1)).square().mean()
        value.backward()
        done += 1
        if progress is not None and done <= steps:
            progress(done / steps)
        return value

    while done < steps:  # it ends early where rounding spoils a direction, then it begins anew
        lbfgs = torch.optim.LBFGS(
            [picture], max_iter=steps, max_eval=steps - done, history_size=HISTORY, line_search_fn="strong_wolfe",
            tolerance_grad=0, tolerance_change=0,
        )  # fmt: skip
        lbfgs.step(closure)
    return picture.detach().clamp(0, 1)[:, :, :height, :width]
