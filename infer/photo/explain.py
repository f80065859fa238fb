"""Grad-CAM: which parts of a picture speak for a class, by any of the classifiers here, and files that show them.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization". Shapes: B
pictures, C channels, H x W pixels, h x w places of the maps, K classes.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

from data.photos import Source
from data.views import MARGIN
from models.classifier import Classifier
from utils.errors import UserError
from utils.files import atomic_save
from utils.images import open_image, to_tensor

OPACITY = 0.65  # of the colour where the heat is 1; the picture must still be seen
LONGEST = 4  # times the crop's side: longer pictures are squeezed to it before the network looks at them
MARK = "Shihua, Grad-CAM"  # the "Software" of an overlay's file: the name alone could be anybody's


def grad_cam(model: Classifier, image: Tensor, target: Tensor) -> Tensor:
    """Heat (B, H, W) float32 in 0..1 of what speaks for the classes `target` (B) in `image` (B, 3, H, W) in 0..1.

    1 at each picture's hottest place; all 0 where nothing speaks for the class. The model, in eval mode, keeps its
    gradients. May be called under torch.no_grad and torch.inference_mode.
    """
    with torch.inference_mode(False):
        with torch.no_grad():
            maps = model.feature_maps(image)  # (B, C, h, w)
        with torch.enable_grad():
            maps.requires_grad_()
            logits = model.classify(maps)  # (B, K)
            # A copy, since autograd keeps no tensor that was made in inference mode.
            index = target.to(logits.device, torch.int64, copy=True)[:, None]  # (B, 1)
            score = logits.gather(1, index).sum()
            # No picture's score depends on another's maps, so the gradient of the sum holds that of each.
            (gradient,) = torch.autograd.grad(score, maps)
    maps, gradient = maps.detach().float(), gradient.float()
    weights = gradient.mean((2, 3), keepdim=True)  # (B, C, 1, 1), equation 1
    heat = F.relu((weights * maps).sum(1, keepdim=True))  # (B, 1, h, w), equation 2
    heat = F.interpolate(heat, image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]  # (B, H, W)
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)


def explain_prediction(model: Classifier, rgb: np.ndarray, target: int) -> np.ndarray:
    """(H, W, 3) uint8 -> the same with what speaks for class number `target` in warm colours."""
    height, width = rgb.shape[:2]
    side = model.image_size * MARGIN
    scale = side / min(width, height)
    small = Image.fromarray(rgb).resize(tuple(round(min(x * scale, LONGEST * side)) for x in (width, height)))
    image = to_tensor(np.array(small)).to(model.device)  # (1, 3, H', W')
    heat = grad_cam(model, image, torch.tensor([target]))[0].cpu().numpy()  # (H', W')
    return overlay(rgb, np.array(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)))


def overlay(rgb: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 with heat (H, W) in 0..1 painted over it, dark violet to yellow -> (H, W, 3) uint8."""
    from matplotlib import colormaps  # takes a moment: only if it is needed

    heat = np.clip(heat, 0, 1)
    colors = colormaps["inferno"](np.rint(heat * 255).astype(np.uint8), bytes=True)[..., :3]  # (H, W, 3)
    opacity = (OPACITY * heat)[..., None]  # (H, W, 1)
    return np.rint(rgb * (1 - opacity) + colors * opacity).astype(np.uint8)


def save_overlay(path: str | Path, rgb: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 as a PNG that bears the mark."""
    info = PngInfo()
    info.add_text("Software", MARK)
    atomic_save(path, lambda temporary: Image.fromarray(rgb).save(temporary, format="PNG", pnginfo=info))


def is_overlay(source: Source) -> bool:
    """Whether `save_overlay` has written this file."""
    if source.size >= 0 or not re.search(r"_explained(_\d+)?\.png$", source.name):
        return False
    try:
        with source.open() as file:
            return open_image(file, source.name).info.get("Software") == MARK
    except (UserError, OSError):  # reported when it is classified
        return False


def overlay_paths(sources: Sequence[Source], out: str) -> list[Path]:
    """NAME_explained.png for each source, in `out` or beside it; numbered where that is another file's name."""
    taken, found = {source.path.resolve() for source in sources}, []
    for source in sources:
        folder, stem, number = Path(out) if out else source.path.parent, Path(source.name).stem, 2
        path = folder / f"{stem}_explained.png"
        while path.resolve() in taken or (path.exists() and not is_overlay(Source(path.name, path))):
            path, number = folder / f"{stem}_explained_{number}.png", number + 1
        taken.add(path.resolve())
        found.append(path)
    return found
