"""infer/photo/classify.py: what the network looks at, answers in order, calibration."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import infer.photo.explain
from data.photos import Source
from data.views import centre_view
from infer.photo.classify import Pictures, Settings, calibrate, classify, crops, open_model
from infer.photo.explain import explain_prediction
from tests.pictures import ramp, save_lenet, write_picture

SIZE = 32


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    return save_lenet(tmp_path_factory.mktemp("model") / "lenet.safetensors")


@pytest.mark.parametrize("width, height", [(400, 300), (300, 400), (320, 320)])
def test_crops_show_the_middle_and_both_ends(width, height):
    rgb, short = ramp(width, height), min(width, height)
    views = crops(rgb, SIZE, 6).astype(float)
    assert views.shape == (6, SIZE, SIZE, 3)
    for number, side, share in ((0, short * 224 / 256, 0.5), (2, short, 0), (4, short, 1)):
        inner = np.s_[2:-2]  # at the border, the filter has less to look at
        for channel, length in enumerate((width, height)):
            place = share * (length - side) + (np.arange(SIZE) + 0.5) / SIZE * side - 0.5  # of the view's pixels
            line = views[number, SIZE // 2, :, 0] if channel == 0 else views[number, :, SIZE // 2, 1]
            assert line[inner] == pytest.approx(255 * place[inner] / (length - 1), abs=1.5)
        assert (views[number + 1] == views[number, :, ::-1]).all()
    assert all((crops(rgb, SIZE, fewer) == views[:fewer]).all() for fewer in (1, 2))


def test_the_first_view_is_that_of_validation(tmp_path):
    for seed, size in enumerate([(225, 150), (160, 240), (99, 100)]):
        rgb = np.array(Image.open(write_picture(tmp_path / "a.png", seed, size)))
        ours, theirs = crops(rgb, 96, 1)[0].astype(float), centre_view(rgb, 96).permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).mean() < 3  # that one rounds to whole pixels


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (33, 47)])
def test_tiny_and_narrow_pictures_have_views(size):
    views = crops(np.full((*size, 3), 7, np.uint8), SIZE, 6)
    assert views.shape == (6, SIZE, SIZE, 3) and (views == 7).all()


def test_transparent_parts_are_white(tmp_path):
    rgba = np.zeros((100, 300, 4), np.uint8)
    rgba[..., 0], rgba[:, 150:, 3] = 200, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    source = Source("a.png", tmp_path / "a.png")
    middle = Pictures([source], SIZE, 1)[0]["views"][0]  # (3, SIZE, SIZE)
    assert middle[:, 5, 5].tolist() == [255] * 3 and middle[:, 5, -5].tolist() == [200, 0, 0]


def soft_targets(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(N, K): (n + 1/2) / (n + 1) for a class of n pictures, the rest for the other classes."""
    target = torch.zeros(len(labels), classes, dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        n = int((labels == label).sum())
        target[i] = 0.5 / (n + 1) / (classes - 1)
        target[i, label] = (n + 0.5) / (n + 1)
    return target


@pytest.mark.parametrize("classes, scale", [(2, 0.05), (2, 5), (3, 1), (10, 50)])
def test_the_temperature_is_the_best_of_a_grid_and_the_threshold_a_quantile(classes, scale):
    draw = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (300,), generator=draw)
    logits = torch.randn(300, classes, generator=draw)
    logits[torch.arange(300), labels] += 2
    logits *= scale
    temperature, threshold = calibrate(logits, labels)
    grid = torch.logspace(-2, 2, 1001, dtype=torch.float64)
    target = soft_targets(labels, classes)
    losses = [F.cross_entropy(logits.double() / t, target).item() for t in grid]
    assert temperature == pytest.approx(grid[int(np.argmin(losses))].item(), rel=0.01)
    assert F.cross_entropy(logits.double() / temperature, target).item() <= min(losses) + 1e-12
    confidence = (logits.double() / temperature).softmax(1).amax(1).numpy()
    assert threshold == pytest.approx(np.quantile(confidence, 0.01), abs=1e-6)
    assert 1 / classes <= threshold <= 1


def test_calibration_where_there_is_little_to_learn_from():
    sure = torch.tensor([[9.0, -9], [-9, 9], [8, -8], [-8, 8]])
    temperature, threshold = calibrate(sure, torch.tensor([0, 1, 0, 1]))  # all right: 5 in 6 is what one may say
    assert threshold == pytest.approx(0.82, abs=0.02) and 5 < temperature < 15
    temperature, threshold = calibrate(sure, torch.tensor([1, 0, 1, 0]))  # all wrong: as unsure as it may be
    assert temperature == pytest.approx(100, rel=1e-6) and 0.5 <= threshold < 0.6
    temperature, threshold = calibrate(torch.tensor([[0.3, -0.3, 0.1]]), torch.tensor([0]))  # one picture
    assert np.isfinite(temperature) and threshold == pytest.approx(3 / 4, abs=0.2)
    temperature, threshold = calibrate(torch.zeros(5, 2), torch.tensor([0, 1, 1, 0, 0]))  # knows nothing
    assert np.isfinite(temperature) and threshold == 0.5


def test_unsure_is_neither(tmp_path, model_file):
    model = open_model(model_file)
    sources = [Source(str(i), write_picture(tmp_path / f"{i}.png", i)) for i in range(8)]
    best = [max(a.probabilities.values()) for a in classify(model, sources, Settings(2, "fp32", -1))]
    rough = [max(a.probabilities.values()) for a in classify(model, sources, Settings(2, "bf16", -1))]
    assert rough != best and rough == pytest.approx(best, abs=0.02)
    middle = float(np.median(best))
    model.metadata["threshold"] = middle
    labels = [a.label for a in classify(model, sources, Settings(2, "fp32", -1))]
    assert [label == "neither" for label in labels] == [p < middle for p in best] and 0 < labels.count("neither") < 8
    assert "neither" not in [a.label for a in classify(model, sources, Settings(2, "fp32", 0))]
    assert {a.label for a in classify(model, sources, Settings(2, "fp32", 1))} == {"neither"}


@pytest.mark.parametrize("size, seen", [((30, 60), (37, 73)), ((60, 30), (73, 37)), ((2, 30_000), (37, 146))])
def test_the_whole_picture_is_explained_and_long_strips_do_not_fill_the_memory(model_file, monkeypatch, size, seen):
    sizes, model = [], open_model(model_file)
    monkeypatch.setattr(
        infer.photo.explain, "grad_cam", lambda model, image, target: sizes.append(image.shape) or image[:, 0]
    )
    picture = explain_prediction(model, np.full((*size, 3), 100, np.uint8), 0)
    assert picture.shape == (*size, 3) and sizes == [(1, 3, *seen)]
