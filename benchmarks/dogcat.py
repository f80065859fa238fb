"""The classifier against the plain way to train and use one, on this machine's CPU: speed and memory. Not a test.

The other side is what tutorials show: a dataset class that decodes each file every time, torchvision's MobileNetV2 in
fp32, channels first, Adam. How often the answers are right is not measured here: `python main.py test --task=dogcat`
does. Run it on a quiet machine:

    python benchmarks/dogcat.py

Prints tables on stdout as they are done. Shapes: N pictures, K classes.
"""

import argparse
import itertools
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  the path first
from PIL import Image, ImageOps  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.models import mobilenet_v2  # noqa: E402

from benchmarks.common import compare, exit_code, our_training, precisions, timed  # noqa: E402
from config import ClassifyConfig, DogCatConfig, task_config  # noqa: E402
from data.dogcat import DogCatDataset  # noqa: E402
from data.labels import choose_split, list_samples  # noqa: E402
from data.views import Augmentation  # noqa: E402
from infer.photo.classify import Settings, classify, find_pictures, open_model  # noqa: E402
from models import Classifier  # noqa: E402
from models.classifier import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from tasks import make_task  # noqa: E402

PICTURES = ROOT / "dataset" / "sample" / "dogcat" / "train"
SIDE = 500  # pixels, as Kaggle's pictures have
SIZE, BATCH = DogCatConfig.image_size, DogCatConfig.batch_size
EARLY = "features.?.*,features.10.*,features.11.*,features.12.*,features.13.*"  # 14 of the 19 blocks
JOBS = {"all layers": "", "early layers frozen": EARLY, "last layer": "features.*"}  # what does not learn
CLASSIFIER = ROOT / ClassifyConfig.load


