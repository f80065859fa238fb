"""What the machine cannot do is found out, and told in one line, before anything starts: precision, cores, memory."""

import json

import numpy as np
import pytest
import torch

import infer.painting.tiles
import main
import training.devices
from config import TASKS, DogCatConfig, PoetConfig, StyleConfig
from infer.painting.tiles import Painter, painting_precision
from models import BACKBONES
from models.transformer_net import StyleNetworks, TransformerNet
from options import parse
from tasks import make_task
from tests.servers import ROOT
from tests.training import Process, arguments, options, write_corpus
from training.devices import Devices, check_batch, find_devices, sample_memory, trial_step, try_step
from utils import hardware
from utils.errors import UserError
from utils.images import save_image

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}  # a CPU of that kind, whatever this one is


def tiny(task: str, **more):
    """A task with a small network on the embedded data."""
    cls, small = {
        "poet": (PoetConfig, {"hidden": 16, "embed": 12, "attention": 12}),
        "style": (StyleConfig, {"width": 0.2, "loss_network": "classifier"}),
        "dogcat": (DogCatConfig, {"backbone": "mobilenet_v2", "pretrained": "none"}),
    }[task]
    return make_task(parse(cls, {"task": task, "use_gpu": False, "precision": "fp32", **small, **more}))


@pytest.fixture(scope="module", params=["poet row_length", "style image_size", "dogcat image_size"])
def task(request):
    """A tiny task whose samples have a size of 100."""
    name, size = request.param.split()
    return tiny(name, **{size: 100})


def cli(capfd, *words: str) -> tuple[int, str]:
    code = main.main(list(words))
    return code, capfd.readouterr().err


# ------------------------------------------------------------------------------------------------------- precision


@pytest.mark.processor
@pytest.mark.parametrize("command, precision", [("train", "bf16"), ("find_lr", "fp16")])
def test_an_lstm_in_16_bits_without_avx512_is_one_line_before_the_training(tmp_path, command, precision):
    write_corpus(tmp_path / "corpus.jsonl")
    given = options(tmp_path, run="a", precision=precision)
    process = Process(arguments(command, **given), tmp_path / "out", **AVX2)
    assert process.wait() == 2, process.out.read_text()
    line = f"error: --precision={precision}: this CPU cannot compute the network in {precision}; use precision=fp32\n"
    assert process.out.read_text() == line and not (tmp_path / "a").exists()


@pytest.mark.processor
@pytest.mark.parametrize("backbone", ["lstm", "transformer"])
def test_auto_picks_what_can_be(monkeypatch, backbone):
    monkeypatch.setattr(hardware, "bf16_speedup", lambda: 3.0)  # though it is fast here
    task = tiny("poet", precision="auto", backbone=backbone)
    try:
        trial_step(task, "bf16", "cpu")
        expected, why = "bf16", "is 3.0 times as fast as in fp32 here"
    except RuntimeError:
        expected, why = "fp32", "this CPU cannot compute the network in bf16"
    assert expected == "bf16" or backbone == "lstm"
    precision, told, _ = try_step(task, "auto", find_devices(False, "1"))
    assert precision == expected and why in told


def _cannot(*args, **more):
    raise RuntimeError("could not create a primitive descriptor for the convolution forward propagation primitive")


