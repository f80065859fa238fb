"""Makes what the classifier starts from: ImageNet's weights, with a layer for scenes fitted to labelled pictures.

    python dataset/make_scenes.py efficientnet-lite0.pth labels.txt eye.safetensors

labels.txt has a line for each photograph, `path: mountain snow day`, with names of data/scenes.txt. With a `?` among
them only these are known, and with a minus those that are not there: `path: night -day ?`.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm  # noqa: E402  the path first

from data.photos import Source  # noqa: E402
from data.sights import scenes  # noqa: E402
from data.views import as_input  # noqa: E402
from infer.photo.classify import Pictures  # noqa: E402
from models import EfficientNetLite0  # noqa: E402

SIZE, VIEWS = 192, 2
WEIGHT_DECAY = 0.01


def main(weights: str, labels: str, out: str) -> None:
    model = EfficientNetLite0(["cat", "dog"]).eval()
    model.load_pretrained(weights)
    names = [scene.name for scene in scenes()]
    rows = [line.rpartition(": ") for line in Path(labels).read_text(encoding="utf-8").splitlines()]
    tags = [set(text.split()) for _, _, text in rows]
    target = torch.tensor([[float(name in row) for name in names] for row in tags])  # (N, S)
    known = torch.tensor([[float("?" not in row or bool(row & {name, f"-{name}"})) for name in names] for row in tags])
    features = read_features(model, [path for path, _, _ in rows])  # (N, V, E)
    weight, bias = fit(features, target, known)
    model.scene_classifier.weight.copy_(weight)
    model.scene_classifier.bias.copy_(bias)
    model.save(out, torch.float16, recognises=True, image_size=SIZE)


@torch.inference_mode()
def read_features(model: EfficientNetLite0, paths: list[str]) -> Tensor:
    """(N, V, E): the means of the maps of each view of each picture."""
    pictures, features = Pictures([Source(path, Path(path)) for path in paths], SIZE, VIEWS), []
    for sample in tqdm(map(pictures.__getitem__, range(len(paths))), total=len(paths), unit="picture"):
        if "error" in sample:
            sys.exit(sample["error"])
        features.append(model.pool(model.feature_maps(as_input(sample["views"]))).flatten(1))  # (V, E)
    return torch.stack(features)


def fit(features: Tensor, target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regression of targets (N, S), where they are known (N, S) -> weight (S, E), bias (S)."""
    x, views = features.flatten(0, 1), features.shape[1]  # (N V, E)
    mean, std = x.mean(0), x.std(0) + 1e-3
    x, target, known = (x - mean) / std, target.repeat_interleave(views, 0), known.repeat_interleave(views, 0)
    weight = torch.zeros(target.shape[1], x.shape[1], requires_grad=True)
    bias = torch.full((target.shape[1],), -2.0, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = F.binary_cross_entropy_with_logits(x @ weight.T + bias, target, reduction="none")  # (N V, S)
        loss = (losses * known).sum() / len(x) + WEIGHT_DECAY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = weight.detach() / std
    return weight, bias.detach() - weight @ mean


if __name__ == "__main__":
    main(*sys.argv[1:])
