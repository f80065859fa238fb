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
# Of the picture itself, and of the picture at half its size, whose layers see twice as far for a quarter of the time.
STYLE_LAYERS = {
    "vgg16": (("relu1_2", "relu2_2"), ("relu3_1", "relu4_1")),
    "vgg19": (("relu1_2", "relu2_2"), ("relu3_1", "relu4_1")),
    "squeezenet": (("relu1", "fire3"), ("fire4", "fire5")),
    "classifier": (("relu0", "relu2"), ("relu4", "relu7")),
}
# Share of the style pictures' mean square: a plain grey photograph has hardly any features, and a loss relative to them
# would be thousands of times that of others. The plainest of 250 photographs still had twice this share.
CONTENT_FLOOR = 0.1


class PerceptualLoss(nn.Module):
    """Content and style loss of pictures against photographs and a fixed list of style pictures.

    Gram matrices, which are usual, mix the mean of the features with how they vary together, and the mean outweighs the
    rest: a network can halve their distance without a single stroke. Here the mean and the covariance count by
    themselves. Content is compared at half the size: strokes may take the place of the photograph's detail.

    Args:
        network, path: the loss network, see FeatureNetwork.
        style_images: each (1, 3, H, W) in 0..1, of different sizes if you like.
    """

    def __init__(self, network: str, style_images: Sequence[Tensor], path: str = ""):
        super().__init__()
        self.content_layer, (self.fine, self.coarse) = CONTENT_LAYER[network], STYLE_LAYERS[network]
        self.features = FeatureNetwork(network, (self.content_layer, *self.fine, *self.coarse), path)
        with torch.no_grad():
            statistics, squares = zip(*map(self._of_style, style_images), strict=True)
        self.register_buffer("content_floor", CONTENT_FLOOR * torch.stack(squares).mean())
        for layer in (*self.fine, *self.coarse):
            means, covariances = zip(*(one[layer] for one in statistics), strict=True)
            self.register_buffer(f"mean_{layer}", torch.cat(means))  # (S, C)
            self.register_buffer(f"covariance_{layer}", torch.cat(covariances))  # (S, C, C)

    def _of_style(self, image: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """The statistics of a style picture, and the mean square of its content features."""
        features = self._features(image)
        statistics = {layer: mean_and_covariance(features[layer]) for layer in (*self.fine, *self.coarse)}
        return statistics, features[self.content_layer].square().mean()

    def _features(self, picture: Tensor) -> dict[str, Tensor]:
        """The style layers of (B, 3, H, W), and the content layer."""
        fine = self.features(picture, last=self.fine[-1])
        coarse = self.features(reduced(picture, 2))
        return {name: fine[name] for name in self.fine} | {
            name: coarse[name] for name in (self.content_layer, *self.coarse)
        }

    def _style_loss(self, features: dict[str, Tensor], style: Tensor, places: Tensor | None = None) -> Tensor:
        """The mean over the layers of the relative distances of means and covariances: (B)."""
        total = 0
        for layer in (*self.fine, *self.coarse):
            mean, covariance = mean_and_covariance(features[layer], places)
            means, covariances = getattr(self, f"mean_{layer}")[style], getattr(self, f"covariance_{layer}")[style]
            total = total + relative_distance(mean, means) + relative_distance(covariance, covariances)
        return total / (len(self.fine) + len(self.coarse))

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
        features = self._features(picture)
        check_shape(content, features[self.content_layer].shape, "content")
        check_shape(style, (len(picture),), "style")
        difference = features[self.content_layer].float() - content.float()
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
        layers = (*self.fine, *self.coarse)
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
        return MeanAndCovariance.apply(features)
    weights = F.adaptive_avg_pool2d(places.float(), features.shape[2:]).flatten(2).mT  # (B, H*W, 1)
    weights = weights / weights.sum(1, keepdim=True)
    with torch.autocast(features.device.type, enabled=False):
        x = _pixels(features).float()  # (B, H*W, C)
        weighted = x * weights
        mean = weighted.sum(1)  # (B, C)
        return mean, weighted.mT @ x - mean[:, :, None] * mean[:, None, :]


class MeanAndCovariance(torch.autograd.Function):
    """mean_and_covariance with one product in the backward pass, and without a copy of the features less their mean."""

    @staticmethod
    def forward(ctx, features: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            x = _pixels(features).float()  # (B, H*W, C)
            mean = x.mean(1)  # (B, C)
            covariance = torch.baddbmm(mean[:, :, None] * mean[:, None, :], x.mT, x, beta=-1, alpha=1 / x.shape[1])
        ctx.save_for_backward(features, mean)
        return mean, covariance

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean: Tensor, grad_covariance: Tensor) -> Tensor:
        features, mean = ctx.saved_tensors
        batch, channels, height, width = features.shape
        x = _pixels(features)  # (B, H*W, C)
        grad = (grad_covariance + grad_covariance.mT) / x.shape[1]  # (B, C, C)
        even = grad_mean / x.shape[1] - (grad @ mean[:, :, None])[:, :, 0]  # (B, C), the same at all places
        # In the features' precision: what is summed here are C products, not H*W.
        even, grad = even.to(x.dtype), grad.to(x.dtype)
        with torch.autocast(features.device.type, enabled=False):
            if features.is_contiguous():  # the gradient in the features' layout
                return torch.baddbmm(even[:, :, None], grad, x.mT).view(features.shape)
            grad_x = torch.baddbmm(even[:, None, :], x, grad)  # (B, H*W, C)
        return grad_x.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _pixels(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C); free of charge where channels come last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def total_variation(picture: Tensor) -> Tensor:
    """(B, 3, H, W), sides of at least 2 -> (B): mean square of the differences between neighbours."""
    down = (picture[:, :, 1:] - picture[:, :, :-1]).square().mean((1, 2, 3))
    right = (picture[:, :, :, 1:] - picture[:, :, :, :-1]).square().mean((1, 2, 3))
    return down + right