@pytest.mark.parametrize("command", ["stylize", "optimize", "classify"])
def test_a_network_that_paints_or_judges_is_tried_too(tmp_path, capfd, monkeypatch, command):
    photo, model = str(tmp_path / "a.png"), f"--load={tmp_path / 'net.safetensors'}"
    save_image(photo, np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    words = ["classify" if command == "classify" else "stylize", photo, "--precision=bf16"]
    if command == "classify":
        BACKBONES["lenet"](["cat", "dog"]).save(tmp_path / "net.safetensors", image_size=32)
        monkeypatch.setattr("infer.photo.classify.outputs_of", _cannot)
        words += [model]
    elif command == "stylize":
        StyleNetworks({"a": {"channels": (4, 4, 4), "blocks": 1}}).save(tmp_path / "net.safetensors")
        monkeypatch.setattr(infer.painting.tiles.F, "conv2d", _cannot)
        words += [model]
    else:
        monkeypatch.setattr("infer.painting.optimize.optimize", _cannot)
        words += ["--method=optimize", f"--style_image={photo}", "--loss_network=classifier"]
    line = "error: --precision=bf16: this CPU cannot compute the network in bf16; use precision=fp32\n"
    assert cli(capfd, *words) == (2, line)
    assert [path.name for path in tmp_path.glob("*.png")] == ["a.png"]


@pytest.mark.processor
def test_the_painter_is_tried_as_it_paints(monkeypatch):
    """In bf16 it can paint on every CPU."""
    model = TransformerNet((4, 4, 4), blocks=1).eval()
    assert painting_precision("bf16", model) == ("bf16", "asked for")
    monkeypatch.setattr(infer.painting.tiles.F, "conv2d", _cannot)
    monkeypatch.setattr(hardware, "bf16_speedup", lambda: 3.0)
    assert painting_precision("auto", model) == ("fp32", "this CPU cannot compute the network in bf16")


def test_a_trial_changes_nothing(task):
    """Neither weights and running statistics, nor gradients, nor what is drawn next."""
    before, random = {k: v.clone() for k, v in task.model.state_dict().items()}, torch.get_rng_state()
    assert trial_step(task, "fp32", "cpu").memory > 0
    assert all(torch.equal(before[k], v) for k, v in task.model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and all(p.grad is None for p in task.model.parameters())


# ------------------------------------------------------------------------------------------------------- trial runs


@pytest.mark.parametrize("name, samples", [("poet", "poems"), ("dogcat", "pictures")])
def test_a_trial_judges_one_batch_and_leaves_nothing(name, samples, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = ROOT / "checkpoints" / f"{name}.safetensors"
    words = ["val", f"--task={name}", f"--load={model}", "--fast_dev_run", "--json"]
    assert main.main(words) == 0
    assert 1 < json.loads(capsys.readouterr().out)[samples] <= TASKS[name].batch_size
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------- memory


def test_the_memory_of_a_sample_follows_from_small_ones(task):
    found = sample_memory(task, 224, "fp32", trial_step(task, "fp32", "cpu").memory)
    assert found == pytest.approx(trial_step(task, "fp32", "cpu", 224).memory, rel=0.1)


def test_a_batch_that_cannot_fit_is_refused(task, monkeypatch):
    trial = trial_step(task, "fp32", "cpu")
    samples, one = task.train_size, sample_memory(task, 100, "fp32", trial.memory)
    fixed = 16 * task.model.parameter_count()
    for module in (hardware, training.devices):
        monkeypatch.setattr(module, "free_memory", lambda: fixed + share * samples * one)
    share = 1.1
    check_batch(task, 10**6, Devices("cpu", [0], False, 1), "fp32", trial)  # never more samples than there are
    share = 0.9
    needs = rf"^batch_size=1000000: a step with {task.size_option}=100 needs some .* GB of memory, and "
    with pytest.raises(UserError, match=needs):
        check_batch(task, 10**6, Devices("cpu", [0], False, 1), "fp32", trial)
    with pytest.raises(UserError, match="are free: a sample takes"):
        check_batch(task, 10**6, Devices("cpu", [0, 1], False, 1), "fp32", trial)


@pytest.mark.parametrize("tile", [10**6, 0])
def test_a_tile_that_cannot_fit_is_refused(tile, monkeypatch):
    model = TransformerNet((4, 4, 4), blocks=1).eval()
    photo = np.random.default_rng(0).integers(0, 256, (1, 300, 200, 3), np.uint8)
    if not tile:  # then it depends on the picture
        monkeypatch.setattr(hardware, "free_memory", lambda: 2 * 4 * 4 * 300 * 200 - 1)
    side = "1000000 x 1000000" if tile else "200 x 300"
    with pytest.raises(UserError, match=rf"^a tile of {side} pixels needs some .* are free: give a smaller tile"):
        Painter(model, tile=tile).paint(photo)


def test_free_memory_is_that_of_the_system_or_of_the_container(tmp_path, monkeypatch):
    info, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "Path", lambda path: {"/proc/meminfo": info}.get(path, limit))
    assert hardware.free_memory() == float("inf")
    info.write_text("MemTotal:       99 kB\nMemAvailable:   1000 kB\n")
    assert hardware.free_memory() == 1_024_000
    (tmp_path / "memory.current").write_text("200\n")
    for text, expected in (("max\n", 1_024_000), ("1000\n", 800)):
        limit.write_text(text)
        assert hardware.free_memory() == expected


# ----------------------------------------------------------------------------------------------------------- cores


@pytest.mark.parametrize(
    "cores, words, line",
    [
        (2, "train --devices=99", "--devices=99: this machine has 2 cores, give 1 to 2"),
        (4, "train --devices=0", "--devices=0: this machine has 4 cores, give 1 to 4"),
        (2, "train --num_workers=500", "--num_workers=500: this machine has 2 cores, for 8 such processes at most"),
        (2, "classify README.md --num_workers=9", "--num_workers=9: this machine has 2 cores, for 8 such"),
    ],
)
def test_more_processes_than_cores_are_refused_first(monkeypatch, capfd, cores, words, line):
    for module in (hardware, training.devices):
        monkeypatch.setattr(module, "cores", lambda: cores)
    code, told = cli(capfd, *words.split(), *([] if "classify" in words else ["--use_gpu=false"]))
    assert code == 2 and told.startswith(f"error: {line}") and told.count("\n") == 1
