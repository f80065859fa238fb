"""What a picture shows: classes with their probabilities, by any of the classifiers here, and "neither" when unsure.

It reads files and knows no task and no command line.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from data.loading import batches_of
from data.photos import Source, list_pictures
from infer.photo.explain import grad_cam, overlay
from models.classifier import Classifier, fold_batchnorm
from utils.errors import UserError
from utils.files import atomic_save
from utils.hardware import tune_malloc
from utils.images import Picture, on_white, open_image, read_image

UNSURE = 0.01  # share of the validation pictures that may be called neither
MARGIN = 256 / 224  # a picture's shorter side, in sides of the crop: what torchvision's networks were judged with
VIEWS = (1, 2, 4, 6)  # crops and mirror images of a picture that `crops` can make
EXPLAINED = 512  # shorter side of an explanation of a larger picture, in pixels
MARK = "Shihua, Grad-CAM"  # the "Software" of an explanation's file, which tells it from a picture that is called so
LONGEST = 4  # sides of the crop, at most, that the network looks at to explain a long picture


def open_model(path: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """A classifier from its file, in eval mode, made for speed: BatchNorm folded in, channels last.

    Raises UserError for anything else.
    """
    model = Classifier.load(path, device)
    fold_batchnorm(model)
    return model.to(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------- pictures to a network


def crops(rgb: np.ndarray, size: int, views: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (views, size, size, 3): what the network looks at.

    1: the middle, as in validation. 2: and its mirror image. 4: and those of the largest square in the middle. 6: and
    those of the whole picture, squeezed into a square.
    """
    height, width = rgb.shape[:2]
    short = min(width, height)
    boxes = []
    for side in (short / MARGIN, short):
        x, y = (width - side) / 2, (height - side) / 2
        boxes.append((x, y, x + side, y + side))
    boxes.append((0, 0, width, height))
    image = Image.fromarray(rgb)
    found: list[np.ndarray] = []
    for box in boxes[: max(1, views // 2)]:
        crop = np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))  # (size, size, 3)
        found += [crop, crop[:, ::-1]]
    return np.stack(found[:views])


class Pictures(Dataset):
    """Pictures as a network wants them: {"index", "views": (V, 3, S, S) uint8, "note"}, or {"index", "fault": a line}.

    Args:
        sources: the pictures.
        size: S, the side of the crops in pixels.
        views: V, see `crops`.
        max_megapixels: larger pictures are refused before they are decoded; 0: the limit of utils/images.py.

    Raises UserError for a number of views that `crops` cannot make.
    """

    def __init__(self, sources: Sequence[Source], size: int, views: int, max_megapixels: float = 0):
        if views not in VIEWS:
            raise UserError(f"--tta={views}: choose one of {', '.join(map(str, VIEWS))}")
        self.sources, self.size, self.views, self.max_megapixels = sources, size, views, max_megapixels

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            picture = _read(self.sources[index], 2 * self.size, self.max_megapixels)
        except UserError as error:
            return {"index": index, "fault": str(error)}
        except OSError as error:
            return {"index": index, "fault": f"cannot read {self.sources[index].name}: {error.strerror or error}"}
        views = crops(picture.rgb, self.size, self.views)  # (V, S, S, 3)
        return {"index": index, "views": torch.from_numpy(views).permute(0, 3, 1, 2), "note": picture.note}


def read_rgb(source: Source, side: int, max_megapixels: float = 0) -> np.ndarray:
    """(H, W, 3) uint8, on white; a shorter side of more than `side` pixels is reduced to that.

    Raises UserError, or OSError, if the picture cannot be read.
    """
    return _read(source, side, max_megapixels).rgb


