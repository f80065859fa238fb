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
from infer.optimize import optimize
from infer.stylize import read_style
from models.basemodule import BaseModule, read_metadata
from models.lpips import LPIPS
from models.perceptual import PerceptualLoss, total_variation
from models.transformer_net import TransformerNet
from models.vgg import choose_network
from tasks.base import Task
from utils.errors import UserError
from utils.images import grid, read_image, save_image, to_uint8
from utils.recorder import Recorder

EMBEDDED_STYLES = EMBEDDED.parent / "styles"
CLASSIFIER = Path(__file__).parent.parent / "checkpoints" / "dogcat.safetensors"
CHANNELS = (32, 64, 128)  # at width 1
SHEET_SIDE = 256  # pixels, of a cell of the sheet: strokes are not to be judged on less
STORED_SIDE = 576  # pixels, the longer side of a style's picture in a model file
# Of the JPEG: colours of half the resolution would change the style's statistics more than a quality of 60.
STORED_AS = {"quality": 75, "subsampling": 0, "optimize": True, "progressive": True}
SHIFT, NOISE = 4, 0.02  # of the photograph for the temporal loss: pixels, standard deviation


class StyleTask(Task):
    """Trains a TransformerNet on the photographs under cfg.data_root, one style for each picture of cfg.style_image.

    A small picture of each style goes into the model file, so that it can be judged, and trained further, by itself.
    """

    monitors = {"loss": "min", "content": "min", "style": "min"}
    size_option = "image_size"
    collate = staticmethod(collate)
    paths = ("data_root", "load", "style_image", "vgg", "lpips", "squeezenet")

    def __init__(self, cfg: StyleConfig, arguments: dict[str, Any] | None = None):
        super().__init__(cfg, arguments)
        self.photos = list_pictures(cfg.data_root or EMBEDDED)
        network = choose_network(cfg.loss_network, cfg.vgg, str(CLASSIFIER))
        self.loss_network, self.loss_file, self.why = network
        self.cfg = dataclasses.replace(cfg, loss_network=self.loss_network)
        if arguments:
            self.model = TransformerNet(**arguments)
        elif cfg.load:
            self.model = TransformerNet.load(cfg.load)
            _refuse_other_network(cfg, self.model)
        else:
            names = list(_style_pictures(cfg.style_image))
            self.model = TransformerNet(names, _channels(cfg.width), identity=cfg.identity)
        if cfg.identity_epochs and "identity_epochs" in cfg.changed() and not self.model.identity:
            raise UserError("--identity_epochs needs --identity: a network without it cannot learn it")
        # Channels last is the order that convolutions are fastest in, and the normalisation far faster (InstanceNorm).
        self.model.to(memory_format=torch.channels_last)
        self.identity_only = False

    @cached_property
    def pictures(self) -> dict[str, Path | bytes]:
        """The picture of each style of the network: a file of --style_image, or what the file of --load brings along.

        Raises UserError if there is neither of one of them.
        """
        cfg = self.cfg
        stored = read_metadata(cfg.load).get("style_pictures", {}) if cfg.load and Path(cfg.load).exists() else {}
        found = {name: base64.b85decode(text) for name, text in stored.items()}
        if cfg.style_image or not found:
            found |= _style_pictures(cfg.style_image)
        if missing := [name for name in self.model.styles if name not in found]:
            raise UserError(f"{cfg.load} paints {missing[0]} too: give its picture in the folder --style_image")
        return {name: found[name] for name in self.model.styles}

    @cached_property
    def loss(self) -> PerceptualLoss:
        """Read when it is needed: the command summary does without."""
        images = [
            read_style(io.BytesIO(picture), self.cfg.style_size, f"the picture of {name} in {self.cfg.load}")
            if isinstance(picture, bytes)
            else read_style(picture, self.cfg.style_size)
            for name, picture in self.pictures.items()
        ]
        return PerceptualLoss(self.loss_network, images, self.loss_file)

    def to(self, device: str | torch.device) -> None:
        super().to(device)
        self.loss.to(device)

    @cached_property
    def train_set(self) -> PhotoDataset:
        cfg, photos = self.cfg, choose_split(self.photos, "train")
        return PhotoDataset(photos, cfg.image_size, len(self.model.styles), cfg.styles_per_photo, cfg.seed)

    @cached_property
    def val_set(self) -> PhotoDataset:
        photos = choose_split(self.photos, "val")[: self.cfg.val_photos]
        return PhotoDataset(photos, self.cfg.image_size, len(self.model.styles))

    def __str__(self) -> str:
        return (
            f"{len(self.photos):,} photographs from {self.cfg.data_root or 'the embedded sample'}, "
            f"{len(self.model.styles)} styles: {', '.join(self.model.styles)}; "
            f"judged by {self.loss_network} ({self.why}); "
            f"{type(self.model).__name__} of {self.model.parameter_count():,} parameters"
        )

    def train_batches(self, epoch: int) -> list[list[int]]:
        if self.model.identity:
            # A network that was loaded, or a resumed run that is past this, has styles already.
            begins = epoch < self.cfg.identity_epochs and not self.cfg.fast_dev_run  # which tries the styles as well
            self.identity_only = begins and bool(self.model.untrained_styles())
            if not self.identity_only:
                self.model.styles_from_identity()
        self.train_set.set_epoch(epoch)
        return self.train_set.batches(self.cfg.batch_size, epoch, self.cfg.epoch_batches)

    def val_batches(self) -> tuple[PhotoDataset, list[list[int]]]:
        _ = self.loss  # the trainer asks for these batches before anything runs: a loss that cannot be had ends it here
        return self.val_set, [[i] for i in range(len(self.val_set))]

    def step(self, model: BaseModule, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each photograph painted in each of its styles, and as the identity.

        All means are over photographs; a photograph's losses are means over its styles.
        """
        photo = (batch["image"].float() / 255).contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
        objective, figures = torch.zeros((), device=photo.device), {}
        if not (model.training and self.identity_only):
            objective, figures = self._paint(model, photo, batch["style"])
        if self.model.identity:
            identity = _only_identity(photo.new_empty(len(photo), len(self.model.styles) + 1))  # (B, S)
            error = F.mse_loss(model(photo, identity)["image"], photo)
            objective = objective + self.cfg.identity_weight * error
            figures["identity"] = error.detach()
        return {"objective": objective, "count": torch.tensor(len(photo)), **figures}

    def _paint(self, model: BaseModule, photo: Tensor, styles: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(objective, figures) of photographs (B, 3, H, W), each painted in its styles (B, E)."""
        cfg, each = self.cfg, styles.shape[1]
        photos, styles = photo.repeat_interleave(each, 0), styles.flatten()  # (B * E, 3, H, W), (B * E)
        shares = F.one_hot(styles, len(self.model.styles) + self.model.identity).to(photo.dtype)  # (B * E, S)
        if self.identity_only:  # in validation: a style that has not begun yet paints what the identity paints
            shares = _only_identity(shares)
        painting = model(photos, shares)["image"]  # (B * E, 3, H, W)
        content = self.loss.content(photo).repeat_interleave(each, 0)
        figures = {name: value.mean() for name, value in self.loss(painting, content, styles).items()}
        loss = cfg.content_weight * figures["content"] + cfg.style_weight * figures["style"]
        figures = {"loss": loss, **figures, "tv": total_variation(painting).mean()}
        objective = loss + cfg.tv_weight * figures["tv"]
        if cfg.temporal_weight:
            figures["temporal"] = self._temporal(model, photos, shares, painting)
            objective = objective + cfg.temporal_weight * figures["temporal"]
        return objective, {name: value.detach() for name, value in figures.items()}

    def _temporal(self, model: BaseModule, photos: Tensor, shares: Tensor, painting: Tensor) -> Tensor:
        """What flickers in a film: the painting of the moved and noisy photograph against the moved painting."""
        x, y = torch.randint(SHIFT + 1, (2,)).tolist()
        height, width = (side - SHIFT for side in photos.shape[2:])
        moved = photos[:, :, y : y + height, x : x + width]
        moved = moved + NOISE * torch.randn_like(moved)
        return F.mse_loss(model(moved, shares)["image"], painting[:, :, y : y + height, x : x + width])

    @torch.no_grad()
    def show(self, recorder: Recorder, step: int, epoch: int) -> None:
        """A sheet of fixed photographs: each as it is, in every style, and as the identity paints it."""
        if not self.cfg.samples or recorder.folder is None:
            return
        shares = torch.eye(len(self.model.styles) + self.model.identity, device=self.model.device)
        if self.identity_only:  # no style has begun yet
            shares = _only_identity(shares)[:1]
        photos = PhotoDataset(self.val_set.sources, max(SHEET_SIDE, self.cfg.image_size), len(self.model.styles))
        rows = []
        for index in range(min(self.cfg.samples, len(photos))):
            photo = photos[index]["image"][None] / 255  # (1, 3, H, W)
            self.model.eval()
            paintings = [self.model(photo.to(shares.device), row[None])["image"] for row in shares]
            self.model.train()
            rows.append([to_uint8(picture) for picture in (photo, *paintings)])
        path = recorder.folder / "pictures" / f"epoch_{epoch + 1:04}.png"
        save_image(path, grid(rows))
        recorder.image(step, epoch, "paintings", path)

    def show_batch(
        self, recorder: Recorder, step: int, epoch: int, name: str, batch: dict[str, Tensor], loss: float
    ) -> None:
        if recorder.folder is not None:
            path = recorder.folder / "pictures" / f"{name.replace(' ', '_')}_{epoch + 1:04}.png"
            save_image(path, grid([[to_uint8(photo[None] / 255) for photo in batch["image"][:8]]]))
            recorder.image(step, epoch, name, path)
            recorder.text(step, epoch, name, f"loss {loss:.4f}")

    @torch.no_grad()
    def report(self, split: str) -> dict[str, Any]:
        """Figures of each style, and their means over the styles, on cfg.val_photos photographs of a split.

        They are means over the photographs, in float32, of paintings of 8 bits as users get them. STYLE_content,
        STYLE_style and their weighted sum STYLE_loss are those of the training; STYLE_temporal is by how many grey
        levels the painting changes where the film does not. With cfg.lpips, STYLE_lpips is the distance between
        painting and photograph; with cfg.optimize_steps, STYLE_optimized is the loss of the picture that `optimize`
        makes of the photograph, and STYLE_ratio that of the network divided by it.
        """
        cfg, styles = self.cfg, self.model.styles
        photos = self.some(choose_split(self.photos, split)[: cfg.val_photos])
        dataset = PhotoDataset(photos, cfg.image_size, len(styles))
        samples = [dataset[i] for i in range(len(dataset))]
        # What stands in for a broken photograph is another one of them.
        photos = [sample["image"][None] for sample in samples if not sample["broken"]]  # (1, 3, H, W) each
        lpips = LPIPS(cfg.lpips, cfg.squeezenet).to(self.model.device) if cfg.lpips else None
        self.model.eval()
        source = cfg.data_root or "the embedded sample"
        result = {"data": source, "split": split, "photos": len(photos), "broken": len(samples) - len(photos)}
        means: dict[str, list[float]] = {}
        total = len(styles) * len(photos) * (1 + cfg.optimize_steps)
        with tqdm(desc="judging", total=total, unit="step", leave=False) as bar:
            for style, name in enumerate(styles):
                rows = [self._judge(photo, number, style, lpips, bar) for number, photo in enumerate(photos)]
                figures = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
                if cfg.optimize_steps:
                    figures["ratio"] = figures["loss"] / figures["optimized"]
                for key, value in figures.items():
                    result[f"{name}_{key}"] = value
                    means.setdefault(key, []).append(value)
        return result | {f"mean_{key}": sum(values) / len(values) for key, values in means.items()}

    def _judge(self, photo: Tensor, number: int, style: int, lpips: LPIPS | None, bar: tqdm) -> dict[str, float]:
        """The figures of one painting: of the photograph (1, 3, H, W) uint8 with this number, in this style."""
        cfg = self.cfg
        photo = photo.to(self.model.device) / 255
        shares = torch.eye(len(self.model.styles) + self.model.identity, device=photo.device)[style : style + 1]
        painting = in_8_bits(self.model(photo, shares)["image"])
        figures = self._losses(painting, photo, style)
        figures["temporal"] = self._change(photo, number, shares, painting)
        if lpips is not None:
            figures["lpips"] = lpips(painting, photo).item()
        bar.update()
        if cfg.optimize_steps:
            weights = cfg.content_weight, cfg.style_weight, cfg.tv_weight
            best = optimize(photo, self.loss, style, cfg.optimize_steps, *weights, progress=lambda share: bar.update())
            figures["optimized"] = self._losses(in_8_bits(best), photo, style)["loss"]
        return figures

    def _losses(self, picture: Tensor, photo: Tensor, style: int) -> dict[str, float]:
        values = self.loss(picture, self.loss.content(photo), torch.tensor([style], device=photo.device))
        figures = {name: value.item() for name, value in values.items()}
        loss = self.cfg.content_weight * figures["content"] + self.cfg.style_weight * figures["style"]
        return {"loss": loss, **figures}

    def _change(self, photo: Tensor, number: int, shares: Tensor, painting: Tensor) -> float:
        """Mean difference, in grey levels, of the moved and noisy photograph's painting and the moved painting.

        As in `_temporal`, but movement and noise depend on the photograph's number alone.
        """
        random = torch.Generator().manual_seed(number)
        x, y = torch.randint(SHIFT + 1, (2,), generator=random).tolist()
        height, width = (side - SHIFT for side in photo.shape[2:])
        moved = photo[:, :, y : y + height, x : x + width]
        noise = NOISE * torch.randn(moved.shape, generator=random)
        again = in_8_bits(self.model(in_8_bits(moved + noise.to(photo.device)), shares)["image"])
        return 255 * (again - painting[:, :, y : y + height, x : x + width]).abs().mean().item()

    def trial_batch(self, size: int) -> dict[str, Tensor]:
        image = torch.randint(256, (1, 3, size, size), dtype=torch.uint8)
        return {"image": image, "style": torch.arange(min(self.cfg.styles_per_photo, len(self.model.styles)))[None]}

    def example(self) -> dict[str, Tensor]:
        size, rows = self.cfg.image_size, len(self.model.styles) + self.model.identity
        return {"image": torch.zeros(1, 3, size, size), "style": torch.eye(rows)[:1]}

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
                small = Image.fromarray(read_image(picture, max_side=STORED_SIDE).rgb)
                small.save(buffer, "JPEG", **STORED_AS)
                picture = buffer.getvalue()
            stored[name] = base64.b85encode(picture).decode()
        return stored


def in_8_bits(picture: Tensor) -> Tensor:
    """(B, 3, H, W) -> what a file holds of it: clamped to 0..1, in steps of 1/255."""
    return picture.mul(255).add(0.5).clamp(0, 255).floor() / 255


def _only_identity(shares: Tensor) -> Tensor:
    """(B, S) with 1 for the identity and 0 for every style."""
    result = torch.zeros_like(shares)
    result[:, -1] = 1
    return result


def _channels(width: float) -> tuple[int, int, int]:
    return tuple(max(1, round(c * width)) for c in CHANNELS)


def _refuse_other_network(cfg: StyleConfig, model: TransformerNet) -> None:
    channels = model.arguments["channels"]
    if "width" in cfg.changed() and list(_channels(cfg.width)) != channels:
        raise UserError(f"--width={cfg.width}: {cfg.load} has channels {channels}; leave --width out")
    if "identity" in cfg.changed() and cfg.identity != model.identity:
        raise UserError(f"--identity={cfg.identity}: {cfg.load} has it; leave --identity out")


def _style_pictures(style_image: str) -> dict[str, Path]:
    """{name of the style: its picture} of the option --style_image."""
    place = Path(style_image or EMBEDDED_STYLES)
    if not place.exists():
        raise UserError(f"--style_image={place} does not exist: give a picture, or a folder of pictures")
    found = (
        {Path(source.name).stem: source.path for source in list_pictures(place, "style_image")}
        if place.is_dir()
        else {}
    )
    return found or {place.stem: place}
