"""LPIPS 0.1: how different two pictures look, by the features of a frozen SqueezeNet (Zhang et al. 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.basemodule import check_shape, read_state_dict, unwrap
from models.loss_networks import FeatureNetwork
from utils.errors import UserError

LAYERS = ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


class LPIPS(nn.Module):
    """The learned perceptual image patch similarity, with SqueezeNet 1.1 (a file; empty: torchvision's download).

    `linear` has the weights of the channels: lin0.weight … lin6.weight, each (1, C, 1, 1), or is the authors'
    squeeze.pth. Raises UserError for a file that does not fit.
    """

    def __init__(self, linear: str, squeezenet: str = ""):
        super().__init__()
        self.features = FeatureNetwork("squeezenet", LAYERS, squeezenet)
        tensors = unwrap(read_state_dict(linear), linear)
        for i, channels in enumerate(CHANNELS):
            weight = tensors.get(f"lin{i}.weight", tensors.get(f"lin{i}.model.1.weight"))  # (1, C, 1, 1)
            if weight is None or weight.shape != (1, channels, 1, 1):
                raise UserError(f"{linear} does not hold LPIPS's weights for SqueezeNet: lin{i}.weight is unlike them")
            self.register_buffer(f"lin{i}", weight.float())

    @torch.no_grad()
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two times (B, 3, H, W) in 0..1 -> (B): 0 for equal pictures, about 1 for unlike ones.

        Equation 1 of the paper: features of unit length in each pixel, squared differences weighted by channel.
        """
        check_shape(other, one.shape, "other")
        distance = torch.zeros(len(one), device=one.device)  # (B)
        ones, others = self.features(one), self.features(other)
        for i, layer in enumerate(LAYERS):
            difference = _unit(ones[layer]) - _unit(others[layer])  # (B, C, H', W')
            distance += F.conv2d(difference.square(), getattr(self, f"lin{i}")).mean((1, 2, 3))
        return distance


def _unit(features: Tensor) -> Tensor:
    """(B, C, H, W), each pixel divided by its length over the channels."""
    features = features.float()
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)
