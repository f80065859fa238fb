"""models/basemodule.py: what is saved comes back without any config, foreign files load, bad files are one line."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import main
from models.basemodule import BaseModule, check_shape
from models.lenet import LeNet
from models.perceptual import PerceptualLoss
from models.poet import Poet
from models.transformer_net import StyleNetworks
from utils.errors import UserError

SHIPPED = Path(main.__file__).parent / "checkpoints" / "loss_network.safetensors"


class Tiny(BaseModule):
    def __init__(self, width: int = 4, names: list[str] | None = None):
        super().__init__(width=width, names=names)
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.InstanceNorm2d(width, affine=True)

    def forward(self, x):
        return self.norm(self.conv(x))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_load_rebuilds_class_sizes_weights_and_metadata(tmp_path):
    model = Tiny(width=3, names=["水", "ink"])
    model.save(tmp_path / "m.safetensors", note="诗", epoch=3)
    again = BaseModule.load(tmp_path / "m.safetensors")
    assert type(again) is Tiny and again.arguments == {"width": 3, "names": ["水", "ink"]}
    assert again.metadata == {"note": "诗", "epoch": 3} and not again.training
    assert same(model, again)
    again.save(tmp_path / "n.safetensors", epoch=4)
    assert Tiny.load(tmp_path / "n.safetensors").metadata == {"note": "诗", "epoch": 4}


def test_half_precision_file_is_half_as_large_and_loads_as_float32(tmp_path):
    model = Tiny(width=200)
    model.save(tmp_path / "full.safetensors")
    model.save(tmp_path / "half.safetensors", dtype=torch.float16)
    full, half = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half"))
    again = Tiny.load(tmp_path / "half.safetensors")
    assert half < 0.6 * full
    assert again.conv.weight.dtype == torch.float32
    torch.testing.assert_close(again.conv.weight, model.conv.weight, atol=1e-3, rtol=1e-3)


FOREIGN = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "nested": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 7},
    "under model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "old InstanceNorm": lambda state: {**state, "norm.running_mean": torch.zeros(4), "norm.running_var": torch.ones(4)},
}


@pytest.mark.parametrize("wrap", FOREIGN.values(), ids=FOREIGN)
def test_foreign_state_dicts(tmp_path, wrap):
    source, target = Tiny(), Tiny()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    assert target.load_weights(tmp_path / "w.pth") == []
    assert same(source, target)


def test_bare_safetensors_state_dict(tmp_path):
    source, target = Tiny(), Tiny()
    save_file(source.state_dict(), tmp_path / "bare.safetensors")
    target.load_weights(tmp_path / "bare.safetensors")
    assert same(source, target)
    with pytest.raises(UserError, match="bare state dict"):
        Tiny.load(tmp_path / "bare.safetensors")


def test_partial_load_lists_what_was_left_out():
    state = Tiny(width=4).state_dict()
    state["extra"] = torch.zeros(1)
    del state["conv.bias"]
    state["norm.weight"] = torch.zeros(9)
    target = Tiny(width=4)
    assert target.load_weights(state, strict=False) == ["conv.bias", "extra", "norm.weight"]
    assert torch.equal(target.conv.weight, state["conv.weight"])
    with pytest.raises(UserError, match=r"missing conv.bias; unknown extra; norm.weight is \(9,\), not \(4,\)"):
        Tiny(width=4).load_weights(state)


@pytest.mark.parametrize("name", ["sea.safetensors", "sea.pth"])
def test_weights_that_are_not_finite_are_refused(tmp_path, capsys, name):
    model = StyleNetworks({"sea": {"channels": (4, 8, 8), "blocks": 1}})
    path, photo = tmp_path / name, tmp_path / "a.png"
    model["sea"].res1.conv2.conv2d.weight.data[1, 2, 0, 0] = float("nan")
    if name == "sea.pth":
        torch.save(model["sea"].state_dict(), path)
    else:
        model.save(path)
    Image.new("RGB", (32, 32), "red").save(photo)
    assert main.main(["stylize", str(photo), f"--load={path}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(path) in err and "res1.conv2.conv2d.weight are not finite" in err
    assert list(tmp_path.glob("*.png")) == [photo]
    for bad in (float("inf"), -float("inf")):
        with pytest.raises(UserError, match="conv.weight are not finite"):
            Tiny().load_weights({**Tiny().state_dict(), "conv.weight": torch.full((4, 1, 3, 3), bad)})


def test_wrong_class(tmp_path):
    Tiny().save(tmp_path / "tiny.safetensors")
    with pytest.raises(UserError, match="holds a Tiny, not a Poet"):
        Poet.load(tmp_path / "tiny.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_truncated_files(tmp_path, share):
    Tiny(width=64).save(tmp_path / "m.safetensors")
    torch.save(Tiny(width=64).state_dict(), tmp_path / "m.pth")
    for name in ("m.safetensors", "m.pth"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"m.safetensors is not a .* file.*, or was cut short[^\n]*$"):
        BaseModule.load(tmp_path / "m.safetensors")
    for name in ("m.safetensors", "m.pth"):
        with pytest.raises(UserError, match=f"{name} is not a readable weight file, or was cut short$"):
            Tiny(width=64).load_weights(tmp_path / name)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nothing.safetensors: No such file"):
        BaseModule.load(tmp_path / "nothing.safetensors")
    (tmp_path / "text.pth").write_text("a poem, not weights")
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.pth", "JPEG")
    (tmp_path / "code.pth").write_text("import torch\n")
    (tmp_path / "c.pth").write_text("config\nlr\n")  # looks like an object to the unpickler
    for name in ("text.pth", "photo.pth", "code.pth", "c.pth"):
        with pytest.raises(UserError, match=f"{name} is not a readable weight file, or was cut short$"):
            Tiny().load_weights(tmp_path / name)
    with pytest.raises(UserError, match=f"^cannot read {tmp_path}: Is a directory; give a weight file"):
        Tiny().load_weights(tmp_path)
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        Tiny().load_weights(tmp_path / "list.pth")
    torch.save(Tiny().state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="theirs.pth is not a model file of this project.*: give a .safetensors"):
        Tiny.load(tmp_path / "theirs.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_is_told_from_a_broken_file(tmp_path, zipped):
    told = (
        f"{tmp_path}/whole.pth holds a whole Python object, not weights alone: save model.state_dict() with torch.save"
    )
    for whole in (Tiny(), {"model": Tiny(), "epoch": 3}):
        torch.save(whole, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
            Tiny().load_weights(tmp_path / "whole.pth")


def test_the_average_of_files(tmp_path, capsys):
    files, states = [], []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        model = LeNet(["cat", "dog"])
        files.append(str(tmp_path / f"{seed}.safetensors"))
        states.append(model.state_dict())
        model.save(files[-1], seed=seed)
    out = str(tmp_path / "mean.safetensors")
    assert main.main(["average", *files, "--shares=1,2,5", f"--out={out}"]) == 0
    mean = BaseModule.load(out)
    for name, tensor in mean.state_dict().items():
        expected = (states[0][name] + 2 * states[1][name] + 5 * states[2][name]) / 8
        torch.testing.assert_close(tensor, expected)
    assert mean.metadata == {"seed": 2, "average": "1 x 0.safetensors + 2 x 1.safetensors + 5 x 2.safetensors"}
    LeNet(["a", "b", "c"]).save(tmp_path / "other.safetensors")
    capsys.readouterr()
    for arguments, told in [
        ([files[0]], "average needs two model files"),
        ([*files, "--shares=1,2", f"--out={out}"], "expected a number for each of the 3 files"),
        ([files[0], str(tmp_path / "other.safetensors"), f"--out={out}"], "hold different networks"),
    ]:
        assert main.main(["average", *arguments]) == 2
        assert told in capsys.readouterr().err


def test_a_wrong_shape_is_told_with_the_right_one():
    image = torch.zeros(2, 3, 4, 5)
    check_shape(image, (None, 3, None, 5), "image")
    check_shape(torch.zeros(()), (), "loss")
    for shape, wanted in (((None, 1, None, None), "*, 1, *, *"), ((2, 3, 4), "2, 3, 4"), ((0, 3, 4, 5), "0, 3, 4, 5")):
        with pytest.raises(ValueError) as error:
            check_shape(image, shape, "image")
        assert str(error.value) == f"image has the shape (2, 3, 4, 5), expected ({wanted})"


def _perceptual() -> PerceptualLoss:
    return PerceptualLoss("classifier", [torch.rand(1, 3, 32, 32)], str(SHIPPED))


IDS, PHOTOS = torch.zeros(2, 5, dtype=torch.long), torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize(
    "name, call",
    [
        ("style", lambda: StyleNetworks({"a": {"channels": (4, 4, 4)}})(PHOTOS, torch.tensor([0]))),
        ("image", lambda: LeNet(["cat", "dog"])(PHOTOS[:, :1])),
        ("image", lambda: _perceptual().content(PHOTOS[:, :1])),
        ("content", lambda: _perceptual()(PHOTOS, torch.rand(1, 1, 1, 1), torch.tensor([0, 0]))),
        ("style", lambda: _perceptual()(PHOTOS, _perceptual().content(PHOTOS), torch.tensor([0]))),
        ("poem", lambda: Poet(["a", "b"], 4, 4, 1, attention=4)(IDS, poem=IDS[:1])),
        ("targets", lambda: Poet(["a", "b"], 4, 4, 1, attention=4)(IDS, targets=torch.zeros(2, dtype=torch.long))),
    ],
)
def test_what_would_broadcast_is_told(name, call):
    """Each of these would give numbers, and wrong ones."""
    with pytest.raises(ValueError, match=f"^{name} has the shape "):
        call()
