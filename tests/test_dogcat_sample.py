"""dataset/sample/dogcat: the drawn cats and dogs, what tells them apart and what does not, and what drew them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from data.labels import Sample, class_names, list_samples

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "dataset" / "sample" / "dogcat"
CLASSES = ["cat", "dog"]


def learnt() -> list[Sample]:
    return list_samples(FOLDER / "train")


def judged() -> list[Sample]:
    return list_samples(FOLDER / "test", labels=FOLDER / "test_labels.csv")


def targets(samples: list[Sample]) -> np.ndarray:
    return np.array([CLASSES.index(sample.label) for sample in samples])


def thumbnails(samples: list[Sample], side: int) -> np.ndarray:
    """(N, side, side, 3) in 0..1."""
    pictures = []
    for sample in samples:
        with Image.open(sample.source.path) as image:
            pictures.append(np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / 255)
    return np.stack(pictures)


def test_there_are_as_many_cats_as_dogs():
    assert class_names(learnt()) == CLASSES
    assert Counter(sample.label for sample in learnt()) == {"cat": 48, "dog": 48}
    assert Counter(sample.label for sample in judged()) == {"cat": 12, "dog": 12}
    assert {sample.label for sample in list_samples(FOLDER / "test")} == {None}  # the names tell nothing
    assert {int(sample.id) for sample in judged()} == set(range(1, 25))


def test_they_are_small_and_not_all_square():
    paths = list(FOLDER.rglob("*.jpg"))
    assert sum(path.stat().st_size for path in paths) < 500_000
    sizes = set()
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "JPEG" and image.mode == "RGB"
            sizes.add(image.size)
    assert all(120 <= side <= 160 for size in sizes for side in size)
    assert {np.sign(width - height) for width, height in sizes} == {-1, 0, 1}


def test_no_picture_is_there_twice():
    """To each animal there is one of the other kind in the same scene: alike, but clearly not the same."""
    small = thumbnails(learnt() + judged(), 16).reshape(120, -1)
    apart = np.abs(small[:, None] - small[None]).mean(-1)  # (120, 120)
    np.fill_diagonal(apart, 1)
    assert apart.min() > 0.008


@pytest.mark.parametrize(
    "cue", [lambda samples: thumbnails(samples, 1), lambda samples: thumbnails(samples, 8)], ids=["colour", "thumbnail"]
)
def test_colours_and_places_do_not_tell_cats_from_dogs(cue):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(cue(learnt()).reshape(96, -1), targets(learnt()))
    assert classifier.score(cue(judged()).reshape(24, -1), targets(judged())) <= 0.75


def test_a_small_network_tells_cats_from_dogs():
    """By their shapes, then."""
    torch.manual_seed(1)
    images, unseen = (
        torch.from_numpy(thumbnails(samples, 48)).permute(0, 3, 1, 2) - 0.5 for samples in (learnt(), judged())
    )  # (N, 3, 48, 48)
    labels = torch.from_numpy(targets(learnt()))
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    epochs, batch = 18, 12
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * len(images) // batch)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            shift = torch.randint(-6, 7, (2,)).tolist()
            picture = images[chosen].roll(shift, (2, 3))
            picture = picture.flip(-1) if torch.rand(()) < 0.5 else picture
            loss = F.cross_entropy(network(picture * (0.8 + 0.4 * torch.rand(len(chosen), 1, 1, 1))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        answers = (network(unseen) + network(unseen.flip(-1))).argmax(1)
    assert (answers.numpy() == targets(judged())).mean() >= 0.85
