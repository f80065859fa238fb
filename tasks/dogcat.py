"""The classifier's task: which class a picture is of, measured by log loss and accuracy; two classes or twenty."""

import dataclasses
import math
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix  # at once: its import draws a random number, resuming must not
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from config import DogCatConfig
from data.dogcat import CachedFeatures, DogCatDataset, collate
from data.labels import Sample, choose_split, class_names, list_samples, write_submission
from data.loading import chunks
from data.photos import choose_split as choose_photos
from data.photos import list_pictures, read_source
from data.views import Augmentation, as_input, mixup
from infer.photo import classify, metrics, report
from infer.photo.explain import explain_prediction
from models import BACKBONES, Classifier
from models.basemodule import BaseModule, check_shape
from models.classifier import fold_batchnorm
from tasks.base import Task
from training.recorder import Recorder
from utils.errors import UserError
from utils.files import is_inside, refuse_overwriting
from utils.images import grid, save_image
from utils.text import say

EMBEDDED = Path(__file__).parent.parent / "dataset" / "sample" / "dogcat"
SHIPPED = Path(__file__).parent.parent / "checkpoints" / "dogcat.safetensors"
SUBMISSION = "submission.csv"
VAL_BATCH = 64
DISTILL_TEMPERATURE = 2.0
CURVE_POINTS = 100  # most points of a curve in the log
CURVES_POINTS = 1000  # and of those of all classes, unless that leaves fewer than 20 to each


