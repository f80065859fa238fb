"""What a painting should be: like its photograph in content, like the style picture in style (Gatys, Johnson).

Used by the training of the painter, by the optimisation of a single picture, and by their judges alike. Each layer's
loss is relative to its target's own size, so that weights mean the same for every loss network.

Shapes: B pictures, S style pictures, C channels, H x W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.basemodule import check_shape
from models.loss_networks import SMALLEST, FeatureNetwork

CONTENT_LAYER = {"vgg16": "relu3_3", "vgg19": "relu3_3", "squeezenet": "fire2", "classifier": "relu3"}
# Of the picture itself, of its half, where layers see twice as far for a quarter of the time, and of its quarter, where
# the first layers see what the eye calls a stroke.
STYLE_LAYERS = {
    "vgg16": (("relu1_2", "relu2_2"), ("relu3_1", "relu4_1"), ("relu1_2", "relu2_2")),
    "vgg19": (("relu1_2", "relu2_2"), ("relu3_1", "relu4_1"), ("relu1_2", "relu2_2")),
    "squeezenet": (("relu1", "fire3"), ("fire4", "fire5"), ("relu1", "fire3")),
    "classifier": (("relu0", "relu2"), ("relu4", "relu7"), ("relu0", "relu2")),
}
FACTORS = (1, 2, 4)
# Share of the style pictures' mean square: a plain grey photograph has hardly any features, and a loss relative to them
# would be thousands of times that of others. The plainest of 250 photographs still had twice this share.
CONTENT_FLOOR = 0.1


class PerceptualLoss(nn.Module):
    """Content and style loss of pictures against photographs and a fixed list of style pictures.

    Gram matrices, which are usual, mix the mean of the features with how they vary together, and the mean outweighs the
    rest: a network can halve their distance without a single stroke. Here the mean and the covariance count by
    themselves. Content is compared at half the size: strokes may take the place of the photograph's detail. Style is
    compared at three sizes.

    Args:
        network, path: the loss network, see FeatureNetwork.
        style_images: each (1, 3, H, W) in 0..1, of different sizes if you like.
    """

    def __init__(self, network: str, style_images: Sequence[Tensor], path: str = ""):
        super().__init__()
        self.content_layer, self.style_layers = CONTENT_LAYER[network], STYLE_LAYERS[network]
        names = dict.fromkeys((self.content_layer, *sum(self.style_layers, ())))
        self.features = FeatureNetwork(network, tuple(names), path)
        with torch.no_grad():
            statistics, squares = zip(*map(self._of_style, style_images), strict=True)
        self.register_buffer("content_floor", CONTENT_FLOOR * torch.stack(squares).mean())
        self.levels = list(statistics[0])  # 1_relu1_2, 1_relu2_2, 2_relu3_1 …
        for level in self.levels:
            means, covariances = zip(*(one[level] for one in statistics), strict=True)
            self.register_buffer(f"mean_{level}", torch.cat(means))  # (S, C)
            self.register_buffer(f"covariance_{level}", torch.cat(covariances))  # (S, C, C)

    def _of_style(self, image: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """The statistics of a style picture, and the mean square of its content features."""
        content, style = self._features(image)
        return {level: mean_and_covariance(features) for level, features in style.items()}, content.square().mean()

    def _features(self, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The content layer of (B, 3, H, W), and the style layers as FACTOR_LAYER."""
        by_factor, style = {}, {}
        for factor, layers in zip(FACTORS, self.style_layers, strict=True):
            by_factor[factor] = self.features(reduced(picture, factor) if factor > 1 else picture, last=layers[-1])
            style |= {f"{factor}_{name}": by_factor[factor][name] for name in layers}
        return by_factor[2][self.content_layer], style

    def _style_loss(self, features: dict[str, Tensor], style: Tensor, places: Tensor | None = None) -> Tensor:
        """The mean over the layers of the relative distances of means and covariances: (B)."""
        total = 0
        for level in self.levels:
            mean, covariance = mean_and_covariance(features[level], places)
            means, covariances = getattr(self, f"mean_{level}")[style], getattr(self, f"covariance_{level}")[style]
            total = total + relative_distance(mean, means) + relative_distance(covariance, covariances)
        return total / len(self.levels)

    @torch.no_grad()
    def content(self, photo: Tensor) -> Tensor:
        """What the content loss compares with: the features (B, C, H', W') of photographs (B, 3, H, W) in 0..1."""
        return self.features(reduced(photo, 2), last=self.content_layer)[self.content_layer]

    def forward(self, picture: Tensor, content: Tensor, style: Tensor, calm: Tensor | None = None) -> dict[str, Tensor]:
        """picture (B, 3, H, W), its photographs' `content`, numbers of style pictures (B) -> {"content", "style"}: (B).

        content: mean square of the difference of the features (Gatys et al. 2016, equation 1), in units of the
        photograph's, or of the floor if that is larger. style: mean over the layers of the squared distance of the
        covariances, in units of the style picture's, plus that of the means, in units of theirs. Content is about 1 for
        an empty picture, style about 2; both are 0 for a perfect one.

        With the calm places (B, 1, H, W) of the photographs, 1 there and 0 elsewhere, also "calm": the style loss of
        these places alone. Over the whole picture busy places make up for skies without a stroke.
        """
        ours, features = self._features(picture)
        check_shape(content, ours.shape, "content")
        check_shape(style, (len(picture),), "style")
        difference = ours.float() - content.float()
        unit = content.float().square().mean((1, 2, 3)).clamp(min=self.content_floor)  # (B)
        losses = {"content": difference.square().mean((1, 2, 3)) / unit, "style": self._style_loss(features, style)}
        if calm is not None:
            check_shape(calm, (len(picture), 1, *picture.shape[2:]), "calm")
            losses["calm"] = self._style_loss(features, style, calm)
        return losses

    @torch.no_grad()
    def covariance_distance(self, picture: Tensor, style: Tensor, factor: int = 1) -> Tensor:
        """(1, 3, H, W) and (1, 3, H', W'), both reduced by a factor -> (1): relative distance of the covariances.

        The mean over all layers.
        """
        layers = dict.fromkeys(sum(self.style_layers, ()))
        ours, theirs = (self.features(reduced(one, factor)) for one in (picture, style))
        pairs = [[mean_and_covariance(features[layer])[1] for features in (ours, theirs)] for layer in layers]
        return sum(relative_distance(a, b) for a, b in pairs) / len(layers)


