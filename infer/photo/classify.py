"""What a picture shows: the probability of each class, and "neither" where it shows something else, and what.

A network that knows ImageNet's classes besides its own tells by them what is none of its own, and the breed of what is.
Shapes: N or B pictures, V views of a picture, S pixels a side, K classes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from data.loading import batches_of
from data.photos import Source, list_pictures, read_source
from data.sights import Sight, classes_of, imagenet_classes
from data.views import MARGIN, as_input
from infer.photo.explain import explain_prediction, is_overlay, overlay_paths, save_overlay
from models.classifier import Classifier, fold_batchnorm
from utils.errors import UserError
from utils.hardware import choose_precision, tune_malloc

UNSURE, DOUBTFUL = 0.01, 0.002  # fraction of the validation pictures that may be neither: alone, and beside a gate
SHUT_OUT = 0.02  # fraction of the validation pictures that may show something else
# Of ImageNet's logits: it was trained with label smoothing, at 224 pixels; at 288 it is less sure than it may be.
TOO_MODEST = 0.7
SOMETHING_ELSE = 0.15  # a picture is neither if ImageNet's classes of the own kinds are less likely together, at most
NAMED = 0.3  # probability from which on what the picture shows is called by its ImageNet class
VIEWS = (1, 2, 6)  # crops and mirror images of a picture that `crops` can make
FIRST = 7 / 9  # of the size: that of a first look, if as many views are looked at as a picture needs
SURE = 0.95  # confidence from which on a first look is enough
CLEAR = 1.3  # and by what factor the probability of the own kinds must be above the gate for that, or below
CONTRADICTED = 2  # how many times as likely another class may be by ImageNet's
OVERLAY_SIDE = 512  # pixels, shorter side of the overlay on a larger picture


def open_model(path: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """A classifier from its file, made for speed (BatchNorm folded in). Raises UserError if it is none."""
    model = Classifier.load(path, device)
    fold_batchnorm(model)
    return model.to(memory_format=torch.channels_last)


def crops(rgb: np.ndarray, size: int, views: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (V, S, S, 3): what the network looks at.

    1 view: the middle, as in validation. 2: and its mirror image. 6: and those of the largest squares at both ends,
    which show all of the picture, if it is not very long.
    """
    height, width = rgb.shape[:2]
    short = min(width, height)
    inner, left, top = short / MARGIN, width - short, height - short
    x, y = (width - inner) / 2, (height - inner) / 2
    boxes = [(x, y, x + inner, y + inner), (0, 0, short, short), (left, top, width, height)]
    image, found = Image.fromarray(rgb), []
    for box in boxes[: (views + 1) // 2]:
        crop = np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))  # (S, S, 3)
        found += [crop, crop[:, ::-1]]
    return np.stack(found[:views])


class Pictures(Dataset):
    """{"index", "views": (V, 3, S, S) uint8, "note"}, or {"index", "error"}. Raises UserError for other VIEWS."""

    def __init__(self, sources: Sequence[Source], size: int, views: int, max_megapixels: float = 0):
        if views not in VIEWS:
            raise UserError(f"choose one of {', '.join(map(str, VIEWS))}", tta=views)
        self.sources, self.size, self.views, self.max_megapixels = sources, size, views, max_megapixels

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            picture = read_source(self.sources[index], 2 * self.size, self.max_megapixels)
        except UserError as error:
            return {"index": index, "error": str(error)}
        except OSError as error:
            return {"index": index, "error": f"cannot read {self.sources[index].name}: {error.strerror or error}"}
        views = crops(picture.on("white"), self.size, self.views)  # (V, S, S, 3)
        return {"index": index, "views": torch.from_numpy(views).permute(0, 3, 1, 2), "note": picture.note}


