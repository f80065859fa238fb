"""LeNet: the smallest classifier here, and the one to read first. It has no pretrained weights.

LeNet-5 (LeCun et al. 1998, figure 2) for coloured pictures of any size, with ReLU and maximum pooling instead of the
sigmoids and means of its time. Shapes: B pictures, H x W pixels, K classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier import Classifier

PLACES = 5  # a side of the pooled maps: the linear layers need a fixed number of inputs, whatever the picture's size


class LeNet(Classifier):
    """The network above. Args: names of the classes; `dropout` before the last layer."""

    head = "fc3."

    def __init__(self, classes: list[str], dropout: float = 0.2):
        super().__init__(classes, dropout=dropout)
        # A convolution looks at 5 x 5 pixels at a time and has a small picture of weights for each output channel.
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        # A linear layer looks at everything at once; the last one has an output, the logit, for each class.
        self.fc1 = nn.Linear(16 * PLACES * PLACES, 120)
        self.fc2 = nn.Linear(120, 84)
        self.dropout = nn.Dropout(dropout)
        self.fc3 = nn.Linear(84, len(classes))
        self.initialise()

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1, sides of 16 pixels or more -> (B, 16, about H/4, about W/4)."""
        x = self.normalise(image)  # (B, 3, H, W)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (B, 6, (H-4)/2, (W-4)/2)
        return F.max_pool2d(F.relu(self.conv2(x)), 2)  # (B, 16, ((H-4)/2-4)/2, ((W-4)/2-4)/2)

    def pool(self, maps: Tensor) -> Tensor:
        """(B, 16, h, w) -> (B, 16, 5, 5): means over as many parts of the picture."""
        return F.adaptive_avg_pool2d(maps, PLACES)

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, 16, h, w) -> logits (B, K): the softmax is the loss's business."""
        x = self.pool(maps).flatten(1)  # (B, 400)
        x = F.relu(self.fc1(x))  # (B, 120)
        x = F.relu(self.fc2(x))  # (B, 84)
        return self.fc3(self.dropout(x))  # (B, K)
