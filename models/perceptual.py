"""What a painting should be: like its photograph in content, like the style picture in style (Gatys, Johnson).

Used by the training of the painter, by the optimisation of a single picture, and by their judges alike. Each layer's
loss is relative to its target's own size, so that weights mean the same for every loss network.

Shapes: B pictures, S style pictures, C channels, H x W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.vgg import FeatureNetwork
from utils.tensors import check_shape

CONTENT_LAYER = {"vgg16": "relu3_3", "vgg19": "relu3_3", "squeezenet": "fire2", "classifier": "relu3"}
STYLE_LAYERS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_1"),
    "vgg19": ("relu1_2", "relu2_2", "relu3_3", "relu4_1"),
    "squeezenet": ("relu1", "fire3", "fire4", "fire5"),
    "classifier": ("relu0", "relu2", "relu4", "relu7"),
}
# Share of the style pictures' mean square: a plain grey photograph has hardly any features, and a loss relative to them
# would be thousands of times that of others. The plainest of 250 photographs still had twice this share.
CONTENT_FLOOR = 0.1


class PerceptualLoss(nn.Module):
    """Content and style loss of pictures against photographs and a fixed list of style pictures.

    Args:
        network, path: the loss network, see FeatureNetwork.
        style_images: each (1, 3, H, W) in 0..1, of different sizes if you like.
    """

    def __init__(self, network: str, style_images: Sequence[Tensor], path: str = ""):
        super().__init__()
        self.content_layer, self.style_layers = CONTENT_LAYER[network], STYLE_LAYERS[network]
        self.features = FeatureNetwork(network, (self.content_layer, *self.style_layers), path)
        with torch.no_grad():
            grams, squares = zip(*map(self._of_style, style_images), strict=True)
        self.register_buffer("content_floor", CONTENT_FLOOR * torch.stack(squares).mean())
        for layer in self.style_layers:
            self.register_buffer(f"gram_{layer}", torch.cat([gram[layer] for gram in grams]))  # (S, C, C)

    def _of_style(self, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The Gram matrices of a style picture, and the mean square of its content features."""
        features = self.features(image)
        return self._grams(features), features[self.content_layer].square().mean()

    def _grams(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {layer: gram_matrix(features[layer]) for layer in self.style_layers}

    @torch.no_grad()
    def content(self, photo: Tensor) -> Tensor:
        """What the content loss compares with: the features (B, C, H', W') of photographs (B, 3, H, W) in 0..1."""
        return self.features(photo, last=self.content_layer)[self.content_layer]

    def forward(self, picture: Tensor, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        """picture (B, 3, H, W), its photographs' `content`, numbers of style pictures (B) -> {"content", "style"}: (B).

        content: mean square of the difference of the features (Gatys et al. 2016, equation 1), in units of the
        photograph's, or of the floor if that is larger. style: mean over the layers of the squared distance of the
        Gram matrices (equation 4), in units of the style picture's. Both are 0 for a perfect picture and about 1 for
        an empty one.
        """
        features = self.features(picture)
        check_shape(content, features[self.content_layer].shape, "content")
        check_shape(style, (len(picture),), "style")
        difference = features[self.content_layer].float() - content.float()
        unit = content.float().square().mean((1, 2, 3)).clamp(min=self.content_floor)  # (B)
        content_loss = difference.square().mean((1, 2, 3)) / unit  # (B)
        style_loss = 0
        for layer, gram in self._grams(features).items():
            target = getattr(self, f"gram_{layer}")[style]  # (B, C, C)
            style_loss = style_loss + (gram - target).square().sum((1, 2)) / target.square().sum((1, 2))
        return {"content": content_loss, "style": style_loss / len(self.style_layers)}  # Gatys' w_l = 1 / layers


def gram_matrix(features: Tensor) -> Tensor:
    """(B, C, H, W) features -> (B, C, C): channels times channels, divided by C*H*W; always float32: fp16 overflows."""
    return GramMatrix.apply(features)


class GramMatrix(torch.autograd.Function):
    """gram_matrix with one product in the backward pass instead of the two that autograd makes for x @ x.T."""

    @staticmethod
    def forward(ctx, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        with torch.autocast(features.device.type, enabled=False):
            x = _pixels(features).float()  # (B, H*W, C)
            return x.mT.bmm(x) / x[0].numel()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        batch, channels, height, width = features.shape
        x = _pixels(features)  # (B, H*W, C)
        grad = (grad + grad.mT) / x[0].numel()  # (B, C, C)
        # In the features' precision: what is summed here are C products, not H*W.
        with torch.autocast(features.device.type, enabled=False):
            grad_x = x.bmm(grad.to(x.dtype))  # (B, H*W, C)
        return grad_x.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _pixels(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C); free of charge where channels come last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def total_variation(picture: Tensor) -> Tensor:
    """(B, 3, H, W), sides of at least 2 -> (B): mean square of the differences between neighbours."""
    down = (picture[:, :, 1:] - picture[:, :, :-1]).square().mean((1, 2, 3))
    right = (picture[:, :, :, 1:] - picture[:, :, :, :-1]).square().mean((1, 2, 3))
    return down + right
