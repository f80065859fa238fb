"""infer/painting/optimize.py against solved problems and another minimiser; the figures of val and test."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from config import StyleConfig
from data.photos import choose_split, list_pictures
from infer.painting.optimize import optimize
from main import main
from models.loss_networks import SMALLEST
from models.perceptual import PerceptualLoss, total_variation
from models.strokes import BANDS, calm_places, largest_normalised, likeness, strokes
from models.transformer_net import StyleNetworks
from options import parse
from tasks import make_task
from tests.painting import tiny
from tests.test_lpips import picture, plain_lpips, write_weights
from utils.images import read_image, save_image, to_tensor, to_uint8


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """(LPIPS's linear weights, SqueezeNet), both random."""
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def loss(files) -> PerceptualLoss:
    return PerceptualLoss("squeezenet", [picture(48, 64, 10)[None], picture(48, 64, 11)[None] ** 2], str(files[1]))


# ------------------------------------------------------------------------------------------------------- optimize


class Squares(nn.Module):
    """A loss whose minimum is known: the squared distances to the photograph and to one of the style pictures."""

    def __init__(self, *targets: Tensor):
        super().__init__()
        self.targets = torch.cat(targets)  # (S, 3, H, W)

    def content(self, photo: Tensor) -> Tensor:
        return photo

    def forward(self, picture: Tensor, content: Tensor, style: Tensor, seed: int) -> dict[str, Tensor]:
        distances = {"content": picture - content, "style": picture - self.targets[style]}
        return {name: value.square().mean((1, 2, 3)) for name, value in distances.items()}


def test_ends_at_the_solution_of_the_linear_equations():
    """Squares and the total variation: their gradient is linear, so the minimum can be solved for."""
    height, width, weights = 20, 24, (1.0, 3.0, 0.05)
    photo, target = picture(height, width, 0)[None], picture(height, width, 1)[None]
    found = optimize(photo, Squares(1 - target, target), 1, 300, weights)

    place = np.arange(height * width).reshape(height, width)
    system = np.eye(height * width) * (weights[0] + weights[1]) / place.size
    for one, other in ((place[1:], place[:-1]), (place[:, 1:], place[:, :-1])):
        for i, j in zip(one.flat, other.flat, strict=True):
            system[[i, j, i, j], [i, j, j, i]] += np.array([1, 1, -1, -1]) * weights[2] / one.size
    for channel in range(3):
        right = (weights[0] * photo[0, channel] + weights[1] * target[0, channel]).double().numpy() / place.size
        expected = np.linalg.solve(system, right.reshape(-1)).reshape(height, width)
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=2e-3)


def test_pixels_stay_in_range():
    """Where the minimum is outside of 0..1 the nearest possible value is the best."""
    photo = picture(32, 40, 0)[None]
    target = 4 * picture(32, 40, 1)[None] - 1.5
    found = optimize(photo, Squares(target), 0, 300, (1.0, 1.0, 0.0))
    torch.testing.assert_close(found, ((photo + target) / 2).clamp(0, 1), atol=2e-3, rtol=0)
    assert found.min() == 0 and found.max() == 1


def objective(loss: PerceptualLoss, picture: Tensor, photo: Tensor, style: int, seed: int = 0) -> Tensor:
    parts = loss(picture, loss.content(photo), torch.tensor([style]), seed=seed)
    return (parts["content"] + 5 * parts["style"] + total_variation(picture)).sum()