def predict(
    model: Classifier, pictures: Pictures, precision: str = "fp32", batch: int = 16, workers: int = 0
) -> Iterator[tuple[int, dict[str, Tensor] | None, str]]:
    """(index, outputs, note) of each picture, in order; (index, None, error) of those that cannot be read.

    The outputs are {"logits": (V, K)}, and of a network that knows more also {"imagenet": (V, 1000), "scenes": …}.
    """
    tune_malloc()
    loader = DataLoader(pictures, max(1, batch // pictures.views), num_workers=workers, collate_fn=list)
    for samples in batches_of(loader):
        good = [sample for sample in samples if "views" in sample]
        found: dict[int, dict[str, Tensor]] = {sample["index"]: {} for sample in good}
        if good:
            views = torch.cat([sample["views"] for sample in good]).to(model.device)  # (B * V, 3, S, S)
            for name, logits in outputs_of(model, views, precision).items():
                for index, rows in zip(found, logits.cpu().unflatten(0, (len(good), -1)), strict=True):  # (V, K)
                    found[index][name] = rows
        for sample in samples:
            yield sample["index"], found.get(sample["index"]), sample.get("error") or sample["note"]


@torch.inference_mode()
def outputs_of(model: Classifier, image: Tensor, precision: str = "fp32") -> dict[str, Tensor]:
    """{"logits": (B, K), …} float32 of uint8 pictures (B, 3, S, S), and what the network recognises besides."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = model(as_input(image), recognise=model.recognises)
        return {name: logits.float() for name, logits in outputs.items()}


def classifying_precision(wanted: str, model: Classifier) -> str:
    """The precision to classify in, see choose_precision; found out with a picture of 64 x 64 pixels."""
    blank = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=model.device)
    gpu = model.device.type == "cuda"
    return choose_precision(wanted, gpu, lambda precision: outputs_of(model, blank, precision))[0]


def calibrate(logits: Tensor, labels: Tensor, unsure: float = UNSURE) -> tuple[float, float]:
    """(temperature, threshold) from the logits (N, K) and labels (N) of pictures that were not trained on.

    The temperature, 0.01 to 100, makes the log loss of logits / temperature smallest (Guo et al. 2017, section 4.2). A
    few pictures, all of them right, would make it 0: so the targets are, as Platt's (1999, section 2.2), a little less
    than 1, (n + 1/2) / (n + 1) for a class of n pictures (Krichevsky & Trofimov 1981; Platt has 1 and 2, which makes a
    good classifier too modest). Confidence below the threshold, which the fraction `unsure` of these pictures have,
    means neither.
    """
    logits, classes = logits.double(), logits.shape[1]
    counts = torch.bincount(labels, minlength=classes)[labels, None]  # (N, 1)
    rest = 0.5 / (counts + 1).double()
    target = torch.where(F.one_hot(labels, classes).bool(), 1 - rest, rest / (classes - 1))  # (N, K)
    low, high = 1e-2, 1e2  # the inverse of the temperature is between; the loss is convex in it
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        slope = (((logits * middle).softmax(1) - target) * logits).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    confidence = (logits * low).softmax(1).amax(1)  # (N)
    return 1 / low, confidence.quantile(unsure).item()


def calibrate_views(model: Classifier, pictures: Pictures, labels: Tensor, workers: int = 0) -> dict[str, list[float]]:
    """{number of views: [temperature, threshold, gate]} from pictures, with labels (N), that were not trained on.

    0 views are the first look. The gate is the probability of the own kinds below which a picture shows something else.
    Where it would shut out more than 2 % of these pictures, as with drawings, in which ImageNet sees little, it is
    lower: such that 1 % are.
    """
    found = {index: outputs for index, outputs, _ in predict(model, pictures, workers=workers) if outputs}
    if not found:
        return {}
    first = whole = list(found.values())
    if (size := first_size(model, pictures.size)) != pictures.size:
        smaller = Pictures([pictures.sources[i] for i in found], size, 1)
        first = [outputs for _, outputs, _ in predict(model, smaller, workers=workers)]
    known, result = labels[list(found)], {}  # (N)
    own = own_classes(model.classes) if model.recognises else []
    for views in (0, *(views for views in VIEWS if views <= pictures.views)):
        shown, count = (whole, views) if views else (first, 1)
        logits = torch.stack([outputs["logits"][:count].mean(0) for outputs in shown])  # (N, K)
        gate = SOMETHING_ELSE
        if own:
            seen = [mean_chances(outputs["imagenet"][:count], TOO_MODEST) for outputs in shown]
            shares = torch.tensor([own_share(chances, own) for chances in seen])  # (N)
            if shares.quantile(SHUT_OUT) < gate:
                gate = shares.quantile(UNSURE).item()
        result[str(views)] = [*calibrate(logits, known, DOUBTFUL if own else UNSURE), gate]
    return result


def first_size(model: Classifier, size: int) -> int:
    """The size of a first look, for pictures of `size`: smaller, but for a network that may know this size alone."""
    return round(FIRST * size) if model.recognises else size


def calibration(model: Classifier, views: int) -> tuple[float, float, float]:
    """(temperature, threshold, gate) for so many views, 0: the first look; of an older file, those of one view."""
    metadata = model.metadata
    plain = metadata.get("temperature", 1.0), metadata.get("threshold", 0.0)
    temperature, threshold, *gate = metadata.get("calibration", {}).get(str(views), plain)
    return temperature, threshold, gate[0] if gate else SOMETHING_ELSE


def probabilities(model: Classifier, logits: Tensor, views: int) -> Tensor:
    """(…, V, K) logits of so many views of a picture, 0: of a first look -> (…, K) calibrated probabilities."""
    return (logits.mean(-2) / calibration(model, views)[0]).softmax(-1)


def mean_chances(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits of the views (V, 1000) -> probabilities (1000)."""
    return (logits.mean(0) / temperature).softmax(0)


def own_share(seen: Tensor, own: Sequence[tuple[int, ...]]) -> float:
    """The probability of the `own` ones of ImageNet's classes (see `own_classes`), of `seen` (1000), together."""
    return sum(seen[list(numbers)].sum().item() for numbers in own)


def own_classes(classes: Sequence[str]) -> list[tuple[int, ...]]:
    """The numbers of ImageNet's classes that belong to each of these; empty if any is of no kind that ImageNet has."""
    found = [classes_of(name) for name in classes]
    return found if all(found) else []


@dataclass(frozen=True)
class Settings:
    """How `classify` works.

    Args:
        views: see `crops`; 0: one of a smaller size, and of a picture of which that leaves a doubt, all six.
        threshold: confidence below which a picture is neither; negative: the calibrated one of the model's file.
        max_megapixels: larger pictures are refused; 0: the limit of utils/images.py.
        explain: whether to show which pixels the answer is based on (Grad-CAM).
        out: folder for NAME_explained.png; empty: beside the picture; None: no file is written.
    """

    views: int
    precision: str
    threshold: float
    max_megapixels: float = 0
    workers: int = 0
    explain: bool = False
    out: str | None = None


@dataclass(frozen=True)
class Answer:
    """What `classify` says of one picture; `error` is a line, and the rest empty, if it could not be read."""

    path: str
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    seen: Sight | None = None  # the class of ImageNet: what it is instead, or the breed
    seen_probability: float = 0.0
    overlay: np.ndarray | None = field(default=None, repr=False, compare=False)  # (H, W, 3) uint8
    explanation: str = ""  # the overlay's file
    error: str = ""
    note: str = ""  # what else was in the picture's file

    @property
    def likeliest(self) -> str:
        """The class of the highest probability, which the label is unless that is neither."""
        return max(self.probabilities, key=self.probabilities.get)

    def __str__(self) -> str:
        if self.error:
            return self.error
        where = self.explanation and f"  {self.explanation}"
        seen = f"{self.seen.name} {min(self.seen_probability, 0.999):.1%}" if self.seen else ""
        likely = f"{min(self.probabilities[self.likeliest], 0.999):.1%}"
        if self.label == self.likeliest:
            return f"{self.path}: {self.label} {likely}{seen and f' ({seen})'}{where}"
        return f"{self.path}: {self.label}{f': {seen}' if seen else f' (rather {self.likeliest}) {likely}'}{where}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: path, label and one probability for each class, what is seen; or path and error."""
        if self.error:
            return {"path": self.path, "error": self.error}
        result = {"path": self.path, "label": self.label}
        result |= {name: round(p, 6) for name, p in self.probabilities.items()}
        result |= {"seen": self.seen.name, "seen_probability": round(self.seen_probability, 6)} if self.seen else {}
        more = {"explanation": self.explanation, "note": self.note}
        return result | {name: text for name, text in more.items() if text}


def is_doubtful(model: Classifier, outputs: dict[str, Tensor]) -> bool:
    """Whether the `outputs` of a first look at a picture leave open which class it is, or whether it is of any.

    Also where ImageNet's classes say another one.
    """
    chance, best = probabilities(model, outputs["logits"], 0).max(0)
    if "imagenet" not in outputs or not (own := own_classes(model.classes)):
        return chance.item() < SURE
    seen, gate = mean_chances(outputs["imagenet"], TOO_MODEST), calibration(model, 0)[2]
    shares = [own_share(seen, [numbers]) for numbers in own]
    if sum(shares) <= gate / CLEAR:
        return False
    return chance.item() < SURE or sum(shares) < CLEAR * gate or CONTRADICTED * shares[best] < max(shares)


def _answer(
    model: Classifier, outputs: dict[str, Tensor], views: int, threshold: float, answer: Answer
) -> tuple[Answer, int]:
    """(the answer completed, number of the likeliest class) from the outputs for so many views, 0: a first look."""
    probs = probabilities(model, outputs["logits"], views)  # (K)
    best = int(probs.argmax())
    threshold = threshold if threshold >= 0 else calibration(model, views)[1]
    label = model.classes[best] if probs[best] >= threshold else "neither"
    found: dict[str, Any] = {"probabilities": dict(zip(model.classes, probs.tolist(), strict=True))}
    if "imagenet" in outputs and (own := own_classes(model.classes)):
        seen = mean_chances(outputs["imagenet"], TOO_MODEST)  # (1000)
        candidates = torch.zeros_like(seen)
        if threshold and own_share(seen, own) < calibration(model, views)[2]:
            label, candidates = "neither", seen.clone()
            candidates[[number for numbers in own for number in numbers]] = 0
        elif label != "neither":  # its breed, if it is sure enough
            candidates[list(own[best])] = seen[list(own[best])]
        chance, number = candidates.max(0)
        if chance >= NAMED:
            found |= {"seen": imagenet_classes()[int(number)], "seen_probability": chance.item()}
    return replace(answer, label=label, **found), best


def find_pictures(paths: Sequence[str]) -> list[Source]:
    """The pictures at `paths`: files, folders (without our overlays), .tar files. Raises UserError if one is absent."""
    found = []
    for path in paths:
        name = path.encode(errors="replace").decode()  # bytes that are no UTF-8 cannot be written in a table
        if not Path(path).exists():
            raise UserError(f"{path} does not exist: give pictures, folders of pictures or a .tar")
        if Path(path).is_dir() or Path(path).suffix.lower() == ".tar":
            try:
                inside = list_pictures(path)
            except UserError as error:
                raise UserError(f"{path}: {error.message}") from None
            if not (pictures := [s for s in inside if not is_overlay(s)]):
                raise UserError(f"{path}: no pictures in it, only explanations of some")
            found += [Source(str(Path(name) / s.name), s.path, s.offset, s.size) for s in pictures]
        else:
            found.append(Source(name, Path(path)))
    return found


def classify(
    model: Classifier, sources: Sequence[Source], settings: Settings, share: Sequence[int] | None = None
) -> Iterator[Answer]:
    """An answer for each picture, in order, broken ones too; of those numbers in `share`, if processes share them."""
    share = range(len(sources)) if share is None else share
    views, limit = settings.views, settings.max_megapixels
    size = model.image_size if views else first_size(model, model.image_size)
    pictures = Pictures([sources[i] for i in share], size, views or 1, limit)
    paths = overlay_paths(sources, settings.out) if settings.explain and settings.out is not None else []
    for index, outputs, remark in predict(model, pictures, settings.precision, workers=settings.workers):
        source = pictures.sources[index]
        if outputs is None:
            yield Answer(source.name, error=remark)
            continue
        looked_at = views
        if not views and is_doubtful(model, outputs):
            looked_at = VIEWS[-1]
            [(_, outputs, _)] = predict(
                model, Pictures([source], model.image_size, looked_at, limit), settings.precision
            )
        answer, best = _answer(model, outputs, looked_at, settings.threshold, Answer(source.name, note=remark))
        if settings.explain:
            rgb = read_source(source, OVERLAY_SIDE, limit).on("white")
            answer = replace(answer, overlay=explain_prediction(model, rgb, best))
        if paths:
            path = str(paths[share[index]])
            save_overlay(path, answer.overlay)
            answer = replace(answer, explanation=path)
        yield answer
