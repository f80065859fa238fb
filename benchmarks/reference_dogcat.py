"""Dogs vs. Cats as tutorials do it, written here plainly: a dataset class, a loop, a network of torchvision in fp32.

The classifier's training and its answers are timed against it (benchmarks/dogcat.py). Nothing else is done with it.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import mobilenet_v2

NORMALIZE = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


class PlainDogCat(Dataset):
    """(image (3, size, size) float32, 1 for a dog and 0 for a cat) of files in Kaggle's naming, decoded each time."""

    def __init__(self, files: Sequence[Path], size: int, train: bool):
        self.files = files
        if train:
            views = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
        else:
            views = [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)]
        self.transforms = transforms.Compose([*views, transforms.ToTensor(), NORMALIZE])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.files[index]
        return self.transforms(Image.open(path).convert("RGB")), int("dog" in path.name)


def plain_training(
    files: Sequence[Path], size: int, batch_size: int, epochs: int, frozen: Sequence[str] = (), workers: int = 0
) -> None:
    """Trains torchvision's MobileNetV2 for two classes by Adam; parameters that fit a pattern of `frozen` do not learn.

    What is frozen is computed anew in each step, as it is where only requires_grad is taken away.
    """
    model = mobilenet_v2(weights=None, num_classes=2)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not any(fnmatchcase(name, pattern) for pattern in frozen)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(PlainDogCat(files, size, train=True), batch_size, shuffle=True, num_workers=workers)
    for _ in range(epochs):
        model.train()
        for image, label in loader:
            optimizer.zero_grad()
            loss = criterion(model(image), label)
            loss.backward()
            optimizer.step()


@torch.no_grad()
def plain_logits(model: nn.Module, files: Sequence[Path], size: int) -> Tensor:
    """(N, K): the logits of files by a network in eval mode, one picture at a time."""
    dataset = PlainDogCat(files, size, train=False)
    return torch.cat([model(dataset[i][0][None]) for i in range(len(dataset))])
