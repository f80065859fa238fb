"""What is done on GPUs alone, as far as it can be tried without one. Where there are GPUs: python tests/gpu.py."""

from types import SimpleNamespace

import pytest
import torch

import training.devices
import training.loader
from config import DefaultConfig, DogCatConfig
from models import BACKBONES
from options import parse
from tasks import make_task
from tests.training import LineTask
from training.devices import Trial, find_devices, make_fabric, try_step
from training.loader import Loader
from training.parameters import parameter_groups
from utils.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """Three GPUs that can only be counted and asked for their names."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    moved = []
    monkeypatch.setattr(LineTask, "to", lambda self, device: moved.append(str(device)))
    monkeypatch.setattr(training.devices, "trial_step", lambda *_: Trial())  # a GPU's own business
    return moved


@pytest.mark.parametrize(
    "devices, rank, used, own",
    [("1", 0, [0], "cuda:0"), ("2", 1, [0, 1], "cuda:1"), ("0,2", 0, [0, 2], "cuda:0"), ("0,2", 1, [0, 2], "cuda:2")],
)
def test_gpus_by_number(gpus, monkeypatch, devices, rank, used, own):
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    task = LineTask(parse(DefaultConfig, {"devices": devices, "precision": "fp32"}))
    gpus_found = find_devices(True, devices)
    try_step(task, "fp32", gpus_found)
    fabric, told = make_fabric(gpus_found, "fp32")
    found = getattr(fabric.strategy, "parallel_devices", [fabric.device])
    assert [(device.type, device.index) for device in found] == [("cuda", number) for number in used]
    assert gpus == [own] and told.startswith(f"{len(used)} x GPU ")


@pytest.mark.parametrize(
    "devices, line",
    [
        ("4", "devices=4: there are 3 GPUs here, give 1 to 3"),
        ("0", "devices=0: there are 3 GPUs here, give 1 to 3"),
        ("0,3", "devices=0,3: these are numbers of GPUs, and those here are 0, 1, 2"),
        ("1,1", "devices=1,1: these are numbers of GPUs, and those here are 0, 1, 2"),
    ],
)
def test_gpus_that_are_not_there(gpus, devices, line):
    with pytest.raises(UserError, match=f"^{line}$"):
        find_devices(True, devices)


def test_fp16_scales_its_losses(gpus):
    fabric, _ = make_fabric(find_devices(True, "1"), "fp16")
    assert fabric.strategy.precision.state_dict()["scale"] == 65536
    with fabric.autocast():
        assert torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.float16


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_batches_for_a_gpu_come_from_pinned_memory(monkeypatch, kind):
    made = []

    class PinnedLoader(torch.utils.data.DataLoader):
        def __init__(self, *args, pin_memory: bool, **more):
            made.append(pin_memory)
            super().__init__(*args, **more)  # pinning needs a GPU

    monkeypatch.setattr(training.loader, "DataLoader", PinnedLoader)
    task = LineTask(parse(DefaultConfig, {"batch_size": 8}))
    fabric = SimpleNamespace(device=torch.device(kind), global_rank=0, world_size=1, to_device=lambda batch: batch)
    loader = Loader(fabric, task, 0, print)
    assert len(list(loader.batches(task.train_set, task.train_batches(0)))) == 4
    assert made == [kind == "cuda"]


def test_conversion_to_synchronised_batchnorm(tmp_path):
    """The same network: names, parameters that the optimizer has, results, a file that loads without it."""
    given = {"task": "dogcat", "backbone": "mobilenet_v2", "pretrained": "none", "dropout": 0, "use_gpu": False}
    given["sync_bn"] = True
    task = make_task(parse(DogCatConfig, given))
    names, batch = list(task.model.state_dict()), task.trial_batch(64)
    before = task.step(task.model.train(), batch)["objective"]
    task.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(task.model)
    groups = parameter_groups(task.model, 0.01)
    kinds = {type(module) for module in task.model.modules()}
    assert torch.nn.SyncBatchNorm in kinds and torch.nn.BatchNorm2d not in kinds
    assert list(task.model.state_dict()) == names and isinstance(task.model, BACKBONES["mobilenet_v2"])
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in task.model.parameters()}
    after = task.step(task.model.train(), batch)["objective"]
    torch.testing.assert_close(after, before)
    task.model.save(tmp_path / "a.safetensors")
    plain = BACKBONES["mobilenet_v2"].load(tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(plain[name], tensor) for name, tensor in task.model.state_dict().items())
