"""The style network of pytorch/examples' fast_neural_style, written here plainly from its well-known structure.

It is what models/transformer_net.py is compared with: the same pictures (tests) in how much time (benchmarks). Pictures
are 0..255 in and out, and a size that is no multiple of 4 is rounded up, as there. Nothing is painted with it.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class ReferenceNet(nn.Module):
    """(B, 3, H, W) of 0..255 -> (B, 3, H', W') of about 0..255, H' and W' rounded up to a multiple of 4.

    `channels` (32, 64, 128) are those of the published weights.
    """

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 128), blocks: int = 5):
        super().__init__()
        full, half, quarter = channels
        self.blocks = blocks
        self.conv1 = PaddedConv(3, full, 9, 1)
        self.in1 = nn.InstanceNorm2d(full, affine=True)
        self.conv2 = PaddedConv(full, half, 3, 2)
        self.in2 = nn.InstanceNorm2d(half, affine=True)
        self.conv3 = PaddedConv(half, quarter, 3, 2)
        self.in3 = nn.InstanceNorm2d(quarter, affine=True)
        for number in range(1, blocks + 1):
            self.add_module(f"res{number}", Residual(quarter))
        self.deconv1 = PaddedConv(quarter, half, 3, 1)
        self.in4 = nn.InstanceNorm2d(half, affine=True)
        self.deconv2 = PaddedConv(half, full, 3, 1)
        self.in5 = nn.InstanceNorm2d(full, affine=True)
        self.deconv3 = PaddedConv(full, 3, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.in1(self.conv1(x)))
        x = F.relu(self.in2(self.conv2(x)))
        x = F.relu(self.in3(self.conv3(x)))
        for number in range(1, self.blocks + 1):
            x = self.get_submodule(f"res{number}")(x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.in4(self.deconv1(x)))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.in5(self.deconv2(x)))
        return self.deconv3(x)


class PaddedConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2d(self.reflection_pad(x))


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = PaddedConv(channels, channels, 3, 1)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = PaddedConv(channels, channels, 3, 1)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(F.relu(self.in1(self.conv1(x)))))
