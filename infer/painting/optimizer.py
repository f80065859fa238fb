"""A painter without a network for its style: any picture can be the style, at the price of minutes a painting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infer.painting.files import optimizing, read_style, style_label
from models.perceptual import PerceptualLoss
from models.vgg import choose_network
from utils.hardware import choose_precision


class OptimizingPainter:
    """Paints by optimization (Gatys et al. 2016).

    Args:
        style_image: the picture of the style.
        style_size: its longer side is reduced to so many pixels.
        network: "auto", or the loss network; its weights are in the file `weights`, or in `classifier`'s.
        precision: "auto", "fp32" or "bf16".
        settings: steps and weights, see `infer.painting.optimize.optimize`.

    Raises UserError if the picture cannot be read, or the network cannot be had.
    """

    def __init__(
        self,
        style_image: str,
        style_size: int,
        network: str,
        weights: str,
        classifier: str,
        device: str,
        precision: str,
        **settings: Any,
    ):
        style = read_style(style_image, style_size)
        network, file, reason = choose_network(network, weights, classifier)
        loss = PerceptualLoss(network, [style], file).to(device)

        def attempt(precision: str) -> None:
            optimizing(loss, steps=1, precision=precision)(np.zeros((1, 64, 64, 3), np.uint8))

        precision, why = choose_precision(precision, device == "cuda", attempt)
        name, steps = Path(style_image).stem, settings["steps"]
        self.label = style_label([name])
        self._about = f"{name}, {steps} steps; judged by {network} ({reason}); precision {precision} ({why})"
        self._paint = optimizing(loss, precision=precision, **settings)

    def __str__(self) -> str:
        return self._about

    def paint(self, rgb: np.ndarray, progress: Callable[[float], object] | None = None) -> np.ndarray:
        """(N, H, W, 3) uint8 -> the same, painted."""
        return self._paint(rgb, progress)