def test_as_low_as_another_programs_minimum(loss):
    """SciPy's L-BFGS-B, which Gatys et al. used, with bounds and as many evaluations; judged by draws new to both."""
    photo, steps = picture(32, 32, 0)[None], 80

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(x).float().view_as(photo).requires_grad_()
        value = objective(loss, x, photo, 1)
        return value.item(), torch.autograd.grad(value, x)[0].double().numpy().reshape(-1)

    def judged(x: Tensor) -> float:
        return float(np.mean([objective(loss, x, photo, 1, seed).item() for seed in range(1000, 1008)]))

    options = {"maxfun": steps, "maxiter": steps}
    theirs = minimize(function, photo.double().numpy().reshape(-1), jac=True, bounds=[(0, 1)] * photo.numel(),
                      method="L-BFGS-B", options=options)  # fmt: skip
    ours = judged(optimize(photo, loss, 1, steps, (1.0, 5.0, 1.0)))
    assert theirs.fun < objective(loss, photo, photo, 1).item() / 2
    assert ours < judged(torch.from_numpy(theirs.x).float().view_as(photo)) * 1.05


def test_more_steps_are_better_and_progress_is_told(loss):
    photo, told = picture(32, 32, 0)[None], []
    pictures = [optimize(photo, loss, 0, steps, progress=told.append) for steps in (1, 10, 40)]
    values = [objective(loss, p, photo, 0).item() for p in (photo, *pictures)]
    assert values[0] > values[1] > values[2] > values[3]
    assert told == [1, *(k / 10 for k in range(1, 11)), *(k / 40 for k in range(1, 41))]


@pytest.mark.parametrize("height, width", [(1, 1), (3, 50), (33, 35)])
def test_any_size(loss, height, width):
    photo = picture(height, width, 0)[None]
    before = photo.clone()
    with torch.no_grad():  # as most callers have it
        found = optimize(photo, loss, 0, 3)
    assert found.shape == photo.shape and not found.requires_grad
    assert torch.equal(photo, before) and not torch.equal(found, photo)
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    # A small picture is painted as a part of the one that goes on as it ends.
    larger = F.pad(photo, (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height)), mode="replicate")
    torch.testing.assert_close(found, optimize(larger, loss, 0, 3)[:, :, :height, :width])


# --------------------------------------------------------------------------------------------------------- report

SIZE = 40


@pytest.fixture(scope="module")
def given(files, tmp_path_factory) -> dict[str, str]:
    """Options of val: 60 photographs (3 of them for val, one of these broken), two styles, a tiny painter, weights."""
    folder = tmp_path_factory.mktemp("painter")
    for number in range(60):
        save_image(folder / "photos" / f"{number}.png", to_uint8(picture(SIZE, SIZE, 100 + number)))
    broken = choose_split(list_pictures(folder / "photos"), "val")[1]
    broken.path.write_bytes(broken.path.read_bytes()[:500])
    for number, name in enumerate(("wave", "night")):
        save_image(folder / "styles" / f"{name}.png", to_uint8(picture(50, 44, number)))
    tiny("night", "wave").save(folder / "painter.safetensors")
    return {
        "task": "style", "load": f"{folder}/painter.safetensors", "data_root": f"{folder}/photos",
        "style_image": f"{folder}/styles", "loss_network": "squeezenet", "vgg": str(files[1]), "image_size": str(SIZE),
        "content_weight": "2", "style_weight": "3", "tv_weight": "0.5", "use_gpu": "false",
    }  # fmt: skip


