"""Bilinear pooling: which channels of a map of features fire together, as one vector for each picture.

Lin, RoyChowdhury, Maji 2015, "Bilinear CNN Models for Fine-grained Visual Recognition", with both streams alike. No
network here uses it by itself; it stands where a classifier has its mean over the places.
"""

from torch import Tensor
from torch.nn import functional as F

from models.perceptual import gram_matrix
from utils.tensors import check_shape

TINY = 1e-12  # of a root's argument: its slope at 0 would be infinite


def bilinear_pool(maps: Tensor) -> Tensor:
    """maps (B, C, H, W) -> (B, C * C) of length 1: mean of x x^T over the places, signed square root, L2 norm.

    It does not depend on the strength of the maps, nor on their size. Where all of a picture's features are 0, so is
    the result, and the gradient is finite. Raises ValueError for maps of another shape.
    """
    check_shape(maps, (None, None, None, None), "maps")
    products = maps.shape[1] * gram_matrix(maps).flatten(1)  # (B, C * C), in float32
    roots = products.sign() * (products.abs() + TINY).sqrt()
    return F.normalize(roots, dim=1)
