"""What a painting should be: like its photograph in content, like the style picture in style (Gatys, Johnson, Heitz).

Used by the training of the painter, by the optimisation of a single picture, and by their judges alike. Each layer's
loss is relative to its target's own size, so that weights mean the same for every loss network.

Shapes: B pictures, S style pictures, C channels, H x W pixels, N drawn pixels, K directions.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
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
COLORS = "colors"  # the picture itself, as one more layer at each size
# Share of the style pictures' mean square: a plain grey photograph has hardly any features, and a loss relative to them
# would be thousands of times that of others. The plainest of 250 photographs still had twice this share.
CONTENT_FLOOR = 0.1
DRAWN = 1024  # pixels of a layer that are compared at a time
DIRECTIONS = 64  # that they are compared along
STORED = 4096  # pixels of each layer that are kept of a style picture


class PerceptualLoss(nn.Module):
    """Content and style loss of pictures against photographs and a fixed list of style pictures.

    Style is what the features of a picture's pixels are, wherever they are: a cloud of points, one a pixel. Gram
    matrices, which are usual, and covariances know how far such a cloud extends, but not what it looks like: a painter
    may mix the style's black and white into grey. So whole distributions are compared, by the sliced Wasserstein
    distance (Heitz et al. 2021, A Sliced Wasserstein Loss for Neural Texture Synthesis), of some pixels at a time.
    Content is compared at half the size: strokes may take the place of the photograph's detail. Style is compared at
    three sizes.

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
            contents, styles = zip(*map(self._features, style_images), strict=True)
            within = spread_out(STORED, Generator().manual_seed(0))
            squares = torch.stack([content.square().mean() for content in contents])
            self.register_buffer("content_floor", CONTENT_FLOOR * squares.mean())
            for level in styles[0]:  # 1_relu1_2, 1_relu2_2, 1_colors, 2_relu3_1 …
                spread = torch.cat([_pixels(style[level]).float().var(1).mean(1) for style in styles])  # (S)
                self.register_buffer(f"spread_{level}", spread.clamp(min=1e-6))
                stored = torch.cat([draw(style[level], within) for style in styles])  # (S, STORED, C)
                self.register_buffer(f"pixels_{level}", stored)

    def _features(self, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The content layer of (B, 3, H, W), and the style layers as FACTOR_LAYER."""
        by_factor, style = {}, {}
        for factor, layers in zip(FACTORS, self.style_layers, strict=True):
            smaller = reduced(picture, factor) if factor > 1 else picture
            by_factor[factor] = self.features(smaller, last=layers[-1]) | {COLORS: smaller}
            style |= {f"{factor}_{name}": by_factor[factor][name] for name in (*layers, COLORS)}
        return by_factor[2][self.content_layer], style

    def _style_losses(
        self, features: dict[str, Tensor], style: Tensor, places: dict[str, Tensor | None], random: Generator | None
    ) -> dict[str, Tensor]:
        """{name: the mean over the layers plus that over the colours (B)}, at the places of this name; None: all."""
        losses = {name: torch.zeros(len(style), device=style.device) for name in places}
        for level, maps in features.items():
            directions = F.normalize(torch.randn(maps.shape[1], DIRECTIONS, generator=random), dim=0).to(maps.device)
            within = spread_out(DRAWN, random)
            chosen = (within * STORED).long().to(style.device)
            theirs = getattr(self, f"pixels_{level}")[style[:, None], chosen]  # (B, N, C)
            unit = getattr(self, f"spread_{level}")[style]  # (B), the mean square along a direction around the mean
            share = 1 / (len(FACTORS) if level.endswith(COLORS) else len(features) - len(FACTORS))
            for name, where in places.items():
                distance = sliced_wasserstein(draw(maps, within, where), theirs, directions)
                losses[name] = losses[name] + share * distance / unit
        return losses

    @torch.no_grad()
    def content(self, photo: Tensor) -> Tensor:
        """What the content loss compares with: the features (B, C, H', W') of photographs (B, 3, H, W) in 0..1."""
        return self.features(reduced(photo, 2), last=self.content_layer)[self.content_layer]

    def forward(
        self, picture: Tensor, content: Tensor, style: Tensor, calm: Tensor | None = None, seed: int | None = None
    ) -> dict[str, Tensor]:
        """picture (B, 3, H, W), its photographs' `content`, numbers of style pictures (B) -> {"content", "style"}: (B).

        content: mean square of the difference of the features (Gatys et al. 2016, equation 1), in units of the
        photograph's, or of the floor if that is larger. style: the squared sliced Wasserstein distance to the style
        picture, in units of its variance; mean over the layers, plus that of the colours at the three sizes. Content is
        about 1 for an empty picture, style about 2; both are about 0 for a perfect one.

        With the calm places (B, 1, H, W) of the photographs, 1 there and 0 elsewhere, also "calm": the style loss of
        these places alone. Over the whole picture busy places make up for skies without a stroke.

        Which pixels and directions are compared is drawn, anew each time; with a seed they are always the same.
        """
        ours, features = self._features(picture)
        check_shape(content, ours.shape, "content")
        check_shape(style, (len(picture),), "style")
        difference = ours.float() - content.float()
        unit = content.float().square().mean((1, 2, 3)).clamp(min=self.content_floor)  # (B)
        random = None if seed is None else Generator().manual_seed(seed)
        places: dict[str, Tensor | None] = {"style": None}
        if calm is not None:
            check_shape(calm, (len(picture), 1, *picture.shape[2:]), "calm")
            places["calm"] = calm
        with torch.autocast(picture.device.type, enabled=False):
            losses = self._style_losses(features, style, places, random)
        return {"content": difference.square().mean((1, 2, 3)) / unit, **losses}

    @torch.no_grad()
    def covariance_distance(self, picture: Tensor, style: Tensor, factor: int = 1) -> Tensor:
        """(1, 3, H, W) and (1, 3, H', W'), both reduced by a factor -> (1): relative distance of the covariances.

        The mean over all layers.
        """
        layers = dict.fromkeys(sum(self.style_layers, ()))
        ours, theirs = (self.features(reduced(one, factor)) for one in (picture, style))
        pairs = [[_pixels(features[layer])[0].float().mT.cov() for features in (ours, theirs)] for layer in layers]
        return sum((a - b).square().sum() / b.square().sum() for a, b in pairs)[None] / len(layers)


def reduced(picture: Tensor, factor: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H/factor, W/factor), continued at its edges if a loss network could not see so little."""
    x = F.avg_pool2d(picture, factor)
    missing = [max(0, SMALLEST - side) for side in x.shape[2:]]
    return F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x


def spread_out(count: int, random: Generator | None = None) -> Tensor:
    """(N), N = `count` numbers in 0..1 in order, one drawn in each N-th of it."""
    return (torch.arange(count) + torch.rand(count, generator=random)) / count


def draw(maps: Tensor, within: Tensor, places: Tensor | None = None) -> Tensor:
    """(B, C, H, W) -> (B, N, C) float32: the features of the places that lie `within` (N), in 0..1, of the picture.

    With places (B, 1, H', W'), reduced to the size of the features, each takes as much of 0..1 as they say.
    """
    pixels = _pixels(maps)  # (B, H*W, C)
    if places is None:
        weights = pixels.new_ones(pixels.shape[:2], dtype=torch.float32)
    else:
        weights = F.adaptive_avg_pool2d(places.float(), maps.shape[2:]).flatten(1)  # (B, H*W)
    upto = weights.cumsum(1)
    index = torch.searchsorted(upto, within.to(upto.device) * upto[:, -1:], right=True)  # (B, N)
    index = index.clamp(max=upto.shape[1] - 1)
    return pixels[torch.arange(len(maps), device=index.device)[:, None], index].float()


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Two clouds of points (B, N, C) and directions (C, K) of length 1 -> (B): their squared distance.

    Along a direction, the shortest way to move one cloud into the other keeps their order: the mean square over points
    in order, and over the directions (Heitz et al. 2021). Raises ValueError if one has more points.
    """
    if x.shape != y.shape:
        raise ValueError(f"two clouds of {tuple(x.shape)} and {tuple(y.shape)}")
    along = [(points @ directions).mT.contiguous().sort(2).values for points in (x, y)]  # (B, K, N)
    return (along[0] - along[1]).square().mean((1, 2))


def _pixels(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C); free of charge where channels come last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def total_variation(picture: Tensor) -> Tensor:
    """(B, 3, H, W), sides of at least 2 -> (B): mean square of the differences between neighbours."""
    down = (picture[:, :, 1:] - picture[:, :, :-1]).square().mean((1, 2, 3))
    right = (picture[:, :, :, 1:] - picture[:, :, :, :-1]).square().mean((1, 2, 3))
    return down + right