def directly(given: dict[str, str], files: tuple[Path, Path], style: int, steps: int) -> dict[str, float]:
    """The figures of one style, photograph by photograph, from the definitions."""
    paths = [Path(given["style_image"]) / f"{name}.png" for name in ("night", "wave")]
    loss = PerceptualLoss("squeezenet", [to_tensor(read_image(path).rgb) for path in paths], given["vgg"])
    image = to_tensor(read_image(paths[style], max_side=SIZE).rgb)  # as large as the painting
    model = StyleNetworks.load(given["load"]).networks[style]
    figures = []

    def seen(picture: Tensor) -> Tensor:
        return torch.from_numpy(to_uint8(picture)).permute(2, 0, 1)[None].float() / 255

    def losses(picture: Tensor, photo: Tensor) -> tuple[float, float]:
        parts = loss(picture, loss.content(photo), torch.tensor([style]), seed=0)
        return parts["content"].item(), parts["style"].item()

    for source in choose_split(list_pictures(given["data_root"]), "val"):
        try:
            with Image.open(source.path) as picture:
                photo = np.array(picture).astype(np.float32) / 255
        except OSError:
            continue
        photo = torch.from_numpy(photo).permute(2, 0, 1)[None]
        painting = seen(model(photo)["image"])
        content, painted = losses(painting, photo)
        best = losses(seen(optimize(photo, loss, style, steps, (2.0, 3.0, 0.5))), photo)
        part = (..., slice(2, None), slice(2, None))  # the film moves by two pixels
        again = model(photo[part])["image"].clamp(0, 1)
        calm = calm_places(photo)
        by_size = {
            f"{where}_{a}_{b}": value
            for where, places in (("strokes", calm), ("everywhere", calm | ~calm))
            for (a, b), value in zip(BANDS, strokes(painting, places, image), strict=True)
        }
        figures.append(
            {
                "content": content, "loss": 2 * content + 3 * painted, "optimized": 2 * best[0] + 3 * best[1],
                "lpips": plain_lpips(*files, painting[0], photo[0]), "likeness": likeness(painting, photo),
                "flicker": 255 * (again - painting[part]).abs().mean().item(),
                **by_size,
                **{f"covariance_{n}": loss.covariance_distance(painting, image, n).item() for n in (1, 2, 4)},
                "largest": largest_normalised(model, photo),
            }
        )  # fmt: skip
    assert len(figures) == 2
    means = {name: np.mean([f[name] for f in figures]) for name in figures[0]}
    return means | {"ratio": means["loss"] / means["optimized"]}


@torch.no_grad()
def test_report_equals_a_direct_computation(given, files, capsys):
    """Through the command line; one of the three photographs is broken."""
    options = {**given, "lpips": files[0], "squeezenet": files[1], "optimize_steps": 4, "json": "true"}
    assert main(["val", *(f"--{k}={v}" for k, v in options.items())]) == 0
    told = json.loads(capsys.readouterr().out)
    head = {"data": given["data_root"], "split": "val", "photos": 2, "broken": 1}
    assert {name: told.pop(name) for name in head} == head
    expected = {}
    for style, name in enumerate(("night", "wave")):
        expected |= {f"{name}_{k}": v for k, v in directly(given, files, style, 4).items()}
    for name in [key.removeprefix("night_") for key in expected if key.startswith("night_")]:
        expected[f"mean_{name}"] = (expected[f"night_{name}"] + expected[f"wave_{name}"]) / 2
    for name in ("night", "wave", "mean"):
        assert 0 <= told.pop(f"{name}_same_texture") <= 1 and told.pop(f"{name}_flicker_to_strokes") > 0
    assert told == pytest.approx(expected, rel=6e-3)  # LPIPS: see its test
    exact = {k for k in expected if not k.endswith("lpips")}
    assert {k: told[k] for k in exact} == pytest.approx({k: expected[k] for k in exact}, rel=1e-3)
    assert told["night_loss"] != pytest.approx(told["wave_loss"], rel=1e-2)


def test_report_is_the_same_each_time_and_leaves_out_what_was_not_asked_for(given):
    task = make_task(parse(StyleConfig, {**given, "val_photos": 1}))
    task.model.train()
    torch.manual_seed(3)
    first = task.evaluate("test")
    torch.manual_seed(4)
    assert task.evaluate("test") == first
    assert first["photos"] == 1 and first["split"] == "test"
    names = [f"{where}_{a}_{b}" for where in ("strokes", "everywhere") for a, b in BANDS]
    names += [f"covariance_{factor}" for factor in (1, 2, 4)]
    names += ["likeness", "content", "largest", "flicker", "flicker_to_strokes", "same_texture"]
    assert set(first) == {"data", "split", "photos", "broken"} | {
        f"{s}_{n}" for s in ("night", "wave", "mean") for n in names
    }
