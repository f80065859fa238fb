"""What a classifier sees of a picture: the middle, or in training a random crop, mirrored, in other colours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.photos import Source
from utils.images import open_image, read_image

MARGIN = 256 / 224  # a picture's shorter side, in sides of the crop, as torchvision's networks are validated
MIN_AREA = 0.35  # of the picture, that a training crop shows
RATIO = (3 / 4, 4 / 3)  # width to height of a training crop, before it is made square
LUMA = torch.tensor([0.299, 0.587, 0.114])  # weights of red, green and blue in the grey of ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """The random views of a training, each a function of (seed, epoch, index).

    Args:
        jitter: strength of the changes of brightness, contrast and saturation; 0: none.
        shuffle_blocks: cut half of the views into so many regions a side, and shuffle these; 0: none.
        views: number of different views of a picture, which then come again; 0: new ones in each epoch.
    """

    seed: int = 0
    jitter: float = 0.2
    shuffle_blocks: int = 0
    views: int = 0

    def view(self, rgb: np.ndarray, size: int, epoch: int, index: int) -> Tensor:
        """(H, W, 3) -> (3, size, size) uint8."""
        epoch = epoch % self.views if self.views else epoch
        random = np.random.default_rng((self.seed, epoch, index))
        left, top, right, bottom = random_box(rgb.shape[1], rgb.shape[0], random)
        view = _resized(_planes(rgb[top:bottom, left:right]), size, size)
        if random.random() < 0.5:
            view = view.flip(-1)
        if self.jitter:
            view = jitter_colours(view, self.jitter, random)
        if self.shuffle_blocks and random.random() < 0.5:
            view = torch.from_numpy(shuffle_regions(view.numpy(), self.shuffle_blocks, random))
        return view


def read_reduced(source: Source, size: int) -> np.ndarray:
    """(H, W, 3) uint8 on white to make views of `size` pixels of, its shorter side reduced to size / sqrt(MIN_AREA).

    Raises UserError or OSError if it cannot be read.
    """
    shortest = math.ceil(size / math.sqrt(MIN_AREA))
    with source.open() as file:
        sides = open_image(file, source.name).size
        file.seek(0)
        drafty = min(sides) >= 4 * shortest  # from there on a JPEG is decoded at 1/2, 1/4 or 1/8
        longest = round(shortest * max(sides) / min(sides)) if drafty else 0
        picture = read_image(file, max_side=longest, name=source.name)
    rgb = picture.on("white")
    if min(rgb.shape[:2]) <= shortest:
        return rgb
    reduced = _with_shorter_side(_planes(rgb), shortest)  # (3, H, W)
    return np.ascontiguousarray(reduced.permute(1, 2, 0).numpy())


def _planes(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W), the same memory."""
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) -> (3, height, width) uint8. PyTorch's kernel does what Pillow's does, three times as fast."""
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]


def _with_shorter_side(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    short = min(height, width)
    return _resized(image, side * height // short, side * width // short)


def _middle(image: Tensor, side: int) -> Tensor:
    """The middle of a picture (3, H, W), `side` pixels high and wide, or what there is."""
    top, left = (max(0, round((length - side) / 2)) for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def centre_view(rgb: np.ndarray, size: int) -> Tensor:
    """(H, W, 3) -> (3, size, size) uint8: torchvision's Resize (bicubic) to size * 256 / 224, and CenterCrop."""
    image = _middle(_planes(rgb), 3 * min(rgb.shape[:2]))  # a strip of 1 x 60000 pixels must not be enlarged as a whole
    return _middle(_with_shorter_side(image, round(size * MARGIN)), size).contiguous()


def random_box(
    width: int, height: int, random: np.random.Generator, min_area: float = MIN_AREA
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random part of a picture, in pixels: `min_area` to all of it, RATIO wide.

    As torchvision's RandomResizedCrop draws it (Inception, CVPR 2015, section 6): ten tries, then the middle.
    """
    for _ in range(10):
        area = width * height * random.uniform(min_area, 1)
        ratio = math.exp(random.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return x, y, x + w, y + h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def jitter_colours(image: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """(3, H, W) uint8 with brightness, contrast and saturation times random factors in 1 - strength .. 1 + strength."""
    brightness, contrast, saturation = random.uniform(max(0, 1 - strength), 1 + strength, 3).tolist()
    pixels = image.reshape(3, -1).float()  # (3, H * W), 0..255
    matrix = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * LUMA)  # (3, 3)
    offset = brightness * (1 - contrast) * (LUMA @ pixels.mean(1)) + 0.5  # the half rounds
    return torch.addmm(offset.expand(3, 1), matrix, pixels).clamp_(0, 255).to(torch.uint8).view_as(image)


def shuffle_regions(image: np.ndarray, blocks: int, random: np.random.Generator, reach: float = 2) -> np.ndarray:
    """A picture (C, H, W) cut into `blocks` x `blocks` regions that have changed places with near ones.

    "Destruction and Construction Learning for Fine-grained Image Recognition" (CVPR 2019, section 3.1): in each row,
    then in each column, regions are sorted by their number plus a uniform random one in -reach .. reach. Needs `blocks`
    <= H, W.
    """
    h, w = (length // blocks for length in image.shape[1:])
    top, left = ((length % blocks) // 2 for length in image.shape[1:])
    middle = np.s_[:, top : top + h * blocks, left : left + w * blocks]
    regions = image[middle].reshape(-1, blocks, h, blocks, w)  # (C, row, h, column, w)
    noise = random.uniform(-reach, reach, (2, blocks, blocks))
    numbers = np.arange(blocks)
    columns = np.argsort(numbers + noise[0], axis=1)  # [y, x]: which region of row y comes to x
    rows = np.argsort(numbers[:, None] + noise[1], axis=0)  # [y, x]: from which row of column x, after that
    shuffled = regions[:, rows, :, np.take_along_axis(columns, rows, 0)]  # (row, column, C, h, w)
    result = image.copy()
    result[middle] = shuffled.transpose(2, 0, 3, 1, 4).reshape(-1, h * blocks, w * blocks)
    return result


def as_input(image: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float in 0..1, channels last."""
    return (image.float() / 255).contiguous(memory_format=torch.channels_last)


def mixup(inputs: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each sample (B, …) and target (B, K) mixed with those of another one (Zhang et al. 2018, section 2).

    One weight for the batch, from Beta(alpha, alpha); each sample keeps the larger part.
    """
    weight = torch.distributions.Beta(alpha, alpha).sample().item()
    weight = max(weight, 1 - weight)
    order = torch.randperm(len(inputs), device="cpu").to(inputs.device)
    return weight * inputs + (1 - weight) * inputs[order], weight * target + (1 - weight) * target[order]
