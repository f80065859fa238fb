"""Loss networks: frozen, pretrained features by layer name. They compare pictures; nothing here is trained.

VGG-16 and VGG-19 (Simonyan & Zisserman 2015) and SqueezeNet 1.1 (Iandola et al. 2016), in torchvision's names, and
`classifier`: MobileNetV2 (Sandler et al. 2018), as it has learned to tell cats from dogs. Shapes: B pictures, C
channels, H x W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.basemodule import check_shape, read_state_dict, unwrap
from models.classifier import IMAGENET_MEAN, IMAGENET_STD, cached_weights_path, download, fold_batchnorm
from utils.errors import UserError, did_you_mean
from utils.hardware import nnpack_is_faster

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # in each block
NETWORKS = (*CONVOLUTIONS, "squeezenet", "classifier")
DOWNLOADS = {
    "vgg16": "VGG16_Weights",
    "vgg19": "VGG19_Weights",
    "squeezenet": "SqueezeNet1_1_Weights",
    "classifier": "MobileNet_V2_Weights",
}
LARGE = 32  # pixels: maps of which NNPACK is faster
SMALLEST = 17  # pixels: of a shorter side the pooling leaves nothing


def choose_network(wanted: str, path: str, classifier: str) -> tuple[str, str, str]:
    """(network, its weight file, why this one).

    `wanted` is one of NETWORKS, or auto: vgg16 if `path` is given or torchvision's download is there already, else the
    `classifier` in its file, which needs no download and need not exist.
    """
    at_hand = Path(classifier).is_file()
    if wanted != "auto":
        return wanted, path or (classifier if wanted == "classifier" and at_hand else ""), "asked for"
    if path:
        return "vgg16", path, "its weights are given"
    if cached_weights_path(DOWNLOADS["vgg16"])[1].exists():
        return "vgg16", "", "its weights have been downloaded before"
    if at_hand:
        return "classifier", classifier, "no VGG-16 is at hand; loss_network=vgg16 downloads it"
    return "vgg16", "", "the default"


def layer_names(network: str) -> dict[str, int]:
    """{name: index in torchvision's `features`}: relu1_1, relu1_2 …; of SqueezeNet relu1, fire2 … fire9.

    Of the classifier relu0, relu2 … relu17: the wide layer that a block begins with, see `_expansion`.
    """
    if network == "squeezenet":
        return {"relu1": 1} | {f"fire{i}": index for i, index in enumerate((3, 4, 6, 7, 9, 10, 11, 12), 2)}
    if network == "classifier":
        return {f"relu{index}": index for index in (0, *range(2, 18))}
    names, index = {}, 0
    for block, count in enumerate(CONVOLUTIONS[network], 1):
        for number in range(1, count + 1):
            names[f"relu{block}_{number}"] = index + 1
            index += 2
        index += 1  # the pooling
    return names


class FeatureNetwork(nn.Module):
    """The first layers of a pretrained network, as far as `layers` needs them; frozen, always in eval mode.

    `path` is a weight file with torchvision's names; empty: its download. Raises UserError for an unknown layer, a file
    that does not fit, or weights that cannot be had.
    """

    def __init__(self, network: str, layers: Sequence[str], path: str = ""):
        super().__init__()
        names = layer_names(network)
        for layer in layers:
            if layer not in names:
                known = f"{', '.join(names)}{did_you_mean(layer, names)}"
                raise UserError(f"{network} has no layer {layer}: it has {known}")
        self.taps = {names[layer]: layer for layer in layers}
        with torch.device("meta"):  # the weights come from the file: no time for random ones
            self.features = _features(network)[: max(self.taps) + 1]
        self._load(network, path)
        self.classifier = network == "classifier"
        if self.classifier:
            self.expansions = nn.ModuleDict({name: _expansion(self.features[i]) for i, name in self.taps.items()})
            self.features[-1] = nn.Identity()  # of the last block only the expansion is looked at
            fold_batchnorm(self.features.eval())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()
        self.layout = torch.channels_last
        if network in CONVOLUTIONS and nnpack_is_faster():
            self.layout = torch.contiguous_format
            self.features = nn.Sequential(*map(_by_nnpack, self.features))
        self.to(memory_format=self.layout)

    def _load(self, network: str, path: str) -> None:
        path = path or str(download(network, DOWNLOADS[network], "vgg"))
        tensors = unwrap(read_state_dict(path), path)
        own = {k: v for k, v in self.features.state_dict().items() if not k.endswith("num_batches_tracked")}
        found = {k: tensors[f"features.{k}"].float() for k in own if f"features.{k}" in tensors}
        wrong = [k for k, v in own.items() if k not in found or found[k].shape != v.shape]
        if wrong:
            what = f"features.{wrong[0]} is missing or of another shape; give its network's name as loss_network"
            raise UserError(f"{path} does not hold {network} up to {self.taps[max(self.taps)]}: {what}")
        self.features.load_state_dict(found, strict=False, assign=True)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stays in eval mode: a loss must not change while something else is trained."""
        return super().train(False)

    def forward(self, image: Tensor, last: str = "") -> dict[str, Tensor]:
        """image (B, 3, H, W) in 0..1 -> {layer: its activations (B, C, H', W')}; `last`: no further than this layer.

        Raises UserError if a side is shorter than SMALLEST.
        """
        check_shape(image, (None, 3, None, None), "image")  # a grey one would become three times the same
        height, width = image.shape[2:]
        if min(height, width) < SMALLEST:
            raise UserError(f"a picture of {width} x {height} pixels is too small to judge: {SMALLEST} a side at least")
        x = (image - self.mean) / self.std
        if self.classifier:
            # Its first convolution looks at every other pixel, and what is made to please it gets a pattern of that
            # width. Of the enlarged picture it looks at all of them.
            x = F.interpolate(x, scale_factor=2, mode="bilinear")  # (B, 3, 2 H, 2 W)
        x = x.contiguous(memory_format=self.layout)
        result = {}
        for index, layer in enumerate(self.features):
            name = self.taps.get(index)
            if not self.classifier:
                x = layer(x)
            if name:
                result[name] = self.expansions[name](x) if self.classifier else x
                if name == last:
                    break
            if self.classifier:  # whose taps look at what goes into a layer
                x = layer(x)
        return result


class NNPackConv2d(nn.Conv2d):
    """A frozen 3 x 3 convolution that large maps in float32 get by Winograd's algorithm, and so their gradient."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if plain or min(x.shape[2:]) < LARGE:
            return super().forward(x)
        if not hasattr(self, "turned"):
            self.turned = self.weight.flip(2, 3).transpose(0, 1).contiguous()
        return _NNPack.apply(x, self.weight, self.bias, self.turned)


class _NNPack(torch.autograd.Function):
    """NNPACK's convolution with one pixel of padding; `turned` is the kernel of its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, turned: Tensor) -> Tensor:
        ctx.turned = turned
        return _nnpack(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _nnpack(grad, ctx.turned, None), None, None, None


def _nnpack(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    pictures = [torch._nnpack_spatial_convolution(one, weight, bias, 1) for one in x.contiguous().split(1)]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures)  # of more at once it is slower


def _by_nnpack(layer: nn.Module) -> nn.Module:
    """The layer, or the same convolution as NNPackConv2d if it is one with enough channels."""
    if not isinstance(layer, nn.Conv2d) or layer.in_channels < 16:
        return layer
    result = NNPackConv2d(layer.in_channels, layer.out_channels, 3, padding=1, device="meta")
    result.weight, result.bias = layer.weight, layer.bias
    return result


def _features(network: str) -> nn.Sequential:
    import torchvision  # takes a second: only if it is needed

    name = {"squeezenet": "squeezenet1_1", "classifier": "mobilenet_v2"}.get(network, network)
    return getattr(torchvision.models, name)(weights=None).features


def _expansion(block: nn.Module) -> nn.Sequential:
    """(B, C, H, W), what goes into a block of MobileNetV2 -> (B, 6 C, H, W): its wide first layer, for a loss.

    The channels are as BatchNorm measured them in training, mean 0 and variance 1, and then a ReLU: they count alike.
    The block's own, scaled and shifted and cut off at 6, have large means, and pictures of equal means little of the
    style. Nor do the narrow layers between blocks, which have no ReLU, serve (docs/decisions.md).
    """
    conv, norm, _ = block.conv[0] if hasattr(block, "conv") else block  # and ReLU6
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, affine=False).eval()
    plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    return nn.Sequential(nn.utils.fuse_conv_bn_eval(conv.eval(), plain), nn.ReLU(inplace=True))
