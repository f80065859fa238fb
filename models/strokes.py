"""What the eye sees in a painting, as numbers: strokes, likeness, a hatch that styles share, flicker, spots.

Shapes: B pictures, C channels, H x W pixels; pictures are in 0..1. A band a-b holds what blurring by a Gaussian of a
pixels leaves and one of b pixels takes away.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.transformer_net import EPS, TransformerNet

BANDS = ((1, 2), (2, 4), (4, 8), (8, 16))  # pixels, of strokes from fine to large
CALM = 1 / 3  # of a photograph
LIKENESS = (4, 32)  # pixels: forms, without strokes and without light and shade at large
TEXTURE = (1, 4)
MOVE = 2  # pixels that the film moves by


def blur(picture: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) -> the same blurred by a Gaussian, continued at its edges."""
    radius = round(3 * sigma)
    places = torch.arange(-radius, radius + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    x = picture.flatten(0, 1)[:, None]  # (B * C, 1, H, W)
    for _ in range(2):  # down, then across
        x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), kernel).mT
    return x.view(picture.shape)


def band(picture: Tensor, fine: float, coarse: float) -> Tensor:
    """(B, C, H, W) -> what is in it between two sizes, in pixels."""
    return blur(picture, fine) - blur(picture, coarse)


def grey(picture: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    return picture.mean(1, keepdim=True)


def calm_places(photo: Tensor) -> Tensor:
    """(1, 3, H, W) -> (H, W), true in the calmest third: skies, walls, water. There the painter must invent strokes."""
    energy = blur(band(grey(photo), 1, 6).square(), 6)[0, 0]
    return energy <= torch.quantile(energy.flatten(), CALM)


def strokes(painting: Tensor, places: Tensor, style: Tensor) -> list[float]:
    """How strong strokes of each of BANDS are in these places (H, W) of a painting, by those of the style's picture.

    Root mean squares of the colours. 1 is as strong as in the style's picture, which should be as large as the
    painting; a filter has 0.3, the best known networks 0.8 to 1.2.
    """
    result = []
    for fine, coarse in BANDS:
        ours, theirs = band(painting, fine, coarse)[0][:, places], band(style, fine, coarse)
        result.append((ours.square().mean().sqrt() / theirs.square().mean().sqrt()).item())
    return result


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of two tensors of one shape."""
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    return (a @ b / (a.norm() * b.norm()).clamp(min=1e-12)).item()


def likeness(painting: Tensor, photo: Tensor) -> float:
    """How much of the photograph's forms is in a painting: 1 all, 0 nothing. 0.6 to 0.85 is a painting of something."""
    return correlation(band(grey(painting), *LIKENESS), band(grey(photo), *LIKENESS))


def same_texture(paintings: list[Tensor], places: Tensor) -> list[list[float]]:
    """Correlation of the fine texture of paintings of one photograph in these places (H, W), each with each other."""
    textures = [band(grey(painting), *TEXTURE)[0, 0][places] for painting in paintings]
    return [[correlation(a, b) for b in textures] for a in textures]


@torch.no_grad()
def flicker(model: TransformerNet, photo: Tensor, painting: Tensor) -> float:
    """By how many grey levels the painting of a photograph (1, 3, H, W) changes where the photograph only moves."""
    again = model(photo[:, :, MOVE:, MOVE:])["image"].clamp(0, 1)
    return 255 * (again - painting[:, :, MOVE:, MOVE:]).abs().mean().item()


@torch.no_grad()
def largest_normalised(model: TransformerNet, photo: Tensor) -> float:
    """The largest value, in standard deviations, of all normalisations of a photograph; 15 and more show as spots."""
    largest = [0.0]

    def look(_, inputs: tuple[Tensor, ...]) -> None:
        largest.append(F.instance_norm(inputs[0].float(), eps=EPS).abs().max().item())

    hooks = [norm.register_forward_pre_hook(look) for norm in model.norms]
    try:
        model(photo)
    finally:
        for hook in hooks:
            hook.remove()
    return max(largest)
