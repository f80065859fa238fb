"""What all classifiers here have in common: a body that makes maps of features, a head that makes logits of them.

Weights trained on ImageNet, in torchvision's names, are read or downloaded here. Shapes: B pictures, C channels, H x W
pixels, h x w places of the maps, K classes.
"""

import http.client
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.basemodule import BaseModule, check_shape, read_metadata, read_state_dict, unwrap
from utils.errors import UserError
from utils.files import metadata_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Classifier(BaseModule):
    """Base of the classifiers, for K names of `classes`; `arguments` are the others of the subclass's constructor."""

    head: str  # what the names of the last layer's parameters begin with
    imagenet: str = ""  # torchvision's name of the weights that it offers for this network
    pixel_mean, pixel_std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, classes: list[str], **arguments: object):
        super().__init__(classes=list(classes), **arguments)
        self.classes = list(classes)
        # Not persistent: they are no weights, and torchvision's files have none of them.
        self.register_buffer("mean", torch.tensor(self.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.pixel_std).view(1, 3, 1, 1), persistent=False)

    @property
    def image_size(self) -> int:
        """Pixels, the side of the pictures that it was trained on."""
        return int(self.metadata.get("image_size", 160))

    @property
    def recognises(self) -> bool:
        """Whether what it knows besides its own classes holds: its body is that of the weights it started from."""
        return bool(self.metadata.get("recognises"))

    def normalise(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 -> the same with about mean 0 and variance 1, as in the training on ImageNet."""
        check_shape(image, (None, 3, None, None), "image")  # a grey one would become three times the same
        return (image - self.mean) / self.std

    def feature_maps(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..1, sides of 32 pixels or more -> what the body sees in it (B, C, h, w)."""
        raise NotImplementedError

    def pool(self, maps: Tensor) -> Tensor:
        """What `classify` needs of the maps (B, C, h, w): (B, C, 1, 1), their means. Pooling twice is pooling once."""
        return nn.functional.adaptive_avg_pool2d(maps, 1)

    def classify(self, maps: Tensor) -> Tensor:
        """maps (B, C, h, w), pooled or not -> logits (B, K)."""
        raise NotImplementedError

    def recognise(self, maps: Tensor) -> dict[str, Tensor]:
        """maps (B, C, h, w), pooled or not -> logits of what else the network knows; most know nothing else."""
        return {}

    def rename(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights under the names that another project gave them -> under those here; others as they are."""
        return tensors

    def forward(
        self, image: Tensor | None = None, maps: Tensor | None = None, recognise: bool = False
    ) -> dict[str, Tensor]:
        """image (B, 3, H, W) in 0..1, or the `maps` that were made of it before -> {"logits": (B, K)}.

        With `recognise` also what else the network knows.
        """
        maps = self.pool(self.feature_maps(image) if maps is None else maps)
        return {"logits": self.classify(maps)} | (self.recognise(maps) if recognise else {})

    def initialise(self) -> None:
        """Random weights by type of layer (He et al. 2015, section 2.2), small ones in the last layer."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear) and f"{name}.".startswith(self.head):
                nn.init.normal_(module.weight, std=0.01)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def load_pretrained(self, path: str = "") -> None:
        """Takes over weights of torchvision's names, or of a file that `save` wrote; path empty: its download.

        The last layer's are taken over if they are for the same classes (of a file without their names: as many).
        Raises UserError for a file that does not fit otherwise, and if there is no download.
        """
        name = type(self).__name__
        if not path and not self.imagenet:
            raise UserError(f"there are no weights of {name} to download; give a file, or none", pretrained=None)
        path = path or str(download(name, self.imagenet, "pretrained"))
        tensors, own = self.rename(unwrap(read_state_dict(path), path)), self.state_dict()
        head = {k: v for k, v in own.items() if k.startswith(self.head)}
        classes = json.loads(metadata_of(path).get("arguments", "{}")).get("classes")
        fits = all(k in tensors and tensors[k].shape == v.shape for k, v in head.items())
        if not fits or (classes is not None and classes != self.classes):
            tensors = {k: v for k, v in tensors.items() if k not in head} | head
        # Files from before PyTorch 0.4.1, as torchvision's of ResNet, lack these numbers. Nothing here uses them.
        tensors = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")} | tensors
        try:
            self.load_weights(tensors, source=path)
        except UserError as error:
            raise UserError(f"{error}; give weights of {name}, or choose the backbone that these are of") from None
        self.metadata["recognises"] = bool(read_metadata(path).get("recognises"))


def fold_batchnorm(model: nn.Module) -> None:
    """Makes convolutions do the work of the BatchNorm after them, in place, in eval mode: answers a third faster.

    The model can neither be trained any more, nor saved.
    """
    for parent in list(model.modules()):
        for (name, conv), (after, norm) in itertools.pairwise(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, nn.utils.fuse_conv_bn_eval(conv, norm))
                setattr(parent, after, nn.Identity())


def cached_weights_path(weights: str) -> tuple[str, Path]:
    """(address, file it is kept in) of weights that torchvision offers; the name is such as VGG16_Weights."""
    import torchvision  # takes a second: only if it is needed

    url = getattr(torchvision.models, weights).DEFAULT.url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def download(name: str, weights: str, argument: str) -> Path:
    """Where torchvision keeps weights, such as VGG16_Weights; downloaded, with their hash checked, if missing.

    `argument` is what a file can be given by instead. Raises UserError if they cannot be downloaded.
    """
    url, kept = cached_weights_path(weights)
    if kept.exists():
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(kept), hash_prefix=kept.stem.split("-")[-1])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        instead = f"give a weight file by {argument}=FILE, or put the download at {kept}"
        raise UserError(f"cannot download {name} from {url} ({error}): {instead}") from error
    return kept
