"""ResNet-34: 34 layers that can be trained because each block only has to learn what to add to its input.

He et al. 2016, "Deep Residual Learning for Image Recognition", table 1, with torchvision's names of the parameters.
Shapes: B pictures, C channels, H x W pixels, K classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier import Classifier

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels, blocks; all but the first halve the picture's sides


class ResNet34(Classifier):
    """The network above. Args: names of the classes; `dropout` before the last layer (the paper has none)."""

    head = "fc."
    imagenet = "ResNet34_Weights"

    def __init__(self, classes: list[str], dropout: float = 0.0):
        super().__init__(classes, dropout=dropout)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)  # BatchNorm has a bias of its own
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for number, (channels, blocks) in enumerate(STAGES, 1):
            first = BasicBlock(inputs, channels, stride=1 if number == 1 else 2)
            others = (BasicBlock(channels, channels) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
            inputs = channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, len(classes))
        self.initialise()

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1 -> (B, 512, H/32, W/32), rounded up."""
        x = self.normalise(image)  # (B, 3, H, W)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, 64, H/2, W/2)
        x = self.layer1(self.maxpool(x))  # (B, 64, H/4, W/4)
        x = self.layer2(x)  # (B, 128, H/8, W/8)
        x = self.layer3(x)  # (B, 256, H/16, W/16)
        return self.layer4(x)  # (B, 512, H/32, W/32)

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, 512, h, w) -> logits (B, K)."""
        x = self.pool(maps).flatten(1)  # (B, 512)
        return self.fc(self.dropout(x))  # (B, K)


class BasicBlock(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x)))))); where the shape changes, x goes through a 1 x 1 convolution (option B)."""

    def __init__(self, inputs: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or inputs != channels:
            shortcut = nn.Conv2d(inputs, channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, channels, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)
