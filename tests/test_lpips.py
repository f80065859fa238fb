"""models/lpips.py: against LPIPS written plainly over torchvision's SqueezeNet; what a distance must be; bad files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models import squeezenet1_1

from models.loss_networks import IMAGENET_MEAN
from models.lpips import LPIPS
from utils.errors import UserError

CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def write_weights(folder: Path) -> tuple[Path, Path]:
    """(linear weights, SqueezeNet) as files, both random."""
    torch.manual_seed(0)
    linear = {f"lin{i}.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(CHANNELS)}
    save_file(linear, folder / "lin.safetensors")
    save_file(squeezenet1_1(weights=None).state_dict(), folder / "squeezenet.safetensors")
    return folder / "lin.safetensors", folder / "squeezenet.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def lpips(files) -> LPIPS:
    return LPIPS(*map(str, files))


def plain_lpips(linear: Path, squeezenet: Path, one: Tensor, other: Tensor) -> float:
    """LPIPS v0.1 of two pictures (3, H, W) in 0..1, from the paper and the authors' scaling of -1..1."""
    network = squeezenet1_1(weights=None).eval()
    network.load_state_dict(load_file(squeezenet))
    weights = load_file(linear).values()  # lin0 … lin6
    total, activations = 0.0, []
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    for picture in (one, other):
        x = (2 * picture[None] - 1 - shift) / scale
        activations.append([])
        for layer in network.features:
            x = layer(x.clone())
            activations[-1].append(x[0].double())
    for index, weight in zip((1, 4, 7, 9, 10, 11, 12), weights, strict=True):
        a, b = (values[index] / (values[index].square().sum(0).sqrt() + 1e-10) for values in activations)
        total += (weight[0, :, 0, 0] * (a - b).square().mean((1, 2))).sum().item()
    return total


def picture(height: int, width: int, seed: int) -> Tensor:
    """(3, H, W): soft blobs, as photographs have them, and a little noise."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=random)
    soft = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    return (soft + 0.1 * torch.randn(3, height, width, generator=random)).clamp(0, 1)


def test_equals_the_plain_computation(files, lpips):
    one, other = (torch.stack([picture(65, 47, seed) for seed in seeds]) for seeds in ((0, 1, 2), (3, 4, 2)))
    found = lpips(one, other)
    expected = [plain_lpips(*files, a, b) for a, b in zip(one, other, strict=True)]
    assert found.shape == (3,) and expected[0] > 0.1
    # The authors' shift and scale are the usual mean and deviation rounded to three digits.
    torch.testing.assert_close(found, torch.tensor(expected), rtol=5e-3, atol=1e-6)


def test_is_zero_for_equal_pictures_symmetric_and_gives_no_gradient(lpips):
    one, other = picture(48, 48, 0)[None].requires_grad_(), picture(48, 48, 1)[None]
    assert lpips(one, one).item() == 0
    plain = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).expand_as(one)
    assert lpips(plain, plain).item() == 0  # no feature of this is above 0, as no bias is, in this network
    torch.testing.assert_close(lpips(one, other), lpips(other, one))
    assert lpips(one, other).item() > 0 and not lpips(one, other).requires_grad


def test_the_authors_own_file(files, tmp_path, lpips):
    """Its keys are lin0.model.1.weight …, and it is pickled."""
    tensors = {k.replace(".weight", ".model.1.weight"): v for k, v in load_file(files[0]).items()}
    torch.save(tensors, tmp_path / "squeeze.pth")
    theirs = LPIPS(str(tmp_path / "squeeze.pth"), str(files[1]))
    pair = picture(40, 40, 0)[None], picture(40, 40, 1)[None]
    assert theirs(*pair).item() == lpips(*pair).item()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors.pop("lin5.weight"),  # those for VGG and AlexNet have five layers
        lambda tensors: tensors.update({"lin2.weight": torch.rand(1, 192, 1, 1)}),
        lambda tensors: tensors.clear(),
    ],
)
def test_a_wrong_file_is_one_line(files, tmp_path, spoil):
    tensors = load_file(files[0])
    spoil(tensors)
    path = tmp_path / "lin.safetensors"
    save_file(tensors, path)
    with pytest.raises(UserError, match="lin.safetensors") as error:
        LPIPS(str(path), str(files[1]))
    assert "\n" not in str(error.value)
