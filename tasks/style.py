"""The painter's task: photographs to paintings, judged by a frozen network (Johnson et al. 2016)."""

import base64
import dataclasses
import io
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from config import StyleConfig
from data.photos import EMBEDDED, PhotoDataset, choose_split, collate, list_pictures
from data.views import as_input
from infer.painting.colors import grade
from infer.painting.files import read_style
from models.basemodule import BaseModule, read_metadata
from models.loss_networks import choose_network
from models.lpips import LPIPS
from models.perceptual import PerceptualLoss, total_variation
from models.strokes import calm_places, likeness, same_texture, strokes
from options import LOSS_NETWORK, ROOT
from tasks.base import Task
from tasks.style_metrics import compare_with_optimized, in_8_bits, measure
from tasks.style_setup import by_style, choose, make_networks, style_pictures, with_start
from training.recorder import Recorder
from utils.errors import UserError
from utils.images import grid, save_image, to_uint8

EXCESS_WEIGHT = 10.0  # of the mean square by which normalised values come near their bound
SHEET_SIDE = 256  # pixels, of a cell of the sheet: strokes are not to be judged on less
REPORT_SIDE = 512  # pixels, of the photographs that val and test judge by
STORED_SIDE = 576  # pixels, the longer side of a style's picture in a model file
# Of the JPEG: colours of half the resolution would change the style's statistics more than a quality of 60.
STORED_AS = {"quality": 75, "subsampling": 0, "optimize": True, "progressive": True}
SHIFT, NOISE = 4, 0.02  # of the photograph for the temporal loss: pixels, standard deviation