def _read(source: Source, side: int, max_megapixels: float) -> Picture:
    """`read_rgb`, with the picture's note."""
    with source.open() as file:
        width, height = open_image(file, source.name, max_megapixels).size
        file.seek(0)
        longest = -(-side * max(width, height) // min(width, height))
        picture = read_image(file, max_megapixels, max_side=longest, name=source.name)
    return picture if picture.alpha is None else Picture(on_white(picture.rgb, picture.alpha), note=picture.note)


def predict(
    model: Classifier, pictures: Pictures, precision: str = "fp32", batch: int = 16, workers: int = 0
) -> Iterator[tuple[int, Tensor | None, str]]:
    """(index, logits (K), note) of each picture, in order; (index, None, what is wrong) of those that cannot be read.

    The logits are means over the views of a picture. They are not calibrated: see `probabilities`.
    """
    for index, logits, remark in predict_views(model, pictures, precision, batch, workers):
        yield index, None if logits is None else logits.mean(0), remark


def predict_views(
    model: Classifier, pictures: Pictures, precision: str = "fp32", batch: int = 16, workers: int = 0
) -> Iterator[tuple[int, Tensor | None, str]]:
    """The same with the logits (V, K) of each view."""
    tune_malloc()
    loader = DataLoader(
        pictures, batch_size=max(1, batch // pictures.views), num_workers=workers, collate_fn=list, shuffle=False
    )
    for samples in batches_of(loader):
        good = [sample for sample in samples if "views" in sample]
        logits: dict[int, Tensor] = {}
        if good:
            views = torch.cat([sample["views"] for sample in good]).to(model.device)  # (B * V, 3, S, S)
            found = logits_of(model, views, precision).unflatten(0, (len(good), -1))  # (B, V, K)
            logits = {sample["index"]: row for sample, row in zip(good, found.cpu(), strict=True)}
        for sample in samples:
            yield sample["index"], logits.get(sample["index"]), sample.get("fault") or sample["note"]


@torch.inference_mode()
def logits_of(model: Classifier, image: Tensor, precision: str = "fp32") -> Tensor:
    """(B, K) float32 logits of uint8 pictures (B, 3, S, S)."""
    image = image.contiguous(memory_format=torch.channels_last).float() / 255
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model(image)["logits"].float()


# ----------------------------------------------------------------------------------------------------- calibration


def calibrate(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """(temperature, threshold) from the logits (N, K) and labels (N) of pictures that were not trained on.

    The temperature, 0.01 to 100, is what the logits are divided by to make the log loss smallest (Guo et al. 2017,
    section 4.2). A class of n pictures has the target (n + 1) / (n + 2) instead of 1 (Platt 1999, section 2.2): of few
    pictures, all of them right, it must not follow that the network never errs. Below the threshold of confidence,
    which 1 % of these pictures do not reach, a picture is called neither.
    """
    logits, classes = logits.double(), logits.shape[1]
    counts = torch.bincount(labels, minlength=classes)[labels, None]  # (N, 1)
    rest = 1 / (counts + 2).double()
    target = torch.where(F.one_hot(labels, classes).bool(), 1 - rest, rest / (classes - 1))  # (N, K)
    low, high = 1e-2, 1e2  # the inverse of the temperature is between; the loss is convex in it
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        slope = (((logits * middle).softmax(1) - target) * logits).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    confidence = (logits * low).softmax(1).amax(1)  # (N)
    return 1 / low, confidence.quantile(UNSURE).item()


def calibrate_views(model: Classifier, pictures: Pictures, labels: Tensor, workers: int = 0) -> dict[str, list[float]]:
    """{number of views: [temperature, threshold]}, from the views, up to those of `pictures`, that answers are made of.

    `labels` (N) are those of the pictures, which were not trained on; what cannot be read is left out. Empty if
    nothing can.
    """
    found = [
        (index, logits) for index, logits, _ in predict_views(model, pictures, workers=workers) if logits is not None
    ]
    if not found:
        return {}
    known = labels[[index for index, _ in found]]  # (N)
    logits = torch.stack([row for _, row in found])  # (N, V, K)
    return {str(views): list(calibrate(logits[:, :views].mean(1), known)) for views in VIEWS if views <= pictures.views}


def calibration(model: Classifier, views: int) -> tuple[float, float]:
    """(temperature, threshold) for answers from so many views; where the file has none for them, those of one view."""
    metadata = model.metadata
    plain = metadata.get("temperature", 1.0), metadata.get("threshold", 0.0)
    temperature, threshold = metadata.get("calibration", {}).get(str(views), plain)
    return temperature, threshold


def probabilities(model: Classifier, logits: Tensor, views: int) -> Tensor:
    """(…, K) logits, means over so many views -> calibrated probabilities."""
    return (logits / calibration(model, views)[0]).softmax(-1)


# ----------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Answer:
    """What `classify` says of one picture; `error` is a line, and the rest empty, if it could not be read."""

    path: str
    label: str = ""
    probabilities: dict[str, float] | None = None
    explanation: str = ""  # the file with the overlay
    error: str = ""
    note: str = ""  # what else was in its file

    def as_dict(self) -> dict[str, Any]:
        """For JSON: path, label and one probability for each class, or path and error."""
        if self.error:
            return {"path": self.path, "error": self.error}
        result = {"path": self.path, "label": self.label}
        result |= {name: round(p, 6) for name, p in (self.probabilities or {}).items()}
        more = {"explanation": self.explanation, "note": self.note}
        return result | {name: text for name, text in more.items() if text}


def find_pictures(paths: Sequence[str]) -> list[Source]:
    """The pictures at `paths`: files, folders (without the explanations that `classify` has written) and .tar files.

    Raises UserError for a path where nothing is.
    """
    found = []
    for path in paths:
        name = path.encode(errors="replace").decode()  # bytes that are no UTF-8 cannot be written in a table
        if not Path(path).exists():
            raise UserError(f"{path} does not exist: give pictures, folders of pictures or a .tar")
        if Path(path).is_dir() or Path(path).suffix.lower() == ".tar":
            try:
                inside = list_pictures(path, "PATH")
            except UserError as error:
                raise UserError(str(error).replace("--PATH=", "")) from None  # it is no option
            if not (pictures := [s for s in inside if not _is_explanation(s)]):
                raise UserError(f"{path}: no pictures in it, only explanations of some")
            found += [Source(str(Path(name) / s.name), s.path, s.offset, s.size) for s in pictures]
        else:
            found.append(Source(name, Path(path)))
    return found


def classify(
    model: Classifier,
    sources: Sequence[Source],
    views: int = 2,
    precision: str = "fp32",
    threshold: float = -1.0,
    max_megapixels: float = 0,
    workers: int = 0,
    explain: bool = False,
    out: str = "",
    share: Sequence[int] | None = None,
) -> Iterator[Answer]:
    """An answer for each picture, in order; one that cannot be read does not stop the others.

    Args:
        threshold: confidence below which a picture is neither; negative: the calibrated one of the model's file.
        explain: paint over each picture what its answer rests on (Grad-CAM), into NAME_explained.png.
        out: folder for these; empty: beside the picture.
        share: numbers of the sources to look at, where several processes have a part each; None: all.
    """
    size = int(model.metadata.get("image_size", 160))
    threshold = calibration(model, views)[1] if threshold < 0 else threshold
    share = range(len(sources)) if share is None else share
    pictures = Pictures([sources[i] for i in share], size, views, max_megapixels)
    overlays = _overlays(sources, out) if explain else []
    for index, logits, remark in predict(model, pictures, precision, workers=workers):
        source = pictures.sources[index]
        if logits is None:
            yield Answer(source.name, error=remark)
            continue
        chances = probabilities(model, logits, views)  # (K)
        best = int(chances.argmax())
        label = model.classes[best] if chances[best] >= threshold else "neither"
        where = ""
        if explain:
            where = str(overlays[share[index]])
            rgb = read_rgb(source, EXPLAINED, max_megapixels)
            _save_explanation(where, explained(model, rgb, best))
        yield Answer(source.name, label, dict(zip(model.classes, chances.tolist(), strict=True)), where, note=remark)


def explained(model: Classifier, rgb: np.ndarray, target: int) -> np.ndarray:
    """(H, W, 3) uint8 with what speaks for class number `target` in warm colours.

    The whole picture is looked at, with its shorter side as long as in training; very long ones are squeezed.
    """
    height, width = rgb.shape[:2]
    side = int(model.metadata.get("image_size", 160)) * MARGIN
    scale = side / min(width, height)
    small = Image.fromarray(rgb).resize(tuple(round(min(x * scale, LONGEST * side)) for x in (width, height)))
    image = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255  # (1, 3, H', W')
    heat = grad_cam(model, image.to(model.device), torch.tensor([target]))[0].cpu().numpy()  # (H', W')
    heat = np.array(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)
    return overlay(rgb, heat)


def _save_explanation(path: str, rgb: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 as a PNG that bears the mark."""
    info = PngInfo()
    info.add_text("Software", MARK)
    atomic_save(path, lambda temporary: Image.fromarray(rgb).save(temporary, format="PNG", pnginfo=info))


def _is_explanation(source: Source) -> bool:
    """Whether `classify` has written this file: by its name, and by the mark, since others may call a picture so."""
    if source.size >= 0 or not re.search(r"_explained(_\d+)?\.png$", source.name):
        return False
    try:
        with source.open() as file:
            return open_image(file, source.name).info.get("Software") == MARK
    except (UserError, OSError):  # it will be told with its answer
        return False


def _overlays(sources: Sequence[Source], out: str) -> list[Path]:
    """The files for the overlays: NAME_explained.png, numbered where that is another one's, or no explanation."""
    taken, found = {source.path.resolve() for source in sources}, []
    for source in sources:
        folder, stem, number = Path(out) if out else source.path.parent, Path(source.name).stem, 2
        path = folder / f"{stem}_explained.png"
        while path.resolve() in taken or (path.exists() and not _is_explanation(Source(path.name, path))):
            path, number = folder / f"{stem}_explained_{number}.png", number + 1
        taken.add(path.resolve())
        found.append(path)
    return found