class PlainDogCat(Dataset):
    """(image (3, size, size) float32, 1 for a dog and 0 for a cat) of files in Kaggle's naming, decoded each time."""

    def __init__(self, files: Sequence[Path], size: int, train: bool):
        self.files = files
        if train:
            views = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
        else:
            views = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
        normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.transforms = transforms.Compose([*views, transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.files[index]
        return self.transforms(Image.open(path).convert("RGB")), int("dog" in path.name)


def plain_training(files: Sequence[Path], epochs: int, frozen: Sequence[str]) -> None:
    """Trains torchvision's MobileNetV2; parameters that fit a pattern of `frozen` do not learn, but are computed."""
    model = mobilenet_v2(weights=None, num_classes=2)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not any(fnmatchcase(name, pattern) for pattern in frozen)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        model.train()
        for image, label in DataLoader(PlainDogCat(files, SIZE, train=True), BATCH, shuffle=True):
            optimizer.zero_grad()
            loss = criterion(model(image), label)
            loss.backward()
            optimizer.step()


def make_pictures(folder: Path, place: str, count: int) -> None:
    """`count` JPEGs in Kaggle's naming, as many cats as dogs, whose longer side is SIDE, out of those at `place`."""
    samples = list_samples(place)
    folder.mkdir()
    for label in ("cat", "dog"):
        sources = itertools.cycle([sample.source for sample in samples if sample.label == label])
        for number, source in zip(range(count // 2), sources, strict=False):
            image = ImageOps.contain(Image.open(source.open()).convert("RGB"), (SIDE, SIDE))
            image.save(folder / f"{label}.{number}.jpg", quality=90)


def reading(way: str, folder: Path, cache: Path) -> Callable[[Any], Any]:
    """Reads all the pictures as training does, without a network; with a cache, that is full after round 0."""
    samples = choose_split(list_samples(folder), "train")
    if way == "plain":
        dataset = PlainDogCat([sample.source.path for sample in samples], SIZE, train=True)
    else:
        dataset = DogCatDataset(samples, ["cat", "dog"], SIZE, Augmentation(), cache if way == "cached" else "")

    def work(number: int) -> tuple[int, None]:
        for i in range(len(dataset)):
            dataset[i]
        return len(dataset), None

    return timed(work)


def training(options: dict[str, Any] | None, frozen: str, folder: Path) -> Callable[[Any], Any]:
    """Trains for so many epochs, from a new network and an empty cache; options None: the plain way."""
    files = [sample.source.path for sample in choose_split(list_samples(folder), "train")]

    def work(epochs: int) -> tuple[int, None]:
        if options is None:
            plain_training(files, epochs, frozen.split(","))
        else:
            with tempfile.TemporaryDirectory() as cache:
                data = {"data_root": folder, "cache": cache, "pretrained": "none", "freeze": frozen}
                data["backbone"] = "mobilenet_v2"
                task = make_task(task_config({"task": "dogcat", **data, **options}))
                for _ in itertools.islice(our_training(task), epochs * math.ceil(len(files) / BATCH)):
                    pass
        return epochs * len(files), None

    return timed(work)


def classifying(way: str, views: int, folder: Path) -> Callable[[Any], Any]:
    """What the pictures show: probabilities (N, K). way: plain, or a precision."""
    model, paths = open_model(CLASSIFIER), sorted(folder.iterdir())
    network = Classifier.load(CLASSIFIER)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.no_grad()
    def plain(number: int) -> tuple[int, Tensor]:
        dataset = PlainDogCat(paths, model.metadata["image_size"], train=False)
        logits = torch.cat([network((dataset[i][0] * std + mean)[None])["logits"] for i in range(len(dataset))])
        return len(paths), (logits / model.metadata["temperature"]).softmax(1)

    def ours(number: int) -> tuple[int, Tensor]:
        settings = Settings(views, way, threshold=0.0)  # no picture is "neither"
        answers = classify(model, find_pictures([str(path) for path in paths]), settings)
        return len(paths), torch.tensor([list(answer.probabilities.values()) for answer in answers])

    return timed(plain if way == "plain" else ours)


def measure(args: argparse.Namespace, folder: Path) -> None:
    """All three parts; `folder` is for what the processes share."""
    count, epochs, rounds, kinds = args.pictures, args.epochs, args.rounds, precisions()
    if args.quick:
        count, epochs, rounds, kinds = 40, 1, 1, kinds[-1:]
    print(f"{count} pictures of {args.data_root}, {SIZE} x {SIZE} pixels of each, batches of {BATCH}, {epochs} epochs")
    pictures = folder / "pictures"
    make_pictures(pictures, args.data_root, count)
    ways = {f"{way} | ": (reading, way, pictures, folder / "cache") for way in ("plain", "ours", "cached")}
    compare("reading", "images/s", ways, rounds, lambda number: number)
    for job, frozen in JOBS.items():
        ways = {"plain | fp32": (training, None, frozen, pictures)}
        for precision in kinds:
            ways[f"ours | {precision}"] = (training, {"precision": precision}, frozen, pictures)
            if job == "last layer":
                options = {"precision": precision, "views": epochs}
                ways[f"ours, --views={epochs} | {precision}"] = (training, options, frozen, pictures)
        compare(job, "images/s", ways, rounds, lambda number: epochs if number else 1)
    ways = {"plain | fp32": (classifying, "plain", 1, pictures)}
    for views, precision in itertools.product((1, ClassifyConfig.tta), kinds):
        ways[f"ours, --tta={views} | {precision}"] = (classifying, precision, views, pictures)
    compare("classifying", "images/s", ways, rounds, lambda number: number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default=str(PICTURES), help="pictures of cats and dogs")
    parser.add_argument("--pictures", type=int, default=240, help="how many, a tenth of them not trained with")
    parser.add_argument("--epochs", type=int, default=DogCatConfig.max_epoch, help="of a training")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each way takes")
    parser.add_argument("--quick", action="store_true", help="a moment of each, to see that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return exit_code(lambda: measure(args, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
