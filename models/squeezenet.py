"""SqueezeNet 1.1: torchvision's network as a Classifier, a third of MobileNetV2's parameters.

Iandola et al. 2016, in the authors' version 1.1. Shapes: B pictures, H x W pixels, K classes.
"""

from torch import Tensor

from models.classifier import Classifier


class SqueezeNet(Classifier):
    """The network above. Args: names of the classes; `dropout` before the last layer."""

    head = "classifier."
    imagenet = "SqueezeNet1_1_Weights"

    def __init__(self, classes: list[str], dropout: float = 0.5):
        super().__init__(classes, dropout=dropout)
        import torchvision  # takes a second: only if it is needed

        network = torchvision.models.squeezenet1_1(weights=None, num_classes=len(classes), dropout=dropout)
        self.features, self.classifier = network.features, network.classifier

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1 -> (B, 512, about H/16, about W/16)."""
        return self.features(self.normalise(image))

    def pool(self, maps: Tensor) -> Tensor:
        """The maps (B, 512, h, w) themselves: there is a ReLU between the last layer and its pooling."""
        return maps

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, 512, h, w) -> logits (B, K)."""
        return self.classifier(maps).flatten(1)  # dropout, convolution, ReLU, mean: (B, K, 1, 1) -> (B, K)
