"""Painting by optimisation: the pixels of one picture are changed until the loss is low (Gatys et al. 2016).

Slow, but any picture can be the style, and what it ends at is what a network, trained with the same losses, is measured
by. It reads and writes no pictures.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infer.painting.colors import Progress, ignore, part_of
from infer.painting.files import read_style
from infer.painting.styles import style_label
from models.loss_networks import choose_network
from models.perceptual import PerceptualLoss, reduced, total_variation
from utils.errors import UserError
from utils.hardware import choose_precision, tune_malloc
from utils.images import to_tensor, to_uint8

LARGEST = 3 << 19  # pixels: with VGG-16 a million of them need 3 GB of memory
RATE = 0.05  # of Adam, in grey values of 0..1; it falls as a cosine


def optimize(
    photo: Tensor,
    loss: PerceptualLoss,
    style: int,
    steps: int = 300,
    weights: tuple[float, float, float] = (1.0, 8.0, 1.0),
    precision: str = "fp32",
    progress: Progress = ignore,
) -> Tensor:
    """The picture (1, 3, H, W) in 0..1 that looks like `photo` (1, 3, H, W) in content, like style picture `style`.

    Args:
        loss: on the device of the photograph.
        weights: of content, style and total variation, as in training.
        precision: "fp32" or "bf16" of the loss network.

    By Adam, from the photograph instead of from noise: the paper's L-BFGS wants the same loss at each step, and this
    one compares other pixels each time (docs/decisions.md).
    """
    height, width = photo.shape[2:]
    photo = reduced(photo.float(), 1)
    number = torch.tensor([style], device=photo.device)
    autocast = partial(torch.autocast, photo.device.type, torch.bfloat16, enabled=precision == "bf16")
    with autocast():
        content = loss.content(photo)
    picture = photo.clone().contiguous().requires_grad_()
    optimizer = torch.optim.Adam([picture], RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            with autocast():
                parts = loss(picture, content, number, seed=step)  # a picture is painted alike each time
            terms = parts["content"], parts["style"], total_variation(picture)
            sum(weight * term for weight, term in zip(weights, terms, strict=True)).sum().backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            picture.clamp_(0, 1)
        progress((step + 1) / steps)
    return picture.detach()[:, :, :height, :width]


class OptimizingPainter:
    """Paints by optimization (Gatys et al. 2016).

    Args:
        style_size: the longer side of the style's picture is reduced to so many pixels.
        network: "auto", or the loss network; its weights are in `network_file`, or in `classifier`'s.
        precision: "auto", "fp32" or "bf16".
        settings: steps and weights, see `infer.painting.optimize.optimize`.

    Raises UserError if the picture cannot be read, or the network cannot be had.
    """

    def __init__(
        self,
        style_image: str,
        style_size: int,
        network: str,
        network_file: str,
        classifier: str,
        device: str,
        precision: str,
        **settings: Any,
    ):
        style = read_style(style_image, style_size)
        network, file, reason = choose_network(network, network_file, classifier)
        self.loss = PerceptualLoss(network, [style], file).to(device)

        def attempt(precision: str) -> None:
            optimize(torch.zeros(1, 3, 64, 64, device=device), self.loss, 0, steps=1, precision=precision)

        precision, why = choose_precision(precision, device == "cuda", attempt)
        name, steps = Path(style_image).stem, settings["steps"]
        self.label = style_label([name])
        self._about = f"{name}, {steps} steps; judged by {network} ({reason}); precision {precision} ({why})"
        self.settings = {"precision": precision, **settings}

    def __str__(self) -> str:
        return self._about

    def paint(self, rgb: np.ndarray, progress: Progress = ignore) -> np.ndarray:
        """(N, H, W, 3) uint8 -> the same, painted. Raises UserError for pictures of more pixels than LARGEST."""
        height, width = rgb.shape[1:3]
        if height * width > LARGEST:
            raise UserError(f"{width} x {height} pixels are too many to optimize: give max_side=1024")
        tune_malloc(keep_all=True)
        device, paintings = next(self.loss.buffers()).device, []
        for number, photo in enumerate(rgb):
            show = part_of(progress, number, len(rgb))
            painting = optimize(to_tensor(photo).to(device), self.loss, 0, progress=show, **self.settings)
            paintings.append(to_uint8(painting))
        return np.stack(paintings)
