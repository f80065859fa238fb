"""MobileNetV2: torchvision's network as a Classifier. The default: small, fast, and its features are good.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".

Shapes: B pictures, H x W pixels, K classes.
"""

from torch import Tensor

from models.classifier import Classifier


class MobileNetV2(Classifier):
    """The network above. Args: names of the classes; `dropout` before the last layer."""

    head = "classifier."
    imagenet = "MobileNet_V2_Weights"

    def __init__(self, classes: list[str], dropout: float = 0.2):
        super().__init__(classes, dropout=dropout)
        import torchvision  # takes a second: only if it is needed

        network = torchvision.models.mobilenet_v2(weights=None, num_classes=len(classes), dropout=dropout)
        self.features, self.classifier = network.features, network.classifier

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1 -> (B, 1280, H/32, W/32), rounded up."""
        return self.features(self.normalise(image))

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, 1280, h, w) -> logits (B, K)."""
        return self.classifier(self.pool(maps).flatten(1))  # (B, 1280) -> (B, K)
