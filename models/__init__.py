"""The networks. Each is imported here, so that BaseModule.load can rebuild any of them from its file."""

from models.classifier import Classifier
from models.efficientnet import EfficientNetLite0
from models.lenet import LeNet
from models.mobilenet_v2 import MobileNetV2
from models.poet import Poet
from models.resnet34 import ResNet34
from models.squeezenet import SqueezeNet
from models.transformer_net import StyleNetworks, TransformerNet

BACKBONES: dict[str, type[Classifier]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "mobilenet_v2": MobileNetV2,
    "squeezenet1_1": SqueezeNet,
    "resnet34": ResNet34,
    "lenet": LeNet,
}

__all__ = [
    "BACKBONES",
    "Classifier",
    "EfficientNetLite0",
    "LeNet",
    "MobileNetV2",
    "Poet",
    "ResNet34",
    "SqueezeNet",
    "StyleNetworks",
    "TransformerNet",
]
