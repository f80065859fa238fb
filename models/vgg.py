"""Loss networks: frozen, pretrained features by layer name. They judge pictures; nothing here is trained.

VGG-16 and VGG-19 (Simonyan & Zisserman 2015) and SqueezeNet 1.1 (Iandola et al. 2016), in torchvision's key names, from
torchvision's download or a local file. Which layers a loss looks at is the task's business.

Shapes: B pictures, C channels, H x W pixels.
"""

import http.client
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.basemodule import read_state_dict, unwrap
from utils.errors import UserError, did_you_mean

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # in each block
CHANNELS = (64, 128, 256, 512, 512)
NETWORKS = (*CONVOLUTIONS, "squeezenet")
DOWNLOADS = {"vgg16": "VGG16_Weights", "vgg19": "VGG19_Weights", "squeezenet": "SqueezeNet1_1_Weights"}
SMALLEST = 17  # pixels: of a shorter side the pooling leaves nothing


def layer_names(network: str) -> dict[str, int]:
    """{name: index in torchvision's `features`}: relu1_1, relu1_2 …; of SqueezeNet relu1, fire2 … fire9."""
    if network == "squeezenet":
        return {"relu1": 1} | {f"fire{i}": index for i, index in enumerate((3, 4, 6, 7, 9, 10, 11, 12), 2)}
    names, index = {}, 0
    for block, count in enumerate(CONVOLUTIONS[network], 1):
        for number in range(1, count + 1):
            names[f"relu{block}_{number}"] = index + 1
            index += 2
        index += 1  # the pooling
    return names


class FeatureNetwork(nn.Module):
    """The first layers of a pretrained network, as far as `layers` needs them; frozen, always in eval mode.

    Args:
        network: one of NETWORKS.
        layers: names from layer_names.
        path: a weight file with torchvision's key names (.safetensors or .pth, float16 too); empty: torchvision's
            download.

    Raises UserError for an unknown layer, a file that does not fit, or weights that cannot be had.
    """

    def __init__(self, network: str, layers: Sequence[str], path: str = ""):
        super().__init__()
        names = layer_names(network)
        for layer in layers:
            if layer not in names:
                raise UserError(
                    f"{network} has no layer {layer}: it has {', '.join(names)}{did_you_mean(layer, names)}"
                )
        self.taps = {names[layer]: layer for layer in layers}
        with torch.device("meta"):  # the weights come from the file: no time for random ones
            self.features = _features(network)[: max(self.taps) + 1]
        self._load(network, path)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)

    def _load(self, network: str, path: str) -> None:
        path = path or str(_download(network))
        tensors = unwrap(read_state_dict(path), path)
        own = self.features.state_dict()
        found = {k: tensors[f"features.{k}"].float() for k in own if f"features.{k}" in tensors}
        wrong = [k for k, v in own.items() if k not in found or found[k].shape != v.shape]
        if wrong:
            raise UserError(
                f"{path} does not hold {network} up to {self.taps[max(self.taps)]}: features.{wrong[0]} is missing or "
                f"of another shape; give the name of the network that it holds by --loss_network"
            )
        self.features.load_state_dict(found, assign=True)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stays in eval mode: a loss must not change while something else is trained."""
        return super().train(False)

    def forward(self, image: Tensor, last: str = "") -> dict[str, Tensor]:
        """image (B, 3, H, W) in 0..1 -> {layer: its activations (B, C, H', W')}; `last`: no further than this layer.

        Raises UserError if a side is shorter than SMALLEST.
        """
        height, width = image.shape[2:]
        if min(height, width) < SMALLEST:
            raise UserError(f"a picture of {width} x {height} pixels is too small to judge: {SMALLEST} a side at least")
        x = (image - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        result = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                result[self.taps[index]] = x
                if self.taps[index] == last:
                    break
        return result


def _features(network: str) -> nn.Sequential:
    if network == "squeezenet":
        import torchvision

        return torchvision.models.squeezenet1_1(weights=None).features
    layers, inputs = [], 3
    for outputs, count in zip(CHANNELS, CONVOLUTIONS[network], strict=True):
        for _ in range(count):
            # In place: the convolution's own output is needed by nobody.
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _download(network: str) -> Path:
    """Where torchvision keeps the network's weights; downloaded, and its hash checked, if they are not there yet."""
    import torchvision

    url = getattr(torchvision.models, DOWNLOADS[network]).DEFAULT.url
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if kept.exists():
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(kept), hash_prefix=kept.stem.split("-")[-1])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"cannot download {network} from {url} ({error}): give a weight file by --vgg=FILE, "
            f"or put the download at {kept}"
        ) from error
    return kept