class DogCatTask(Task):
    """Trains a Classifier on the labelled pictures under cfg.data_root."""

    command = "classify photo.jpg"
    monitors = {"loss": "min", "accuracy": "max", "auc": "max"}
    size_option = "image_size"
    collate = staticmethod(collate)
    paths = ("data_root", "load", "pretrained", "others", "cache", "labels", "out")

    def __init__(self, cfg: DogCatConfig, arguments: dict[str, Any] | None = None):
        super().__init__(cfg, arguments)
        if cfg.load and "backbone" in cfg.changed() and BACKBONES[cfg.backbone] is not type(self.model):
            kind = type(self.model).__name__
            raise UserError(f"{cfg.load} holds a {kind}; leave this option out", backbone=cfg.backbone)
        self.model.to(memory_format=torch.channels_last)
        if cfg.image_size <= 32 and any(isinstance(layer, nn.BatchNorm2d) for layer in self.model.modules()):
            # Its maps have one place then, of which BatchNorm cannot tell the variance in a batch of one picture.
            raise UserError(f"{type(self.model).__name__} needs 33 or more", image_size=cfg.image_size)
        if cfg.freeze == "auto":
            layers = (name for name, _ in self.model.named_parameters() if not name.startswith(self.model.head))
            body = ",".join(dict.fromkeys(f"{name.split('.')[0]}.*" for name in layers))
            keeps = self.model.recognises and not cfg.distill
            self.cfg = dataclasses.replace(self.cfg, freeze=body if keeps else "")
        if cfg.distill and not self.model.recognises:
            raise UserError("there is nothing else that this network knows: start from the shipped one", distill=None)
        self.teacher = self._make_teacher() if cfg.distill else None
        self.calibration: dict[str, float] = {}
        self.cached: dict[int, CachedFeatures] = {}  # by view; -1: of the validation pictures
        self.validated: dict[str, Tensor] = {}  # the last validation's samples

    @property
    def network(self) -> type[Classifier]:
        """That of the file in cfg.load, which need not be of cfg.backbone."""
        known = self.cfg.load and Path(self.cfg.load).exists()
        return type(Classifier.load(self.cfg.load)) if known else BACKBONES[self.cfg.backbone]

    def make_model(self) -> Classifier:
        cfg, classes = self.cfg, class_names(choose_split(self.samples, "train"))
        model = BACKBONES[cfg.backbone](classes, dropout=cfg.dropout)
        start = cfg.pretrained
        if start == "auto":
            start = {"lenet": "none", "efficientnet_lite0": str(SHIPPED)}.get(cfg.backbone, "imagenet")
        if start != "none":
            model.load_pretrained("" if start == "imagenet" else start)
        return model

    def _make_teacher(self) -> Classifier:
        """The network as the training began, also when it goes on later."""
        cfg = self.cfg
        teacher = Classifier.load(cfg.load) if cfg.load and Path(cfg.load).exists() else self.make_model().eval()
        fold_batchnorm(teacher)
        return teacher.to(memory_format=torch.channels_last).requires_grad_(False)

    @cached_property
    def samples(self) -> list[Sample]:
        return list_samples(self.cfg.data_root or EMBEDDED / "train", self.cfg.labels)

    def _dataset(self, samples: list[Sample], augmentation: Augmentation | None = None) -> DogCatDataset:
        return DogCatDataset(samples, self.model.classes, self.cfg.image_size, augmentation, self.cfg.cache)

    def _others(self, split: str) -> list[Sample]:
        """Pictures of none of the classes."""
        if not self.cfg.others:
            return []
        pictures = choose_photos(list_pictures(self.cfg.others, "others"), split, "others")
        return [Sample(source, None, Path(source.name).stem) for source in pictures]

    @cached_property
    def pictures(self) -> DogCatDataset:
        """What to train with, as pictures."""
        cfg, views = self.cfg, self.cfg.views if self.body_frozen else 0
        samples = choose_split(self.samples, "train") + self._others("train")
        return self._dataset(samples, Augmentation(cfg.seed, cfg.jitter, cfg.shuffle_blocks, views=views))

    @cached_property
    def val_pictures(self) -> DogCatDataset:
        pictures = self._dataset(choose_split(self.samples, "val") + self._others("val"))
        if self.cfg.monitor == "auc" and (unseen := self._unseen(pictures)):
            message = f"needs validation pictures of every class; there is none of {unseen}"
            raise UserError(message, monitor=self.cfg.monitor)
        return pictures

    def _unseen(self, pictures: DogCatDataset) -> str:
        """The classes that none of the pictures shows."""
        return ", ".join(name for number, name in enumerate(self.model.classes) if number not in pictures.labels)

    @property
    def body_frozen(self) -> bool:
        """Whether only the last layer ever learns: then a picture's features are the same in every epoch."""
        body = (p for name, p in self.model.named_parameters() if not name.startswith(self.model.head))
        return not self.cfg.unfreeze_epoch and not any(p.requires_grad for p in body)

    def __str__(self) -> str:
        counts = Counter(sample.label.casefold() for sample in self.samples if sample.label is not None)
        found = ", ".join(f"{counts[name.casefold()]:,} {name}" for name in self.model.classes)
        rest = [sample for sample in self.samples if sample.label is None and sample.split != "test"]
        left_out = f"; {len(rest):,} of no class left out, such as {rest[0].source.name}" if rest else ""
        unseen = self._unseen(self.val_pictures)
        unseen = f"; none of {unseen} to validate with" if unseen else ""
        return (
            f"pictures from {self.cfg.data_root or 'the embedded sample'}: {found}{left_out}{unseen}; "
            f"{type(self.model).__name__} of {self.model.parameter_count():,} parameters"
        )

    def train_batches(self, epoch: int) -> list[list[int]]:
        self.pictures.set_epoch(epoch)
        self.train_set = self._features(self.pictures, epoch % self.cfg.views) if self.body_frozen else self.pictures
        return self.pictures.batches(self.cfg.batch_size, epoch)

    def val_batches(self) -> tuple[Dataset, list[list[int]]]:
        dataset = self._features(self.val_pictures, -1) if self.body_frozen else self.val_pictures
        return dataset, chunks(list(range(len(dataset))), VAL_BATCH)

    def _features(self, pictures: DogCatDataset, view: int) -> CachedFeatures:
        """The features of all these pictures, computed when they are asked for first."""
        if view not in self.cached:
            self.cached[view] = CachedFeatures(self._extract, pictures, VAL_BATCH, self.cfg.num_workers)
        return self.cached[view]

    @torch.no_grad()
    def _extract(self, image: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 -> what the last layer needs of their maps."""
        model = self.model.eval()
        return model.pool(model.feature_maps(as_input(image.to(model.device)))).float().cpu()

    def step(self, model: BaseModule, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropy to the target distribution; log loss and accuracy of the pictures whose class is known.

        The target of a picture of none of the classes is uniform (Hendrycks et al. 2019, section 4.3).
        """
        cfg, label = self.cfg, batch["label"]
        check_shape(label, (None,), "label")
        known = label >= 0
        classes = len(self.model.classes)
        target = F.one_hot(label.clamp(min=0), classes).float()  # (B, K)
        target = torch.where(known[:, None], target, 1 / classes)
        name = "maps" if "maps" in batch else "image"
        inputs = batch[name] if name == "maps" else as_input(batch["image"])
        if model.training:
            target = target * (1 - cfg.label_smoothing) + cfg.label_smoothing / classes
            if cfg.mixup:
                inputs, target = mixup(inputs, target, cfg.mixup)
        distils = model.training and self.teacher is not None
        if distils:  # compared in the same statistics, which then hold in the end
            for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
                norm.eval()
        outputs = model(**{name: inputs}, recognise=distils)
        logits = outputs["logits"].float()  # (B, K)
        objective = -(target * logits.log_softmax(1)).sum(1).mean()
        if distils:
            objective = objective + cfg.distill * self._forgetting(outputs["imagenet"], inputs)
        right, loss = torch.zeros(2, device=logits.device)
        if known.any():
            loss = F.cross_entropy(logits[known], label[known]).detach()
            right = (logits[known].argmax(1) == label[known]).float().mean()
        samples = {"index": batch["index"], "label": label, "logits": logits.detach()}
        return {"objective": objective, "count": known.sum(), "loss": loss, "accuracy": right, "samples": samples}

    def _forgetting(self, logits: Tensor, image: Tensor) -> Tensor:
        """How far ImageNet logits (B, 1000) are from those of the network as it was: Li & Hoiem 2016, equation 2."""
        with torch.no_grad():
            known = self.teacher(image, recognise=True)["imagenet"].float()  # (B, 1000)
        t = DISTILL_TEMPERATURE
        now, before = (logits.float() / t).log_softmax(1), (known / t).softmax(1)
        return F.kl_div(now, before, reduction="batchmean") * t * t

    def compute_metrics(self, samples: dict[str, Tensor]) -> dict[str, float]:
        """Area under the ROC curve (more than two classes: the mean of each against the rest); calibrates the model."""
        order = samples["index"].argsort()  # the same however many processes there are
        self.validated = {name: tensor[order] for name, tensor in samples.items()}
        label, logits = self.validated["label"], self.validated["logits"]
        known = label >= 0
        temperature, threshold = classify.calibrate(logits[known], label[known])
        self.calibration = {"temperature": temperature, "threshold": threshold}
        probs = (logits / temperature).softmax(1)
        found = {"auc": math.nan}
        if len(label[known].unique()) == len(self.model.classes):
            found["auc"] = metrics.area_under_roc(label[known].numpy(), probs[known].numpy())
        if not known.all():
            found["others_rejected"] = (probs[~known].amax(1) < threshold).float().mean().item()
        return found

    def show(self, recorder: Recorder, step: int, epoch: int) -> None:
        """Confusion matrix, precision-recall and ROC curves, validation pictures of the largest and smallest loss."""
        classes, known = self.model.classes, (self.validated["label"] >= 0).nonzero().flatten()
        label, logits = self.validated["label"][known], self.validated["logits"][known]
        matrix = confusion_matrix(label, logits.argmax(1), labels=range(len(classes)))
        recorder.matrix(step, epoch, "confusion", matrix.tolist(), classes)
        probs = (logits / self.calibration["temperature"]).softmax(1)
        most = min(CURVE_POINTS, max(20, CURVES_POINTS // len(classes)))
        for name, axes, curve in (
            ("precision_recall", ("recall", "precision"), metrics.precision_recall),
            ("roc", ("false positive rate", "true positive rate"), metrics.roc),
        ):
            if lines := metrics.class_curves(curve, label.numpy(), probs.numpy(), classes, most):
                recorder.curve(step, epoch, name, lines, axes)
        count = min(4 * self.cfg.samples, len(known) // 2)
        if not count or recorder.folder is None:
            return
        losses, index = F.cross_entropy(logits, label, reduction="none"), self.validated["index"][known]  # (N)
        order = losses.argsort(descending=True)
        rows, lines = [], []
        for name, part in (("worst", order[:count]), ("best", order.flip(0)[:count])):
            rows.append([self.val_pictures.picture(i) for i in index[part].tolist()])
            pairs = zip(index[part].tolist(), losses[part].tolist(), strict=True)
            names = [f"{self.val_pictures.samples[i].source.name} {abs(loss):.2f}" for i, loss in pairs]  # not -0.00
            lines.append(f"{name}, by their loss: {', '.join(names)}")
        path = recorder.folder / "pictures" / f"epoch_{epoch + 1:04}.png"
        save_image(path, grid(rows, ("worst", "best")))
        recorder.image(step, epoch, "worst and best", path, "\n".join(lines))

    def show_batch(
        self, recorder: Recorder, step: int, epoch: int, name: str, batch: dict[str, Tensor], loss: float
    ) -> None:
        if recorder.folder is not None:
            indices = batch["index"][:8].tolist()
            path = recorder.folder / "pictures" / f"{name.replace(' ', '_')}_{epoch + 1:04}.png"
            save_image(path, grid([[self.pictures.picture(index) for index in indices]]))
            names = ", ".join(self.pictures.samples[index].source.name for index in indices)
            recorder.image(step, epoch, name, path, f"loss {loss:.4f}: {names}")

    def finish(self, path: Path, batches: int | None = None) -> None:
        """Calibrates the best model for all numbers of views; validation has done so for one view."""
        known = [i for i, number in enumerate(self.val_pictures.labels) if number >= 0]
        known = known[: None if batches is None else batches * VAL_BATCH]
        sources = [self.val_pictures.samples[i].source for i in known]
        labels = torch.tensor([self.val_pictures.labels[i] for i in known])
        pictures = classify.Pictures(sources, self.cfg.image_size, max(classify.VIEWS))
        model = classify.open_model(path, self.model.device)
        found = classify.calibrate_views(model, pictures, labels, self.cfg.num_workers)
        if found:
            Classifier.load(path).save(path, calibration=found)

    def evaluate(self, split: str) -> dict[str, Any]:
        """Writes a report on a split into cfg.out, from cfg.tta views of each picture; of the test also Kaggle's file.

        Returns the metrics of infer/photo/metrics.py, and where the report is. Computed in float32; the model cannot be
        trained any more afterwards.
        """
        cfg, model = self.cfg, self.model.eval()
        fold_batchnorm(model)
        model.metadata.setdefault("image_size", cfg.image_size)
        size, place = model.metadata["image_size"], str(cfg.data_root or "the embedded sample")
        out = Path(cfg.out or f"tmp/dogcat_{split}")
        samples = self._to_evaluate(split, out)
        numbers = DogCatDataset(samples, model.classes, size).labels  # -1: unknown
        found, broken = self._predict(samples, size)
        readable, probs = [samples[index] for index in found], np.stack(list(found.values()))  # (N, K)
        label = np.array([numbers[index] for index in found])  # (N)
        unknown = int((label < 0).sum())
        if 0 < unknown < len(label):
            say(f"{unknown} of {len(label)} pictures have no label: the metrics are those of the others")

        def read(number: int) -> np.ndarray:
            return read_source(readable[number].source, size).on("white")

        results = report.Results([sample.source.name for sample in readable], label, probs, model.classes)
        notes = {"pictures": place, "split": split, "model": Path(cfg.load).name}
        notes |= {"views of each": str(cfg.tta), "left out": str(broken)}
        found_metrics = report.write_report(
            out, "Dogs vs. Cats", results, notes, read, lambda number, k: explain_prediction(model, read(number), k)
        )
        result = {"data": place, "split": split, "pictures": len(readable), "broken": broken}
        result |= ({"unlabelled": unknown} if unknown else {}) | found_metrics
        asked = [i for i, sample in enumerate(samples) if sample.label is None or sample.listed]
        if split == "test" and asked:
            as_likely = np.full(len(model.classes), 1 / len(model.classes))  # Kaggle wants a line for the broken, too
            table = {samples[i].id: found.get(i, as_likely) for i in asked}
            write_submission(out / SUBMISSION, table, model.classes)
            result["submission"] = str(out / SUBMISSION)
        return result | {"report": str(out / "report.html")}

    def _to_evaluate(self, split: str, out: Path) -> list[Sample]:
        """The samples of a split. Raises UserError if the report in `out` would be among them, or overwrite them."""
        embedded = EMBEDDED / ("test" if split == "test" else "train")
        root, labels = self.cfg.data_root or embedded, self.cfg.labels
        if is_inside(out, root) or is_inside(root, out / "samples"):
            raise UserError(f"the report would be mixed with {root}, which is the input: give another folder", out=out)
        refuse_overwriting((out / name for name in (*report.FILES, SUBMISSION)), self.cfg.inputs())
        if not self.cfg.data_root and split == "test":
            labels = labels or str(EMBEDDED / "test_labels.csv")
        samples = self.subset(choose_split(list_samples(root, labels), split))
        if split == "test" and not any(s.split == "test" or s.label is None or s.listed for s in samples):
            say("nothing here is for the test alone: all pictures are evaluated, those of a training, too")
        return samples

    def _predict(self, samples: list[Sample], size: int) -> tuple[dict[int, np.ndarray], int]:
        """({number of a sample: its probabilities (K)}, how many cannot be read). Raises UserError if none can."""
        pictures = classify.Pictures([sample.source for sample in samples], size, self.cfg.tta)
        found, errors = {}, []
        answers = classify.predict(self.model, pictures, workers=self.cfg.num_workers)
        for index, outputs, remark in tqdm(answers, "evaluating", len(samples), unit="picture", leave=False):
            if outputs is None:
                errors.append(remark)
            else:
                found[index] = classify.probabilities(self.model, outputs["logits"], self.cfg.tta).numpy()
        for error in errors:
            say(f"left out: {error}")
        if not found:
            raise UserError(f"none of the {len(samples)} pictures can be read; the first: {errors[0]}")
        return found, len(errors)

    def to(self, device: str | torch.device) -> None:
        super().to(device)
        if self.teacher is not None:
            self.teacher.to(device)

    @property
    def train_size(self) -> int:
        return len(self.pictures)

    def trial_batch(self, size: int) -> dict[str, Tensor]:
        image = torch.randint(256, (1, 3, size, size), dtype=torch.uint8)
        return {"image": image, "label": torch.tensor([0]), "index": torch.tensor([0])}

    def example(self) -> dict[str, Tensor]:
        return {"image": torch.zeros(1, 3, self.cfg.image_size, self.cfg.image_size)}

    def model_metadata(self) -> dict[str, Any]:
        recognises = self.model.recognises and (self.body_frozen or self.teacher is not None)
        return {"image_size": self.cfg.image_size, "recognises": recognises, **self.calibration}
