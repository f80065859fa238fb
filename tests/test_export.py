"""models/onnx.py: onnxruntime paints what torch paints, at every size; what the file says; quiet and atomic."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks.reference_style import ReferenceNet
from models.onnx import SMALLEST
from models.transformer_net import TransformerNet, from_examples

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "checkpoints" / "style.safetensors"
SIZES = [(1, 64, 64), (1, 37, 50), (3, 33, 30), (2, SMALLEST, SMALLEST), (1, 6, 131), (1, 225, 127)]


def run(path: Path, image: torch.Tensor, style: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy(), "style": style.numpy()})[0]


EXPORT = """
import sys
import torch
from models.onnx import export_onnx
from models.transformer_net import TransformerNet
from utils.errors import UserError

exporter, programs = torch.onnx.export, []
torch.onnx.export = lambda *args, **options: programs.append(exporter(*args, **options)) or programs[-1]
model = TransformerNet.load(sys.argv[1]).train()
before = {k: (v.dtype, v.data_ptr()) for k, v in model.state_dict().items()}
export_onnx(model, sys.argv[2])
after = {k: (v.dtype, v.data_ptr()) for k, v in model.state_dict().items()}
assert model.training and before == after
torch.onnx.export = lambda *args, **options: programs[-1]  # the real one takes seconds
try:
    export_onnx(model, sys.argv[1] + "/below/a/file.onnx")
except UserError as error:
    print(error)
"""


def python(*words: str | Path) -> str:
    """What a process prints that says nothing on stderr: none of the exporter's noise."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def painter() -> TransformerNet:
    return TransformerNet.load(SHIPPED)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The shipped painter, exported by the command."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "painter.onnx"
    assert python("main.py", "export", f"--load={SHIPPED}", f"--out={path}") == f"{path}\n"
    assert [path.name for path in path.parent.iterdir()] == ["painter.onnx"]
    return path


def candy() -> ReferenceNet:
    """As people have them, in miniature."""
    torch.manual_seed(0)
    net = ReferenceNet((4, 6, 8), blocks=1).eval()
    with torch.no_grad():
        net.deconv3.conv2d.weight.mul_(200)
        net.deconv3.conv2d.bias.add_(128)
    return net


@pytest.mark.parametrize("batch, height, width", SIZES)
@torch.no_grad()
def test_onnxruntime_paints_what_torch_paints(painter, exported, batch, height, width):
    torch.manual_seed(0)
    rows = len(painter.styles) + 1
    image, style = torch.rand(batch, 3, height, width), 3 * torch.randn(batch, rows)
    expected = painter(image, style)["image"]
    painting = run(exported, image, style)
    assert painting.shape == (batch, 3, height, width)
    assert np.abs(painting - expected.clamp(0, 1).numpy()).max() <= 1e-3
    assert expected.min() < 0 and expected.max() > 1  # so that the clamping was tried


@torch.no_grad()
def test_strength_and_mixtures_are_settings_of_the_exported_network_too(painter, exported):
    image, (one, other, *_) = torch.rand(1, 3, 40, 40), painter.styles
    rows = [painter.mixture({one: 1}), painter.mixture({one: 1, other: 2}, 1.3), painter.mixture({other: 1}, 0)]
    paintings = [run(exported, image, row) for row in rows]
    for row, painting in zip(rows, paintings, strict=True):
        assert np.abs(painting - painter(image, row)["image"].clamp(0, 1).numpy()).max() <= 1e-3
    assert np.abs(paintings[0] - paintings[1]).max() > 0.1


def test_what_the_file_says(painter, exported):
    proto = onnx.load(exported)
    onnx.checker.check_model(proto, full_check=True)
    metadata = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert metadata == {"styles": painter.styles, "identity": True}
    dims = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    picture = ["batch", 3, "height", "width"]
    assert dims == {"image": picture, "style": ["batch", len(painter.styles) + 1], "painting": picture}


def test_the_file_tells_nothing_of_this_machine(exported):
    data = exported.read_bytes()
    assert not [place for place in (str(ROOT), sys.prefix, "site-packages", ".py") if place.encode() in data]


@torch.no_grad()
def test_weights_of_examples_can_be_exported(tmp_path):
    """From a network in training mode, which stays as it is; and a place that cannot be written is one line."""
    from_examples(candy().state_dict(), "糖").save(tmp_path / "candy.safetensors")
    told = python("-c", EXPORT, tmp_path / "candy.safetensors", tmp_path / "candy.onnx")
    assert told.startswith("cannot write ") and told.count("\n") == 1
    image = torch.rand(2, 3, 30, 45)
    expected = (candy()(255 * image)[:, :, :30, :45] / 255).clamp(0, 1)
    assert expected.std() > 0.1
    assert np.abs(run(tmp_path / "candy.onnx", image, torch.ones(2, 1)) - expected.numpy()).max() <= 1e-3
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / "candy.onnx").metadata_props}
    assert metadata == {"styles": ["糖"], "identity": False}


@torch.no_grad()
def test_layers_of_their_own_are_exported_too(tmp_path):
    """All pictures of a batch are then painted in the style of the first; normalised values are bounded."""
    torch.manual_seed(0)
    model = TransformerNet(["wave", "水墨"], (4, 6, 8), blocks=2, own=1, bound=1.5).eval()
    for kernel in model.deconv3.kernels:
        kernel.weight.mul_(40)
    model.save(tmp_path / "own.safetensors")
    python("-c", EXPORT, tmp_path / "own.safetensors", tmp_path / "own.onnx")
    image = torch.rand(2, 3, 33, 42)
    for shares in ({"wave": 1}, {"wave": 1, "水墨": 2}):
        row = model.mixture(shares, 0.7).expand(2, -1)
        expected = model(image, row)["image"].clamp(0, 1).numpy()
        assert expected.std() > 0.05 and np.abs(run(tmp_path / "own.onnx", image, row) - expected).max() <= 1e-3
