"""What the eye sees in a painting of one style, as metrics; what they mean is in docs/painter.md."""

import torch
from torch import Tensor

from config import StyleConfig
from infer.painting.optimize import optimize
from models.perceptual import PerceptualLoss
from models.strokes import BANDS, band, calm_places, flicker, largest_normalised, likeness, strokes
from models.transformer_net import TransformerNet


def in_8_bits(picture: Tensor) -> Tensor:
    """(B, 3, H, W) -> what a file holds of it: clamped to 0..1, in steps of 1/255."""
    return picture.mul(255).add(0.5).clamp(0, 255).floor() / 255


def measure(
    network: TransformerNet, loss: PerceptualLoss, photo: Tensor, painting: Tensor, style: int, picture: Tensor
) -> dict[str, float]:
    """The metrics of a painting of a photograph, both (1, 3, H, W), beside the picture of its style, one of loss's."""
    calm = calm_places(photo)
    metrics = {}
    for name, places in (("strokes", calm), ("everywhere", torch.ones_like(calm))):  # ink leaves calm places bare
        by_size = strokes(painting, places, picture)
        metrics |= {f"{name}_{a}_{b}": value for (a, b), value in zip(BANDS, by_size, strict=True)}
    number = torch.tensor([style], device=photo.device)
    metrics["likeness"] = likeness(painting, photo)
    metrics["content"] = loss(painting, loss.content(photo), number, seed=0)["content"].item()
    for factor in (1, 2, 4):
        metrics[f"covariance_{factor}"] = loss.covariance_distance(painting, picture, factor).item()
    metrics["largest"] = largest_normalised(network, photo)
    metrics["flicker"] = flicker(network, photo, painting)
    painted = band(painting, BANDS[0][0], BANDS[-1][1]).square().mean().sqrt().item()
    metrics["flicker_to_strokes"] = metrics["flicker"] / max(255 * painted, 1e-6)
    return metrics


def compare_with_optimized(
    cfg: StyleConfig, loss: PerceptualLoss, style_weight: float, photo: Tensor, painting: Tensor, style: int
) -> dict[str, float]:
    """The loss of a painting, over the whole of it, and that of the picture that is optimised for it alone."""
    weights = cfg.content_weight, style_weight, cfg.tv_weight
    best = optimize(photo, loss, style, cfg.optimize_steps, weights)
    content, number = loss.content(photo), torch.tensor([style], device=photo.device)
    losses = [loss(picture, content, number, seed=0) for picture in (painting, in_8_bits(best))]
    values = [(weights[0] * part["content"] + weights[1] * part["style"]).item() for part in losses]
    return dict(zip(("loss", "optimized"), values, strict=True))