class StyleTask(Task):
    """Trains a network for each picture of cfg.style_image on the photographs under cfg.data_root.

    A style that the file cfg.load (without it, the shipped one) lacks joins those that it has: only it learns, and
    starts from the file's first one. A small picture of each style goes into the model file, so that it can be judged,
    and trained further, by itself.
    """

    command = "stylize photo.jpg"
    monitors = {"loss": "min", "content": "min", "style": "min", "calm": "min"}
    size_option = "image_size"
    in_parts = True  # each style has a network of its own
    collate = staticmethod(collate)
    paths = ("data_root", "load", "style_image", "vgg", "lpips", "squeezenet")

    def __init__(self, cfg: StyleConfig, arguments: dict[str, Any] | None = None):
        self.photos = list_pictures(cfg.data_root or EMBEDDED)
        cfg = with_start(cfg)
        network = choose_network(cfg.loss_network, cfg.vgg, str(ROOT / LOSS_NETWORK))
        self.loss_network, self.loss_file, self.why = network
        self.cfg = dataclasses.replace(cfg, loss_network=self.loss_network)
        self.model, learning = make_networks(cfg, arguments)
        self.styles = choose(cfg.styles, self.model.styles) or learning
        if others := [number for number, name in enumerate(self.model.styles) if name not in self.styles]:
            patterns = [*cfg.freeze.split(","), *(f"networks.{number}.*" for number in others)]
            frozen = ",".join(filter(None, dict.fromkeys(patterns)))
            self.cfg = dataclasses.replace(self.cfg, styles=",".join(self.styles), freeze=frozen)
        self.numbers = torch.tensor([self.model.styles.index(name) for name in self.styles])  # of their networks
        self.style_weights = torch.tensor(by_style("style_weight", cfg.style_weight, self.model.styles, self.styles))
        self.calm_shares = torch.tensor(by_style("calm_share", cfg.calm_share, self.model.styles, self.styles))
        if not ((self.calm_shares >= 0) & (self.calm_shares <= 1)).all():
            raise UserError("must lie between 0 and 1", calm_share=cfg.calm_share)
        by_style("grade", cfg.grade, self.model.styles)
        if cfg.style_size > STORED_SIDE and cfg.load and not cfg.style_image:
            stored = f"{cfg.load} holds its styles' pictures at {STORED_SIDE} pixels"
            raise UserError(f"{stored}; give larger ones as style_image", style_size=cfg.style_size)
        # Channels last is the order that convolutions are fastest in, and the normalisation far faster (BoundedNorm).
        self.model.to(memory_format=torch.channels_last)

    @cached_property
    def pictures(self) -> dict[str, Path | bytes]:
        """The picture of each style of the network: a file of --style_image, or what the file of --load brings along.

        Raises UserError if there is neither of one of them.
        """
        cfg = self.cfg
        stored = read_metadata(cfg.load).get("style_pictures", {})
        found = {name: base64.b85decode(text) for name, text in stored.items()}
        if cfg.style_image or not found:
            found |= style_pictures(cfg.style_image)
        if missing := [name for name in self.model.styles if name not in found]:
            raise UserError(f"{cfg.load} paints {missing[0]} too: give its picture in the folder style_image")
        return {name: found[name] for name in self.model.styles}

    @cached_property
    def loss(self) -> PerceptualLoss:
        """Read when it is needed: the command summary does without."""
        return PerceptualLoss(self.loss_network, self.training_images, self.loss_file)

    @cached_property
    def training_images(self) -> list[Tensor]:
        """The pictures of the styles that learn, at the size that the training sees."""
        return [self._style_image(name, self.cfg.style_size) for name in self.styles]

    def _style_image(self, name: str, side: int) -> Tensor:
        """The picture of a style (1, 3, H, W), its longer side reduced to `side` pixels.

        A file of --style_image is graded as --grade says; what a model file has has been.
        """
        picture = self.pictures[name]
        if isinstance(picture, bytes):
            return read_style(io.BytesIO(picture), side, f"the picture of {name} in {self.cfg.load}")
        [chroma] = by_style("grade", self.cfg.grade, self.model.styles, [name])
        image = read_style(picture, side)
        return grade(image, chroma) if chroma else image

    def to(self, device: str | torch.device) -> None:
        super().to(device)
        self.loss.to(device)
        self.style_weights, self.calm_shares = self.style_weights.to(device), self.calm_shares.to(device)

    @cached_property
    def train_set(self) -> PhotoDataset:
        cfg, photos = self.cfg, choose_split(self.photos, "train")
        return PhotoDataset(photos, cfg.image_size, len(self.styles), cfg.styles_per_photo, cfg.seed)

    @cached_property
    def val_set(self) -> PhotoDataset:
        photos = choose_split(self.photos, "val")[: self.cfg.val_photos]
        return PhotoDataset(photos, self.cfg.image_size, len(self.styles))

    def __str__(self) -> str:
        return (
            f"{len(self.photos):,} photographs from {self.cfg.data_root or 'the embedded sample'}, "
            f"{len(self.styles)} styles: {', '.join(self.styles)}; "
            f"judged by {self.loss_network} ({self.why}); "
            f"{type(self.model).__name__} of {self.model.parameter_count():,} parameters"
        )

    def train_batches(self, epoch: int) -> list[list[int]]:
        self.train_set.set_epoch(epoch)
        return self.train_set.batches(self.cfg.batch_size, epoch, self.cfg.epoch_batches)

    def val_batches(self) -> tuple[PhotoDataset, list[list[int]]]:
        _ = self.loss  # the trainer asks for these batches before anything runs: a loss that cannot be had ends it here
        return self.val_set, [[i] for i in range(len(self.val_set))]

    def step(self, model: BaseModule, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each photograph painted in each of its styles.

        All means are over photographs; a photograph's losses are means over its styles. In validation there are also
        the strokes and the likeness (models/strokes.py).
        """
        cfg, each = self.cfg, batch["style"].shape[1]
        photo = as_input(batch["image"])  # (B, 3, H, W)
        photos, styles = photo.repeat_interleave(each, 0), batch["style"].flatten()  # (B * E, 3, H, W), (B * E)
        numbers = self.numbers.to(photo.device)[styles]
        output = model(photos, numbers)
        painting = output["image"]  # (B * E, 3, H, W)
        content = self.loss.content(photo).repeat_interleave(each, 0)
        calm = torch.stack([calm_places(one)[None] for one in photos.split(1)])  # (B * E, 1, H, W)
        # Validation compares the same pixels each time.
        losses = self.loss(painting, content, styles, calm, seed=None if model.training else 0)  # (B * E) each
        style = torch.lerp(losses["style"], losses["calm"], self.calm_shares[styles])
        loss = (cfg.content_weight * losses["content"] + self.style_weights[styles] * style).mean()
        metrics = {name: value.mean() for name, value in losses.items()}
        metrics = {"loss": loss, **metrics, "tv": total_variation(painting).mean()}
        objective = loss + cfg.tv_weight * metrics["tv"]
        if "excess" in output:  # in training
            objective = objective + EXCESS_WEIGHT * output["excess"].mean()
        else:
            metrics |= self._seen(painting.clamp(0, 1), photos, calm, styles)
        if cfg.temporal_weight:
            metrics["temporal"] = self._temporal(model, photos, numbers, painting)
            objective = objective + cfg.temporal_weight * metrics["temporal"]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Processes average all gradients: styles that none of their photographs is painted in need one, too.
            objective = objective + 0 * sum(p.sum() for p in self.model.parameters() if p.requires_grad)
        metrics = {name: value.detach() for name, value in metrics.items()}
        return {"objective": objective, "count": torch.tensor(len(photo)), **metrics}

    def _seen(self, paintings: Tensor, photos: Tensor, calm: Tensor, styles: Tensor) -> dict[str, Tensor]:
        """Means of strokes and likeness over paintings (B, 3, H, W) of photographs in these styles (B).

        Strokes are those of 2 to 8 pixels, by those of the style pictures as the training sees them.
        """
        seen = []
        each = zip(paintings.split(1), photos.split(1), calm[:, 0], styles.tolist(), strict=True)
        for painting, photo, places, style in each:
            by_size = strokes(painting, places, self.training_images[style].to(photo.device))
            seen.append((sum(by_size[1:3]) / 2, likeness(painting, photo)))
        by_name = torch.tensor(seen).mean(0)
        return {"strokes": by_name[0], "likeness": by_name[1]}

    def _temporal(self, model: BaseModule, photos: Tensor, numbers: Tensor, painting: Tensor) -> Tensor:
        """What flickers in a film: the painting of the moved and noisy photograph against the moved painting."""
        x, y = torch.randint(SHIFT + 1, (2,)).tolist()
        height, width = (side - SHIFT for side in photos.shape[2:])
        moved = photos[:, :, y : y + height, x : x + width]
        moved = moved + NOISE * torch.randn_like(moved)
        return F.mse_loss(model(moved, numbers)["image"], painting[:, :, y : y + height, x : x + width])

    @torch.no_grad()
    def show(self, recorder: Recorder, step: int, epoch: int) -> None:
        """A sheet of fixed photographs: each as it is, and in every style that learns."""
        if not self.cfg.samples or recorder.folder is None:
            return
        photos = PhotoDataset(self.val_set.sources, max(SHEET_SIDE, self.cfg.image_size), len(self.styles))
        rows = []
        for index in range(min(self.cfg.samples, len(photos))):
            photo = photos[index]["image"][None] / 255  # (1, 3, H, W)
            self.model.eval()
            paintings = [self.model[name](photo.to(self.model.device))["image"] for name in self.styles]
            self.model.train()
            rows.append([to_uint8(picture) for picture in (photo, *paintings)])
        path = recorder.folder / "pictures" / f"epoch_{epoch + 1:04}.png"
        save_image(path, grid(rows))
        recorder.image(step, epoch, "paintings", path, f"photograph, {', '.join(self.styles)}")

    def show_batch(
        self, recorder: Recorder, step: int, epoch: int, name: str, batch: dict[str, Tensor], loss: float
    ) -> None:
        if recorder.folder is not None:
            path = recorder.folder / "pictures" / f"{name.replace(' ', '_')}_{epoch + 1:04}.png"
            save_image(path, grid([[to_uint8(photo[None] / 255) for photo in batch["image"][:8]]]))
            recorder.image(step, epoch, name, path, f"loss {loss:.4f}")

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, Any]:
        """Metrics of each style, and their means over the styles, on cfg.val_photos photographs of a split.

        They are means over the photographs, in float32, of paintings of 8 bits as users get them; the photographs are
        squares of 512 pixels, or of --image_size. What they mean is in docs/painter.md. With cfg.lpips, STYLE_lpips is
        the distance between painting and photograph; with cfg.optimize_steps, STYLE_loss is that of the training,
        STYLE_optimized that of the picture that `optimize` makes of the photograph, and STYLE_ratio one by the other.
        """
        cfg, styles = self.cfg, self.styles
        side = cfg.image_size if "image_size" in cfg.changed() else REPORT_SIDE
        photos = self.subset(choose_split(self.photos, split)[: cfg.val_photos])
        dataset = PhotoDataset(photos, side, len(styles))
        samples = [dataset[i] for i in range(len(dataset))]
        # What stands in for a broken photograph is another one of them.
        photos = [sample["image"][None] for sample in samples if not sample["broken"]]  # (1, 3, H, W) each
        lpips = LPIPS(cfg.lpips, cfg.squeezenet).to(self.model.device) if cfg.lpips else None
        pictures = [self._style_image(name, side).to(self.model.device) for name in styles]
        self.model.eval()
        source = cfg.data_root or "the embedded sample"
        result = {"data": source, "split": split, "photos": len(photos), "broken": len(samples) - len(photos)}
        means: dict[str, list[float]] = {}
        rows: list[list[dict[str, float]]] = [[] for _ in styles]
        with tqdm(desc="judging", total=len(styles) * len(photos), unit="painting", leave=False) as bar:
            for photo in photos:
                photo = photo.to(self.model.device) / 255
                paintings = [in_8_bits(self.model[name](photo)["image"]) for name in styles]
                textures = same_texture(paintings, calm_places(photo))
                for style, painting in enumerate(paintings):
                    row = measure(self.model[styles[style]], self.loss, photo, painting, style, pictures[style])
                    others = [abs(value) for i, value in enumerate(textures[style]) if i != style]
                    if others:
                        row["same_texture"] = sum(others) / len(others)
                    if lpips is not None:
                        row["lpips"] = lpips(painting, photo).item()
                    if cfg.optimize_steps:
                        weight = float(self.style_weights[style])
                        row |= compare_with_optimized(cfg, self.loss, weight, photo, painting, style)
                    rows[style].append(row)
                    bar.update()
        for name, judged in zip(styles, rows, strict=True):
            metrics = {key: sum(row[key] for row in judged) / len(judged) for key in judged[0]}
            if cfg.optimize_steps:
                metrics["ratio"] = metrics["loss"] / metrics["optimized"]
            for key, value in metrics.items():
                result[f"{name}_{key}"] = value
                means.setdefault(key, []).append(value)
        return result | {f"mean_{key}": sum(values) / len(values) for key, values in means.items()}

    def trial_batch(self, size: int) -> dict[str, Tensor]:
        image = torch.randint(256, (1, 3, size, size), dtype=torch.uint8)
        return {"image": image, "style": torch.arange(min(self.cfg.styles_per_photo, len(self.styles)))[None]}

    def example(self) -> dict[str, Tensor]:
        size = self.cfg.image_size
        return {"image": torch.zeros(1, 3, size, size), "style": torch.zeros(1, dtype=torch.long)}

    def model_metadata(self) -> dict[str, Any]:
        """What the paintings are judged by: the network, and a small picture of each style."""
        return {"loss_network": self.loss_network, "style_pictures": self._stored_pictures}

    @cached_property
    def _stored_pictures(self) -> dict[str, str]:
        """{style: its picture in base 85}; those of a model file as they are, others as JPEG of STORED_SIDE pixels."""
        stored = {}
        for name, picture in self.pictures.items():
            if not isinstance(picture, bytes):
                buffer = io.BytesIO()
                small = Image.fromarray(to_uint8(self._style_image(name, STORED_SIDE)))
                small.save(buffer, "JPEG", **STORED_AS)
                picture = buffer.getvalue()
            stored[name] = base64.b85encode(picture).decode()
        return stored
