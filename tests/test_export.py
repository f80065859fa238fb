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

import main
from models import EfficientNetLite0
from models.onnx import SMALLEST, export_painter
from models.transformer_net import StyleNetworks, TransformerNet
from tests.test_loss_networks import randomise
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "checkpoints" / "style.safetensors"
SIZES = [(1, 64, 64), (1, 37, 50), (3, 33, 30), (2, SMALLEST, SMALLEST), (1, 6, 131), (1, 225, 127)]


def run(path: Path, image: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy()})[0]


def python(*words: str | Path) -> str:
    """What a process prints that says nothing on stderr: none of the exporter's noise."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def painter() -> TransformerNet:
    return StyleNetworks.load(SHIPPED)["starry_night"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A style of the shipped painter, exported by the command."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "painter.onnx"
    assert python("main.py", "export", f"--load={SHIPPED}", "--style=starry", f"--out={path}") == f"{path}\n"
    assert [path.name for path in path.parent.iterdir()] == ["painter.onnx"]
    return path


@pytest.mark.parametrize("batch, height, width", SIZES)
@torch.no_grad()
def test_onnxruntime_paints_what_torch_paints(painter, exported, batch, height, width):
    torch.manual_seed(2)
    image = 3 * torch.randn(batch, 3, height, width)
    expected = painter(image)["image"]
    painting = run(exported, image)
    assert painting.shape == (batch, 3, height, width)
    assert np.abs(painting - expected.clamp(0, 1).numpy()).max() <= 1e-3
    assert expected.min() < 0 and expected.max() > 1  # so that the clamping was tried


def test_what_the_file_says(exported):
    proto = onnx.load(exported)
    onnx.checker.check_model(proto, full_check=True)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata == {"style": "starry_night"}
    dims = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    picture = ["batch", 3, "height", "width"]
    assert dims == {"image": picture, "painting": picture}


def test_the_file_tells_nothing_of_this_machine(exported):
    data = exported.read_bytes()
    assert not [place for place in (str(ROOT), sys.prefix, "site-packages", ".py") if place.encode() in data]


@torch.no_grad()
def test_bounded_values_are_exported_too(tmp_path):
    """From a network in training mode, which stays as it is; a place that cannot be written is one line."""
    torch.manual_seed(0)
    model = TransformerNet((4, 6, 8), blocks=1, bound=1.5).train()
    model.deconv3.conv2d.weight.mul_(40)
    before = {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    export_painter(model, tmp_path / "bounded.onnx", "糖")
    after = {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    assert model.training and before == after
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "bounded.onnx").metadata_props}
    assert metadata == {"style": "糖"}
    image = torch.rand(2, 3, 33, 42)
    expected = model.eval()(image)["image"].clamp(0, 1).numpy()
    for norm in model.norms:
        norm.bound = 0
    assert np.abs(model(image)["image"].clamp(0, 1).numpy() - expected).max() > 0.05
    assert expected.std() > 0.05 and np.abs(run(tmp_path / "bounded.onnx", image) - expected).max() <= 1e-3
    with pytest.raises(UserError, match="^cannot write "):
        export_painter(model, tmp_path / "bounded.onnx" / "a.onnx", "糖")


def test_a_mixture_cannot_be_exported(capsys, tmp_path):
    assert main.main(["export", "--style=wave,starry", f"--out={tmp_path / 'a.onnx'}"]) == 2
    assert "one style is exported, no mixture" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- the classifier


@pytest.mark.parametrize("recognises", [True, False])
def test_a_classifier_answers_the_same_as_onnx(tmp_path, recognises, capsys):
    torch.manual_seed(0)
    model = randomise(EfficientNetLite0(["猫", "dog"])).eval()
    torch.nn.init.normal_(model.imagenet_classifier.weight, std=0.1)
    calibration = {"1": [0.5, 0.7]}
    facts = {"image_size": 64, "recognises": recognises, "calibration": calibration}
    model.save(tmp_path / "eye.safetensors", **facts)
    assert main.main(["export", f"--load={tmp_path / 'eye.safetensors'}", f"--out={tmp_path / 'eye.onnx'}"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "eye.onnx"))
    image = torch.rand(3, 3, 64, 64)
    found = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        outputs = model(image, recognise=True)
    expected = [(outputs["logits"] / 0.5).softmax(1), outputs["imagenet"].softmax(1)][: 1 + recognises]
    assert [output.name for output in session.get_outputs()] == ["probabilities", "imagenet"][: 1 + recognises]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ["猫", "dog"] and told["image_size"] == "64"
