"""MobileNetV2: torchvision's network as a Classifier. The default: small, fast, and its features are good.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks". Shapes: B pictures, H x W pixels, K
classes.
"""

import torch
from torch import Tensor, nn

from models.classifier import Classifier


class StridedDepthwise(nn.Conv2d):
    """A strided depthwise convolution with the parameters of `like`, on a CPU in fp32: its gradient crawls in bf16."""

    def __init__(self, like: nn.Conv2d):
        sizes = (like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding)
        super().__init__(*sizes, groups=like.groups, bias=False, device="meta")  # draws no random numbers
        self.weight = like.weight

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H', W'), in the dtype of x or, without a gradient of x, in autocast's."""
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or not x.requires_grad:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


class MobileNetV2(Classifier):
    """The network above. Args: names of the classes; `dropout` before the last layer."""

    head = "classifier."
    imagenet = "MobileNet_V2_Weights"

    def __init__(self, classes: list[str], dropout: float = 0.2):
        super().__init__(classes, dropout=dropout)
        import torchvision  # takes a second: only if it is needed

        network = torchvision.models.mobilenet_v2(weights=None, num_classes=len(classes), dropout=dropout)
        for layers in network.features.modules():
            if isinstance(layers, nn.Sequential) and isinstance(layers[0], nn.Conv2d):
                if layers[0].groups > 1 and layers[0].stride != (1, 1):
                    layers[0] = StridedDepthwise(layers[0])
        self.features, self.classifier = network.features, network.classifier

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1 -> (B, 1280, H/32, W/32), rounded up."""
        return self.features(self.normalise(image))

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, 1280, h, w) -> logits (B, K)."""
        return self.classifier(self.pool(maps).flatten(1))  # (B, 1280) -> (B, K)
