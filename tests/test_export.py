"""infer/export.py: onnxruntime paints what torch paints, at every size; what the file says; quiet and atomic."""

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
from infer.export import SMALLEST
from models.transformer_net import TransformerNet, from_examples

ROOT = Path(__file__).parents[1]
SIZES = [(1, 64, 64), (1, 37, 50), (3, 33, 30), (2, SMALLEST, SMALLEST), (1, 6, 131), (1, 225, 127)]


def tiny() -> TransformerNet:
    """Random rows, and a painting with contrast, some of it outside of 0..1."""
    torch.manual_seed(0)
    model = TransformerNet(["wave", "水墨"], (4, 6, 8), blocks=2).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "in" in name.split(".")[-2]:
                parameter.uniform_(-1, 1)
        model.deconv3.conv2d.weight.mul_(40)
    return model.to(memory_format=torch.channels_last)


def run(path: Path, image: torch.Tensor, style: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy(), "style": style.numpy()})[0]


EXPORT = """
import sys
import torch
from infer.export import export_onnx
from models.transformer_net import TransformerNet
from utils.errors import UserError

exporter, programs = torch.onnx.export, []
torch.onnx.export = lambda *args, **options: programs.append(exporter(*args, **options)) or programs[-1]
for source, target in zip(sys.argv[1::2], sys.argv[2::2]):
    model = TransformerNet.load(source).train()
    before = {k: (v.dtype, v.data_ptr()) for k, v in model.state_dict().items()}
    export_onnx(model, target)
    after = {k: (v.dtype, v.data_ptr()) for k, v in model.state_dict().items()}
    assert model.training and before == after
torch.onnx.export = lambda *args, **options: programs[-1]  # the real one takes seconds
try:
    export_onnx(model, source + "/below/a/file.onnx")
except UserError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """painter.onnx of tiny() and candy.onnx of candy(), exported in one process: the exporter is slow to start.

    That process also tries a place that cannot be written.
    """
    place = tmp_path_factory.mktemp("onnx")
    tiny().save(place / "painter.safetensors")
    from_examples(candy().state_dict(), "candy").save(place / "candy.safetensors")
    pairs = [
        place / "painter.safetensors",
        place / "new" / "painter.onnx",
        place / "candy.safetensors",
        place / "candy.onnx",
    ]
    done = subprocess.run([sys.executable, "-c", EXPORT, *pairs], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # nothing of the exporter's noise
    assert done.stdout.startswith("cannot write ") and done.stdout.count("\n") == 1
    assert [path.name for path in (place / "new").iterdir()] == ["painter.onnx"]
    return place


@pytest.fixture
def exported(place) -> tuple[TransformerNet, Path]:
    return tiny(), place / "new" / "painter.onnx"


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
def test_onnxruntime_paints_what_torch_paints(exported, batch, height, width):
    model, path = exported
    image, style = torch.rand(batch, 3, height, width), 3 * torch.randn(batch, 3)
    expected = model(image, style)["image"]
    painting = run(path, image, style)
    assert painting.shape == (batch, 3, height, width)
    assert np.abs(painting - expected.clamp(0, 1).numpy()).max() <= 1e-3
    assert expected.min() < 0 and expected.max() > 1  # so that the clamping was tried


@torch.no_grad()
def test_strength_and_mixtures_are_settings_of_the_exported_network_too(exported):
    model, path = exported
    image = torch.rand(1, 3, 40, 40)
    rows = [model.mixture({"wave": 1}), model.mixture({"wave": 1, "水墨": 2}, 1.3), model.mixture({"水墨": 1}, 0)]
    paintings = [run(path, image, row) for row in rows]
    for row, painting in zip(rows, paintings, strict=True):
        assert np.abs(painting - model(image, row)["image"].clamp(0, 1).numpy()).max() <= 1e-3
    assert np.abs(paintings[0] - paintings[1]).max() > 0.1


def test_what_the_file_says(exported):
    _, path = exported
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    metadata = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert metadata == {"styles": ["wave", "水墨"], "identity": True}
    dims = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    picture = ["batch", 3, "height", "width"]
    assert dims == {"image": picture, "style": ["batch", 3], "painting": picture}


def test_the_file_tells_nothing_of_this_machine(exported):
    data = exported[1].read_bytes()
    assert not [place for place in (str(ROOT), sys.prefix, "site-packages", ".py") if place.encode() in data]


@torch.no_grad()
def test_weights_of_examples_can_be_exported(place):
    image = torch.rand(2, 3, 30, 45)
    expected = (candy()(255 * image)[:, :, :30, :45] / 255).clamp(0, 1)
    assert expected.std() > 0.1
    assert np.abs(run(place / "candy.onnx", image, torch.ones(2, 1)) - expected.numpy()).max() <= 1e-3
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(place / "candy.onnx").metadata_props}
    assert metadata == {"styles": ["candy"], "identity": False}