def reduced(picture: Tensor, factor: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H/factor, W/factor), continued at its edges if a loss network could not see so little."""
    x = F.avg_pool2d(picture, factor)
    missing = [max(0, SMALLEST - side) for side in x.shape[2:]]
    return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x


def relative_distance(value: Tensor, target: Tensor) -> Tensor:
    """(B, ...) and (B, ...) -> (B): squared distance, in units of the target's square."""
    return (value - target).square().flatten(1).sum(1) / target.square().flatten(1).sum(1)


def mean_and_covariance(features: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) features -> (B, C) and (B, C, C), over all places; always float32.

    With places (B, 1, H', W'), reduced to the size of the features, each counts as much as they say.
    """
    if places is None:
        return MeanAndCovariance.apply(features, None)
    weights = F.adaptive_avg_pool2d(places.float(), features.shape[2:]).flatten(2).mT  # (B, H*W, 1)
    return MeanAndCovariance.apply(features, weights / weights.sum(1, keepdim=True))


class MeanAndCovariance(torch.autograd.Function):
    """mean_and_covariance with one product in the backward pass, and without a copy of the features less their mean.

    The weights (B, H*W, 1) of the places add up to 1.
    """

    @staticmethod
    def forward(ctx, features: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            x = _pixels(features).float()  # (B, H*W, C)
            if weights is None:
                weighted, share = x, 1 / x.shape[1]
            else:
                weighted, share = x * weights, 1
            mean = share * weighted.sum(1)  # (B, C)
            outer = mean[:, :, None] * mean[:, None, :]
            covariance = torch.baddbmm(outer, weighted.mT, x, beta=-1, alpha=share)
        ctx.save_for_backward(features, mean, weights)
        return mean, covariance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean: Tensor, grad_covariance: Tensor) -> tuple[Tensor, None]:
        features, mean, weights = ctx.saved_tensors
        x = _pixels(features)  # (B, H*W, C)
        share = 1 / x.shape[1] if weights is None else 1
        grad = share * (grad_covariance + grad_covariance.mT)  # (B, C, C)
        even = share * grad_mean - (grad @ mean[:, :, None])[:, :, 0]  # (B, C), the same at all places
        # In the features' precision: what is summed here are C products, not H*W.
        even, grad = even.to(x.dtype), grad.to(x.dtype)
        with torch.autocast(features.device.type, enabled=False):
            if features.is_contiguous():  # the gradient in the features' layout
                grad_x = torch.baddbmm(even[:, :, None], grad, x.mT).mT  # (B, H*W, C)
            else:
                grad_x = torch.baddbmm(even[:, None, :], x, grad)
        if weights is not None:
            grad_x.mul_(weights)
        return grad_x.mT.unflatten(2, features.shape[2:]), None


def _pixels(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C); free of charge where channels come last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def total_variation(picture: Tensor) -> Tensor:
    """(B, 3, H, W), sides of at least 2 -> (B): mean square of the differences between neighbours."""
    down = (picture[:, :, 1:] - picture[:, :, :-1]).square().mean((1, 2, 3))
    right = (picture[:, :, :, 1:] - picture[:, :, :, :-1]).square().mean((1, 2, 3))
    return down + right
