"""Conversions that torch has in no single function: to and from Pillow's pictures, to one-hot; a check of shapes.

Pictures in files are the business of utils/images.py.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from utils.images import to_tensor, to_uint8


def pil_to_tensor(image: Image.Image) -> Tensor:
    """A picture of any mode -> (3, H, W) float32 in 0..1. Alpha is dropped."""
    return to_tensor(np.array(image.convert("RGB")))[0].contiguous()  # (1, 3, H, W) -> (3, H, W)


def tensor_to_pil(tensor: Tensor) -> Image.Image:
    """(3, H, W) or (1, 3, H, W) in 0..1, on any device -> an RGB picture; what is outside 0..1 is clamped."""
    return Image.fromarray(to_uint8(tensor))


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers of classes (…) -> (…, K) with 1 at each number and 0 elsewhere, ready to be mixed or compared.

    Raises ValueError for a number that is no class: `F.one_hot` on a GPU would end the process without naming it.
    """
    if labels.numel() and not 0 <= (low := int(labels.min())) <= (high := int(labels.max())) < classes:
        raise ValueError(f"label {low if low < 0 else high} is none of the classes 0 to {classes - 1}")
    return F.one_hot(labels.long(), classes).to(dtype)


def check_shape(tensor: Tensor, shape: Sequence[int | None], name: str) -> None:
    """Raises ValueError if the tensor does not have this shape; None stands for any size.

    check_shape(image, (None, 3, None, None), "image") -> "image has the shape (3, 64, 64), expected (*, 3, *, *)"
    """
    if tensor.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("*" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, expected ({wanted})")
